"""What made a page: the parameters, the libraries' versions and the commit. No time, no host, no place."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import yaml

from sg.params import Params

# The libraries whose code has a part in the results, as pyproject.toml names them.
LIBRARIES = (
    "dask",
    "defusedxml",
    "distributed",
    "dvc",
    "dvclive",
    "faiss-cpu",
    "h5py",
    "hdf5plugin",
    "isal",
    "jinja2",
    "lightning-fabric",
    "matplotlib",
    "monai",
    "nibabel",
    "numba",
    "numpy",
    "pillow",
    "pydantic",
    "pydicom",
    "python-gdcm",
    "pyyaml",
    "rich",
    "safetensors",
    "scikit-learn",
    "scipy",
    "SimpleITK",
    "statsmodels",
    "threadpoolctl",
    "torch",
    "typer",
)


def versions() -> list[tuple[str, str]]:
    """(library, version), Python first; `not installed` where a library is missing."""
    found = [("Python", platform.python_version())]
    for name in LIBRARIES:
        try:
            found.append((name, version(name)))
        except PackageNotFoundError:
            found.append((name, "not installed"))
    return found


def commit(root: Path) -> str | None:
    """The checked-out commit of the repository whose top is `root`; None where there is none or no git.

    An uncommitted edit of the code or of the pipeline is said beside it.
    """
    top = _git(root, "rev-parse", "--show-toplevel")
    head = _git(root, "rev-parse", "--verify", "HEAD")
    # A project unpacked inside another repository must not be given that one's commit.
    if not head or not top or Path(top).resolve() != root.resolve():
        return None
    changed = _git(root, "diff", "--name-only", "HEAD", "--", "sg", "stages", "dvc.yaml", "requirements.lock")
    return f"{head} with uncommitted edits of the code" if changed else head


def as_yaml(study: Params) -> str:
    """The whole of the parameters, in the order of the schema."""
    return yaml.safe_dump(
        study.model_dump(mode="json"), sort_keys=False, default_flow_style=None, width=110, allow_unicode=True
    )


def _git(root: Path, *words: str) -> str | None:
    """What git answers, or None where it does not."""
    try:
        answer = subprocess.run(
            ["git", *words],
            cwd=root,
            # Only looked at: not even the index's cached times are refreshed.
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=20,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None
