"""One head's scan in four contrasts, its tumour labels and its tissues.

Anatomy is painted on a lattice of 1 to 2 mm whatever the scan's voxels are, tissue over tissue with soft edges, and
averaged to the scan's: a thin sulcus fills a part of a thick voxel. Then each contrast is measured apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from sg.cohorts.phantom.brain import contrasts
from sg.cohorts.phantom.brain import tumour as growth
from sg.cohorts.phantom.brain.anatomy import (
    COMMISSURE_MM,
    FIELD_MM,
    Draw,
    Head,
    atlas_positions,
    draw_head,
    folded,
    shapes,
)
from sg.cohorts.phantom.brain.contrasts import CONTRASTS, Sequence
from sg.cohorts.phantom.brain.loops import blend
from sg.cohorts.phantom.brain.tumour import Tumour, draw_grade, draw_tumour
from sg.cohorts.phantom.fields import Lattice, draw_noise, interpolated
from sg.params import BrainPhantoms

TISSUES = (
    "background", "csf", "ventricles", "grey", "white", "caudate", "putamen", "pallidum", "thalamus", "hippocampus",
    "stem", "cerebellum_grey", "cerebellum_white", "vein", "dura", "choroid", "white_lesion", "oedema",
    "non_enhancing", "necrosis", "enhancing",
)  # fmt: skip
TISSUE = {name: value for value, name in enumerate(TISSUES)}
# The map that says a tissue's position in the atlas. Cortex, sulci, folia, veins and all that is ill have none.
COUNTERPARTS = {
    "ventricles": "deep", "white": "cerebrum", "caudate": "deep", "putamen": "deep", "pallidum": "deep",
    "thalamus": "deep", "hippocampus": "deep", "stem": "stem", "cerebellum_white": "cerebellum",
}  # fmt: skip
BRATS = {"oedema": 2, "non_enhancing": 1, "necrosis": 1, "enhancing": 4}

WORKING_MM = (
    1.5,
    2.0,
)  # the lattice that is painted on is at most so coarse, for fine scans and for coarse ones
COARSE_MM = 2.4  # and that of the distances about so


@dataclass(frozen=True)
class BrainScan:
    """A phantom's MR study. Arrays are (z, y, x), x to the left, y to the back, z up (LPS)."""

    contrasts: dict[str, np.ndarray]  # t1, t1ce, t2, flair: int16, 0 outside the brain
    labels: np.ndarray  # uint8: 1 necrosis and non-enhancing core, 2 oedema, 4 enhancing, 0
    tissues: np.ndarray  # uint8, named by TISSUES
    spacing_mm: float
    head: Head
    tumour: Tumour
    volumes_ml: dict[str, float]  # brain, and the labels', as measured
    field_tesla: float
    sequences: dict[str, Sequence]
    survival_days: int
    resection: str  # GTR, STR or NA

    @property
    def grade(self) -> str:
        return self.tumour.grade

    @property
    def lattice(self) -> Lattice:
        """Voxel centres in the frame's mm: (0, 0, 0) is the first voxel of a scan of 1 mm."""
        return scan_lattice(self.spacing_mm)

    @property
    def origin_mm(self) -> tuple[float, float, float]:
        """World position (LPS mm) of the first voxel; the BraTS files' frame begins at (0, -239, 0)."""
        first = self.spacing_mm / 2 - 0.5
        return first, first - 239.0, first


def scan_lattice(spacing_mm: float) -> Lattice:
    """The frame of 240 x 240 x 155 mm in voxels of that size, begun at the same corner."""
    return Lattice(
        *(spacing_mm / 2 - 0.5 + spacing_mm * np.arange(round(side / spacing_mm)) for side in FIELD_MM)
    )


