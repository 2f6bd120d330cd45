"""A project of one's own: a copy of the parts that a stage needs, in a temporary folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings

from tests.closure import ROOT

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


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A copy of this project without data, with the tiny study in place."""
    root = tmp_path / "project"
    root.mkdir()
    for name in ("sg", "stages"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    bring_compiled(ROOT, root)
    shutil.copy(ROOT / "dvc.yaml", root)
    shutil.copy(ROOT / "configs" / "tiny.yaml", root / "params.yaml")
    return Project(root)
