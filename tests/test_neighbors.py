from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import sg.neighbors
from sg.errors import InputError
from sg.neighbors import draw_references, rank, read_embeddings, read_ranking, write_ranking
from sg.storage import create_h5, fixed_texts, write_array
from tests.hand_made import embeddings, in_a_row, name, roles


def cohort(train: int, validation: int, test: int, dimensions: int, seed: int, patients: int | None = None):
    """Normal vectors in mixed order of splits; with `patients`, so many of each split, scans dealt out in turn."""
    rng = np.random.default_rng(seed)
    splits = ["train"] * train + ["validation"] * validation + ["test"] * test
    order = rng.permutation(len(splits))
    splits = [splits[i] for i in order]
    named = [f"{splits[i]}-{i % patients}" for i in range(len(splits))] if patients else None
    return embeddings(rng.normal(size=(len(splits), dimensions)), splits, named)


def loop(found, reference: int, split: str, depth: int) -> tuple[list[int], list[float]]:
    """The ranking by a plain loop over patients: the distance of a patient is that of the nearest scan."""
    nearest: dict[bytes, tuple[float, bytes, int]] = {}
    for row in range(len(found.scan)):
        if found.split[row] != split.encode():
            continue
        own = found.patient[row] == found.patient[reference]
        if own and row != reference:
            continue
        distance = np.sqrt(((found.vectors[row].astype(float) - found.vectors[reference]) ** 2).sum())
        key = (-1.0 if own else distance, found.scan[row], row)
        patient = found.patient[row]
        nearest[patient] = min(nearest.get(patient, key), key)
    ranked = sorted(nearest.values())[:depth]
    return [row for _, _, row in ranked], [max(0.0, distance) for distance, _, _ in ranked]


@pytest.mark.parametrize("depth", ["all", 5, 1])
@pytest.mark.parametrize("patients", [None, 9])
def test_neighbours_are_those_of_a_loop_over_distances(depth, patients):
    found = cohort(40, 15, 10, 7, seed=3, patients=patients)
    ranking, metrics = rank(found, "Flat", depth)
    for split, rows, distances in (
        ("train", ranking.train, ranking.train_distance),
        ("validation", ranking.validation, ranking.validation_distance),
    ):
        for i, reference in enumerate(ranking.reference):
            row = int(np.searchsorted(found.scan, reference))
            expected, at = loop(found, row, split, 1000 if depth == "all" else depth)
            assert rows[i].tolist() == expected
            np.testing.assert_allclose(distances[i], at, rtol=1e-5, atol=1e-6)
    assert metrics["recall_train"] == 1.0


def test_the_reference_is_first_and_every_patient_appears_once():
    found = cohort(60, 20, 5, 4, seed=4, patients=13)
    ranking, _ = rank(found, "Flat", "all")
    assert (found.scan[ranking.train[:, 0]] == ranking.reference).all()
    assert (ranking.train_distance[:, 0] == 0).all()
    for rows in (*ranking.train, *ranking.validation):
        assert len(set(found.patient[rows])) == len(rows)
    assert set(found.split[ranking.train.ravel()]) == {b"train"}
    assert set(found.split[ranking.validation.ravel()]) == {b"validation"}


def test_a_patient_with_several_scans_has_the_one_with_the_smallest_id_as_reference():
    found = embeddings([[0], [5], [9]], ["train"] * 3, ["b", "a", "b"])
    ranking, _ = rank(found, "Flat", "all")
    assert ranking.reference.tolist() == [name(0).encode(), name(1).encode()]
    # Seen from the other patient (at 5), the nearer of the two scans (at 9, not at 0) stands for the patient.
    assert ranking.train[1].tolist() == [1, 2]


@given(st.lists(st.integers(0, 2), min_size=3, max_size=24), st.integers(1, 6))
def test_ties_go_by_scan_id_whatever_the_depth(places, depth):
    if len(set(places)) < 2:
        return
    found = embeddings(np.array(places)[:, None], ["train"] * len(places))
    ranking, _ = rank(found, "Flat", depth)
    for i in range(len(places)):
        assert ranking.train[i].tolist() == loop(found, i, "train", depth)[0]


