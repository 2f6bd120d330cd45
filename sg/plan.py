"""What a study is made of, by name, and the removal of what it no longer names.

A folder left over from an earlier study would be hashed into whatever depends on its parent, and an empty list
must still leave a parent to depend on; so each parent holds a table of the names that belong into it.
"""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from sg import paths
from sg.params import Network, Plan

# Phantoms mark their folder, so that a user's own data under data/raw is never taken for a left-over.
PHANTOM_MARK = Path("truth", "phantom.json")


def clear(
    data: Path, plan: Plan, cohorts: Sequence[str], tasks: Sequence[str], initializations: Sequence[str]
) -> list[Path]:
    """Remove from the data folder the outputs of stages that the study no longer has; what was removed, sorted."""
    keep = {
        paths.PRETRAIN: {"scratch", *plan.methods},
        paths.TARGETS: {f"{name}.h5" for name in plan.targets},
        paths.FINETUNE: set(tasks),
        **{paths.FINETUNE / task: set(initializations) for task in tasks},
    }
    removed = []
    for parent, names in keep.items():
        for path in _entries(data / parent.relative_to(paths.DATA)):
            if path.name not in {*names, "plan.csv"}:
                removed.append(path)
    for path in _entries(data / paths.RAW.relative_to(paths.DATA)):
        if path.name not in cohorts and (path / PHANTOM_MARK).is_file():
            removed.append(path)
    for path in removed:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    return sorted(removed)


def write_plan(
    output: Callable[[Path], Path],
    plan: Plan,
    cohorts: Sequence[str],
    tasks: Sequence[str],
    initializations: Sequence[str],
    network: Network,
) -> None:
    """Write the tables of names, and the card of `scratch`, which says only the architecture."""
    _table(output(paths.PHANTOM_PLAN), ["cohort"], [[name] for name in cohorts])
    _table(output(paths.PRETRAIN_PLAN), ["method"], [[name] for name in ["scratch", *plan.methods]])
    _table(output(paths.TARGETS_PLAN), ["task"], [[name] for name in plan.targets])
    pairs = [[task, initialization] for task in tasks for initialization in initializations]
    _table(output(paths.FINETUNE_PLAN), ["task", "initialization"], pairs)
    card = {
        "method": "scratch",
        "network": {"architecture": "unet", "channels_in": 1, **network.model_dump(mode="json")},
    }
    output(paths.SCRATCH_CARD).write_text(json.dumps(card, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def read_plan(path: Path) -> list[dict[str, str]]:
    """The rows of one of these tables."""
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _table(path: Path, header: list[str], rows: list[list[str]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    path.write_text(text.getvalue(), encoding="utf-8")
