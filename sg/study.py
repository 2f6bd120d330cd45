"""Putting a configuration in place as params.yaml, without losing what was there."""

from __future__ import annotations

import subprocess
from pathlib import Path

from sg.errors import InputError
from sg.stage import PARAMS, load

CONFIGS = Path("configs")


def use(config: Path) -> str:
    """Check a complete configuration and copy it to params.yaml; says what was done.

    InputError if the configuration has problems, or if params.yaml holds edits that are neither committed nor one
    of configs/: they would be lost.
    """
    if not config.is_file():
        known = ", ".join(str(path) for path in sorted(CONFIGS.glob("*.yaml"))) or "none"
        raise InputError(f"{config}: there is no such configuration; there are: {known}")
    load(config)
    new = config.read_bytes()
    old = PARAMS.read_bytes() if PARAMS.is_file() else None
    if old == new:
        return f"{PARAMS} is {config} already"
    if old is not None and not _kept(old):
        raise InputError(
            f"{PARAMS} holds edits that are neither committed nor in {CONFIGS}/ and would be lost; commit them, or "
            f"keep them with `cp {PARAMS} {CONFIGS}/mine.yaml`, and run again"
        )
    aside = PARAMS.with_suffix(".yaml.new")
    aside.write_bytes(new)
    aside.replace(PARAMS)
    return f"{PARAMS} is now {config}"


def _kept(content: bytes) -> bool:
    """Whether this content of params.yaml can be had back: it is a configuration, or committed."""
    if any(path.read_bytes() == content for path in CONFIGS.glob("*.yaml")):
        return True
    committed = subprocess.run(["git", "show", f"HEAD:./{PARAMS}"], capture_output=True, check=False)
    return committed.returncode == 0 and committed.stdout == content
