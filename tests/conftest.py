"""A project of one's own: a copy of the parts that a stage needs, in a temporary folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import settings

from tests.closure import ROOT
from tests.dicom_files import write_series
from tests.scan_files import ct, write_nifti

# How long an example takes says more about the machine's other work than about ours.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")


class Project:
    """A folder with params.yaml, dvc.yaml, stages/ and sg/ in which stages can be run."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def environment(self, **more: str) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(self.root), "COLUMNS": "110", **more}

    def run(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        """`python stages/<first argument>.py <the others>`, in this project."""
        name, *others = arguments
        return subprocess.run(
            [sys.executable, f"stages/{name}.py", *others],
            cwd=self.root,
            env=self.environment(**more),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def write(self, name: str, text: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path


def bring_compiled(source: Path, target: Path) -> None:
    """Give a copy of the sources the loops that numba has compiled of them, so that it need not do so again.

    numba takes them for those of a source of the same size and time of change; both are checked here to be equal bytes.
    """
    for index in source.glob("sg/**/__pycache__/*.nb[ic]"):
        module = index.parent.parent / f"{index.name.split('.', 1)[0]}.py"
        copy = target / module.relative_to(source)
        if copy.is_file() and copy.read_bytes() == module.read_bytes():
            shutil.copystat(module, copy)
            place = target / index.relative_to(source)
            place.parent.mkdir(exist_ok=True)
            shutil.copy2(index, place)


def new_project(root: Path) -> Project:
    """A copy of this project without data in a new folder, with the tiny study in place."""
    root.mkdir()
    for name in ("sg", "stages"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    bring_compiled(ROOT, root)
    shutil.copy(ROOT / "dvc.yaml", root)
    shutil.copy(ROOT / "configs" / "tiny.yaml", root / "params.yaml")
    return Project(root)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A copy of this project without data, with the tiny study in place."""
    return new_project(tmp_path / "project")


@pytest.fixture(scope="session")
def placed(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose embedding was trained on seven small scans in scans/, a DICOM series among them. Not to be changed.

    dvc.lock is not there, because DVC was not asked.
    """
    made = new_project(tmp_path_factory.mktemp("placed") / "project")
    study = yaml.safe_load((ROOT / "configs" / "folder.yaml").read_text())
    study["resample"] |= {
        "spacing_mm": [5.0, 5.0, 5.0],
        "shape_min": [16, 16, 16],
        "thumbnail_shape": [16, 16, 16],
    }
    study["coordinates"]["patch_size"] = [8, 16, 16]
    study["embed"] |= {"width": 4, "depth": 3}
    study["embed"]["training"] |= {"epochs": 2, "threads": 1}
    study["cohort"]["splits"] = {"train": 0.5, "validation": 0.3, "test": 0.2}
    made.write("params.yaml", yaml.safe_dump(study, sort_keys=False))
    for number in range(6):
        voxels = ct(number, (24, 32, 32))
        voxels[:, number : number + 8] = 900  # else they are as like as noise
        write_nifti(made.root / "scans" / f"{number}.nii.gz", voxels)
    write_series(made.root / "scans" / "series", ct(6, (24, 32, 32)), patient="P6", shuffle=True)
    for stage in ("cohort", "resample", "embed", "neighbors"):
        ended = made.run(stage)
        assert ended.returncode == 0, ended.stderr
    return made