def draw_brain(draw: Draw, recipe: BrainPhantoms) -> BrainScan:
    """A patient with a glioma, scanned; all chance comes from `draw(purpose)`."""
    grade, age = draw_grade(draw)
    head = draw_head(draw, age)
    tumour = draw_tumour(draw, head, grade)
    field, sequences = contrasts.draw_sequences(draw)
    signals = contrasts.draw_signals(draw, field, sequences)
    whole = scan_lattice(recipe.spacing_mm)
    region = _region(head, whole)
    factor = int(np.ceil(recipe.spacing_mm / np.clip(recipe.spacing_mm / 2, *WORKING_MM)))
    painting = _Painting(head, tumour, whole.box(region), factor, signals, draw)
    images, tissues, inside = painting.averaged()
    labels = np.zeros(tissues.shape, np.uint8)
    for name, value in BRATS.items():
        labels[tissues == TISSUE[name]] = value
    measured = {}
    for number, name in enumerate(CONTRASTS):
        image = contrasts.acquire(images[number], inside, whole.box(region), sequences[name], draw, name)
        measured[name] = _placed(image, whole, region)
    voxel_ml = recipe.spacing_mm**3 / 1000
    volumes = {"brain": inside.sum() * voxel_ml}
    for name, value in (("core", 1), ("oedema", 2), ("enhancing", 4)):
        volumes[name] = (labels == value).sum() * voxel_ml
    days, resection = _course(draw, age)
    return BrainScan(
        measured,
        _placed(labels, whole, region),
        _placed(tissues, whole, region),
        recipe.spacing_mm,
        head,
        tumour,
        {name: round(float(v), 3) for name, v in volumes.items()},
        (1.5, 3.0)[field],
        sequences,
        days,
        resection,
    )


def _placed(part: np.ndarray, whole: Lattice, region: tuple[slice, slice, slice]) -> np.ndarray:
    full = np.zeros(whole.shape, part.dtype)
    full[region] = part
    return full


def _region(head: Head, whole: Lattice) -> tuple[slice, slice, slice]:
    """The box of voxels that the brain is in, with some margin."""
    lattice = Lattice(*(np.arange(-2.0, side + 6, 6.0) for side in FIELD_MM))
    mask = shapes(head, lattice)["mask"] < 4
    low, high = [], []
    for axis, nodes in enumerate(lattice.axes):
        index = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
        low.append(nodes[index[0]] - 6)
        high.append(nodes[index[-1]] + 6)
    return whole.region(np.array(low[::-1]), np.array(high[::-1]))


def _course(draw: Draw, age: float) -> tuple[int, str]:
    """Survival in days and extent of resection: about a year in the median, less at a great age (BraTS 2018's table)."""
    rng = draw("course")
    days = rng.lognormal(np.log(360) - 0.012 * (age - 60), 0.85)
    resection = str(rng.choice(["GTR", "STR", "NA"], p=[0.36, 0.15, 0.49]))
    return int(np.clip(days, 5, 1800)), resection


