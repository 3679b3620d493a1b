from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from mlagents_envs.base_env import ActionSpec

from mlhooks.nn.features import FeatureLayout
from mlhooks.nn.layers import MLP
from mlhooks.nn.mirror import ACTIVATIONS, LARGE, Mirror
from mlhooks.nn.networks import Actor, Critic
from mlhooks.nn.recorded import Recorded
from mlhooks.nn.tape import GradientTape
from tests.steps import make_spec

LAYOUT = FeatureLayout("B", make_spec(observation=6))


def make_settings(activation: str) -> Any:
    return SimpleNamespace(
        hidden_units=32,
        num_layers=3,
        activation=activation,
        initialization="kaiming_he",
        goal_conditioning_type="hyper",
    )


def make_actor(activation: str, spec: ActionSpec) -> Actor:
    torch.manual_seed(0)
    return Actor(LAYOUT, spec, make_settings(activation))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("spec", [ActionSpec(2, (3, 2)), ActionSpec(3, ()), ActionSpec(0, (5,))], ids=str)
def test_mirror_computes_what_the_actor_computes(activation: str, spec: ActionSpec) -> None:
    actor = make_actor(activation, spec)
    assert Mirror.supports(actor.encoder)
    heads = actor.heads.linear()
    features = np.random.default_rng(0).normal(0, 30, (17, 6)).astype(np.float32)
    expected = actor(torch.from_numpy(features))
    wanted = [part for part in (expected.mean, expected.logits) if part is not None]
    for ours, theirs in zip(Mirror(actor.encoder, heads)(features), wanted, strict=True):
        np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=2e-5, atol=2e-5)


def test_mirror_follows_the_weights_without_being_told() -> None:
    actor = make_actor("tanh", ActionSpec(1, ()))
    assert isinstance(actor.encoder, MLP)
    assert actor.heads.mean is not None
    mirror = Mirror(actor.encoder, [actor.heads.mean])
    with torch.no_grad():
        for parameter in actor.parameters():
            parameter.mul_(0.5)
    features = np.ones((2, 6), np.float32)
    expected = actor(torch.from_numpy(features)).mean.detach().numpy()
    np.testing.assert_allclose(mirror(features)[0], expected, rtol=1e-5)


def test_actor_with_other_layers_is_left_to_torch() -> None:
    assert not Mirror.supports(torch.nn.Linear(2, 2))


class Networks(torch.nn.Module):
    """An actor, and a critic with two heads on the actor's encoder."""

    def __init__(self, activation: str) -> None:
        super().__init__()
        self.actor = make_actor(activation, ActionSpec(2, (3,)))
        assert isinstance(self.actor.encoder, MLP)
        self.critic = Critic(LAYOUT, make_settings(activation), 2, self.actor.encoder)
        self.frozen = self.actor.encoder.layers[1].weight
        self.frozen.requires_grad_(False)

    def loss(self, features: torch.Tensor) -> torch.Tensor:
        mean, log_std, logits = self.actor(features)
        with torch.no_grad():
            targets = self.critic(features * 0.5)
        errors = (self.critic(features) - targets).square().sum()
        return errors + (mean * log_std.exp()).pow(3).sum() + torch.log_softmax(logits, 1)[:, 1].sum()

    def gradients(self) -> dict[str, torch.Tensor | None]:
        return {name: None if p.grad is None else p.grad.clone() for name, p in self.named_parameters()}


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradients_on_the_tape_are_those_of_autograd(activation: str) -> None:
    networks, tape = Networks(activation), GradientTape()
    features = torch.from_numpy(np.random.default_rng(0).normal(0, 2, (50, 6)).astype(np.float32))
    wanted_loss = networks.loss(features)
    wanted_loss.backward()
    wanted = networks.gradients()
    for _ in range(2):  # the second time with the mirrors that the tape has made
        for parameter in networks.parameters():
            parameter.grad = torch.ones_like(parameter)  # gradients are added to what is there
        with tape:
            loss = networks.loss(features)
        tape.backward(loss)
        torch.testing.assert_close(loss.detach(), wanted_loss.detach(), rtol=1e-4, atol=1e-3)
        for name, gradient in networks.gradients().items():
            assert gradient is not None
            expected = wanted[name]
            size = 1.0 if expected is None else expected.abs().max().item()
            there = 1.0 if expected is None else 1.0 + expected
            torch.testing.assert_close(gradient, gradient * 0 + there, rtol=1e-4, atol=1e-4 * size, msg=name)


def test_tape_leaves_other_networks_large_batches_and_needed_inputs_to_autograd() -> None:
    heads = [torch.nn.Linear(8, 2)]
    plain, other = MLP(6, 8, 1, "tanh", "orthogonal"), torch.nn.Linear(6, 8)
    rows = torch.ones(3, 6)
    cases = [(other, rows), (plain, torch.ones(LARGE // 8 + 1, 6)), (plain, torch.ones(3, 6, requires_grad=True))]
    with GradientTape() as tape:
        for encoder, features in cases:
            (output,) = tape.outputs(encoder, heads, features)
            assert isinstance(output, torch.Tensor)
        assert isinstance(tape.outputs(plain, heads, rows)[0], Recorded)


def test_tape_is_left_when_a_loss_raises() -> None:
    plain, heads = MLP(6, 8, 1, "tanh", "orthogonal"), [torch.nn.Linear(8, 2)]
    with pytest.raises(ValueError, match="mine"), GradientTape():
        raise ValueError("mine")
    assert isinstance(GradientTape.outputs(plain, heads, torch.ones(3, 6))[0], torch.Tensor)


def test_encoder_that_two_share_is_asked_once_for_the_same_features() -> None:
    asked = []

    class Other(torch.nn.Linear):
        def forward(self, features: torch.Tensor) -> torch.Tensor:
            asked.append(torch.is_grad_enabled())
            return super().forward(features)

    encoder, heads, rows = Other(6, 8), [torch.nn.Linear(8, 2)], torch.ones(3, 6)
    for _ in range(2):  # what an earlier loss asked for is forgotten
        with GradientTape() as tape:
            first, second = (tape.outputs(encoder, heads, rows)[0] for _ in range(2))
            tape.outputs(encoder, heads, rows.clone())
            with torch.no_grad():
                assert not tape.outputs(encoder, heads, rows)[0].requires_grad
        torch.testing.assert_close(first, second)
    assert asked == [True, True, False] * 2
