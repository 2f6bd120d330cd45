"""Where artifacts lie, relative to the project's root. dvc.yaml names the same places; a test compares them."""

import os
from pathlib import Path

DATA = Path("data")
RAW = DATA / "raw"

# Names of what the study is made of, written by `plan`
PHANTOM_PLAN = DATA / "phantom.csv"
PRETRAIN_PLAN = DATA / "pretrain" / "plan.csv"
TARGETS_PLAN = DATA / "targets" / "plan.csv"
FINETUNE_PLAN = DATA / "finetune" / "plan.csv"
SCRATCH_CARD = DATA / "pretrain" / "scratch" / "card.json"

COHORT = DATA / "cohort"
SCANS = COHORT / "scans.csv"
FILES = COHORT / "files.csv"
FINDINGS = COHORT / "findings.csv"
QUARANTINE = COHORT / "quarantine.csv"
TWINS = COHORT / "twins.csv"
ROLES = COHORT / "roles.csv"
COHORT_SUMMARY = COHORT / "summary.json"
TRUTH = COHORT / "truth"

RESAMPLED = DATA / "resampled"
THUMBNAILS = RESAMPLED / "thumbnails.h5"
RESAMPLED_QUARANTINE = RESAMPLED / "quarantine.csv"

EMBED = DATA / "embed"
EMBEDDINGS = EMBED / "embeddings.h5"

NEIGHBORS = DATA / "neighbors"
RANKING = NEIGHBORS / "neighbors.h5"

COORDINATES = DATA / "coordinates"
PATTERNS_TABLE = COORDINATES / "patterns.csv"
CROPS_TABLE = COORDINATES / "crops.csv"
COORDINATES_METRICS = COORDINATES / "metrics.json"

PATCHES = DATA / "patches"
PATTERNS = PATCHES / "patterns.h5"
RANDOM = PATCHES / "random.h5"

QUALITY = DATA / "quality"
PRETRAIN = DATA / "pretrain"
TARGETS = DATA / "targets"
FINETUNE = DATA / "finetune"
EVALUATE = DATA / "evaluate"
METRICS = Path("metrics.json")
REPORT = Path("report")

# Where stages keep what they have not finished
STATE = Path(".state")
ASIDE = DATA / ".aside"

# What stages make. Raw scans are not among it, nor are caches beside the two that `patches` writes: they are the user's.
MADE = (
    COHORT, RESAMPLED, EMBED, NEIGHBORS, COORDINATES, PATTERNS, RANDOM, QUALITY, PRETRAIN, TARGETS, FINETUNE, EVALUATE,
    REPORT, STATE, ASIDE,
)  # fmt: skip


def made_by_a_stage(path: Path) -> bool:
    """Whether a file lies where a stage puts its own, seen from the project's root, which is the working directory."""
    place = Path(os.path.abspath(path))
    return any(place.is_relative_to(os.path.abspath(home)) for home in MADE)


def phantom(cohort: str) -> Path:
    """Folder of one phantom cohort, in its public layout."""
    return RAW / cohort


def scan(identity: str) -> Path:
    """File of one resampled scan."""
    return RESAMPLED / f"{identity}.h5"


def method(name: str) -> Path:
    """Folder of one method's weights: weights.safetensors (not for scratch), card.json, history.csv."""
    return PRETRAIN / name


def target(task: str) -> Path:
    """File of one target task."""
    return TARGETS / f"{task}.h5"


def trials(task: str, initialization: str) -> Path:
    """Folder of one task's trials from one initialization."""
    return FINETUNE / task / initialization
