from __future__ import annotations

import csv
import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from safetensors.numpy import load_file

from sg import logs, paths
from sg.cohorts.records import write_rows
from sg.embedding import Learned, Thumbnails, embed, learn_embedding
from sg.errors import InputError
from sg.networks.autoencoder import AutoEncoder
from sg.params import Embed, Training
from sg.roles import RoleRow, Roles, decide_roles
from sg.storage import create_h5, fixed_texts, open_h5, write_array
from tests.hand_made import scan_row
from tests.networks.sizes import seeded

SPLITS = ["train", "test", "train", "validation", "train", "train", "validation", "train", "test"]
SETTINGS = Embed(
    width=2,
    depth=2,
    training=Training(
        epochs=2,
        batch=2,
        learning_rate=0.01,
        step_epochs=5,
        patience=5,
        threads=1,
        accelerator="cpu",
        precision="32-true",
    ),
)


def images(count: int = len(SPLITS)) -> np.ndarray:
    return np.random.default_rng(1).integers(-1000, 1001, (count, 4, 8, 8)).astype(np.int16)


def write(path: Path, thumbnails: np.ndarray, splits: list[str], pretrain: np.ndarray | None = None) -> Path:
    """thumbnails.h5 as `resample` writes it; scan i has the name i in hexadecimal."""
    with create_h5(path) as file:
        write_array(file, "thumbnails", thumbnails, chunks=(1, *thumbnails.shape[1:]), fletcher32=True)
        write_array(file, "scan", fixed_texts([f"{i:012x}" for i in range(len(splits))], 12))
        write_array(file, "patient", fixed_texts([f"patient-{i}" for i in range(len(splits))], 64))
        write_array(file, "split", fixed_texts(splits, 10))
        write_array(file, "pretrain", np.ones(len(splits), bool) if pretrain is None else pretrain)
        file.attrs["hu_min"], file.attrs["hu_max"] = -1000.0, 1000.0
    return path


def roles_of(path: Path) -> Roles:
    """The roles of the patients of a thumbnails.h5; who does not serve pre-training serves the task ncc."""
    with h5py.File(path) as file:
        splits = [split.decode() for split in file["split"]]
        uses = [("pretrain",) if serves else ("ncc",) for serves in file["pretrain"]]
    return Roles(decide_roles([scan_row(i, *said) for i, said in enumerate(zip(splits, uses, strict=True))]))


def learn(thumbnails: Path, folder: Path, roles: Roles | None = None) -> Learned:
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder.parent)
        return learn_embedding(
            thumbnails, roles or roles_of(thumbnails), folder, SETTINGS, seed=5, state=folder.parent / "state"
        )


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("learned")
    learn(write(folder / "thumbnails.h5", images(), SPLITS), folder / "embed")
    return folder / "embed"


def vectors(folder: Path) -> np.ndarray:
    with h5py.File(folder / "embeddings.h5") as file:
        return file["vectors"][...]


def test_every_scan_has_a_vector_beside_its_names(learned):
    with h5py.File(learned / "embeddings.h5") as file:
        assert file["vectors"].shape == (9, 2 * 2**2)
        assert file["vectors"].dtype == np.float32
        assert [name.decode() for name in file["scan"]] == [f"{i:012x}" for i in range(9)]
        assert [name.decode() for name in file["patient"]] == [f"patient-{i}" for i in range(9)]
        assert [name.decode() for name in file["split"]] == SPLITS
    assert len(np.unique(vectors(learned), axis=0)) == 9


def test_only_scans_that_serve_pretraining_are_embedded(tmp_path):
    pretrain = np.array([True, True, True, True, False, True, True, True, False])
    learned = learn(write(tmp_path / "thumbnails.h5", images(), SPLITS, pretrain), tmp_path / "embed")
    assert learned.scans == 7
    with h5py.File(tmp_path / "embed" / "embeddings.h5") as file:
        assert [int(name, 16) for name in file["scan"]] == [0, 1, 2, 3, 5, 6, 7]


