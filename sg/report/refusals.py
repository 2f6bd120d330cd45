"""What was set aside: by which rule, where and why; and what the rules mean."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sg import paths
from sg.cohorts.records import QuarantineRow, read_rows
from sg.report.tables import tally

SHOWN_MAX = 200

MEANINGS = {
    "truncated": "The file ends before all that its header announces: it was cut, by a full disk or a broken copy.",
    "surplus": "The file holds more bytes than its header accounts for; header and voxels may not belong together.",
    "checksum": "The stored checksum does not fit the content: bytes have changed since the file was written.",
    "damaged": "Parts of the file do not fit together, or voxels cannot be unpacked: bytes were lost or changed.",
    "empty": "The file holds nothing (0 bytes).",
    "missing-data-file": "The file, or the one with the voxels that a header names, is not there.",
    "outside-folder": "A link, or the name in a header, leads out of the folder of the data, which nothing may.",
    "link": "A link to a folder. Those are not followed, so that nothing is read twice or from elsewhere.",
    "name": "The name cannot be written down: it is not valid text or holds characters that cannot be shown.",
    "unreadable": "The system does not hand out the file or folder: permissions, a broken link, a failing disk.",
    "format": "No format that is read, or a form of one that is not: several volumes in a file, colours, text.",
    "header": "The header is incomplete, contradicts itself or leaves open how the patient lies.",
    "slices": "Slices of a DICOM series are missing, there twice, unevenly spaced or contradict each other.",
    "spacing": "The size of the voxels is missing, impossible, not in millimetres or outside the limits.",
    "too-large": "More voxels than are read, as stored or after resampling.",
    "too-small": "Fewer slices, or a smaller part of the body, than the limits ask for.",
    "not-finite": "Some voxels hold no number (NaN or infinite).",
    "constant": "All voxels have one value: there is no picture in the file.",
    "not-ct": "Another kind of picture, by the modality in its header or because its values are no Hounsfield units.",
    "labels": "The label map of the scan is damaged, lies on another grid or holds other values than 0 to 255.",
    "duplicate": "The same scan is there already, by its content or its series UID. The first one was kept.",
    "changed": "The content changed while it was being read, or since the cohort was indexed.",
    "crashed": "The program that reads the file broke down over it, twice.",
    "time": "Reading took longer than a scan may take, and was given up.",
    "memory": "Reading took more memory than a scan of the declared size explains, or than the machine has.",
}


def refusals(root: Path, sources: Sequence[str]) -> dict[str, Any]:
    """Counts by rule and source, and the rows of both quarantines, for the template.

    Of thousands of rows the first of every rule are shown, so that a rare one is not lost among the many.
    """
    rows = [("reading", row) for row in read_rows(root / paths.QUARANTINE, QuarantineRow)]
    rows += [("resampling", row) for row in read_rows(root / paths.RESAMPLED_QUARANTINE, QuarantineRow)]
    shown = _first_of_every_rule([row.rule for _, row in rows], SHOWN_MAX)
    return {
        "count": len(rows),
        "by_source": Counter(row.source for _, row in rows),
        "rules": tally(Counter((row.source, row.rule) for _, row in rows), sources),
        "duplicates": sum("duplicate" in row.rule for _, row in rows),
        "shown": [rows[place] for place in shown],
        "left_out": len(rows) - len(shown),
    }


def _first_of_every_rule(rules: Sequence[str], most: int) -> list[int]:
    """At most `most` places in `rules`, rising: of every rule the first, then of every rule the second, and so on."""
    seen: Counter[str] = Counter()
    ranked = []
    for place, rule in enumerate(rules):
        ranked.append((seen[rule], place))
        seen[rule] += 1
    return sorted(place for _, place in sorted(ranked)[:most])
