"""The `sg` command as a user calls it: exit codes, what goes where, and no traceback."""

import json
import os
import re
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.closure import ROOT
from tests.scan_files import ct, write_nifti

SG = [sys.executable, "-c", "import sys; from sg.cli import main; sys.argv[0] = 'sg'; main()"]


def environment(**more):
    return {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "110", **more}


def sg(*arguments, cwd, **more):
    return subprocess.run(
        [*SG, *map(str, arguments)],
        cwd=cwd,
        env=environment(**more),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def good(tmp_path):
    """A folder with two scans that can be used."""
    for number in range(2):
        write_nifti(tmp_path / "good" / f"{number}.nii.gz", ct(number))
    return tmp_path / "good"


def test_a_folder_of_usable_scans_is_a_table_and_exit_code_0(good, tmp_path):
    done = sg("scan", "good", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^0\.nii\.gz +20x24x18 +4x3x5 +LPS +-1000\.\.1000 +0 +ok$", done.stdout, re.MULTILINE)
    assert done.stdout.endswith("2 usable, 0 refused, 0 other files ignored\n")
    assert done.stderr == f"limits: cohort.limits of {ROOT / 'configs' / 'folder.yaml'}\n"


def test_json_is_one_array_with_the_keys_that_the_help_explains_and_a_refusal_is_exit_code_1(good, tmp_path):
    (good / "text.nii").write_text("no scan")
    (good / "notes.txt").write_text("ignored")
    done = sg("scan", "--json", "good", cwd=tmp_path)
    assert done.returncode == 1
    scans = json.loads(done.stdout)
    assert [(scan["path"], scan["rule"]) for scan in scans] == [
        ("good/0.nii.gz", None),
        ("good/1.nii.gz", None),
        ("good/text.nii", "format"),
    ]
    assert done.stderr.endswith("2 usable, 1 refused (format 1), 1 other files ignored (txt 1)\n")
    explained = sg("scan", "--help", cwd=tmp_path).stdout
    assert all(re.search(rf"\b{key}\b", explained) for key in scans[0])


def test_a_wrong_call_is_a_sentence_and_exit_code_2(good, tmp_path):
    done = sg("scan", "good", "nowhere", "--json", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.endswith("nowhere: there is no such file or folder; correct the path\n")
    done = sg("scan", "good", cwd=tmp_path, SG_WORKERS="many")
    assert done.returncode == 2
    assert "SG_WORKERS must be" in done.stderr
    assert "Traceback" not in done.stderr


def test_whoever_reads_the_table_may_stop_reading(good, tmp_path):
    reads, writes = os.pipe()
    os.close(reads)
    done = subprocess.run(
        [*SG, "scan", "good"],
        cwd=tmp_path,
        env=environment(),
        stdout=writes,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writes)
    assert done.returncode == 0
    assert len(done.stderr.splitlines()) == 1, done.stderr


def test_an_interruption_is_a_sentence_and_leaves_no_process(tmp_path):
    for number in range(4):
        write_hollow(tmp_path / f"{number}.nii", (2000, 1000, 1000))
    process = subprocess.Popen(
        [*SG, "scan", "."],
        cwd=tmp_path,
        env=environment(SG_WORKERS="2"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # Where these tests run in the background of a shell, interruptions are ignored, and that would be inherited
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        # itself, the fork server and multiprocessing's own helper, and a reader
        wait_until(lambda: len(processes_of(process.pid)) >= 4)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does on Ctrl-C
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, out) == (130, "")
    assert err.splitlines()[1:] == ["scan: interrupted; nothing was changed"]
    wait_until(lambda: not processes_of(process.pid))


def write_hollow(path: Path, size: tuple[int, int, int]) -> None:
    """A .nii of zeros that takes no room on the disk and long to read."""
    write_nifti(path, ct())
    with open(path, "r+b") as file:
        file.seek(42)
        file.write(struct.pack("<3h", *size))
        file.truncate(352)
        file.truncate(352 + 2 * size[0] * size[1] * size[2])


def processes_of(session: int) -> list[int]:
    found = []
    for entry in os.listdir("/proc"):
        try:
            if entry.isdigit() and os.getsid(int(entry)) == session:
                found.append(int(entry))
        except ProcessLookupError:
            continue
    return found


def wait_until(true, seconds=30):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_looking_at_scans_imports_nothing_that_trains():
    program = "import sys, sg.cli, sg.inspection; print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment(), capture_output=True, text=True, check=True
    )
    assert not set(done.stdout.split()) & {"torch", "monai", "lightning", "dask", "matplotlib", "statsmodels"}
