from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mlagents_envs.base_env import BehaviorSpec

from builtin_plugins.ppo import PPOOptimizer, PPOSettings
from mlhooks import hookimpl
from mlhooks.errors import NonFiniteError
from mlhooks.settings import TrainerSettings
from mlhooks.training.batch import Batch
from mlhooks.training.policy import ActorPolicy
from tests.scripted import Env, config, train
from tests.steps import make_spec

ROWS = 12


def make_optimizer(spec: BehaviorSpec, signals: int = 1, **hyperparameters: object) -> PPOOptimizer:
    torch.manual_seed(0)
    settings = TrainerSettings(
        trainer_type="ppo",
        hyperparameters=PPOSettings(batch_size=4, buffer_size=12, beta=0.01, epsilon=0.2, **hyperparameters),
        network_settings={"hidden_units": 8, "num_layers": 1, "activation": "tanh"},
        reward_signals={f"signal{i}": {"gamma": 0.9} for i in range(signals)},
        max_steps=1000,
    )
    return PPOOptimizer(ActorPolicy("B", spec, settings, torch.device("cpu")), settings)


def make_batch(spec: BehaviorSpec, signals: int, *, masked: bool) -> Batch:
    g = torch.Generator().manual_seed(1)
    action = spec.action_spec
    mask = torch.zeros(ROWS, sum(action.discrete_branches), dtype=torch.bool)
    mask[::2, 1:2] = True
    return Batch(
        features=torch.randn(ROWS, 3, generator=g),
        continuous=torch.randn(ROWS, action.continuous_size, generator=g),
        discrete=torch.zeros(ROWS, len(action.discrete_branches), dtype=torch.int64),
        mask=mask if masked else None,
        log_probs=torch.randn(ROWS, action.continuous_size + action.discrete_size, generator=g) - 2.0,
        values=torch.randn(ROWS, signals, generator=g),
        returns=torch.randn(ROWS, signals, generator=g),
        advantages=torch.randn(ROWS, 1, generator=g),
    )


def scalar_loss(
    optimizer: PPOOptimizer,
    batch: Batch,
    spec: BehaviorSpec,
    *,
    clip_values: bool,
    joint: bool,
    coefficient: float = 0.5,
    clip_range: float | None = None,
) -> torch.Tensor:
    """Return PPO's loss row by row and number by number, from the paper's formulas in double precision.

    Without `joint` it has a ratio for each action dimension, and the mean of continuous entropies, as in ML-Agents.
    With `clip_range` estimates are clipped as in Stable-Baselines3, whatever the error without.
    """
    actor, critic = optimizer.policy.actor.double(), optimizer.critic.double()
    epsilon, beta = 0.2, 0.01
    advantages = batch.advantages[:, 0].double().tolist()
    mean = sum(advantages) / ROWS
    deviation = math.sqrt(sum((a - mean) ** 2 for a in advantages) / ROWS)
    policy_terms, value_terms, entropy_terms = [], [], []
    for i in range(ROWS):
        parameters = actor(batch.features[i : i + 1].double())
        log_probs, entropy = [], torch.zeros(()).double()
        continuous = spec.action_spec.continuous_size
        for j in range(continuous):
            mu, log_std, a = parameters.mean[0, j], parameters.log_std[j], batch.continuous[i, j].double()
            log_probs.append(-((a - mu) ** 2) / (2 * torch.exp(log_std) ** 2) - log_std - math.log(2 * math.pi) / 2)
            entropy = entropy + (0.5 * math.log(2 * math.pi * math.e) + log_std) / (1 if joint else continuous)
        start = 0
        for branch, size in enumerate(spec.action_spec.discrete_branches):
            allowed = [c for c in range(start, start + size) if batch.mask is None or not bool(batch.mask[i, c])]
            weights = {c: torch.exp(parameters.logits[0, c]) for c in allowed}
            total = sum(weights.values())
            log_probs.append(torch.log(weights[start + int(batch.discrete[i, branch])] / total))
            entropy = entropy - sum(w / total * torch.log(w / total) for w in weights.values())
            start += size
        ratios = [torch.exp(new - old) for new, old in zip(log_probs, batch.log_probs[i].double(), strict=True)]
        advantage = (advantages[i] - mean) / (deviation + 1e-8)
        for ratio in [torch.stack(ratios).prod()] if joint else ratios:
            surrogate = ratio * advantage
            if (advantage > 0 and ratio > 1 + epsilon) or (advantage < 0 and ratio < 1 - epsilon):
                surrogate = torch.tensor((1 + epsilon if advantage > 0 else 1 - epsilon) * advantage)
            policy_terms.append(surrogate)
        values = critic(batch.features[i : i + 1].double())[0]
        for s in range(batch.values.shape[1]):
            target, old = batch.returns[i, s].double(), batch.values[i, s].double()
            value = values[s]
            if clip_range is not None and abs(value - old) > clip_range:
                value = old + math.copysign(clip_range, float(value.detach() - old))
            error = (value - target) ** 2
            if clip_values:
                near = old + max(min(values[s] - old, epsilon), -epsilon)
                error = max(error, (near - target) ** 2)
            value_terms.append(error)
        entropy_terms.append(entropy)
    policy_loss = -sum(policy_terms) / len(policy_terms)
    value_loss = sum(value_terms) / len(value_terms)
    return policy_loss + coefficient * value_loss - beta * sum(entropy_terms) / ROWS


