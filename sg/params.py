"""The schema of params.yaml: every value of a study, with its meaning, unit and range.

params.yaml is complete: no field here has a default, and a key that is not named here is an error. The
descriptions are what docs/params.md is made from. This module imports nothing of `sg`.

Conventions: shapes and what belongs to arrays are (z, y, x); spacings and positions in mm are (x, y, z).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=60)]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Zyx = tuple[Count, Count, Count]
Xyz = tuple[Positive, Positive, Positive]


class Section(BaseModel):
    """A frozen group of parameters in which an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


# ---------------------------------------------------------------------------------------------- plan


class Plan(Section):
    """What the study is made of, by name: a change here makes or removes branches of the pipeline."""

    methods: Annotated[
        list[Name], Field(description="pre-training methods; each has a recipe in `pretrain.recipes`")
    ]
    targets: Annotated[list[Name], Field(description="target tasks; each has a recipe in `targets.recipes`")]


# ------------------------------------------------------------------------------------------- phantom


# What a phantom's body spans, mm above the carina: no scan can begin or end beyond it.
BODY_BOTTOM_MM, BODY_TOP_MM = -380.0, 180.0
RANGE_LEAST_MM = 80.0
LUNG_DEPTH_MM = 120.0  # of the smallest lungs, front to back: what does not fit in there is no nodule

Range = tuple[
    Annotated[float, Field(ge=BODY_BOTTOM_MM, le=BODY_TOP_MM)],
    Annotated[float, Field(ge=BODY_BOTTOM_MM, le=BODY_TOP_MM)],
]


# Finer voxels take gigabytes a scan, coarser ones show no organ.
Spacings = tuple[
    Annotated[float, Field(ge=0.4, le=10)],
    Annotated[float, Field(ge=0.4, le=10)],
]


class PhantomShared(Section):
    """Acquisition and anatomy that all phantom cohorts share."""

    spacing_xy_mm: Annotated[
        Spacings,
        Field(description="least and largest in-plane voxel size that a scan is written with, mm"),
    ]
    spacing_z_mm: Annotated[Spacings, Field(description="least and largest slice distance, mm")]
    noise_hu: Annotated[
        tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]],
        Field(description="least and largest standard deviation of the noise of a scan, HU"),
    ]
    chest_range_mm: Annotated[
        Range,
        Field(description="mean lower and upper end of whole chest scans, mm above the carina"),
    ]
    abdomen_range_mm: Annotated[
        Range,
        Field(description="mean lower and upper end of abdominal scans, mm above the carina"),
    ]
    parts: Annotated[
        Share,
        Field(
            description="share of chest scans that show the apices or the bases alone, or go on to the kidneys"
        ),
    ]
    oblique_deg: Annotated[
        float,
        Field(ge=0, le=20, description="most that the voxels of an oblique scan are turned by, degrees"),
    ]
    nodule_mm: Annotated[
        tuple[Annotated[float, Field(ge=3)], Annotated[float, Field(le=LUNG_DEPTH_MM / 2)]],
        Field(description="least and largest diameter of lung nodules, mm"),
    ]
    variants: Annotated[
        Share,
        Field(
            description="share of patients with a variant: azygos lobe, effusion, emphysema, scoliosis, a lobe removed"
        ),
    ]
    truth_grid_mm: Annotated[
        float,
        Field(
            ge=4,
            le=40,
            description="spacing of the coarse grid on which truth/ keeps the organs' displacements, mm",
        ),
    ]

    @model_validator(mode="after")
    def _ordered(self) -> PhantomShared:
        for name in ("spacing_xy_mm", "spacing_z_mm", "noise_hu", "nodule_mm"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name} must be [least, largest], got [{low}, {high}]")
        for name in ("chest_range_mm", "abdomen_range_mm"):
            low, high = getattr(self, name)
            if high - low < RANGE_LEAST_MM:
                raise ValueError(
                    f"{name} must be [lower end, upper end], at least {RANGE_LEAST_MM:g} mm apart, got [{low}, {high}]"
                )
        return self


SPLITS = ("train", "validation", "test")


class PhantomRecipe(Section):
    """How many patients a phantom cohort has in which split."""

    train: Annotated[int, Field(ge=0, description="training patients")]
    validation: Annotated[int, Field(ge=0, description="validation patients")]
    test: Annotated[int, Field(ge=0, description="test patients")]

    @model_validator(mode="after")
    def _somebody(self) -> PhantomRecipe:
        if self.train + self.validation + self.test == 0:
            raise ValueError(
                "a phantom cohort needs at least one patient; take it out of phantom.cohorts instead"
            )
        return self


Few = tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0, le=20)]]


def _in_order(name: str, pair: tuple[int, int]) -> None:
    if pair[0] > pair[1]:
        raise ValueError(f"{name} must be [least, largest], got {list(pair)}")


