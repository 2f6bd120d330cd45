"""Pre-training, fine-tuning and results: the page's first, fifth and sixth sections."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sg import paths
from sg.errors import InputError
from sg.plan import read_plan
from sg.report import figures
from sg.report.discovery import loss_chart
from sg.report.figures import Curve, Group
from sg.report.pictures import axial, picture
from sg.report.tables import evenly, number, read_json, read_table, said, text
from sg.storage import open_h5

EXAMPLES = 6
SCORES = {"AUC": "area under the ROC curve", "IoU": "intersection over union"}


# ------------------------------------------------------------------------------------- pre-training


def pretraining(root: Path) -> list[dict[str, Any]]:
    """Each method that learns something: its curves, card and examples."""
    methods = [row["method"] for row in read_plan(root / paths.PRETRAIN_PLAN) if row["method"] != "scratch"]
    return [_method(root, name) for name in methods]


def _method(root: Path, name: str) -> dict[str, Any]:
    folder = root / paths.method(name)
    card = read_json(folder / "card.json")
    history = read_table(folder / "history.csv", ["epoch", "train", "validation"])
    columns = history[0] if history else {}
    parts = [name.removeprefix("validation_") for name in columns if name.startswith("validation_")]
    return {
        "name": name,
        "card": card_facts(card),
        "curves": loss_chart(history, "loss", name, f"of {name}"),
        "parts": [_part_chart(history, name, part) for part in (parts if len(parts) > 1 else [])],
        "examples": _examples(folder / "examples.h5", card),
    }


def _part_chart(history: list[dict[str, str]], method: str, part: str) -> figures.Chart:
    """The curves of one part of a method's loss."""
    rows = [
        {"epoch": row["epoch"], "train": row[f"train_{part}"], "validation": row[f"validation_{part}"]}
        for row in history
    ]
    return loss_chart(rows, part, f"{method}-{part}", f"({part}) of {method}")


def card_facts(card: dict[str, Any]) -> list[tuple[str, str]]:
    """A card as (what, value) in words: what the network is and learned from, then how it went, then the rest."""
    first = ["network", "parameters", "patch_size", "hu_min", "hu_max", "patterns", "losses"]
    last = ["epochs", "best_epoch", "best_validation"]
    silent = {"method", "warnings", "notes"}
    order = [key for key in (*first, *last) if key in card]
    order += sorted(key for key in card if key not in {*order, *silent})
    return [(key.replace("_", " ").replace("hu ", "HU "), said(card[key])) for key in order]


def _examples(path: Path, card: dict[str, Any]) -> list[dict[str, Any]]:
    """Middle axial slices of fixed validation patches: the target, what the network was given, what it made of it."""
    low, high = float(card["hu_min"]), float(card["hu_max"])
    with open_h5(path) as file:
        shown = evenly(file["original"].shape[0], EXAMPLES)
        kinds = {
            kind: [file[kind][index].astype(np.float64) for index in shown]
            for kind in ("original", "perturbed", "restored")
            # A method that only classifies restores nothing.
            if kind in file
        }
    examples = []
    for place in range(len(shown)):
        patches = {kind: kinds[kind][place] for kind in kinds}
        examples.append(
            {
                "pictures": [
                    picture(axial(patch * (high - low) + low), (1, 1), f"{kind} validation patch {place + 1}")
                    for kind, patch in patches.items()
                ],
                "errors": [
                    float(np.mean((patch - patches["original"]) ** 2))
                    for kind, patch in patches.items()
                    if kind != "original"
                ],
            }
        )
    return examples


# -------------------------------------------------------------------------------------- fine-tuning


def tasks_of(root: Path) -> dict[str, list[str]]:
    """The initializations of every task of the study, in its order."""
    tasks: dict[str, list[str]] = {}
    for row in read_plan(root / paths.FINETUNE_PLAN):
        tasks.setdefault(row["task"], []).append(row["initialization"])
    return tasks


def finetuning(root: Path) -> list[dict[str, Any]]:
    """The trials' curves: for each task one chart an initialization, all with the same axis."""
    return [
        {"task": task, "charts": _trial_charts(root, task, initializations)}
        for task, initializations in tasks_of(root).items()
    ]


def _trial_charts(root: Path, task: str, initializations: Sequence[str]) -> list[dict[str, Any]]:
    lines: dict[str, list[Curve]] = {}
    epochs: dict[str, list[int]] = {}
    for series, initialization in enumerate(initializations):
        history = read_table(
            root / paths.trials(task, initialization) / "history.csv",
            ["trial", "epoch", "train", "validation"],
        )
        lines[initialization], epochs[initialization] = [], []
        for trial in dict.fromkeys(row["trial"] for row in history):
            mine = [row for row in history if row["trial"] == trial]
            x = [number(row["epoch"]) for row in mine]
            train, validation = ([number(row[column]) for row in mine] for column in ("train", "validation"))
            best = int(np.nanargmin(validation)) if np.isfinite(validation).any() else None
            lines[initialization] += [
                Curve(train, series, True, x=x),
                Curve(validation, series, best=best, x=x),
            ]
            epochs[initialization].append(len(mine))
    every = [line for some in lines.values() for line in some]
    log = figures.spans_decades(every)
    limits = figures.limits_of(every, log)
    return [
        {
            "initialization": initialization,
            "epochs": epochs[initialization],
            "chart": figures.curves(
                lines[initialization],
                "epoch",
                "loss",
                f"loss of {len(epochs[initialization])} trials of {task} from {initialization}",
                f"trials-{task}-{initialization}",
                limits=limits,
                log=log,
                width=340,
            ),
        }
        for initialization in initializations
    ]


