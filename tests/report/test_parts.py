"""Pictures stand upright and in proportion; charts, numbers and provenance are plain and repeatable."""

from __future__ import annotations

import base64
import io
import math
import re
import subprocess
import tomllib
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sg.report import figures, provenance
from sg.report.discovery import patterns
from sg.report.figures import Curve, Dot, Group
from sg.report.pictures import axial, coronal, gray, picture, png, thinned
from sg.report.quality import Figure
from sg.report.tables import evenly, figure, many, number, p_value, percent, said, short, text, whole_percent
from tests.report.conftest import PATCH, SHAPE

REPOSITORY = Path(__file__).resolve().parents[2]


def decoded(source: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(source.removeprefix("data:image/png;base64,")))))


# ------------------------------------------------------------------------------------------ pictures


def test_the_window_runs_from_air_to_bone():
    hu = np.array([[-2000, -1000, -300, 400, 3000]])
    assert gray(hu).tolist() == [[0, 0, 128, 255, 255]]  # -300 is the middle: 127.5, half up


def test_not_a_number_is_black():
    assert gray(np.array([[math.nan, 400.0]])).tolist() == [[0, 255]]


def test_a_picture_reads_back_pixel_by_pixel():
    levels = np.arange(35, dtype=np.uint8).reshape(5, 7)
    assert decoded(png(levels)).tolist() == levels.tolist()


def test_a_png_holds_pixels_and_nothing_else():
    data = base64.b64decode(png(np.zeros((4, 4), np.uint8)).split(",")[1])
    assert re.findall(rb"IHDR|IDAT|IEND|tEXt|tIME|pHYs|iTXt|eXIf", data) == [b"IHDR", b"IDAT", b"IEND"]


def test_coronal_slices_have_the_head_up_and_the_left_on_the_right():
    volume = np.zeros((4, 3, 5))
    volume[-1, 1, 0] = 1  # superior, the patient's right
    volume[0, 1, -1] = 2  # inferior, the patient's left
    assert np.argwhere(coronal(volume) == 1).tolist() == [[0, 0]]
    assert np.argwhere(coronal(volume) == 2).tolist() == [[3, 4]]


def test_axial_slices_have_the_front_up_and_the_left_on_the_right():
    volume = np.zeros((3, 4, 5))
    volume[1, 0, -1] = 1  # anterior, the patient's left
    assert np.argwhere(axial(volume) == 1).tolist() == [[0, 4]]


def test_a_picture_has_the_proportions_of_the_body():
    # 10 rows of 5 mm over 20 columns of 2 mm: 50 mm high, 40 mm wide.
    assert picture(np.zeros((10, 20)), (5.0, 2.0), "x").aspect == pytest.approx(0.8)


def test_large_slices_are_thinned_to_what_the_page_shows():
    assert thinned(np.zeros((512, 300))).shape == (128, 75)
    assert thinned(np.zeros((160, 160))).shape == (160, 160)


def test_the_outline_of_a_pattern_lies_where_it_was_cut(made):
    import csv

    with open(made.root / "data/coordinates/patterns.csv", newline="") as file:
        row = next(csv.DictReader(file))
    z, x = int(row["corner_z"]), int(row["corner_x"])
    box = patterns(made.root, made.study)["gallery"][0]["place"].box
    assert box.left == pytest.approx(100 * x / SHAPE[2])
    assert box.width == pytest.approx(100 * PATCH[2] / SHAPE[2])
    # From the top, which is the last slice, down to the patch's upper end.
    assert box.top == pytest.approx(100 * (SHAPE[0] - z - PATCH[0]) / SHAPE[0])
    assert box.height == pytest.approx(100 * PATCH[0] / SHAPE[0])


# ------------------------------------------------------------------------------------------- charts


def chart_of_scores(name="scratch") -> figures.Chart:
    groups = [Group(name, [0.71, 0.73, 0.74], 0.7267, 0.0153, "+"), Group("one", [0.5], 0.5, math.nan, "")]
    return figures.scores(groups, [("threshold", 0.6)], "AUC", "alt", 1)


