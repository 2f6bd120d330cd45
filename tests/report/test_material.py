"""The section on the scans says what a folder gave: what was refused and why, who is a twin, who may be used for what."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import pytest

from sg import paths
from sg.cohorts.records import QuarantineRow, ScanRow, TwinRow, read_rows, write_rows
from sg.errors import InputError
from sg.report import material
from sg.report.page import contents, render
from sg.report.pictures import Picture
from sg.report.refusals import MEANINGS, refusals
from sg.report.tables import correlation, visible
from sg.roles import RoleRow
from tests.report.conftest import REPOSITORY, Made, scan_row, write_json
from tests.report.reading import Page


@pytest.fixture(scope="module")
def others(made):
    """What the page shows in its other sections."""
    return contents(made.root, made.study, [("Python", "3.11")], None)


@pytest.fixture
def shown(others):
    """Reads a study's page, whose other sections are those of the usual study."""

    def page(made: Made) -> Page:
        return Page(render(others | {"material": material.material(made.root, made.study)}))

    return page


def words(page: Page) -> str:
    return " ".join(page.text.split())


def rows_of(page: Page, table: str) -> list[list[str]]:
    """The rows of a table under its header, without the white space between its cells."""
    return [[" ".join(cell.split()) for cell in row] for row in page.tables[table][1:]]


@pytest.fixture(scope="module")
def html(others):
    return render(others)


@pytest.fixture(scope="module")
def page(html):
    return Page(html)


# ------------------------------------------------------------------------------------------- sources


def test_each_source_says_what_it_gave_and_the_last_line_all_of_them(page):
    luna = ["19", "19", "4", "2", "8", "4", "5", "4 × 5", "64–72 × 56"]
    assert rows_of(page, "sources") == [
        ["lidc (synthetic)", "folder", "pretrain", *["0"] * 7, "–", "–"],
        ["liver (synthetic)", "decathlon", "lcs", *["0"] * 7, "–", "–"],
        ["luna16 (synthetic)", "luna16", "pretrain, ncc", *luna],
        ["all", "", "", *luna],
    ]


def test_a_scan_that_could_not_be_resampled_is_read_but_not_usable(copied, shown):
    scans = read_rows(copied.root / paths.SCANS, ScanRow)
    extra = scan_row(77, "train", "P{}")
    write_rows(copied.root / paths.SCANS, ScanRow, [*scans, extra])
    lost = QuarantineRow(extra.path, extra.source, "too-small", "After resampling it is thin.", extra.scan)
    write_rows(copied.root / paths.RESAMPLED_QUARANTINE, QuarantineRow, [lost])
    page = shown(copied)
    assert rows_of(page, "sources")[-1][3:6] == ["20", "19", "5"]
    assert "resampling" in page.text


def test_sets_without_validation_or_test_patients_have_a_page(make_study, shown):
    page = shown(make_study(tasks=(), splits=["train"] * 10))
    assert rows_of(page, "sources")[-1][7:10] == ["8", "0", "0"]
    assert rows_of(page, "roles")[-1] == ["all patients", "", "8", "0", "0", ""]
    assert "Nobody is tested on in this study." in words(page)


# ------------------------------------------------------------------------------------------- refusals


def raised_rules() -> set[str]:
    """The rules that the code of sg writes down in a Refusal or Refused."""
    places = {"Refusal": 0, "Refused": 1}
    rules = set()
    for path in (REPOSITORY / "sg").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in places:
                named = node.args[places[node.func.id] :][:1]
                rules |= {part.value for arg in named for part in ast.walk(arg) if _is_text(part)}
    return rules


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def test_every_rule_of_the_code_is_explained():
    rules = raised_rules()
    assert {"truncated", "format", "duplicate", "link"} <= rules
    assert rules - set(MEANINGS) == set()


def test_meanings_are_sentences():
    assert all(text[0].isupper() and text.endswith(".") for text in MEANINGS.values())


def test_rules_are_counted_and_explained(page):
    assert rows_of(page, "rules") == [
        [rule, "1", MEANINGS[rule]] for rule in ("duplicate", "not-finite", "spacing", "truncated")
    ]