def test_many_doubles_at_the_end_of_a_shallow_ranking_are_still_told_apart_by_scan_id():
    places = np.zeros((200, 3))
    places[100:] = 1.0
    ranking, _ = rank(embeddings(places, ["train"] * 200), "Flat", 4)
    assert ranking.train[150].tolist() == [150, 100, 101, 102]
    assert ranking.train[7].tolist() == [7, 0, 1, 2]


def test_far_from_the_origin_the_order_is_still_exact():
    rng = np.random.default_rng(0)
    found = embeddings(1000 + rng.normal(size=(80, 6)) * 0.01, ["train"] * 80)
    ranking, _ = rank(found, "Flat", 10)
    for i in range(80):
        assert ranking.train[i].tolist() == loop(found, i, "train", 10)[0]


def test_a_depth_beyond_the_patients_there_are_keeps_all_of_them():
    ranking, metrics = rank(cohort(6, 3, 2, 2, seed=1), "Flat", 50)
    assert ranking.train.shape == (6, 6)
    assert ranking.validation.shape == (6, 3)
    assert (metrics["depth_train"], metrics["depth_validation"]) == (6, 3)


def test_without_validation_patients_their_ranking_is_empty():
    assert in_a_row(4, 0).validation.shape == (4, 0)


def test_an_approximate_index_reports_its_recall_and_is_helped_out_where_it_finds_too_few():
    found = cohort(120, 40, 0, 8, seed=5)
    ranking, metrics = rank(found, "IVF12,Flat", 20)
    assert 0 < metrics["recall_train"] <= 1
    assert ranking.train.min() >= 0
    assert any("ranked exactly" in warning for warning in metrics["warnings"])
    graph, metrics = rank(found, "HNSW16,Flat", 5)
    assert metrics["recall_train"] > 0.9
    assert (rank(found, "HNSW16,Flat", 5)[0].train == graph.train).all()


@pytest.mark.parametrize("depth", [1, 10])
def test_a_reference_that_its_index_does_not_find_stands_first_all_the_same(depth):
    import faiss

    found = cohort(600, 20, 0, 8, seed=5, patients=200)
    graph = faiss.index_factory(8, "HNSW2,Flat")
    graph.add(found.vectors[found.neighbours])
    _, itself = graph.search(found.vectors[found.neighbours], 10)
    assert (itself != np.arange(600)[:, None]).all(axis=1).sum() > 50  # that far is the graph from whole
    ranking, _ = rank(found, "HNSW2,Flat", depth)
    assert (found.scan[ranking.train[:, 0]] == ranking.reference).all()
    assert (ranking.train_distance[:, 0] == 0).all()
    for rows in ranking.train:
        assert len(set(found.patient[rows])) == depth


UNKNOWN = "it is no index that faiss knows"


@pytest.mark.parametrize(
    ("index", "why"),
    [
        ("Flaat", UNKNOWN),
        ("", UNKNOWN),
        ("IVF4,Foo", UNKNOWN),
        ("IVF(4,Flat", UNKNOWN),
        ("IVF999999999999999999999,Flat", UNKNOWN),
        ("IVF4096,Flat", "it learns from at least 4096 vectors, and 20 are there"),
        ("PQ3x200", "PQ must cut a vector into parts of one length"),
        ("PCA99,Flat", "PCA matrix cannot output 99 dimensions from 8"),
        # Given these, faiss would end this process.
        ("HNSW0,Flat", "HNSW takes numbers from 2, all else from 1"),
        ("HNSW1,Flat", "HNSW takes numbers from 2, all else from 1"),
        ("IVF2_HNSW0,Flat", "HNSW takes numbers from 2, all else from 1"),
        ("PQ4x0", "HNSW takes numbers from 2, all else from 1"),
        ("IVF0,Flat", "HNSW takes numbers from 2, all else from 1"),
    ],
)
def test_an_index_that_faiss_cannot_build_is_named(index, why):
    with pytest.raises(InputError) as caught:
        rank(cohort(20, 5, 0, 8, seed=1), index, 3)
    said = str(caught.value)
    assert said.startswith(
        "neighbors.index: faiss must be able to build it from 20 vectors of 8 numbers, got "
    )
    assert f"got {index!r}: {why}" in said
    assert said.endswith("; `Flat` is exact and always works")
    assert "cpp" not in said
    assert "::" not in said


