"""Where in a DICOM file the pixels of each frame lie, and how they are stored.

Libraries read a file that was cut as if it were whole, or leave it out without a word. Here the pixels must have the
length that the header explains, the pieces of compressed ones must join, and the file must end where its data set does.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace

from pydicom.dataelem import RawDataElement
from pydicom.filereader import data_element_generator
from pydicom.uid import (
    JPEG2000,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from sg.formats.dicom.datasets import Fields, Source, cut, guarded
from sg.formats.files import AGAIN, Refusal

PIXEL_DATA = 0x7FE00010
BEFORE_PIXELS = 0x7FE00007  # the last tag that can stand in front of any kind of pixels
# The transfer syntaxes that are read, and pydicom's plugin for each, named so that no result depends on what else is
# installed; empty where the pixels are not compressed
DECODERS = {
    ImplicitVRLittleEndian: "",
    ExplicitVRLittleEndian: "",
    ExplicitVRBigEndian: "",
    RLELossless: "pydicom",
    JPEGLossless: "gdcm",
    JPEGLosslessSV1: "gdcm",
    JPEGLSLossless: "gdcm",
    JPEGLSNearLossless: "gdcm",
    JPEG2000Lossless: "gdcm",
    JPEG2000: "gdcm",
}
UNDEFINED = 0xFFFFFFFF  # a length
ITEM, SEQUENCE_END = (0xFFFE, 0xE000), (0xFFFE, 0xE0DD)

Piece = tuple[int, int]  # first byte, number of bytes
Frames = tuple[tuple[Piece, ...], ...]


@dataclass(frozen=True)
class Pixels:
    """How the pixels of a file are stored, and where."""

    syntax: str  # transfer syntax UID
    rows: int
    columns: int
    allocated: int  # bits: 8, 16 or 32
    stored: int  # bits that count, the lowest of them
    signed: bool
    frames: Frames  # the pieces of every frame

    @property
    def frame_bytes(self) -> int:
        return self.rows * self.columns * self.allocated // 8


def locate(file: Source, fields: Fields, syntax: str, frames: int) -> Pixels:
    """Where the pixels are; the file stands in front of them. Refusal where they are not all there, to the last byte."""
    big = syntax == ExplicitVRBigEndian
    length, vr = _pixel_element(file, ">" if big else "<")
    pixels = _format(fields, syntax)
    if big and pixels.allocated == 8 and vr == b"OW":
        raise Refusal("format", f"The pixels of {file.title} are bytes swapped in pairs, which are not read.")
    start = file.tell()
    if (length == UNDEFINED) == (not DECODERS[syntax]):
        raise Refusal(
            "damaged", f"The pixels of {file.title} are not stored as its transfer syntax says; {AGAIN}."
        )
    if DECODERS[syntax]:
        pieces, end = _encapsulated(file, fields, frames)
    else:
        pieces, end = _native(file, pixels, frames, start, length), start + length
    _check_end(file, end, implicit=not vr, big=big)
    return replace(pixels, frames=pieces)


def _pixel_element(file: Source, order: str) -> tuple[int, bytes]:
    """The length of the pixels that follow, and their value representation: empty where the header has none."""
    start = file.tell()
    head = file.read(12)
    if len(head) < 12:
        raise cut(file.title)
    tag = struct.unpack(f"{order}HH", head[:4])
    if tag != (PIXEL_DATA >> 16, PIXEL_DATA & 0xFFFF):
        raise Refusal(
            "format", f"The file {file.title} holds no pixels that are whole numbers, so it is no CT slice."
        )
    # Without a representation these bytes are the length's, and its lowest bit is 0
    if head[4:6] in (b"OB", b"OW", b"UN"):
        return struct.unpack(f"{order}L", head[8:])[0], head[4:6]
    file.seek(start + 8)
    return struct.unpack(f"{order}L", head[4:8])[0], b""


def _format(fields: Fields, syntax: str) -> Pixels:
    kind = fields.text("PhotometricInterpretation")
    samples = fields.whole("SamplesPerPixel")
    if (kind, samples) != ("MONOCHROME2", 1):
        raise Refusal(
            "format", f"{fields.name} is a picture of kind {kind or 'unknown'} with {samples} values a pixel."
        )
    allocated, stored = fields.whole("BitsAllocated"), fields.whole("BitsStored")
    high, signed = fields.whole("HighBit"), fields.whole("PixelRepresentation")
    widths = (8, 16) if DECODERS[syntax] else (8, 16, 32)
    if allocated not in widths:
        raise Refusal(
            "format",
            f"The pixels of {fields.name} have {allocated} bits; {' or '.join(map(str, widths))} are read.",
        )
    # The standard fixes the highest bit, so here it tells that one of the two numbers is wrong
    if not (1 <= stored <= allocated and high == stored - 1 and signed in (0, 1)):
        raise Refusal(
            "header",
            f"The header of {fields.name} contradicts itself: {stored} of {allocated} bits count, the highest being "
            f"number {high}, sign {signed}; {AGAIN}.",
        )
    rows, columns = fields.whole("Rows"), fields.whole("Columns")
    if not (rows > 0 and columns > 0):
        raise Refusal(
            "header", f"The header of {fields.name} claims {columns} x {rows} pixels, which cannot be."
        )
    return Pixels(syntax, rows, columns, allocated, stored, bool(signed), ())


def _native(file: Source, pixels: Pixels, frames: int, start: int, length: int) -> Frames:
    """The pieces of frames that lie one behind the other."""
    wanted = frames * pixels.frame_bytes
    if length not in (wanted, wanted + wanted % 2):
        rule = "truncated" if length < wanted else "surplus"
        raise Refusal(
            rule,
            f"The header of {file.title} claims {pixels.columns} x {pixels.rows} pixels of {pixels.allocated} bits in "
            f"{frames} frames, {wanted:,} bytes, and then that they take {length:,}; {AGAIN}.",
        )
    return tuple(((start + i * pixels.frame_bytes, pixels.frame_bytes),) for i in range(frames))


def _encapsulated(file: Source, fields: Fields, frames: int) -> tuple[Frames, int]:
    """The pieces of compressed frames, and where the sequence of them ends."""
    table: bytes | None = None
    pieces: list[Piece] = []
    while True:
        head = file.read(8)
        if len(head) < 8:
            raise cut(file.title)
        group, element, length = struct.unpack("<HHL", head)
        if (group, element) == SEQUENCE_END and length == 0:
            break
        if (group, element) != ITEM:
            raise Refusal(
                "damaged", f"The pieces of compressed pixels in {file.title} are out of joint; {AGAIN}."
            )
        start = file.tell()
        if start + length > file.length:
            raise cut(file.title)
        if table is None:
            table = file.read(length)
        else:
            pieces.append((start, length))
            file.seek(start + length)
    return _by_frame(file.title, pieces, _starts(fields, table or b""), frames), file.tell()


def _starts(fields: Fields, table: bytes) -> tuple[int, ...]:
    """Where each frame starts, in bytes behind the first piece's, as either table of offsets has it; may be empty."""
    extended = fields.value("ExtendedOffsetTable")
    code, size, table = ("<L", 4, table) if not isinstance(extended, bytes) else ("<Q", 8, extended)
    if len(table) % size:
        raise Refusal(
            "damaged", f"The table of frames in {fields.name} has a length that cannot be; {AGAIN}."
        )
    return tuple(start for (start,) in struct.iter_unpack(code, table))