def write_refusals(made: Made, rules: Sequence[tuple[str, str]]) -> None:
    """Refusals by (source, rule)."""
    rows = [
        QuarantineRow(f"{source}/{number}.nii", source, rule, f"Reason {number}.", "")
        for number, (source, rule) in enumerate(rules)
    ]
    write_rows(made.root / paths.QUARANTINE, QuarantineRow, rows)


def test_with_several_sources_rules_are_counted_by_each_and_an_unknown_rule_is_shown_as_it_is(copied, shown):
    write_refusals(
        copied, [("liver", "header"), ("luna16", "header"), ("luna16", "header"), ("liver", "odd-one")]
    )
    page = shown(copied)
    assert [cell.strip() for cell in page.tables["rules"][0]] == [
        "Rule",
        "liver",
        "luna16",
        "all",
        "What it means",
    ]
    assert rows_of(page, "rules") == [
        ["header", "1", "2", "3", MEANINGS["header"]],
        ["odd-one", "1", "–", "1", "–"],
    ]


def test_a_rare_rule_is_not_lost_among_thousands_of_others(copied, shown):
    write_refusals(copied, [("luna16", "format")] * 5000 + [("luna16", "slices")] * 2)
    found = refusals(copied.root, ["luna16"])
    assert found["count"] == 5002
    assert found["left_out"] == 4802
    assert [row.rule for _, row in found["shown"]] == ["format"] * 198 + ["slices"] * 2
    assert [row.reason for _, row in found["shown"][:2]] == ["Reason 0.", "Reason 1."]
    assert "And 4,802 more rows in data/cohort/quarantine.csv" in words(shown(copied))


def test_without_refusals_it_says_so(make_study, shown):
    page = shown(make_study(refusals=0))
    assert "Nothing was set aside" in page.text
    assert "rules" not in page.tables


def test_files_that_are_no_scans_are_counted_by_kind_the_commonest_first(copied, shown):
    write_json(
        copied.root / paths.COHORT_SUMMARY,
        {
            "by_source": {
                "luna16": {"ignored": {"DICOM localizer": 2, "txt": 3}},
                "liver": {"ignored": {"txt": 4}},
            }
        },
    )
    page = shown(copied)
    assert "Not taken for scans: 9 files" in page.text
    assert rows_of(page, "ignored") == [["txt", "4", "3", "7"], ["DICOM localizer", "–", "2", "2"]]


def test_of_very_many_kinds_and_warnings_some_are_shown_and_the_others_counted(copied, shown):
    write_json(
        copied.root / paths.COHORT_SUMMARY,
        {
            "by_source": {"luna16": {"ignored": {f"kind {n}": 1 for n in range(100)}}},
            "warnings": [f"warning {n}" for n in range(1000)],
        },
    )
    page = shown(copied)
    assert "And 70 rarer kinds" in page.text
    assert len(page.tables["ignored"]) == 31
    others = len(material.warnings(copied.root, copied.study)) - 1000
    assert f"Warnings and notes of the stages: {1000 + others:,}" in page.text
    assert page.text.count("warning ") == 200


# --------------------------------------------------------------------------------------------- twins


def test_twins_are_counted_explained_and_shown_side_by_side_with_the_doubtful_first(html, page):
    text = words(page)
    assert "Twins: 2 pairs of scans that show one patient" in text
    assert "3 scans of 1 patient: 1 pair has equal voxels" in text
    assert "1 pair has thumbnails that correlate by more than 0.99" in text
    assert "In 1 pair the two had different names of a patient." in text
    assert (
        "Each pair was made one patient before the splits were decided, so that none stands on both" in text
    )
    patient = "1.3.6.1.4.1.14519.0000"
    assert rows_of(page, "twins") == [
        ["", "alike thumbnailsr = 0.9934", "luna16/subset0/0.mhd luna16luna16/subset0/2.mhd luna16", patient, "the same"],
        ["", "equal voxelsr = 1.0000", "luna16/subset0/0.mhd luna16luna16/subset0/1.mhd luna16",
         patient, f"{patient} and {patient}-copy"],
    ]  # fmt: skip
    table = html.split('id="twins"')[1].split("</table>")[0]
    assert table.count("<img") == 4
    assert table.count("middle coronal slice") == 4


def write_twins(made: Made, pairs: Sequence[TwinRow]) -> None:
    write_rows(made.root / paths.TWINS, TwinRow, pairs)


