"""From the trials' predictions to scores, tests of the differences, and intervals.

Two sources of chance are kept apart. The t-tests ask whether two initializations differ over the *trials*, on these
test patients, as published. The intervals ask how much the mean over the trials would move with other test
*patients*, by drawing the patients again with replacement; all initializations of a task share the draws.

Decisions where mathematics leaves one to take:

- one trial has no spread: no standard deviation, no p, no mark;
- two initializations whose trials all scored alike have no spread either: p is 1 where they scored the same and,
  as the limit of a vanishing spread, 0 where they did not;
- a resample of patients in which the score does not exist (one class only) is left out of the interval and counted;
- intervals cover 1 - alpha.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sg.errors import InputError
from sg.params import Evaluate
from sg.randomness import generator

if TYPE_CHECKING:
    import h5py
    from rich.table import Table

    from sg.targets.metrics import PatientScores

NAN = float("nan")


@dataclass(frozen=True)
class Scored:
    """One initialization of a task: the score of every trial, and the mean on every resample of the patients."""

    scores: np.ndarray  # (trials,)
    per_scan: np.ndarray | None  # (trials,): the mean of IoU over scans; None where the metric has no such
    resampled: np.ndarray  # (resamples,); NaN where the score does not exist


@dataclass(frozen=True)
class TaskScores:
    """A task: its initializations, in the order of the study, and its baselines."""

    task: str
    metric: str
    initializations: dict[str, Scored]
    baselines: list[tuple[str, str, float]]  # name, description, score
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Comparison:
    """The difference of the means of two initializations over the trials, and its p."""

    first: str
    second: str
    difference: float
    p: float
    p_corrected: float
    low: float
    high: float


# ------------------------------------------------------------------------------------------------------ statistics


def p_value(first: Sequence[float], second: Sequence[float], test: str) -> float:
    """Two-sided p of a two-sample t-test, `welch` or `student` (equal variances); see above for no spread."""
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if min(len(first), len(second)) < 2:
        return NAN
    if np.ptp(first) == 0 and np.ptp(second) == 0:
        return 1.0 if first[0] == second[0] else 0.0
    from scipy.stats import ttest_ind_from_stats

    described = [(np.mean(sample), np.std(sample, ddof=1), len(sample)) for sample in (first, second)]
    return float(ttest_ind_from_stats(*described[0], *described[1], equal_var=test == "student").pvalue)


def corrected(p: Sequence[float], correction: str) -> list[float]:
    """p of one family corrected for their number (`holm`), or as they are (`none`); NaN is no member of the family."""
    p = np.asarray(p, np.float64)
    known = ~np.isnan(p)
    if correction == "holm" and known.any():
        from statsmodels.stats.multitest import multipletests

        p = p.copy()
        p[known] = multipletests(p[known], method="holm")[1]
    return p.tolist()


def interval(resampled: np.ndarray, alpha: float) -> tuple[float, float]:
    """Percentile interval over 1 - alpha of resampled values; NaN is left out, and none left gives (NaN, NaN)."""
    known = resampled[~np.isnan(resampled)]
    if known.size == 0:
        return NAN, NAN
    low, high = np.quantile(known, [alpha / 2, 1 - alpha / 2])
    return float(low), float(high)


def compare(scored: TaskScores, pairs: Sequence[tuple[str, str]], settings: Evaluate) -> list[Comparison]:
    """The pairs of initializations tested as one family."""
    members = scored.initializations
    raw = [p_value(members[first].scores, members[second].scores, settings.test) for first, second in pairs]
    return [
        Comparison(
            first,
            second,
            float(np.mean(members[first].scores) - np.mean(members[second].scores)),
            p,
            p_corrected,
            *interval(members[first].resampled - members[second].resampled, settings.alpha),
        )
        for (first, second), p, p_corrected in zip(
            pairs, raw, corrected(raw, settings.correction), strict=True
        )
    ]


def mark(comparison: Comparison, alpha: float) -> str:
    """`+` or `-` where the first is significantly better or worse than the second, else empty."""
    if not comparison.p_corrected < alpha:  # NaN is no significance either
        return ""
    return "+" if comparison.difference > 0 else "-"


# --------------------------------------------------------------------------------------------------------- scoring


def score_task(
    task: str, initializations: Sequence[str], target: Path, folder: Path, settings: Evaluate, seed: int
) -> TaskScores:
    """Score every trial of a task on its test patients.

    `target` is the task's file and `folder` holds a folder of trials for each initialization. InputError if the
    control is not among them, or predictions were made for other patients, or another truth, than the target's.
    """
    from sg.storage import open_h5

    if settings.control not in initializations:
        raise InputError(
            f"params.yaml: evaluate.control: must be one of finetune.initializations ({', '.join(initializations)}), "
            f"got {settings.control!r}"
        )
    with open_h5(target) as truth:
        metric, kind = str(truth.attrs["metric"]), str(truth.attrs["kind"])
        task_scores = TaskScores(task, metric, {}, _baselines(truth, kind))
        for name in initializations:
            path = folder / name / "predictions.h5"
            with open_h5(path) as predictions:
                counts = _READERS[kind](predictions, path, truth)
                broken = _not_finite(predictions, kind)
            if broken:
                task_scores.warnings.append(
                    f"{task} from {name}: {broken} trials predicted what is not a number; they are scored, not dropped"
                )
            task_scores.initializations[name] = _scored(task_scores, name, counts, settings, seed)
    return task_scores


def _scored(task: TaskScores, name: str, counts: PatientScores, settings: Evaluate, seed: int) -> Scored:
    patients = counts.patients
    rng = generator(seed, "evaluate", task.task, "bootstrap")
    draws = rng.multinomial(patients, np.full(patients, 1 / patients), size=settings.bootstrap)
    resampled = counts.resampled(draws)
    lost = int(np.count_nonzero(np.isnan(resampled)))
    if lost:
        task.warnings.append(
            f"{task.task} from {name}: {lost} of {settings.bootstrap} resamples of the {patients} test patients have no "
            f"{task.metric} and are left out of the interval"
        )
    return Scored(counts.scores(), counts.mean_per_scan(), resampled)


def _candidates(predictions: h5py.File, path: Path, target: h5py.File) -> PatientScores:
    from sg.targets.metrics import candidate_scores

    rows = target["rows"][...]
    rows = rows[rows["split"] == b"test"]
    same = all(
        np.array_equal(predictions[name][...], rows[column])
        for name, column in (("truth", "label"), ("scan", "scan"), ("patient", "patient"))
    )
    if not same:
        raise _other_truth(path, target)
    patient = np.unique(rows["patient"], return_inverse=True)[1]
    return candidate_scores(rows["label"], patient, predictions["scores"][...])


def _voxels(predictions: h5py.File, path: Path, target: h5py.File) -> PatientScores:
    from sg.targets.metrics import VoxelScores, overlap

    volumes = target["volumes"]
    if sorted(predictions) != sorted(volumes):
        raise _other_truth(path, target)
    counts, patients = [], []
    for scan in sorted(volumes):
        truth, predicted = volumes[scan]["truth"][...], predictions[scan]["predicted"]
        patient = str(volumes[scan].attrs["patient"])
        if str(predictions[scan].attrs["patient"]) != patient or not np.array_equal(
            predictions[scan]["truth"][...], truth
        ):
            raise _other_truth(path, target)
        counts.append([overlap(truth, predicted[trial]) for trial in range(len(predicted))])
        patients.append(patient)
    both = np.array(counts, np.int64).transpose(2, 1, 0)  # (intersection and union, trials, scans)
    return VoxelScores(np.unique(patients, return_inverse=True)[1], *both)


_READERS = {"nodule-classification": _candidates, "segmentation": _voxels}


def _other_truth(path: Path, target: h5py.File) -> InputError:
    return InputError(
        f"{path}: must hold predictions for the test patients and truth of {Path(target.filename)}, but holds others; "
        "run `dvc repro` to fine-tune again"
    )


def _not_finite(predictions: h5py.File, kind: str) -> int:
    """Trials that predicted something that is not a number (a mask cannot show it)."""
    if kind == "segmentation":
        return 0
    return int(np.count_nonzero(~np.isfinite(predictions["scores"][...]).all(axis=1)))


def _baselines(target: h5py.File, kind: str) -> list[tuple[str, str, float]]:
    """Name, description and score of each baseline that stands in a task's file."""
    from sg.targets.metrics import auc, overlap, ratio

    found = []
    for name in sorted(target.get("baseline", ())):
        baseline = target["baseline"][name]
        if kind == "segmentation":
            sums = [
                overlap(target["volumes"][scan]["truth"][...], baseline[scan][...])
                for scan in sorted(baseline)
            ]
            score = float(ratio(*np.sum(sums, axis=0)))
        else:
            rows = target["rows"][...]
            score = auc(rows["label"][rows["split"] == b"test"], baseline[...])
        found.append((name, str(baseline.attrs["description"]), score))
    return found


