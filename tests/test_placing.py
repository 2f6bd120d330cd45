"""`sg embed`: any scan gets the vector that the pipeline would give it, or is refused with the reason."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file, save_file

from sg import paths
from sg.errors import InputError
from sg.placing import place, place_one, read_embedder, table
from sg.stage import load
from tests.scan_files import ct, write_itk, write_nifti
from tests.test_cli import sg, write_hollow


def _card(**wrong) -> bytes:
    card = {"thumbnail_shape": [1, 1, 1], "hu_min": 0.0, "hu_max": 1.0, "width": 2, "depth": 2}
    return json.dumps({**card, **wrong}).encode()


@pytest.fixture
def study(placed, monkeypatch) -> Path:
    """The root of the study, as working directory; its files not to be changed."""
    monkeypatch.chdir(placed.root)
    return placed.root


@pytest.fixture
def copy(placed, tmp_path, monkeypatch) -> Path:
    """A copy of what the command reads, to be changed."""
    for name in (paths.EMBED, paths.COHORT):
        shutil.copytree(placed.root / name, tmp_path / name)
    shutil.copy(placed.root / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def recorded(root: Path) -> dict[str, np.ndarray]:
    with h5py.File(root / paths.EMBEDDINGS) as file:
        return {
            scan.decode(): vector for scan, vector in zip(file["scan"], file["vectors"][...], strict=True)
        }


def read_back(text: str) -> list[tuple[dict[str, str], np.ndarray]]:
    rows = list(csv.DictReader(io.StringIO(text)))
    return [(row, np.array([row[key] for key in row if key[1:].isdigit()], np.float32)) for row in rows]


def test_every_scan_of_the_cohort_gets_the_vector_that_the_pipeline_gave_it_bit_by_bit(study):
    embedder = read_embedder(load())
    tally, found = place([Path("scans")], embedder, 2)
    rows = read_back(table(found, embedder.model.channels))
    assert (tally.placed, tally.refused, tally.warnings) == (7, [], [])
    known = recorded(study)
    assert {row["scan"] for row, _ in rows} == set(known)
    for row, vector in rows:
        assert vector.tobytes() == known[row["scan"]].tobytes(), row["path"]
        assert row["split"] in ("train", "validation", "test")
    assert [row["path"] for row, _ in rows] == sorted(row["path"] for row, _ in rows)
    (series,) = (row for row, _ in rows if row["path"] == "scans/series")
    assert series["patient"] == "P6"
    assert series["series"].startswith("2.25.") or series["series"].startswith("1.")
    assert {row["series"] for row, _ in rows if row is not series} == {""}


def test_the_same_voxels_in_another_format_and_order_get_the_same_vector(study, tmp_path):
    """As MetaImage with reversed axes: another file, hence no scan of the cohort, but the same picture."""
    voxels = ct(0, (24, 32, 32))
    voxels[:, 0:8] = 900
    turned = write_itk(
        tmp_path / "turned.mha", np.ascontiguousarray(voxels[:, ::-1, ::-1]), direction=np.diag([-1, -1, 1])
    )
    embedder = read_embedder(load())
    _, one = place_one(turned, embedder, 1)
    _, other = place_one(Path("scans/0.nii.gz"), embedder, 1)
    assert one.split == ""
    assert other.split
    np.testing.assert_array_equal(one.thumbnail.image, other.thumbnail.image)
    np.testing.assert_array_equal(one.vector, other.vector)
    np.testing.assert_allclose(
        one.thumbnail.extent_mm, (120, 95, 130)
    )  # 24 x 5, 32 x 3, 32 x 4 mm on a grid of 5 mm


def test_one_scan_is_asked_for_and_several_or_none_are_said(study, tmp_path):
    embedder = read_embedder(load())
    with pytest.raises(
        InputError, match=r"scans: must hold one scan, it holds scans/0\.nii\.gz and scans/1\.nii\.gz"
    ):
        place_one(Path("scans"), embedder, 1)
    with pytest.raises(InputError, match=r"nowhere\.nii: there is no such file or folder"):
        place_one(Path("nowhere.nii"), embedder, 1)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="there is no scan here"):
        place_one(tmp_path / "empty", embedder, 1)


def test_without_a_trained_auto_encoder_the_stage_to_run_is_named(placed, tmp_path, monkeypatch):
    shutil.copy(placed.root / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="there is no trained auto-encoder here yet; run `dvc repro embed`"):
        read_embedder(load())


@pytest.mark.parametrize("told_by", ["card", "dvc.lock"])
def test_parameters_that_changed_since_are_refused(copy, told_by):
    study = yaml.safe_load(Path("params.yaml").read_text())
    if told_by == "card":
        study["resample"]["hu_max"] = 900.0
    else:  # the card does not know the spacing
        made_with = {
            "stages": {"resample": {"params": {"params.yaml": {"resample": dict(study["resample"])}}}}
        }
        Path("dvc.lock").write_text(yaml.safe_dump(made_with))
        read_embedder(load())
        study["resample"]["spacing_mm"] = [4.0, 4.0, 4.0]
    Path("params.yaml").write_text(yaml.safe_dump(study))
    with pytest.raises(InputError, match="resample is another than data/embed was made with"):
        read_embedder(load())


def test_a_scan_whose_recorded_vector_is_another_is_a_warning(copy, placed):
    with h5py.File(paths.EMBEDDINGS, "r+") as file:
        file["vectors"][...] = file["vectors"][...] * 1.01
    tally, one = place_one(placed.root / "scans" / "0.nii.gz", read_embedder(load()), 1)
    assert one is not None
    (warning,) = tally.warnings
    assert "has another vector for this very scan" in warning


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("card.json", b"{}", "is no card of an auto-encoder"),
        ("card.json", _card(width=99999), "no card of an auto-encoder .*width .*less than or equal to 64"),
        ("card.json", _card(depth=12), "no card of an auto-encoder .*depth .*less than or equal to 6"),
        ("card.json", b"{", "not a JSON file"),
        ("autoencoder.safetensors", b"no tensors", "not a whole safetensors file"),
        ("embeddings.h5", b"no HDF5", "not an HDF5 file"),
    ],
)
def test_damaged_files_of_the_embedding_are_named(copy, name, content, words):
    (paths.EMBED / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"{name}: .*{words}"):
        read_embedder(load())


def test_an_auto_encoder_or_vectors_that_are_not_finite_place_nobody(copy):
    weights = paths.EMBED / "autoencoder.safetensors"
    stored = load_file(weights)
    broken = {
        **stored,
        "encoder.levels.0.first.conv.weight": stored["encoder.levels.0.first.conv.weight"] * np.nan,
    }
    save_file(broken, weights)
    with pytest.raises(
        InputError, match=r"safetensors: weights must be finite, those of encoder\.levels\.0\.first"
    ):
        read_embedder(load())
    save_file(stored, weights)
    read_embedder(load())
    with h5py.File(paths.EMBEDDINGS, "r+") as file:
        file["vectors"][2, 3] = np.nan
    with pytest.raises(InputError, match=r"embeddings\.h5: embeddings must be finite, those of 1 of 7 scans"):
        read_embedder(load())


def test_finite_weights_that_give_no_finite_vector_are_refused_with_the_scan(copy, placed):
    weights = paths.EMBED / "autoencoder.safetensors"
    save_file(
        {name: values * 1e30 if values.ndim == 5 else values for name, values in load_file(weights).items()},
        weights,
    )
    with pytest.raises(InputError, match=r"0\.nii\.gz: its vector must be finite"):
        place_one(placed.root / "scans" / "0.nii.gz", read_embedder(load()), 1)


def test_vectors_of_another_network_are_refused_with_both_widths(copy):
    with h5py.File(paths.EMBEDDINGS, "r+") as file:
        fewer = file["vectors"][:, :5]
        del file["vectors"]
        file["vectors"] = fewer
    with pytest.raises(InputError, match=r"embeddings\.h5: vectors must have 32 numbers, .* got 5"):
        read_embedder(load())


def test_files_that_hold_no_scan_are_counted_and_alone_an_error(placed, tmp_path):
    (tmp_path / "empty").mkdir()
    done = sg("embed", tmp_path / "empty", cwd=placed.root)
    assert (done.returncode, done.stdout) == (2, "")
    assert "empty: there is no scan here" in done.stderr
    scans = tmp_path / "mine"
    write_nifti(scans / "new.nii.gz", ct(9, (24, 32, 32)))
    (scans / "notes.md").write_text("seen on Monday")
    done = sg("embed", scans, cwd=placed.root)
    assert done.returncode == 0
    assert done.stderr.endswith("1 embedded, 0 refused, 1 other files ignored (md 1)\n")


def test_the_command_writes_a_table_and_says_what_it_refused(placed, tmp_path):
    scans = tmp_path / "mine"
    write_nifti(scans / "new.nii.gz", ct(9, (24, 32, 32)))
    write_nifti(scans / "thin.nii", ct(9, (3, 24, 20)))
    (scans / "cut.nii.gz").write_bytes((scans / "new.nii.gz").read_bytes()[:-2000])
    output = tmp_path / "vectors.csv"
    done = sg("embed", scans, "--output", output, cwd=placed.root)
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    ((row, vector),) = read_back(output.read_text())
    assert (row["path"], row["patient"], row["series"], row["split"]) == (
        str(scans / "new.nii.gz"),
        "new",
        "",
        "",
    )
    assert vector.shape == (32,)
    assert "cut.nii.gz: truncated: " in done.stderr
    assert "thin.nii: too-small: " in done.stderr
    assert done.stderr.endswith("1 embedded, 2 refused\n")
    done = sg("embed", scans, "--output", output, cwd=placed.root)
    assert done.returncode == 2
    assert "vectors.csv: is there already" in done.stderr
    done = sg("embed", scans / "new.nii.gz", cwd=placed.root)
    assert (done.returncode, done.stdout) == (0, output.read_text())


def test_a_hostile_size_costs_a_refusal_only(study, tmp_path):
    write_hollow(tmp_path / "huge.nii", (32000, 32000, 3000))
    tally, found = place_one(tmp_path / "huge.nii", read_embedder(load()), 1)
    assert found is None
    assert [refusal.rule for _, refusal in tally.refused] == ["too-large"]