def test_the_wider_an_index_searches_the_more_it_finds_up_to_everything():
    found = cohort(400, 60, 0, 8, seed=6)
    exact, _ = rank(found, "Flat", 15)
    narrow, wide = (rank(found, "IVF10,Flat", 15, search)[1]["recall_train"] for search in (None, "nprobe=3"))
    assert narrow < wide < 1
    everything, metrics = rank(found, "IVF10,Flat", 15, "nprobe=10")
    for field, array in vars(exact).items():
        np.testing.assert_array_equal(getattr(everything, field), array)
    assert metrics["recall_train"] == metrics["recall_validation"] == 1.0
    graph = cohort(3000, 0, 0, 16, seed=6)
    some = draw_references(graph, 100, 1)
    narrow, wide = (
        rank(graph, "HNSW8,Flat", 5, search, some)[1]["recall_train"]
        for search in ("efSearch=8", "efSearch=400")
    )
    assert narrow < 0.97 < wide


def test_an_index_that_has_no_more_to_give_is_asked_once(monkeypatch):
    asked = []
    ask = sg.neighbors._Search._ask
    monkeypatch.setattr(sg.neighbors._Search, "_ask", lambda *of: asked.append(of) or ask(*of))
    found = cohort(120, 0, 0, 8, seed=5)
    _, metrics = rank(found, "IVF12,Flat", 60, references=draw_references(found, 9, 1))
    # No cell holds 60, so everybody is ranked exactly; once more for the recall.
    assert (len(asked), metrics["recall_train"]) == (2, 1.0)
    assert "for 9 of 9 references" in metrics["warnings"][0]


def test_an_index_learns_its_cells_from_as_many_vectors_as_it_may(monkeypatch):
    found = cohort(200, 0, 0, 4, seed=7)
    exact, _ = rank(found, "Flat", 6)
    monkeypatch.setattr(sg.neighbors, "TRAINED", 11)
    assert (rank(found, "IVF11,Flat", 6, "nprobe=11")[0].train == exact.train).all()
    with pytest.raises(InputError, match=r"neighbors\.index"):
        rank(found, "IVF12,Flat", 6)


@pytest.mark.parametrize(
    ("index", "search", "why"),
    [
        ("Flat", "nprobe=4", "could not set parameter nprobe"),
        ("IVF4,Flat", "efSearch=64", "could not set parameter efSearch"),
        ("HNSW8,Flat", "nprobe=4", "could not set parameter nprobe"),
        ("IVF4,Flat", "nprobe=4,cells=3", "could not set parameter cells"),
        ("IVF4,Flat", "nprobe=many", "could not interpret parameters nprobe=many"),
    ],
)
def test_a_search_parameter_that_the_index_does_not_know_is_named(index, search, why):
    with pytest.raises(
        InputError, match=rf"neighbors\.search: .*{index!r}, got {search!r}: {why}; IVF takes"
    ):
        rank(cohort(200, 50, 0, 8, seed=1), index, 3, search)


@pytest.mark.parametrize("patients", [None, 30])
def test_references_are_drawn_by_the_seed_and_ranked_as_among_all(patients):
    found = cohort(60, 20, 5, 4, seed=8, patients=patients)
    everyone = draw_references(found, "all", 1)
    assert (draw_references(found, 1000, 1) == everyone).all()
    drawn = draw_references(found, 12, 1)
    assert len(set(drawn)) == 12
    assert (np.diff(drawn) > 0).all()
    assert (drawn == draw_references(found, 12, 1)).all()
    assert (drawn != draw_references(found, 12, 2)).any()
    whole, _ = rank(found, "Flat", 7)
    fewer, metrics = rank(found, "Flat", 7, references=drawn)
    place = np.searchsorted(whole.reference, fewer.reference)
    assert (whole.reference[place] == found.scan[drawn]).all()
    for field in ("train", "validation", "train_distance", "validation_distance"):
        np.testing.assert_array_equal(getattr(fewer, field), getattr(whole, field)[place])
    assert metrics["training_patients"] == len(everyone)


