"""Do nearest patients show the same anatomy? Controls, frames, numbers of patients and auto-encoders, on many phantoms.

    sg use configs/discovery.yaml && dvc repro quality
    python -m bench.discovery [--encoders 5] [--registrations 10] [--out studies/discovery]

Run in the folder of a study whose stage `quality` is done; configs/discovery.yaml is one of 623 training patients. The
patterns are the study's own. Besides its auto-encoder others are trained, that differ from it in the seed alone, which
takes most of the time (they are kept in .state/discovery and not trained again). Then every control is measured for
each number of neighbours K of each number of patients N in CHOICES, with intervals by a bootstrap over references and
patients (`sg.quality`). Written are:

- controls.csv: as the stage writes it, for every K and N; `nearest` is the study's auto-encoder, `nearest-2` and on the
  others, `untrained-2` and on what these began with; `bottleneck` is the study's without the mean over space. `affine`
  does not depend on K: it stands with each.
- encoders.csv: by how many mm each control's error is more than the mean of the trained auto-encoders' errors, of each
  pattern; `untrained` is the mean of the untrained ones. The mean and the median over patterns, for a few patterns can
  make a mean.
- agreement.csv: how well the order of the patients by a control agrees with their order by the distance in the atlas at
  the pattern, by the mean distance over the whole body, and by geometry: Spearman's correlation, mean over patterns,
  with the same of the whole body's order against the pattern's in the row `oracle-body`.
- params.yaml, dvc.lock, the auto-encoder's card.json and the metrics.json of the stage `quality`, copied: what it all was
  made with, and what the stage itself found.

The last line is the error of random patients over that of the nearest, in the study's frame, for its own K and N.
"""

from __future__ import annotations

import argparse
import csv
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import astuple, fields
from pathlib import Path

import numpy as np
import torch
from scipy.stats import rankdata

from sg import paths
from sg.cohorts.records import ScanRow, read_rows
from sg.embedding import learn_embedding
from sg.intensity import to_unit
from sg.neighbors import read_embeddings, read_ranking
from sg.networks.autoencoder import untrained
from sg.params import Params, parse
from sg.quality.choosing import by_distance, by_vectors
from sg.quality.controls import embedded, orderings, read_thumbnails
from sg.quality.measuring import number
from sg.quality.registration import registered
from sg.quality.study import Study, read_study
from sg.quality.table import Errors, Resamples, Row, controls, table
from sg.randomness import generator
from sg.roles import Roles, read_roles
from sg.weights import load_tensors

CHOICES = ((10, 400), (50, 400), (200, 400), (200, 623))
COMPARED = [
    "frame", "k", "patients", "control", "mean_mm", "mean_low", "mean_high", "median_mm", "median_low", "median_high"
]  # fmt: skip
KEPT = Path(".state") / "discovery"


