"""What gives the phantoms away: patches of real scans told from patches of phantoms at matched spacing and noise.

    SG_REAL_CT=/folder python -m bench.giveaways [--quick] [--in-plane 3.0] [--out /tmp/giveaways.png]

Each real scan is matched by phantoms with its slice distance, nearly its in-plane voxels, and the noise that is measured
in it: level, kernel (by its mean frequency) and slice thickness (by its correlation along z). All are resampled to 3 mm
as the pipeline does. A small 3-D network and boosted trees on simple statistics learn to tell
real from phantom, leaving out one patient and its phantoms in turn. Printed is the area under the ROC curve (AUC) on
those left out, with a 95 % interval over patients (bootstrap), for patches of lung, of wall and mediastinum, of abdomen.

The control tells one real scan from the others (trained on some of its slabs and some of the others, tested on other
slabs and others): any two scanners differ, and patients do. The last line is the AUC of the stronger learner over that of
the same learner in the control. `--out` draws the patches that it was surest of; it must lie outside the repository.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
from scipy import ndimage
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score

from bench.noise import measure
from bench.phantoms import CHESTS, SHARED
from bench.reals import GRID_MM, PATIENTS, Real, read, resampled
from sg.cohorts.phantom import layouts
from sg.cohorts.phantom.acquisition import draw_acquisition
from sg.cohorts.phantom.making import Job
from sg.cohorts.phantom.noise import along_z
from sg.cohorts.phantom.person import draw_person
from sg.cohorts.phantom.rendering import Scan, render
from sg.errors import InputError
from sg.formats.headers import Geometry
from sg.randomness import generator, torch_generator

PATCH = (12, 24, 24)  # voxels (z, y, x)
REGIONS = ("lung", "wall and mediastinum", "abdomen")
LUNG_HU = -500.0
SEED = 11
THICKNESSES = (0.7, 1.0, 1.25, 1.5, 2.0)  # of slices, over their distance
BATCH, EPOCHS, WIDTH, RATE = 32, 6, 8, 2e-3
BOOTSTRAPS = 2000
SHOWN = 6  # patches of each kind in a row of the picture
WINDOWS_HU = {"lung": (-1000, 200), "wall and mediastinum": (-160, 240), "abdomen": (-60, 200)}


@dataclass(frozen=True)
class Patches:
    """Patches, float32 (n, z, y, x) in HU, with what they show, whose they are, whether real, and their height, mm.

    `numbers` are their simple statistics (n, features).
    """

    hu: np.ndarray
    numbers: np.ndarray
    region: np.ndarray
    patient: np.ndarray
    real: np.ndarray
    z_mm: np.ndarray

    def of(self, chosen: np.ndarray) -> Patches:
        return Patches(*(getattr(self, field.name)[chosen] for field in fields(self)))


def cut(
    hu: np.ndarray, patient: int, real: bool, count: int, rng: np.random.Generator
) -> tuple[list[np.ndarray], list[tuple]]:
    """Up to `count` patches of each region from a scan (z, y, x) at 3 mm, wherever they fall."""
    solid = hu > LUNG_HU
    body = np.stack([ndimage.binary_fill_holes(_largest(plane)) for plane in solid])
    air = body & ~solid
    shares = air.sum(axis=(1, 2)) / np.maximum(body.sum(axis=(1, 2)), 1)
    lung_middle = (shares * np.arange(len(shares))).sum() / max(shares.sum(), 1e-6)
    wanted = dict.fromkeys(REGIONS, count)
    patches, rows = [], []
    for _ in range(400 * count):
        corner = [int(rng.integers(n - p + 1)) for n, p in zip(hu.shape, PATCH, strict=True)]
        part = tuple(slice(c, c + p) for c, p in zip(corner, PATCH, strict=True))
        inside, lung = body[part].mean(), air[part].mean()
        middle = corner[0] + PATCH[0] // 2
        if lung > 0.5 and inside > 0.97:
            region = "lung"
        elif inside > 0.95 and lung < 0.1 and shares[middle] < 0.25 and middle < lung_middle:
            region = "abdomen"
        elif inside > 0.6 and 0.03 < lung < 0.5:
            region = "wall and mediastinum"
        else:
            continue
        if wanted[region]:
            wanted[region] -= 1
            patches.append(hu[part].astype(np.float32))
            rows.append((REGIONS.index(region), patient, real, middle * GRID_MM))
        if not any(wanted.values()):
            break
    return patches, rows


def _largest(plane: np.ndarray) -> np.ndarray:
    labels, count = ndimage.label(plane)
    if count == 0:
        return plane
    return labels == np.bincount(labels.ravel())[1:].argmax() + 1


def gather(names: list[str], phantoms: int, count: int, in_plane_mm: float) -> Patches:
    """Patches of the real scans and of so many phantoms matched to each."""
    patches, rows = [], []

    def add(hu: np.ndarray, patient: int, real: bool, item: str) -> None:
        more, of = cut(hu, patient, real, count, generator(SEED, "giveaways", item, "patches"))
        patches.extend(more)
        rows.extend(of)

    for number, one in enumerate(read(names)):
        add(one.coarse, number, True, one.name)
        for turn, scan in enumerate(matched(one, SEED + number, phantoms, in_plane_mm)):
            grid, how = scan.grid, scan.acquisition
            along = Geometry(grid.size, grid.spacing_mm, (0.0, 0.0, 0.0), (1, 0, 0, 0, 1, 0, 0, 0, 1))
            add(resampled(scan.hu, along), number, False, f"{number}/{turn}")
        x, _, z = grid.spacing_mm
        print(
            f"{one.name}: phantoms of {x} x {x} x {z} mm, slices of {how.thickness_mm:.1f} mm, {how.kernel}, "
            f"{how.noise_hu:.1f} HU",
            flush=True,
        )
    region, patient, real, z_mm = (np.array(column) for column in zip(*rows, strict=True))
    hu = np.stack(patches)
    return Patches(hu, statistics(hu), region, patient, real, z_mm)


def matched(one: Real, seed: int, count: int, in_plane_mm: float) -> Iterator[Scan]:
    """Phantoms scanned as a real scan was, as far as its voxels and its noise tell; voxels no finer than asked for."""
    x, _, z = one.spacing_mm
    noise = measure(one.hu, one.spacing_mm)
    xy, between = round(max(x, in_plane_mm), 3), round(float(np.clip(z, 2.0, 8.0)), 3)
    kernel = "smooth" if noise.frequency < 0.5 else "standard" if noise.frequency < 0.65 else "sharp"
    ratio = min(THICKNESSES, key=lambda r: abs(_together(r) - noise.along[2]))
    shared = SHARED.model_copy(update={"spacing_xy_mm": (xy, xy), "spacing_z_mm": (between, between)})
    for place in layouts.places(CHESTS.model_copy(update={"train": count})):
        draw = Job(Path(), seed, "bench", place, CHESTS, shared).draw
        person = draw_person(draw, CHESTS, shared)
        acquired = draw_acquisition(person.patient, place.number, "chest", shared, draw, draw)
        thickness = max(ratio * z, 0.7 * between)
        yield render(
            person, replace(acquired, kernel=kernel, thickness_mm=thickness, noise_hu=noise.sd_hu), draw
        )


def _together(ratio: float) -> float:
    """Correlation of the noise of neighbouring slices that are so many times as thick as their distance."""
    taps = along_z(ratio, 1.0)
    return float((taps[1:] * taps[:-1]).sum())


# ------------------------------------------------------------------------------------------- learners


def statistics(hu: np.ndarray) -> np.ndarray:
    """Simple numbers of patches (n, z, y, x): HU, steps between neighbours, grain. float64 (n, features)."""
    axes = (1, 2, 3)
    columns = [*np.quantile(hu, (0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98), axis=axes), hu.std(axis=axes)]
    grain = hu - ndimage.gaussian_filter(hu, (0, 1, 1, 1))
    variance = (grain**2).mean(axis=axes)
    columns += [np.sqrt(variance), *np.quantile(np.abs(grain), (0.25, 0.5, 0.9), axis=axes)]
    for axis in axes:
        step = np.abs(np.diff(hu, axis=axis))
        columns += [*np.quantile(step, (0.25, 0.5, 0.9, 0.98), axis=axes)]
        both = np.take(grain, range(1, hu.shape[axis]), axis) * np.take(
            grain, range(hu.shape[axis] - 1), axis
        )
        columns.append(both.mean(axis=axes) / np.maximum(variance, 1e-6))
    return np.stack(columns, axis=1)


def trees(train: Patches, target: np.ndarray, test: Patches, item: str) -> np.ndarray:
    """Scores of the test patches by boosted trees."""
    model = HistGradientBoostingClassifier(max_iter=120, learning_rate=0.08, max_depth=4, random_state=SEED)
    weight = np.where(target, 0.5 / target.mean(), 0.5 / (1 - target.mean()))
    model.fit(train.numbers, target, sample_weight=weight)
    return model.predict_proba(test.numbers)[:, 1]


def network(train: Patches, target: np.ndarray, test: Patches, item: str) -> np.ndarray:
    """Scores of the test patches by a small 3-D network."""
    import torch
    from torch import nn

    draws = torch_generator(SEED, "giveaways", item, "network")
    with torch.random.fork_rng():
        torch.manual_seed(int(torch.randint(2**31, (1,), generator=draws)))
        layers: list[nn.Module] = []
        for before, after in ((1, WIDTH), (WIDTH, 2 * WIDTH), (2 * WIDTH, 4 * WIDTH)):
            layers += [nn.Conv3d(before, after, 3, padding=1), nn.BatchNorm3d(after), nn.ReLU()]
            layers.append(nn.MaxPool3d(2))
        model = nn.Sequential(*layers, nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(4 * WIDTH, 1))
    images = torch.from_numpy(train.hu[:, None] / 500 + 1)
    labels = torch.from_numpy(target.astype(np.float32))
    loss = nn.BCEWithLogitsLoss(pos_weight=(1 - labels.mean()) / labels.mean())
    steps = EPOCHS * (len(labels) // BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), RATE, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    model.train()
    for _ in range(EPOCHS):
        order = torch.randperm(len(labels), generator=draws)
        for batch in order[: len(order) // BATCH * BATCH].split(BATCH):
            optimizer.zero_grad()
            patches = images[batch]
            if torch.rand(1, generator=draws) < 0.5:
                patches = patches.flip(4)
            loss(model(patches)[:, 0], labels[batch]).backward()
            optimizer.step()
            schedule.step()
    model.eval()
    with torch.no_grad():
        tested = torch.from_numpy(test.hu[:, None] / 500 + 1)
        return torch.cat([model(part)[:, 0] for part in tested.split(256)]).numpy()


Learner = Callable[[Patches, np.ndarray, Patches, str], np.ndarray]
LEARNERS: dict[str, Learner] = {"network": network, "trees": trees}


# ---------------------------------------------------------------------------------------- comparisons


def against_phantoms(patches: Patches, learner: Learner) -> np.ndarray:
    """Scores (higher: real) of all patches, each by a model that saw neither its patient nor that one's phantoms."""
    scores = np.zeros(len(patches.real))
    for patient in np.unique(patches.patient):
        left_out = patches.patient == patient
        train = patches.of(~left_out)
        scores[left_out] = learner(train, train.real, patches.of(left_out), f"patient {patient}")
    return scores


