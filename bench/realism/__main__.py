"""Are the phantoms like real CT? Every target of docs/phantom.md, measured.

    python -m bench.realism [--patients 100] [--pairs 20] [--pictures DIR] [--real DIR] [--workers 2]

Renders phantoms, measures them, and prints a table: target, real scans, phantoms with a 95 % interval (bootstrap over
patients, or pairs), whether it is met. The last line is the share of targets that are met. `--pictures` writes eight
phantoms in three planes; with `--real`, the folder that SG_REAL_CT names, real scans are measured beside them, and a
page shows both. Real scans are not the project's to pass on: with `--real`, pictures go outside the repository only.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bench.realism import cohort, pictures, real
from bench.realism.cohort import Figures, Registered
from bench.realism.measures import (
    boxes,
    explained_share,
    interval,
    look,
    participation_ratio,
    quantile_distance,
)
from bench.realism.targets import REAL_LUNG, REAL_REST, TARGETS, Target

ROOT = Path(__file__).resolve().parents[2]
LEAST = 20  # patients, for a covariance to mean anything
Figure = tuple[float, float, float, float | None]  # value, interval, spread


def spread_of(values: np.ndarray) -> float:
    return float(np.std(values, ddof=1))


def mean(values: np.ndarray) -> Figure:
    """Mean, its interval, standard deviation."""
    values = values[np.isfinite(values)]
    return float(values.mean()), *interval(values, np.mean), spread_of(values)


def statistic(values: np.ndarray, function: Callable[[np.ndarray], float]) -> Figure:
    """Any statistic of patients' values (n, ...), its interval."""
    return float(function(values)), *interval(values, function), None


def correlation(pairs: np.ndarray) -> float:
    return float(np.corrcoef(pairs.T)[0, 1])


def figures_of_cohort(all_of_them: list[Figures]) -> list[Figure]:
    """The targets' figures in their order, but for the registrations."""
    sound = [one for one in all_of_them if one.healthy]
    boxed = [one for one in all_of_them if one.boxes is not None]
    whole = [one for one in sound if one.boxes is not None]
    bsa = np.array([one.bsa_m2 for one in sound])
    liver, spleen = (np.array([getattr(one, organ) for one in sound]) for organ in ("liver", "spleen"))
    lobes = np.array([one.lobes / one.lobes.sum() * 100 for one in sound])
    level = np.array([one.carina_level for one in sound])
    size, ratio, offset = (
        np.array([getattr(one.boxes, name) for one in boxed]) for name in ("body_mm", "ratio", "offset_mm")
    )
    centres = np.array([one.centres for one in whole])
    centres = centres[:, np.isfinite(centres).all(axis=(0, 2))]  # of the organs that everybody has
    # A centre counts by where it is among the others: what moves all alike is where the person lies.
    among = (centres - centres.mean(axis=1, keepdims=True)).reshape(len(whole), -1)
    predictors = np.array([one.boxes.predictors for one in whole])
    looks = [one.look for one in all_of_them]
    nodules = [nodule for one in all_of_them for nodule in one.nodules]
    solid = [nodule for nodule in nodules if nodule.kind in ("solid", "calcified")]
    cores = np.array([n.hu for n in solid if n.kind == "solid" and n.diameter_mm >= 8])
    per_look = {
        "lung": [quantile_distance(one.lung_quantiles, REAL_LUNG) for one in looks],
        "rest": [quantile_distance(one.rest_quantiles, REAL_REST) for one in looks],
    }

    def both(rows: np.ndarray) -> float:
        return explained_share(rows[:, : predictors.shape[1]], rows[:, predictors.shape[1] :])

    return [
        mean(liver),
        statistic(np.column_stack([bsa, liver]), lambda rows: correlation(rows) ** 2),
        mean(spleen),
        statistic(np.column_stack([bsa, spleen]), lambda rows: abs(correlation(rows))),
        mean(np.array([one.lungs for one in sound]) / 1000),
        *(mean(lobes[:, n]) for n in range(lobes.shape[1])),
        statistic(level, lambda levels: float(np.isin(levels.round(), (5, 6)).mean())),
        mean(size[:, 1]),
        mean(size[:, 0]),
        mean(ratio[:, 1]),
        mean(ratio[:, 0]),
        statistic(offset[:, 1], spread_of),
        statistic(offset[:, 0], spread_of),
        # Patients that stand twice make a covariance thinner and a fit better: these intervals are jackknifed.
        jackknifed(among, participation_ratio),
        jackknifed(np.column_stack([predictors, among]), both),
        mean(np.array(per_look["lung"])),
        mean(np.array(per_look["rest"])),
        mean(np.array([one.lung_mean for one in looks])),
        mean(np.array([one.lung_p15 for one in looks])),
        mean(np.array([one.lung_under_950 for one in looks]) * 100),
        mean(np.array([one.lung_over_600 for one in looks]) * 100),
        mean(np.array([one.noise for one in looks])),
        mean(np.array([one.frequency for one in looks])),
        statistic(np.array([nodule.diameter_mm for nodule in nodules]), np.median),
        statistic(np.array([nodule.kind in ("solid", "calcified") for nodule in nodules], float), np.mean),
        mean(cores),
    ]


