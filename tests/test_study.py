"""Putting a configuration in place never loses an edit."""

import shutil
import subprocess
import sys

import pytest

from tests.closure import ROOT


@pytest.fixture
def checkout(project):
    shutil.copytree(ROOT / "configs", project.root / "configs")
    shutil.copy(ROOT / "configs/demo.yaml", project.root / "params.yaml")
    for command in (
        ["git", "init", "-q"],
        ["git", "add", "params.yaml", "configs"],
        ["git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "start"],
    ):
        subprocess.run(command, cwd=project.root, check=True)
    return project


def use(project, config):
    return subprocess.run(
        [sys.executable, "-c", "from sg.cli import main; main()", "use", config],
        cwd=project.root,
        env=project.environment(),
        capture_output=True,
        text=True,
        check=False,
    )


def params(project):
    return (project.root / "params.yaml").read_text()


def test_a_committed_study_is_replaced_and_can_be_had_back(checkout):
    done = use(checkout, "configs/tiny.yaml")
    assert (done.returncode, done.stdout) == (0, "params.yaml is now configs/tiny.yaml\n")
    assert params(checkout) == (ROOT / "configs/tiny.yaml").read_text()
    assert use(checkout, "configs/demo.yaml").returncode == 0
    assert params(checkout) == (ROOT / "configs/demo.yaml").read_text()


def test_uncommitted_edits_are_kept(checkout):
    edited = params(checkout).replace("trials: 3", "trials: 5")
    checkout.write("params.yaml", edited)
    done = use(checkout, "configs/tiny.yaml")
    assert done.returncode == 2
    assert "holds edits that are neither committed nor in configs/" in done.stderr
    assert params(checkout) == edited


def test_committed_edits_may_be_replaced(checkout):
    checkout.write("params.yaml", params(checkout).replace("trials: 3", "trials: 5"))
    subprocess.run(
        ["git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qam", "mine"],
        cwd=checkout.root,
        check=True,
    )
    assert use(checkout, "configs/tiny.yaml").returncode == 0


def test_without_git_edits_are_kept_too(checkout):
    shutil.rmtree(checkout.root / ".git")
    assert use(checkout, "configs/tiny.yaml").returncode == 0
    checkout.write("params.yaml", params(checkout) + "# mine\n")
    assert use(checkout, "configs/demo.yaml").returncode == 2


def test_a_configuration_with_a_problem_is_not_put_in_place(checkout):
    checkout.write("configs/bad.yaml", params(checkout).replace("seed: 1", "sed: 1"))
    before = params(checkout)
    done = use(checkout, "configs/bad.yaml")
    assert done.returncode == 2
    assert "configs/bad.yaml: sed: there is no such parameter (did you mean 'seed'?)" in done.stderr
    assert params(checkout) == before


def test_a_missing_configuration_lists_those_there_are(checkout):
    done = use(checkout, "configs/none.yaml")
    assert "configs/none.yaml: there is no such configuration; there are: configs/demo.yaml, " in done.stderr


def test_putting_the_same_in_place_changes_nothing(checkout):
    assert use(checkout, "configs/demo.yaml").stdout == "params.yaml is configs/demo.yaml already\n"
