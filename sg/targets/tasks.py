"""From scans and findings to the file of a target task."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sg.cohorts.records import FindingRow, ScanRow
from sg.errors import InputError
from sg.params import NoduleTarget, SegmentationTarget
from sg.resampled import resampled_scans
from sg.targets.nodules import write_nodules
from sg.targets.segmentation import write_segmentation


def write_task(
    path: Path,
    task: str,
    recipe: NoduleTarget | SegmentationTarget,
    serving: Sequence[ScanRow],
    findings: Sequence[FindingRow],
    folder: Path,
    seed: int,
) -> tuple[str, list[str]]:
    """Write the file of a task; a line of facts, and the warnings, which stand in the file too.

    `serving` are the scans that serve the task and whose patients have a role in it, `findings` all of the cohort's,
    `folder` is that of the resampled scans. InputError if no scan is usable.
    """
    usable = resampled_scans(serving, folder)
    if not usable:
        raise InputError(
            f"cohort.sources: no usable scan serves the task {task} ({len(serving)} name it in their `use`, and of these "
            f"{len(serving) - len(usable)} were set aside on resampling); name it in the `use` of a source that holds some"
        )
    warnings = []
    if len(usable) < len(serving):
        warnings.append(
            f"{task}: {len(serving) - len(usable)} of {len(serving)} scans were set aside on resampling "
            f"({folder / 'quarantine.csv'} says why)"
        )
    if isinstance(recipe, NoduleTarget):
        return write_nodules(path, task, recipe, usable, findings, folder, seed, warnings), warnings
    return write_segmentation(path, task, recipe, usable, folder, seed, warnings), warnings