def test_of_many_pairs_the_least_alike_are_shown_and_the_others_counted(copied, shown):
    first, second, *_ = read_rows(copied.root / paths.SCANS, ScanRow)
    write_twins(
        copied,
        [TwinRow(first.scan, second.scan, "thumbnail", 0.99 + n / 20000, "P", "") for n in range(120)][::-1],
    )
    page = shown(copied)
    assert "Twins: 120 pairs" in page.text
    assert "And 70 more pairs in data/cohort/twins.csv" in words(page)
    assert [row[1][-6:] for row in rows_of(page, "twins")][:3] == ["0.9900", "0.9900", "0.9901"]
    assert len(rows_of(page, "twins")) == 50


def test_a_pair_on_two_sides_of_a_split_is_said_aloud(copied, shown):
    scans = read_rows(copied.root / paths.SCANS, ScanRow)
    train, test = (next(row for row in scans if row.split == split) for split in ("train", "test"))
    write_twins(copied, [TwinRow(train.scan, test.scan, "thumbnail", 0.995, "P", "P and Q")])
    text = words(shown(copied))
    assert (
        f"1 pair stands on two sides of a split all the same, so the scores are too good: {train.scan}"
        in text
    )
    assert "both sides of a split (checked here)" not in text


def test_a_twin_that_was_not_resampled_has_no_picture_and_no_error(copied, shown):
    scans = read_rows(copied.root / paths.SCANS, ScanRow)
    lost = scan_row(77, "train", "P{}")
    write_rows(copied.root / paths.SCANS, ScanRow, [*scans, lost])
    write_twins(copied, [TwinRow(lost.scan, "f" * 12, "thumbnail", float("nan"), "P", "")])
    [row] = rows_of(shown(copied), "twins")
    assert row[0] == "not usablenot usable"
    assert row[1].endswith("r = –")
    assert row[2] == f"{lost.path} luna16{'f' * 12} not in scans.csv"


def test_without_twins_it_says_what_was_looked_for(copied, shown):
    write_twins(copied, [])
    text = words(shown(copied))
    assert "Twins: 0 pairs" in text
    assert "No two scans have equal voxels, or thumbnails that correlate by more than 0.99." in text


def test_only_equal_thumbnails_are_said_to_correlate_by_1():
    assert [correlation(value) for value in (1.0, 0.99996, 0.9993, 0.99)] == [
        "1.0000",
        "0.9999",
        "0.9993",
        "0.9900",
    ]


# --------------------------------------------------------------------------------------------- roles


def test_patients_are_counted_by_role_use_and_split(page):
    assert [row[:5] for row in rows_of(page, "roles")] == [
        ["embed", "", "8", "4", "5"],
        ["neighbours", "", "8", "–", "–"],
        ["pre-train", "", "8", "–", "–"],
        ["early stopping", "ncc", "–", "4", "–"],
        ["early stopping", "pretrain", "–", "4", "–"],
        ["fine-tune", "ncc", "8", "–", "–"],
        ["test", "ncc", "–", "–", "5"],
        ["all patients", "", "8", "4", "5"],
    ]
    assert "Of the 5 who are tested on none has a part in learning or stopping" in words(page)


def test_a_patient_who_is_learned_from_and_tested_on_is_said_aloud(copied, shown):
    rows = read_rows(copied.root / paths.ROLES, RoleRow)
    spoilt = [replace(row, pretrain="yes") if row.test else row for row in rows]
    write_rows(copied.root / paths.ROLES, RoleRow, spoilt)
    text = words(shown(copied))
    assert "5 patients are both learned from and tested on, so the scores are too good: 1.3.6." in text
    assert "none has a part in learning" not in text


@pytest.mark.parametrize("table", [paths.TWINS, paths.ROLES])
def test_a_missing_table_is_named(copied, table, shown):
    (copied.root / table).unlink()
    with pytest.raises(InputError, match=rf"{table.name}: there is no such file; run `dvc repro` to make it"):
        shown(copied)


# ------------------------------------------------------------------------------------------- gallery


