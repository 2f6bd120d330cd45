"""What every stage does alike, tried with real processes."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

from sg.errors import InputError
from sg.stage import replace

# A stage for these tests: reads its section, writes two files, and does what the test wants in between.
SCRIPT = """
import os, sys, time
from pathlib import Path
from sg.errors import InputError
from sg.stage import stage

if __name__ == "__main__":
    with stage("embed", "for tests") as run:
        settings = run.read("embed")
        out = run.output(Path("data/embed"))
        (out / "a.txt").write_text(f"{run.seed} {settings.width}")
        exec(os.environ.get("BODY", ""))
        (out / "b.txt").write_text("b")
        run.summary("wrote two files")
"""


@pytest.fixture
def simple(project):
    project.write("stages/embed.py", SCRIPT)
    return project


def outputs(project):
    folder = project.root / "data/embed"
    return {path.name: path.read_text() for path in folder.iterdir()} if folder.is_dir() else None


def leftovers(project):
    aside = project.root / "data/.aside"
    return list(aside.iterdir()) if aside.is_dir() else []


def test_a_stage_writes_its_outputs_and_says_one_line(simple):
    done = simple.run("embed")
    assert done.returncode == 0
    assert re.fullmatch(r"embed: wrote two files \([0-9.]+ s, [0-9]+ MiB\)\n", done.stdout)
    assert outputs(simple) == {"a.txt": "1 4", "b.txt": "b"}
    assert leftovers(simple) == []


def test_times_and_memory_are_logged(simple):
    simple.run("embed")
    (line,) = (simple.root / "logs/embed.jsonl").read_text().splitlines()
    record = json.loads(line)
    assert record["outcome"] == "done"
    assert 0 < record["wall_s"] < 60
    assert 5 < record["peak_mib"] < 2000


def test_outputs_of_a_stage_that_fails_do_not_appear_and_the_old_ones_stay(simple):
    simple.run("embed")
    before = outputs(simple)
    done = simple.run("embed", BODY="raise InputError('params.yaml: embed.width: too small')")
    assert done.returncode == 2
    assert done.stderr == "embed: params.yaml: embed.width: too small\n"
    assert outputs(simple) == before
    assert leftovers(simple) == []


def test_a_bug_shows_its_traceback(simple):
    done = simple.run("embed", BODY="1 / 0")
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr
    assert outputs(simple) is None


def test_a_traceback_of_an_input_error_can_be_asked_for(simple):
    done = simple.run("embed", BODY="raise InputError('x')", SG_TRACEBACK="1")
    assert "Traceback" in done.stderr


def test_outputs_of_a_killed_stage_do_not_appear(simple):
    done = simple.run("embed", BODY="os.kill(os.getpid(), 9)")
    assert done.returncode == -signal.SIGKILL
    assert outputs(simple) is None
    assert simple.run("embed").returncode == 0
    assert outputs(simple) == {"a.txt": "1 4", "b.txt": "b"}
    assert leftovers(simple) == []


def test_an_interrupted_stage_says_so_without_a_traceback(simple):
    # Whoever started the tests may have had SIGINT ignored, as a shell does for what it runs in the background.
    body = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "os.kill(os.getpid(), signal.SIGINT); time.sleep(10)"
    )
    done = simple.run("embed", BODY=body)
    assert done.returncode == 130
    assert "Traceback" not in done.stderr
    assert outputs(simple) is None
    assert leftovers(simple) == []


def test_a_full_disk_is_said_in_words_and_leaves_nothing_half_written(simple):
    done = simple.run("embed", BODY="open('/dev/full', 'w').write('x' * 100000)")
    assert done.returncode == 2
    assert "the disk is full" in done.stderr
    assert "Traceback" not in done.stderr
    assert outputs(simple) is None


def test_an_edit_of_the_code_while_a_stage_runs_is_noticed(simple):
    """Else DVC would record what the old code made as made by the new."""
    done = simple.run("embed", BODY="Path('stages/embed.py').open('a').write('# edited\\n')")
    assert done.returncode == 2
    assert "code or parameters were edited while it ran" in done.stderr
    assert outputs(simple) is None


@pytest.mark.parametrize(
    ("old", "new", "code"), [("seed: 1", "seed: 2", 2), ("alpha: 0.05", "alpha: 0.01", 0)]
)
def test_an_edit_of_the_stages_own_parameters_while_it_runs_is_noticed(simple, old, new, code):
    body = f"p = Path('params.yaml'); p.write_text(p.read_text().replace('{old}', '{new}'))"
    assert simple.run("embed", BODY=body).returncode == code


def test_an_output_moved_out_of_the_way_by_a_run_killed_at_that_moment_comes_back(simple):
    simple.run("embed")
    before = outputs(simple)
    aside = simple.root / "data/.aside/embed/data"
    aside.mkdir(parents=True)
    (simple.root / "data/embed").rename(aside / "embed.old")
    done = simple.run(
        "embed",
        BODY="print(sorted(p.name for p in Path('data/embed').iterdir()), flush=True); os.kill(os.getpid(), 9)",
    )
    assert done.stdout == "['a.txt', 'b.txt']\n"
    assert outputs(simple) == before


@pytest.fixture
def small_disk(simple):
    """A file system of 1 MiB at `small` in the project."""
    if os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("mounting a small disk needs root")
    disk = simple.root / "small"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], check=False).returncode:
        pytest.skip("this machine allows no mount")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


FILL = {
    "hdf5": "import h5py, numpy\n"
    "with h5py.File('small/x.h5', 'w') as f: f.create_dataset('x', data=numpy.random.rand(10**6))",
    "csv": "(Path('small') / 'x.csv').write_text('x' * 10**7)",
    "safetensors": "import torch\nfrom sg.weights import save\nsave(Path('small'), {'x': torch.ones(10**6)}, {})",
    "state of a training": "import torch\nfrom sg import training\nfrom sg.params import Training\n"
    "model = torch.nn.Linear(1000, 1000)\n"
    "settings = Training(epochs=2, batch=1, learning_rate=0.1, step_epochs=1, patience=1, threads=1, "
    "accelerator='cpu', precision='32-true')\n"
    "import numpy\n"
    "batch = [{'x': numpy.ones((2, 1000), numpy.float32)}]\n"
    "training.fit(model, lambda m, b: {'loss': m(b['x']).mean()}, lambda e: batch, lambda: batch, settings, "
    "state=Path('small/state'), history=out / 'h.csv', live='x', what='x')",
}


@pytest.mark.parametrize("what", FILL)
def test_a_really_full_disk_is_said_in_words(simple, small_disk, what):
    done = simple.run("embed", BODY=FILL[what])
    assert done.returncode == 2, done.stderr
    assert "the disk is full" in done.stderr
    assert "Traceback" not in done.stderr
    assert outputs(simple) is None


def test_a_full_disk_is_said_even_where_nothing_can_be_logged(simple, small_disk):
    (simple.root / "logs").symlink_to(small_disk)
    done = simple.run("embed", BODY="(Path('small') / 'x').write_text('x' * 10**7)")
    assert done.returncode == 2
    assert done.stderr.startswith("embed: the disk is full")
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("mount"), reason="mounting a disk needs root")
def test_outputs_within_and_outside_of_data_appear_though_data_is_another_disk(project):
    (project.root / "data").mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", project.root / "data"], check=False).returncode:
        pytest.skip("this machine allows no mount")
    script = SCRIPT.replace('"embed", "for tests"', '"evaluate", "for tests"').replace(
        'run.read("embed")', 'run.read("evaluate")'
    )
    script = script.replace("settings.width", "settings.alpha").replace("data/embed", "data/evaluate")
    project.write("stages/evaluate.py", script)
    try:
        done = project.run("evaluate", BODY="run.output(Path('metrics.json')).write_text('{}')")
        assert done.returncode == 0, done.stderr
        assert (project.root / "metrics.json").read_text() == "{}"
        assert (project.root / "data/evaluate/b.txt").is_file()
    finally:
        subprocess.run(["umount", "-l", project.root / "data"], check=True)


def test_a_file_that_may_not_be_read_is_named(simple):
    done = simple.run("embed", BODY="raise PermissionError(13, 'Permission denied', 'scans/a.nii')")
    assert done.returncode == 2
    assert done.stderr.startswith("embed: scans/a.nii: permission denied")


def test_problems_of_the_parameters_stop_any_stage_before_any_work(simple):
    text = (simple.root / "params.yaml").read_text()
    simple.write("params.yaml", text.replace("alpha: 0.05", "alpa: 0.05"))
    done = simple.run("embed", BODY="Path('worked').touch()")
    assert done.returncode == 2
    assert "params.yaml: evaluate.alpa: there is no such parameter (did you mean 'alpha'?)" in done.stderr
    assert not (simple.root / "worked").exists()
    assert not (simple.root / "data").exists()


def test_a_parameter_that_dvc_yaml_does_not_name_cannot_be_read(simple):
    done = simple.run("embed", BODY="run.read('evaluate.alpha')")
    assert "dvc.yaml does not name the parameter evaluate.alpha for stage embed" in done.stderr


def test_an_output_that_dvc_yaml_does_not_name_cannot_be_written(simple):
    done = simple.run("embed", BODY="run.output(Path('data/else'))")
    assert "dvc.yaml does not name the output data/else for stage embed" in done.stderr


def test_two_runs_of_one_stage_at_a_time_are_refused(simple):
    body = "Path('started').touch(); time.sleep(60)"
    first = subprocess.Popen(
        [sys.executable, "stages/embed.py"],
        cwd=simple.root,
        env=simple.environment(BODY=body),
        stderr=subprocess.PIPE,
    )
    try:
        wait_for(simple.root / "started")
        second = simple.run("embed")
        assert second.returncode == 2
        assert f"another run of stage embed is going on (process {first.pid})" in second.stderr
    finally:
        first.kill()
        first.wait()
        first.stderr.close()
    assert simple.run("embed").returncode == 0


def test_a_stage_dies_with_its_parent(simple):
    parent = subprocess.Popen(
        ["bash", "-c", f"{sys.executable} stages/embed.py & echo $! > child; wait"],
        cwd=simple.root,
        env=simple.environment(BODY="Path('started').touch(); time.sleep(60)"),
    )
    wait_for(simple.root / "started")
    child = int((simple.root / "child").read_text())
    assert alive(child)
    parent.kill()
    parent.wait()
    for _ in range(100):
        if not alive(child):
            break
        time.sleep(0.05)
    assert not alive(child)


def test_state_outlives_a_killed_run_and_goes_on_success(simple):
    first = simple.run("embed", BODY="(run.state() / 'epoch').write_text('3'); os.kill(os.getpid(), 9)")
    assert first.returncode == -signal.SIGKILL
    done = simple.run("embed", BODY="print((run.state() / 'epoch').read_text())")
    assert done.stdout.startswith("3\n")
    assert [path.name for path in (simple.root / ".state/embed").iterdir()] == ["lock"]


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("params.yaml", "seed: 1", "seed: 2"),
        ("params.yaml", "  width: 4\n  depth: 3", "  width: 6\n  depth: 3"),
        ("stages/embed.py", "wrote two", "wrote 2"),
    ],
)
def test_state_of_other_parameters_or_code_is_not_taken_up(simple, file, old, new):
    simple.run("embed", BODY="(run.state() / 'epoch').write_text('3'); os.kill(os.getpid(), 9)")
    text = (simple.root / file).read_text()
    assert old in text
    simple.write(file, text.replace(old, new, 1))
    done = simple.run("embed", BODY="print(list(run.state().iterdir()))")
    assert done.stdout.startswith("[]\n")


def test_state_of_other_inputs_is_not_taken_up(simple):
    simple.write("data/resampled/thumbnails.h5", "old")
    simple.run("embed", BODY="(run.state() / 'epoch').write_text('3'); os.kill(os.getpid(), 9)")
    simple.write("data/resampled/thumbnails.h5", "new")
    assert simple.run("embed", BODY="print(list(run.state().iterdir()))").stdout.startswith("[]\n")


def test_state_survives_a_change_of_what_the_stage_does_not_read(simple):
    simple.run("embed", BODY="(run.state() / 'epoch').write_text('3'); os.kill(os.getpid(), 9)")
    text = (simple.root / "params.yaml").read_text()
    simple.write("params.yaml", text.replace("alpha: 0.05", "alpha: 0.01"))
    assert simple.run("embed", BODY="print((run.state() / 'epoch').read_text())").stdout.startswith("3\n")


def test_finished_items_outlive_a_killed_run_whatever_changed(simple):
    simple.run("embed", BODY="(run.store() / 'scan').write_text('s'); os.kill(os.getpid(), 9)")
    text = (simple.root / "params.yaml").read_text()
    simple.write("params.yaml", text.replace("seed: 1", "seed: 2"))
    assert simple.run("embed", BODY="print((run.store() / 'scan').read_text())").stdout.startswith("s\n")


def test_the_number_of_workers_is_taken_from_the_environment(simple):
    assert simple.run("embed", BODY="print(run.workers)", SG_WORKERS="3").stdout.startswith("3\n")
    done = simple.run("embed", BODY="print(run.workers)", SG_WORKERS="many")
    assert "SG_WORKERS must be a whole number of processes, at least 1, got 'many'" in done.stderr


def test_an_unknown_recipe_is_said_in_words(project):
    done = project.run("pretrain", "rotation")
    assert done.returncode == 2
    assert "pretrain.recipes has no 'rotation'; there are: models-genesis, semantic-genesis" in done.stderr


@pytest.mark.parametrize(("task", "initialization"), [("bms", "scratch"), ("ncc", "i3d")])
def test_an_unknown_trial_is_said_in_words(project, task, initialization):
    done = project.run("finetune", task, initialization)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_help_works_without_parameters(simple):
    (simple.root / "params.yaml").unlink()
    done = simple.run("embed", "--help")
    assert done.returncode == 0
    assert "for tests" in done.stdout


def test_missing_parameters_are_said_in_words(simple):
    (simple.root / "params.yaml").unlink()
    done = simple.run("embed")
    assert done.returncode == 2
    assert done.stderr.startswith("embed: params.yaml: there is no such file")


def test_a_stage_runs_from_any_folder(simple, tmp_path):
    done = subprocess.run(
        [sys.executable, simple.root / "stages/embed.py"], cwd=tmp_path, env=simple.environment(), check=False
    )
    assert done.returncode == 0
    assert outputs(simple) is not None


def test_a_stage_refuses_the_package_of_another_checkout(simple, tmp_path):
    shutil.move(simple.root / "sg", tmp_path / "sg")
    done = subprocess.run(
        [sys.executable, "stages/embed.py"],
        cwd=simple.root,
        env={**simple.environment(), "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "would run with the package `sg` of" in done.stderr


def test_replacing_a_folder_leaves_nothing_of_the_old(tmp_path):
    old, new = tmp_path / "old", tmp_path / "aside" / "new"
    old.mkdir()
    (old / "gone").touch()
    new.mkdir(parents=True)
    (new / "here").touch()
    replace(new, old)
    assert [path.name for path in old.iterdir()] == ["here"]
    assert list((tmp_path / "aside").iterdir()) == []


def test_replacing_a_link_into_the_cache_leaves_the_cache_alone(tmp_path):
    cache, link, new = tmp_path / "cache", tmp_path / "link", tmp_path / "new"
    cache.write_text("cached")
    os.link(cache, link)
    new.write_text("new")
    replace(new, link)
    assert (cache.read_text(), link.read_text()) == ("cached", "new")


def test_input_errors_are_exceptions_with_their_sentence():
    assert str(InputError("a: b")) == "a: b"


def wait_for(path):
    for _ in range(400):
        if path.exists():
            return
        time.sleep(0.05)
    raise AssertionError(f"{path} did not appear")


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
