from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.interpolate import RegularGridInterpolator
from scipy.spatial.transform import Rotation

from sg.errors import InputError
from sg.storage import create_h5, write_array
from sg.truth import read_truth
from tests.hand_made import write_truth_file

TURN = Rotation.from_euler("xyz", (4, -7, 11), degrees=True).as_matrix()


def test_a_voxel_s_position_is_by_the_map_of_its_own_label(tmp_path):
    """Two maps that move everything by 10 and by 20 mm along x; a row of voxels of none, the first, the second."""
    fields = np.zeros((2, 3, 2, 2, 4))
    fields[:, 0] = np.reshape((10, 20), (2, 1, 1, 1))
    write_truth_file(tmp_path / "t.h5", fields, [[[0, 1, 2]]])
    truth = read_truth(tmp_path / "t.h5")
    points = np.array(
        [(0, 0, 0), (1, 0, 0), (1.4, 0, 0), (1.6, 0, 0), (2, 0, 0), (2.6, 0, 0), (np.nan, 0, 0)]
    )
    assert truth.labels_at(points).tolist() == [0, 1, 1, 2, 2, -1, -1]
    np.testing.assert_allclose(truth.atlas_at(points)[:, 0], [np.nan, 11, 11.4, 21.6, 22, np.nan, np.nan])
    np.testing.assert_allclose(truth.atlas_at(points)[1:5, 1:], 0)


def test_displacements_are_trilinear_in_the_patient_s_coordinates_however_the_scan_lies(tmp_path):
    rng = np.random.default_rng(1)
    field = rng.normal(0, 5, (1, 3, 4, 5, 6))
    origin, spacing, offset = np.array([-10.0, 20, 5]), np.array([3.0, 4, 5]), np.array([100.0, -50, 7])
    write_truth_file(
        tmp_path / "t.h5", field, np.ones((40, 40, 40)), grid_origin_mm=origin, grid_spacing_mm=spacing, rotation=TURN,
        offset_mm=offset, origin_mm=TURN @ (origin - 1) + offset, spacing_mm=np.ones(3), direction=TURN,
    )  # fmt: skip
    axes = [origin[i] + spacing[i] * np.arange(n) for i, n in enumerate((6, 5, 4))]
    points = rng.uniform([a[0] for a in axes], [a[-1] for a in axes], (50, 3))
    nodes = field[0].astype(np.float32).transpose(3, 2, 1, 0).astype(float)
    expected = points + RegularGridInterpolator(axes, nodes)(points)
    np.testing.assert_allclose(
        read_truth(tmp_path / "t.h5").atlas_at(points @ TURN.T + offset), expected, atol=1e-9
    )


def test_labels_are_found_through_flipped_and_oblique_directions(tmp_path):
    labels = np.random.default_rng(2).integers(0, 2, (4, 5, 6))
    direction = TURN * (-1, 1, -1)
    origin, spacing = np.array([5.0, -3, 40]), np.array([2.0, 3, 4])
    field = np.zeros((1, 3, 2, 2, 2))
    write_truth_file(
        tmp_path / "t.h5", field, labels, direction=direction, origin_mm=origin, spacing_mm=spacing
    )
    z, y, x = np.indices(labels.shape).reshape(3, -1)
    jitter = np.random.default_rng(3).uniform(-0.49, 0.49, (len(x), 3))
    world = origin + ((np.stack([x, y, z], axis=1) + jitter) * spacing) @ direction.T
    np.testing.assert_array_equal(read_truth(tmp_path / "t.h5").labels_at(world), labels[z, y, x])


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"displacements": np.zeros((2, 3, 3, 3))}, r"`displacements` must be \(maps, 3, z, y, x\), got \(2, 3, 3, 3\)"),
        ({"labels": np.zeros((2, 2), np.uint8)}, r"`labels` must be uint8 \(z, y, x\)"),
        ({"labels": np.full((2, 2, 2), 7, np.uint8)}, "`labels` holds 7, but there are 2 names"),
        ({"map_of_label": [-1, 1]}, "`map_of_label` must name one of 1 maps"),
        ({"map_of_label": [-1]}, "for each of 2 labels"),
        ({"spacing_mm": (1.0, 0.0, 1.0)}, "spacings must be positive"),
        ({"direction": np.eye(3) * 1.1}, "must be orthonormal"),
        ({"rotation": np.eye(2)}, "three by three"),
        ({"names": "no json"}, "Expecting value"),
    ],
)  # fmt: skip
def test_what_is_no_truth_is_refused_in_words(tmp_path, change, what):
    arrays = {"displacements": np.zeros((1, 3, 2, 2, 2)), "labels": np.zeros((2, 2, 2), np.uint8)}
    kept = {key: value for key, value in change.items() if key in arrays}
    write_truth_file(
        tmp_path / "t.h5", *(arrays | kept).values(), **{k: v for k, v in change.items() if k not in kept}
    )
    with pytest.raises(InputError, match=rf"t\.h5: must be a phantom's truth, but .*{what}"):
        read_truth(tmp_path / "t.h5")


