"""Tables read back as they were written."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sg.cohorts.records import FindingRow, QuarantineRow, ScanRow, of_use, read_rows, write_rows
from sg.errors import InputError

ROW = ScanRow(
    scan="0123456789ab",
    patient="p, 1",
    source="luna16",
    layout="luna16",
    use=("pretrain", "ncc"),
    split="train",
    path='subset0/a "b".mhd',
    series="1.2.3",
    truth="",
    modality="CT",
    size=(512, 512, 133),
    spacing_mm=(0.703125, 0.703125, 2.5),
    orientation="LPS",
    bytes=123,
    sha256="0" * 64,
    truth_sha256="",
)


def test_scans_read_back_equal(tmp_path):
    write_rows(tmp_path / "scans.csv", ScanRow, [ROW, ROW])
    assert read_rows(tmp_path / "scans.csv", ScanRow) == [ROW, ROW]


@given(st.tuples(*[st.floats(allow_nan=False)] * 3), st.floats(allow_nan=False))
def test_positions_read_back_to_the_last_bit(tmp_path_factory, centre, diameter):
    path = tmp_path_factory.mktemp("t") / "findings.csv"
    row = FindingRow("s", "nodule", "nodule", centre, diameter, "a")
    write_rows(path, FindingRow, [row])
    assert read_rows(path, FindingRow) == [row]


def test_an_unknown_diameter_reads_back_as_nan(tmp_path):
    write_rows(
        tmp_path / "f.csv",
        FindingRow,
        [FindingRow("s", "candidate", "nodule", (1.0, 2.0, 3.0), math.nan, "a")],
    )
    assert math.isnan(read_rows(tmp_path / "f.csv", FindingRow)[0].diameter_mm)


def test_an_empty_table_is_a_header(tmp_path):
    write_rows(tmp_path / "q.csv", QuarantineRow, [])
    assert (tmp_path / "q.csv").read_text() == "path,source,rule,reason,scan\n"
    assert read_rows(tmp_path / "q.csv", QuarantineRow) == []


def test_other_columns_are_refused_in_words(tmp_path):
    write_rows(tmp_path / "q.csv", QuarantineRow, [])
    with pytest.raises(InputError, match=r"q\.csv: the columns must be .* run `dvc repro`"):
        read_rows(tmp_path / "q.csv", FindingRow)


def test_a_missing_table_is_said_in_words(tmp_path):
    with pytest.raises(InputError, match="there is no such file"):
        read_rows(tmp_path / "q.csv", FindingRow)


def test_scans_are_chosen_by_their_use():
    assert of_use([ROW], "ncc") == [ROW]
    assert of_use([ROW], "lcs") == []


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
def test_any_text_reads_back(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("t") / "quarantine.csv"
    row = QuarantineRow("a", "b", "c", text, "")
    write_rows(path, QuarantineRow, [row, QuarantineRow("a", "b", "c", "\r", "")])
    assert read_rows(path, QuarantineRow)[0] == row


def test_a_line_that_is_no_row_is_an_error_in_words(tmp_path):
    path = tmp_path / "quarantine.csv"
    path.write_text("path,source,rule,reason,scan\na,b\n")
    with pytest.raises(InputError, match=r"quarantine.csv: a line cannot be read .*dvc repro"):
        read_rows(path, QuarantineRow)