def test_every_training_patient_is_drawn_as_a_reference_equally_often():
    found = cohort(10, 3, 2, 2, seed=9)
    counts = np.bincount(
        np.concatenate([draw_references(found, 3, seed) for seed in range(1000)]), minlength=15
    )
    assert (counts[~found.neighbours] == 0).all()
    # 300 expected of each; chi-square of 9 degrees of freedom, 1 in 10,000 at 33.7.
    assert ((counts[found.neighbours] - 300) ** 2 / 300).sum() < 33.7


def test_how_much_is_asked_and_worked_on_at_once_changes_nothing(monkeypatch):
    places = np.random.default_rng(0).integers(0, 3, (150, 3))
    found = embeddings(places, ["train"] * 100 + ["validation"] * 50)
    ranking, _ = rank(found, "Flat", 4)
    for limit, size in (("ANSWERS", 70), ("ROWS", 7), ("BLOCK", 13), ("PARTS", 3)):
        monkeypatch.setattr(sg.neighbors, limit, size)
    for field, array in vars(rank(found, "Flat", 4)[0]).items():
        np.testing.assert_array_equal(array, getattr(ranking, field))


def test_vectors_so_long_that_their_squares_overflow_are_still_in_order():
    vectors = np.random.default_rng(0).normal(size=(60, 3)) * np.where(np.arange(60) % 3, 1.0, 1e25)[:, None]
    found = embeddings(vectors, ["train"] * 60)
    ranking, _ = rank(found, "Flat", 5)
    for i in range(60):
        assert ranking.train[i].tolist() == loop(found, i, "train", 5)[0]


def test_a_ranking_that_does_not_fit_into_memory_is_refused_with_its_size(monkeypatch):
    found = cohort(40, 15, 10, 7, seed=3)
    # 8 bytes for each of 40 references and 40 + 15 patients, and twice 65 vectors of 7 numbers of 4 bytes.
    needed = 8 * 40 * 55 + 2 * 65 * 7 * 4
    monkeypatch.setattr(sg.neighbors.os, "sysconf", {"SC_PHYS_PAGES": needed - 1, "SC_PAGE_SIZE": 1}.get)
    with pytest.raises(
        InputError, match=r"neighbors\.depth: .* 55 patients \(40 training, 15 .* 40 references"
    ):
        rank(found, "Flat", "all")
    rank(found, "Flat", 39)
    rank(found, "Flat", "all", references=draw_references(found, 39, 1))
    monkeypatch.setattr(sg.neighbors.os, "sysconf", {"SC_PHYS_PAGES": needed, "SC_PAGE_SIZE": 1}.get)
    rank(found, "Flat", "all")