def _by_frame(name: str, pieces: list[Piece], starts: tuple[int, ...], frames: int) -> Frames:
    """The pieces that make up each frame."""
    if frames == 1 and pieces and len(starts) <= 1:
        return (tuple(pieces),)
    if not starts:
        if len(pieces) == frames:
            return tuple((piece,) for piece in pieces)
        raise Refusal(
            "damaged", f"{name} holds {len(pieces)} pieces of compressed pixels for {frames} frames; {AGAIN}."
        )
    first = pieces[0][0] if pieces else 0
    number = {start - first: i for i, (start, _) in enumerate(pieces)}
    cuts = [number.get(start, -1) for start in starts]
    if len(cuts) != frames or cuts[0] != 0 or cuts != sorted(set(cuts)):
        raise Refusal(
            "damaged", f"The table of frames in {name} does not fit the frames that are there; {AGAIN}."
        )
    return tuple(tuple(pieces[a:b]) for a, b in zip(cuts, [*cuts[1:], len(pieces)], strict=True))


def _check_end(file: Source, end: int, implicit: bool, big: bool) -> None:
    """Refuse a file that ends before its pixels do, or goes on behind them with what is no data set."""
    if end > file.length:
        raise Refusal(
            "truncated",
            f"The file {file.title} is cut: its pixels end at byte {end:,}, the file at {file.length:,}; {AGAIN}.",
        )
    if end == file.length:
        return
    file.seek(end)

    def no_follower(tag: int, vr: str | None, length: int) -> bool:
        return int.__le__(tag, PIXEL_DATA)

    behind = guarded(file.title, list, data_element_generator(file, implicit, not big, no_follower))
    if behind and isinstance(behind[-1], RawDataElement):
        end = behind[-1].value_tell + behind[-1].length
    elif behind:  # a sequence that says where it ends
        end = file.tell()
    if end > file.length:
        raise cut(file.title)
    if end < file.length:
        raise Refusal("surplus", f"Something else follows the pixels in {file.title}; {AGAIN}.")
