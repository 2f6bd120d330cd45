"""Scores, tests and intervals: by hand, by independent formulas, and in the cases that mathematics leaves open."""

import csv
import gc
import io
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from scipy.stats import rankdata
from scipy.stats import t as student_t

from sg import evaluation
from sg.errors import InputError
from sg.params import Evaluate
from sg.randomness import generator
from sg.storage import create_h5, open_h5, write_array
from sg.targets.metrics import auc, iou
from tests.targets import samples

SETTINGS = Evaluate(alpha=0.05, control="scratch", test="welch", correction="holm", bootstrap=200)


@pytest.fixture(scope="module", autouse=True)
def _quick_garbage():
    """statsmodels collects garbage at every correction, which takes 0.1 s among all that a test run has imported."""
    import statsmodels.stats.multitest  # noqa: F401

    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


# ------------------------------------------------------------------------------------------------------ statistics


def test_welch_by_hand():
    # means 2 and 5, variances 1 and 4, so t = -3 / sqrt(1/3 + 4/3) and df = (5/3)^2 / ((1/9 + 16/9) / 2)
    t, df = -3 / math.sqrt(5 / 3), (25 / 9) / (17 / 18)
    assert evaluation.p_value([1, 2, 3], [3, 5, 7], "welch") == pytest.approx(2 * student_t.cdf(t, df))


def test_student_by_hand():
    # pooled variance (2 * 1 + 2 * 4) / 4 = 2.5, df = 4
    t = -3 / math.sqrt(2.5 * (1 / 3 + 1 / 3))
    assert evaluation.p_value([1, 2, 3], [3, 5, 7], "student") == pytest.approx(2 * student_t.cdf(t, 4))


def test_one_trial_has_no_p():
    assert math.isnan(evaluation.p_value([0.5], [0.6], "welch"))


def test_without_any_spread_p_is_one_or_zero_and_tiny_spreads_come_near_to_it():
    for test in ("welch", "student"):
        assert evaluation.p_value([0.7, 0.7, 0.7], [0.7, 0.7, 0.7], test) == 1
        assert evaluation.p_value([0.7, 0.7, 0.7], [0.8, 0.8, 0.8], test) == 0
        assert evaluation.p_value([0.7, 0.7 + 1e-9, 0.7], [0.8, 0.8, 0.8], test) < 1e-6


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
@settings(max_examples=12, deadline=None)
def test_holm_is_its_definition(p):
    order = np.argsort(p)
    expected, highest = np.empty(len(p)), 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, (len(p) - rank) * p[place]))
        expected[place] = highest
    assert evaluation.corrected(p, "holm") == pytest.approx(expected)
    assert evaluation.corrected(p, "none") == p


def test_a_p_that_does_not_exist_is_no_member_of_the_family():
    assert evaluation.corrected([0.01, math.nan, 0.04], "holm") == pytest.approx(
        [0.02, math.nan, 0.04], nan_ok=True
    )
    assert evaluation.corrected([], "holm") == []


def test_a_mark_needs_significance_after_correction():
    def comparison(difference, p):
        return evaluation.Comparison("a", "b", difference, 0.001, p, 0, 0)

    assert [
        evaluation.mark(comparison(d, p), 0.05) for d, p in ((1, 0.04), (-1, 0.04), (1, 0.05), (1, math.nan))
    ] == [*("+", "-", "", "")]


def test_an_interval_leaves_out_resamples_without_a_score():
    values = np.concatenate([np.arange(101.0), [np.nan] * 5])
    assert evaluation.interval(values, 0.1) == (5, 95)
    assert all(map(math.isnan, evaluation.interval(np.array([np.nan]), 0.1)))
    assert all(map(math.isnan, evaluation.interval(np.array([]), 0.1)))


# --------------------------------------------------------------------------------------------------------- scoring


def predict_classes(path, target, scores):
    with open_h5(target) as file:
        rows = file["rows"][...]
    rows = rows[rows["split"] == b"test"]
    path.mkdir(parents=True)
    with create_h5(path / "predictions.h5") as file:
        for name, column in (("truth", "label"), ("scan", "scan"), ("patient", "patient")):
            write_array(file, name, rows[column])
        write_array(file, "scores", np.asarray(scores, np.float32))


