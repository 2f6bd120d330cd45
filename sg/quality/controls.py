"""The rules by which controls rank patients, beside the study's own: geometry, thumbnails, an untrained encoder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from sg import logs
from sg.cohorts.records import ScanRow
from sg.errors import InputError
from sg.intensity import to_unit
from sg.neighbors import Ranking
from sg.networks.autoencoder import AutoEncoder
from sg.quality.choosing import by_ranking, by_vectors
from sg.quality.study import Study
from sg.roles import PRETRAIN
from sg.storage import open_h5

COMPONENTS = 16


def orderings(
    study: Study, ranking: Ranking, thumbnails: Path, scans: Sequence[ScanRow], untrained: AutoEncoder
) -> dict[str, np.ndarray]:
    """The orders (`sg.quality.choosing`) of every control that needs no truth and is no chance, by name.

    `thumbnails` is the file of thumbnails, `scans` are the rows of scans.csv, `untrained` the auto-encoder with the
    weights that its training began with.
    """
    images, hu = read_thumbnails(thumbnails, study.scans)
    flat = images.reshape(len(images), -1).astype(np.float64)
    return {
        "nearest": by_ranking(study, ranking),
        "geometry": by_vectors(study, geometry(study, scans)),
        "thumbnails": by_vectors(study, flat),
        "pca": by_vectors(study, components(flat)),
        "untrained": by_vectors(study, embedded(untrained, images, *hu)),
    }


def geometry(study: Study, scans: Sequence[ScanRow]) -> np.ndarray:
    """What is known of the study's scans (s) without looking at the anatomy, each feature with mean 0 and variance 1.

    Sides of the body's box and of the field of view in mm, and the spacing and number of slices that the scan was stored
    with; (s, 10). A feature in which no scans differ is 0.
    """
    stored = {row.scan: row for row in scans}
    features = []
    for row in study.surveys:
        if row.scan not in stored:
            raise InputError(
                f"data/cohort/scans.csv: lacks the scan {row.scan}; run `dvc repro` to make it again"
            )
        seen = row.survey
        start, stop = (np.array(corner) for corner in seen.boxes["body"][0])
        zyx_mm = np.array(seen.spacing_mm[::-1])
        as_stored = stored[row.scan]
        features.append(
            [
                *((stop - start) * zyx_mm),
                *(np.array(seen.shape) * zyx_mm),
                *as_stored.spacing_mm,
                as_stored.size[2],
            ]
        )
    features = np.array(features, np.float64)
    features -= features.mean(axis=0)
    deviation = features.std(axis=0)
    # Rounding alone gives equal features a deviation.
    same = deviation <= 1e-9 * np.maximum(1, np.abs(features).max(axis=0))
    return np.where(same, 0, features / np.where(same, 1, deviation))


def components(vectors: np.ndarray) -> np.ndarray:
    """The first principal components of vectors (n, d), at most COMPONENTS: (n, c).

    On one thread, so that they are the same on a machine with more cores.
    """
    centred = vectors - vectors.mean(axis=0)
    with threadpool_limits(1, user_api="blas"):
        # By the products of the vectors, of which there are far fewer than voxels.
        strength, directions = np.linalg.eigh(centred @ centred.T)
    most = min(COMPONENTS, len(vectors) - 1)
    first = slice(-1, -most - 1, -1)
    return directions[:, first] * np.sqrt(np.maximum(strength[first], 0))


def read_thumbnails(path: Path, scans: np.ndarray) -> tuple[np.ndarray, tuple[float, float]]:
    """Thumbnails int16 (n, z, y, x) of scans S12 (n,) of patients to learn from, and the HU that they are clipped to."""
    with open_h5(path) as file:
        row = {scan: i for i, scan in enumerate(file["scan"][...].tolist())}
        if lacking := [scan.decode() for scan in scans.tolist() if scan not in row]:
            raise InputError(
                f"{path}: has no thumbnail of {lacking[0]}; run `dvc repro resample` to make it again"
            )
        images = file["thumbnails"]
        found = np.stack([images[row[scan]] for scan in scans.tolist()])
        hu = float(file.attrs["hu_min"]), float(file.attrs["hu_max"])
    for scan in scans.tolist():
        logs.opened(scan.decode(), "neighbours", PRETRAIN)
    return found, hu


def embedded(model: AutoEncoder, images: np.ndarray, hu_min: float, hu_max: float) -> np.ndarray:
    """Vectors (n, channels), float32, of images int16 (n, z, y, x) in HU: the bottleneck averaged over space.

    Sides are extended, by their last voxels, to the next one that halves evenly at every level. One image at a time and
    on one thread, so that a vector depends neither on the others nor on the machine's number of cores.
    """
    step = 2 ** (len(model.encoder.levels) - 1)
    sides = [(0, -side % step) for side in images.shape[1:]]
    model.eval()
    vectors = np.empty((len(images), model.channels), np.float32)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            for i, image in enumerate(images):
                unit = np.pad(to_unit(image, hu_min, hu_max), sides, mode="edge")
                vectors[i] = model.embed(torch.from_numpy(unit[None, None]))[0].numpy()
    finally:
        torch.set_num_threads(threads)
    return vectors