def main() -> None:
    options = _options()
    params = parse(Path("params.yaml").read_text(encoding="utf-8"), "params.yaml")
    roles = read_roles(paths.ROLES)
    study = read_study(paths.COORDINATES, paths.TRUTH)
    orders = orderings(
        study,
        read_ranking(paths.RANKING, roles),
        paths.THUMBNAILS,
        read_rows(paths.SCANS, ScanRow),
        untrained(params.embed.width, params.embed.depth, params.seed),
    )
    images, hu = read_thumbnails(paths.THUMBNAILS, study.scans)
    for number_, vectors in enumerate(other_encoders(params, roles, study, options.encoders - 1), start=2):
        orders[f"nearest-{number_}"] = by_vectors(study, vectors)
        began = untrained(params.embed.width, params.embed.depth, params.seed + number_ - 1)
        orders[f"untrained-{number_}"] = by_vectors(study, embedded(began, images, *hu))
    orders["bottleneck"] = by_vectors(study, bottlenecks(params, study))
    affine = registered(study, paths.THUMBNAILS, paths.TRUTH, options.registrations, params.seed)
    print(
        f"{len(study.patterns)} patterns, {len(study.patients)} patients; {affine.failed} registrations failed"
    )
    rows: list[Row] = []
    compared: list[tuple[str, int, int, str, float, ...]] = []
    for k, patients in CHOICES:
        if patients > len(study.patients):
            print(f"K = {k} of {patients} patients: there are only {len(study.patients)}, left out")
            continue
        among = drawn(study, patients, params.seed)
        found = table(study, orders, k, among, params.seed, affine.crops)
        rows += found
        compared += against_encoders(study, orders, k, among, params.seed)
        show(found)
    options.out.mkdir(parents=True, exist_ok=True)
    for kept in (
        Path("params.yaml"),
        Path("dvc.lock"),
        paths.EMBED / "card.json",
        paths.QUALITY / "metrics.json",
    ):
        shutil.copy(kept, options.out)
    _write(options.out / "controls.csv", [field.name for field in fields(Row)], map(astuple, rows))
    _write(options.out / "encoders.csv", COMPARED, compared)
    print("\nmm more than the mean of the trained auto-encoders: mean over patterns (95 %), median (95 %)")
    for frame, k, patients, control, *mm in compared:
        mean, low, high, middle, middle_low, middle_high = mm
        print(
            f"{frame:8}{k:4} of {patients:4} {control:14}{mean:6.1f} ({low:5.1f} to {high:5.1f})"
            f"{middle:6.1f} ({middle_low:5.1f} to {middle_high:5.1f})"
        )
    agreed = list(agreement(study, orders))
    _write(options.out / "agreement.csv", ["frame", "control", "point", "body", "geometry"], agreed)
    print(
        "\nSpearman's correlation of a control's order with that by the atlas distance at the pattern, by that of the "
        "body, and by geometry"
    )
    for frame, control, *correlations in agreed:
        print(f"{frame:8}{control:14}" + "".join(f"{correlation:7.2f}" for correlation in correlations))
    errors = {row.control: row.error_mm for row in rows if row.frame == study.frame and row.k == study.k}
    print(f"ratio {errors['random'] / errors['nearest']:.3f}")


def against_encoders(
    study: Study, orders: Mapping[str, np.ndarray], k: int, among: np.ndarray, seed: int
) -> Iterable[tuple[str, int, int, str, float, ...]]:
    """What every control's errors are more than the mean of the trained auto-encoders': rows of COMPARED."""
    resamples = Resamples.draw(study, among, seed)
    for frame in study.frames:
        errors = {
            name: Errors(crops.median_mm, resamples.errors(study, crops))
            for name, crops in controls(study, frame, orders, k, among).items()
        }
        of_kind = {
            kind: [error for name, error in errors.items() if name.split("-")[0] == kind]
            for kind in ("nearest", "untrained")
        }
        trained, before = (
            Errors(*(np.mean([getattr(e, part) for e in kind], axis=0) for part in ("mm", "resampled")))
            for kind in of_kind.values()
        )
        others = {name: error for name, error in errors.items() if name.split("-")[0] not in of_kind}
        for control, error in {**others, "untrained": before}.items():
            more = error - trained
            yield (
                frame, k, int(among.sum()), control, *more.mean(resamples.patterns), *more.median(resamples.patterns)
            )  # fmt: skip


def other_encoders(params: Params, roles: Roles, study: Study, count: int) -> Iterable[np.ndarray]:
    """Vectors (scans, d) of the study's scans by auto-encoders of the seeds that follow the study's."""
    for seed in range(params.seed + 1, params.seed + 1 + count):
        folder = KEPT / str(seed)
        done = folder / "card.json"
        if not done.is_file():
            state = folder / "state"
            state.mkdir(parents=True, exist_ok=True)
            learn_embedding(paths.THUMBNAILS, roles, folder, params.embed, seed, state)
        found = read_embeddings(folder / "embeddings.h5", roles)
        row = {scan: i for i, scan in enumerate(found.scan.tolist())}
        yield found.vectors[[row[scan] for scan in study.scans.tolist()]]


