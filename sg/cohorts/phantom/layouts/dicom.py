"""A scan as a DICOM series, one file a slice, as chest CTs lie in The Cancer Imaging Archive.

What de-identification leaves there is left here: blank names and times, the date 2000-01-01. Slices are numbered from
the head down. Some series are compressed without loss (RLE), some hold unsigned 12-bit values, as makers differ.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels import get_encoder
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, RLELossless
from pydicom.valuerep import format_number_as_ds

from sg.cohorts.phantom.layouts import draw_uid
from sg.cohorts.phantom.rendering import Scan

# Of this writer, so that no file says which version of a library wrote it
IMPLEMENTATION_UID = "2.25.190746235164120946193172085023712840641"
IMPLEMENTATION = "SG_PHANTOM"
INTERCEPT = -1024
COMPRESSED, UNSIGNED = 0.3, 0.4  # shares of the series
DATE = "20000101"
KERNELS = {"smooth": "SOFT", "standard": "STANDARD", "sharp": "LUNG"}


@dataclass(frozen=True)
class Names:
    """Who and what a series is."""

    patient: str
    study: str
    series: str


@dataclass(frozen=True)
class Slice:
    """A written slice: `k` is its number along the stored array, `z` its position's z as the file has it."""

    k: int
    uid: str
    z: str


def write_series(
    folder: Path, scan: Scan, names: Names, collection: str, rng: np.random.Generator
) -> list[Slice]:
    """Write the scan into the folder as 1-001.dcm and so on; the slices in the order of the stored array."""
    grid = scan.grid
    array = grid.stored(scan.hu)
    header = _header(scan, names, collection, rng)
    syntax = RLELossless if rng.random() < COMPRESSED else ExplicitVRLittleEndian
    uids = [draw_uid(rng) for _ in array]
    direction, step = grid.direction, grid.spacing_mm[2]
    down = direction[2, 2] > 0  # the stored array begins at the feet
    width = max(3, len(str(len(array))))
    slices = []
    for k, uid in enumerate(uids):
        number = len(array) - k if down else k + 1
        position = [decimal(v) for v in grid.origin_mm + direction[:, 2] * (step * k)]
        header.SOPInstanceUID, header.InstanceNumber = uid, number
        header.ImagePositionPatient, header.SliceLocation = position, position[2]
        _set_pixels(header, array[k], syntax)
        (folder / f"1-{number:0{width}d}.dcm").write_bytes(_file(header, uid, syntax))
        slices.append(Slice(k, uid, position[2]))
    return slices


def decimal(value: float) -> str:
    """A decimal string: six places, as scanners write, where these are exact; else all that 16 characters hold."""
    value = round(float(value), 12) + 0.0
    return f"{value:.6f}" if abs(value - round(value, 6)) < 1e-9 else format_number_as_ds(value)


def _header(scan: Scan, names: Names, collection: str, rng: np.random.Generator) -> Dataset:
    """All that the slices of a series share."""
    acquired, grid = scan.acquisition, scan.grid
    x, y, _ = grid.spacing_mm
    padding = acquired.padding_hu
    unsigned = rng.random() < UNSIGNED and (padding is None or padding >= INTERCEPT)
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.SOPClassUID = CTImageStorage
    ds.SOPInstanceUID = ""
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = DATE
    ds.StudyTime = ds.AcquisitionTime = ds.ContentTime = ""
    ds.AccessionNumber = ""
    ds.Modality = "CT"
    ds.Manufacturer = "synthetic"
    ds.ReferringPhysicianName = ""
    ds.ManufacturerModelName = "phantom, not a patient"
    ds.PatientName = ""
    ds.PatientID = names.patient
    ds.PatientBirthDate = ds.PatientSex = ds.PatientAge = ""
    ds.PatientIdentityRemoved = "YES"
    ds.DeidentificationMethod = "synthetic, nobody to identify"
    block = ds.private_block(0x0013, "CTP", create=True)
    block.add_new(0x10, "LO", collection)
    if acquired.phase != "none":
        ds.ContrastBolusAgent = "IV"
    ds.BodyPartExamined = "CHEST"
    ds.ScanOptions = "HELICAL MODE"
    ds.SliceThickness = decimal(acquired.thickness_mm)
    ds.KVP = "120"
    ds.ReconstructionDiameter = decimal(round(x * grid.size[0], 3))
    ds.GantryDetectorTilt = "0.000000"
    ds.ConvolutionKernel = KERNELS[acquired.kernel]
    ds.PatientPosition = "FFS"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = names.study, names.series
    ds.StudyID = ""
    ds.SeriesNumber = int(rng.integers(3000000, 3001000))
    ds.InstanceNumber = 0
    ds.ImagePositionPatient = ["0", "0", "0"]
    ds.ImageOrientationPatient = [decimal(v) for v in grid.direction[:, :2].T.ravel()]
    ds.FrameOfReferenceUID = draw_uid(rng)
    ds.PositionReferenceIndicator = "SN"
    ds.SliceLocation = "0"
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.Rows, ds.Columns = grid.size[1], grid.size[0]
    ds.PixelSpacing = [decimal(y), decimal(x)]
    ds.BitsAllocated = 16
    ds.BitsStored = 12 if unsigned else 16
    ds.HighBit = ds.BitsStored - 1
    ds.PixelRepresentation = 0 if unsigned else 1
    if padding is not None:
        ds.add_new("PixelPaddingValue", "US" if unsigned else "SS", padding - INTERCEPT)
    ds.WindowCenter, ds.WindowWidth = "-600", "1600"
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = str(INTERCEPT), "1", "HU"
    return ds


def _set_pixels(ds: Dataset, plane: np.ndarray, syntax: str) -> None:
    """A slice (y, x) in HU as the data set's pixels."""
    stored = (plane.astype(np.int32) - INTERCEPT).astype("<i2" if ds.PixelRepresentation else "<u2")
    if syntax == ExplicitVRLittleEndian:
        ds.PixelData = stored.tobytes()
        ds["PixelData"].VR = "OW"
        ds["PixelData"].is_undefined_length = False
        return
    frame = get_encoder(syntax).encode(
        stored,
        encoding_plugin="gdcm",  # the other one takes ten times as long
        rows=ds.Rows,
        columns=ds.Columns,
        samples_per_pixel=1,
        number_of_frames=1,
        bits_allocated=16,
        bits_stored=ds.BitsStored,
        pixel_representation=ds.PixelRepresentation,
        photometric_interpretation=ds.PhotometricInterpretation,
    )
    ds.PixelData = encapsulate([frame])
    ds["PixelData"].VR = "OB"
    ds["PixelData"].is_undefined_length = True


def _file(ds: Dataset, uid: str, syntax: str) -> bytes:
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID = CTImageStorage
    ds.file_meta.MediaStorageSOPInstanceUID = uid
    ds.file_meta.TransferSyntaxUID = syntax
    ds.file_meta.ImplementationClassUID = IMPLEMENTATION_UID
    ds.file_meta.ImplementationVersionName = IMPLEMENTATION
    stream = io.BytesIO()
    ds.save_as(stream, enforce_file_format=True)
    return stream.getvalue()
