"""Does one trick solve the tasks on phantoms? Tricks against small networks from scratch, on the same patients.

    python -m bench.shortcuts [--train 60] [--test 100] [--seed 14] [--threads 2]

Nodules: the candidates of chest phantoms at 3 mm, told apart by mean HU alone, by bright volume (size) alone, by
position in the boxes of body and lungs alone, by boosted trees on all hand-made features together, and by the mean of
two 3-D networks that differ in their first weights and batches. As they learn, these are shown the tissues of their
training patients too, voxel by voxel. The liver: by the best HU window, by the mean liver map in the body's box, and by
a 3-D network.

Everything is fitted to some patients, and scored on others. The settings of networks and trees were chosen on training
patients, some of them held out. Of a trick's variants the one counts that is best on the test patients, which favours
the trick. Intervals are 95 %, bootstrapped over test patients. It takes about half an hour on two cores; fewer patients
make a quick look. The last line is the nodules' networks' AUC over the best single trick's.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from torch import nn

from bench.phantoms import CHESTS, LIVERS, rendered
from sg.cohorts.phantom.canvas import LABEL, LABELS
from sg.cohorts.phantom.rendering import Scan
from sg.networks.blocks import Encoder, spatial_mean
from sg.networks.initial import initialize
from sg.networks.unet import UNet

BOUNDS = {"density": 0.8, "size": 0.8, "position": 0.8, "all features": 0.9, "window": 0.6, "map": 0.65}
STARTED = time.monotonic()


def say(text: str) -> None:
    """A line of progress."""
    print(f"[{time.monotonic() - STARTED:5.0f} s] {text}", flush=True)


@dataclass(frozen=True)
class Size:
    """A network's size."""

    width: int
    depth: int
    norm: str = "batch"


# --------------------------------------------------------------------------------------------- nodules

SIDE = 12  # voxels of 3 mm that the network sees, along each axis
CUBE = 21  # voxels cut out around a candidate
MIDDLE = CUBE // 2
NETWORKS = 2
CUTS = 8  # looks at each candidate
RADII_MM = (3.5, 6.5, 10.0, 15.0)
LEVELS_HU = (-700, -500, -300, -100, 50, 150)
_OFFSETS = np.stack(np.meshgrid(*[np.arange(CUBE) - MIDDLE] * 3, indexing="ij"))
_FAR_MM = 3.0 * np.sqrt((_OFFSETS**2).sum(axis=0))
_BALLS = [r >= _FAR_MM for r in RADII_MM]


_LUNGS = tuple(name for name in LABELS if name.startswith("lung_"))
# Tissues that the networks learn to outline, by the names of `LABELS`; of two that have a name, the later one counts.
# Whatever is not here, organs and the chest wall, is the last tissue.
_TISSUES = (
    ("background", "emphysema", *_LUNGS),
    ("nodule",),
    ("lung_vessels", "pulmonary_artery", "pulmonary_veins"),
    ("scar", "lymph_nodes"),
    ("bronchi", "trachea"),
    ("ribs", "cartilage", "sternum", "clavicles", "scapulae", "spine"),
)
NODULE = 1
TISSUES = len(_TISSUES) + 1
_TISSUE_OF = np.full(len(LABELS), TISSUES - 1, np.uint8)
for _number, _names in enumerate(_TISSUES):
    _TISSUE_OF[[LABEL[name] for name in _names]] = _number


@dataclass(frozen=True)
class Candidates:
    """Candidates of all patients: cubes int16 and the tissues of their voxels uint8 (n, z, y, x), features by name (n),
    class and patient (n)."""

    cubes: np.ndarray
    tissues: np.ndarray
    features: dict[str, np.ndarray]
    truth: np.ndarray
    patient: np.ndarray


