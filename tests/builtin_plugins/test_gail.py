"""GAIL beside the same formulas in plain torch, and the values that they have by hand."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mlagents_envs.base_env import BehaviorSpec
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


def gail(folder: Path, spec: BehaviorSpec | None = None, **settings: Any) -> Any:
    return signal_of("gail", spec, folder=folder, **settings)


def by_torch(signal: Any, batch: Batch, p: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of the next update and what it reports, from copies of its random numbers."""
    rng, rows, spec, demo = copy.deepcopy(signal.rng), len(batch), signal.behavior_spec, signal.demonstration
    vail, scale = signal.settings.use_vail, 1.0 if signal.policy.squashes else 3.0

    def judged(x: Tensor, noise: Tensor | None) -> tuple[Tensor, Tensor]:
        mean = headed(p, "discriminator.body", encoded(p, "discriminator.body", x))
        if not vail:
            return torch.sigmoid(mean[:, 0]), mean
        assert noise is not None
        code = mean + noise * p["discriminator.sigma"]
        logit = code @ p["discriminator.estimator.weight"].T + p["discriminator.estimator.bias"]
        return torch.sigmoid(logit[:, 0]), mean

    def noise(rows: int) -> Tensor | None:
        return torch.from_numpy(rng.standard_normal((rows, 128), np.float32)) if vail else None

    drawn = rng.integers(len(demo), size=rows)
    parts = [(torch.from_numpy(demo.obs(drawn)[0]), batch.obs)]
    if signal.settings.use_actions:
        continuous, discrete = torch.from_numpy(scale * demo.continuous[drawn]), torch.from_numpy(demo.discrete[drawn])
        acts = rows_of(signal, rows, continuous=continuous, discrete=discrete)
        ends = torch.from_numpy(demo.ended[drawn]), batch.ended
        of_both = [torch.cat([flat(b, spec), e[:, None].float()], 1) for b, e in zip((acts, batch), ends, strict=True)]
        parts.append((of_both[0], of_both[1]))
    noises = noise(2 * rows)
    halves = (None, None) if noises is None else (noises[:rows], noises[rows:])
    (de, mean_e), (dp, mean_p) = (judged(torch.cat([part[i] for part in parts], 1), halves[i]) for i in (0, 1))
    loss = -torch.mean(torch.log(de + 1e-7) + torch.log(1 - dp + 1e-7))
    places = [torch.from_numpy(rng.random(tuple(policy.shape), np.float32)) for _, policy in parts]
    between = [u * policy + (1 - u) * expert for u, (expert, policy) in zip(places, parts, strict=True)]
    x = torch.cat(between, 1).requires_grad_()
    (gradient,) = torch.autograd.grad(judged(x, noise(rows))[0].sum(), x, create_graph=True)
    penalty = 10 * torch.mean((torch.sqrt((gradient**2).sum(1) + 1e-7) - 1) ** 2)
    reported = {
        "Policy/GAIL Policy Estimate": dp.mean(),
        "Policy/GAIL Expert Estimate": de.mean(),
        "Losses/GAIL Loss": loss,
        "Policy/GAIL Grad Mag Loss": penalty,
    }
    total = loss + penalty
    if vail:
        s = p["discriminator.sigma"]
        kl = torch.mean(-torch.sum(1 + torch.log(s**2) - 0.5 * mean_e**2 - 0.5 * mean_p**2 - s**2, 1))
        beta = float(signal.discriminator.beta)
        total = total + beta * (kl - 0.5)
        after = max(0.0, beta + 0.0005 * (kl.item() - 0.5))
        reported |= {"Policy/GAIL Beta": torch.tensor(after), "Losses/GAIL KL Loss": kl}
    return total, reported


@pytest.mark.parametrize("use_vail", [False, True])
@pytest.mark.parametrize("use_actions", [False, True])
@pytest.mark.parametrize(("trainer_type", "kind"), [("ppo", "hybrid"), ("sac", "continuous"), ("ppo", "branches")])
def test_losses_and_gradients_are_those_of_plain_torch(
    tmp_path: Path, trainer_type: str, kind: str, use_actions: bool, use_vail: bool
) -> None:
    spec = make_behavior_spec((4,), **KINDS[kind])
    signal = gail(tmp_path, spec, trainer_type=trainer_type, use_actions=use_actions, use_vail=use_vail)
    if use_vail:
        signal.discriminator.beta.fill_(0.3)
    batch, p = rows_of(signal), parameters_of(signal)
    state = signal.state_dict()
    loss, wanted = by_torch(signal, batch, p)
    loss.backward()
    found = gradients_of(signal, batch)
    assert found.keys() == p.keys()
    for name, gradient in found.items():
        assert torch.allclose(gradient, p[name].grad, rtol=2e-3, atol=2e-5), name
    assert all(gradient.any() for gradient in found.values())
    signal.load_state_dict(state)
    if use_vail:
        signal.discriminator.beta.fill_(0.3)
    reported = signal.update(batch)
    assert reported.keys() == wanted.keys()
    for key, value in reported.items():
        assert value.item() == pytest.approx(wanted[key].item(), rel=1e-3, abs=1e-6), key


@pytest.mark.parametrize(("probability", "reward"), [(0.5, 0.693147), (0.9, 2.302583)])
def test_reward_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, probability: float, reward: float) -> None:
    signal = gail(tmp_path)
    monkeypatch.setattr(signal.discriminator, "estimate", lambda output, noise=None: torch.full((24,), probability))
    assert signal.evaluate(rows_of(signal)).tolist() == pytest.approx([reward] * 24, abs=1e-5)