def test_charts_are_the_same_whatever_the_users_matplotlib_settings():
    plain = chart_of_scores().svg
    with matplotlib.rc_context(
        {"font.size": 30, "axes.grid": True, "svg.fonttype": "path", "savefig.dpi": 300}
    ):
        assert chart_of_scores().svg == plain


def test_drawing_leaves_the_users_matplotlib_settings_alone():
    with matplotlib.rc_context({"font.size": 30}):
        chart_of_scores()
        assert matplotlib.rcParams["font.size"] == 30


def test_a_chart_carries_no_date_no_program_and_only_the_pages_colours():
    svg = chart_of_scores().svg
    assert "metadata" not in svg
    assert "atplotlib" not in svg
    assert "http" not in svg
    assert not re.findall(r"#[0-9a-f]{6}", svg)
    assert "var(--series-1)" in svg


def test_a_chart_holds_a_point_for_each_trial_and_the_mark():
    svg = str(chart_of_scores().svg)
    # matplotlib draws each point of a group as a <use> of one circle; a group of one it draws in place.
    circles = re.findall(r'<use href="#scores-1-C[^"]*" x="([0-9.]+)"', svg)
    assert len(circles) == 3
    x71, x73, x74 = map(float, circles)
    assert (x73 - x71) / (x74 - x73) == pytest.approx(2, rel=1e-4)
    assert re.findall(r"<text[^>]*>([^<]*)</text>", svg)[-1] == "+"


def test_a_dot_stands_in_its_row_with_its_interval_around_it():
    dots = [Dot(0, 10.0, 5.0, 20.0, 0), Dot(0, 15.0, math.nan, math.nan, 2), Dot(1, 40.0, 30.0, 40.0, 0)]
    svg = str(figures.dots(dots, ["first", "second"], "mm", "alt", "d").svg)
    spans = [
        tuple(map(float, pair))
        for pair in re.findall(r'd="M ([0-9.]+) [0-9.]+\s+L ([0-9.]+) [0-9.]+\s+" clip-path="[^"]*" style="[^"]*series-1', svg)
    ]  # fmt: skip
    assert len(spans) == 2  # no interval is drawn for the one that has none
    (low, high), (_, last) = spans
    assert (high - low) / (last - low) == pytest.approx(15 / 35, rel=1e-3)
    assert "series-3" in svg


def test_dots_of_nothing_known_are_drawn_all_the_same():
    assert "<svg" in figures.dots([], [], "mm", "alt", "d").svg


def test_an_interval_says_on_which_side_it_lies():
    assert [
        Figure(1, *ends).against(0) for ends in ((0.1, 2), (-2, -0.1), (-1, 1), (0, 2), (math.nan, 3))
    ] == [
        "above",
        "below",
        "not shown",
        "not shown",
        "not shown",
    ]


def test_curves_that_span_decades_get_plain_labels():
    chart = figures.curves([Curve([1.0, 0.1, 0.004])], "epoch", "loss", "alt", "name", log=True)
    labels = re.findall(r"<text[^>]*>([^<]*)</text>", chart.svg)
    assert "0.01" in labels
    assert not any("$" in label or "{" in label for label in labels)


@pytest.mark.parametrize("values", [[], [math.nan], [0.0, 0.0], [1.0], [math.nan, 0.5, math.inf]])
def test_curves_without_much_to_show_are_drawn_all_the_same(values):
    line = Curve(values, best=0 if values else None)
    assert not figures.spans_decades([line])
    assert (
        "<svg"
        in figures.curves([line], "epoch", "loss", "alt", "n", limits=figures.limits_of([line], False)).svg
    )


def test_scores_of_no_spread_and_of_nan_are_drawn():
    groups = [Group("same", [0.5, 0.5], 0.5, 0.0, ""), Group("none", [math.nan], math.nan, math.nan, "")]
    assert "<svg" in figures.scores(groups, [], "AUC", "alt", 1).svg