def candidates_of(scans: Iterator[Scan], count: int) -> Candidates:
    """Cut out and measure every candidate."""
    cubes, tissues, rows, truth, patient = [], [], [], [], []
    for number, scan in enumerate(scans):
        lattice = scan.grid.lattice
        padded = np.pad(scan.hu, MIDDLE, constant_values=-1000)
        painted = np.pad(_TISSUE_OF[scan.labels], MIDDLE)
        thick = ndimage.binary_opening(scan.hu > -300, iterations=3)
        edge_mm = 3.0 * ndimage.distance_transform_edt(~thick)
        boxes = {"body": _box(scan.labels > 0), "lungs": _box(_lungs(scan.labels))}
        listed = [(p, 1) for p in scan.shown.candidates] + [(p, 0) for p in scan.shown.look_alikes]
        for place, label in listed:
            index = np.array(
                [
                    int(np.abs(axis - c).argmin())
                    for axis, c in zip(lattice.axes, place.centre_mm[::-1], strict=True)
                ]
            )
            part = tuple(slice(i, i + CUBE) for i in index)
            cube = padded[part]
            cubes.append(cube)
            tissues.append(painted[part])
            rows.append(measure(cube) | {"edge_mm": edge_mm[tuple(index)]} | where(index, boxes))
            truth.append(label)
            patient.append(number)
        if (number + 1) % 10 == 0 or number + 1 == count:
            say(f"chests: {number + 1} of {count}, {sum(truth)} nodules' candidates of {len(truth)}")
    names = rows[0]
    features = {name: np.array([row[name] for row in rows], np.float32) for name in names}
    return Candidates(np.stack(cubes), np.stack(tissues), features, np.array(truth), np.array(patient))


def _lungs(labels: np.ndarray) -> np.ndarray:
    return np.isin(labels, [LABEL[name] for name in _LUNGS])


