"""Damaged scans are refused: never a different scan where a length, a checksum or a second word exists, never a crash."""

import warnings
from itertools import count

import numpy as np
import pytest

from sg.formats.files import Stream
from sg.scans import read_scan
from tests.faults import scans
from tests.faults.formats import FORMATS, UNTOLD
from tests.faults.scans import Tally, damage, kinds, run, table, write

SAMPLE, TORTURE = 50, 2000
CHECKSUMS = [
    ".nii.gz",
    ".nii.gz stored",
    ".hdr.gz + .img.gz",
    ".mha zlib",
    ".mhd + .zraw",
    ".nrrd gzip",
    ".nhdr + .raw.gz",
]
BODY = ("body bit", "body bytes")


def check(name: str, tally: Tally, number: int) -> None:
    assert tally.failures == []
    assert tally.unnoticed == []
    assert sum(tally.outcomes.values()) == number
    assert not any(tally.outcomes[kind, "different"] for kind in kinds(FORMATS[name]))
    for kind in ("cut", "link out of the folder"):
        assert tally.outcomes[kind, "cannot be told"] == 0
        assert tally.outcomes[kind, "refused"] > 0
    if name in CHECKSUMS:
        assert not any(tally.outcomes[kind, "cannot be told"] for kind in BODY)


@pytest.mark.parametrize("name", FORMATS)
def test_of_fifty_damages_none_is_read_as_another_scan(name):
    check(name, run(name, SAMPLE), SAMPLE)


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_of_two_thousand_damages_none_is_read_as_another_scan(name):
    check(name, run(name, TORTURE, seed=1, workers=2), TORTURE)


@pytest.mark.parametrize("name", FORMATS)
def test_every_lie_of_a_format_changes_its_header(name, tmp_path):
    whole = write(FORMATS[name], tmp_path)
    path = next(iter(whole.contents))
    for lie, change in FORMATS[name].lies.items():
        assert change(whole.contents[path]) != whole.contents[path] or "compression" in lie, lie


# ------------------------------------------------------------------------------------------- the harness


def test_a_reader_that_does_not_look_at_checksums_is_found_out(monkeypatch):
    monkeypatch.setattr(Stream, "finish", lambda stream: None)
    tally = scans._batch(".nii.gz stored", 0, 60, 0)
    assert any("voxels differ" in failure for failure in tally.failures)


def test_a_reader_that_does_not_look_at_lengths_is_found_out(monkeypatch):
    def fill(stream, view):
        piece = stream._file.read(len(view))
        view[: len(piece)] = piece

    monkeypatch.setattr(Stream, "fill", fill)
    monkeypatch.setattr(Stream, "check_length", lambda stream, total: None)
    monkeypatch.setattr(Stream, "finish", lambda stream: None)
    tally = scans._batch(".mhd + .raw", 0, 60, 0)
    for kind in ("cut", "dropped block", "inserted block"):
        assert tally.outcomes[kind, "different"] > 0


@pytest.mark.parametrize("trouble", [lambda: 1 / 0, lambda: warnings.warn("odd", stacklevel=1)])
def test_a_warning_or_an_exception_that_is_no_refusal_is_found_out(monkeypatch, trouble):
    def troubled(place, root, limits):
        if next(calls):  # the first reads the whole scan
            trouble()
        return read_scan(place, root, limits)

    calls = count()
    monkeypatch.setattr(scans, "read_scan", troubled)
    tally = scans._batch(".mha", 0, 12, 0)
    assert (
        len(tally.failures) == sum(tally.outcomes[kind, "different"] for kind in kinds(FORMATS[".mha"])) == 12
    )
    assert all("Traceback" in failure for failure in tally.failures)


def test_damage_is_the_same_whenever_it_is_asked_for(tmp_path):
    whole = write(FORMATS[".mha"], tmp_path)
    for kind in kinds(FORMATS[".mha"]):
        once, again = (damage(kind, whole, np.random.default_rng(4)) for _ in range(2))
        assert once == again


def test_the_table_has_a_line_for_each_damage_of_a_format():
    tally = Tally()
    tally.outcomes["cut", "refused"] = 7
    lines = table({".nii": tally}).splitlines()
    assert lines[1].split() == [".nii", "cut", "0", "7", "0", "0"]
    assert lines[-1].split() == ["all", "0", "7", "0", "0"]


def test_each_field_that_cannot_be_told_has_its_reason():
    assert all(reason for fields in UNTOLD.values() for reason in fields.values())
    assert {format.family for format in FORMATS.values()} == set(UNTOLD)
