from __future__ import annotations

import torch

from sg.networks.classifier import Classifier
from sg.networks.unet import UNet
from tests.networks.sizes import network, noise, parameters, seeded


def test_its_logits_are_a_linear_map_of_the_pooled_bottleneck():
    model = seeded(Classifier(network(), classes=2, hidden=0)).eval()
    x = noise(2, 1, 8, 8, 8)
    with torch.no_grad():
        pooled = model.encoder(x)[0].mean(dim=(2, 3, 4))
        expected = pooled @ model.classify[0].weight.T + model.classify[0].bias
        assert torch.allclose(model(x), expected, atol=1e-6)


def test_a_hidden_layer_adds_its_weights_and_biases():
    size = network(width=2, depth=3)  # 16 channels at the bottleneck
    with_none, with_five = Classifier(size, 2, 0), Classifier(size, 2, 5)
    assert parameters(with_none.classify) == 16 * 2 + 2
    assert parameters(with_five.classify) == (16 * 5 + 5) + (5 * 2 + 2)


def test_its_encoder_has_the_names_and_shapes_of_the_unets():
    def shapes(model: torch.nn.Module) -> dict[str, torch.Size]:
        return {
            name: tensor.shape for name, tensor in model.state_dict().items() if name.startswith("encoder.")
        }

    assert shapes(Classifier(network(), 2, 0)) == shapes(UNet(network()))