def predict_masks(path, target, shares):
    """Truth with that share of all voxels turned over, a trial for each share."""
    rng = np.random.default_rng(4)
    path.mkdir(parents=True)
    with open_h5(target) as truth, create_h5(path / "predictions.h5") as file:
        for scan, volume in truth["volumes"].items():
            mask = volume["truth"][...]
            group = file.create_group(scan)
            write_array(group, "truth", mask)
            write_array(
                group, "predicted", np.stack([mask ^ (rng.random(mask.shape) < share) for share in shares])
            )
            group.attrs["patient"] = volume.attrs["patient"]


NAMES = ("scratch", "first", "second")


@pytest.fixture
def study(tmp_path):
    """Two tasks from three initializations of three trials; `first` is better than scratch, `second` like it."""
    (tmp_path / "targets").mkdir()
    samples.classification(tmp_path / "targets" / "ncc.h5")
    samples.segmentation(tmp_path / "targets" / "lcs.h5")
    rng = np.random.default_rng(8)
    with open_h5(tmp_path / "targets" / "ncc.h5") as file:
        rows = file["rows"][...]
    truth = rows["label"][rows["split"] == b"test"]
    for name, gain, shares in zip(
        NAMES, (0.3, 2.0, 0.3), ((0.2, 0.21, 0.22), (0.01, 0.02, 0.03), (0.2, 0.22, 0.21)), strict=True
    ):
        scores = 1 / (1 + np.exp(-(gain * truth + rng.normal(size=(3, len(truth))))))
        predict_classes(tmp_path / "finetune" / "ncc" / name, tmp_path / "targets" / "ncc.h5", scores)
        predict_masks(tmp_path / "finetune" / "lcs" / name, tmp_path / "targets" / "lcs.h5", shares)
    return tmp_path


PLAN = [{"task": task, "initialization": name} for task in ("ncc", "lcs") for name in NAMES]


def run(study, out, settings=SETTINGS, plan=PLAN, seed=1):
    out = study / out
    out.mkdir()
    scored = evaluation.evaluate(plan, study / "targets", study / "finetune", settings, seed)
    facts = evaluation.write_evaluation(out, out / "metrics.json", scored, settings)
    return out, facts


