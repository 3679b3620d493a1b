from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from mlagents_envs.base_env import ActionSpec
from torch import Tensor
from torch.nn import functional

from mlhooks.nn.features import FeatureLayout
from mlhooks.nn.losses import huber
from mlhooks.nn.networks import QNetwork
from mlhooks.nn.tape import GradientTape
from tests.steps import make_spec

FEATURES = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
INDEX = torch.stack([torch.arange(40) % 3, 3 + torch.arange(40) % 2], 1)  # branches of 3 and 2 actions
TARGETS = torch.linspace(-4, 4, 40)[:, None]
COUNTS = torch.arange(40) % 4 > 0

Build = Callable[[Tensor, Tensor, QNetwork], Tensor]


def make_network(dueling: bool) -> QNetwork:
    torch.manual_seed(1)
    settings = SimpleNamespace(
        hidden_units=16, num_layers=2, activation="relu", initialization="orthogonal", goal_conditioning_type="none"
    )
    layout = FeatureLayout("B", make_spec(observation=3))
    return QNetwork(layout, ActionSpec(0, (3, 2)), settings, dueling=dueling)  # type: ignore[arg-type]


def traced(values: Tensor, mask: Tensor | None) -> Tensor:
    """The loss as autograd sees it."""
    errors = functional.smooth_l1_loss(values.gather(1, INDEX), TARGETS.expand(40, 2), reduction="none", beta=1.0)
    return errors.mean() if mask is None else errors[mask].mean()


BUILDS: dict[str, Build] = {
    "alone": lambda loss, values, network: loss,
    "scaled and with another pass": lambda loss, values, network: 3.0 * loss + network(FEATURES).square().mean(),
    "with the same values": lambda loss, values, network: loss + values.square().mean(),
    "squared": lambda loss, values, network: loss.square(),
    "ignored": lambda loss, values, network: values.mean() + 0.0 * loss.detach(),
}


@pytest.mark.parametrize("build", BUILDS.values(), ids=BUILDS)
@pytest.mark.parametrize("dueling", [False, True])
@pytest.mark.parametrize("taped", [False, True])
@pytest.mark.parametrize("mask", [None, COUNTS], ids=["all rows", "some rows"])
def test_huber_has_the_value_and_the_gradients_of_autograd(
    build: Build, dueling: bool, taped: bool, mask: Tensor | None
) -> None:
    network, reference = make_network(dueling), make_network(dueling)
    values = reference(FEATURES)
    expected = build(traced(values, mask), values, reference)
    expected.backward()
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    tape = GradientTape()
    if taped:
        with tape:
            values = network(FEATURES)
            loss = build(huber(values, INDEX, TARGETS, mask)[0], values, network)
        tape.backward(loss)
    else:
        values = network(FEATURES)
        loss = build(huber(values, INDEX, TARGETS, mask)[0], values, network)
        loss.backward()
    torch.testing.assert_close(loss.detach(), expected.detach())
    for parameter, wanted in zip(network.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, torch.zeros_like(wanted) if wanted.grad is None else wanted.grad)


def test_huber_gives_the_values_that_count() -> None:
    values = torch.arange(6.0).reshape(2, 3)
    _, chosen = huber(values, torch.tensor([[2], [0]]), torch.zeros(2, 1))
    assert chosen.tolist() == [[2.0], [3.0]]