class ChestPhantoms(PhantomRecipe):
    """Chest CT with nodules, in the layout of LUNA16 or of LIDC-IDRI."""

    layout: Annotated[
        Literal["luna16", "lidc"], Field(description="the data set whose files it is written as")
    ]
    nodules: Annotated[Few, Field(description="least and largest number of nodules in a patient")]
    candidates: Annotated[
        int,
        Field(
            ge=0,
            le=600,
            description="look-alikes (vessel bends, scars, lymph nodes, rib ends and the like) of each patient, "
            "listed as candidates (LUNA16's first list: 551065 in 888 scans, 620 each)",
        ),
    ]
    twins_of: Annotated[
        Name | None,
        Field(
            description="another chest cohort, some of whose patients are scanned here again under other names; null: none"
        ),
    ]
    twins: Annotated[
        int,
        Field(
            ge=0,
            description="how many of this cohort's patients are such twins: the first of every split in turn; their nodules "
            "and candidates are those of the other cohort",
        ),
    ]

    @model_validator(mode="after")
    def _possible(self) -> ChestPhantoms:
        _in_order("nodules", self.nodules)
        if self.twins > self.train + self.validation + self.test:
            raise ValueError(
                f"twins must be at most the cohort's {self.train + self.validation + self.test} patients, got {self.twins}"
            )
        if (self.twins > 0) != (self.twins_of is not None):
            raise ValueError(
                "twins and twins_of go together: name the other cohort, or set them to 0 and null"
            )
        return self

    def twins_by_split(self) -> dict[str, int]:
        """How many twins each split has: the splits take turns while they have patients left."""
        turns = sorted(
            (turn, split) for split, name in enumerate(SPLITS) for turn in range(getattr(self, name))
        )
        chosen = [split for _, split in turns[: self.twins]]
        return {name: chosen.count(split) for split, name in enumerate(SPLITS)}


class LiverPhantoms(PhantomRecipe):
    """Abdominal CT with liver lesions, in the layout of the Decathlon's Task03_Liver."""

    layout: Annotated[
        Literal["decathlon-liver"], Field(description="the data set whose files it is written as")
    ]
    lesions: Annotated[Few, Field(description="least and largest number of liver lesions in a patient")]

    @model_validator(mode="after")
    def _possible(self) -> LiverPhantoms:
        _in_order("lesions", self.lesions)
        for split, most in (("train", 100), ("validation", 15), ("test", 15)):
            if getattr(self, split) > most:
                raise ValueError(
                    f"{split} must be at most {most} in the Decathlon layout, whose splits go by case number "
                    f"(0-99, 100-114, 115-129), got {getattr(self, split)}"
                )
        return self


class BrainPhantoms(PhantomRecipe):
    """Brain MR of tumours in four contrasts, as BraTS 2018 or the Decathlon's Task01_BrainTumour lay it out."""

    layout: Annotated[
        Literal["brats", "decathlon-brain"], Field(description="the data set whose files it is written as")
    ]
    spacing_mm: Annotated[
        float,
        Field(
            ge=1,
            le=6,
            description="voxel size, mm; 1 as in the data sets (240 x 240 x 155 voxels), coarser for tests",
        ),
    ]


AnyPhantoms = Annotated[
    Union[ChestPhantoms, LiverPhantoms, BrainPhantoms],  # noqa: UP007
    Field(discriminator="layout"),
]


class Phantom(Section):
    """The embedded cohort: synthetic patients with known truth."""

    cohorts: Annotated[
        list[Name], Field(description="cohorts to make, each with a recipe below; empty makes none")
    ]
    shared: PhantomShared
    recipes: dict[Name, AnyPhantoms]

    @model_validator(mode="after")
    def _named_apart(self) -> Phantom:
        """All layouts but LUNA16's number their patients, as the public sets do: two cohorts would share names."""
        of_layout: dict[str, str] = {}
        for name in self.cohorts:
            layout = self.recipes[name].layout if name in self.recipes else "luna16"
            if layout != "luna16" and layout in of_layout:
                raise ValueError(
                    f"cohorts must name at most one of layout {layout}, got {of_layout[layout]} and {name}: both number "
                    "their patients from the same start, so these would be taken for the same; make two studies of them"
                )
            of_layout[layout] = name
        return self

    @model_validator(mode="after")
    def _twins(self) -> Phantom:
        for name, recipe in self.recipes.items():
            if not isinstance(recipe, ChestPhantoms) or recipe.twins_of is None:
                continue
            if name in self.cohorts and recipe.twins_of not in self.cohorts:
                raise ValueError(
                    f"recipes.{name}.twins_of names {recipe.twins_of}, which phantom.cohorts does not; add it there"
                )
            other = self.recipes.get(recipe.twins_of)
            if not isinstance(other, ChestPhantoms) or other.twins_of is not None:
                raise ValueError(
                    f"recipes.{name}.twins_of must name a chest cohort that has no twins itself, got {recipe.twins_of!r}"
                )
            for split, twins in recipe.twins_by_split().items():
                if twins > getattr(other, split):
                    raise ValueError(
                        f"recipes.{name}.twins must leave each split no more twins than {recipe.twins_of} has patients, got "
                        f"{twins} in {split}, where it has {getattr(other, split)}"
                    )
        return self


# -------------------------------------------------------------------------------------------- cohort


