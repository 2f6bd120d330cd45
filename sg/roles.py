"""What each patient may be used for: roles.csv, which stages ask before they open a scan.

A role is a patient's and follows from its split and from what its scans serve; a use is a scan's. A scan may be opened
for a use if it serves that use and its patient has the role. Nothing is learned from who is only embedded.

    roles = read_roles(paths.ROLES)
    scans = roles.scans(read_rows(paths.SCANS, ScanRow), "pretrain", "pretrain", "early_stopping")
    roles.may("LIDC-IDRI-0003", "test", "ncc")
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from sg import paths
from sg.cohorts.records import ScanRow, of_use, read_rows
from sg.errors import InputError

PRETRAIN = "pretrain"
Role = Literal["embed", "neighbours", "pretrain", "early_stopping", "fine_tune", "test"]

# The role in which a patient of each split serves a task.
TASK_ROLES: dict[str, Role] = {"train": "fine_tune", "validation": "early_stopping", "test": "test"}


@dataclass(frozen=True)
class RoleRow:
    """A row of roles.csv: a patient, and what it may be used for."""

    patient: str
    split: str
    embed: str  # yes or no: its scans are placed in the embedding, whatever its split
    neighbours: str  # yes or no: it may be a reference, or a neighbour to learn from
    pretrain: str  # yes or no: networks learn from it in pre-training, the auto-encoder among them
    early_stopping: tuple[str, ...]  # the uses (pretrain, tasks) whose training is stopped by it
    fine_tune: tuple[str, ...]  # the tasks that are trained on it
    test: tuple[str, ...]  # the tasks that are scored on it

    @property
    def uses(self) -> set[str]:
        """What its scans serve: pretrain and tasks."""
        return {
            *([PRETRAIN] if self.embed == "yes" else []),
            *self.early_stopping,
            *self.fine_tune,
            *self.test,
        }


def decide_roles(scans: Sequence[ScanRow]) -> list[RoleRow]:
    """The roles of every patient of these scans, sorted by patient. A patient has one split: AssertionError if not."""
    splits: dict[str, str] = {}
    uses: dict[str, set[str]] = {}
    for scan in scans:
        if splits.setdefault(scan.patient, scan.split) != scan.split:
            raise AssertionError(f"{scan.patient} stands in {splits[scan.patient]} and {scan.split}")
        uses.setdefault(scan.patient, set()).update(scan.use)
    return [_entitled(patient, splits[patient], uses[patient]) for patient in sorted(splits)]


def _entitled(patient: str, split: str, uses: Collection[str]) -> RoleRow:
    """The roles that a patient has by its split and by what its scans serve."""
    pretrain = PRETRAIN in uses
    tasks = tuple(sorted(set(uses) - {PRETRAIN}))
    return RoleRow(
        patient,
        split,
        embed=_yes(pretrain),
        neighbours=_yes(pretrain and split == "train"),
        pretrain=_yes(pretrain and split == "train"),
        early_stopping=tuple(sorted(uses)) if split == "validation" else (),
        fine_tune=tasks if split == "train" else (),
        test=tasks if split == "test" else (),
    )


def _yes(value: bool) -> str:
    return "yes" if value else "no"


class Roles:
    """The table, to be asked."""

    def __init__(self, rows: Iterable[RoleRow], path: Path = paths.ROLES) -> None:
        self._rows = {row.patient: row for row in rows}
        self._path = path

    def may(self, patient: str, role: Role, use: str = PRETRAIN) -> bool:
        """Whether a patient has a role; early stopping, fine-tuning and testing are roles for one use each.

        InputError if the table does not name the patient.
        """
        if patient not in self._rows:
            raise InputError(f"{self._path}: has no patient {patient!r}; run `dvc repro` to make it again")
        granted = getattr(self._rows[patient], role)
        if isinstance(granted, str):
            return use == PRETRAIN and granted == "yes"
        return use in granted

    def mask(self, patients: np.ndarray, role: Role, use: str = PRETRAIN) -> np.ndarray:
        """The same of many patients, S (n,), as boolean (n,)."""
        return np.array([self.may(patient.decode(), role, use) for patient in patients.tolist()], bool)

    def scans(self, rows: Sequence[ScanRow], use: str, *which: Role) -> list[ScanRow]:
        """Of all rows of scans.csv those that serve `use` and whose patient has one of the roles for it, in order.

        InputError if scans.csv and the table disagree.
        """
        for row in rows:
            self._agree(paths.SCANS, row.patient, row.split, row.use)
        return [row for row in of_use(rows, use) if any(self.may(row.patient, role, use) for role in which)]

    def check(self, where: Path | str, patients: np.ndarray, splits: np.ndarray, *uses: str) -> None:
        """InputError if the file `where`, that has these patients in these splits, both S (n,), is not of this table.

        `uses` are what its scans serve there.
        """
        for patient, split in sorted(set(zip(patients.tolist(), splits.tolist(), strict=True))):
            self._agree(where, patient.decode(), split.decode(), uses)

    def _agree(self, where: Path | str, patient: str, split: str, uses: Collection[str]) -> None:
        row = self._rows.get(patient)
        if row is None:
            known = "does not name it"
        elif row.split != split or not row.uses.issuperset(uses):
            known = f"has it in {row.split}, for {_listed(row.uses)}"
        else:
            return
        raise InputError(
            f"{where}: has the patient {patient!r} in {split}, for {_listed(uses)}, but {self._path} {known}; one of "
            "them is stale or was edited: run `dvc repro` to make both again"
        )


def _listed(uses: Iterable[str]) -> str:
    return ", ".join(sorted(uses)) or "nothing"


def read_roles(path: Path) -> Roles:
    """The roles of a cohort.

    InputError if the table is missing or another, names a patient twice, or gives one roles that contradict each
    other or its split.
    """
    rows = read_rows(path, RoleRow)
    seen: set[str] = set()
    for row in rows:
        if row.split not in TASK_ROLES or row != _entitled(row.patient, row.split, row.uses):
            raise InputError(
                f"{path}: the roles of the patient {row.patient!r} contradict each other or its split, {row.split!r}; "
                "run `dvc repro` to make the table again"
            )
        if row.patient in seen:
            raise InputError(
                f"{path}: names the patient {row.patient!r} twice; run `dvc repro` to make it again"
            )
        seen.add(row.patient)
    return Roles(rows, path)
