from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from mlhooks import hookimpl
from tests.scripted import Corridor, Env, config, train

NORMALIZED = config(
    "3DBall",
    "sim:3DBall",
    max_steps=300,
    hyperparameters={"batch_size": 300, "buffer_size": 300, "num_epoch": 1},
    network_settings={"normalize": True},
)


class Kept:
    """Keeps the batches that minibatches are taken of."""

    def __init__(self) -> None:
        self.batches: list[Any] = []

    @hookimpl
    def behavior_added(self, trainer: Any) -> None:
        self.trainer, rollout = trainer, trainer.learning.rollout
        trainer.learning.rollout = lambda store: (self.batches.append(rollout(store)), self.batches[-1])[1]


@pytest.mark.parametrize("before", [True, False])
def test_features_of_a_rollout_are_those_that_acted_where_the_normalizer_comes_last(
    before: bool, tmp_path: Path
) -> None:
    class Ratios:
        """Keeps how far log-probabilities of rollouts are from those of acting, before anything is learned."""

        found: ClassVar[list[float]] = []

        @hookimpl
        def behavior_added(self, trainer: Any) -> None:
            rollout, policy = trainer.learning.rollout, trainer.policy

            def watched(store: Any) -> Any:
                batch = rollout(store)
                with torch.no_grad():
                    self.found.append(float((policy.evaluate(batch)[0] - batch.log_probs).abs().max()))
                return batch

            trainer.learning.rollout = watched

    settings = config(
        "3DBall",
        "sim:3DBall",
        max_steps=360,
        hyperparameters={"batch_size": 36, "buffer_size": 36, "normalize_before_update": before},
        network_settings={"normalize": True},
    )
    run = train(settings, tmp_path, Ratios())
    later = Ratios.found[1:]  # In the first rollout the normalizer sees each observation before it is acted by.
    assert len(later) >= 8
    assert (max(later) < 1e-4) is not before
    assert float(run.trainers["3DBall"].policy.inputs.normalizer.count) >= 360


class Paid(Corridor):
    """A corridor of one agent whose rewards are `factor` times other ones, and are kept."""

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__(agents=1, corrupt=self.pay)
        self.factor, self.paid = factor, []

    def pay(self, step: int, obs: Any, reward: np.ndarray) -> None:
        reward[:] = self.factor * (0.5 * reward + np.sin(step))
        self.paid.append(float(reward[0]))


def normalized(strength: float = 1.0, **hyperparameters: Any) -> dict[str, Any]:
    return config(
        "Corridor",
        "test:x",
        hyperparameters={"normalize_rewards": True, **hyperparameters},
        reward_signals={"extrinsic": {"gamma": 0.9, "strength": strength}},
    )


@pytest.mark.parametrize("strength", [1.0, -0.5])
def test_normalized_rewards_are_divided_by_the_deviation_of_all_discounted_sums_so_far(
    tmp_path: Path, strength: float
) -> None:
    env, kept = Paid(), Kept()
    train(normalized(strength, lambd=1.0), tmp_path, Env(lambda: env), kept)
    episodes = np.array(env.paid[:600]).reshape(120, 5)
    discounts = np.triu(0.9 ** np.maximum(np.arange(5) - np.arange(5)[:, None], 0))
    sums = episodes @ discounts.T  # [episodes, steps]: the sum of what follows each step until the episode ends
    assert len(kept.batches) == 6
    for rollout, batch in enumerate(kept.batches):
        seen = sums[: 20 * (rollout + 1)]
        wanted = strength * sums[20 * rollout : 20 * (rollout + 1)].ravel() / seen.std()
        # A lambda of 1 and episodes within a rollout leave nothing of the critic's estimates in returns.
        np.testing.assert_allclose(batch.returns[:, 0].numpy(), wanted, rtol=1e-4, atol=1e-5)