def _box(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First index and extent (z, y, x) of a mask."""
    index = [np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3)]
    low, high = (np.array([i[end] for i in index]) for end in (0, -1))
    return low, np.maximum(high - low, 1)


def where(index: np.ndarray, boxes: dict[str, tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    """Position (z, y, x) as a fraction of each box, and how far from its middle plane."""
    row = {}
    for name, (low, extent) in boxes.items():
        share = (index - low) / extent
        row |= {f"position {name} {axis}": float(v) for axis, v in zip("zyx", share, strict=True)}
        row[f"position {name} aside"] = abs(float(share[2]) - 0.5)
    return row


def measure(cube: np.ndarray) -> dict[str, float]:
    """Hand-made features of a cube of CUBE voxels a side, 3 mm each, HU."""
    hu = cube.astype(np.float32)
    row: dict[str, float] = {}
    for radius, ball in zip(RADII_MM, _BALLS, strict=True):
        inside = hu[ball]
        row[f"mean {radius}"], row[f"sd {radius}"] = float(inside.mean()), float(inside.std())
        for q in (5, 50, 95, 100):
            row[f"percentile {q} {radius}"] = float(np.percentile(inside, q))
        for level in LEVELS_HU:
            row[f"volume {level} {radius}"] = float((inside > level).sum() * 27)
    for level in (-500, -250):
        row |= _component(hu > level, str(level))
    for sigma in (0.8, 1.2, 1.8, 2.7):
        eigen = _hessian(np.clip(hu, -1000, 300), sigma)
        row |= {f"hessian {sigma} {n}": float(v) for n, v in enumerate(eigen)}
        low, high = min(-eigen[2], 0.0), max(-eigen[0], 1.0)
        row[f"blobness {sigma}"] = -low / high if eigen[2] < 0 else 0.0
        row[f"laplacian {sigma}"] = -float(eigen.sum())
    return row


def _component(bright: np.ndarray, name: str) -> dict[str, float]:
    """What hangs together with the bright voxel nearest to the middle: volume, surface, elongation, thickness."""
    near = np.where(bright, _FAR_MM, np.inf)
    seed = np.unravel_index(int(np.argmin(near)), near.shape)
    names = ("volume", "surface", "compactness", "long", "flat", "thick", "off", "out")
    if near[seed] > 8:
        return {f"component {name} {what}": 0.0 for what in names}
    labels, _ = ndimage.label(bright)
    one = labels == labels[seed]
    volume = float(one.sum())
    surface = sum(float(np.count_nonzero(np.diff(one, axis=axis))) for axis in range(3))
    at = np.argwhere(one) - MIDDLE
    moments = np.linalg.eigvalsh(np.cov(at.T) + 0.08 * np.eye(3)) if len(at) > 1 else np.ones(3)
    depth = ndimage.distance_transform_edt(one)
    rim = one.copy()
    rim[1:-1, 1:-1, 1:-1] = False
    values = (
        volume * 27, surface * 9, volume ** (2 / 3) / surface, float(np.sqrt(moments[2] / moments[1])),
        float(np.sqrt(moments[1] / moments[0])), 3 * float(depth[_BALLS[1]].max()), float(near[seed]), float(rim.sum()),
    )  # fmt: skip
    return {f"component {name} {what}": value for what, value in zip(names, values, strict=True)}


def _hessian(hu: np.ndarray, sigma: float) -> np.ndarray:
    """Eigenvalues, ascending, of the second derivatives in the middle, at a scale in voxels."""
    reach = min(MIDDLE, int(np.ceil(4 * sigma)))
    part = hu[(slice(MIDDLE - reach, MIDDLE + reach + 1),) * 3]
    t = np.arange(-reach, reach + 1) / sigma
    g0 = np.exp(-0.5 * t**2)
    g0 /= g0.sum()
    taps = (g0, t * g0, (t**2 - 1) * g0)  # the sign of the first plays no part in products of two
    matrix = np.empty((3, 3))
    for i in range(3):
        for j in range(i, 3):
            orders = [(axis == i) + (axis == j) for axis in range(3)]
            matrix[i, j] = matrix[j, i] = np.einsum("zyx,z,y,x->", part, *(taps[o] for o in orders))
    return np.linalg.eigvalsh(matrix)


def boosted(data: Candidates, names: list[str], train: np.ndarray) -> np.ndarray:
    """Scores (n) of boosted trees on some features, fitted to the training candidates."""
    table = np.column_stack([data.features[name] for name in names])
    small = len(names) < 4
    trees = HistGradientBoostingClassifier(
        max_iter=60 if small else 300,
        learning_rate=0.06 if small else 0.04,
        max_leaf_nodes=6 if small else 8,
        min_samples_leaf=15 if small else 20,
        l2_regularization=1.0 if small else 5.0,
        max_features=1.0 if small else 0.3,
        random_state=0,
    ).fit(table[train], data.truth[train])
    return trees.predict_proba(table)[:, 1]


def signed(data: Candidates, name: str, train: np.ndarray) -> np.ndarray:
    """A feature itself as score (n), its sign chosen on the training candidates."""
    values = data.features[name]
    return values if roc_auc_score(data.truth[train], values[train]) >= 0.5 else -values


def nodule_tricks(data: Candidates, train: np.ndarray) -> dict[str, np.ndarray]:
    """Each trick's scores (n)."""
    every = list(data.features)
    position = [name for name in every if name.startswith("position")]
    singles = {
        "density": [name for name in every if name.startswith("mean")],
        "size": [
            name for name in every if name.startswith("volume -") or name.endswith((" volume", " thick"))
        ],
    }
    scores = {}
    for trick, names in singles.items():
        variants = [
            f(name)
            for name in names
            for f in (lambda n: signed(data, n, train), lambda n: boosted(data, [n], train))
        ]
        scores[trick] = max(variants, key=lambda s: roc_auc_score(data.truth[~train], s[~train]))
    scores["position"] = boosted(data, position, train)
    scores["all features"] = boosted(data, every, train)
    return scores


class Detector(nn.Module):
    """The project's encoder with two linear heads: which tissue is where, at half the resolution, and whether there is a
    nodule.

    It learns to outline tissues as it learns to tell nodules: outlines say far more per candidate than a class does.
    """

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.encoder = Encoder(size.width, size.depth, size.norm)
        middle, last = self.encoder.channels[-2:]
        self.outline = nn.Conv3d(middle + last, TISSUES, kernel_size=1)
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(2 * last + 2 * TISSUES, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(n, 1, SIDE, SIDE, SIDE) in [0, 1] -> logits (n) and the logarithms of the tissues' shares (n, TISSUES,
        SIDE / 2, SIDE / 2, SIDE / 2)."""
        bottleneck, skips = self.encoder(x)
        wide = nn.functional.interpolate(bottleneck, scale_factor=2)
        outlines = self.outline(torch.cat([skips[-1], wide], dim=1)).log_softmax(dim=1)
        near = outlines[:, :, 1:-1, 1:-1, 1:-1].flatten(2)
        middle = bottleneck.shape[-1] // 2
        seen = torch.cat([bottleneck[:, :, middle, middle, middle], spatial_mean(bottleneck)], dim=1)
        outlined = torch.cat([near.amax(dim=2), near.mean(dim=2)], dim=1)
        return self.head(torch.cat([self.drop(seen), outlined], dim=1))[:, 0], outlines


class Cutter:
    """Cuts the middles out of many cubes at once, each turned and mirrored at random, and shifted.

    Half of them are turned by right angles and shifted by whole voxels, which leaves small things as sharp as they are;
    the others by any angle, and made larger or smaller by a tenth or so.
    """

    def __init__(self, data: Candidates, seed: int) -> None:
        self.cubes = torch.from_numpy(np.clip((data.cubes[:, None].astype(np.float32) + 1000) / 1400, 0, 1))
        self.tissues = torch.from_numpy(data.tissues)
        self.generator = torch.Generator().manual_seed(seed)
        steps = [torch.arange(SIDE, dtype=torch.float32) - SIDE // 2] * 3
        self.grid = torch.stack(torch.meshgrid(*steps, indexing="ij"), dim=-1)

    def __call__(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Brighter or darker cubes (n, 1, SIDE, SIDE, SIDE) and the tissues (n, TISSUES, SIDE, SIDE, SIDE) as 0 and 1."""
        n = len(rows)
        mirror = self._normal(n, 1, 3).sign()
        turns = torch.linalg.qr(self._normal(n, 3, 3))[0] * mirror * torch.exp(0.1 * self._normal(n, 1, 1))
        shifts = 0.5 * self._normal(n, 3)
        right = torch.rand(n, generator=self.generator) < 0.5
        turns[right], shifts[right] = self._right_angles(int(right.sum())), shifts[right].round()
        at = torch.einsum("nij,zyxj->nzyxi", turns, self.grid) + shifts[:, None, None, None]
        cubes = nn.functional.grid_sample(
            self.cubes[rows], at.flip(-1) / MIDDLE, padding_mode="border", align_corners=True
        )
        gain = 0.93 + 0.14 * torch.rand(n, 1, 1, 1, 1, generator=self.generator)
        z, y, x = (at.round().long() + MIDDLE).clamp(0, CUBE - 1).unbind(-1)
        tissues = nn.functional.one_hot(self.tissues[rows[:, None, None, None], z, y, x].long(), TISSUES)
        return cubes * gain + 0.015 * self._normal(n, 1, 1, 1, 1), tissues.movedim(-1, 1).float()

    def _normal(self, *shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=self.generator)

    def _right_angles(self, n: int) -> torch.Tensor:
        """Of the 48 ways to put a cube into its place, mirrored ones too, n at random (n, 3, 3)."""
        order = torch.rand(n, 3, generator=self.generator).argsort(dim=1)
        return torch.eye(3)[order] * self._normal(n, 1, 3).sign()


def trained_classifier(data: Candidates, train: np.ndarray, steps: int, seed: int, name: str) -> np.ndarray:
    """Scores (n) of a network trained from scratch, mean over CUTS random cuts of each cube."""
    rng, cut = np.random.default_rng([seed, 1]), Cutter(data, seed)
    network = Detector(Size(12, 3))
    initialize(network, torch.Generator().manual_seed(seed))
    network.to(memory_format=torch.channels_last_3d)  # faster by a third on a CPU
    classes = [np.flatnonzero(train & (data.truth == label)) for label in (0, 1)]

    def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        rows = np.concatenate([rng.choice(some, n) for some, n in zip(classes, (38, 26), strict=True)])
        x, tissues = cut(torch.from_numpy(rows))
        return x, torch.from_numpy(data.truth[rows].astype(np.float32)), tissues

    def loss(x: torch.Tensor, truth: torch.Tensor, tissues: torch.Tensor) -> torch.Tensor:
        logits, outlines = network(x)
        shares = nn.functional.avg_pool3d(tissues, 2)
        share, nodule = outlines[:, NODULE].exp(), shares[:, NODULE]
        overlap = 1 - (2 * (share * nodule).sum() + 1) / (share.sum() + nodule.sum() + 1)
        # Soft targets: a network that is certain of the few nodules it knows learns nothing more.
        told = nn.functional.binary_cross_entropy_with_logits(logits, 0.9 * truth + 0.05)
        return told - (shares * outlines).sum(dim=1).mean() + overlap

    _train(network, batch, loss, steps, name)
    score = np.zeros(len(data.truth))
    with torch.no_grad():
        for _ in range(CUTS):
            for some in torch.arange(len(score)).split(256):
                score[some] += network(cut(some)[0])[0].numpy()
    return score / CUTS


def _train(
    network: nn.Module,
    batch: Callable[[], tuple],
    loss_of: Callable[..., torch.Tensor],
    steps: int,
    name: str,
) -> None:
    """Adam with decay of the weights, its rate rising to 3e-3 and falling to nothing."""
    network.train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps, pct_start=0.2)
    mean = 0.0
    for step in range(steps):
        optimizer.zero_grad()
        loss = loss_of(*batch())
        loss.backward()
        optimizer.step()
        schedule.step()
        mean += loss.item()
        if (step + 1) % max(steps // 8, 1) == 0:
            say(f"{name}: step {step + 1} of {steps}, loss {mean / max(steps // 8, 1):.3f}")
            mean = 0.0
    network.eval()


# ----------------------------------------------------------------------------------------------- liver

COARSER = 3  # the network sees voxels of 9 mm
GRID = (32, 48, 48)  # so many of them (z, y, x)
BINS = np.arange(-200, 302, 4)


@dataclass(frozen=True)
class Liver:
    """One patient's scan and liver, (z, y, x), and the body's box."""

    hu: np.ndarray
    liver: np.ndarray
    box: tuple[np.ndarray, np.ndarray]


def livers_of(scans: Iterator[Scan], count: int) -> list[Liver]:
    """Scans with their livers, lesions and vessels in it included."""
    parts = [LABEL[name] for name in ("liver", "liver_vessels", "liver_lesion")]
    livers = []
    for scan in scans:
        livers.append(Liver(scan.hu, np.isin(scan.labels, parts), _box(scan.labels > 0)))
        if len(livers) % 10 == 0 or len(livers) == count:
            say(f"livers: {len(livers)} of {count}")
    return livers


def iou(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two masks; two empty ones agree wholly."""
    both = np.count_nonzero(a | b)
    return np.count_nonzero(a & b) / both if both else 1.0


def by_window(livers: list[Liver], train: np.ndarray) -> np.ndarray:
    """Each patient's IoU of the HU window that is best on the training patients, raw or smoothed."""
    best = None
    for sigma in (0.0, 0.7, 1.5):
        tables = np.stack([_windows(one, sigma) for one in livers])
        low, high = np.unravel_index(int(np.argmax(tables[train].mean(axis=0))), tables.shape[1:])
        if best is None or tables[~train, low, high].mean() > best[~train].mean():
            best = tables[:, low, high]
    return best


def _windows(one: Liver, sigma: float) -> np.ndarray:
    """IoU of each window [BINS[low], BINS[high]) with the liver; 0 where it is none."""
    hu = ndimage.gaussian_filter(one.hu.astype(np.float32), sigma) if sigma else one.hu
    inside = np.concatenate([[0], np.cumsum(np.histogram(hu[one.liver], BINS)[0])])
    all_of_it = np.concatenate([[0], np.cumsum(np.histogram(hu, BINS)[0])])
    both = inside[None, :] - inside[:, None]
    chosen = all_of_it[None, :] - all_of_it[:, None]
    union = chosen + one.liver.sum() - both
    return np.where(chosen > 0, both / np.maximum(union, 1), 0.0)


def by_map(livers: list[Liver], train: np.ndarray) -> np.ndarray:
    """Each patient's IoU of the mean liver map of the training patients in the body's box, cut at the best level."""
    shape, chosen = (64, 64, 64), np.flatnonzero(train)
    maps = [_read(livers[n].liver, *livers[n].box, shape) for n in chosen]
    mean = np.mean(maps, axis=0)
    levels = np.linspace(0.2, 0.8, 13)
    scores = np.zeros((len(livers), len(levels)))
    for number, one in enumerate(livers):
        low, extent = one.box
        grids = np.meshgrid(
            *(
                (np.arange(n) - lo) / ex * (s - 1)
                for n, lo, ex, s in zip(one.liver.shape, low, extent, shape, strict=True)
            ),
            indexing="ij",
        )
        placed = ndimage.map_coordinates(mean, grids, order=1, mode="constant")
        scores[number] = [iou(placed > level, one.liver) for level in levels]
    return scores[:, int(np.argmax(scores[train].mean(axis=0)))]


def _read(mask: np.ndarray, low: np.ndarray, extent: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """A mask at a lattice of that shape over a box, float32."""
    axes = [lo + ex * np.linspace(0, 1, n) for lo, ex, n in zip(low, extent, shape, strict=True)]
    grids = np.meshgrid(*axes, indexing="ij")
    return ndimage.map_coordinates(mask.astype(np.float32), grids, order=1, mode="nearest")


def trained_unet(livers: list[Liver], train: np.ndarray, steps: int, seed: int) -> np.ndarray:
    """Each patient's IoU of a network trained from scratch on voxels of 9 mm, read back at full resolution."""
    rng = np.random.default_rng([seed, 2])
    network = UNet(Size(8, 3))
    initialize(network, torch.Generator().manual_seed(seed))
    images = np.stack(
        [_coarse(np.clip((one.hu.astype(np.float32) + 200) / 500, 0, 1), 0.0) for one in livers]
    )
    masks = np.stack([_coarse(one.liver.astype(np.float32), 0.0) for one in livers])
    chosen = np.flatnonzero(train)

    def batch() -> tuple[torch.Tensor, torch.Tensor]:
        some = chosen[rng.integers(len(chosen), size=2)]
        x, y = images[some], masks[some]
        shift = tuple(int(s) for s in rng.integers(-3, 4, 3))
        x, y = (np.roll(a, shift, axis=(1, 2, 3)) for a in (x, y))
        x = x * rng.uniform(0.9, 1.1) + rng.normal(0, 0.03)
        return torch.from_numpy(x[:, None].astype(np.float32)), torch.from_numpy(y[:, None].copy())

    def loss(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        logits = network(x)
        share = torch.sigmoid(logits)
        dice = 1 - (2 * (share * y).sum() + 1) / (share.sum() + y.sum() + 1)
        return nn.functional.binary_cross_entropy_with_logits(logits, y) + dice

    _train(network, batch, loss, steps, "liver's network")
    scores = np.zeros(len(livers))
    with torch.no_grad():
        for number, one in enumerate(livers):
            logits = network(torch.from_numpy(images[number][None, None]))[0, 0].numpy()
            axes = [(np.arange(n) + 0.5) / COARSER - 0.5 for n in one.liver.shape]
            fine = ndimage.map_coordinates(logits, np.meshgrid(*axes, indexing="ij"), order=1, mode="nearest")
            scores[number] = iou(fine > 0, one.liver)
    return scores


def _coarse(array: np.ndarray, fill: float) -> np.ndarray:
    """Means over COARSER voxels along each axis, padded or cut to GRID at the far ends."""
    sides = [side * COARSER for side in GRID]
    whole = np.full(sides, fill, np.float32)
    part = tuple(slice(0, min(a, b)) for a, b in zip(array.shape, sides, strict=True))
    whole[part] = array[part]
    z, y, x = GRID
    return whole.reshape(z, COARSER, y, COARSER, x, COARSER).mean(axis=(1, 3, 5))


# --------------------------------------------------------------------------------------------- scoring


def auc_difference(data: Candidates, a: np.ndarray, b: np.ndarray, test: np.ndarray) -> tuple[float, float]:
    """Interval of AUC(a) - AUC(b) over test patients."""
    rng, patients = np.random.default_rng(0), np.unique(data.patient[test])
    rows = [np.flatnonzero(data.patient == number) for number in patients]
    drawn = []
    for _ in range(1000):
        chosen = np.concatenate([rows[n] for n in rng.integers(len(rows), size=len(rows))])
        truth = data.truth[chosen]
        if 0 < truth.sum() < len(truth):
            drawn.append(roc_auc_score(truth, a[chosen]) - roc_auc_score(truth, b[chosen]))
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(low), float(high)


def mean_difference(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Interval of the mean of a - b over patients."""
    rng = np.random.default_rng(0)
    index = rng.integers(len(a), size=(2000, len(a)))
    low, high = np.percentile((a - b)[index].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


def line(name: str, value: float, key: str, interval: tuple[float, float]) -> None:
    """A row of the table."""
    bound = BOUNDS[key]
    kept = "yes" if value < bound else "NO"
    beaten = "yes" if interval[0] > 0 else "NO"
    low, high = interval
    print(f"{name:<34}{value:>7.3f}{bound:>8.2f}{kept:>7}   {low:+.3f} .. {high:+.3f}{beaten:>7}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", type=int, default=60, help="chest patients, and as many liver patients")
    parser.add_argument("--test", type=int, default=100, help="likewise")
    parser.add_argument("--seed", type=int, default=14)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--steps", type=int, default=2400, help="of each of the nodules' networks; the liver's takes a third"
    )
    given = parser.parse_args()
    for name in ("train", "test"):
        if getattr(given, name) < 3:
            parser.error(f"--{name} must be at least 3, got {getattr(given, name)}")
    torch.set_num_threads(given.threads)
    torch.manual_seed(given.seed)  # the dropout's
    count = given.train + given.test
    in_training = np.arange(count) < given.train

    data = candidates_of(rendered(CHESTS, count, given.seed, workers=given.threads), count)
    train = in_training[data.patient]
    tricks = nodule_tricks(data, train)
    say("tricks on nodules done")
    network = np.mean(
        [
            trained_classifier(data, train, given.steps, given.seed + turn, f"nodules' network {turn + 1}")
            for turn in range(NETWORKS)
        ],
        axis=0,
    )
    livers = livers_of(rendered(LIVERS, count, given.seed, workers=given.threads), count)
    found = {"window": by_window(livers, in_training), "map": by_map(livers, in_training)}
    say("tricks on livers done")
    segmented = trained_unet(livers, in_training, max(given.steps // 3, 2), given.seed)

    test, truth = ~train, data.truth[~train]
    aucs = {name: float(roc_auc_score(truth, score[test])) for name, score in tricks.items()}
    auc = float(roc_auc_score(truth, network[test]))
    print(
        f"\n{in_training.sum()} training and {(~in_training).sum()} test patients, "
        f"{truth.sum()} nodules' candidates of {len(truth)}"
    )
    print(f"{'on test patients':<34}{'score':>7}{'bound':>8}{'under':>7}   network less this   beaten")
    for name, value in aucs.items():
        line(f"nodules, AUC: {name}", value, name, auc_difference(data, network, tricks[name], test))
    print(f"{'nodules, AUC: networks':<34}{auc:>7.3f}")
    for name, score in found.items():
        line(
            f"liver, IoU: {name}",
            float(score[~in_training].mean()),
            name,
            mean_difference(segmented[~in_training], score[~in_training]),
        )
    print(f"{'liver, IoU: network':<34}{segmented[~in_training].mean():>7.3f}")
    single = max(aucs[name] for name in ("density", "size", "position"))
    print("networks' AUC over the best single trick's (density, size or position), nodules:")
    print(f"ratio {auc / single:.3f}")


if __name__ == "__main__":
    main()