# ---------------------------------------------------------------------------------------------------------- tables

TRIALS = ["task", "metric", "initialization", "trial", "score", "mean_per_scan"]
SUMMARY = [
    "task",
    "metric",
    "initialization",
    "trials",
    "mean",
    "sd",
    "p",
    "p_corrected",
    "mark",
    "low",
    "high",
]
PAIRS = ["task", "metric", "first", "second", "difference", "p", "p_corrected", "low", "high"]
BASELINES = ["task", "metric", "name", "description", "score"]


def evaluate(
    plan: Sequence[dict[str, str]], targets: Path, finetune: Path, settings: Evaluate, seed: int
) -> list[TaskScores]:
    """Score every task that the plan's rows (task, initialization) name, in their order."""
    tasks: dict[str, list[str]] = {}
    for row in plan:
        tasks.setdefault(row["task"], []).append(row["initialization"])
    return [
        score_task(task, names, targets / f"{task}.h5", finetune / task, settings, seed)
        for task, names in tasks.items()
    ]


def write_evaluation(folder: Path, metrics: Path, scored: Sequence[TaskScores], settings: Evaluate) -> str:
    """Write trials.csv, summary.csv, pairs.csv, baselines.csv and notes.json into the folder, and the metrics.

    Against the control each other initialization is tested in one family, all pairs in another. Returns one line
    of facts. Without tasks the tables hold their headers alone and the metrics are {}.
    """
    against = {task.task: _against_control(task, settings) for task in scored}
    summary = [row for task in scored for row in _summary_rows(task, against[task.task], settings)]
    pairs = [
        [
            task.task,
            task.metric,
            one.first,
            one.second,
            one.difference,
            one.p,
            one.p_corrected,
            one.low,
            one.high,
        ]
        for task in scored
        for one in compare(task, list(combinations(task.initializations, 2)), settings)
    ]
    trials = [row for task in scored for row in _trial_rows(task)]
    _write_table(folder / "trials.csv", TRIALS, trials)
    _write_table(folder / "summary.csv", SUMMARY, summary)
    _write_table(folder / "pairs.csv", PAIRS, pairs)
    baselines = [[task.task, task.metric, *baseline] for task in scored for baseline in task.baselines]
    _write_table(folder / "baselines.csv", BASELINES, baselines)
    warnings = [warning for task in scored for warning in task.warnings]
    _write_json(folder / "notes.json", {**settings.model_dump(mode="json"), "warnings": warnings})
    _write_json(metrics, _metrics(summary))
    return _in_one_line(scored, against, settings, len(trials))


