"""Densities of tissues agree with the figures that they are taken from, and a person's do not depend on the phase."""

import numpy as np
import pytest

from sg.cohorts.phantom.habitus import draw_habitus
from sg.cohorts.phantom.tissues import RISES, RISES_ANY, draw_hu
from sg.randomness import generator

PEOPLE = 1200


def _draw(number):
    return lambda purpose: generator(3, "tissues", str(number), purpose)


@pytest.fixture(scope="module")
def unenhanced():
    return [draw_hu(_draw(n), "none") for n in range(PEOPLE)]


@pytest.mark.parametrize("phase", ["arterial", "venous"])
def test_what_takes_up_no_medium_is_the_same_in_every_phase_and_the_rest_is_denser(unenhanced, phase):
    for number in range(20):
        with_medium = draw_hu(_draw(number), phase)
        assert with_medium.keys() == unenhanced[number].keys()
        for name, value in unenhanced[number].items():
            if name in RISES[phase] or name in RISES_ANY:
                assert with_medium[name] > value, name
            else:
                assert with_medium[name] == value, name


def test_livers_are_as_dense_and_as_often_fatty_as_in_screened_adults(unenhanced):
    # Boyce et al. 2010: 58.8 +- 10.8 HU, 6.2 % at 40 or less; the tolerances are 3 standard errors of 1200 people.
    liver = np.array([hu["liver"] for hu in unenhanced])
    assert liver.mean() == pytest.approx(58.8, abs=3 * 10.8 / np.sqrt(PEOPLE))
    assert liver.std() == pytest.approx(10.8, abs=1.0)
    assert (liver <= 40).mean() == pytest.approx(0.062, abs=3 * np.sqrt(0.062 * 0.938 / PEOPLE))


def test_vertebrae_lose_two_and_a_half_hu_a_year(unenhanced):
    # Jang et al. 2019; scatter of 36 HU over ages of 12 years' standard deviation: a standard error of 0.09.
    ages = np.array([draw_habitus(_draw(n)("habitus")).age_years for n in range(PEOPLE)])
    slope = np.polyfit(ages, [hu["marrow"] for hu in unenhanced], 1)[0]
    assert slope == pytest.approx(-2.5, abs=0.35)


def test_without_medium_all_blood_of_a_person_is_equally_dense(unenhanced):
    for hu in unenhanced[:20]:
        assert (
            len(
                {
                    hu[name]
                    for name in ("blood", "blood_right", "cava_upper", "cava_lower", "portal", "hepatic")
                }
            )
            == 1
        )


def test_in_the_arterial_phase_the_right_heart_is_denser_than_the_left_in_some_and_less_dense_in_others():
    pairs = [draw_hu(_draw(n), "arterial") for n in range(60)]
    denser = np.mean([hu["blood_right"] > hu["blood"] for hu in pairs])
    assert 0.2 < denser < 0.9