# ------------------------------------------------------------------------------------------ results


def results(root: Path) -> list[dict[str, Any]]:
    """Each target task: who was tested on what, the table, the chart, baselines and all pairs. Empty without tasks."""
    tasks = tasks_of(root)
    if not tasks:
        return []
    folder = root / paths.EVALUATE
    summary = read_table(
        folder / "summary.csv",
        [
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
        ],
    )
    trials = read_table(folder / "trials.csv", ["task", "initialization", "trial", "score"])
    baselines = read_table(folder / "baselines.csv", ["task", "name", "description", "score"])
    pairs = read_table(
        folder / "pairs.csv", ["task", "first", "second", "difference", "p", "p_corrected", "low", "high"]
    )
    found = []
    for order, (task, initializations) in enumerate(tasks.items(), 1):
        rows = [_summary_row(summary, task, name, folder) for name in initializations]
        metric = rows[0]["metric"]
        scores = {
            name: [
                number(row["score"]) for row in trials if (row["task"], row["initialization"]) == (task, name)
            ]
            for name in initializations
        }
        mine = [
            {"name": row["name"], "description": row["description"], "score": number(row["score"])}
            for row in baselines
            if row["task"] == task
        ]
        groups = [
            Group(row["initialization"], scores[row["initialization"]], row["mean"], row["sd"], row["mark"])
            for row in rows
        ]
        said = "; ".join(f"{group.name} {group.mean:.3f}" for group in groups)
        found.append(
            {
                "task": task,
                "metric": metric,
                "meaning": SCORES.get(metric, metric),
                "rows": rows,
                "test": target_facts(root, task),
                "chart": figures.scores(
                    groups,
                    [(row["name"], row["score"]) for row in mine],
                    metric,
                    f"{metric} of the trials of {task} from each initialization: {said}",
                    order,
                ),
                "baselines": mine,
                "pairs": [
                    {"first": row["first"], "second": row["second"]}
                    | {key: number(row[key]) for key in ("difference", "p", "p_corrected", "low", "high")}
                    for row in pairs
                    if row["task"] == task
                ],
                "baselines_ahead": _ahead(rows, mine),
            }
        )
    return found


def verdicts(results: list[dict[str, Any]], control: str) -> list[dict[str, Any]]:
    """For each initialization but the control: the tasks in which it is significantly better, worse, neither."""
    found: dict[str, dict[str, list[str]]] = {}
    for task in results:
        for row in task["rows"]:
            if row["initialization"] != control:
                kinds = found.setdefault(row["initialization"], {"better": [], "worse": [], "neither": []})
                kinds[{"+": "better", "-": "worse"}.get(row["mark"], "neither")].append(task["task"])
    return [{"initialization": name, **kinds} for name, kinds in found.items()]


def _ahead(rows: list[dict[str, Any]], baselines: list[dict[str, Any]]) -> list[str]:
    """The simple baselines that reach at least the best initialization's mean."""
    best = max((row["mean"] for row in rows if not math.isnan(row["mean"])), default=math.nan)
    return [row["name"] for row in baselines if row["score"] >= best]


def _summary_row(
    summary: list[dict[str, str]], task: str, initialization: str, folder: Path
) -> dict[str, Any]:
    for row in summary:
        if (row["task"], row["initialization"]) == (task, initialization):
            numbers = {key: number(row[key]) for key in ("mean", "sd", "p", "p_corrected", "low", "high")}
            return {**row, **numbers, "trials": int(row["trials"])}
    raise InputError(
        f"{folder / 'summary.csv'}: it lacks {task} from {initialization}; run `dvc repro evaluate`"
    )


def target_facts(root: Path, task: str) -> dict[str, Any]:
    """What a task is tested on: patients of each split, and findings or whole scans of the test split."""
    with open_h5(root / paths.target(task)) as file:
        kind = str(file.attrs["kind"])
        rows = file["rows"][...]
        patients = {
            split: {text(row) for row in rows["patient"][rows["split"] == split.encode()]}
            for split in ("train", "validation", "test")
        }
        items = len(rows)
        if kind == "segmentation":
            volumes = list(file["volumes"])
            patients["test"] = {text(file["volumes"][scan].attrs["patient"]) for scan in volumes}
            test = f"{len(volumes)} whole scans"
        else:
            tested = rows["split"] == b"test"
            positive = int(rows["label"][tested].sum())
            test = f"{int(tested.sum()):,} candidates, {positive:,} of them nodules"
    return {
        "kind": kind.replace("-", " "),
        "patients": {split: len(who) for split, who in patients.items()},
        "test": test,
        "patches": items,
    }