class Source(Section):
    """One data set under `cohort.raw`."""

    layout: Annotated[
        Literal["folder", "luna16", "decathlon"], Field(description="how its files are laid out")
    ]
    path: Annotated[
        str, Field(min_length=1, description="its folder, relative to `cohort.raw` (`.` is the whole)")
    ]
    use: Annotated[
        list[Name],
        Field(min_length=1, description="what its patients serve: `pretrain` and/or names of target tasks"),
    ]
    leave_out: Annotated[
        str | None,
        Field(
            description="text file, relative to `cohort.raw`, of scan paths or series UIDs to leave out; null: none"
        ),
    ]
    patients: Annotated[
        str | None,
        Field(
            description="CSV file, relative to `cohort.raw`, with columns path and patient; null: a file is a patient"
        ),
    ]

    @model_validator(mode="after")
    def _inside(self) -> Source:
        for name in ("path", "leave_out", "patients"):
            value = getattr(self, name)
            if value is not None and (Path(value).is_absolute() or ".." in Path(value).parts):
                raise ValueError(f"{name} must be relative to cohort.raw and stay inside it, got {value!r}")
        return self


class Limits(Section):
    """What a scan must satisfy to be vouched for."""

    spacing_mm: Annotated[
        tuple[Positive, Positive], Field(description="least and largest voxel spacing along any axis, mm")
    ]
    slices_min: Annotated[int, Field(ge=2, description="least number of slices")]
    extent_min_mm: Annotated[float, Field(ge=0, description="least extent along every axis, mm")]
    voxels_max: Annotated[int, Field(ge=1000, le=2**33, description="most voxels")]
    air_share_min: Annotated[
        Share, Field(description="least share of voxels under -500 HU (a CT of a chest holds air)")
    ]
    distinct_min: Annotated[int, Field(ge=2, description="a CT has more distinct values than this")]

    @model_validator(mode="after")
    def _ordered(self) -> Limits:
        low, high = self.spacing_mm
        if low > high:
            raise ValueError(f"spacing_mm must be [least, largest], got [{low}, {high}]")
        return self


class SplitFractions(Section):
    """Shares of patients that no data set has split already."""

    train: Annotated[
        Share, Field(description="share of patients to embed, discover, pre-train and fine-tune on")
    ]
    validation: Annotated[Share, Field(description="share of patients to stop early and choose by")]
    test: Annotated[Share, Field(description="share of patients to score on, once")]

    @model_validator(mode="after")
    def _sum(self) -> SplitFractions:
        total = self.train + self.validation + self.test
        if abs(total - 1) > 1e-9:
            raise ValueError(f"train + validation + test must be 1, got {total:g}")
        return self


class Cohort(Section):
    """Which scans there are, whose they are and what they are for."""

    raw: Annotated[str, Field(min_length=1, description="the one folder that holds all raw data")]
    sources: Annotated[dict[Name, Source], Field(min_length=1)]
    limits: Limits
    twin_correlation: Annotated[
        float,
        Field(
            ge=0.9, le=1, description="two scans whose thumbnails correlate more than this show one patient"
        ),
    ]
    splits: SplitFractions


# ------------------------------------------------------------------------------------------ resample


class Resample(Section):
    """One grid and one intensity range for all scans."""

    spacing_mm: Annotated[
        Xyz | None,
        Field(
            description="voxel size (x, y, z) of the resampled scans, mm; null keeps each scan's own (the paper)"
        ),
    ]
    anti_alias: Annotated[
        bool,
        Field(
            description="smooth each axis along which the new voxels are the larger ones, by a Gaussian of full width "
            "at half maximum sqrt(new^2 - old^2) mm; false lets patterns finer than the new grid fold into coarse "
            "ones; paper: no resampling"
        ),
    ]
    oblique: Annotated[
        Literal["resample", "nearest-axes"],
        Field(
            description="scans whose axes are turned against the patient's: `resample` interpolates them onto the patient's "
            "axes; `nearest-axes` takes the stored axes for the patient's, each for the nearest, which is fast and leaves "
            "anatomy turned (docs/scans.md); sheared grids are always interpolated; paper: no resampling"
        ),
    ]
    hu_min: Annotated[float, Field(ge=-1024, le=0, description="lower clip of CT, HU")]
    hu_max: Annotated[float, Field(gt=0, le=3071, description="upper clip of CT, HU")]
    shape_min: Annotated[
        Zyx,
        Field(
            description="least shape (z, y, x) of a resampled scan; smaller ones cannot hold a patch and are set aside"
        ),
    ]
    thumbnail_shape: Annotated[
        Zyx,
        Field(
            description="shape (z, y, x) of the whole-scan thumbnails for the embedding; paper: (64, 128, 128)"
        ),
    ]


# ------------------------------------------------------------------------------------------ networks


class Network(Section):
    """Size of the 3-D U-Net."""

    width: Annotated[
        int, Field(ge=2, le=64, description="channels of the first convolution; paper: 32 (bottleneck 512)")
    ]
    depth: Annotated[int, Field(ge=2, le=6, description="levels, the bottleneck included; paper: 4")]
    norm: Annotated[
        Literal["batch", "current-batch", "instance", "group"],
        Field(
            description="normalisation; `current-batch` uses the statistics of the batch in evaluation too, as published"
        ),
    ]


