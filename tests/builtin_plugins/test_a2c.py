from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from builtin_plugins.a2c import A2COptimizer, A2CSettings
from mlhooks.settings import TrainerSettings
from mlhooks.training.batch import Batch
from mlhooks.training.policy import ActorPolicy
from tests.steps import make_spec

ROWS = 7
SPEC = make_spec(observation=3, continuous=2, branches=(3,))


def make_optimizer(**hyperparameters: Any) -> A2COptimizer:
    torch.manual_seed(0)
    settings = TrainerSettings(
        trainer_type="a2c",
        hyperparameters=A2CSettings(batch_size=7, buffer_size=7, beta=0.02, **hyperparameters),
        network_settings={"hidden_units": 8, "num_layers": 1, "activation": "tanh"},
        reward_signals={"extrinsic": {}, "other": {}},
        max_steps=1000,
    )
    return A2COptimizer(ActorPolicy("B", SPEC, settings, torch.device("cpu")), settings)


def make_batch() -> Batch:
    g = torch.Generator().manual_seed(1)
    mask = torch.zeros(ROWS, 3, dtype=torch.bool)
    mask[::2, 1] = True
    return Batch(
        features=torch.randn(ROWS, 3, generator=g),
        continuous=torch.randn(ROWS, 2, generator=g),
        discrete=torch.full((ROWS, 1), 2),
        mask=mask,
        returns=torch.randn(ROWS, 2, generator=g),
        advantages=torch.randn(ROWS, 1, generator=g),
    )


@pytest.mark.parametrize("joint", [True, False])
@pytest.mark.parametrize("normalize", ["minibatch", "none"])
def test_loss_and_gradient_equal_an_independent_calculation(normalize: str, joint: bool) -> None:
    coefficient = 0.25 if joint else 0.5  # The latter is the default.
    settings = {"normalize_advantages": normalize, "joint_actions": joint, "value_coefficient": coefficient}
    assert A2CSettings().value_coefficient == 0.5
    optimizer, batch = make_optimizer(**settings), make_batch()
    losses = optimizer.loss(batch)
    optimizer.flat.grad.zero_()
    losses["loss"].backward()

    other = make_optimizer(**settings)
    actor, critic = other.policy.actor.double(), other.critic.double()
    advantages = batch.advantages[:, 0].double().tolist()
    if normalize == "minibatch":
        mean = sum(advantages) / ROWS
        deviation = math.sqrt(sum((a - mean) ** 2 for a in advantages) / ROWS)
        advantages = [(a - mean) / (deviation + 1e-8) for a in advantages]
    expected = torch.zeros(()).double()
    for i in range(ROWS):
        p = actor(batch.features[i : i + 1].double())
        allowed = [c for c in range(3) if not bool(batch.mask[i, c])] if batch.mask is not None else []
        weights = {c: torch.exp(p.logits[0, c]) for c in allowed}
        total = sum(weights.values())
        log_prob = torch.log(weights[2] / total)
        entropy = -sum(w / total * torch.log(w / total) for w in weights.values())
        for j, log_std in enumerate(p.log_std):
            distance = batch.continuous[i, j].double() - p.mean[0, j]
            log_prob = log_prob - log_std - math.log(2 * math.pi) / 2 - distance**2 / (2 * torch.exp(2 * log_std))
            own = 0.5 * math.log(2 * math.pi * math.e) + log_std
            entropy = entropy + (own if joint else own / 2)  # ML-Agents takes the mean over continuous actions
        errors = (critic(batch.features[i : i + 1].double())[0] - batch.returns[i].double()) ** 2
        expected = expected - log_prob * advantages[i] + coefficient * errors.sum() / 2 - 0.02 * entropy
    expected = expected / ROWS
    expected.backward()

    assert float(losses["loss"].detach()) == pytest.approx(float(expected.detach()), rel=1e-5, abs=1e-6)
    pairs = zip(
        [*optimizer.policy.actor.parameters(), *optimizer.critic.parameters()],
        [*actor.parameters(), *critic.parameters()],
        strict=True,
    )
    for ours, theirs in pairs:
        assert ours.grad is not None
        assert theirs.grad is not None
        torch.testing.assert_close(ours.grad.double(), theirs.grad, rtol=1e-3, atol=1e-6)


def test_advantages_are_constants_of_the_policy_loss() -> None:
    optimizer, batch = make_optimizer(), make_batch()
    optimizer.flat.grad.zero_()
    optimizer.loss(batch)["Losses/Policy Loss"].backward()
    assert all(p.grad is not None and not p.grad.any() for p in optimizer.critic.parameters())


def test_more_than_one_pass_over_a_rollout_is_refused() -> None:
    with pytest.raises(ValueError, match="num_epoch"):
        A2CSettings(num_epoch=2)
