"""`dvc repro` on the tiny study: what runs, what does not, and that the same comes out."""

import time

import pytest
import yaml

pytestmark = pytest.mark.pipeline


def kinds(stages):
    return {name.split("@")[0] for name in stages}


def test_a_second_repro_runs_no_stage_and_says_so_in_seconds(finished):
    start = time.monotonic()
    assert finished.repro() == set()
    assert time.monotonic() - start < 30


def test_stages_name_all_their_outputs_and_leave_nothing_aside(finished):
    assert not (finished.root / "data/.aside").exists() or not any((finished.root / "data/.aside").iterdir())
    assert (finished.root / "report/index.html").stat().st_size > 10_000
    states = [
        path for path in (finished.root / ".state").rglob("*") if path.is_file() and path.name != "lock"
    ]
    assert states == []


def test_another_clone_on_one_worker_gets_the_same_hashes(finished, tmp_path):
    other = finished.clone(tmp_path / "other")
    other.repro(SG_WORKERS="1")
    assert yaml.safe_load(other.lock()) == yaml.safe_load(finished.lock())


def test_alpha_reruns_only_evaluate_and_report(copy):
    copy.set(evaluate__alpha=0.01)
    assert copy.repro() == {"evaluate", "report"}


def test_a_recipe_of_a_method_reruns_that_method_and_its_trials(copy):
    tree = copy.params()
    tree["pretrain"]["recipes"]["semantic-genesis"]["losses"]["classification"] = 0.02
    copy.write_params(tree)
    assert copy.repro() == {
        "pretrain@semantic-genesis",
        "finetune@ncc-semantic-genesis",
        "finetune@lcs-semantic-genesis",
        "evaluate",
        "report",
    }


def test_the_number_of_patterns_reruns_what_follows_from_coordinates_but_not_models_genesis(copy):
    copy.set(coordinates__patterns=copy.params()["coordinates"]["patterns"] - 1)
    assert copy.repro() == {
        "coordinates",
        "patches",
        "quality",
        "pretrain@semantic-genesis",
        "finetune@ncc-semantic-genesis",
        "finetune@lcs-semantic-genesis",
        "evaluate",
        "report",
    }


def test_the_report_alone_follows_its_own_parameters(copy):
    copy.set(report__patterns=1)
    assert copy.repro() == {"report"}


def test_a_single_stage_runs_alone_and_changes_nothing(copy):
    before = copy.lock()
    assert copy.repro("--force", "--single-item", "patches") == {"patches"}
    assert copy.lock() == before


def test_a_typo_anywhere_stops_the_first_stage_before_any_work(copy):
    text = (copy.root / "params.yaml").read_text()
    (copy.root / "params.yaml").write_text(
        text.replace("bootstrap:", "bootstraps:").replace("seed: 1", "seed: 2")
    )
    output = copy.dvc("repro", check=False)
    assert "evaluate.bootstraps: there is no such parameter (did you mean 'bootstrap'?)" in output
    assert "Traceback" not in output


@pytest.fixture(params=["folder", "s3"])
def remote(request, tmp_path, monkeypatch):
    """What `dvc remote add` and `dvc remote modify` are told of an empty remote."""
    if request.param == "folder":
        (tmp_path / "remote").mkdir()
        yield str(tmp_path / "remote"), {}
        return
    boto3 = pytest.importorskip("boto3", reason="S3 needs the extra `s3`")
    server = pytest.importorskip("moto.server", reason="S3 needs moto").ThreadedMotoServer(
        "127.0.0.1", 0, verbose=False
    )
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    boto3.client("s3", endpoint_url=endpoint).create_bucket(Bucket="study")
    yield "s3://study/cache", {"endpointurl": endpoint}
    server.stop()


def test_what_was_pushed_is_pulled_and_nothing_runs(finished, copy, remote, tmp_path):
    def add_remote(clone):
        where, settings = remote
        clone.dvc("remote", "add", "--local", "--default", "store", where)
        for key, value in settings.items():
            clone.dvc("remote", "modify", "--local", "store", key, value)

    add_remote(copy)
    copy.dvc("push")
    second = finished.clone(tmp_path / "second")
    (second.root / "dvc.lock").write_text(copy.lock())
    (second.root / "metrics.json").write_text((copy.root / "metrics.json").read_text())
    add_remote(second)
    second.dvc("pull")
    assert second.repro() == set()
    assert second.lock() == finished.lock()