def bottlenecks(params: Params, study: Study) -> np.ndarray:
    """The bottlenecks of the study's auto-encoder for its scans, not averaged: (scans, channels * places)."""
    model = untrained(params.embed.width, params.embed.depth, params.seed)
    load_tensors(model, paths.EMBED / "autoencoder.safetensors")
    model.eval()
    images, hu = read_thumbnails(paths.THUMBNAILS, study.scans)
    with torch.inference_mode():
        rows = [model.encoder(torch.from_numpy(to_unit(image, *hu)[None, None]))[0] for image in images]
    return np.stack([row.numpy().ravel() for row in rows])


def drawn(study: Study, patients: int, seed: int) -> np.ndarray:
    """The mask (n,) of so many patients, the references' among them and the others drawn at random."""
    among = np.zeros(len(study.patients), bool)
    among[study.patient[study.reference]] = True
    others = np.flatnonzero(~among)
    rng = generator(seed, "discovery", str(patients), "patients")
    among[rng.choice(others, patients - int(among.sum()), replace=False)] = True
    return among


def agreement(
    study: Study, orders: Mapping[str, np.ndarray]
) -> Iterable[tuple[str, str, float, float, float]]:
    """Frame, control, and the mean over patterns of the rank correlations with `mm`, `body_mm` and geometry's order."""
    by_geometry = np.full((len(study.patterns), len(study.patients)), np.nan)
    for pattern, ranked in enumerate(orders["geometry"]):
        ranked = ranked[ranked >= 0]
        by_geometry[pattern, study.patient[ranked]] = np.arange(len(ranked))
    for frame, laid in study.frames.items():
        for control, order in {**orders, "oracle-body": by_distance(study, laid.body_mm)}.items():
            pairs = []
            for pattern, ranked in enumerate(order):
                ranked = ranked[ranked >= 0]
                ranked = ranked[laid.fits[pattern, ranked]]
                known = [array[pattern, ranked] for array in (laid.mm, laid.body_mm)]
                known.append(by_geometry[pattern, study.patient[ranked]])
                pairs.append([_spearman(values) for values in known])
            yield frame, control, *np.nanmean(pairs, axis=0).tolist()


def _spearman(values: np.ndarray) -> float:
    """The rank correlation of values with the order in which they stand."""
    values = values[np.isfinite(values)]
    if len(values) < 3 or np.ptp(values) == 0:
        return np.nan
    return float(np.corrcoef(rankdata(values), np.arange(len(values)))[0, 1])


def show(rows: Iterable[Row]) -> None:
    """One K and N as a table, the five auto-encoders also as the mean and range of their shares."""
    rows = list(rows)
    frame = ""
    for row in rows:
        if row.frame != frame:
            frame = row.frame
            print(
                f"\nframe {frame}, K = {row.k} of N = {row.patients}: mm (95 %), share of gain (95 %), spread, purity"
            )
        print(
            f"{row.control:14}{row.error_mm:6.1f} ({row.error_low:5.1f} to {row.error_high:5.1f})"
            f"{100 * row.share:7.0f} % ({100 * row.share_low:4.0f} to {100 * row.share_high:4.0f})"
            f"{row.spread_mm:7.1f}{row.purity:6.2f}"
        )
    for frame in dict.fromkeys(row.frame for row in rows):
        shares = [100 * row.share for row in rows if row.frame == frame and row.control.startswith("nearest")]
        if shares:
            print(
                f"frame {frame}: {len(shares)} auto-encoders reach {np.mean(shares):.0f} % of the possible gain "
                f"({min(shares):.0f} to {max(shares):.0f})"
            )


def _write(path: Path, columns: list[str], rows: Iterable[Iterable[object]]) -> None:
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        for row in rows:
            cells = (number(cell) if isinstance(cell, float) else cell for cell in row)
            writer.writerow(["" if cell is None else cell for cell in cells])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--encoders", type=int, default=5, help="auto-encoders, the study's own being the first"
    )
    parser.add_argument("--registrations", type=int, default=10, help="affine registrations of each pattern")
    parser.add_argument("--out", type=Path, default=Path("studies/discovery"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