def test_normalized_rewards_make_the_unit_of_rewards_mean_nothing(tmp_path: Path) -> None:
    ends = []
    for factor in (1.0, 1024.0):
        run = train(normalized(), tmp_path / str(factor), Env(lambda factor=factor: Paid(factor)))
        ends.append(run.trainers["Corridor"].modules()["policy.actor"].state_dict())
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_rare_rewards_are_clipped_when_they_are_normalized(tmp_path: Path) -> None:
    class Rare(Paid):
        def pay(self, step: int, obs: Any, reward: np.ndarray) -> None:
            reward[:] = float(step == 55)

    kept = Kept()
    train(normalized(), tmp_path, Env(Rare), kept)
    assert max(float(batch.returns.max()) for batch in kept.batches) <= 10.5  # The critic's first estimates are small.
    assert float(kept.batches[0].returns.max()) > 5.0


def test_first_rollout_is_learned_from_by_normalized_features(tmp_path: Path) -> None:
    batches = []

    class Look:
        @hookimpl
        def behavior_added(self, trainer: Any) -> None:
            update = trainer.optimizer.update
            trainer.optimizer.update = lambda batch: (batches.append(batch), update(batch))[1]

    train(NORMALIZED, tmp_path, Look())
    features = batches[0].features
    # The clipping at 5 changes them a little.
    torch.testing.assert_close(features.mean(0), torch.zeros(8), atol=0.1, rtol=0)
    torch.testing.assert_close(features.std(0), torch.ones(8), atol=0.2, rtol=0)


def test_first_rollout_is_acted_by_features_that_are_normalized_by_all_that_was_seen(tmp_path: Path) -> None:
    counts, drifts = [], []

    class Look:
        @hookimpl
        def behavior_added(self, trainer: Any) -> None:
            policy, act, update = trainer.policy, trainer.policy.act, trainer.optimizer.update

            def watched(*arguments: Any) -> Any:
                counts.append(int(policy.inputs.normalizer.count))
                return act(*arguments)

            def learned(batch: Any) -> Any:
                late = batch[slice(len(batch) // 2, len(batch))]  # By then, the statistics hardly change.
                drifts.append(float((policy.evaluate(late)[0].detach() - late.log_probs).abs().mean()))
                return update(batch)

            policy.act, trainer.optimizer.update = watched, learned

    train(NORMALIZED, tmp_path, Look())
    assert counts[:4] == [12, 24, 36, 48]  # Twelve agents decide in each step.
    assert drifts[0] < 0.05  # These are drifts of log-probabilities between acting and learning.


@pytest.mark.parametrize(
    ("asked", "rollout", "minibatch"),
    [
        (None, True, False),
        (True, True, False),
        ("minibatch", False, True),
        ("none", False, False),
        (False, False, False),
    ],
)
def test_advantages_are_standardized_over_the_rollout_or_over_each_minibatch(
    tmp_path: Path, asked: str | bool | None, rollout: bool, minibatch: bool
) -> None:
    given: list[torch.Tensor] = []

    class Watch:
        @hookimpl
        def behavior_added(self, trainer: Any) -> None:
            optimizer, update = trainer.optimizer, trainer.optimizer.update
            self.optimizer = optimizer

            def watched(batch: Any) -> Any:
                given.append(batch.advantages)
                return update(batch)

            optimizer.update = watched

    watch, kept = Watch(), Kept()
    chosen = {} if asked is None else {"normalize_advantages": asked}
    settings = config("Corridor", "test:x", hyperparameters={"num_epoch": 1, **chosen}, max_steps=100)
    train(settings, tmp_path, Env(), kept, watch)
    raw = kept.batches[0].advantages.double()
    seen = torch.cat(given[: len(given) // len(kept.batches)]).double()
    expected = (raw - raw.mean()) / raw.std(correction=0) if rollout else raw
    assert len(given) > len(kept.batches)
    torch.testing.assert_close(seen.sort(0).values, expected.sort(0).values, rtol=1e-4, atol=1e-5)
    assert watch.optimizer.normalizes_minibatches == minibatch