def jackknifed(samples: np.ndarray, function: Callable[[np.ndarray], float]) -> Figure:
    """A statistic of samples (n, ...), its 95 % interval from leaving out one at a time (normal approximation)."""
    n = len(samples)
    without = np.array([function(np.delete(samples, one, axis=0)) for one in range(n)])
    error = np.sqrt((n - 1) / n * ((without - without.mean()) ** 2).sum())
    value = function(samples)
    return float(value), float(value - 1.96 * error), float(value + 1.96 * error), None


def figures_of_pairs(pairs: list[Registered]) -> list[Figure]:
    """The five figures of registrations, in the targets' order."""
    chest, abdomen, surfaces = (
        np.array([getattr(one, name) for one in pairs]) for name in ("chest", "abdomen", "surfaces")
    )
    return [
        mean(chest[:, 2]),
        mean(chest[:, 3]),
        mean(abdomen[:, 3]),
        mean(surfaces[:, 0]),
        mean(surfaces[:, 1]),
    ]


def line(target: Target, figure: Figure | None) -> tuple[str, bool | None]:
    """A row of the table, and whether the target is met (None: not measured)."""
    if figure is None:
        return f"| {target.name} | {target.reference} | {target.real} | not measured | |", None
    value, low, high, spread = figure
    met = target.met(value, spread)
    d = target.digits
    shown = f"{value:.{d}f}" + (f" ± {spread:.{d}f}" if target.spread and spread is not None else "")
    return (
        f"| {target.name} | {target.reference} | {target.real} | {shown} ({low:.{d}f} to {high:.{d}f}) | "
        f"{'yes' if met else 'no'} |",
        met,
    )


def tolerances() -> None:
    """Print each target's tolerance and source, as docs/phantom.md has them."""
    print("| target | people, real scans | tolerance | source |")
    print("| --- | --- | --- | --- |")
    for target in TARGETS:
        d = target.digits
        tolerance = f"{target.low:.{d}f} to {target.high:.{d}f}"
        if target.spread is not None:
            tolerance += f", s.d. {target.spread[0]:.{d}f} to {target.spread[1]:.{d}f}"
        print(f"| {target.name} | {target.reference} | {tolerance} | {target.source} |")


def report(measured: list[Figures], registered: list[Registered]) -> None:
    """Print the table, and the share of targets that are met."""
    figures = figures_of_cohort(measured)
    first = [target.name for target in TARGETS].index("organs of the chest after affine registration, mm")
    figures[first:first] = figures_of_pairs(registered) if registered else [None] * 5
    print("| target | people, real scans | the real chests here | phantoms (95 % interval) | met |")
    print("| --- | --- | --- | --- | --- |")
    rows = [line(target, figure) for target, figure in zip(TARGETS, figures, strict=True)]
    print("\n".join(text for text, _ in rows))
    if registered:
        chest = np.array([one.chest for one in registered]).mean(axis=0)
        print(
            f"Organs of the chest with the lungs upon each other: {chest[0]:.1f} mm; the best affine map of all their "
            f"points leaves {chest[1]:.1f} mm (root mean square). Where every voxel of the chest counts alike: "
            "after affine {:.1f}, after B-spline {:.1f} mm.".format(
                *np.array([one.chest_voxels for one in registered]).mean(axis=0)
            )
        )
        print("By organ, after affine and after B-spline registration, mm: " + by_organ(registered) + ".")
    known = [met for _, met in rows if met is not None]
    print(f"ratio {sum(known) / len(known):.2f}")


