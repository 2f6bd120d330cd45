"""`sg patches show`: the right patches in the right places, in the window that is stated."""

from __future__ import annotations

import io
from contextlib import suppress

import numpy as np
import pytest
from PIL import Image

from sg.errors import InputError
from sg.gallery import CROPS, show
from sg.outputs import check_free, whole
from sg.patches import PatchCache
from sg.report.pictures import WINDOW_HU, gray
from sg.sheets import Cell, Row, draw, short
from tests.test_cli import sg
from tests.test_soundness import COUNT, SIZE, rows, write


@pytest.fixture
def drawn(monkeypatch):
    """What is drawn, as rows of the sheet and its note, instead of a picture."""
    sheets = []
    monkeypatch.setattr("sg.gallery.draw", lambda rows, note, path: sheets.append((rows, note)))
    return sheets


def test_a_row_is_a_pattern_with_its_reference_first_and_then_evenly_spaced_ranks(tmp_path, drawn):
    table = rows(12)
    table["pattern"], table["split"] = [1] * 8 + [0] * 4, b"train"
    table["rank"] = [7, 6, 5, 4, 3, 2, 1, 0, 0, 1, 2, 3]
    table["split"][11], table["resolution"][9] = b"validation", 1
    patches = np.full((12, *SIZE), -500, np.int16) + np.arange(12, dtype=np.int16)[:, None, None, None]
    said = show(PatchCache(write(tmp_path / "c.h5", table, patches, patterns=2)), 5, 4, tmp_path / "p.png")
    assert said == "all 2 patterns, 6 of 12 patches"
    ((shown, note),) = drawn
    assert [row.title for row in shown] == ["Pattern 0", "Pattern 1"]
    assert [[cell.title for cell in row.cells] for row in shown] == [
        ["reference", "no. 2"],
        ["reference", "no. 2", "no. 5", "no. 7"],
    ]
    assert [[int(cell.hu[0, 0]) for cell in row.cells] for row in shown] == [
        [-492, -490],
        [-493, -495, -498, -500],
    ]
    assert [cell.marked for cell in shown[1].cells] == [True, False, False, False]
    assert "Window −1000 to 400 HU" in note
    assert "4 × 8 × 8 voxels (z × y × x)" in note


def test_the_middle_slice_is_shown(tmp_path, drawn):
    patches = np.zeros((COUNT, *SIZE), np.int16)
    patches[:, 2] = np.arange(64).reshape(8, 8)
    show(PatchCache(write(tmp_path / "c.h5", patches=patches)), 1, 1, tmp_path / "p.png")
    np.testing.assert_array_equal(drawn[0][0][0].cells[0].hu, np.arange(64).reshape(8, 8))


def test_random_sub_volumes_have_a_row_for_a_scan_and_say_where_they_lie(tmp_path, drawn):
    table = rows(8, **{key: dict.fromkeys(range(8), -1) for key in ("pattern", "rank")})
    table["scan"], table["split"] = [b"a" * 12] * 4 + [b"b" * 12] * 4, b"train"
    said = show(PatchCache(write(tmp_path / "c.h5", table, patterns=0)), 1, 2, tmp_path / "p.png")
    assert said == "the first 1 of 2 scans, 2 of 8 patches"
    ((shown, note),) = drawn
    assert [cell.title for cell in shown[0].cells] == ["z, y, x 0, 0, 0", "z, y, x 3, 3, 3"]
    assert note.startswith("The first 1 of 2 scans.")


def test_what_cannot_be_drawn_is_an_input_error(tmp_path):
    cache = PatchCache(write(tmp_path / "c.h5"))
    with pytest.raises(InputError, match=f"1 to {CROPS} crops in each, got 3 and 0"):
        show(cache, 3, 0, tmp_path / "p.png")
    stopping = PatchCache(write(tmp_path / "v.h5", rows(split=dict.fromkeys(range(COUNT), b"validation"))))
    with pytest.raises(InputError, match="unjittered patches of training patients, got none"):
        show(stopping, 3, 3, tmp_path / "p.png")


def test_a_cache_whose_range_is_no_range_is_not_drawn(tmp_path, drawn):
    with pytest.raises(
        InputError, match=r"c\.h5: hu_min must be less than hu_max, both finite, got nan and 1000"
    ):
        show(PatchCache(write(tmp_path / "c.h5", hu=(np.nan, 1000))), 3, 3, tmp_path / "p.png")
    assert not drawn


def test_a_sheet_holds_the_levels_of_every_slice_and_any_name(tmp_path):
    ramp = np.linspace(*WINDOW_HU, 64).reshape(8, 8)
    cells = [
        Cell(ramp[:4], (2, 1), "reference", "$no$ \x1b formula", True),
        Cell(ramp[4:], (2, 1), "no. 1", "名"),
    ]
    draw([Row("Pattern 0", ["p", "q"], cells), Row("Pattern 1", [], cells[:1])], "note", tmp_path / "p.png")
    with Image.open(tmp_path / "p.png") as image:
        colours = np.asarray(image.convert("RGB")).reshape(-1, 3)
    grays = colours[(colours == colours[:, :1]).all(axis=1), 0]
    level, count = np.unique(grays, return_counts=True)
    drawn = dict(zip(level.tolist(), count.tolist(), strict=True))
    in_both, in_one = drawn[int(gray(ramp)[1, 3])], drawn[int(gray(ramp)[5, 3])]
    assert set(gray(ramp).ravel().tolist()) <= set(drawn)
    assert in_both == pytest.approx(2 * in_one, rel=0.1)


def test_equal_caches_give_equal_bytes(tmp_path):
    cache = PatchCache(write(tmp_path / "c.h5"))
    for name in "ab":
        show(cache, 2, 3, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_long_name_loses_its_middle_and_what_cannot_be_shown():
    assert short("1.2.840.113619.2.55", 9) == "1.2.…2.55"
    assert short("a\nb", 9) == "a\\nb"


def test_the_command_draws_and_never_over_what_is_there_unasked(tmp_path):
    write(tmp_path / "c.h5")
    done = sg("patches", "show", "c.h5", "--patterns", 3, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "c.png: the first 3 of 14 patterns, 6 of 40 patches\n"
    with Image.open(io.BytesIO((tmp_path / "c.png").read_bytes())) as image:
        assert image.format == "PNG"
    (tmp_path / "c.png").write_text("mine")
    done = sg("patches", "show", "c.h5", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "c.png: is there already; give another name, or --force to replace it\n"
    assert (tmp_path / "c.png").read_text() == "mine"
    done = sg("patches", "show", "none.h5", "--output", "d.png", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (
        2,
        "none.h5: there is no such file; name one that is there\n",
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.h5", "c.png"]


def test_an_output_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "out"
    with suppress(KeyboardInterrupt), whole(path, False) as aside:
        aside.write_text("half")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    with whole(path, False) as aside:
        aside.write_text("whole")
    assert path.read_text() == "whole"
    with pytest.raises(InputError, match="is there already"), whole(path, False):
        pass
    with pytest.raises(InputError, match="there is no folder"):
        check_free(tmp_path / "no" / "out", True)
    with pytest.raises(InputError, match="is a folder"):
        check_free(tmp_path, True)