class Training(Section):
    """How a network is trained."""

    epochs: Annotated[Count, Field(description="most epochs; paper: 10000")]
    batch: Annotated[Count, Field(description="patches (scans, for the auto-encoder) in a batch; paper: 64")]
    learning_rate: Annotated[float, Field(gt=0, le=1, description="of Adam; paper: 1e-3")]
    step_epochs: Annotated[
        Count, Field(description="the learning rate is halved every so many epochs; paper: 40")
    ]
    patience: Annotated[
        Count, Field(description="stop after so many epochs without a better validation loss; paper: 50")
    ]
    threads: Annotated[
        int,
        Field(ge=1, le=256, description="CPU threads; results differ in the last bits between thread counts"),
    ]
    accelerator: Annotated[Literal["cpu", "cuda"], Field(description="where to train")]
    precision: Annotated[
        Literal["32-true", "bf16-mixed", "16-mixed"],
        Field(description="arithmetic, as Lightning Fabric names it"),
    ]

    @model_validator(mode="after")
    def _possible(self) -> Training:
        # On a CPU torch has no 16-mixed; its bf16 gradients of 3-D convolutions read memory that was never written
        # (torch 2.13: not a number in 1 to 4 of 60 backward passes among freed NaN), and are no faster without AMX.
        if self.precision != "32-true" and self.accelerator == "cpu":
            raise ValueError(f"precision must be 32-true where accelerator is cpu, got {self.precision}")
        return self


class Embed(Section):
    """The auto-encoder whose bottleneck places patients in a space."""

    width: Annotated[
        int, Field(ge=2, le=64, description="channels of the first convolution; paper: 32 (512 features)")
    ]
    depth: Annotated[int, Field(ge=2, le=6, description="levels; paper: 4")]
    training: Training


# Names with whole numbers from 1: faiss itself takes 0 and less, and finds nothing with them.
SEARCH = r"^[A-Za-z_]+=[1-9][0-9]{0,5}(,[A-Za-z_]+=[1-9][0-9]{0,5})*$"


class Neighbors(Section):
    """The ranking of patients around training patients."""

    index: Annotated[
        str,
        Field(
            min_length=1,
            description="faiss index_factory string; `Flat` is exact; docs/scaling.md says when another one pays",
        ),
    ]
    search: Annotated[
        Annotated[str, Field(pattern=SEARCH)] | None,
        Field(
            description="how widely an approximate index searches, as faiss's ParameterSpace spells it: `nprobe=64` "
            "(cells of IVF), `efSearch=512` (candidates of HNSW), several with commas between; null: faiss's own"
        ),
    ]
    references: Annotated[
        Count | Literal["all"],
        Field(
            description="how many training patients, drawn at random, are ranked around and may carry a pattern; at "
            "least coordinates.patterns, and some more in place of those that have no admissible position"
        ),
    ]
    depth: Annotated[
        Count | Literal["all"],
        Field(
            description="how many nearest patients of each split are kept, so that a next nearest can step in"
        ),
    ]


# --------------------------------------------------------------------------------------- coordinates


class TissueRule(Section):
    """Which corners of a scan a patch may be cut at."""

    border: Annotated[
        tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]],
        Field(
            description="least distance (z, y, x) of a patch from the scan's edge, voxels; paper: (30, 100, 100)"
        ),
    ]
    tissue_hu: Annotated[float, Field(description="a voxel at or over it is tissue, HU; paper: -150")]
    tissue_min: Annotated[Share, Field(description="least mean tissue score of a patch; paper: 0")]
    tissue_max: Annotated[
        Share,
        Field(
            description="largest mean tissue score of a patch; paper: 0.15, which leaves lung and air only"
        ),
    ]

    @model_validator(mode="after")
    def _ordered(self) -> TissueRule:
        if self.tissue_min > self.tissue_max:
            raise ValueError(
                f"tissue_min must be at most tissue_max, got {self.tissue_min} > {self.tissue_max}"
            )
        return self


class Jitter(Section):
    """The two further crops of a location; in voxels of a patch 64 wide, scaled with `patch_size`."""

    side: Annotated[
        tuple[Count, Count], Field(description="least and largest in-plane side; paper: [50, 79]")
    ]
    shift: Annotated[tuple[int, int], Field(description="least and largest in-plane shift; paper: [-10, 9]")]
    crops: Annotated[int, Field(ge=0, le=8, description="jittered crops beside the fixed one; paper: 2")]

    @model_validator(mode="after")
    def _ordered(self) -> Jitter:
        for name in ("side", "shift"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name} must be [least, largest], got [{low}, {high}]")
        return self


class Coordinates(Section):
    """Where the patterns are and in whom."""

    patterns: Annotated[Count, Field(description="C, the number of patterns (pseudo labels); paper: 44")]
    k: Annotated[
        Count | Literal["all"],
        Field(
            description="K training patients of a pattern, the reference being the first; `all` takes every one; paper: 200"
        ),
    ]
    k_validation: Annotated[
        Count | Literal["all"], Field(description="validation patients of a pattern; paper: 30")
    ]
    frame: Annotated[
        Literal["voxel", "body", "lungs"],
        Field(
            description="what a coordinate is relative to: the voxel grid (as published), the body's or the lungs' box"
        ),
    ]
    patch_size: Annotated[Zyx, Field(description="patch shape (z, y, x), voxels; paper: (32, 64, 64)")]
    min_distance: Annotated[
        float,
        Field(
            ge=0,
            description="least distance between two patterns' coordinates, voxels; by default as far as the crops of one "
            "pattern lie apart (11.5 mm about their centroid, docs/discovery.md), for nearer patterns overlap; paper: 5",
        ),
    ]
    rule: TissueRule
    jitter: Jitter


