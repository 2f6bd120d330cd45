"""What a DICOM file says it is: its series, its patient, and whether it is an image of a volume at all."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydicom.datadict import tag_for_keyword

from sg.formats.dicom.datasets import Fields, opened, parse
from sg.formats.files import Refusal

SUFFIXES = (".dcm", ".dicom", ".ima")
KEYWORDS = (
    "ImageType", "SOPClassUID", "SOPInstanceUID", "Modality", "PatientID", "StudyInstanceUID", "SeriesInstanceUID",
)  # fmt: skip
TAGS = tuple(tag_for_keyword(keyword) for keyword in KEYWORDS)
STORAGE = "1.2.840.10008.5.1.4.1.1."
# By how SOPClassUID begins: what is no image of a volume. Source: DICOM PS3.6, table A-1
CLASSES = {
    "1.2.840.10008.1.3.10": "DICOMDIR",
    f"{STORAGE}7": "secondary capture",
    f"{STORAGE}9": "waveform",
    f"{STORAGE}11": "presentation state",
    f"{STORAGE}66": "registration",
    f"{STORAGE}66.4": "SEG",
    f"{STORAGE}66.5": "surface segmentation",
    f"{STORAGE}66.7": "SEG",
    f"{STORAGE}67": "real world value mapping",
    f"{STORAGE}88": "structured report",
    f"{STORAGE}88.59": "key object selection",
    f"{STORAGE}88.67": "dose report",
    f"{STORAGE}88.68": "dose report",
    f"{STORAGE}88.73": "dose report",
    f"{STORAGE}88.76": "dose report",
    f"{STORAGE}104": "document",
    f"{STORAGE}481": "radiotherapy object",
    f"{STORAGE}481.2": "RTDOSE",
    f"{STORAGE}481.3": "RTSTRUCT",
    f"{STORAGE}481.5": "RTPLAN",
}
# By Modality, where SOPClassUID is missing
MODALITIES = {
    "SEG": "SEG", "RTSTRUCT": "RTSTRUCT", "RTDOSE": "RTDOSE", "RTPLAN": "RTPLAN", "SR": "structured report",
    "PR": "presentation state", "KO": "key object selection", "REG": "registration", "DOC": "document",
}  # fmt: skip


@dataclass(frozen=True)
class Instance:
    """A DICOM file. Texts are empty where the file does not give them."""

    path: Path
    series: str  # SeriesInstanceUID
    uid: str  # SOPInstanceUID
    study: str  # StudyInstanceUID
    patient: str  # PatientID
    modality: str
    kind: str  # empty for an image of a volume, of CT or another modality; else what the file is instead


def looks_like_dicom(path: Path) -> bool:
    """Whether the file has the mark of DICOM, or at least its name. Reads 132 bytes at most."""
    if path.name.lower().endswith(SUFFIXES):
        return True
    try:
        if not path.is_file():
            return False
        with open(path, "rb", buffering=0) as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def read_instance(path: Path) -> Instance:
    """What the first part of the header says; nothing behind it is read. Raises Refusal.

    Anonymised files may lack any of it. Files without a series belong together by where they lie.
    """
    with opened(path, path.name) as file:
        fields = parse(file, TAGS, max(TAGS))
    return instance(path, fields)


def instance(path: Path, fields: Fields) -> Instance:
    """What a data set that holds TAGS says it is."""
    meta = Fields(fields.data.file_meta, fields.name)
    modality = fields.text("Modality")
    sop_class = fields.text("SOPClassUID") or meta.text("MediaStorageSOPClassUID")
    if not (modality or sop_class):
        raise Refusal(
            "header", f"The header of {fields.name} does not say what the file is: it gives no Modality."
        )
    return Instance(
        path=path,
        series=fields.text("SeriesInstanceUID"),
        uid=fields.text("SOPInstanceUID") or meta.text("MediaStorageSOPInstanceUID"),
        study=fields.text("StudyInstanceUID"),
        patient=fields.text("PatientID"),
        modality=modality,
        kind=_kind(sop_class, modality, fields.texts("ImageType")),
    )


def _kind(sop_class: str, modality: str, image_type: list[str]) -> str:
    if not sop_class and modality in MODALITIES:
        return MODALITIES[modality]
    while sop_class:
        if sop_class in CLASSES:
            return CLASSES[sop_class]
        sop_class = sop_class.rpartition(".")[0]
    return "localizer" if "LOCALIZER" in image_type else ""
