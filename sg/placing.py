"""Any scan as a vector of the study's embedding: `sg embed`.

The vector is that of the stage `embed`, bit by bit on one type of machine: the same auto-encoder, layout in memory and
number of threads.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from sg import paths
from sg.cohorts.walking import shown
from sg.errors import InputError
from sg.inspection import Found
from sg.intensity import to_unit
from sg.neighbors import read_vectors
from sg.networks.autoencoder import AutoEncoder
from sg.outside import Thumbnail, thumbnails
from sg.params import Params
from sg.report.tables import read_json, text
from sg.scans import Refusal
from sg.stage import PARAMS
from sg.training import reproducible
from sg.weights import load_tensors

LOCK = Path("dvc.lock")
# Vectors that differ by more than this share of their length are not told apart by the last bits of another machine
SAME = 1e-4


@dataclass(frozen=True)
class Embedder:
    """The study's trained auto-encoder and how scans are brought in front of it."""

    model: AutoEncoder
    study: Params
    hu_min: float
    hu_max: float
    recorded: dict[str, tuple[np.ndarray, str]]  # scan of the cohort -> its vector, its split

    def vector(self, image: np.ndarray) -> np.ndarray:
        """The embedding (channels,), float32, of a thumbnail int16 (z, y, x)."""
        with torch.inference_mode():
            unit = to_unit(image[None], self.hu_min, self.hu_max)[:, None]
            return self.model.embed(torch.from_numpy(unit))[0].numpy()


@dataclass(frozen=True)
class Placed:
    """A scan in the space of the embedding."""

    found: Found
    thumbnail: Thumbnail
    vector: np.ndarray  # float32 (channels,)
    split: str  # of the cohort's scan with these bytes; empty if there is none


@dataclass
class Tally:
    """What became of the scans, counted while they are placed."""

    placed: int = 0
    refused: list[tuple[Path, Refusal]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)  # what kind of file that holds no scan -> how many


def read_embedder(study: Params) -> Embedder:
    """The auto-encoder that the stage `embed` trained here.

    InputError if the stage has not run, if its files are damaged or not of one run, or if `resample` in params.yaml is
    another than they were made with.
    """
    card_file, weights = paths.EMBED / "card.json", paths.EMBED / "autoencoder.safetensors"
    for path in (card_file, weights, paths.EMBEDDINGS):
        if not path.is_file():
            raise InputError(f"{path}: there is no trained auto-encoder here yet; run `dvc repro embed`")
    card = read_json(card_file)
    try:
        made = (tuple(card["thumbnail_shape"]), float(card["hu_min"]), float(card["hu_max"]))
        size = {name: card[name] for name in ("width", "depth")}
        # By the rules of params.yaml: a network of any other size might take all the memory there is
        type(study.embed).model_validate({**study.embed.model_dump(), **size})
        model = AutoEncoder(**size)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{card_file}: is no card of an auto-encoder ({' '.join(str(error).split())}); run `dvc repro embed`"
        ) from None
    now = study.resample
    if made != (tuple(now.thumbnail_shape), now.hu_min, now.hu_max) or _made_with() not in (
        None,
        now.model_dump(mode="json"),
    ):
        raise InputError(
            f"{PARAMS}: resample is another than {paths.EMBED} was made with, and vectors would not compare; "
            "run `dvc repro embed`, or undo the edit"
        )
    if load_tensors(model, weights) != len(model.state_dict()):
        raise InputError(f"{weights}: some weights of the auto-encoder are missing; run `dvc repro embed`")
    if broken := [name for name, values in model.state_dict().items() if not torch.isfinite(values).all()]:
        raise InputError(
            f"{weights}: weights must be finite, those of {broken[0]} are not; run `dvc repro embed`"
        )
    reproducible(study.embed.training.threads)
    model.to(memory_format=torch.channels_last_3d)
    model.eval()
    vectors, scans, _, splits = read_vectors(paths.EMBEDDINGS)
    if vectors.shape[1] != model.channels:
        raise InputError(
            f"{paths.EMBEDDINGS}: vectors must have {model.channels} numbers, as those of {weights} have, got "
            f"{vectors.shape[1]}; run `dvc repro embed`"
        )
    recorded = {
        text(scan): (vector, text(split)) for scan, vector, split in zip(scans, vectors, splits, strict=True)
    }
    return Embedder(model, study, made[1], made[2], recorded)


def _made_with() -> dict[str, Any] | None:
    """The section `resample` that dvc.lock says the thumbnails were made with; None where it says nothing."""
    try:
        lock = yaml.safe_load(LOCK.read_text(encoding="utf-8"))
        return lock["stages"]["resample"]["params"][str(PARAMS)]["resample"]
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError):
        return None


def place(files: Sequence[Path], embedder: Embedder, workers: int) -> tuple[Tally, Iterator[Placed]]:
    """Every scan of the files and folders, by path, as it is asked for; and what became of them, complete at the end.

    InputError for a path where there is nothing, and at the end if no scan was in any of them.
    """
    study = embedder.study
    inspection, made = thumbnails(files, study.cohort.limits, study.resample, workers)
    tally = Tally(
        0,
        [(scan.path, scan.refusal) for scan in inspection.refused],
        [*map(shown, inspection.warnings)],
        inspection.ignored,
    )
    return tally, _placed(made, embedder, tally, files)


def place_one(file: Path, embedder: Embedder, workers: int) -> tuple[Tally, Placed | None]:
    """The one scan that a file or folder holds, and what else was there; None if it cannot be used.

    InputError if there is none, or a second.
    """
    tally, placed = place([file], embedder, workers)
    scans = list(islice(placed, 2))
    if len(scans) > 1:
        raise InputError(
            f"{shown(file)}: must hold one scan, it holds {shown(scans[0].found.path)} and {shown(scans[1].found.path)}; "
            "name one of them"
        )
    return tally, scans[0] if scans else None


def _placed(
    made: Iterable[tuple[Found, Thumbnail | Refusal]], embedder: Embedder, tally: Tally, files: Sequence[Path]
) -> Iterator[Placed]:
    for found, answer in made:
        if isinstance(answer, Refusal):
            tally.refused.append((found.path, answer))
            continue
        vector = embedder.vector(answer.image)
        if not np.isfinite(vector).all():
            raise InputError(
                f"{shown(found.path)}: its vector must be finite, by {paths.EMBED / 'autoencoder.safetensors'} it is not; "
                "run `dvc repro embed`"
            )
        known, split = embedder.recorded.get(answer.scan, (None, ""))
        if known is not None and np.abs(vector - known).max() > SAME * np.abs(known).max():
            tally.warnings.append(
                f"{shown(found.path)}: {paths.EMBEDDINGS} has another vector for this very scan; code, parameters or the "
                "scan's place in the cohort have changed since: run `dvc repro embed`"
            )
        tally.placed += 1
        yield Placed(found, answer, vector, split)
    if not tally.placed and not tally.refused:
        raise InputError(
            f"{', '.join(map(shown, files))}: there is no scan here; `sg scan` says what there is"
        )


def table(placed: Iterable[Placed], channels: int) -> str:
    """Scans as CSV: path, patient, series, scan, split, e0, e1, ...

    Numbers read back as the same float32. What is not known is empty.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "patient", "series", "scan", "split", *(f"e{i}" for i in range(channels))])
    for scan in placed:
        found = scan.found
        facts = [shown(found.path), shown(found.patient), found.series or "", scan.thumbnail.scan, scan.split]
        writer.writerow([*facts, *map(str, scan.vector)])
    return text.getvalue()