# -------------------------------------------------------------------------------- numbers and words


def test_numbers_are_written_as_published():
    assert percent(0.98456) == "98.46"
    assert percent(-0.0123) == "−1.23"
    assert percent(math.nan) == "–"
    assert [p_value(p) for p in (0.26, 0.0394, 0.001, 0.00099, 0.0, math.nan)] == [
        "0.260",
        "0.039",
        "0.001",
        "< 0.001",
        "< 0.001",
        "–",
    ]
    assert [whole_percent(share) for share in (0.382, -0.4, -0.001, math.nan)] == ["38", "−40", "0", "–"]
    assert figure(0.000123456) == "0.000123"
    assert math.isnan(number(""))


def test_counts_have_their_nouns():
    assert [many(count, "patient") for count in (0, 1, 1200)] == ["0 patients", "1 patient", "1,200 patients"]
    assert many(2, "patient stands", "patients stand") == "2 patients stand"


def test_a_long_name_keeps_its_end_where_series_uids_differ():
    assert short("1.3.6.1.4.1.14519.5.2.1.6279.6001.100225287222365663678666836860") == "…3678666836860"
    assert short("liver_12") == "liver_12"
    assert short("1.3.6.1.44.4519.0007") == "…44.4519.0007"  # no dot after the dots


def test_a_cut_character_is_shown_as_a_mark():
    assert text("Zoë".encode()[:3]) == "Zo\ufffd"


def test_values_of_a_card_are_said_in_words():
    assert said({"classification": 0.01, "channels_in": 1}) == "classification 0.01, channels in 1"
    assert said([16, 32, 32]) == "16 × 32 × 32"
    assert said(19073665) == "19,073,665"
    assert [said(value) for value in (None, True, -1000.0)] == ["–", "yes", "−1000"]


@given(st.integers(0, 500), st.integers(1, 50))
def test_evenly_spaced_places_rise_from_the_first_to_the_last(count, most):
    places = evenly(count, most)
    assert len(places) == min(count, most)
    assert places == sorted(set(places))
    if count:
        assert places[0] == 0
    if most > 1 and count:
        assert places[-1] == count - 1


# --------------------------------------------------------------------------------------- provenance


def git(folder: Path, *words: str) -> str:
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    return subprocess.run(
        ["git", *identity, *words], cwd=folder, check=True, capture_output=True, text=True
    ).stdout.strip()


def test_every_dependency_of_the_project_is_named_with_its_version():
    with open(REPOSITORY / "pyproject.toml", "rb") as file:
        wanted = tomllib.load(file)["project"]["dependencies"]
    names = {re.split(r"[<>=\[; ]", requirement)[0] for requirement in wanted}
    assert names == set(provenance.LIBRARIES)
    found = dict(provenance.versions())
    assert found["numpy"] == np.__version__
    assert next(iter(found)) == "Python"


def test_the_commit_is_that_of_the_project_and_edits_of_code_are_said(tmp_path):
    assert provenance.commit(tmp_path) is None
    git(tmp_path, "init", "-q")
    assert provenance.commit(tmp_path) is None  # nothing committed
    (tmp_path / "sg").mkdir()
    (tmp_path / "sg" / "a.py").write_text("x = 1\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "one")
    head = git(tmp_path, "rev-parse", "HEAD")
    assert provenance.commit(tmp_path) == head
    (tmp_path / "sg" / "a.py").write_text("x = 2\n")
    assert provenance.commit(tmp_path) == f"{head} with uncommitted edits of the code"


def test_a_project_inside_another_repository_is_not_given_its_commit(tmp_path):
    git(tmp_path, "init", "-q")
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "a").write_text("")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "one")
    assert provenance.commit(tmp_path / "project") is None


def test_without_git_there_is_no_commit_and_no_error(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert provenance.commit(REPOSITORY) is None
