"""Clearing away what a study no longer names, and nothing else."""

import csv
import json

from sg import paths
from sg.params import Network, Plan
from sg.plan import clear, read_plan, write_plan

PLAN = Plan(methods=["a", "b"], targets=["ncc"])


def fill(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")


def test_only_what_is_no_longer_named_is_removed(tmp_path):
    stay = [
        "pretrain/a/weights.safetensors",
        "pretrain/scratch/card.json",
        "pretrain/plan.csv",
        "targets/ncc.h5",
        "targets/plan.csv",
        "finetune/ncc/a/trials.csv",
        "finetune/plan.csv",
        "raw/mine/scan.nii",
        "raw/now/truth/phantom.json",
        "cohort/scans.csv",
    ]
    go = [
        "pretrain/old/card.json",
        "targets/lcs.h5",
        "finetune/lcs/a/trials.csv",
        "finetune/ncc/b/trials.csv",
        "raw/then/truth/phantom.json",
    ]
    fill(tmp_path, *stay, *go)
    removed = clear(tmp_path, PLAN, ["now"], ["ncc"], ["scratch", "a"])
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert left == set(stay)
    assert {str(path.relative_to(tmp_path)) for path in removed} == {
        "pretrain/old",
        "targets/lcs.h5",
        "finetune/lcs",
        "finetune/ncc/b",
        "raw/then",
    }


def test_a_link_is_removed_and_not_what_it_points_to(tmp_path):
    fill(tmp_path, "elsewhere/precious")
    (tmp_path / "pretrain").mkdir()
    (tmp_path / "pretrain/old").symlink_to(tmp_path / "elsewhere")
    clear(tmp_path, PLAN, [], [], [])
    assert (tmp_path / "elsewhere/precious").exists()
    assert not (tmp_path / "pretrain/old").is_symlink()


def test_nothing_there_is_nothing_to_clear(tmp_path):
    assert clear(tmp_path / "data", PLAN, [], [], []) == []


def test_tables_of_an_empty_study_still_lie_there(tmp_path):
    def output(path):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        return tmp_path / path

    network = Network(width=4, depth=3, norm="batch")
    write_plan(output, Plan(methods=[], targets=[]), [], [], [], network)
    assert read_plan(tmp_path / paths.FINETUNE_PLAN) == []
    assert read_plan(tmp_path / paths.TARGETS_PLAN) == []
    assert read_plan(tmp_path / paths.PHANTOM_PLAN) == []
    assert read_plan(tmp_path / paths.PRETRAIN_PLAN) == [{"method": "scratch"}]
    assert json.loads((tmp_path / paths.SCRATCH_CARD).read_text()) == {
        "method": "scratch",
        "network": {"architecture": "unet", "channels_in": 1, "width": 4, "depth": 3, "norm": "batch"},
    }


def test_every_pair_of_task_and_initialization_is_in_the_table(tmp_path):
    def output(path):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        return tmp_path / path

    network = Network(width=4, depth=3, norm="batch")
    write_plan(output, Plan(methods=["a"], targets=["x", "y"]), [], ["x", "y"], ["scratch", "a"], network)
    with open(tmp_path / paths.FINETUNE_PLAN) as file:
        rows = list(csv.reader(file))
    assert rows == [["task", "initialization"], ["x", "scratch"], ["x", "a"], ["y", "scratch"], ["y", "a"]]
