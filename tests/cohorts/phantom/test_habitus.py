"""Build and organ volumes of the phantoms' population, against the figures they are drawn from."""

from __future__ import annotations

import numpy as np
import pytest

from sg.cohorts.phantom import habitus
from sg.cohorts.phantom.habitus import LOBES, Habitus, draw_habitus, draw_sizes

PEOPLE = 3000


@pytest.fixture(scope="module")
def population():
    rng = np.random.default_rng(0)
    people = [draw_habitus(rng) for _ in range(PEOPLE)]
    return people, [draw_sizes(person, rng.normal(), rng) for person in people]


def correlation(a, b) -> float:
    return float(np.corrcoef(a, b)[0, 1])


def test_body_surface_and_mass_index_by_hand():
    person = Habitus("male", 50.0, 180.0, 80.0, 12.0, 0.0, 0.0)
    assert person.surface_m2 == pytest.approx(2.0)  # sqrt(180 * 80 / 3600)
    assert person.bmi == pytest.approx(80 / 3.24)


def test_lung_capacity_follows_the_published_equation():
    """GLI 2021, man of 50 years and 175 cm: exp(-10.5861 + 0.1433 ln 50 + 2.3155 ln 175) l."""
    man = Habitus("male", 50.0, 175.0, 75.0, 12.0, 0.0, 0.0)
    assert man.lung_capacity_l == pytest.approx(6.91, abs=0.01)
    woman = Habitus("female", 50.0, 162.0, 65.0, 12.0, 0.0, 50.0)
    assert woman.lung_capacity_l == pytest.approx(5.09, abs=0.01)


def test_population_is_the_one_that_livers_are_centred_on(population):
    people, _ = population
    assert np.mean([p.surface_m2 for p in people]) == pytest.approx(habitus.BUILD_SURFACE_M2, abs=0.02)
    assert np.mean([p.height_cm for p in people]) == pytest.approx(habitus.BUILD_CM, abs=0.6)
    assert all(p.breast_mm == 0 for p in people if p.sex == "male")


def test_livers_have_the_published_mean_spread_and_dependence_on_body_surface(population):
    people, sizes = population
    liver = np.array([s.liver_ml for s in sizes])
    assert liver.mean() == pytest.approx(1205, rel=0.02)
    assert liver.std() == pytest.approx(258, rel=0.07)
    assert correlation(liver, [p.surface_m2 for p in people]) ** 2 == pytest.approx(0.30, abs=0.05)


def test_spleens_have_the_published_mean_and_spread_and_no_dependence_on_build(population):
    people, sizes = population
    spleen = np.array([s.spleen_ml for s in sizes])
    assert spleen.mean() == pytest.approx(195, rel=0.03)
    assert spleen.std() == pytest.approx(78, rel=0.08)
    assert spleen.min() > 40
    for build in ("surface_m2", "height_cm", "bmi"):
        assert abs(correlation(spleen, [getattr(p, build) for p in people])) < 0.06


def test_lungs_have_the_published_mean_and_spread(population):
    _, sizes = population
    lungs = np.array([s.lungs_ml for s in sizes]) / 1000
    assert lungs.mean() == pytest.approx(5.34, rel=0.03)
    assert lungs.std() == pytest.approx(1.20, rel=0.1)


def test_a_deeper_breath_makes_the_same_person_s_lungs_larger():
    person = draw_habitus(np.random.default_rng(1))
    deep, shallow = (draw_sizes(person, i, np.random.default_rng(2)) for i in (1.0, -1.0))
    assert deep.lungs_ml / shallow.lungs_ml == pytest.approx(np.exp(2 * habitus.LUNG_INSPIRATION))
    assert deep.liver_ml == shallow.liver_ml


def test_lobes_shares_sum_to_the_lungs_and_vary_as_published(population):
    """Means and standard deviations of PMC7490509, table 3 (supine)."""
    _, sizes = population
    shares = np.array([[100 * s.lobes_ml[name] / s.lungs_ml for name in LOBES] for s in sizes])
    np.testing.assert_allclose(shares.sum(axis=1), 100)
    np.testing.assert_allclose(shares.mean(axis=0), [17.9, 9.3, 26.5, 23.1, 23.2], atol=0.2)
    np.testing.assert_allclose(shares.std(axis=0), [2.4, 1.6, 2.6, 2.1, 2.4], rtol=0.08)
    right = shares[:, :3].sum(axis=1)
    assert right.mean() == pytest.approx(53.6, abs=0.2)
    assert right.std() == pytest.approx(1.5, rel=0.08)
