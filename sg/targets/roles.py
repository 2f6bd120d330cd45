"""Whether the patients in the file of a target task have the roles in which they stand there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import h5py
import numpy as np

from sg.errors import InputError
from sg.roles import TASK_ROLES, Role, Roles
from sg.storage import open_h5


def check_tasks(tasks: Iterable[str], folder: Path, roles: Roles) -> None:
    """InputError if the file of a task learns from, stops by or scores on a patient that has no such role for it."""
    for task in sorted(set(tasks)):
        path = folder / f"{task}.h5"
        with open_h5(path) as file:
            for role, patients in _standing(file):
                known = roles.mask(patients, role, task)
                if not known.all():
                    raise InputError(
                        f"{path}: has the patient {patients[~known][0].decode()!r} in the role {role!r}, which "
                        f"data/cohort/roles.csv does not give it for {task}; run `dvc repro targets@{task}`"
                    )


def _standing(file: h5py.File) -> Iterator[tuple[Role, np.ndarray]]:
    """The roles in which a task's file has patients, S (n,)."""
    rows = file["rows"][...]
    for split, role in TASK_ROLES.items():
        yield role, np.unique(rows["patient"][rows["split"] == split.encode()])
    for volume in file.get("volumes", {}).values():
        yield "test", np.array([str(volume.attrs["patient"]).encode()])