def _against_control(task: TaskScores, settings: Evaluate) -> dict[str, Comparison]:
    """Every other initialization against the control, as one family, by its name."""
    pairs = [(name, settings.control) for name in task.initializations if name != settings.control]
    return {one.first: one for one in compare(task, pairs, settings)}


def _trial_rows(task: TaskScores) -> list[list[object]]:
    rows = []
    for name, one in task.initializations.items():
        per_scan = one.per_scan if one.per_scan is not None else np.full(len(one.scores), NAN)
        for trial, (score, mean) in enumerate(zip(one.scores, per_scan, strict=True)):
            rows.append([task.task, task.metric, name, trial, score, mean])
    return rows


def _summary_rows(task: TaskScores, against: dict[str, Comparison], settings: Evaluate) -> list[list[object]]:
    rows = []
    for name, one in task.initializations.items():
        tested = against.get(name)  # None for the control
        spread = np.std(one.scores, ddof=1) if len(one.scores) > 1 else NAN
        rows.append(
            [
                *(task.task, task.metric, name, len(one.scores), np.mean(one.scores), spread),
                *((tested.p, tested.p_corrected, mark(tested, settings.alpha)) if tested else (NAN, NAN, "")),
                *interval(one.resampled, settings.alpha),
            ]
        )
    return rows


