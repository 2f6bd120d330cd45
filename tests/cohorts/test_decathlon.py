"""The Decathlon's layout: cases as dataset.json lists them, the liver's splits by number."""

import json

import pytest

from sg.cohorts.decathlon import list_decathlon, own_split
from sg.errors import InputError
from sg.params import Source


def source(*use):
    return Source(layout="decathlon", path="liver", use=list(use), leave_out=None, patients=None)


@pytest.fixture
def liver(tmp_path):
    folder = tmp_path / "liver"
    for part, numbers in (("imagesTr", (0, 7, 100)), ("labelsTr", (0, 7, 100)), ("imagesTs", (131, 132))):
        (folder / part).mkdir(parents=True)
        for number in numbers:
            (folder / part / f"liver_{number}.nii.gz").touch()
    write(
        tmp_path,
        training=[case(n) for n in (100, 0, 7)],
        test=[f"./imagesTs/liver_{n}.nii.gz" for n in (131, 132)],
    )
    return tmp_path


def case(number):
    return {"image": f"./imagesTr/liver_{number}.nii.gz", "label": f"./labelsTr/liver_{number}.nii.gz"}


def write(root, **tree):
    (root / "liver" / "dataset.json").write_text(json.dumps({"name": "Liver", **tree}))


def test_cases_are_patients_with_their_label_map_and_split(liver):
    entries = list_decathlon(liver, source("lcs"), 1).entries
    assert [(e.patient, e.split, str(e.path), str(e.truth)) for e in entries] == [
        ("liver_0", "train", "liver/imagesTr/liver_0.nii.gz", "liver/labelsTr/liver_0.nii.gz"),
        ("liver_100", "validation", "liver/imagesTr/liver_100.nii.gz", "liver/labelsTr/liver_100.nii.gz"),
        ("liver_7", "train", "liver/imagesTr/liver_7.nii.gz", "liver/labelsTr/liver_7.nii.gz"),
    ]


def test_the_liver_is_split_by_case_number_and_nothing_else_is():
    split = [own_split(f"liver_{n}") for n in (0, 99, 100, 114, 115, 129, 130)]
    assert split == ["train", "train", "validation", "validation", "test", "test", None]
    assert own_split("spleen_12") is own_split("liver_x") is None


def test_unlabelled_test_cases_serve_pre_training_only(liver):
    assert list_decathlon(liver, source("lcs"), 1).ignored["test case without labels"] == 2
    entries = list_decathlon(liver, source("lcs", "pretrain"), 1).entries
    unlabelled = [(e.patient, e.split) for e in entries if e.truth is None]
    assert unlabelled == [("liver_131", None), ("liver_132", None)]


def test_missing_files_are_set_aside_and_unnamed_ones_counted(liver):
    (liver / "liver" / "labelsTr" / "liver_7.nii.gz").unlink()
    (liver / "liver" / "imagesTr" / "liver_100.nii.gz").unlink()
    (liver / "liver" / "imagesTr" / "liver_55.nii.gz").touch()
    listing = list_decathlon(liver, source("lcs"), 1)
    assert [entry.patient for entry in listing.entries] == ["liver_0"]
    assert {(str(r.path), r.rule) for r in listing.refused} == {
        ("liver/imagesTr/liver_7.nii.gz", "missing-data-file"),
        ("liver/imagesTr/liver_100.nii.gz", "missing-data-file"),
    }
    assert any(
        "the label map ./labelsTr/liver_7.nii.gz, which is not there" in r.reason for r in listing.refused
    )
    assert listing.ignored["scan that dataset.json does not name"] == 1


@pytest.mark.parametrize("name", ["../x.nii.gz", "/etc/x.nii.gz"])
def test_a_name_outside_the_folder_is_set_aside(liver, name):
    write(liver, training=[{"image": name, "label": "./labelsTr/liver_0.nii.gz"}])
    listing = list_decathlon(liver, source("lcs"), 1)
    assert [r.rule for r in listing.refused] == ["outside-folder"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "must be JSON text"),
        ("[1]", "must have a list `training`"),
        ('{"training": {}}', "must have a list `training`"),
        ('{"training": ["a"]}', r"training[0] must name an `image` and a `label`, got \"a\""),
        ('{"training": [{"image": "a"}]}', "training[0] must name"),
        ('{"training": [], "test": [1]}', "`test` must be a list of images"),
        (json.dumps({"training": [case(1), case(1)]}), "twice"),
        ("[" * 100_000, "must be JSON text"),
    ],
)
def test_a_malformed_dataset_json_is_an_error(liver, content, words):
    (liver / "liver" / "dataset.json").write_text(content)
    with pytest.raises(InputError, match=r"dataset\.json") as caught:
        list_decathlon(liver, source("lcs"), 1)
    assert words.replace("\\", "") in str(caught.value)


def test_a_missing_dataset_json_is_an_error(liver):
    (liver / "liver" / "dataset.json").unlink()
    with pytest.raises(InputError, match="there is no such file"):
        list_decathlon(liver, source("lcs"), 1)


def test_a_list_of_cases_that_is_a_link_out_of_the_raw_folder_is_refused(liver, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside") / "dataset.json"
    path = liver / "liver" / "dataset.json"
    path.rename(outside)
    path.symlink_to(outside)
    with pytest.raises(InputError, match=r"dataset\.json: the file .* is a link that leads out"):
        list_decathlon(liver, source("lcs"), 1)


def test_dicom_is_no_part_of_this_layout_and_set_aside_unread_once_a_folder(liver):
    for name in ("1.dcm", "2.DCM"):
        (liver / "liver" / "more").mkdir(exist_ok=True)
        (liver / "liver" / "more" / name).write_bytes(b"no DICOM")
    (refused,) = list_decathlon(liver, source("lcs"), 1).refused
    assert (str(refused.path), refused.rule) == ("liver/more", "format")
    assert "2 DICOM files, which are no part of the layout decathlon" in refused.reason
