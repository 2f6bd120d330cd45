"""No stage opens a scan outside the roles of its patient: by what the stages logged, what they wrote, what they need."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest

from sg import paths
from sg.cohorts.records import ScanRow, read_rows, write_rows
from sg.patches import PatchCache
from sg.roles import TASK_ROLES, RoleRow, read_roles
from sg.targets.taskfile import TaskFile

pytestmark = pytest.mark.pipeline

TASKS = ("ncc", "lcs")
# What a stage may open a scan for: a use, in one of these roles.
ALLOWED = {
    "embed": ("pretrain", {"embed", "pretrain", "early_stopping"}),
    "coordinates": ("pretrain", {"neighbours", "early_stopping"}),
    "patches": ("pretrain", {"pretrain", "early_stopping"}),
    **{f"targets-{task}": (task, set(TASK_ROLES.values())) for task in TASKS},
}
PRETRAIN_ROLES = {**TASK_ROLES, "train": "pretrain"}


def scans_of(root):
    return {row.scan: row for row in read_rows(root / paths.SCANS, ScanRow)}


def logged(root):
    """What stands in the logs of reads: (stage, scan, role, use)."""
    return [
        tuple(json.loads(line)[name] for name in ("stage", "scan", "role", "use"))
        for file in sorted((root / "logs/reads").iterdir())
        for line in file.read_text().splitlines()
    ]


def cached(root):
    """What stands in the caches and in the tasks' files, as if their stages had logged it."""
    found = set()
    for file in (paths.PATTERNS, paths.RANDOM):
        rows = PatchCache(root / file).rows
        for scan, split in zip(rows["scan"].tolist(), rows["split"].tolist(), strict=True):
            found.add(("patches", scan.decode(), PRETRAIN_ROLES[split.decode()], "pretrain"))
    for task in TASKS:
        with TaskFile(root / paths.target(task)) as file:
            for scan, split in zip(file.rows["scan"].tolist(), file.rows["split"].tolist(), strict=True):
                found.add((f"targets-{task}", scan.decode(), TASK_ROLES[split.decode()], task))
            if file.kind == "segmentation":
                found |= {(f"targets-{task}", scan, "test", task) for scan in file.test_scans()}
    return found


def violations(reads, scans, roles):
    """A sentence on each read for which the scan or its patient was not there."""
    for stage, scan, role, use in reads:
        row = scans[scan]
        allowed_use, allowed_roles = ALLOWED.get(stage, ("", set()))
        if use != allowed_use or role not in allowed_roles:
            yield f"{stage} may open no scan as {role} for {use}"
        if use not in row.use:
            yield f"{stage} opened {scan}, which does not serve {use}"
        if not roles.may(row.patient, role, use):
            yield f"{stage} opened {scan} of {row.patient} as {role} for {use}"


def expected(root, stage):
    """All scans that a stage may open, in all roles; every one of the tiny study's is needed."""
    use, which = ALLOWED[stage]
    roles = read_roles(root / paths.ROLES)
    rows = [row for row in scans_of(root).values() if use in row.use]
    return {
        (stage, row.scan, role, use) for row in rows for role in which if roles.may(row.patient, role, use)
    }


def edited(root, change, to):
    """roles.csv of a clone, written elsewhere with one training patient that serves pretrain changed."""
    rows = read_rows(root / paths.ROLES, RoleRow)
    first = next(row for row in rows if row.pretrain == "yes")
    write_rows(to, RoleRow, [change(row) if row is first else row for row in rows])
    return first.patient


def withdrawn(row):
    """The patient without its roles in pre-training."""
    return replace(row, embed="no", neighbours="no", pretrain="no")


def kept_for_test(row):
    """The patient as one of the test patients."""
    return replace(row, split="test", neighbours="no", pretrain="no", fine_tune=(), test=row.fine_tune)


def test_every_logged_read_was_in_a_role_of_its_patient_and_none_is_missing(finished):
    reads = logged(finished.root)
    roles = read_roles(finished.root / paths.ROLES)
    assert list(violations(reads, scans_of(finished.root), roles)) == []
    assert len(reads) == len(set(reads))
    assert set(reads) == set().union(*(expected(finished.root, stage) for stage in ALLOWED))


