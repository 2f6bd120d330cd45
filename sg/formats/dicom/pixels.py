"""The pixels of DICOM slices, decoded one slice at a time."""

from __future__ import annotations

import os
import struct
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder
from pydicom.pixels.utils import get_j2k_parameters
from pydicom.uid import UID, JPEG2000TransferSyntaxes

from sg.formats.dicom.datasets import guarded, opened
from sg.formats.dicom.frames import DECODERS, Pixels
from sg.formats.dicom.stacks import Slice, Stack
from sg.formats.files import AGAIN, Refusal

# Markers that begin a frame header of JPEG and JPEG-LS; the gaps are other tables
START_OF_FRAME = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
# What the JPEG decoder only prints where it goes on over damaged pixels, and makes some up
DAMAGE = (b"Corrupt JPEG data", b"Premature end of JPEG")
_error_output = threading.Lock()


def planes(stack: Stack) -> Iterator[np.ndarray]:
    """The slices (y, x) in HU from z = 0 on, of the stack's type; one of them in memory at a time. Raises Refusal."""
    for part in stack.slices:
        pixels = part.pixels
        with opened(part.path, part.name) as file:
            stored = b"".join(file.pixels(*piece) for piece in pixels.frames[part.frame])
            if DECODERS[pixels.syntax] == "gdcm":
                _check_precision(part.name, stored, pixels)
            why = f"its pixels cannot be decoded as {UID(pixels.syntax).name}"
            values = guarded(part.name, _decode, stored, pixels, why=why)
        yield _in_hu(values, part, stack.dtype)


def _decode(stored: bytes, pixels: Pixels) -> np.ndarray:
    """The stored values (y, x) of one frame."""
    plugin = DECODERS[pixels.syntax]
    options = {
        "rows": pixels.rows,
        "columns": pixels.columns,
        "samples_per_pixel": 1,
        "photometric_interpretation": "MONOCHROME2",
        "number_of_frames": 1,
        "bits_allocated": pixels.allocated,
        "bits_stored": pixels.stored,
        "pixel_representation": int(pixels.signed),
        "pixel_keyword": "PixelData",
        "decoding_plugin": plugin,
        "index": 0,
        "raw": True,
    }
    decoder = get_decoder(UID(pixels.syntax))
    if not plugin:
        return decoder.as_array(stored, **options)[0]
    frame = encapsulate([stored], has_bot=False)
    if plugin == "gdcm":
        with _heard() as said:
            values = decoder.as_array(frame, **options)[0]
        if any(words in said for words in DAMAGE):
            raise ValueError("the JPEG decoder met damaged data")
        return values
    with warnings.catch_warnings():
        # Run lengths that make more pixels than there are: only a warning to pydicom
        warnings.simplefilter("error")
        return decoder.as_array(frame, **options)[0]


@contextmanager
def _heard() -> Iterator[bytearray]:
    """What C libraries print to the error output meanwhile, filled in at the end; nobody else sees it."""
    said = bytearray()
    with _error_output, tempfile.TemporaryFile(buffering=0) as file:
        kept = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield said
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            said += file.read(1 << 16)


def _check_precision(name: str, stored: bytes, pixels: Pixels) -> None:
    """Refuse a compressed frame with more bits than the header has room for: decoders cut them off, or break down."""
    bits = _precision(stored, pixels)
    if bits > pixels.allocated:
        raise Refusal(
            "damaged",
            f"The compressed pixels of {name} have {bits} bits, the header has room for {pixels.allocated}; {AGAIN}.",
        )


def _precision(stored: bytes, pixels: Pixels) -> int:
    """Bits of a value as the compressed frame itself says; 0 where it does not."""
    if pixels.syntax in JPEG2000TransferSyntaxes:
        return get_j2k_parameters(stored).get("precision", 0)
    position = 2  # behind the marker that begins the image
    while position + 5 <= len(stored) and stored[position] == 0xFF:
        if stored[position + 1] in START_OF_FRAME:
            return stored[position + 4]
        position += 2 + struct.unpack_from(">H", stored, position + 2)[0]
    return 0


def _in_hu(values: np.ndarray, part: Slice, dtype: np.dtype) -> np.ndarray:
    if dtype.kind == "f":
        with np.errstate(over="ignore"):  # infinite values are counted by whoever reads the scan
            return (values * part.slope + part.intercept).astype(dtype)
    # What wraps around on the way comes back, since the result fits the type
    slope, intercept = np.array([int(part.slope), int(part.intercept)]).astype(dtype)
    hu = values.astype(dtype)
    hu *= slope
    hu += intercept
    return hu