class Patches(Section):
    """The caches the networks learn from."""

    sub_volumes: Annotated[
        Count,
        Field(
            description="random sub-volumes a training scan, for methods without discovery; Models Genesis: 32"
        ),
    ]
    sub_volumes_validation: Annotated[Count, Field(description="random sub-volumes a validation scan")]
    rule: TissueRule
    compression: Annotated[
        Literal["none", "blosc2"], Field(description="of the patches: none, or Blosc2 (lz4, bit shuffle)")
    ]


class Quality(Section):
    """How well discovery worked."""

    registrations: Annotated[
        int,
        Field(
            ge=0,
            description="other patients that each pattern is carried to by affine registration of thumbnails, a control; "
            "0 leaves it out; one takes 0.2 s of a core with thumbnails of 24 x 32 x 32, 1.1 s with 64 x 128 x 128",
        ),
    ]


# ------------------------------------------------------------------------------------------ pretrain


class Effect(Section):
    """One way to perturb a patch."""

    weight: Annotated[
        float, Field(gt=0, description="how often this effect is chosen among those of its step, relative")
    ]


class Elastic(Effect):
    effect: Annotated[Literal["elastic"], Field(description="smooth random displacement in the plane")]
    alpha: Annotated[float, Field(gt=0, description="scale of the smoothed noise; paper: 991")]
    sigma: Annotated[
        float,
        Field(
            gt=0,
            description="s.d. of the Gaussian that smooths the noise, voxels of a patch 64 wide; paper: 8",
        ),
    ]


class Flip(Effect):
    effect: Annotated[Literal["flip"], Field(description="mirror along a random axis, the target too")]
    again: Annotated[Share, Field(description="probability of going on to another flip; Models Genesis: 0.4")]
    most: Annotated[Count, Field(description="most flips; Models Genesis: 3")]


class Shuffle(Effect):
    effect: Annotated[Literal["shuffle"], Field(description="voxels shuffled within small windows")]
    windows: Annotated[
        Count, Field(description="windows shuffled in a patch; paper: 5, Models Genesis: 10000")
    ]


class Intensity(Effect):
    effect: Annotated[Literal["intensity"], Field(description="monotone Bezier map of the intensities")]
    inverted: Annotated[Share, Field(description="probability that the Bezier map falls; paper: 0.5")]


class Inpaint(Effect):
    effect: Annotated[Literal["inpaint"], Field(description="boxes filled with noise")]
    boxes: Annotated[Count, Field(description="most boxes; paper: 1, Models Genesis: 5")]
    again: Annotated[Share, Field(description="probability of going on to another box; Models Genesis: 0.95")]


class Outpaint(Effect):
    effect: Annotated[Literal["outpaint"], Field(description="noise everywhere but in boxes")]
    boxes: Annotated[Count, Field(description="most boxes that are kept; paper: 1, Models Genesis: 5")]
    again: Annotated[Share, Field(description="probability of going on to another box; Models Genesis: 0.95")]


AnyEffect = Annotated[
    Union[Elastic, Flip, Shuffle, Intensity, Inpaint, Outpaint], Field(discriminator="effect")  # noqa: UP007
]


class Step(Section):
    """One step of a perturbation: with probability p, one of its effects is applied."""

    p: Annotated[Share, Field(description="probability of the step")]
    one_of: Annotated[list[AnyEffect], Field(min_length=1)]


class Losses(Section):
    """Weights of the pretext tasks in the loss."""

    restoration: Annotated[
        float, Field(ge=0, description="weight of the mean squared error to the unperturbed patch; paper: 1")
    ]
    classification: Annotated[
        float,
        Field(
            ge=0,
            description="weight of the cross entropy on the pseudo labels; paper: 0.01, without discovery: 0",
        ),
    ]

    @model_validator(mode="after")
    def _some(self) -> Losses:
        if self.restoration == 0 and self.classification == 0:
            raise ValueError("restoration and classification cannot both be 0: nothing would be learned")
        return self


# The caches that the stage `patches` makes.
DISCOVERED, RANDOM = "data/patches/patterns.h5", "data/patches/random.h5"
# Folders whose content stages make anew or clear away, so that nothing of one's own lasts there.
MADE = (
    *(
        f"data/{stage}"
        for stage in ("raw", "cohort", "resampled", "embed", "neighbors", "coordinates", "patches")
    ),
    *(f"data/{stage}" for stage in ("quality", "pretrain", "targets", "finetune", "evaluate", ".aside")),
    *("report", "logs", ".state", ".dvc", ".git"),
)