@pytest.mark.parametrize("joint", [True, False])
@pytest.mark.parametrize("clip_values", [True, False])
@pytest.mark.parametrize(
    ("continuous", "branches", "masked", "signals"),
    [(2, (), False, 1), (0, (3,), True, 1), (0, (3, 2), False, 2), (2, (3, 2), True, 2)],
    ids=["continuous", "masked", "branches", "hybrid"],
)
def test_loss_and_gradient_equal_an_independent_calculation(
    continuous: int, branches: tuple[int, ...], masked: bool, signals: int, clip_values: bool, joint: bool
) -> None:
    spec = make_spec(observation=3, continuous=continuous, branches=branches)
    optimizer = make_optimizer(
        spec, signals, value_clipping=clip_values, joint_actions=joint, normalize_advantages="minibatch"
    )
    batch = make_batch(spec, signals, masked=masked)
    losses = optimizer.loss(batch)
    optimizer.flat.grad.zero_()
    losses["loss"].backward()
    ours = {
        name: p.grad.clone()
        for module in (optimizer.policy.actor, optimizer.critic)
        for name, p in ((f"{id(module)}.{n}", p) for n, p in module.named_parameters())
    }
    other = make_optimizer(
        spec, signals, value_clipping=clip_values, joint_actions=joint, normalize_advantages="minibatch"
    )
    expected = scalar_loss(other, batch, spec, clip_values=clip_values, joint=joint)
    expected.backward()
    assert float(losses["loss"].detach()) == pytest.approx(float(expected.detach()), rel=1e-4)
    theirs = [p.grad for module in (other.policy.actor, other.critic) for p in module.parameters()]
    for a, b in zip(ours.values(), theirs, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-3, atol=1e-5)
    assert any(bool(gradient.abs().max() > 1e-3) for gradient in theirs)


@pytest.mark.parametrize(("coefficient", "clip_range"), [(0.19, None), (0.0, None), (1.5, 0.4)])
def test_value_loss_is_weighted_and_clipped_as_asked(coefficient: float, clip_range: float | None) -> None:
    spec = make_spec(observation=3, continuous=2)
    asked = {"value_coefficient": coefficient, "value_clip_range": clip_range, "normalize_advantages": "minibatch"}
    optimizer, other = make_optimizer(spec, 1, **asked), make_optimizer(spec, 1, **asked)
    batch = make_batch(spec, 1, masked=False)
    optimizer.flat.grad.zero_()
    optimizer.loss(batch)["loss"].backward()
    expected = scalar_loss(
        other, batch, spec, clip_values=False, joint=False, coefficient=coefficient, clip_range=clip_range
    )
    expected.backward()
    for found, wanted in zip(optimizer.critic.parameters(), other.critic.parameters(), strict=True):
        torch.testing.assert_close(found.grad.double(), wanted.grad, rtol=1e-3, atol=1e-6)
    whole = [float(p.grad.abs().max()) for p in other.critic.parameters()]
    assert (max(whole) > 1e-3) == (coefficient > 0)
    if clip_range is not None:
        errors = (optimizer.estimate(batch.features) - batch.values).abs()
        assert bool((errors > clip_range).any())
        assert bool((errors < clip_range).any())


def moved_batch(optimizer: PPOOptimizer, spec: BehaviorSpec, by: float) -> tuple[Batch, float]:
    """Return a batch from whose policy the present one has moved, and the divergence by Schulman's k3 by hand."""
    batch = make_batch(spec, 1, masked=False)
    now = optimizer.policy.evaluate(batch)[0].detach()
    shifts = by * torch.linspace(-1.0, 2.0, now.numel()).view_as(now)
    ratios = [math.exp(sum(row)) for row in shifts.tolist()]
    divergence = sum(ratio - 1.0 - math.log(ratio) for ratio in ratios) / len(ratios)
    return replace(batch, log_probs=now - shifts), divergence


def test_update_beyond_the_target_of_the_divergence_takes_no_step_and_ends_the_epochs() -> None:
    spec = make_spec(observation=3, continuous=2)
    batch, divergence = moved_batch(make_optimizer(spec), spec, 0.3)
    for target, ends in ((divergence / 1.5 * 1.01, False), (divergence / 1.5 * 0.99, True), (None, False)):
        optimizer = make_optimizer(spec, target_kl=target)
        optimizer.set_step(0)
        before = optimizer.flat.data.clone()
        reported = optimizer.update(batch)
        assert optimizer.ends_epochs == ends
        assert torch.equal(optimizer.flat.data, before) == ends == (not reported)