def test_every_usable_scan_is_shown_with_what_it_is(html, page):
    cards = html.split('<figure class="card scan">')[1:]
    assert len(cards) == 19
    assert all(card.split("</figure>")[0].count("<img") == 2 for card in cards)
    text = words(page)
    assert (
        "1.3.6.1.4.1.14519.0004 luna16, train 72 × 64 × 56 voxels 4 × 4 × 5 mm luna16/subset0/4.mhd" in text
    )
    assert "1.3.6.1.4.1.14519.0000 luna16, train, has a twin" in text
    assert "All 19 usable scans, by source and patient." in text


class Drawn:
    """Thumbnails of any scans, without files."""

    def __init__(self, scans: Sequence[ScanRow]) -> None:
        self.rows = {row.scan: number for number, row in enumerate(scans)}

    def pictures(self, scan: str) -> tuple[Picture, Picture]:
        return (Picture("data:,", scan, 1.0),) * 2


def test_of_a_large_cohort_the_gallery_is_an_even_sample():
    scans = [scan_row(number, "train", "P{:05d}") for number in range(3, 1000)]
    gallery = material._gallery(scans, [], Drawn(scans[1:]))
    assert gallery["usable"] == 996
    numbers = [int(card["row"].patient[1:]) for card in gallery["shown"]]
    assert len(numbers) == 48
    assert (numbers[0], numbers[-1]) == (4, 999)
    assert {later - number for number, later in pairwise(numbers)} <= {21, 22}


def test_the_scans_of_a_dicom_series_show_its_uid(copied, shown):
    scans = read_rows(copied.root / paths.SCANS, ScanRow)
    uid = "1.3.6.1.4.1.14519.5.2.1.6279.6001.179049373636438705059720603192"
    write_rows(copied.root / paths.SCANS, ScanRow, [replace(row, series=uid) for row in scans])
    page = shown(copied)
    assert words(page).count("series …5059720603192") == 19
    assert {"class": "path", "title": uid} in page.named("span")


# ------------------------------------------------------------------------------------------- hostile

HOSTILE = '</td><script>alert("x")</script>&amp;{{ 7*7 }}\u202eevil\x07\x1b[31m'


def test_hostile_texts_are_shown_as_they_are_in_every_table(copied, shown):
    root = copied.root
    scans = [
        replace(row, patient=HOSTILE, path=f"{HOSTILE}/{row.path}", series=HOSTILE)
        for row in read_rows(root / paths.SCANS, ScanRow)
    ]
    write_rows(root / paths.SCANS, ScanRow, scans)
    write_twins(
        copied,
        [
            TwinRow(scans[0].scan, scans[1].scan, HOSTILE, 0.99, HOSTILE, HOSTILE),
            TwinRow(HOSTILE, scans[2].scan, "thumbnail", 0.99, "P", ""),
        ],
    )
    write_rows(root / paths.QUARANTINE, QuarantineRow, [QuarantineRow(*[HOSTILE] * 5)])
    write_rows(root / paths.ROLES, RoleRow, [RoleRow(HOSTILE, *["yes"] * 4, ("a",), (), ("<i>",))])
    write_json(
        root / paths.COHORT_SUMMARY,
        {"by_source": {HOSTILE: {"ignored": {HOSTILE: 1}}, "luna16": {"ignored": {HOSTILE: 1}}}},
    )
    page = shown(copied)
    assert not page.named("script")
    assert not {c for c in page.text if c in "\u202e\x07\x1b"}
    assert page.text.count('<script>alert("x")</script>&amp;{{ 7*7 }}\\u202eevil\\x07\\x1b[31m') > 50
    assert "<i>" in page.text


def test_control_and_direction_characters_are_spelled_out_and_others_kept():
    assert visible("a\x00b\u202ec\ud800") == "a\\x00b\\u202ec\\ud800"
    kept = "Zoë – 1\u202f204 µm\n肺 «x»\u00a0"
    assert visible(kept) == kept


def test_a_long_path_can_be_broken_after_each_folder(copied, shown):
    scans = read_rows(copied.root / paths.SCANS, ScanRow)
    long = "/".join(["a-folder-that-somebody-named"] * 10) + "/x.nii.gz"
    write_rows(copied.root / paths.SCANS, ScanRow, [replace(scans[0], path=long), *scans[1:]])
    page = shown(copied)
    assert long in page.text
    assert len(page.named("wbr")) > 10