def by_organ(registered: list[Registered]) -> str:
    """Each organ's mean distances over the pairs that have it, nearest first."""
    names = {organ for one in registered for organ in one.organs}
    means = {
        organ: np.mean([one.organs[organ] for one in registered if organ in one.organs], axis=0)
        for organ in names
    }
    return ", ".join(
        f"{organ.replace('_', ' ')} {affine:.1f} and {deformable:.1f}"
        for organ, (affine, deformable) in sorted(means.items(), key=lambda item: item[1][0])
    )


def real_page(folder: Path, chests: list[real.Chest]) -> None:
    """Print what the real scans measure, for the constants in `targets`."""
    looks = [look(one.hu, one.spacing_mm) for one in chests]
    for one, seen in zip(chests, looks, strict=True):
        found = boxes(one.hu, one.spacing_mm)
        if found is None:
            continue
        x, y, _ = found.body_mm
        print(
            f"{one.name}: body {y:.0f} x {x:.0f} mm, lungs over body {found.ratio[1]:.2f} x {found.ratio[0]:.2f}, "
            f"lungs' centre {found.offset_mm[1]:+.1f}, {found.offset_mm[0]:+.1f} mm; lungs {seen.lung_mean:.0f} HU, "
            f"15th percentile {seen.lung_p15:.0f}, under -950 {seen.lung_under_950:.1%}, over -600 "
            f"{seen.lung_over_600:.1%}; noise {seen.noise:.1f} HU, {seen.frequency:.3f} cycles a voxel"
        )
    for name in ("lung_quantiles", "rest_quantiles"):
        rows = np.array([getattr(one, name) for one in looks])
        apart = [
            quantile_distance(row, np.delete(rows, n, axis=0).mean(axis=0)) for n, row in enumerate(rows)
        ]
        print(
            f"{name}: {rows.mean(axis=0).round(1).tolist()}; one from the others {np.round(apart, 1).tolist()}"
        )
    distances = real.register(chests)
    if len(distances):
        print(
            f"lungs' surfaces, {len(distances)} ordered pairs: after affine {distances[:, 0].mean():.1f} mm "
            f"({distances[:, 0].min():.1f} to {distances[:, 0].max():.1f}), after B-spline "
            f"{distances[:, 1].mean():.1f} ({distances[:, 1].min():.1f} to {distances[:, 1].max():.1f})"
        )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.realism", description=__doc__.split("\n")[0])
    parser.add_argument("--patients", type=int, default=100, help=f"phantoms to measure, at least {LEAST}")
    parser.add_argument("--pairs", type=int, default=20, help="pairs of them to register; 0 for none")
    parser.add_argument("--pictures", type=Path, help="folder for pictures of eight phantoms")
    parser.add_argument("--real", type=Path, help="folder of real scans, laid out as SG_REAL_CT is")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument(
        "--targets", action="store_true", help="print the targets with their sources, and nothing else"
    )
    chosen = parser.parse_args()
    if chosen.patients < max(LEAST, 2 * chosen.pairs):
        parser.error(f"--patients must be at least {LEAST} and twice --pairs, got {chosen.patients}")
    if chosen.real and not chosen.real.is_dir():
        parser.error(f"--real {chosen.real}: no such folder")
    if chosen.real and chosen.pictures and chosen.pictures.resolve().is_relative_to(ROOT):
        parser.error(
            "--pictures with --real must be a folder outside the repository: real scans are never copied into it"
        )
    return chosen


def main() -> None:
    """Measure, print, draw."""
    chosen = arguments()
    if chosen.targets:
        tolerances()
        return
    jobs = cohort.jobs(chosen.patients)
    if chosen.pictures:
        chosen.pictures.mkdir(parents=True, exist_ok=True)
        pictures.write_phantoms(chosen.pictures, jobs[: pictures.PHANTOMS])
    if chosen.real:
        chests = real.read(chosen.real)
        real_page(chosen.real, chests)
        if chosen.pictures:
            pictures.write_beside(chosen.pictures / "beside-real.png", jobs, chests)
    start = time.perf_counter()
    measured = cohort.measured(jobs, chosen.workers)
    print(f"{len(measured)} phantoms in {time.perf_counter() - start:.0f} s", file=sys.stderr)
    start = time.perf_counter()
    pairs = [(jobs[2 * n], jobs[2 * n + 1]) for n in range(chosen.pairs)]
    registered = cohort.registered(pairs, chosen.workers)
    print(f"{len(registered)} pairs in {time.perf_counter() - start:.0f} s", file=sys.stderr)

    report(measured, registered)


if __name__ == "__main__":
    main()