def test_rollout_is_left_where_the_divergence_exceeds_its_target(tmp_path: Path) -> None:
    calls: list[bool] = []

    class Count:
        @hookimpl
        def behavior_added(self, trainer: Any) -> None:
            update = trainer.optimizer.update

            def counted(batch: Batch) -> Any:
                reported = update(batch)
                calls.append(trainer.optimizer.ends_epochs)
                return reported

            trainer.optimizer.update = counted

    asked = {"learning_rate": 0.1, "num_epoch": 10, "batch_size": 20, "buffer_size": 100, "target_kl": 0.01}
    run = train(config("Corridor", "test:x", hyperparameters=asked), tmp_path, Env(), Count())
    assert run.trainers["Corridor"].updates == 6
    assert calls.count(True) > 0
    assert len(calls) < 6 * 50


def test_gradient_ascends_what_was_better_than_expected() -> None:
    spec = make_spec(observation=3, continuous=0, branches=(2,))
    optimizer = make_optimizer(spec, learning_rate=0.05)
    features = torch.zeros(4, 3)
    batch = Batch(
        features=features,
        continuous=torch.zeros(4, 0),
        discrete=torch.tensor([[0], [1], [0], [1]]),
        log_probs=torch.full((4, 1), math.log(0.5)),
        values=torch.zeros(4, 1),
        returns=torch.tensor([[1.0], [-1.0], [1.0], [-1.0]]),
        advantages=torch.tensor([[1.0], [-1.0], [1.0], [-1.0]]),
    )
    before = torch.softmax(optimizer.policy.actor(features[:1]).logits, 1)[0, 0].item()
    optimizer.set_step(0)
    optimizer.update(batch)
    after = torch.softmax(optimizer.policy.actor(features[:1]).logits, 1)[0, 0].item()
    assert after > before + 0.005


def test_schedules_fall_linearly_to_their_minima() -> None:
    optimizer = make_optimizer(make_spec(observation=3), learning_rate=1e-3)
    optimizer.set_step(500)
    assert optimizer.torch_optimizer.param_groups[0]["lr"] == pytest.approx(0.5e-3, rel=1e-6)
    assert optimizer.epsilon(500) == pytest.approx(0.15)
    assert optimizer.beta(1000) == pytest.approx(1e-5)
    assert optimizer.epsilon(5000) == pytest.approx(0.1)


def test_schedules_fall_to_what_is_asked_for() -> None:
    asked = {"learning_rate_final": 0.0, "epsilon_final": 0.0, "beta_final": 0.0}
    optimizer = make_optimizer(make_spec(observation=3), learning_rate=1e-3, **asked)
    optimizer.set_step(750)
    assert optimizer.torch_optimizer.param_groups[0]["lr"] == pytest.approx(0.25e-3, rel=1e-9)
    assert optimizer.epsilon(750) == pytest.approx(0.05)
    assert optimizer.beta(750) == pytest.approx(0.0025)
    optimizer.set_step(1000)
    assert optimizer.torch_optimizer.param_groups[0]["lr"] == optimizer.epsilon(1000) == optimizer.beta(2000) == 0.0


def test_shared_critic_reads_the_encoder_of_the_actor() -> None:
    optimizer = make_optimizer(make_spec(observation=3), shared_critic=True)
    assert optimizer.critic.encoder is optimizer.policy.actor.encoder
    separate = make_optimizer(make_spec(observation=3))
    assert separate.flat.data.numel() > optimizer.flat.data.numel()
    actor = list(separate.policy.actor.parameters())
    assert not any(p is q for p in separate.critic.parameters() for q in actor)


def test_non_finite_loss_stops_before_the_step_and_names_its_source() -> None:
    spec = make_spec(observation=3, continuous=1)
    optimizer = make_optimizer(spec)
    batch = make_batch(spec, 1, masked=False)
    batch.returns[3, 0] = math.nan
    before = optimizer.flat.data.clone()
    optimizer.set_step(77)
    with pytest.raises(NonFiniteError, match=r"Losses/Value Loss = nan.*at step 77"):
        optimizer.update(batch)
    assert torch.equal(before, optimizer.flat.data)


def test_minibatches_hold_every_row_once() -> None:
    batch = make_batch(make_spec(observation=3), 1, masked=False)
    parts = list(batch.minibatches(5, np.random.default_rng(0)))
    assert [len(part) for part in parts] == [6, 6]
    seen = torch.cat([part.advantages for part in parts]).sort(0).values
    torch.testing.assert_close(seen, batch.advantages.sort(0).values)
    both = torch.cat([part.features for part in parts])
    order = [int((batch.features == row).all(1).nonzero()) for row in both]
    torch.testing.assert_close(torch.cat([part.advantages for part in parts]), batch.advantages[order])