def _metrics(summary: list[list[object]]) -> dict[str, dict[str, dict[str, float]]]:
    """{task: {initialization: {"mean", "sd"}}} of the summary's rows; a single trial has no sd."""
    tree: dict[str, dict[str, dict[str, float]]] = {}
    for task, _, name, _, mean, sd, *_ in summary:
        facts = {"mean": float(mean), "sd": float(sd)}
        tree.setdefault(task, {})[name] = {key: value for key, value in facts.items() if not np.isnan(value)}
    return tree


def _in_one_line(
    scored: Sequence[TaskScores], against: dict[str, dict[str, Comparison]], settings: Evaluate, trials: int
) -> str:
    if not scored:
        return "no target tasks, nothing to score"
    names = list(dict.fromkeys(name for task in scored for name in task.initializations))
    text = f"{len(scored)} tasks, {len(names)} initializations, {trials} trials"
    wins = []
    for name in names:
        tested = [against[task.task][name] for task in scored if name in against[task.task]]
        if tested:
            won = sum(mark(one, settings.alpha) == "+" for one in tested)
            wins.append(f"{name} in {won} of {len(tested)}")
    return text + (f": significantly better than {settings.control}: {', '.join(wins)}" if wins else "")


def results_table(folder: Path) -> Table:
    """The summary of an evaluation as a table for the console; scores in percent.

    InputError if the folder holds no evaluation.
    """
    from rich.table import Table

    summary, baselines = (
        _read_table(folder / "summary.csv", SUMMARY),
        _read_table(folder / "baselines.csv", BASELINES),
    )
    notes = json.loads((folder / "notes.json").read_text(encoding="utf-8"))
    test = {"welch": "Welch's", "student": "Student's"}[notes["test"]]
    correction = {"holm": "Holm-corrected ", "none": ""}[notes["correction"]]
    table = Table(
        caption=f"mean ± s.d. over the trials, %; p: {correction}p of {test} t-test against {notes['control']}; "
        f"+ - significantly better or worse at {notes['alpha']:g}"
        + (f"; interval: {100 * (1 - notes['alpha']):g} % over test patients" if notes["bootstrap"] else ""),
        caption_justify="left",
    )
    table.add_column("task")
    table.add_column("initialization")
    for name in ("mean ± s.d.", "p", "", *(["interval"] if notes["bootstrap"] else [])):
        table.add_column(name, justify="left" if name == "" else "right", no_wrap=True)
    for task in dict.fromkeys(row["task"] for row in summary):
        rows = [row for row in summary if row["task"] == task]
        label = f"{task} ({rows[0]['metric']})"
        for row in rows:
            spread = f" ± {_percent(row['sd'])}" if row["sd"] else ""
            cells = [f"{_percent(row['mean'])}{spread}", _p(row["p_corrected"]), row["mark"]]
            ends = f"{_percent(row['low'])} – {_percent(row['high'])}" if row["low"] else ""
            table.add_row(label, row["initialization"], *cells, *([ends] if notes["bootstrap"] else []))
            label = ""
        for row in (row for row in baselines if row["task"] == task):
            table.add_row("", f"baseline: {row['name']}", _percent(row["score"]), style="dim")
        table.add_section()
    return table


def _percent(cell: str) -> str:
    return f"{100 * float(cell):.2f}" if cell else ""


def _p(cell: str) -> str:
    if not cell:
        return ""
    return "< 0.001" if float(cell) < 0.001 else f"{float(cell):.3f}"


def _cell(value: object) -> str:
    if isinstance(value, float | np.floating):
        return "" if np.isnan(value) else repr(float(value))
    return str(value)


def _write_table(path: Path, header: list[str], rows: list[list[object]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([_cell(value) for value in row] for row in rows)
    path.write_text(text.getvalue(), encoding="utf-8")


def _read_table(path: Path, header: list[str]) -> list[dict[str, str]]:
    try:
        with open(path, encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file; run `dvc repro` to make it") from None
    if reader.fieldnames != header:
        raise InputError(
            f"{path}: the columns must be {header}, got {reader.fieldnames}; run `dvc repro evaluate`"
        )
    return rows


def _write_json(path: Path, tree: object) -> None:
    path.write_text(json.dumps(tree, indent=2, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8")
