from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch

from sg import weights
from sg.errors import InputError
from sg.networks.classifier import Classifier
from sg.networks.unet import UNet
from tests.networks.sizes import network, seeded

CARD = {
    "method": "tried",
    "network": {"architecture": "unet", "width": 2, "depth": 3, "norm": "batch", "channels_in": 1},
}


def saved(folder: Path, model: torch.nn.Module, **more: torch.Tensor) -> Path:
    weights.save(folder, {**model.state_dict(), **more}, CARD)
    return folder


def equal(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    other = second.state_dict()
    return all(torch.equal(tensor, other[name]) for name, tensor in first.state_dict().items())


def test_weights_come_back_bit_by_bit(tmp_path):
    given, taken = seeded(UNet(network()), 1), seeded(UNet(network()), 2)
    given(torch.rand(2, 1, 8, 8, 8))  # running statistics are part of it
    saved(tmp_path, given)
    assert weights.load_into(taken, tmp_path) == len(taken.state_dict())
    assert equal(given, taken)


def test_equal_tensors_give_equal_bytes_in_any_order_and_layout(tmp_path):
    model = seeded(UNet(network()))
    first, second = tmp_path / "first", tmp_path / "second"
    weights.save_tensors(first, model.state_dict())
    model.to(memory_format=torch.channels_last_3d)
    weights.save_tensors(second, dict(reversed(model.state_dict().items())))
    assert first.read_bytes() == second.read_bytes()


def test_weights_are_as_readable_as_any_file(tmp_path):
    saved(tmp_path, UNet(network()))
    other = tmp_path / "other"
    other.write_text("")
    assert (tmp_path / "weights.safetensors").stat().st_mode == other.stat().st_mode


def test_a_pretext_head_is_left_out_and_a_new_output_left_as_it_is(tmp_path):
    unet = seeded(UNet(network()), 1)
    saved(tmp_path, unet, **{"head.classification.weight": torch.ones(3)})
    model = seeded(Classifier(network(), classes=2, hidden=0), 2)
    before = model.classify[0].weight.clone()
    assert weights.load_into(model, tmp_path) == len(unet.encoder.state_dict())
    assert equal(model.encoder, unet.encoder)
    assert torch.equal(model.classify[0].weight, before)


def test_the_layout_of_the_model_plays_no_part(tmp_path):
    given = seeded(UNet(network()), 1)
    taken = seeded(UNet(network()), 2).to(memory_format=torch.channels_last_3d)
    weights.load_into(taken, saved(tmp_path, given))
    assert equal(given, taken)


def test_weights_of_another_width_are_refused_with_both_shapes(tmp_path):
    saved(tmp_path, UNet(network(width=4)))
    with pytest.raises(InputError, match=r"shape \(2, 1, 3, 3, 3\) in this network, got \(4, 1, 3, 3, 3\)"):
        weights.load_into(UNet(network(width=2)), tmp_path)


def test_nothing_is_copied_where_one_shape_is_wrong(tmp_path):
    saved(tmp_path, seeded(UNet(network(), channels_out=2), 1))
    model, untouched = seeded(UNet(network()), 2), seeded(UNet(network()), 2)
    with pytest.raises(InputError, match=r"out\.weight must have the shape"):
        weights.load_into(model, tmp_path)
    assert equal(model, untouched)


def test_weights_without_a_common_name_are_refused(tmp_path):
    weights.save(tmp_path, {"layer1.weight": torch.ones(1)}, CARD)
    with pytest.raises(
        InputError, match=r"none of its 1 tensors has a name of this network \(it has 'layer1.weight'"
    ):
        weights.load_into(UNet(network()), tmp_path)


@pytest.mark.parametrize("keep", [0, 7, 100, -1])
def test_truncated_weights_are_refused(tmp_path, keep):
    path = saved(tmp_path, UNet(network())) / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match=r"weights\.safetensors: not a whole safetensors file"):
        weights.load_into(UNet(network()), tmp_path)


def test_a_header_that_asks_for_terabytes_is_refused(tmp_path):
    (tmp_path / "weights.safetensors").write_bytes((2**62).to_bytes(8, "little") + b"{}")
    with pytest.raises(InputError, match="not a whole safetensors file"):
        weights.load_into(UNet(network()), tmp_path)


class Trap:
    """Unpickled, it leaves a mark."""

    def __reduce__(self) -> tuple:
        return Path.touch, (Path("sprung"),)


@pytest.mark.parametrize("write", [torch.save, lambda trap, path: path.write_bytes(pickle.dumps(trap))])
def test_a_pickle_is_refused_and_not_run(tmp_path, monkeypatch, write):
    monkeypatch.chdir(tmp_path)
    write(Trap(), tmp_path / "weights.safetensors")
    with pytest.raises(InputError, match="not a whole safetensors file"):
        weights.load_into(UNet(network()), tmp_path)
    assert not Path("sprung").exists()


def test_missing_weights_are_named(tmp_path):
    with pytest.raises(InputError, match=r"weights\.safetensors: there are no weights"):
        weights.load_into(UNet(network()), tmp_path)


def test_a_card_is_sorted_json_that_reads_back_equal(tmp_path):
    saved(tmp_path, UNet(network()))
    text = (tmp_path / "card.json").read_text()
    assert text == json.dumps(CARD, indent=2, sort_keys=True) + "\n"
    assert weights.read_card(tmp_path) == CARD


def test_a_card_holds_no_nan(tmp_path):
    with pytest.raises(ValueError):
        weights.save(tmp_path, {}, {**CARD, "best_validation": float("nan")})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "no such file"),
        ("{", "not a JSON file"),
        (b"\xff", "not a JSON file"),
        ("[]", "must name its `method`"),
        ('{"method": "a"}', "its `network`"),
    ],
)
def test_a_card_that_cannot_be_used_is_refused(tmp_path, text, words):
    if text is not None:
        (tmp_path / "card.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=words):
        weights.read_card(tmp_path)
