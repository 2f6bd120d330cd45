from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_limits

from sg import embedding
from sg.errors import InputError
from sg.frames import Box
from sg.intensity import to_unit
from sg.networks.autoencoder import untrained
from sg.params import Embed
from sg.quality.controls import components, embedded, geometry, orderings, read_thumbnails
from tests.hand_made import in_a_row, name, noise, roles, scan_row
from tests.quality.hand_made import row, study, write_thumbnails


def stored(number: int, spacing_mm=(1.0, 1.0, 2.0), slices: int = 100):
    return replace(scan_row(number, "train"), spacing_mm=spacing_mm, size=(512, 512, slices))


def test_geometry_is_body_field_spacing_and_slices_standardised():
    bodies = [Box((0, 0, 0), (20, 10 + 2 * i, 8)) for i in range(3)]
    of = replace(study(np.zeros((1, 3))), surveys=[row(i, body=bodies[i]) for i in range(3)])
    found = geometry(of, [stored(2, slices=400), stored(1, slices=100), stored(0, (3.0, 1.0, 2.0), 100)])
    # Bodies of 50, 60, 70 mm along y; spacings along x of 3, 1, 1; 100, 100, 400 slices: nothing else differs.
    assert found.shape == (3, 10)
    np.testing.assert_allclose(found[:, 1], np.array([-1, 0, 1]) * np.sqrt(3 / 2))
    np.testing.assert_allclose(found[:, 6], np.array([2, -1, -1]) / np.sqrt(2))
    np.testing.assert_allclose(found[:, 9], np.array([-1, -1, 2]) / np.sqrt(2))
    assert (np.delete(found, [1, 6, 9], axis=1) == 0).all()


def test_sides_in_mm_are_of_the_axis_whose_spacing_they_have():
    spacings = [(2.0, 2.0, 2.0), (2.0, 2.0, 5.0)]  # (x, y, z)
    of = replace(study(np.zeros((1, 2))), surveys=[row(i, spacing_mm=spacings[i]) for i in range(2)])
    # Of the body's sides and the field of view's, each (z, y, x), only those along z differ.
    expected = np.zeros((2, 10))
    expected[:, [0, 3]] = [[-1], [1]]
    np.testing.assert_allclose(geometry(of, [stored(0), stored(1)]), expected)


def test_a_scan_that_the_cohort_lacks_is_named():
    with pytest.raises(InputError, match=rf"scans\.csv: lacks the scan {name(1)}"):
        geometry(study(np.zeros((1, 3))), [stored(0), stored(2)])


def test_components_keep_distances_up_to_their_number():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(30, 3)) @ rng.normal(size=(3, 500))
    found = components(vectors)
    assert found.shape == (30, 16)
    apart = np.linalg.norm(vectors[:, None] - vectors, axis=-1)
    np.testing.assert_allclose(np.linalg.norm(found[:, None] - found, axis=-1), apart, atol=1e-4)
    assert components(vectors[:5]).shape == (5, 4)
    # As the singular values say, in falling order.
    wide = rng.normal(size=(40, 60)) * np.arange(60)
    strength = np.linalg.svd(wide - wide.mean(axis=0), compute_uv=False)
    np.testing.assert_allclose(np.linalg.norm(components(wide), axis=0), strength[:16])


def test_components_are_the_same_bytes_however_many_threads_linear_algebra_has():
    vectors = np.random.default_rng(0).normal(size=(300, 3000))
    found = []
    for threads in (1, 2, 3):
        with threadpool_limits(threads, user_api="blas"):
            found.append(components(vectors).tobytes())
    assert found[0] == found[1] == found[2]


def test_thumbnails_are_found_by_scan_and_logged_in_the_role_of_neighbours(tmp_path, monkeypatch):
    images = np.stack([noise(i, (2, 3, 4)) for i in range(5)])
    write_thumbnails(tmp_path / "t.h5", images)
    said = []
    monkeypatch.setattr("sg.quality.controls.logs.opened", lambda *line: said.append(line))
    found, hu = read_thumbnails(tmp_path / "t.h5", np.array([name(1), name(3)], "S12"))
    np.testing.assert_array_equal(found, images[[1, 3]])
    assert hu == (-1000.0, 1000.0)
    assert said == [(name(i), "neighbours", "pretrain") for i in (1, 3)]
    with pytest.raises(InputError, match=f"has no thumbnail of {name(7)}"):
        read_thumbnails(tmp_path / "t.h5", np.array([name(7)], "S12"))


def test_the_untrained_encoder_has_the_weights_that_training_begins_with(tmp_path, monkeypatch):
    """Whatever training would do to them: what it is given is kept, and it does nothing."""
    begun = []

    def unfitted(model, *_):
        begun.append({key: value.clone() for key, value in model.state_dict().items()})
        raise KeyboardInterrupt

    monkeypatch.setattr(embedding, "train_autoencoder", unfitted)
    monkeypatch.setattr(embedding, "Thumbnails", lambda *_: None)
    write_thumbnails(tmp_path / "t.h5", np.zeros((1, 2, 2, 2)))
    training = {"epochs": 1, "batch": 1, "learning_rate": 0.1, "step_epochs": 1, "patience": 1, "threads": 1}
    settings = Embed(width=2, depth=3, training=training | {"accelerator": "cpu", "precision": "32-true"})
    with pytest.raises(KeyboardInterrupt):
        embedding.learn_embedding(tmp_path / "t.h5", roles([], []), tmp_path, settings, 7, tmp_path)
    own = untrained(2, 3, 7).state_dict()
    assert own.keys() == begun[0].keys()
    assert all(torch.equal(own[key], begun[0][key]) for key in own)
    assert not torch.equal(own["encoder.levels.0.first.conv.weight"],
                           untrained(2, 3, 8).state_dict()["encoder.levels.0.first.conv.weight"])  # fmt: skip


def test_an_image_is_embedded_alone_and_extended_where_its_sides_do_not_halve():
    model = untrained(2, 3, 1).eval()
    images = np.stack([noise(i, (4, 7, 8)) for i in range(3)])
    found = embedded(model, images, -1000, 1000)
    assert found.shape == (3, 16)
    np.testing.assert_array_equal(embedded(model, images[1:2], -1000, 1000)[0], found[1])
    whole = np.concatenate([images, images[:, :, -1:]], axis=2)
    with torch.inference_mode():
        expected = model.embed(torch.from_numpy(to_unit(whole, -1000, 1000)[:, None])).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_every_control_orders_all_other_patients(tmp_path):
    images = np.stack([np.full((4, 4, 4), 100 * i) for i in (0, 9, 1, 2, 5)])
    write_thumbnails(tmp_path / "t.h5", images)
    of = study(np.zeros((2, 5)))
    found = orderings(
        of,
        in_a_row(5, 1),
        tmp_path / "t.h5",
        [stored(i, slices=100 - i) for i in range(5)],
        untrained(2, 2, 1),
    )
    assert list(found) == ["nearest", "geometry", "thumbnails", "pca", "untrained"]
    assert found["nearest"].tolist() == [[1, 2, 3, 4], [0, 2, 3, 4]]
    assert found["geometry"].tolist() == [[1, 2, 3, 4], [0, 2, 3, 4]]
    assert found["thumbnails"].tolist() == found["pca"].tolist() == [[2, 3, 4, 1], [4, 3, 2, 0]]
    assert np.sort(found["untrained"]).tolist() == [[1, 2, 3, 4], [0, 2, 3, 4]]
