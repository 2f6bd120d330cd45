"""Small DICOM series written by pydicom, as scanners and archives have them, for the tests of reading.

Where the DICOM standard leaves a choice, the default is what TCIA's chest CTs look like: one slice a file, signed 16
bits, rescale intercept -1024. Compressed pixels are made by pydicom (RLE) and GDCM (all JPEG families).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import gdcm
import numpy as np
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.pixels import get_encoder
from pydicom.uid import (
    UID,
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    RLELossless,
    generate_uid,
)

from tests.scan_files import ORIGIN_MM, SPACING_MM

Extra = Callable[[Dataset, int], object]
STRAIGHT = np.eye(3)


def uid(*names: object) -> str:
    """The UID that things of this name have in the files that are written here, always the same."""
    return generate_uid(entropy_srcs=[repr(names)])


def write_series(
    folder: Path,
    array: np.ndarray,
    *,
    series: str = "chest",
    patient: str = "P1",
    spacing_mm: Sequence[float] = SPACING_MM,
    origin_mm: Sequence[float] = ORIGIN_MM,
    direction: np.ndarray = STRAIGHT,
    transfer_syntax: str = ExplicitVRLittleEndian,
    slope: float = 1,
    intercept: float = -1024,
    bits_stored: int = 16,
    signed: bool = True,
    modality: str = "CT",
    shuffle: bool = False,
    extra: Extra | None = None,
) -> list[Path]:
    """Write an array (z, y, x) in HU as one file per slice; the paths in the order of z.

    The columns of `direction` are the unit vectors of x, y and z in LPS; a third one that is not at right angles to
    the others makes the series of a tilted gantry. SeriesInstanceUID is `uid(series)`. With `shuffle` neither names
    nor instance numbers follow z. `extra(ds, z)` may change a slice's data set just before it is written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    number = np.random.default_rng(5).permutation(len(array)) if shuffle else np.arange(len(array))
    direction = np.asarray(direction, float)
    paths = []
    for z, plane in enumerate(array):
        ds = _data_set(CTImageStorage, series, patient, z, modality)
        ds.InstanceNumber = int(number[z]) + 1
        ds.PixelSpacing = [spacing_mm[1], spacing_mm[0]]
        ds.SliceThickness = spacing_mm[2]
        ds.ImagePositionPatient = _numbers(origin_mm + z * spacing_mm[2] * direction[:, 2])
        ds.ImageOrientationPatient = _numbers(direction[:, :2].T.ravel())
        ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType = slope, intercept, "HU"
        set_pixels(ds, stored(plane, slope, intercept), transfer_syntax, bits_stored, signed)
        paths.append(_write(folder / f"{number[z]:03d}.dcm", ds, z, extra))
    return paths


