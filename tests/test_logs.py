"""The log of reads: one line a scan, from every process of a stage, and never in the way of a run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sg import logs
from sg.processes import spread


@pytest.fixture(autouse=True)
def _somewhere_else(tmp_path, monkeypatch):
    monkeypatch.setenv("SG_READS", "")  # brought back at the end, whatever a test makes of it
    monkeypatch.delenv("SG_READS")
    monkeypatch.chdir(tmp_path)


def lines(stage: str = "patches") -> list[dict[str, str]]:
    return list(map(json.loads, Path(f"logs/reads/{stage}.jsonl").read_text().splitlines()))


def test_a_scan_is_one_line_for_every_role_in_which_it_was_opened():
    logs.begin_reads("targets-ncc")
    for role in ("test", "test", "fine_tune"):
        logs.opened("0123456789ab", role, "ncc")
    assert lines("targets-ncc") == [
        {"stage": "targets-ncc", "scan": "0123456789ab", "role": role, "use": "ncc"}
        for role in ("test", "fine_tune")
    ]


def test_a_run_begins_its_log_anew_and_leaves_those_of_other_stages():
    for stage in ("patches", "embed", "patches"):
        logs.begin_reads(stage)
        logs.opened("a", "pretrain", "pretrain")
    assert len(lines()) == len(lines("embed")) == 1


def test_outside_of_a_stage_nothing_is_logged():
    logs.opened("a", "pretrain", "pretrain")
    assert not Path("logs").exists()


def _open(number: int) -> int:
    os.chdir("/")
    for scan in range(50):
        logs.opened(f"{number}-{scan}", "pretrain", "pretrain")
    return os.getpid()


def test_lines_of_other_processes_stand_whole_in_the_log_of_the_stage_that_started_them():
    logs.begin_reads("patches")
    processes = {process for _, process in spread(_open, range(4), 2)}
    assert os.getpid() not in processes
    assert sorted(line["scan"] for line in lines()) == sorted(f"{n}-{s}" for n in range(4) for s in range(50))


def test_a_place_that_cannot_be_written_to_stops_nothing():
    Path("logs").write_text("in the way")
    logs.begin_reads("patches")
    logs.opened("a", "pretrain", "pretrain")
    assert Path("logs").read_text() == "in the way"


@pytest.mark.skipif(shutil.which("mount") is None or os.getuid() != 0, reason="needs to mount a file system")
def test_a_full_disk_stops_nothing():
    Path("logs").mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", "logs"], check=False).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        logs.begin_reads("patches")
        for number in range(200):
            logs.opened(str(number), "pretrain", "pretrain")
    finally:
        subprocess.run(["umount", "-l", "logs"], check=True)


def test_the_memory_of_who_started_a_process_is_not_its_own():
    look = "from sg.logs import Clock; print(Clock().reading()['peak_mib'])"
    start = (
        f"import subprocess, sys; held = b'1' * 600_000_000; subprocess.run([sys.executable, '-c', {look!r}])"
    )
    done = subprocess.run([sys.executable, "-c", start], capture_output=True, text=True, check=True)
    assert 1 < float(done.stdout) < 500
