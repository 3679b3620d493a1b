"""Random network distillation beside the same formulas in plain torch, and the values that they have by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.builtin_plugins.learned_signals import encoded, gradients_of, parameters_of, rows_of, signal_of


def test_rewards_losses_and_gradients_are_those_of_plain_torch() -> None:
    signal = signal_of("rnd")
    batch, p = rows_of(signal), parameters_of(signal)
    rewards = ((encoded(p, "predictor", batch.obs) - encoded(p, "target", batch.obs)) ** 2).sum(1)
    rewards.mean().backward()
    assert torch.allclose(signal.rewards(batch), rewards, rtol=1e-5)
    assert signal.update(batch)["Losses/RND Loss"].item() == pytest.approx(rewards.mean().item(), rel=1e-5)
    again = signal_of("rnd")
    found = gradients_of(again, batch)
    assert found
    for name, gradient in found.items():
        assert torch.allclose(gradient, p[name].grad, rtol=1e-4, atol=1e-6), name
        assert gradient.any()
    assert {name.split(".")[0] for name in found} == {"predictor"}


def test_reward_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    signal = signal_of("rnd", network={"hidden_units": 2})
    monkeypatch.setattr(signal.predictor, "encoding", lambda x: torch.zeros(len(x), 2))
    monkeypatch.setattr(signal.target, "encoding", lambda x: torch.tensor([[1.0, 2.0]]).expand(len(x), 2))
    assert signal.evaluate(rows_of(signal)).tolist() == [5.0] * 24


def test_random_network_never_moves_and_what_was_seen_is_worth_little() -> None:
    signal = signal_of("rnd", learning_rate=0.003)
    seen, unseen = rows_of(signal, seed=1), rows_of(signal, seed=2)
    unseen = unseen.map(lambda x: x.clone())
    unseen.obs.mul_(-3.0)
    before, target = [signal.rewards(rows).mean().item() for rows in (seen, unseen)], parameters_of(signal)
    for _ in range(200):
        signal.update(seen)
    after = [signal.rewards(rows).mean().item() for rows in (seen, unseen)]
    assert after[0] < 0.1 * before[0]
    assert after[1] > 0.5 * before[1]
    now = parameters_of(signal)
    assert all(torch.equal(p, now[name]) for name, p in target.items() if name.startswith("target"))


def test_normalizer_takes_in_each_update_once_without_padding() -> None:
    signal = signal_of("rnd", network={"normalize": True})
    counts = torch.arange(24) % 3 > 0
    batch = rows_of(signal, loss_mask=counts)
    before = signal.rewards(batch)
    assert signal.normalizer.count.item() == 0
    signal.descent.set_learning_rate(0.0)
    signal.update(batch)
    assert signal.normalizer.count.item() == 16
    obs = batch.obs[counts].double().numpy()
    assert np.allclose(signal.normalizer.mean, obs.mean(0))
    wanted = np.clip((batch.obs.numpy() - obs.mean(0)) / obs.std(0), -5, 5)
    assert np.allclose(signal.features(batch.obs), wanted, atol=1e-5)
    assert not torch.allclose(signal.rewards(batch), before)
