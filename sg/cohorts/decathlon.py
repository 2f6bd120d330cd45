"""The Medical Segmentation Decathlon's layout: dataset.json, imagesTr, labelsTr, imagesTs.

Source: http://medicaldecathlon.com. A case is a patient. The liver task is LiTS, whose cases the published study of
transfer splits by number: 0-99 train, 100-114 validation, 115-129 test; other tasks have no split of their own.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from sg.cohorts.folder import Listing, Refused, check_table, survey_without_dicom
from sg.cohorts.records import Entry
from sg.errors import InputError
from sg.params import Source
from sg.scans import stem_of, suffix_of

LIVER_SPLITS = {"train": range(100), "validation": range(100, 115), "test": range(115, 130)}


def list_decathlon(raw: Path, source: Source, workers: int) -> Listing:
    """The cases of dataset.json, labelled ones with their label map as truth, sorted by path.

    Test cases have no labels: they serve pre-training, or nothing. InputError where dataset.json cannot be understood.
    """
    folder = Path(source.path)
    where = raw / folder / "dataset.json"
    if where.exists():
        check_table(where, raw)
    training, test = _cases(where)
    listing = survey_without_dicom(raw, folder, "decathlon")
    there = {entry.path for entry in listing.entries}
    listing.entries = []
    for image, label in training:
        _add(listing, there, folder, image, label, where)
    if "pretrain" in source.use:
        for image in test:
            _add(listing, there, folder, image, None, where)
    elif test:
        listing.ignored["test case without labels"] += len(test)
    named = {folder / name for pair in training for name in pair} | {folder / name for name in test}
    if there - named:
        listing.ignored["scan that dataset.json does not name"] += len(there - named)
    listing.entries.sort(key=lambda entry: entry.path)
    return listing


def own_split(case: str) -> str | None:
    """The split of a liver case by its number (liver_7); None for case 130, which that study left out, and other tasks."""
    match = re.fullmatch(r"liver_([0-9]{1,3})", case)
    number = int(match[1]) if match else -1
    return next((split for split, cases in LIVER_SPLITS.items() if number in cases), None)


def _add(
    listing: Listing, there: set[Path], folder: Path, image: str, label: str | None, where: Path
) -> None:
    """Add a case, or set it aside where its files are missing or its names lead elsewhere."""
    for name in filter(None, (image, label)):
        path = Path(name)
        if path.is_absolute() or ".." in path.parts:
            reason = f"{where.name} names {name[:120]!r}, which is outside its own folder."
            listing.refused.append(Refused(folder / path.name, "outside-folder", reason))
            return
        if folder / path not in there:
            what = "label map" if name == label else "scan"
            rule, why = (
                ("missing-data-file", "is not there")
                if suffix_of(path)
                else ("format", "is of no format that is read")
            )
            listing.refused.append(
                Refused(folder / image, rule, f"{where.name} names the {what} {name[:120]}, which {why}.")
            )
            return
    case = stem_of(Path(image))
    truth = None if label is None else folder / label
    listing.entries.append(Entry(folder / image, case, own_split(case) if label else None, None, truth))


def _cases(path: Path) -> tuple[list[tuple[str, str]], list[str]]:
    """The (image, label) pairs and the unlabelled images of dataset.json, each named once."""
    try:
        tree: Any = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise InputError(
            f"{path}: there is no such file, which lists the cases of a Decathlon data set; restore it"
        ) from None
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: must be JSON text ({error}); restore it from the data set") from None
    training = tree.get("training") if isinstance(tree, dict) else None
    if not isinstance(training, list):
        raise InputError(
            f"{path}: must have a list `training` of images and labels; restore it from the data set"
        )
    pairs: dict[str, str] = {}
    for number, case in enumerate(training):
        image, label = (case.get("image"), case.get("label")) if isinstance(case, dict) else (None, None)
        if not (_is_name(image) and _is_name(label)):
            raise InputError(
                f"{path}: training[{number}] must name an `image` and a `label`, got {json.dumps(case)[:120]}"
            )
        if image in pairs:
            raise InputError(f"{path}: training names {image} twice; restore it from the data set")
        pairs[image] = label
    test = tree.get("test", [])
    # Some tasks list test cases as {"image": ...}
    names = (
        [case.get("image") if isinstance(case, dict) else case for case in test]
        if isinstance(test, list)
        else [None]
    )
    if not all(map(_is_name, names)):
        raise InputError(f"{path}: `test` must be a list of images; restore it from the data set")
    return list(pairs.items()), sorted(set(names) - set(pairs))


def _is_name(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) < 1000 and "\0" not in value