def emptied(tree, *what):
    """The study without target tasks and/or without methods."""
    if "tasks" in what:
        tree["plan"]["targets"] = []
        tree["targets"]["recipes"] = {}
        tree["finetune"] |= {"tasks": [], "initializations": [], "training": {}}
        for source in tree["cohort"]["sources"].values():
            source["use"] = ["pretrain"]
    if "methods" in what:
        tree["plan"]["methods"] = []
        tree["pretrain"]["recipes"] = {}
        tree["finetune"]["initializations"] = [] if "tasks" in what else ["scratch"]
    return tree


def test_a_study_without_tasks_ends_with_pretraining_after_one_that_had_some(copy):
    copy.write_params(emptied(copy.params(), "tasks"))
    stages = copy.repro()
    assert "evaluate" in stages
    assert not kinds(stages) & {"targets", "finetune"}
    assert sorted(path.name for path in (copy.root / "data/finetune").iterdir()) == ["plan.csv"]
    assert sorted(path.name for path in (copy.root / "data/targets").iterdir()) == ["plan.csv"]
    assert (copy.root / "metrics.json").read_text() == "{}\n"
    assert copy.repro() == set()


def test_going_back_and_forth_between_studies_leaves_nothing_of_the_other(copy):
    """DVC could take `plan` from its run cache, and then nothing would be cleared away."""
    full, empty = copy.params(), emptied(copy.params(), "tasks", "methods")
    for tree in (empty, full, empty):
        copy.write_params(tree)
        copy.repro()
    assert sorted(path.name for path in (copy.root / "data/pretrain").iterdir()) == ["plan.csv", "scratch"]
    assert sorted(path.name for path in (copy.root / "data/finetune").iterdir()) == ["plan.csv"]
    assert copy.repro() == set()


def test_a_study_without_methods_after_one_that_had_some(copy):
    copy.write_params(emptied(copy.params(), "methods"))
    stages = copy.repro()
    assert not kinds(stages) & {"pretrain", "targets", "finetune", "cohort"}
    assert sorted(path.name for path in (copy.root / "data/pretrain").iterdir()) == ["plan.csv", "scratch"]
    assert copy.repro() == set()


@pytest.mark.parametrize("before", ["a fresh clone", "a run that had some"])
def test_a_study_without_tasks_methods_and_phantoms_runs_on_a_folder(finished, tmp_path, before):
    """The scans of the phantoms stand in for a user's own."""
    scans = tmp_path / "scans"
    scans.mkdir()
    for path in sorted((finished.root / "data/raw/luna16").glob("subset*/*")):
        (scans / path.name).write_bytes(path.read_bytes())
    make = finished.clone if before == "a fresh clone" else finished.copy
    clone = make(tmp_path / "clone")
    tree = emptied(clone.params(), "tasks", "methods")
    tree["phantom"] |= {"cohorts": [], "recipes": {}}
    tree["cohort"]["raw"] = str(scans)
    source = {"layout": "folder", "path": ".", "use": ["pretrain"], "leave_out": None, "patients": None}
    tree["cohort"]["sources"] = {"own": source}
    tree["coordinates"] |= {"k": "all", "k_validation": "all", "patterns": 2}
    clone.write_params(tree)
    assert kinds(clone.repro()) == {
        *("plan", "cohort", "resample", "embed", "neighbors", "coordinates"),
        *("patches", "quality", "evaluate", "report"),
    }
    assert clone.repro() == set()
    assert not list((clone.root / "data").glob("raw/*"))


def test_metrics_and_the_graph_can_be_shown(finished):
    assert "data/quality/metrics.json" in finished.dvc("metrics", "show")
    graph = finished.dvc("dag", "--collapse-foreach-matrix", "--mermaid")
    assert graph.count("[") == 14