class _Painting:
    """The four contrasts and the tissues of one region, painted on its working lattice."""

    def __init__(
        self,
        head: Head,
        tumour: Tumour,
        region: Lattice,
        factor: int,
        signals: dict[str, np.ndarray],
        draw: Draw,
    ) -> None:
        self.head, self.tumour, self.signals, self.draw = head, tumour, signals, draw
        self.factor = factor
        step = float(region.x[1] - region.x[0]) / factor
        self.fine = Lattice(
            *(
                axis[0] + step * (np.arange(len(axis) * factor) - (factor - 1) / 2)
                for axis in (region.x, region.y, region.z)
            )
        )
        self.voxel = np.float32(step)
        self.coarse = self.fine.coarser(max(COARSE_MM / step, 1.0))
        still = shapes(head, self.coarse)
        self.pushed = growth.pushed(tumour, self.coarse, still["mask"])
        self.d = shapes(head, self.coarse, self.pushed)
        self.images = np.empty((len(CONTRASTS), *self.fine.shape), np.float32)
        self.images[:] = signals["csf"][:, None, None, None]
        self.tissues = np.full(self.fine.shape, TISSUE["csf"], np.uint8)
        self.mask = self.finer(self._rough_mask())
        self._paint_cerebrum()
        self._paint_lower()
        self._paint_deep()
        self._paint_vessels()
        self._paint_lesions()
        self._paint_tumour()
        self._texture()

    def finer(self, field: np.ndarray) -> np.ndarray:
        return interpolated(field, self.coarse, self.fine)

    def noise(self, purpose: str, step_mm: float, sd: float) -> np.ndarray:
        """Smooth noise of the patient on the coarse lattice, float32 (z, y, x)."""
        return draw_noise(self.draw(purpose), COMMISSURE_MM, 130, step_mm, sd, components=1).on(self.coarse)[
            0
        ]

    def paint(self, distance: np.ndarray, signal: str, tissue: str, opacity: float = 1.0) -> None:
        """Paint a shape given by its distance on the fine lattice."""
        share = np.clip(np.float32(0.5) - distance / self.voxel, 0, 1)
        self.mix(share * np.float32(opacity) if opacity < 1 else share, signal)
        self.tissues[share > 0.5] = TISSUE[tissue]

    def paint_coarse(self, distance: np.ndarray, signal: str, tissue: str, opacity: float = 1.0) -> None:
        """Paint a shape given on the coarse lattice, where it is."""
        near = np.argwhere(distance < 4)
        if not len(near):
            return
        low, high = (
            np.array([axis[k] for axis, k in zip(self.coarse.axes, ends, strict=True)])[::-1]
            for ends in (near.min(axis=0), near.max(axis=0))
        )
        region = self.fine.region(low, high)
        if region is None:
            return
        here = interpolated(distance, self.coarse, self.fine.box(region))
        share = np.clip(np.float32(0.5) - here / self.voxel, 0, 1)
        blend(self.images[(slice(None), *region)], share * np.float32(opacity), self.signals[signal])
        self.tissues[region][share > 0.5] = TISSUE[tissue]

    def mix(self, share: np.ndarray, signal: str) -> None:
        blend(self.images, share, self.signals[signal])

    def _rough_mask(self) -> np.ndarray:
        """The brain's mask as a program for skull stripping leaves it: uneven by a millimetre or so."""
        return self.d["mask"] + self.noise("mask", 9, 0.7)

    def _paint_cerebrum(self) -> None:
        surface, sheets = folded(self.head, self.d, self.coarse, self.fine, self.pushed)
        thickness = np.float32(self.head.cortex_mm) + self.finer(self.noise("thickness", 14, 0.3))
        self.paint(-surface, "grey", "grey")
        self.paint(thickness - surface, "white", "white")
        self.surface, self.sheets = surface, sheets

    def _paint_lower(self) -> None:
        d = self.finer(self.d["cerebellum"])
        position = atlas_positions(self.head, self.coarse, self.pushed)["cerebellum"]
        x, y, z = (self.finer(one) for one in position)
        # Folia are sheets that run across, fanned about a line in front of and above the fourth ventricle.
        reach = np.sqrt((y - 28) ** 2 + 0.35 * x * x)
        angle = np.arctan2(z + 14, np.maximum(reach, 1))
        uneven = self.finer(self.head.folia.on(self.coarse)[0])
        folia = np.cos((angle * 40 + uneven) * np.float32(2 * np.pi / 5.2))
        lobules = np.cos((angle * 40 + uneven * 2) * np.float32(2 * np.pi / 16))
        self.paint(d, "cerebellum", "cerebellum_grey")
        shallow = np.clip(1 + (d + 10 + 5 * lobules) / 4, 0, 1) * (d < 0)
        fluid = (
            np.clip((folia - 0.1) * 0.9, 0, 1)
            * shallow
            * np.float32(min(0.3 + 0.25 * self.head.sulcus_mm, 0.65))
        )
        self.mix(fluid.astype(np.float32), "csf")
        white = (d + 10 - 5 * lobules - 1.2 * folia).astype(np.float32)
        self.paint(white, "white", "cerebellum_white")
        self.paint_coarse(self.d["stem"], "stem", "stem")

    def _paint_deep(self) -> None:
        for name, signal in (
            ("putamen", "putamen"),
            ("pallidum", "pallidum"),
            ("thalamus", "thalamus"),
            ("hippocampus", "grey"),
        ):
            self.paint_coarse(self.d[name], signal, name)
        self.paint_coarse(self.d["ventricles"], "csf", "ventricles")
        # The caudate bulges into the ventricle from the side.
        self.paint_coarse(np.maximum(self.d["caudate"], -self.d["ventricles"] - 2.5), "caudate", "caudate")
        choroid = np.maximum(self.d["ventricles"] + 1.5, 1.2 - self.noise("choroid", 6, 2.0))
        position = atlas_positions(self.head, self.coarse, self.pushed)["deep"]
        behind = 22 - position[1] + np.abs(position[2] - 14) * 0.5
        self.paint_coarse(np.maximum(choroid, behind), "choroid", "choroid", 0.6)

    def _paint_vessels(self) -> None:
        falx = self.finer(np.maximum(np.abs(self._midline()), self.d["falx"]))
        self.paint(np.maximum(falx - np.float32(0.45), self.finer(self.d["cerebrum"])), "dura", "dura", 0.7)
        # Veins run in the sulci: where a second random field is zero on the sheets in the sulci's middle.
        second = self.finer(self.noise("veins", 12, 6.0))
        calibre = self.finer(self.noise("vein calibre", 25, 0.35)) + np.float32(0.45)
        veins = np.sqrt(self.sheets**2 + second**2) - calibre
        self.paint(np.maximum(veins, self.surface - 0.4), "vein", "vein", 0.85)
        top = np.sqrt(self._midline() ** 2 + (self.d["cerebrum"] + 1.5) ** 2) - 3.2
        behind = 40 - atlas_positions(self.head, self.coarse, self.pushed)["cerebrum"][2]
        self.paint_coarse(np.maximum(top, behind * 0.6), "vein", "vein")

    def _midline(self) -> np.ndarray:
        return atlas_positions(self.head, self.coarse, self.pushed)["cerebrum"][0]

    def _paint_lesions(self) -> None:
        """White-matter lesions of age: caps and rims of the ventricles, and spots.

        4.9 ml in the mean at 60 to 64 years, none within 4 mm of the cortex (Wen and Sachdev, Neuroimage 2004;22:144),
        and more than linearly more with age.
        """
        rng = self.draw("lesions")
        load = float(np.exp((self.head.age - 62) / 14) * rng.lognormal(-0.2, 0.7))
        horns = np.abs(atlas_positions(self.head, self.coarse, self.pushed)["deep"][1] - 4)
        cap = np.float32(min(0.8 + 1.1 * load**0.5, 6.5)) * (0.45 + 0.55 * np.clip((horns - 18) / 14, 0, 1))
        rim = self.d["ventricles"] - cap + self.noise("caps", 8, 0.9)
        spots = self.noise("spots", 7.5, 1.0)
        level = np.float32(np.clip(3.15 - 0.42 * np.log1p(load * 2), 1.9, 3.2))
        spots = (level - spots) * 3.0
        white = (self.tissues == TISSUE["white"]) & (self.surface > self.head.cortex_mm + 3)
        distance = self.finer(np.minimum(rim, spots).astype(np.float32))
        share = np.clip(0.5 - distance / np.float32(2.2), 0, 1) * white
        self.mix((share * np.float32(0.8)).astype(np.float32), "lesion")
        self.tissues[(share > 0.5) & white] = TISSUE["white_lesion"]

    def _paint_tumour(self) -> None:
        tumour, half = self.tumour, self.voxel
        reach = 1.9 * tumour.radius_mm + 4
        region = self.fine.region(tumour.centre_mm - reach, tumour.centre_mm + reach)
        box = self.fine.box(region)
        falx = interpolated(self._side(), self.coarse, box)
        allowed = (self.mask[region] < -self.head.rim_mm - 0.5) & (falx > 0)
        allowed &= interpolated(self.d["ventricles"], self.coarse, box) > 0
        allowed &= interpolated(self.d["cerebrum"], self.coarse, box) < 0
        core = growth.core_field(tumour, box, allowed, self.draw)
        core = np.where(allowed, core, np.maximum(core, half))
        self._paint_oedema(core, region)
        images, tissues = self.images[(slice(None), *region)], self.tissues[region]
        soft = np.float32(half + (0.6 if tumour.grade == "HGG" else 2.0))
        share = np.clip(0.5 - core / soft, 0, 1) * (core < half)
        blend(images, share.astype(np.float32), self.signals["infiltrated"])
        inside = core < 0
        tissues[inside] = TISSUE["non_enhancing" if tumour.grade == "LGG" else "enhancing"]
        patches = draw_noise(self.draw("patches"), tumour.centre_mm, reach + 8, 7, 1.0, components=1).on(box)[
            0
        ]
        if tumour.grade == "HGG":
            uneven = np.clip(0.75 - 0.25 * patches, 0.25, 1)
            blend(images, (share * uneven).astype(np.float32), self.signals["enhancing"])
            # Some of the rim does not enhance: tumour all the same.
            gaps = np.clip((patches - 1.5) * 2, 0, 1) * inside
            blend(images, gaps.astype(np.float32), self.signals["infiltrated"])
            tissues[(gaps > 0.5)] = TISSUE["non_enhancing"]
            dead = growth.rim_field(tumour, core, box, inside, self.draw)
            share = np.clip(0.5 - dead / (half + np.float32(0.8)), 0, 1)
            blend(
                images,
                (share * np.clip(0.8 + 0.2 * patches, 0.25, 1)).astype(np.float32),
                self.signals["necrosis"],
            )
            tissues[dead < 0] = TISSUE["necrosis"]
        elif tumour.enhancing:
            level = growth.level(-patches, core < -3, tumour.core_ml * tumour.enhancing, box)
            share = np.clip((patches + level) * 2 + 0.5, 0, 1) * (core < -3)
            blend(images, share.astype(np.float32), self.signals["enhancing"])
            tissues[share > 0.5] = TISSUE["enhancing"]

    def _side(self) -> np.ndarray:
        """Positive on the tumour's side of the midline, and everywhere near the corpus callosum."""
        sign = np.float32(np.sign(self.tumour.centre_mm[0] - COMMISSURE_MM[0]) or 1)
        return np.maximum(sign * self._midline() - 1, self.d["falx"] - 3)

    def _paint_oedema(self, core: np.ndarray, region: tuple[slice, slice, slice]) -> None:
        """Oedema from the core on; brightest near it, fading and ragged further away."""
        skip = max(round(2.0 / float(self.voxel)), 1)
        every = (slice(None, None, skip),) * 3
        rough = Lattice(*(axis[::skip] for axis in (self.fine.x, self.fine.y, self.fine.z)))
        tissues = self.tissues[every]
        names = ("white", "white_lesion")
        white = np.isin(tissues, [TISSUE[n] for n in names]).astype(np.float32)
        names = ("grey", "caudate", "putamen", "pallidum", "thalamus", "hippocampus", "stem")
        grey = np.isin(tissues, [TISSUE[n] for n in names]).astype(np.float32)
        whole = np.full(self.fine.shape, np.float32(1))
        whole[region] = core
        times, reach = growth.oedema_times(self.tumour, rough, white, grey, whole[every], self.draw)
        if not np.isfinite(reach):
            return
        np.minimum(times, np.float32(reach * 1.6 + 4), out=times)
        inner = self.fine.region(
            np.array([rough.x[0], rough.y[0], rough.z[0]]), np.array([rough.x[-1], rough.y[-1], rough.z[-1]])
        )
        late = interpolated(times, rough, self.fine.box(inner))
        near = self.tissues[inner]
        tissue = np.isin(near, [TISSUE[n] for n in (*names, "white", "white_lesion")])
        border = np.float32(max(reach * 0.12, 1.2))
        share = np.clip((np.float32(reach) - late) / border + 0.5, 0, 1) * tissue
        strength = 0.6 + 0.4 * np.exp(-late / np.float32(max(reach, 1)))
        strength *= np.where(near == TISSUE["white"], 1, np.float32(0.6))
        blend(
            self.images[(slice(None), *inner)], (share * strength).astype(np.float32), self.signals["oedema"]
        )
        near[(late < reach) & tissue] = TISSUE["oedema"]

    def _texture(self) -> None:
        """Tissue is not even: a few per cent, in each contrast its own."""
        for number, name in enumerate(CONTRASTS):
            grain = self.noise(f"grain {name}", 5.5, 0.022) + self.noise(f"shade {name}", 30, 0.02)
            self.images[number] *= 1 + self.finer(grain)

    def averaged(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Images, tissues (of the most voxels, nearly: the middle ones) and the mask on the scan's lattice."""
        f = self.factor
        inside = self.mask < 0
        if f > 1:
            depth, height, width = (n // f for n in self.fine.shape)
            blocks = (depth, f, height, f, width, f)
            images = self.images.reshape(4, *blocks).mean(axis=(2, 4, 6))
            inside = inside.reshape(blocks).mean(axis=(1, 3, 5)) >= 0.5
        else:
            images = self.images
        middle = (slice(f // 2, None, f),) * 3
        tissues = self.tissues[middle].copy()
        # One piece without holes, as skull stripping leaves.
        parts, count = ndimage.label(inside)
        if count > 1:
            inside = parts == 1 + int(np.argmax(np.bincount(parts.ravel())[1:]))
        tissues[~inside] = TISSUE["background"]
        return images, tissues, inside