@pytest.mark.parametrize("missing", ["displacements", "labels", "rotation", "map_of_label"])
def test_what_truth_lacks_is_named(tmp_path, missing):
    write_truth_file(tmp_path / "whole.h5", np.zeros((1, 3, 2, 2, 2)), np.zeros((2, 2, 2)))
    truth = read_truth(tmp_path / "whole.h5")
    with create_h5(tmp_path / "t.h5") as file:
        for kind in {"displacements", "labels"} - {missing}:
            dataset = write_array(file, kind, getattr(truth, kind))
            for key in ("grid_origin_mm", "grid_spacing_mm", "rotation", "offset_mm", "map_of_label", "origin_mm",
                        "spacing_mm", "direction"):  # fmt: skip
                if key != missing:
                    dataset.attrs[key] = getattr(truth, key)
            dataset.attrs["names"] = json.dumps(truth.names)
    with pytest.raises(InputError, match=rf"but it lacks .*{missing}"):
        read_truth(tmp_path / "t.h5")


def test_the_nearest_map_is_of_the_nearest_voxel_that_has_one_and_says_where_any_point_lies(tmp_path):
    fields = np.zeros((2, 3, 2, 2, 2))
    fields[:, 0] = np.reshape((10, 20), (2, 1, 1, 1))
    labels = np.zeros((3, 4, 9))
    labels[1, 1, 1], labels[2, 3, 8] = 1, 2
    write_truth_file(
        tmp_path / "t.h5", fields, labels, direction=TURN, spacing_mm=np.array([2.0, 3, 4]), origin_mm=np.array([5.0, 6, 7]),
        grid_origin_mm=np.full(3, -100.0), grid_spacing_mm=np.full(3, 200.0),
    )  # fmt: skip
    truth = read_truth(tmp_path / "t.h5")
    z, y, x = np.indices(labels.shape).reshape(3, -1)
    world = (np.stack([x, y, z], axis=1) * (2.0, 3, 4)) @ TURN.T + (5, 6, 7)
    ends = [(np.array(at) * (2.0, 3, 4)) @ TURN.T + (5, 6, 7) for at in ((1, 1, 1), (8, 3, 2))]
    expected = np.argmin([np.linalg.norm(world - end, axis=1) for end in ends], axis=0)
    assert [truth.nearest_map(point) for point in world] == expected.tolist()
    np.testing.assert_allclose(truth.atlas_by(expected, world)[:, 0], world[:, 0] + 10 * (expected + 1))
    assert np.isnan(truth.atlas_by(np.array([-1]), world[:1])).all()


def test_a_scan_that_shows_nothing_of_the_atlas_has_no_nearest_map(tmp_path):
    write_truth_file(tmp_path / "t.h5", np.zeros((1, 3, 2, 2, 2)), np.zeros((2, 2, 2)))
    assert read_truth(tmp_path / "t.h5").nearest_map(np.zeros(3)) == -1
