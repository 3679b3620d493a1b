"""Networks that read images or entities: torch computes their encoders, and not the layers behind them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from mlagents_envs.base_env import ActionSpec, BehaviorSpec, DimensionProperty, ObservationSpec, ObservationType
from torch import Tensor, nn

from mlhooks.fast.arrays import ArrayTensor
from mlhooks.fast.networks import LossScope
from mlhooks.nn.features import FeatureLayout
from mlhooks.nn.frozen import frozen
from mlhooks.nn.networks import Actor, Critic
from mlhooks.settings import NetworkSettings
from tests.fast.recording import needs_native

pytestmark = needs_native
SETTINGS = NetworkSettings(hidden_units=16, num_layers=2)
ROWS = 7


def observed(shape: tuple[int, ...]) -> ObservationSpec:
    first = DimensionProperty.VARIABLE_SIZE if len(shape) == 2 else DimensionProperty.NONE
    dimensions = first, *(DimensionProperty.NONE,) * (len(shape) - 1)
    return ObservationSpec(shape, dimensions, ObservationType.DEFAULT, str(shape))


class Networks(nn.Module):
    """An actor on an image and a vector, and a critic, on the actor's encoder or on its own."""

    def __init__(self, *, shared: bool, vector: bool = True, entities: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        seen = [observed((5, 3) if entities else (3, 20, 20)), *([observed((4,))] if vector else [])]
        layout = FeatureLayout("B", BehaviorSpec(seen, ActionSpec(2, (3,))))
        self.size = layout.size
        self.actor = Actor(layout, ActionSpec(2, (3,)), SETTINGS)
        self.encoder: Any = self.actor.encoder
        self.critic = Critic(layout, SETTINGS, 2, self.encoder if shared else None)

    def features(self) -> Tensor:
        return torch.rand(ROWS, self.size, generator=torch.Generator().manual_seed(1))


def plain_loss(n: Networks, x: Tensor) -> Any:
    mean, log_std, logits = n.actor(x)
    with torch.no_grad():
        targets = n.critic(x * 0.5)
    return (mean * log_std.exp()).square().mean() + logits.square().mean() + (n.critic(x) - targets).square().mean()


def loss_with_a_frozen_critic(n: Networks, x: Tensor) -> Any:
    with frozen(n.critic):
        judged = n.critic(x)
    return judged.square().mean() + n.critic(x * 2.0).mean() + n.actor(x)[0].mean()


def loss_that_calls_backward(n: Networks, x: Tensor) -> Any:
    n.critic(x).square().mean().backward(retain_graph=True)
    return n.actor(x)[0].square().mean() + n.critic(x).mean()


def hook_on_the_encoder(n: Networks, x: Tensor) -> Any:
    n.encoder.register_forward_hook(lambda module, inputs, output: 2.0 * output)
    return plain_loss(n, x)


def hook_on_an_image(n: Networks, x: Tensor) -> Any:
    n.encoder.images[0].register_forward_hook(lambda module, inputs, output: 2.0 * output)
    n.encoder.images[0].dense.weight.register_hook(lambda gradient: gradient * 0.5)
    return plain_loss(n, x)


def hook_on_the_body(n: Networks, x: Tensor) -> Any:
    n.encoder.body.layers[0].register_forward_hook(lambda module, inputs, output: 2.0 * output)
    return plain_loss(n, x)


LOSSES = [
    *(plain_loss, loss_with_a_frozen_critic, loss_that_calls_backward),
    *(hook_on_the_encoder, hook_on_an_image, hook_on_the_body),
]


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "apart"])
@pytest.mark.parametrize("arrays", [True, False], ids=["arrays", "tensors"])
@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.__name__)
def test_gradients_reach_images_and_what_comes_behind(loss: Callable[..., Any], arrays: bool, shared: bool) -> None:
    compare_gradients(loss, arrays, shared=shared)


@pytest.mark.parametrize("vector", [True, False], ids=["vector beside", "alone"])
@pytest.mark.parametrize("arrays", [True, False], ids=["arrays", "tensors"])
@pytest.mark.parametrize("loss", [plain_loss, loss_with_a_frozen_critic, hook_on_the_body], ids=lambda x: x.__name__)
def test_gradients_reach_attention_and_what_comes_behind(loss: Callable[..., Any], arrays: bool, vector: bool) -> None:
    compare_gradients(loss, arrays, shared=False, entities=True, vector=vector)


def compare_gradients(loss: Callable[..., Any], arrays: bool, **kind: bool) -> None:
    """Compare what a scope computes with what torch does."""
    results = []
    for scope in (None, LossScope(arrays=arrays)):
        networks = Networks(**kind)
        with scope or nullcontext():
            total = loss(networks, networks.features())
        (scope.backward if scope else Tensor.backward)(total)
        results.append((total.detach(), {name: p.grad for name, p in networks.named_parameters()}))
    (wanted_loss, wanted), (found_loss, found) = results
    torch.testing.assert_close(found_loss, wanted_loss, rtol=1e-4, atol=1e-5)
    for name, gradient in wanted.items():
        assert (gradient is None) == (found[name] is None), name
        if gradient is not None:
            size = float(gradient.abs().max())
            torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-5 * size + 1e-7, msg=name)


@pytest.mark.parametrize("vector", [True, False])
def test_outputs_are_arrays_and_images_are_encoded_once_for_all(vector: bool) -> None:
    networks, encoded = Networks(shared=True, vector=vector), []
    image = networks.encoder.images[0]
    forward = image.forward
    image.forward = lambda pixels: encoded.append(len(pixels)) or forward(pixels)
    x, scope = networks.features(), LossScope(arrays=True)
    with scope:
        assert type(networks.actor(x).mean) is type(networks.critic(x)) is ArrayTensor
    assert encoded == [ROWS]
    assert not scope.fallbacks


def test_bytes_of_images_are_read_as_by_torch() -> None:
    networks = Networks(shared=False, vector=False)
    x = torch.randint(0, 256, (ROWS, networks.size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    wanted = networks.critic(x)
    with LossScope(arrays=True):
        found = networks.critic(x)
    assert type(found) is ArrayTensor
    torch.testing.assert_close(found.detach(), wanted.detach(), rtol=1e-4, atol=1e-5)


def test_networks_with_images_are_called_to_act() -> None:
    networks = Networks(shared=False)
    assert networks.actor.compute(networks.features().numpy()) is None