def write_multiframe(
    path: Path,
    array: np.ndarray,
    *,
    series: str = "chest",
    patient: str = "P1",
    spacing_mm: Sequence[float] = SPACING_MM,
    origin_mm: Sequence[float] = ORIGIN_MM,
    direction: np.ndarray = STRAIGHT,
    transfer_syntax: str = ExplicitVRLittleEndian,
    slope: float = 1,
    intercept: float = -1024,
    order: Sequence[int] | None = None,
    per_frame: bool = False,
    extra: Extra | None = None,
) -> Path:
    """Write an array (z, y, x) in HU as one enhanced CT, whose frame i is the slice `order[i]`.

    What is the same for all frames stands in the shared functional groups or, with `per_frame`, again in each frame's.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    order = range(len(array)) if order is None else order
    direction = np.asarray(direction, float)
    ds = _data_set(EnhancedCTImageStorage, series, patient, path.name, "CT")
    measures, orientation, values = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [spacing_mm[1], spacing_mm[0]], spacing_mm[2]
    orientation.ImageOrientationPatient = _numbers(direction[:, :2].T.ravel())
    values.RescaleSlope, values.RescaleIntercept, values.RescaleType = slope, intercept, "HU"
    shared, frames = Dataset(), [Dataset() for _ in order]
    for z, frame in zip(order, frames, strict=True):
        place = Dataset()
        place.ImagePositionPatient = _numbers(origin_mm + z * spacing_mm[2] * direction[:, 2])
        frame.PlanePositionSequence = [place]
    for group in frames if per_frame else [shared]:
        group.PixelMeasuresSequence = [measures]
        group.PlaneOrientationSequence = [orientation]
        group.PixelValueTransformationSequence = [values]
    ds.SharedFunctionalGroupsSequence = [shared]
    ds.PerFrameFunctionalGroupsSequence = frames
    ds.NumberOfFrames = len(frames)
    set_pixels(ds, stored(array[list(order)], slope, intercept), transfer_syntax)
    return _write(path, ds, 0, extra)


def stored(hu: np.ndarray, slope: float, intercept: float) -> np.ndarray:
    """The whole numbers that stand for these HU."""
    return np.rint((hu.astype(np.float64) - intercept) / slope).astype(np.int64)


def set_pixels(
    ds: Dataset,
    values: np.ndarray,
    transfer_syntax: str = ExplicitVRLittleEndian,
    bits_stored: int = 16,
    signed: bool = True,
) -> None:
    """Give a data set these stored values (y, x) or (frame, y, x) as its pixels, in 1, 2 or 4 bytes each."""
    syntax = UID(transfer_syntax)
    ds.file_meta.TransferSyntaxUID = syntax
    size = next(size for size in (1, 2, 4) if bits_stored <= 8 * size)
    ds.Rows, ds.Columns = values.shape[-2:]
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 8 * size, bits_stored, bits_stored - 1
    ds.PixelRepresentation = int(signed)
    order = "<" if syntax.is_encapsulated or syntax.is_little_endian else ">"
    typed = values.astype(f"{order}{'i' if signed else 'u'}{size}")
    if syntax.is_encapsulated:
        frames = typed.reshape(-1, *typed.shape[-2:])
        ds.PixelData = encapsulate([_compressed(frame, ds, syntax) for frame in frames])
    else:
        content = typed.tobytes()
        ds.PixelData = content + b"\0" * (len(content) % 2)
    ds["PixelData"].VR = "OB" if syntax.is_encapsulated or size == 1 else "OW"
    ds["PixelData"].is_undefined_length = syntax.is_encapsulated


def _data_set(sop_class: str, series: str, patient: str, name: object, modality: str) -> Dataset:
    ds = Dataset()
    ds.preamble, ds.file_meta = b"\0" * 128, FileMetaDataset()
    ds.SOPClassUID, ds.SOPInstanceUID = sop_class, uid(patient, series, name)
    ds.file_meta.FileMetaInformationGroupLength = 0  # pydicom writes what it is
    ds.file_meta.FileMetaInformationVersion = b"\0\1"
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.Modality, ds.PatientID, ds.PatientName = modality, patient, "Nobody"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = uid(patient), uid(series)
    ds.FrameOfReferenceUID = uid(patient, "frame")
    return ds


def _write(path: Path, ds: Dataset, index: int, extra: Extra | None) -> Path:
    if extra is not None:
        extra(ds, index)
    ds.save_as(path)  # as it is, also where the standard forbids it
    return path


def _numbers(values: np.ndarray) -> list[str]:
    """Decimal strings, at most 16 characters long as the standard wants them."""
    return [f"{value:.10g}"[:16] for value in np.asarray(values, float) + 0.0]


def _compressed(frame: np.ndarray, ds: Dataset, syntax: UID) -> bytes:
    """One frame (y, x), little-endian, as a stream of the transfer syntax."""
    if syntax == RLELossless:
        options = {"rows": ds.Rows, "columns": ds.Columns, "samples_per_pixel": 1, "number_of_frames": 1}
        options |= {"bits_allocated": ds.BitsAllocated, "bits_stored": ds.BitsStored}
        options |= {
            "pixel_representation": ds.PixelRepresentation,
            "photometric_interpretation": "MONOCHROME2",
        }
        return get_encoder(syntax).encode(frame.tobytes(), index=0, encoding_plugin="pydicom", **options)
    with TemporaryDirectory() as folder:
        # GDCM's Python objects do not keep one another alive: from file to file, and by names held until the end
        native = Dataset()
        native.file_meta = FileMetaDataset()
        native.SOPClassUID, native.SOPInstanceUID = CTImageStorage, "1.2.3"
        set_pixels(native, frame, ExplicitVRLittleEndian, ds.BitsStored, bool(ds.PixelRepresentation))
        native.save_as(f"{folder}/native", enforce_file_format=True)
        reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
        reader.SetFileName(f"{folder}/native")
        change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(str(syntax))))
        done = reader.Read()
        image = reader.GetImage()
        change.SetInput(image)
        if not (done and change.Change()):
            raise ValueError(f"GDCM cannot write {syntax.name}")
        compressed = change.GetOutput()
        writer.SetFileName(f"{folder}/compressed")
        writer.SetFile(reader.GetFile())
        writer.SetImage(compressed)
        writer.Write()
        return get_frame(dcmread(f"{folder}/compressed").PixelData, 0, number_of_frames=1)