class MethodRecipe(Section):
    """One pre-training method."""

    reads: Annotated[
        str,
        Field(
            description=f"the cache it learns from: {DISCOVERED} (discovered), {RANDOM}, or any other .h5 file of the "
            "project, such as one of `sg patches import`, as a path from the project's root (docs/patches.md)",
        ),
    ]
    losses: Losses
    perturbations: Annotated[list[Step], Field(description="steps, in order; an empty list perturbs nothing")]

    @field_validator("reads")
    @classmethod
    def _a_cache(cls, reads: str) -> str:
        parts = reads.split("/")
        strange = sorted(
            {character for character in reads if character in "*?[]{}$\\:~" or not character.isprintable()}
        )
        if strange:
            raise ValueError(f"must be a plain path without {' '.join(map(repr, strange))}, got {reads!r}")
        if not reads.endswith(".h5") or any(part in ("", ".", "..") for part in parts) or parts[-1] == ".h5":
            raise ValueError(
                f"must be a path to an .h5 file from the project's root, without `.`, `..` or a leading `/`, got {reads!r}"
            )
        folder = next((folder for folder in MADE if reads.startswith(f"{folder}/")), None)
        if folder is not None and reads not in (DISCOVERED, RANDOM):
            raise ValueError(
                f"must be {DISCOVERED}, {RANDOM} or a file of your own, which cannot lie in {folder}, because stages make "
                f"that anew; put it elsewhere, such as imports/, got {reads!r}"
            )
        return reads

    @model_validator(mode="after")
    def _labels(self) -> MethodRecipe:
        if self.losses.classification > 0 and self.reads == RANDOM:
            raise ValueError(
                f"losses.classification must be 0 where reads is {self.reads}: random sub-volumes have no pseudo labels"
            )
        return self


class PretrainShared(Section):
    """What all methods have in common, so that they can be compared."""

    network: Network
    training: Training


class Pretrain(Section):
    """The methods."""

    shared: PretrainShared
    recipes: dict[Name, MethodRecipe]


# ------------------------------------------------------------------------------- targets and finetune


class NoduleTarget(Section):
    """Nodule false-positive reduction: is a candidate a nodule?"""

    kind: Annotated[
        Literal["nodule-classification"], Field(description="candidates of findings.csv, scored by AUC")
    ]
    patch_size: Annotated[Zyx, Field(description="shape (z, y, x) of the patch around a candidate, voxels")]
    negatives: Annotated[
        float,
        Field(
            gt=0,
            description="most negatives to one positive among training and validation candidates; all test candidates stay",
        ),
    ]


class SegmentationTarget(Section):
    """Segmentation of a structure of the scan's own label map."""

    kind: Annotated[Literal["segmentation"], Field(description="voxels of a label map, scored by IoU")]
    patch_size: Annotated[Zyx, Field(description="shape (z, y, x) of the training patches, voxels")]
    labels: Annotated[
        list[Annotated[int, Field(ge=1, le=255)]],
        Field(
            min_length=1,
            description="values of the label map that count as the structure (Decathlon liver: 1 and the tumour, 2)",
        ),
    ]
    patches: Annotated[
        Count, Field(description="training patches a scan, half of them centred in the structure")
    ]
    window: Annotated[
        Zyx, Field(description="shape (z, y, x) of the windows in which whole scans are predicted, voxels")
    ]
    overlap: Annotated[
        float, Field(ge=0, le=0.75, description="share of each side that neighbouring windows have in common")
    ]


TargetRecipe = Annotated[Union[NoduleTarget, SegmentationTarget], Field(discriminator="kind")]  # noqa: UP007


class Targets(Section):
    """The target tasks."""

    recipes: dict[Name, TargetRecipe]


class Finetune(Section):
    """The trials: every task from every initialization."""

    tasks: Annotated[
        list[Name], Field(description="target tasks to fine-tune on; empty ends the study with pre-training")
    ]
    initializations: Annotated[list[Name], Field(description="`scratch` and/or methods of `plan.methods`")]
    trials: Annotated[
        int,
        Field(
            ge=1, le=1000, description="seeded fine-tunings of each task from each initialization; paper: 10"
        ),
    ]
    training: Annotated[dict[Name, Training], Field(description="by task")]


class Evaluate(Section):
    """The statistics."""

    alpha: Annotated[float, Field(gt=0, lt=1, description="significance level of the tests; paper: 0.05")]
    control: Annotated[Name, Field(description="the initialization that each other one is tested against")]
    test: Annotated[
        Literal["welch", "student"],
        Field(description="two-sample t-test over the trials; `student` assumes equal variances"),
    ]
    correction: Annotated[
        Literal["holm", "none"],
        Field(description="correction of p for the number of comparisons within a task"),
    ]
    bootstrap: Annotated[
        int,
        Field(
            ge=0, le=100000, description="resamples of the test patients for the intervals; 0 leaves them out"
        ),
    ]


class Report(Section):
    """The HTML page."""

    patterns: Annotated[int, Field(ge=1, le=100, description="patterns drawn in the gallery")]
    crops: Annotated[int, Field(ge=2, le=20, description="crops of each pattern drawn in the gallery")]


# --------------------------------------------------------------------------------------------- whole


