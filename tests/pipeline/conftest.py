"""Clones of this project in which the whole pipeline runs for real, with DVC caches of their own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.closure import ROOT
from tests.conftest import bring_compiled

BIN = Path(sys.executable).parent


class Clone:
    """A checkout with params.yaml, data and a DVC cache of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @classmethod
    def fresh(cls, root: Path, config: str = "configs/tiny.yaml") -> Clone:
        """The files that git would hand out (and those not committed yet), committed, with a configuration in place."""
        listed = subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard", "-z"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        for name in filter(None, listed.stdout.split("\0")):
            if (ROOT / name).is_file() and name not in ("dvc.lock", "metrics.json"):
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, root / name)
        bring_compiled(ROOT, root)
        clone = cls(root)
        shutil.copy(root / config, root / "params.yaml")
        for command in (
            ["git", "init", "-q"],
            ["git", "add", "-A"],
            [
                "git",
                "-c",
                "user.name=t",
                "-c",
                "user.email=t@t",
                "commit",
                "-qm",
                "start",
                "--date",
                "2020-01-01T00:00:00",
            ],
        ):
            subprocess.run(
                command,
                cwd=root,
                check=True,
                env={**clone.environment(), "GIT_COMMITTER_DATE": "2020-01-01T00:00:00"},
            )
        return clone

    def clone(self, root: Path) -> Clone:
        """What `git clone` gives of it: the same commit, and neither data nor cache."""
        subprocess.run(["git", "clone", "-q", str(self.root), str(root)], check=True)
        bring_compiled(self.root, root)
        return Clone(root)

    def copy(self, root: Path) -> Clone:
        """A copy with all data and the cache; git's and DVC's own files too."""
        subprocess.run(["cp", "-a", str(self.root), str(root)], check=True)
        return Clone(root)

    def environment(self, **more: str) -> dict[str, str]:
        # Compiled files are written as a user's run would write them: they must not count as a change.
        inherited = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
        return {
            **inherited,
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "PYTHONPATH": str(self.root),
            "COLUMNS": "110",
            **more,
        }

    def dvc(self, *arguments: str, check: bool = True, **more: str) -> str:
        """What `dvc` prints, both streams; AssertionError with all of it if it fails."""
        done = subprocess.run(
            [BIN / "dvc", *arguments],
            cwd=self.root,
            env=self.environment(**more),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=900,
            check=False,
        )
        assert not check or done.returncode == 0, f"dvc {' '.join(arguments)}:\n{done.stdout}"
        return done.stdout

    def repro(self, *arguments: str, **more: str) -> set[str]:
        """The stages that `dvc repro` ran."""
        return ran(self.dvc("repro", *arguments, **more))

    def lock(self) -> str:
        return (self.root / "dvc.lock").read_text()

    def params(self) -> dict:
        return yaml.safe_load((self.root / "params.yaml").read_text())

    def set(self, **values: object) -> None:
        """Set parameters by dotted key, with `__` for the dot; `-` stays."""
        tree = self.params()
        for key, value in values.items():
            *way, last = key.split("__")
            place = tree
            for part in way:
                place = place[part]
            place[last] = value
        self.write_params(tree)

    def write_params(self, tree: dict) -> None:
        (self.root / "params.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))


def ran(output: str) -> set[str]:
    """Names of the stages that DVC says it ran."""
    return set(re.findall(r"^Running stage '([^']+)'", output, re.MULTILINE))


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Clone:
    """A clone in which the tiny study has run, on two workers. Not to be changed: copy it."""
    clone = Clone.fresh(tmp_path_factory.mktemp("finished"))
    stages = clone.repro(SG_WORKERS="2")
    assert {name.split("@")[0] for name in stages} == {path.stem for path in (ROOT / "stages").glob("*.py")}
    return clone


@pytest.fixture
def copy(finished, tmp_path) -> Clone:
    """A copy of the finished clone, to be changed."""
    return finished.copy(tmp_path / "copy")