def test_the_same_scans_give_the_same_bytes(learned, tmp_path):
    learn(write(tmp_path / "thumbnails.h5", images(), SPLITS), tmp_path / "embed")
    files = {file.name: file.read_bytes() for file in (tmp_path / "embed").iterdir()}
    assert files == {file.name: file.read_bytes() for file in learned.iterdir()}
    assert sorted(files) == [
        "autoencoder.safetensors",
        "card.json",
        "embeddings.h5",
        "history.csv",
        "reconstructions.h5",
    ]


def test_nothing_is_learned_from_test_scans(learned, tmp_path):
    changed = images()
    changed[1] = -1000
    learn(write(tmp_path / "thumbnails.h5", changed, SPLITS), tmp_path / "embed")
    for name in ("autoencoder.safetensors", "history.csv", "reconstructions.h5", "card.json"):
        assert (tmp_path / "embed" / name).read_bytes() == (learned / name).read_bytes(), name
    differs = np.any(vectors(tmp_path / "embed") != vectors(learned), axis=1)
    assert np.flatnonzero(differs).tolist() == [1]


def test_a_vector_is_the_same_bit_by_bit_whichever_other_scans_there_are(tmp_path):
    model = seeded(AutoEncoder(2, 2))
    found = []
    for count in (9, 3):
        path = write(tmp_path / f"{count}.h5", images()[:count], SPLITS[:count])
        with open_h5(path) as file:
            found.append(embed(model, Thumbnails(file, roles_of(path))))
    assert np.array_equal(found[0][:3], found[1])


def test_scans_are_read_in_the_unit_range(tmp_path):
    volume = np.full((3, 4, 8, 8), -1000, np.int16)
    volume[2, 0, 0, 0] = 500
    path = write(tmp_path / "thumbnails.h5", volume, SPLITS[:3])
    with open_h5(path) as file:
        read = Thumbnails(file, roles_of(path)).read(np.array([2, 0]), "embed")
    assert read.shape == (2, 1, 4, 8, 8)
    assert read.dtype == np.float32
    assert read[0, 0, 0, 0, 0] == 0.75
    assert read.sum() == 0.75