def against_others(patches: Patches, learner: Learner) -> list[float]:
    """For each real patient the AUC of telling its patches from other real ones, on slabs and patients left out."""
    reals = patches.of(patches.real)
    aucs = []
    patients = np.unique(reals.patient)
    for patient in patients:
        own = reals.patient == patient
        slab = (reals.z_mm // (3 * PATCH[0] * GRID_MM)).astype(int) % 2 == 0
        others = [other for other in patients if other != patient]
        train_others = np.isin(reals.patient, others[::2])
        train, test = (own & slab) | train_others, (own & ~slab) | ~(own | train_others)
        if not (own & slab).any() or not (own & ~slab).any():
            continue
        scores = learner(reals.of(train), own[train], reals.of(test), f"control {patient}")
        aucs.append(float(roc_auc_score(own[test], scores)))
    return aucs


def auc_by_patient(patches: Patches, scores: np.ndarray, chosen: np.ndarray) -> list[float]:
    """AUC of each patient's patches against those of its phantoms; patients without either are left out."""
    aucs = []
    for patient in np.unique(patches.patient):
        here = chosen & (patches.patient == patient)
        if len(np.unique(patches.real[here])) == 2:
            aucs.append(float(roc_auc_score(patches.real[here], scores[here])))
    return aucs


def interval(values: list[float]) -> str:
    """Mean and 95 % bootstrap interval over patients."""
    if not values:
        return "no patches"
    drawn = generator(SEED, "giveaways", "", "bootstrap").choice(values, (BOOTSTRAPS, len(values)))
    low, high = np.percentile(drawn.mean(axis=1), (2.5, 97.5))
    return f"{np.mean(values):.3f} [{low:.3f}, {high:.3f}] over {len(values)}"


def draw(path: Path, patches: Patches, scores: np.ndarray) -> None:
    """The patches that were told rightly with the greatest certainty, three planes each."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    rows = [(region, real) for region in range(len(REGIONS)) for real in (True, False)]
    figure, axes = plt.subplots(len(rows), 3 * SHOWN, figsize=(3 * SHOWN, 1.15 * len(rows)))
    for (region, real), line in zip(rows, axes, strict=True):
        index = np.flatnonzero((patches.region == region) & (patches.real == real))
        surest = index[np.argsort(-scores[index] if real else scores[index])][:SHOWN]
        low, high = WINDOWS_HU[REGIONS[region]]
        for place in line:
            place.axis("off")
        for turn, number in enumerate(surest):
            hu = patches.hu[number]
            middle = [n // 2 for n in hu.shape]
            planes = (hu[middle[0]], hu[::-1, middle[1]], hu[::-1, :, middle[2]])
            for place, plane in zip(line[3 * turn : 3 * turn + 3], planes, strict=True):
                place.imshow(plane, cmap="gray", vmin=low, vmax=high)
        line[0].set_title(f"{REGIONS[region]}, {'real' if real else 'phantom'}", loc="left", fontsize=7)
    figure.tight_layout(pad=0.3)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Print the AUCs and the ratio."""
    parser = argparse.ArgumentParser(description="Tell patches of real scans from patches of phantoms.")
    parser.add_argument("--quick", action="store_true", help="four real scans, fewer phantoms and patches")
    parser.add_argument("--in-plane", type=float, default=1.5, help="finest in-plane voxels of phantoms, mm")
    parser.add_argument("--out", type=Path, help="PNG to draw the surest patches to, outside the repository")
    options = parser.parse_args()
    if options.out and options.out.resolve().is_relative_to(Path(__file__).resolve().parent.parent):
        raise InputError(
            f"{options.out}: pictures of real scans must stay outside the repository; name another --out"
        )
    start = time.perf_counter()
    names = list(PATIENTS)[:4] if options.quick else list(PATIENTS)
    phantoms, count = (1, 24) if options.quick else (2, 40)
    patches = gather(names, phantoms, count, options.in_plane)
    print(
        f"{patches.real.sum()} real patches, {(~patches.real).sum()} of phantoms, {time.perf_counter() - start:.0f} s"
    )
    means = {}
    for name, learner in LEARNERS.items():
        scores = against_phantoms(patches, learner)
        for number, region in enumerate(REGIONS):
            print(
                f"{name}, {region}: AUC {interval(auc_by_patient(patches, scores, patches.region == number))}"
            )
        every = auc_by_patient(patches, scores, np.ones(len(scores), bool))
        print(f"{name}, all: AUC {interval(every)}", flush=True)
        if np.mean(every) > max((mean for mean, _ in means.values()), default=0.0):
            surest = scores
        means[name] = (float(np.mean(every)), learner)
    if options.out:
        draw(options.out, patches, surest)
    name = max(means, key=lambda key: means[key][0])
    control = against_others(patches, means[name][1])
    print(f"{name}, one real scan from the others: AUC {interval(control)}")
    print(f"{time.perf_counter() - start:.0f} s in all")
    print(f"ratio {means[name][0] / np.mean(control):.2f}")


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(str(error))