def test_caches_and_tasks_hold_nothing_outside_of_a_role_and_nothing_that_was_not_logged(finished):
    held = cached(finished.root)
    assert list(violations(held, scans_of(finished.root), read_roles(finished.root / paths.ROLES))) == []
    assert held <= set(logged(finished.root))
    assert {stage for stage, *_ in held} == {"patches", "targets-ncc", "targets-lcs"}


@pytest.mark.parametrize("what", [logged, cached])
@pytest.mark.parametrize(
    ("change", "stages"),
    [
        (withdrawn, {"embed", "coordinates", "patches"}),
        (kept_for_test, {"embed", "coordinates", "patches", "targets-ncc"}),
    ],
)
def test_a_patient_that_loses_its_role_shows_in_what_was_read(finished, tmp_path, change, stages, what):
    patient = edited(finished.root, change, tmp_path / "roles.csv")
    found = list(violations(what(finished.root), scans_of(finished.root), read_roles(tmp_path / "roles.csv")))
    assert {sentence.split()[0] for sentence in found} == stages & {
        stage for stage, *_ in what(finished.root)
    }
    assert all(f" of {patient} as " in sentence for sentence in found)


def test_a_read_that_was_not_meant_to_be_shows(finished):
    scans, roles = scans_of(finished.root), read_roles(finished.root / paths.ROLES)
    test = next(row.scan for row in scans.values() if row.split == "test" and "pretrain" in row.use)
    liver = next(row.scan for row in scans.values() if row.use == ("lcs",) and row.split == "train")
    for read, count in (
        (("patches", test, "pretrain", "pretrain"), 1),
        (("patches", test, "embed", "pretrain"), 1),
        (("patches", test, "test", "pretrain"), 2),
        (("quality", test, "embed", "pretrain"), 1),
        (("targets-ncc", liver, "fine_tune", "ncc"), 2),
    ):
        assert len(list(violations([read], scans, roles))) == count, read


def run(clone, *command):
    return subprocess.run(
        [sys.executable, *command],
        cwd=clone.root,
        env=clone.environment(SG_WORKERS="2"),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_stages_need_no_scan_outside_of_their_roles(finished, copy, tmp_path):
    """With all others taken away they give the same bytes: whatever the log says, nothing else was opened."""
    for stage, outputs in {
        "coordinates": ("coordinates/crops.csv", "coordinates/surveys.csv", "coordinates/metrics.json"),
        "patches": ("patches/patterns.h5", "patches/random.h5"),
        "targets-ncc": ("targets/ncc.h5",),
        "targets-lcs": ("targets/lcs.h5",),
    }.items():
        needed = {scan for _, scan, *_ in expected(finished.root, stage)}
        others = set(scans_of(finished.root)) - needed
        assert needed
        assert others
        for scan in others:
            shutil.move(copy.root / paths.scan(scan), tmp_path / scan)
        name, *item = stage.split("-")
        done = run(copy, f"stages/{name}.py", *item)
        assert done.returncode == 0, done.stderr
        for output in outputs:
            assert (copy.root / "data" / output).read_bytes() == (
                finished.root / "data" / output
            ).read_bytes()
        for scan in others:
            shutil.move(tmp_path / scan, copy.root / paths.scan(scan))


def test_stages_refuse_what_an_earlier_stage_made_of_other_roles(copy):
    """One training patient is withdrawn behind the pipeline's back."""
    table = copy.root / paths.ROLES
    patient = edited(copy.root, withdrawn, copy.root / "edited.csv")
    table.unlink()
    (copy.root / "edited.csv").rename(table)
    for stage, file in (
        (["embed"], "thumbnails.h5"),
        (["neighbors"], "embeddings.h5"),
        (["coordinates"], "neighbors.h5"),
        (["patches"], "scans.csv"),
        (["targets", "ncc"], "scans.csv"),
    ):
        done = run(copy, f"stages/{stage[0]}.py", *stage[1:])
        said = " ".join(done.stderr.split())
        assert done.returncode == 2, said
        assert f"{file}: has the patient '{patient}' in train" in said
        assert "stale or was edited: run `dvc repro` to make both again" in said
