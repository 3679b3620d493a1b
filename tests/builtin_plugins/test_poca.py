"""POCA: targets and advantages by hand, its loss beside the formulas, and runs of groups that come apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from mlagents_envs.base_env import BehaviorSpec

from builtin_plugins.poca import POCAOptimizer, POCASettings, POCATrainer
from mlhooks.settings import TrainerSettings
from mlhooks.testing.managers import make_manager
from mlhooks.testing.trainer_loop import make_trainer
from mlhooks.training.batch import Batch
from mlhooks.training.groups import Cells
from mlhooks.training.policy import ActorPolicy
from tests.steps import decisions, make_spec, terminals

NETWORK = {"hidden_units": 8, "num_layers": 1}


def make(spec: BehaviorSpec, *, gamma: float = 0.9, **settings: Any) -> POCATrainer:
    hyperparameters = {"batch_size": 8, "buffer_size": 32, "lambd": 0.5, **settings.pop("hyperparameters", {})}
    network = NETWORK | settings.pop("network_settings", {})
    trainer = make_trainer(
        make_manager(),
        spec,
        {
            "trainer_type": "poca",
            "hyperparameters": hyperparameters,
            "network_settings": network,
            "reward_signals": {"extrinsic": {"gamma": gamma}},
            **settings,
        },
    )
    assert isinstance(trainer, POCATrainer)
    return trainer


def observe(
    trainer: POCATrainer, asked: dict[int, float], over: dict[int, float] | None = None, **columns: Any
) -> None:
    """Let agents of group 1 decide, by id and observation, after others ended; `rewards` and `shared` are by id."""
    rewards, shared = columns.get("rewards", {}), columns.get("shared", {})
    ended = over or {}
    steps = decisions([*asked], [*asked.values()], [rewards.get(agent, 0.0) for agent in asked])
    steps.group_id = np.full(len(asked), columns.get("group", 1), np.int32)
    steps.group_reward = np.array([shared.get(agent, 0.0) for agent in asked], np.float32)
    gone = terminals(
        [*ended],
        [*ended.values()],
        [rewards.get(agent, 0.0) for agent in ended],
        [columns.get("interrupted", False)] * len(ended),
    )
    gone.group_id = np.full(len(ended), columns.get("group", 1), np.int32)
    gone.group_reward = np.array([shared.get(agent, 0.0) for agent in ended], np.float32)
    trainer.observe(0, "Scripted", steps, gone)
    for _ in trainer.act():
        pass


def value_of(trainer: POCATrainer, *observations: float) -> float:
    """Return the value of a group whose members observe these numbers."""
    critic = trainer.optimizer.critic
    with torch.no_grad():
        _, seen = critic.embed(torch.tensor(observations).view(-1, 1))
        return critic.read(*critic.encode(seen, None, torch.arange(len(observations))[None])).item()


def test_returns_and_advantages_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make(make_spec())
    observe(trainer, {0: 1.0})
    observe(trainer, {0: 2.0}, rewards={0: 0.0})
    observe(trainer, {}, {0: 3.0}, rewards={0: 1.0})
    learning = trainer.learning

    def estimate(store: Any, _: Any) -> tuple[np.ndarray, np.ndarray]:
        learning._baselines = np.array([[0.6], [0.9]], np.float32)
        return np.array([[0.5], [0.4]], np.float32), np.array([[0.4], [0.0]], np.float32)

    monkeypatch.setattr(learning, "estimate", estimate)
    monkeypatch.setattr("mlhooks.training.group_learning.has_groups", lambda _: False)
    batch = learning.rollout(trainer.store)
    # The last return is 1, and the first one 0.9 * ((1 - 0.5) * 0.4 + 0.5 * 1).
    assert batch.returns.flatten().tolist() == pytest.approx([0.63, 1.0])
    assert batch.advantages.flatten().tolist() == pytest.approx([0.03, 0.1])
    assert batch.baselines.flatten().tolist() == pytest.approx([0.6, 0.9])


def test_extrinsic_reward_is_ones_own_and_the_mates_and_the_groups() -> None:
    trainer = make(make_spec())
    observe(trainer, {0: 1.0, 1: 2.0, 2: 3.0})
    paid = {"rewards": {0: 1.0, 1: 2.0, 2: 3.0}, "shared": dict.fromkeys(range(3), 10.0)}
    observe(trainer, {0: 4.0, 1: 5.0, 2: 6.0}, **paid)
    seen: list[Batch] = []
    signal = trainer.reward_signals[0]
    evaluate = signal.evaluate
    signal.evaluate = lambda batch: seen.append(batch) or evaluate(batch)  # type: ignore[method-assign]
    trainer.learning.rollout(trainer.store)
    assert signal.evaluate(seen[0]).tolist() == [16.0, 16.0, 16.0]


def returns_after(trainer: POCATrainer) -> dict[float, float]:
    """Return the returns of rows by their observation."""
    batch = trainer.learning.rollout(trainer.store)
    counts = torch.ones(len(batch), dtype=torch.bool) if batch.loss_mask is None else batch.loss_mask
    return dict(zip(batch.features[counts, 0].tolist(), batch.returns[counts, 0].tolist(), strict=True))


def test_member_that_ends_alone_is_followed_by_its_group() -> None:
    trainer = make(make_spec())
    observe(trainer, {0: 1.0, 1: 2.0})
    # It ends in the very step in which its group is rewarded, which counts once in each member's row.
    observe(trainer, {1: 4.0}, {0: 3.0}, rewards={0: 0.25}, shared={0: 2.0, 1: 2.0})
    found = returns_after(trainer)
    assert found[1.0] == pytest.approx(2.25 + 0.9 * value_of(trainer, 3.0, 4.0), rel=1e-4)
    # The row of the one that goes on is followed by the value of those that are left, and got its groupmate's reward.
    assert found[2.0] == pytest.approx(2.25 + 0.9 * value_of(trainer, 4.0), rel=1e-4)


def test_nothing_follows_where_the_whole_group_ends() -> None:
    trainer = make(make_spec())
    observe(trainer, {0: 1.0, 1: 2.0})
    # A member dies in the very step in which its group is rewarded, and both begin again under the same group id.
    observe(trainer, {0: 5.0, 1: 6.0}, {0: 3.0, 1: 4.0}, shared={0: 2.0, 1: 2.0})
    assert returns_after(trainer) == pytest.approx({1.0: 2.0, 2.0: 2.0})


def test_final_observations_follow_where_the_whole_group_is_interrupted() -> None:
    trainer = make(make_spec())
    observe(trainer, {0: 1.0, 1: 2.0})
    observe(trainer, {0: 5.0, 1: 6.0}, {0: 3.0, 1: 4.0}, interrupted=True)
    found = returns_after(trainer)
    following = 0.9 * value_of(trainer, 3.0, 4.0)
    assert found == pytest.approx({1.0: following, 2.0: following}, rel=1e-4)


def test_member_that_decides_rarely_is_there_all_the_time() -> None:
    trainer = make(make_spec(), hyperparameters={"lambd": 0.0})
    observe(trainer, {0: 1.0, 1: 2.0})
    for tick in range(1, 4):
        observe(trainer, {0: 1.0 + tick / 8})
    observe(trainer, {0: 1.5, 1: 2.5})
    found = returns_after(trainer)
    assert found[1.125] == pytest.approx(0.9 * value_of(trainer, 1.25, 2.0), rel=1e-4)
    assert found[2.0] == pytest.approx(0.9 * value_of(trainer, 1.5, 2.5), rel=1e-4)


def make_optimizer(spec: BehaviorSpec, **hyperparameters: Any) -> POCAOptimizer:
    torch.manual_seed(0)
    settings = TrainerSettings(
        trainer_type="poca",
        hyperparameters=POCASettings(batch_size=4, buffer_size=12, beta=0.01, **hyperparameters),
        network_settings=NETWORK,
        reward_signals={"a": {}, "b": {}},
        max_steps=1000,
    )
    optimizer = POCAOptimizer(ActorPolicy("B", spec, settings, torch.device("cpu")), settings)
    with torch.no_grad():  # Nothing is to be small.
        for parameter in optimizer.critic.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))
    return optimizer


def grouped_batch(spec: BehaviorSpec, seed: int = 1) -> Batch:
    """Return 6 rows: a group of three, of which one decided earlier, another one of two, and an agent that is alone."""
    g, action = torch.Generator().manual_seed(seed), spec.action_spec
    members = np.array([[0, 1, 2], [3, 4, -1], [5, -1, -1]])
    decided = np.array([[1, 1, 0], [1, 1, 0], [1, 0, 0]], np.bool_)
    return Batch(
        features=torch.randn(6, 3, generator=g),
        continuous=torch.randn(6, action.continuous_size, generator=g),
        discrete=torch.zeros(6, action.discrete_size, dtype=torch.int64),
        log_probs=torch.randn(6, action.continuous_size + action.discrete_size, generator=g) - 2.0,
        values=torch.randn(6, 2, generator=g),
        baselines=torch.randn(6, 2, generator=g),
        returns=torch.randn(6, 2, generator=g),
        advantages=torch.randn(6, 1, generator=g),
        loss_mask=torch.tensor([True, True, False, True, True, True]),
        cells=Cells(members, decided),
    )


@pytest.mark.parametrize(
    ("continuous", "branches", "clips"), [(2, (), True), (0, (3, 2), True), (2, (3,), True), (2, (3,), False)]
)
def test_loss_is_that_of_the_formulas(continuous: int, branches: tuple[int, ...], clips: bool) -> None:
    spec = make_spec(3, continuous, branches)
    assert POCASettings().baseline_clipping
    optimizer, batch = make_optimizer(spec, baseline_clipping=clips), grouped_batch(spec)
    found = optimizer.loss(batch)
    log_probs, entropies = optimizer.policy.evaluate(batch)
    critic = optimizer.critic
    encodings, seen = critic.embed(batch.features)
    acting = critic.embed_actions(encodings, batch.continuous, batch.discrete)
    policy, value, baseline, entropy = [], [], [], []
    for row, groupmates in {0: [1, 2], 1: [0, 2], 3: [4], 4: [3], 5: []}.items():
        everybody = torch.stack([seen[row], *(seen[groupmate] for groupmate in groupmates)])[None]
        others = torch.stack([seen[row], *(acting[groupmate] for groupmate in groupmates)])[None]
        number = torch.tensor([[2.0 * (1 + len(groupmates)) - 1.0]])
        nobody = torch.zeros(1, 1 + len(groupmates))
        old_baselines = batch.baselines[row] if clips else None
        for entities, old, into in ((everybody, None, value), (others, old_baselines, baseline)):
            heads = critic.heads(torch.cat([critic.body(critic.attention(entities, nobody)), number], 1))[0]
            for signal in range(2):
                target = batch.returns[row, signal]
                error = (heads[signal] - target) ** 2
                if old is not None:
                    near = old[signal] + (heads[signal] - old[signal]).clamp(-0.2, 0.2)
                    error = torch.maximum(error, (near - target) ** 2)
                into.append(error)
        for dimension in range(log_probs.shape[1]):
            ratio = torch.exp(log_probs[row, dimension] - batch.log_probs[row, dimension])
            advantage = batch.advantages[row, 0]
            policy.append(-torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage))
        parts = entropies[row, :continuous].mean() if continuous else 0.0
        entropy.append(parts + entropies[row, continuous:].sum())
    policy_loss, value_loss, baseline_loss, mean_entropy = (
        torch.stack(terms).mean() for terms in (policy, value, baseline, entropy)
    )
    wanted = policy_loss + 0.5 * (value_loss + 0.5 * baseline_loss) - 0.01 * mean_entropy
    torch.testing.assert_close(found["loss"], wanted)
    torch.testing.assert_close(found["Losses/Baseline Loss"], baseline_loss)
    torch.testing.assert_close(found["Losses/Value Loss"], value_loss)


def test_minibatches_keep_groups_together_and_every_row_counts_once() -> None:
    spec = make_spec(3, 2, (3,))
    optimizer, batch = make_optimizer(spec), grouped_batch(spec)
    values, baselines = optimizer.group_values(batch)
    counted = []
    for part in batch.minibatches(1, np.random.default_rng(0)):
        found = optimizer.group_values(part)
        mask = torch.ones(len(part), dtype=torch.bool) if part.loss_mask is None else part.loss_mask
        rows = [int((batch.features == row).all(1).nonzero()) for row in part.features]
        for place in mask.nonzero().flatten().tolist():
            counted.append(rows[place])
            for one, other in zip(found, (values, baselines), strict=True):
                torch.testing.assert_close(one[place], other[rows[place]])
    assert sorted(counted) == [0, 1, 3, 4, 5]
