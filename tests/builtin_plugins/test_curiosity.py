"""Curiosity beside the same formulas in plain torch, and the values that they have by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from mlhooks.testing.specs import make_behavior_spec
from mlhooks.training.batch import Batch
from tests.builtin_plugins.learned_signals import (
    KINDS,
    encoded,
    flat,
    gradients_of,
    headed,
    parameters_of,
    rows_of,
    signal_of,
)


def by_torch(signal: Any, batch: Batch, p: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Return the rewards [rows] before the cap, and the mean errors of the forward and the inverse model."""
    spec = signal.behavior_spec
    now, following = encoded(p, "encoder", batch.obs), encoded(p, "encoder", batch.next_obs)
    known = torch.cat([now, flat(batch, spec)], 1)
    guess = headed(p, "forward", encoded(p, "forward", known, 1))
    rewards = 0.5 * ((following - guess) ** 2).sum(1)
    hidden = encoded(p, "inverse", torch.cat([now, following], 1), 1)
    inverse, head = torch.zeros(()), 0
    if spec.action_spec.continuous_size:
        inverse = inverse + ((batch.continuous - headed(p, "inverse", hidden)) ** 2).sum(1).mean()
        head += 1
    if spec.action_spec.discrete_size:
        logits = headed(p, "inverse", hidden, head).split(list(spec.action_spec.discrete_branches), 1)
        taken = [part.softmax(1)[range(len(batch)), batch.discrete[:, i]] for i, part in enumerate(logits)]
        inverse = inverse - sum((t + 1e-10).log() for t in taken).mean()
    return rewards, rewards.mean(), inverse


@pytest.mark.parametrize("kind", KINDS)
def test_rewards_losses_and_gradients_are_those_of_plain_torch(kind: str) -> None:
    signal = signal_of("curiosity", make_behavior_spec((4,), **KINDS[kind]))
    batch, p = rows_of(signal), parameters_of(signal)
    rewards, forward, inverse = by_torch(signal, batch, p)
    (10 * (0.2 * forward + 0.8 * inverse)).backward()
    found = gradients_of(signal, batch)
    assert found.keys() == p.keys()
    for name, gradient in found.items():
        assert torch.allclose(gradient, p[name].grad, rtol=1e-4, atol=1e-6), name
        assert gradient.any()
    signal.strength = 0.01  # The cap is far away.
    assert torch.allclose(signal.evaluate(batch), rewards, rtol=1e-5)
    losses = signal.update(batch)
    assert losses["Losses/Curiosity Forward Loss"].item() == pytest.approx(forward.item(), rel=1e-5)
    assert losses["Losses/Curiosity Inverse Loss"].item() == pytest.approx(inverse.item(), rel=1e-5)


def set_to(linear: torch.nn.Linear, *outputs: float) -> None:
    """Let a layer return these numbers for all inputs."""
    with torch.no_grad():
        linear.weight.zero_()
        linear.bias.copy_(torch.tensor(outputs))


def test_values_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    signal = signal_of("curiosity", make_behavior_spec((2,), branches=(2,)), network={"hidden_units": 2})
    batch = rows_of(signal)
    # What follows has the encoding (1, 2), and (0, 0) is predicted; either action is as probable as the other.
    following = torch.tensor([[1.0, 2.0]]).expand(len(batch), 2)
    monkeypatch.setattr(signal, "encodings", lambda batch: (torch.zeros_like(following), following))
    set_to(signal.forward.heads[0], 0.0, 0.0)
    set_to(signal.inverse.heads[0], 0.0, 0.0)
    assert signal.evaluate(batch).tolist() == [0.0] * len(batch)  # There was no update yet.
    signal.descent.set_learning_rate(0.0)
    losses = signal.update(batch)
    assert losses["Losses/Curiosity Forward Loss"].item() == pytest.approx(2.5)
    assert losses["Losses/Curiosity Inverse Loss"].item() == pytest.approx(math.log(2))
    assert signal.loss(batch)["loss"].item() == pytest.approx(5.0 + 8.0 * math.log(2), abs=1e-4)  # 10.5452
    for strength, reward, shown in ((1.0, 1.0, 1.0), (0.1, 0.25, 2.5)):
        signal.strength = strength
        assert signal.evaluate(batch)[0].item() == pytest.approx(shown)
        assert signal.rewards(batch)[0].item() == pytest.approx(reward)


def test_several_branches_and_continuous_actions_add_up() -> None:
    signal = signal_of("curiosity", make_behavior_spec((2,), continuous=2, branches=(2, 4)))
    batch = rows_of(signal, 1, continuous=torch.tensor([[1.0, -2.0]]))
    errors = signal.inverse_errors(batch, [torch.tensor([[0.0, 0.0]]), torch.zeros(1, 6)])
    assert errors.item() == pytest.approx(5.0 + math.log(2) + math.log(4))


def test_encoding_learns_where_it_is_predicted_too() -> None:
    signal = signal_of("curiosity", make_behavior_spec((3,), branches=(2,)))
    batch = rows_of(signal)
    now, following = signal.encodings(batch)
    signal.errors(batch, now.detach(), following).sum().backward()
    assert any(p.grad is not None and p.grad.any() for p in signal.encoding.parameters())


def test_normalizer_only_clips_as_in_ml_agents() -> None:
    signal = signal_of("curiosity", network={"normalize": True})
    batch = rows_of(signal)
    signal.update(batch)
    assert signal.normalizer.count.item() == 0
    assert signal.features(torch.tensor([[7.0, -9.0, 1.0, 0.5]])).tolist() == [[5.0, -5.0, 1.0, 0.5]]
    assert "normalizer" in signal.modules()


def test_initial_weights_are_ml_agents(monkeypatch: pytest.MonkeyPatch) -> None:
    signal = signal_of("curiosity", network={"hidden_units": 128})
    hidden, head = signal.inverse.encoder.layers[0].weight, signal.inverse.heads[0].weight
    assert hidden.shape == (256, 256)
    assert hidden.std().item() == pytest.approx(1 / 16, rel=0.03)
    assert head.abs().max().item() <= math.sqrt(6 / (256 + 3))
    assert head.std().item() == pytest.approx(math.sqrt(2 / (256 + 3)), rel=0.1)
    assert signal.forward.encoder.layers[0].weight.shape == (256, 128 + 3)
    assert signal.forward.heads[0].weight.shape == (128, 256)
