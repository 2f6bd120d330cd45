"""Do nearest patients show the same anatomy? Controls, frames, numbers of patients and auto-encoders, on many phantoms.

    sg use configs/discovery.yaml && dvc repro quality
    python -m bench.discovery [--encoders 5] [--registrations 10] [--out studies/discovery]

Run in the folder of a study whose stage `quality` is done; configs/discovery.yaml is one of 623 training patients. The
patterns are the study's own. Besides its auto-encoder others are trained, that differ from it in the seed alone, which
takes most of the time (they are kept in .state/discovery and not trained again). Then every control is measured for
each number of neighbours K of each number of patients N in CHOICES, with intervals by a bootstrap over references and
patients (`sg.quality`). Written are:

- controls.csv: as the stage writes it, for every K and N; `nearest` is the study's auto-encoder, `nearest-2` and on the
  others; `bottleneck` is the study's without the mean over space. `affine` does not depend on K: it stands with each.
- agreement.csv: how well the order of the patients by a control agrees with their order by the distance in the atlas at
  the pattern, and by the mean distance over the whole body: Spearman's correlation, mean over patterns, with the same
  of the whole body's order against the pattern's in the row `oracle-body`.

The last line is the error of random patients over that of the nearest, in the study's frame, for its own K and N.
"""

from __future__ import annotations

import argparse
import csv
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
from sg.quality.controls import orderings, read_thumbnails
from sg.quality.measuring import number
from sg.quality.registration import registered
from sg.quality.study import Study, read_study
from sg.quality.table import Row, table
from sg.randomness import generator
from sg.roles import Roles, read_roles
from sg.weights import load_tensors

CHOICES = ((10, 400), (50, 400), (200, 400), (200, 623))
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
    for number_, vectors in enumerate(other_encoders(params, roles, study, options.encoders - 1), start=2):
        orders[f"nearest-{number_}"] = by_vectors(study, vectors)
    orders["bottleneck"] = by_vectors(study, bottlenecks(params, study))
    affine = registered(study, paths.THUMBNAILS, paths.TRUTH, options.registrations, params.seed)
    print(
        f"{len(study.patterns)} patterns, {len(study.patients)} patients; {affine.failed} registrations failed"
    )
    rows: list[Row] = []
    for k, patients in CHOICES:
        if patients > len(study.patients):
            print(f"K = {k} of {patients} patients: there are only {len(study.patients)}, left out")
            continue
        found = table(study, orders, k, drawn(study, patients, params.seed), params.seed, affine.crops)
        rows += found
        show(found)
    options.out.mkdir(parents=True, exist_ok=True)
    _write(options.out / "controls.csv", [field.name for field in fields(Row)], map(astuple, rows))
    agreed = list(agreement(study, orders))
    _write(options.out / "agreement.csv", ["frame", "control", "point", "body"], agreed)
    print(
        "\nSpearman's correlation of a control's order with the atlas distance at the pattern, and of the body"
    )
    for frame, control, point, body in agreed:
        print(f"{frame:8}{control:14}{point:7.2f}{body:7.2f}")
    errors = {row.control: row.error_mm for row in rows if row.frame == study.frame and row.k == study.k}
    print(f"ratio {errors['random'] / errors['nearest']:.3f}")


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


def agreement(study: Study, orders: Mapping[str, np.ndarray]) -> Iterable[tuple[str, str, float, float]]:
    """Frame, control, and the mean over patterns of the rank correlations with `mm` and with `body_mm`."""
    for frame, laid in study.frames.items():
        for control, order in {**orders, "oracle-body": by_distance(study, laid.body_mm)}.items():
            pairs = []
            for pattern, ranked in enumerate(order):
                ranked = ranked[ranked >= 0]
                ranked = ranked[laid.fits[pattern, ranked]]
                known = [array[pattern, ranked] for array in (laid.mm, laid.body_mm)]
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