def test_reward_of_certainty_is_finite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    signal = gail(tmp_path)
    monkeypatch.setattr(signal.discriminator, "estimate", lambda output, noise=None: torch.ones(24))
    assert signal.evaluate(rows_of(signal))[0].item() == pytest.approx(-math.log(1e-7), rel=0.02)


def test_loss_and_penalty_without_knowledge_by_hand(tmp_path: Path) -> None:
    signal = gail(tmp_path)
    torch.nn.init.zeros_(signal.discriminator.body.linear_heads()[0].weight)
    losses = signal.loss(rows_of(signal))
    assert losses["Losses/GAIL Loss"].item() == pytest.approx(2 * math.log(2), abs=1e-5)  # 1.386294
    assert losses["Policy/GAIL Grad Mag Loss"].item() == pytest.approx(10 * (math.sqrt(1e-7) - 1) ** 2, rel=1e-5)


def test_penalty_of_a_linear_discriminator_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    signal = gail(tmp_path, make_behavior_spec((2, 2), branches=(3,)))
    weights = torch.tensor([[1.0], [-2.0], [2.0], [4.0]])  # Its norm is 5; both observations count.
    monkeypatch.setattr(signal.discriminator.body, "by_torch", lambda obs, beside=None: [obs @ weights])
    obs = torch.tensor([[0.0, 0.0, 0.0, 0.0], [1.0, 0.0, 0.5, 0.0]], requires_grad=True)
    slopes = [0.25, math.exp(-2) / (1 + math.exp(-2)) ** 2]
    wanted = [(math.sqrt((5 * slope) ** 2 + 1e-7) - 1) ** 2 for slope in slopes]
    assert signal.penalty(obs).item() == pytest.approx(sum(wanted) / 2, rel=1e-5)


@pytest.mark.parametrize(("mean", "divergence", "beta"), [(0.0, 0.0, 0.0), (1.0, 128.0, 0.06375)])
def test_bottleneck_by_hand(tmp_path: Path, mean: float, divergence: float, beta: float) -> None:
    signal = gail(tmp_path, use_vail=True)
    (head,) = signal.discriminator.body.linear_heads()
    torch.nn.init.zeros_(head.weight)
    torch.nn.init.constant_(head.bias, mean)
    signal.descent.set_learning_rate(0.0)
    losses = signal.update(rows_of(signal))
    assert losses["Losses/GAIL KL Loss"].item() == pytest.approx(divergence, abs=1e-4)
    assert losses["Policy/GAIL Beta"].item() == pytest.approx(beta, abs=1e-6)
    assert signal.discriminator.beta.item() == pytest.approx(beta, abs=1e-6)


def test_bottleneck_has_no_noise_in_rewards_and_its_weight_is_in_checkpoints(tmp_path: Path) -> None:
    signal = gail(tmp_path, use_vail=True)
    batch = rows_of(signal)
    state = copy.deepcopy(signal.rng.bit_generator.state)
    assert torch.equal(signal.rewards(batch), signal.rewards(batch))
    assert signal.rng.bit_generator.state == state
    assert "beta" in signal.modules()["discriminator"].state_dict()


def test_initial_weights_are_ml_agents(tmp_path: Path) -> None:
    plain = gail(tmp_path).discriminator.body.linear_heads()[0].weight
    assert plain.shape == (1, 16)
    assert plain.abs().max().item() <= 0.2 * math.sqrt(6 / 17)
    assert plain.std().item() == pytest.approx(0.2 * math.sqrt(2 / 17), rel=0.5)
    judge = gail(tmp_path, use_vail=True).discriminator
    assert judge.body.linear_heads()[0].weight.std().item() == pytest.approx(0.1 / 4, rel=0.1)
    assert judge.estimator.weight.abs().max().item() <= 0.2 * math.sqrt(6 / 129)
    assert torch.equal(judge.sigma, torch.ones(128))


@pytest.mark.parametrize(("trainer_type", "scale"), [("ppo", 3.0), ("sac", 1.0)])
def test_experts_actions_are_on_the_level_of_the_policys_samples(
    tmp_path: Path, trainer_type: str, scale: float
) -> None:
    spec = make_behavior_spec((4,), continuous=2)
    signal = gail(tmp_path, spec, trainer_type=trainer_type, use_actions=True)
    rows = copy.deepcopy(signal.rng).integers(len(signal.demonstration), size=9)
    obs, beside = signal.expert(9)
    assert torch.equal(obs, torch.from_numpy(signal.demonstration.obs(rows)[0]))
    assert torch.allclose(beside[:, :2], scale * torch.from_numpy(signal.demonstration.continuous[rows]))
    assert torch.equal(beside[:, 2], torch.from_numpy(signal.demonstration.ended[rows]).float())


def test_normalizer_takes_in_the_experts_observations_before_their_loss(tmp_path: Path) -> None:
    signal = gail(tmp_path, network={"normalize": True})
    rows = copy.deepcopy(signal.rng).integers(len(signal.demonstration), size=24)
    signal.update(rows_of(signal))
    assert signal.normalizer.count.item() == 24
    assert np.allclose(signal.normalizer.mean, signal.demonstration.obs(rows)[0].mean(0, dtype=np.float64))


def test_expert_is_told_from_others(tmp_path: Path) -> None:
    signal = gail(tmp_path, learning_rate=0.003)
    for seed in range(150):
        losses = signal.update(rows_of(signal, seed=seed))  # between 0 and 1; the expert sees 0.5 to 1.5
    assert losses["Policy/GAIL Expert Estimate"] > losses["Policy/GAIL Policy Estimate"] + 0.05
    like = rows_of(signal, obs=torch.full((24, 4), 1.3))
    assert signal.rewards(like).mean() > 1.3 * signal.rewards(rows_of(signal)).mean()
