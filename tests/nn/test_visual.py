"""Encoders of images: what they compute, against plain calls with the same weights, and how they start."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from mlhooks.errors import UnsupportedError
from mlhooks.nn.features import Image
from mlhooks.nn.visual import ImageEncoder
from mlhooks.settings import NetworkSettings


def make(kind: str, channels: int, height: int, width: int, units: int = 7, **settings: str) -> ImageEncoder:
    torch.manual_seed(0)
    image = Image("the camera", (channels, height, width), slice(0, channels * height * width), is_goal=False)
    return ImageEncoder(image, NetworkSettings(vis_encode_type=kind, hidden_units=units, **settings))


def residual(x: Tensor, weights: list[Tensor]) -> Tensor:
    """Return the stacks of `resnet`; takes its weights and biases off the list."""

    def convolution(x: Tensor) -> Tensor:
        return functional.conv2d(x, weights.pop(0), weights.pop(0), padding=1)

    for _ in range(3):
        x = functional.max_pool2d(convolution(x), 3, 2)
        for _ in range(2):
            y = convolution(x * torch.sigmoid(x))
            x = x + convolution(y * torch.sigmoid(y))
    return x * torch.sigmoid(x)


STRIDES: dict[str, list[int]] = {"fully_connected": [], "match3": [1, 1], "simple": [4, 2], "nature_cnn": [4, 2, 1]}
SHAPES = {  # These are the shapes of all weights, for 2 channels, 37 x 44 pixels and 7 units.
    "fully_connected": [(7, 2 * 37 * 44)],
    "match3": [(35, 2, 3, 3), (144, 35, 3, 3), (7, 144 * 33 * 40)],
    "simple": [(16, 2, 8, 8), (32, 16, 4, 4), (7, 32 * 3 * 4)],
    "nature_cnn": [(32, 2, 8, 8), (64, 32, 4, 4), (64, 64, 3, 3), (7, 64 * 1 * 2)],
    "resnet": [
        *((16, 2, 3, 3), *[(16, 16, 3, 3)] * 4),
        *((32, 16, 3, 3), *[(32, 32, 3, 3)] * 4, *[(32, 32, 3, 3)] * 5),
        (7, 32 * 3 * 4),
    ],
}


@pytest.mark.parametrize("kind", STRIDES)
def test_relu_takes_the_place_of_ml_agents_leaky_one_where_asked(kind: str) -> None:
    encoder = make(kind, 2, 37, 44, visual_activation="relu")
    weights = [parameter.detach() for parameter in encoder.parameters()]
    x = torch.rand(3, 2, 37, 44)
    pixels = x.permute(0, 2, 3, 1).flatten(1)
    for stride in STRIDES[kind]:
        x = functional.relu(functional.conv2d(x, weights.pop(0), weights.pop(0), stride))
    wanted = functional.relu(functional.linear(x.flatten(1), weights.pop(0), weights.pop(0)))
    torch.testing.assert_close(encoder(pixels), wanted, rtol=1e-4, atol=1e-5)
    assert bool((wanted == 0).any())


@pytest.mark.parametrize("kind", SHAPES)
def test_encoder_computes_what_its_layers_do_one_by_one(kind: str) -> None:
    encoder = make(kind, 2, 37, 44)
    weights = [parameter.detach() for parameter in encoder.parameters()]
    assert [tuple(weight.shape) for weight in weights[::2]] == SHAPES[kind]
    x = torch.rand(3, 2, 37, 44)
    pixels = x.permute(0, 2, 3, 1).flatten(1)
    if kind == "resnet":
        x = residual(x, weights)
    else:
        for stride in STRIDES[kind]:
            x = functional.conv2d(x, weights.pop(0), weights.pop(0), stride)
            x = torch.where(x > 0, x, 0.01 * x)
    x = x.reshape(3, -1) @ weights[0].T + weights[1]
    expected = torch.where(x > 0, x, 0.0 if kind == "resnet" else 0.01 * x)
    torch.testing.assert_close(encoder(pixels), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", SHAPES)
def test_bytes_are_encoded_as_the_floats_that_they_stand_for(kind: str) -> None:
    encoder = make(kind, 2, 37, 44)
    pixels = torch.randint(0, 256, (5, 37 * 44 * 2), dtype=torch.uint8)
    beside = torch.cat([pixels, pixels], 1)[:, : pixels.shape[1]]  # Several images would be joined so.
    results = []
    for given in (pixels / 255, pixels, beside):
        encoder.zero_grad()
        encoding = encoder(given)
        encoding.square().sum().backward()
        results.append([encoding.detach(), *(p.grad.clone() for p in encoder.parameters() if p.grad is not None)])
    assert len(results[0]) == 1 + 2 * len(SHAPES[kind])
    for ours in results[1:]:
        for part, expected in zip(ours, results[0], strict=True):
            torch.testing.assert_close(part, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


@pytest.mark.parametrize(
    ("kind", "smallest"), [("fully_connected", 1), ("match3", 5), ("resnet", 15), ("simple", 20), ("nature_cnn", 36)]
)
def test_smallest_image_is_that_of_ml_agents(kind: str, smallest: int) -> None:
    assert make(kind, 1, smallest, smallest)(torch.rand(2, smallest**2)).shape == (2, 7)
    for height, width in ((smallest - 1, 50), (50, smallest - 1)):
        with pytest.raises(
            UnsupportedError, match=rf"the camera has shape \(1, {height}, {width}\).*{kind}.*{smallest}\."
        ):
            make(kind, 1, height, width)


def test_initial_weights_follow_the_settings() -> None:
    # lecun_normal is ML-Agents' start: torch's own in convolutions, uniform within 1 / sqrt(inputs).
    encoder = make("simple", 3, 40, 40, units=64)
    for layer, inputs in ((encoder.layers[0], 3 * 64), (encoder.layers[2], 16 * 16)):
        for weight in (layer.weight, layer.bias):
            assert 0.8 / math.sqrt(inputs) < weight.abs().max().item() <= 1 / math.sqrt(inputs)
    assert encoder.dense.weight.std().item() == pytest.approx(math.sqrt(2 / (32 * 9)), rel=0.05)
    assert not encoder.dense.bias.any()

    encoder = make("simple", 3, 40, 40, units=64, initialization="kaiming_he")
    for layer, inputs in ((encoder.layers[0], 3 * 64), (encoder.layers[2], 16 * 16), (encoder.dense, 32 * 9)):
        assert layer.weight.std().item() == pytest.approx(math.sqrt(2 / inputs), rel=0.05)
        assert not layer.bias.any()

    encoder = make("simple", 3, 40, 40, units=64, initialization="orthogonal")
    for layer in (encoder.layers[0], encoder.layers[2], encoder.dense):
        rows = layer.weight.flatten(1)
        torch.testing.assert_close(rows @ rows.T, 2 * torch.eye(len(rows)), rtol=0, atol=1e-5)
        assert not layer.bias.any()