def test_scans_of_one_make_lie_together(tmp_path):
    """Lungs left black or filled with white, and noise: the nearest scan of each is of its own make."""
    filled = np.random.default_rng(3).permutation([True] * 8 + [False] * 8)
    volume = np.random.default_rng(2).normal(0, 50, (16, 4, 8, 8))
    volume[:, :, 2:6, 1:4] = -900
    volume[filled, :, 2:6, 1:4] = 300
    splits = ["train", "train", "validation", "test"] * 4
    learn(write(tmp_path / "thumbnails.h5", volume.astype(np.int16), splits), tmp_path / "embed")
    found = vectors(tmp_path / "embed")
    distances = np.linalg.norm(found[:, None] - found[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    assert np.array_equal(filled[distances.argmin(axis=1)], filled)


@pytest.mark.parametrize("missing", ["train", "validation"])
def test_without_scans_to_learn_from_or_to_stop_by_there_is_no_embedding(tmp_path, missing):
    splits = ["test" if split == missing else split for split in SPLITS]
    with pytest.raises(
        InputError, match=rf"thumbnails\.h5: .* needs {missing} scans .* none among 9; .*cohort\.splits"
    ):
        learn(write(tmp_path / "thumbnails.h5", images(), splits), tmp_path / "embed")


def test_a_damaged_thumbnail_is_named_instead_of_learned_from(tmp_path):
    path = write(tmp_path / "thumbnails.h5", images(), SPLITS)
    whole = bytearray(path.read_bytes())
    place = whole.index(images()[4].tobytes()) + 100
    whole[place] ^= 1
    path.write_bytes(whole)
    with pytest.raises(InputError, match=r"thumbnails\.h5: damaged"):
        learn(path, tmp_path / "embed")


def test_scans_that_cannot_be_told_apart_are_a_warning(tmp_path):
    alike = np.repeat(images(1), len(SPLITS), axis=0)
    found = learn(write(tmp_path / "thumbnails.h5", alike, SPLITS), tmp_path / "embed")
    (warning,) = found.warnings
    assert "all 9 scans have the same embedding" in warning
    assert json.loads((tmp_path / "embed" / "card.json").read_text())["warnings"] == [warning]


def test_the_card_says_what_was_learned_from_how_many(learned):
    card = json.loads((learned / "card.json").read_text())
    assert card["width"] == 2
    assert card["depth"] == 2
    assert card["thumbnail_shape"] == [4, 8, 8]
    assert card["scans"] == {"train": 5, "validation": 2, "test": 2}
    stored = load_file(learned / "autoencoder.safetensors")
    buffers = ("running_mean", "running_var", "num_batches_tracked")
    assert card["parameters"] == sum(
        array.size for name, array in stored.items() if not name.endswith(buffers)
    )
    with open(learned / "history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == card["epochs"] == 2
    assert float(rows[card["best_epoch"] - 1]["validation"]) == card["best_validation"]


def test_reconstructions_are_validation_scans_and_what_came_of_them(learned):
    with h5py.File(learned / "reconstructions.h5") as file:
        assert [int(name, 16) for name in file["scan"]] == [3, 6]
        assert np.allclose(file["inputs"][...], (images()[[3, 6]] + 1000) / 2000)
        assert file["outputs"].shape == file["inputs"].shape
        assert 0 <= file["outputs"][...].min() <= file["outputs"][...].max() <= 1


def test_thumbnails_and_roles_that_disagree_are_refused(tmp_path):
    path = write(tmp_path / "thumbnails.h5", images(), SPLITS)
    moved = [scan_row(i, "train" if i == 1 else split) for i, split in enumerate(SPLITS)]
    with pytest.raises(
        InputError, match=r"thumbnails\.h5: has the patient 'patient-1' in test, .* has it in train"
    ):
        learn(path, tmp_path / "moved", Roles(decide_roles(moved)))
    idle = [scan_row(i, split, ("ncc",) if i == 4 else ("pretrain",)) for i, split in enumerate(SPLITS)]
    with pytest.raises(
        InputError, match=r"'patient-4' in train, for pretrain, but .* has it in train, for ncc"
    ):
        learn(path, tmp_path / "idle", Roles(decide_roles(idle)))


def test_the_log_of_reads_tells_learning_from_stopping_and_placing(tmp_path, monkeypatch):
    pretrain = np.arange(9) != 4
    path = write(tmp_path / "thumbnails.h5", images(), SPLITS, pretrain)
    monkeypatch.setenv("SG_READS", "")  # brought back at the end
    monkeypatch.chdir(tmp_path)
    logs.begin_reads("embed")
    learn(path, tmp_path / "embed")
    lines = list(map(json.loads, (tmp_path / "logs/reads/embed.jsonl").read_text().splitlines()))
    assert {line["use"] for line in lines} == {"pretrain"}
    read = {
        role: {int(line["scan"], 16) for line in lines if line["role"] == role}
        for role in ("pretrain", "early_stopping", "embed")
    }
    assert read == {
        "pretrain": {0, 2, 5, 7},
        "early_stopping": {3, 6},
        "embed": {0, 1, 2, 3, 5, 6, 7, 8},
    }
    assert len(lines) == 4 + 2 + 8


def test_the_stage_writes_the_embedding_and_says_so(project):
    thumbnails = project.root / paths.THUMBNAILS
    thumbnails.parent.mkdir(parents=True)
    write(thumbnails, images(), SPLITS)
    (project.root / paths.COHORT).mkdir()
    write_rows(
        project.root / paths.ROLES, RoleRow, decide_roles([scan_row(i, s) for i, s in enumerate(SPLITS)])
    )
    ended = project.run("embed")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("embed: 9 scans as vectors of 32; validation loss 0.")
    assert vectors(project.root / paths.EMBED).shape == (9, 32)