class Params(Section):
    """The whole of params.yaml."""

    seed: Annotated[int, Field(ge=0, lt=2**32, description="every draw of the study follows from it")]
    plan: Plan
    phantom: Phantom
    cohort: Cohort
    resample: Resample
    embed: Embed
    neighbors: Neighbors
    coordinates: Coordinates
    patches: Patches
    quality: Quality
    pretrain: Pretrain
    targets: Targets
    finetune: Finetune
    evaluate: Evaluate
    report: Report

    @model_validator(mode="after")
    def _agree(self) -> Params:
        problems = list(_disagreements(self))
        if problems:
            raise ValueError("\n".join(problems))
        return self


def _disagreements(p: Params) -> Iterator[str]:
    """Sentences on what two sections say differently."""
    named = {
        "plan.methods": (p.plan.methods, set(p.pretrain.recipes), "a recipe in pretrain.recipes"),
        "plan.targets": (p.plan.targets, set(p.targets.recipes), "a recipe in targets.recipes"),
        "phantom.cohorts": (p.phantom.cohorts, set(p.phantom.recipes), "a recipe in phantom.recipes"),
        "finetune.tasks": (p.finetune.tasks, set(p.plan.targets), "a name in plan.targets"),
        "finetune.initializations": (
            p.finetune.initializations,
            {"scratch", *p.plan.methods},
            "`scratch` or a name in plan.methods",
        ),
    }
    for key, (names, allowed, what) in named.items():
        for name in names:
            if name not in allowed:
                have = ", ".join(sorted(allowed)) or "none"
                yield f"{key}: each name must be {what}, got {name!r} (there are: {have})"
        if len(set(names)) != len(names):
            yield f"{key}: names must differ from each other, got {names}"
    for key, recipes, names in (
        ("pretrain.recipes", p.pretrain.recipes, p.plan.methods),
        ("targets.recipes", p.targets.recipes, p.plan.targets),
    ):
        for name in recipes:
            if name not in names:
                where = "plan.methods" if key.startswith("pretrain") else "plan.targets"
                yield f"{key}.{name}: a recipe must be named in {where}, which is {names}; add it there or remove the recipe"
    if "scratch" in p.pretrain.recipes:
        yield "pretrain.recipes.scratch: `scratch` is the name of training without pre-training, give the method another"
    for task in p.finetune.tasks:
        if task not in p.finetune.training:
            yield f"finetune.training: each task of finetune.tasks needs its settings, {task!r} has none"
    for name, source in p.cohort.sources.items():
        for use in source.use:
            if use != "pretrain" and use not in p.plan.targets:
                yield (
                    f"cohort.sources.{name}.use: each use must be `pretrain` or a name in plan.targets "
                    f"({', '.join(p.plan.targets) or 'none'}), got {use!r}"
                )
    used = {use for source in p.cohort.sources.values() for use in source.use}
    for use in ["pretrain", *p.plan.targets]:
        if use not in used:
            yield f"cohort.sources: some source must be of use for {use!r}, got only {sorted(used)}"
    if (
        p.finetune.tasks
        and p.finetune.initializations
        and p.evaluate.control not in p.finetune.initializations
    ):
        yield (
            f"evaluate.control: must be one of finetune.initializations ({', '.join(p.finetune.initializations)}), "
            f"got {p.evaluate.control!r}"
        )
    trials = [
        f"{task}-{initialization}"
        for task in p.finetune.tasks
        for initialization in p.finetune.initializations
    ]
    for name in sorted({name for name in trials if trials.count(name) > 1}):
        yield f"finetune: two pairs of a task and an initialization are both called {name!r}; rename one of them"
    step = 2 ** (p.pretrain.shared.network.depth - 1)
    sizes = {"coordinates.patch_size": p.coordinates.patch_size}
    sizes |= {
        f"targets.recipes.{name}.patch_size": recipe.patch_size for name, recipe in p.targets.recipes.items()
    }
    windows = {
        f"targets.recipes.{name}.window": recipe.window
        for name, recipe in p.targets.recipes.items()
        if isinstance(recipe, SegmentationTarget)
    }
    for key, size in (sizes | windows).items():
        if any(side % step for side in size):
            yield (
                f"{key}: every side must be a multiple of {step}, because pretrain.shared.network.depth is "
                f"{p.pretrain.shared.network.depth}, got {list(size)}"
            )
    for key, size in sizes.items():
        if any(side > least for side, least in zip(size, p.resample.shape_min, strict=True)):
            yield f"{key}: a patch must fit into resample.shape_min {list(p.resample.shape_min)}, got {list(size)}"
    step = 2 ** (p.embed.depth - 1)
    if any(side % step for side in p.resample.thumbnail_shape):
        yield (
            f"resample.thumbnail_shape: every side must be a multiple of {step}, because embed.depth is "
            f"{p.embed.depth}, got {list(p.resample.thumbnail_shape)}"
        )
    if p.resample.oblique != "resample" and p.phantom.cohorts:
        yield (
            f"resample.oblique: must be resample for phantoms, got {p.resample.oblique}: stage quality holds the places of "
            f"crops against a known truth along the patient's axes; phantom.cohorts is {p.phantom.cohorts}"
        )
    depth = p.neighbors.depth
    for name, k in (("k", p.coordinates.k), ("k_validation", p.coordinates.k_validation)):
        if isinstance(depth, int) and (k == "all" or k > depth):
            yield f"neighbors.depth: must be at least coordinates.{name} ({k}), got {depth}"
    if p.neighbors.index == "Flat" and p.neighbors.search is not None:
        yield (
            f"neighbors.search: must be null where neighbors.index is Flat, which looks at everything, got "
            f"{p.neighbors.search}"
        )
    references = p.neighbors.references
    if isinstance(references, int) and references < p.coordinates.patterns:
        yield (
            f"neighbors.references: must be at least coordinates.patterns ({p.coordinates.patterns}), each of which "
            f"needs a reference of its own, got {references}"
        )
    smallest = min(p.coordinates.patch_size)
    for name, recipe in p.pretrain.recipes.items():
        if recipe.perturbations and smallest < 8 and recipe.reads in (DISCOVERED, RANDOM):
            yield (
                f"coordinates.patch_size: every side must be at least 8 to be perturbed by pretrain.recipes.{name}, "
                f"got {list(p.coordinates.patch_size)}"
            )
        if recipe.losses.classification > 0 and p.coordinates.patterns < 2 and recipe.reads == DISCOVERED:
            yield (
                f"coordinates.patterns: must be at least 2 for pretrain.recipes.{name} to tell them apart, "
                f"got {p.coordinates.patterns}"
            )


