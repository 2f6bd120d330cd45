"""Stages killed with SIGKILL at a drawn moment and run again give the same hashes."""

import contextlib
import json
import os
import random
import signal
import subprocess
import time

import pytest

from tests.pipeline.conftest import BIN

pytestmark = pytest.mark.pipeline

STAGES = [
    "plan",
    "phantom@luna16",
    "cohort",
    "resample",
    "embed",
    "neighbors",
    "coordinates",
    "patches",
    "quality",
    "pretrain@semantic-genesis",
    "targets@ncc",
    "targets@lcs",
    "finetune@ncc-semantic-genesis",
    "finetune@lcs-scratch",
    "evaluate",
    "report",
]
# Another two at every run of the tests; SG_KILL_SEED brings back those of a run that failed.
SEED = int(os.environ.get("SG_KILL_SEED", random.SystemRandom().randrange(10**6)))


def started(copy, stage):
    """DVC running one stage, and the number of the stage's own process."""
    lock = copy.root / f".state/{stage.replace('@', '-')}/lock"
    lock.write_text("")
    running = subprocess.Popen(
        [BIN / "dvc", "repro", "--force", "--single-item", stage],
        cwd=copy.root,
        env=copy.environment(SG_WORKERS="2"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    for _ in range(2000):
        if lock.read_text():
            break
        time.sleep(0.01)
    return running, int(lock.read_text())


def killed_and_rerun(copy, stage, moment):
    """Start the stage by DVC, kill its process when `moment` (0..1) of its usual time has passed, repro."""
    log = copy.root / f"logs/{stage.replace('@', '-')}.jsonl"
    usual = json.loads(log.read_text().splitlines()[-1])["wall_s"]
    running, process = started(copy, stage)
    time.sleep(moment * usual)
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)
    running.wait()
    copy.repro(SG_WORKERS="2")


@pytest.mark.parametrize("draw", [0, 1])
def test_a_drawn_stage_killed_at_a_drawn_moment_reruns_to_the_same_hashes(finished, copy, draw):
    rng = random.Random(SEED + draw)
    stage, moment = rng.choice(STAGES), rng.random()
    killed_and_rerun(copy, stage, moment)
    assert copy.lock() == finished.lock(), f"{stage} killed at {moment:.2f}; SG_KILL_SEED={SEED} repeats this"


@pytest.mark.slow
@pytest.mark.parametrize("moment", [0.05, 0.5, 0.9])
@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_killed_reruns_to_the_same_hashes(finished, copy, stage, moment):
    killed_and_rerun(copy, stage, moment)
    assert copy.lock() == finished.lock()


def test_a_killed_dvc_takes_its_stage_with_it(copy):
    running, process = started(copy, "embed")
    running.kill()
    running.wait()
    for _ in range(200):
        if not os.path.exists(f"/proc/{process}"):
            break
        time.sleep(0.05)
    assert not os.path.exists(f"/proc/{process}")
