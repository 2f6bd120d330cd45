"""Variants: how often, and what they do to the lungs."""

from types import SimpleNamespace

import numpy as np
import pytest

from sg.cohorts.phantom import anatomy, variants
from sg.cohorts.phantom.fields import Lattice
from sg.cohorts.phantom.variants import (
    FAR_MM,
    LOBES,
    NONE,
    Effusion,
    Variants,
    draw_variants,
    without_counterpart,
)
from sg.cohorts.phantom.vessels import in_lobe
from sg.randomness import generator

EVERY_LOBE = [lobe for lobes in LOBES.values() for lobe in lobes]


def draw(purpose: str) -> np.random.Generator:
    return generator(3, "phantom", "test/0", purpose)


@pytest.fixture(scope="module")
def patient() -> anatomy.Patient:
    return anatomy.draw_patient(draw, 0.0)


@pytest.fixture(scope="module")
def lattice() -> Lattice:
    return Lattice(np.arange(-160.0, 161, 8), np.arange(-130.0, 131, 8), np.arange(-240.0, 141, 8))


def with_variants(patient: anatomy.Patient, own: Variants) -> SimpleNamespace:
    return SimpleNamespace(maps=patient.maps, variants=own)


def test_a_share_of_none_gives_none_and_a_share_of_one_gives_everybody_some():
    rng = np.random.default_rng(0)
    assert all(draw_variants(rng, 0.0) == NONE for _ in range(50))
    assert all(draw_variants(rng, 1.0) != NONE for _ in range(300))


def test_variants_are_as_frequent_as_stated():
    rng = np.random.default_rng(1)
    count, share = 4000, 0.5
    drawn = [draw_variants(rng, share) for _ in range(count)]
    found = {
        "emphysema": sum(v.emphysema > 0 for v in drawn),
        "effusion": sum(v.effusion is not None for v in drawn),
        "scoliosis": sum(v.scoliosis_mm != 0 for v in drawn),
        "removed": sum(v.removed_lobe is not None for v in drawn),
    }
    for name, number in found.items():
        first = variants.FIRST[name]
        chance = share * (first + (1 - first) * variants.ANOTHER)
        assert abs(number - count * chance) < 4 * np.sqrt(count * chance * (1 - chance)), name


def test_an_azygos_lobe_needs_the_right_upper_lobe():
    rng = np.random.default_rng(2)
    drawn = [draw_variants(rng, 1.0) for _ in range(4000)]
    assert any(v.azygos and v.removed_lobe == "lung_right_lower" for v in drawn)
    assert not any(v.azygos and v.removed_lobe == "lung_right_upper" for v in drawn)


@pytest.mark.parametrize("lobe", EVERY_LOBE)
def test_of_a_removed_lobe_nothing_is_left_and_the_others_fill_its_place(patient, lattice, lobe):
    own = with_variants(patient, Variants(removed_lobe=lobe))
    d = anatomy.shapes(patient, lattice)
    assert (in_lobe(lobe, d)).any()
    lungs = {name: d[name].copy() for name in LOBES}
    variants.apply(own, lattice, d)
    assert not in_lobe(lobe, d).any()
    for lung, lobes in LOBES.items():
        assert (d[lung] == lungs[lung]).all()  # the lung stays; only who fills it changes
        inside = np.sum([in_lobe(name, d) for name in lobes], axis=0)
        assert (inside == 1).all()  # each point in exactly one lobe


@pytest.mark.parametrize("side", list(LOBES))
def test_fluid_takes_its_place_from_the_lung_behind_and_below(patient, lattice, side):
    before = anatomy.shapes(patient, lattice)
    volumes = []
    for depth in (15.0, 45.0):
        d = {name: field.copy() for name, field in before.items()}
        variants.apply(with_variants(patient, Variants(effusion=Effusion(side, depth))), lattice, d)
        fluid, lung = d["effusion"] < 0, d[side] < 0
        assert not (fluid & lung).any()
        assert not (fluid & (before[side] >= 0)).any()  # nowhere but where lung was
        other = next(name for name in LOBES if name != side)
        assert (d[other] == before[other]).all()
        y = np.broadcast_to(lattice.y[None, :, None], lattice.shape)
        assert y[fluid].mean() > y[lung].mean() + 30
        volumes.append(np.count_nonzero(fluid))
    assert volumes[1] > 2 * volumes[0] > 0


def test_what_a_patient_has_not_is_far_away(patient, lattice):
    d = anatomy.shapes(patient, lattice)
    assert (d["effusion"] == FAR_MM).all()
    assert (d["fissure_azygos"] == FAR_MM).all()


def test_an_azygos_fissure_ends_in_its_vein(patient):
    own = with_variants(patient, Variants(azygos=True))
    path = variants.azygos_path(own)
    for place in path[1:-1]:
        here = Lattice(*(np.array([v, v + 1.0]) for v in place + np.array([0, 0, 3])))
        d = anatomy.shapes(patient, here)
        variants.apply(own, here, d)
        assert abs(d["fissure_azygos"][0, 0, 0]) < 4


def test_labels_without_a_counterpart():
    def of(own: Variants) -> frozenset[str]:
        return without_counterpart(SimpleNamespace(variants=own))

    assert of(NONE) == frozenset()
    assert of(Variants(removed_lobe="lung_left_upper")) == set(LOBES["lung_left"])
    assert of(Variants(removed_lobe="lung_right_middle")) == set(LOBES["lung_right"])
    assert of(Variants(azygos=True)) == {"lung_right_upper"}
    assert of(Variants(emphysema=0.5, scoliosis_mm=9, effusion=Effusion("lung_left", 20))) == frozenset()