def parse(text: str, where: str) -> Params:
    """Params of a YAML text; ValueError with one line per problem (full key, rule, value) if it has any.

    `where` names the text in the message.
    """
    try:
        tree = yaml.load(text, Loader=_StrictLoader)
    except yaml.YAMLError as error:
        raise ValueError(f"{where}: not a YAML file: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise ValueError(
            f"{where}: must hold sections, got {'nothing' if tree is None else type(tree).__name__}"
        )
    try:
        # By way of JSON, because pydantic's strict mode takes an array for a tuple from there only.
        return Params.model_validate_json(json.dumps(tree, default=str))
    except ValidationError as error:
        raise ValueError("\n".join(f"{where}: {line}" for line in _sentences(error))) from None


class _StrictLoader(yaml.SafeLoader):
    """Safe YAML in which a key given twice is an error, and 1e-3 is a number."""


def _mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [loader.construct_object(key) for key, _ in node.value]
    for key in keys:
        if keys.count(key) > 1:
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {key!r} is given twice", node.start_mark
            )
    return loader.construct_mapping(node, deep=True)


# PyYAML follows YAML 1.1, in which 1e-3 is a text; DVC reads YAML 1.2, in which it is a number.
_StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)
_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def _sentences(error: ValidationError) -> Iterator[str]:
    for problem in error.errors(include_url=False):
        key = ".".join(_keys(problem["loc"]))
        match problem["type"]:
            case "union_tag_invalid":
                context = problem["ctx"]
                tag, allowed = context["discriminator"].strip("'"), context["expected_tags"].replace("'", "`")
                yield f"{key}.{tag}: must be one of {allowed}, got {context['tag']!r}"
            case "union_tag_not_found":
                tag = problem["ctx"]["discriminator"].strip("'")
                yield f"{key}.{tag}: this parameter is missing; add it (docs/params.md says what it means)"
            case "extra_forbidden":
                near = _near(problem["loc"])
                yield f"{key}: there is no such parameter{near}; remove it or correct its name"
            case "missing":
                yield f"{key}: this parameter is missing; add it (docs/params.md says what it means)"
            case "value_error":
                for text in str(problem["ctx"]["error"]).splitlines():
                    yield f"{key}: {text}" if key else text
            case _:
                message = problem["msg"].replace("Input should", "must").replace("'", "`")
                yield f"{key}: {message[0].lower()}{message[1:]}, got {problem['input']!r}"


def _keys(loc: tuple[int | str, ...]) -> Iterator[str]:
    """The keys that lead to a place in params.yaml.

    Its location, but without the tag that tells one recipe from another; in a list, the tag says more than the number.
    """
    model: Any = Params
    for number, part in enumerate(loc):
        tagged = get_origin(model) is Union and isinstance(loc[number - 1], str)
        model = _child(model, part)
        if not (tagged and model is not None):
            yield str(part)


def _near(loc: tuple[int | str, ...]) -> str:
    from difflib import get_close_matches

    model: Any = Params
    for part in loc[:-1]:
        model = _child(model, part)
    names = list(model.model_fields) if isinstance(model, type) and issubclass(model, Section) else []
    close = get_close_matches(str(loc[-1]), names, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _child(annotation: Any, part: int | str) -> Any:
    """The type below `part` of a type, or None where it cannot be told."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        field = annotation.model_fields.get(str(part))
        return _bare(field.annotation) if field else None
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is dict:
        return _bare(args[1])
    if origin is list:
        return _bare(args[0])
    if origin is Union:
        for option in map(_bare, args):
            fields = getattr(option, "model_fields", {})
            tag = next((f for f in ("effect", "kind", "layout") if f in fields), None)
            if tag and part in get_args(fields[tag].annotation):
                return option
    return None


def _bare(annotation: Any) -> Any:
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    return annotation