def table(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_every_trial_is_scored_from_its_predictions(study):
    out, _ = run(study, "out")
    rows = table(out / "trials.csv")
    assert [(row["task"], row["initialization"], row["trial"]) for row in rows] == [
        (one["task"], one["initialization"], str(trial)) for one in PLAN for trial in range(3)
    ]
    for row in rows:
        path = study / "finetune" / row["task"] / row["initialization"] / "predictions.h5"
        trial = int(row["trial"])
        with open_h5(path) as file:
            if row["task"] == "ncc":
                expected = auc(file["truth"][...], file["scores"][trial])
                assert row["mean_per_scan"] == ""
            else:
                pairs = [(file[scan]["truth"][...], file[scan]["predicted"][trial]) for scan in sorted(file)]
                expected = iou(*(np.concatenate(side) for side in zip(*pairs, strict=True)))
                each = np.mean([iou(*pair) for pair in pairs])
                assert float(row["mean_per_scan"]) == pytest.approx(each)
        assert float(row["score"]) == pytest.approx(expected)
        assert row["metric"] == {"ncc": "AUC", "lcs": "IoU"}[row["task"]]


def test_the_summary_follows_from_the_trials(study):
    out, facts = run(study, "out")
    scores = {}
    for row in table(out / "trials.csv"):
        scores.setdefault((row["task"], row["initialization"]), []).append(float(row["score"]))
    tree = json.loads((out / "metrics.json").read_text())
    for row in table(out / "summary.csv"):
        mine, control = scores[row["task"], row["initialization"]], scores[row["task"], "scratch"]
        assert (
            float(row["mean"])
            == tree[row["task"]][row["initialization"]]["mean"]
            == pytest.approx(np.mean(mine))
        )
        assert float(row["sd"]) == pytest.approx(np.std(mine, ddof=1))
        assert row["trials"] == "3"
        if row["initialization"] == "scratch":
            assert row["p"] == row["p_corrected"] == row["mark"] == ""
        else:
            assert float(row["p"]) == pytest.approx(evaluation.p_value(mine, control, "welch"))
            assert float(row["p_corrected"]) >= float(row["p"])
    marks = {(row["task"], row["initialization"]): row["mark"] for row in table(out / "summary.csv")}
    assert marks["lcs", "first"] == "+"
    assert marks["lcs", "second"] == ""
    assert facts.startswith(
        "2 tasks, 3 initializations, 18 trials: significantly better than scratch: first in "
    )
    assert facts.endswith(", second in 0 of 2")


def test_all_pairs_are_tested_as_one_family(study):
    out, _ = run(study, "out")
    rows = [row for row in table(out / "pairs.csv") if row["task"] == "lcs"]
    assert [(row["first"], row["second"]) for row in rows] == [
        *(("scratch", "first"), ("scratch", "second"), ("first", "second"))
    ]
    p = [float(row["p"]) for row in rows]
    assert [float(row["p_corrected"]) for row in rows] == pytest.approx(evaluation.corrected(p, "holm"))
    means = {
        row["initialization"]: float(row["mean"])
        for row in table(out / "summary.csv")
        if row["task"] == "lcs"
    }
    for row in rows:
        assert float(row["difference"]) == pytest.approx(means[row["first"]] - means[row["second"]])
        assert float(row["low"]) <= float(row["difference"]) <= float(row["high"])


def rank_auc(truth, scores):
    p, n = truth.sum(), (1 - truth).sum()
    return (rankdata(scores)[truth == 1].sum() - p * (p + 1) / 2) / (p * n)


def test_intervals_hold_the_mean_and_are_those_of_patients_repeated_as_they_were_drawn(study):
    out, _ = run(study, "out")
    summary = {(row["task"], row["initialization"]): row for row in table(out / "summary.csv")}
    for row in summary.values():
        assert float(row["low"]) <= float(row["mean"]) <= float(row["high"])
    with open_h5(study / "finetune/ncc/first/predictions.h5") as file:
        truth, patient, scores = (file[name][...] for name in ("truth", "patient", "scores"))
    truth, names, values = truth.astype(int), np.unique(patient), []
    for draw in generator(1, "evaluate", "ncc", "bootstrap").multinomial(4, np.full(4, 1 / 4), size=200):
        rows = np.concatenate([np.flatnonzero(patient == name) for name in np.repeat(names, draw)])
        values.append(np.mean([rank_auc(truth[rows], one[rows]) for one in scores]))
    got = summary["ncc", "first"]
    assert (float(got["low"]), float(got["high"])) == pytest.approx(
        tuple(np.quantile(values, [0.025, 0.975]))
    )


def test_a_second_evaluation_gives_equal_bytes_and_another_seed_other_intervals(study):
    outs = [run(study, name, seed=seed)[0] for name, seed in (("a", 1), ("b", 1), ("c", 2))]
    files = [{file.name: file.read_bytes() for file in sorted(out.iterdir())} for out in outs]
    assert files[0] == files[1]
    assert {name for name in files[0] if files[0][name] != files[2][name]} == {"summary.csv", "pairs.csv"}


def test_without_resamples_there_are_no_intervals(study):
    out, _ = run(study, "out", SETTINGS.model_copy(update={"bootstrap": 0}))
    rows = [*table(out / "summary.csv"), *table(out / "pairs.csv")]
    assert {row["low"] + row["high"] for row in rows} == {""}
    assert "interval" not in shown(out)


def test_baselines_are_scored_on_the_same_patients(study):
    out, _ = run(study, "out")
    found = {(row["task"], row["name"]): row for row in table(out / "baselines.csv")}
    assert float(found["ncc", "truth"]["score"]) == 1
    with open_h5(study / "targets" / "lcs.h5") as file:
        truth = np.concatenate([volume["truth"][...] for volume in file["volumes"].values()])
    assert float(found["lcs", "all"]["score"]) == pytest.approx(truth.mean())  # the union is everything
    assert found["lcs", "all"]["description"] == "every voxel"


def test_one_trial_has_neither_spread_nor_p(study):
    for name in NAMES:
        path = study / "finetune" / "ncc" / name / "predictions.h5"
        with open_h5(path) as file:
            scores = file["scores"][:1]
        path.unlink()
        path.parent.rmdir()
        predict_classes(path.parent, study / "targets" / "ncc.h5", scores)
    out, _ = run(study, "out", plan=PLAN[:3])
    for row in table(out / "summary.csv"):
        assert row["sd"] == row["p"] == row["p_corrected"] == row["mark"] == ""
    assert set(json.loads((out / "metrics.json").read_text())["ncc"]["first"]) == {"mean"}
    assert "±" not in shown(out).replace("mean ± s.d.", "")


def test_a_study_without_tasks_has_empty_tables(study):
    out, facts = run(study, "out", plan=[])
    headers = {
        "trials.csv": "task,metric,initialization,trial,score,mean_per_scan\n",
        "summary.csv": "task,metric,initialization,trials,mean,sd,p,p_corrected,mark,low,high\n",
        "pairs.csv": "task,metric,first,second,difference,p,p_corrected,low,high\n",
        "baselines.csv": "task,metric,name,description,score\n",
    }
    assert {name: (out / name).read_text() for name in headers} == headers
    assert (out / "metrics.json").read_text() == "{}\n"
    assert facts == "no target tasks, nothing to score"
    assert "initialization" in shown(out)


def test_a_trial_that_predicts_no_numbers_is_scored_and_named(study):
    path = study / "finetune" / "ncc" / "first"
    (path / "predictions.h5").unlink()
    path.rmdir()
    scores = np.full((3, 16), np.nan)
    scores[1:] = np.linspace(0, 1, 16)
    predict_classes(path, study / "targets" / "ncc.h5", scores)
    out, _ = run(study, "out")
    rows = [
        row for row in table(out / "trials.csv") if (row["task"], row["initialization"]) == ("ncc", "first")
    ]
    assert float(rows[0]["score"]) == 0.5
    assert json.loads((out / "notes.json").read_text())["warnings"] == [
        "ncc from first: 1 trials predicted what is not a number; they are scored, not dropped"
    ]


def test_resamples_of_one_class_are_counted(study):
    target = study / "targets" / "ncc.h5"
    target.unlink()
    samples.classification(target, patients=2, each=1)  # one patient has the nodule, the other has not
    for name in NAMES:
        path = study / "finetune" / "ncc" / name
        (path / "predictions.h5").unlink()
        path.rmdir()
        predict_classes(path, target, [[0.1, 0.9]] * 3)
    out, _ = run(study, "out", plan=PLAN[:3])
    warnings = json.loads((out / "notes.json").read_text())["warnings"]
    assert len(warnings) == 3
    lost = int(warnings[0].split()[3])
    assert 70 < lost < 130  # half of the 200 draws hold one patient twice
    row = table(out / "summary.csv")[0]
    assert (float(row["low"]), float(row["high"])) == (1, 1)


def test_other_test_patients_or_another_truth_are_refused(study):
    path = study / "finetune" / "ncc" / "second" / "predictions.h5"
    samples.classification(study / "other.h5", patients=5)
    path.unlink()
    path.parent.rmdir()
    predict_classes(path.parent, study / "other.h5", np.zeros((3, 20)))
    with pytest.raises(
        InputError, match=r"ncc/second/predictions.h5: must hold predictions for the test patients"
    ):
        run(study, "a")
    path = study / "finetune" / "lcs" / "first" / "predictions.h5"
    with open_h5(path) as file:
        content = {scan: (file[scan]["truth"][...], file[scan]["predicted"][...]) for scan in file}
        patients = {scan: file[scan].attrs["patient"] for scan in file}
    with create_h5(path) as file:
        for scan, (truth, predicted) in content.items():
            write_array(file, f"{scan}/truth", 1 - truth)
            write_array(file, f"{scan}/predicted", predicted)
            file[scan].attrs["patient"] = patients[scan]
    with pytest.raises(
        InputError, match=r"lcs/first/predictions.h5: must hold predictions for the test patients"
    ):
        run(study, "b", plan=PLAN[3:])


def test_missing_predictions_and_an_unknown_control_are_refused(study):
    with pytest.raises(
        InputError, match=r"evaluate.control: must be one of finetune.initializations \(scratch, first"
    ):
        run(study, "a", SETTINGS.model_copy(update={"control": "i3d"}))
    with pytest.raises(InputError, match=r"finetune/ncc/third/predictions.h5: there is no such file"):
        run(study, "b", plan=[*PLAN[:3], {"task": "ncc", "initialization": "third"}])


# ----------------------------------------------------------------------------------------------------------- table


def shown(folder):
    console = Console(width=110, record=True, file=io.StringIO())
    console.print(evaluation.results_table(folder))
    return console.export_text()


def test_the_table_shows_percent_p_marks_and_baselines(study):
    out, _ = run(study, "out")
    text = shown(out)
    row = next(
        row for row in table(out / "summary.csv") if (row["task"], row["initialization"]) == ("lcs", "first")
    )
    line = [line for line in text.splitlines() if " first " in line][1]
    assert f"{100 * float(row['mean']):.2f} ± {100 * float(row['sd']):.2f}" in line
    assert "baseline: truth" in text
    assert "100.00" in text
    assert "Holm-corrected p of Welch's t-test against scratch" in " ".join(text.split())


def test_a_folder_without_an_evaluation_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"summary.csv: there is no such file; run `dvc repro` to make it"):
        evaluation.results_table(tmp_path)