def peak(work) -> int:
    """The most bytes that Python and NumPy (but not faiss) held at once beside what was there."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_nothing_but_the_index_takes_memory_like_the_vectors(monkeypatch):
    found = cohort(20_000, 2000, 0, 256, seed=1)
    some = draw_references(found, 5, 1)
    monkeypatch.setattr(sg.neighbors, "ROWS", 256)
    assert peak(lambda: rank(found, "Flat", 10, references=some)) < found.vectors.nbytes / 2
    # A whole ranking looks at every vector in double precision, reference by reference.
    assert peak(lambda: rank(found, "Flat", "all", references=some)) < found.vectors.nbytes / 2


def test_reading_a_ranking_does_not_spell_out_the_name_of_every_entry(tmp_path):
    write_ranking(tmp_path, in_a_row(600, 2), {})
    ranking, who = 600 * 602 * 8, roles_of(in_a_row(600, 2, 1))
    assert peak(lambda: read_ranking(tmp_path / "neighbors.h5", who)) < 3 * ranking


def written(path: Path, found) -> Path:
    with create_h5(path) as file:
        write_array(file, "vectors", found.vectors, fletcher32=True)
        for column, width in (("scan", 12), ("patient", 64), ("split", 10)):
            write_array(file, column, fixed_texts([text.decode() for text in getattr(found, column)], width))
    return path


def read(path: Path, found):
    """What `read_embeddings` makes of the file of these embeddings, with their roles."""
    return read_embeddings(written(path, found), roles_of(found))


def roles_of(found):
    return roles(*([text.decode() for text in getattr(found, column)] for column in ("patient", "split")))


def edited(path: Path, **tables) -> Path:
    """The file with other tables in place of its own."""
    with h5py.File(path, "r+") as file:
        for table, values in tables.items():
            del file[table]
            file[table] = values
    return path


@pytest.mark.parametrize("short", ["vectors", "scan", "patient", "split"])
def test_embeddings_whose_tables_disagree_in_length_are_refused_with_the_lengths(tmp_path, short):
    found = cohort(5, 2, 0, 3, seed=1)
    path = edited(written(tmp_path / "e.h5", found), **{short: getattr(found, short)[:-1]})
    with pytest.raises(
        InputError, match=rf"e\.h5: .* as many rows in each .* {short} 6.*dvc repro embed"
    ) as caught:
        read_embeddings(path, roles_of(found))
    assert str(caught.value).count(" 7") == 3


@pytest.mark.parametrize(
    ("table", "values", "words"),
    [
        ("vectors", np.zeros(7, "f4"), r"vectors must be float32 along 2 axes, got float32 \(7,\)"),
        (
            "vectors",
            np.full((7, 3), b"1"),
            r"vectors must be float32 along 2 axes, got texts of 1 bytes \(7, 3\)",
        ),
        ("vectors", np.zeros((7, 3), "i4"), r"vectors must be float32 along 2 axes, got int32 \(7, 3\)"),
        ("scan", np.arange(7), r"scan must be texts along 1 axis, got int64 \(7,\)"),
        (
            "split",
            np.full((7, 1), b"train"),
            r"split must be texts along 1 axis, got texts of 5 bytes \(7, 1\)",
        ),
        ("patient", np.bytes_(b"one"), r"patient must be texts along 1 axis, got texts of 3 bytes \(\)"),
    ],
)
def test_embeddings_of_another_kind_are_refused_with_what_they_are(tmp_path, table, values, words):
    found = cohort(5, 2, 0, 3, seed=1)
    path = edited(written(tmp_path / "e.h5", found), **{table: values})
    with pytest.raises(InputError, match=rf"e\.h5: {words}"):
        read_embeddings(path, roles_of(found))


@pytest.mark.parametrize("table", ["scan", "patient", "split", "reference", "train", "validation"])
def test_rankings_whose_tables_disagree_in_length_are_refused_with_the_lengths(tmp_path, table):
    ranking = in_a_row(4, 2)
    write_ranking(tmp_path, ranking, {})
    path = edited(tmp_path / "neighbors.h5", **{table: getattr(ranking, table)[:-1]})
    short = len(getattr(ranking, table)) - 1
    with pytest.raises(
        InputError, match=rf"neighbors\.h5: .* as many rows in each .* {table} {short}.*repro neighbors"
    ):
        read_ranking(path, roles_of(ranking))


@pytest.mark.parametrize(
    ("table", "values", "words"),
    [
        ("train", np.zeros((4, 4)), r"train must be int32 along 2 axes, got float64 \(4, 4\)"),
        ("validation", np.zeros(4, "i4"), r"validation must be int32 along 2 axes, got int32 \(4,\)"),
        ("reference", np.arange(4), r"reference must be texts along 1 axis, got int64 \(4,\)"),
        (
            "train_distance",
            np.full((4, 4), b"1"),
            "train_distance must be float32 along 2 axes, got texts of 1 bytes",
        ),
        ("train_distance", np.zeros((4, 3), "f4"), r"train_distance must be \(4, 4\), .* got \(4, 3\)"),
        (
            "validation_distance",
            np.zeros((3, 2), "f4"),
            r"validation_distance must be \(4, 2\), .* got \(3, 2\)",
        ),
    ],
)
def test_rankings_of_another_kind_are_refused_with_what_they_are(tmp_path, table, values, words):
    ranking = in_a_row(4, 2)
    write_ranking(tmp_path, ranking, {})
    path = edited(tmp_path / "neighbors.h5", **{table: values})
    with pytest.raises(InputError, match=rf"neighbors\.h5: {words}"):
        read_ranking(path, roles_of(ranking))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_embeddings_that_are_not_finite_are_refused_with_the_scan(tmp_path, value):
    found = cohort(5, 2, 0, 3, seed=1)
    found.vectors[4, 1] = value
    with pytest.raises(InputError, match=rf"must be finite, those of 1 of 7 scans are not.*{name(4)}"):
        read(tmp_path / "e.h5", found)


@pytest.mark.parametrize("spread", [0.0, 1e-8])
def test_embeddings_that_are_all_equal_are_refused(tmp_path, spread):
    vectors = 3 + spread * np.arange(6)[:, None]
    with pytest.raises(InputError, match="all 5 training scans are equal"):
        read(tmp_path / "e.h5", embeddings(vectors, ["train"] * 5 + ["validation"]))


def test_a_single_training_patient_is_refused(tmp_path):
    found = embeddings([[0], [1], [2]], ["train", "train", "validation"], ["one", "one", "two"])
    with pytest.raises(InputError, match="at least 2, got 1"):
        read(tmp_path / "e.h5", found)


def test_a_ranking_read_back_is_the_one_written_and_two_writings_are_equal_bytes(tmp_path):
    found = cohort(12, 4, 2, 3, seed=2)
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        write_ranking(folder, *rank(read(folder / "e.h5", found), "Flat", 5))
    again = read_ranking(tmp_path / "a" / "neighbors.h5", roles_of(found))
    for field, array in vars(rank(found, "Flat", 5)[0]).items():
        np.testing.assert_array_equal(getattr(again, field), array)
    for file in ("neighbors.h5", "metrics.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    assert json.loads((tmp_path / "a" / "metrics.json").read_text())["training_patients"] == 12


def test_a_ranking_whose_rows_lead_outside_its_table_is_refused(tmp_path):
    ranking = in_a_row(3, 1)
    ranking.train[2, 2] = 9
    write_ranking(tmp_path, ranking, {})
    with pytest.raises(InputError, match="within the table of 4 scans"):
        read_ranking(tmp_path / "neighbors.h5", roles_of(ranking))


def test_a_ranking_in_which_another_scan_stands_before_the_reference_is_refused(tmp_path):
    ranking = in_a_row(3, 1)
    own, nearest = ranking.scan[ranking.train[1, :2]].tolist()
    ranking.train[1, :2] = ranking.train[1, 1::-1]
    write_ranking(tmp_path, ranking, {})
    with pytest.raises(InputError, match=f"got '{nearest.decode()}' before '{own.decode()}'; run `dvc repro"):
        read_ranking(tmp_path / "neighbors.h5", roles_of(ranking))


def test_who_may_be_a_neighbour_is_what_the_roles_say(tmp_path):
    found = read(tmp_path / "e.h5", cohort(6, 3, 2, 4, seed=1))
    assert (found.neighbours == (found.split == b"train")).all()
    assert (found.stopping == (found.split == b"validation")).all()


def test_embeddings_and_rankings_of_other_roles_are_refused(tmp_path):
    found = embeddings(np.arange(5)[:, None], ["train"] * 3 + ["validation", "test"])
    write_ranking(tmp_path, *rank(found, "Flat", "all"))
    patients = [f"patient-{i}" for i in range(5)]
    moved = roles(patients, ["train", "train", "test", "validation", "test"])
    for read_file, path in (
        (read_embeddings, written(tmp_path / "e.h5", found)),
        (read_ranking, tmp_path / "neighbors.h5"),
    ):
        with pytest.raises(
            InputError, match=rf"{path.name}: has the patient 'patient-2' in train, .* has it in test"
        ):
            read_file(path, moved)
        with pytest.raises(
            InputError, match=rf"{path.name}: has the patient 'patient-4' .* does not name it"
        ):
            read_file(path, roles(patients[:4], ["train", "train", "train", "validation"]))


def test_a_ranking_that_names_a_test_patient_is_refused(tmp_path):
    found = embeddings(np.arange(5)[:, None], ["train"] * 3 + ["validation", "test"])
    ranking, metrics = rank(found, "Flat", "all")
    ranking.train[1, 2] = 4
    write_ranking(tmp_path, ranking, metrics)
    with pytest.raises(InputError, match="ranks 'patient-4', which has not the role 'neighbours'"):
        read_ranking(tmp_path / "neighbors.h5", roles_of(found))
