"""Behavioral cloning: its loss, its schedule, and what it changes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mlagents_envs.base_env import ActionSpec, BehaviorSpec, DimensionProperty, ObservationSpec, ObservationType
from torch import nn
from torch.nn import functional

from builtin_plugins.ppo import PPOOptimizer, PPOSettings
from mlhooks.demos.records import Records
from mlhooks.demos.writing import write_demo
from mlhooks.errors import PluginError
from mlhooks.nn.heads import ActionParameters, SampledActions
from mlhooks.settings import BehavioralCloningSettings, MemorySettings, NetworkSettings, TrainerSettings
from mlhooks.training.cloning import BehavioralCloning
from mlhooks.training.policy import ActorPolicy
from mlhooks.training.squashed_policy import SquashedPolicy

KEY = "Losses/Pretraining Loss"
CPU = torch.device("cpu")


def behavior(actions: ActionSpec, size: int = 3) -> BehaviorSpec:
    return BehaviorSpec([ObservationSpec((size,), (DimensionProperty.NONE,), ObservationType.DEFAULT, "eye")], actions)


def expert(path: Path, actions: ActionSpec, steps: int = 10, size: int = 3) -> Path:
    """Return one episode of so many decisions."""
    rng, done = np.random.default_rng(1), np.arange(steps + 1) == steps
    discrete = [rng.integers(0, branch, steps + 1) for branch in actions.discrete_branches]
    records = Records(
        behavior_name="Walk",
        spec=behavior(actions, size),
        obs=[rng.standard_normal((steps + 1, size)).astype(np.float32)],
        reward=np.zeros(steps + 1, np.float32),
        done=done,
        interrupted=np.zeros(steps + 1, np.bool_),
        acts=~done,
        continuous=rng.uniform(-1, 1, (steps + 1, actions.continuous_size)).astype(np.float32),
        discrete=np.array(discrete).T.reshape(steps + 1, -1).astype(np.int64),
    )
    write_demo(path, records)
    return path


def settings(path: Path | str = "expert.demo", normalize: bool = False, **section: Any) -> TrainerSettings:
    return TrainerSettings(
        hyperparameters=PPOSettings(batch_size=4, buffer_size=40, learning_rate=0.01),
        network_settings=NetworkSettings(hidden_units=8, num_layers=1, normalize=normalize),
        behavioral_cloning=BehavioralCloningSettings(demo_path=str(path), **section),
    )


def made(given: TrainerSettings, actions: ActionSpec, actor: nn.Module | None = None) -> BehavioralCloning:
    torch.manual_seed(0)
    policy = ActorPolicy("Walk", behavior(actions), given, CPU, actor)
    return BehavioralCloning(policy, PPOOptimizer(policy, given), given, np.random.default_rng(0))


class Constant(nn.Module):
    """An actor whose distributions are the same whatever it sees."""

    def __init__(self, mean: list[float] | None, log_std: float, logits: list[float] | None) -> None:
        super().__init__()
        self.mean = None if mean is None else nn.Parameter(torch.tensor([mean]))
        self.log_std = nn.Parameter(torch.full((len(mean or []),), float(log_std)))
        self.logits = None if logits is None else nn.Parameter(torch.tensor([logits]))

    def forward(self, features: torch.Tensor) -> ActionParameters:
        rows = len(features)
        mean, logits = (None if part is None else part.expand(rows, -1) for part in (self.mean, self.logits))
        return ActionParameters(mean, None if mean is None else self.log_std, logits)


def loss(
    actor: Constant, actions: ActionSpec, continuous: list[float], discrete: list[int], noise: float = 1.0
) -> float:
    cloning, rows = made(settings(), actions, actor), 2
    computed = cloning.loss(
        torch.zeros(rows, 3),
        torch.tensor([continuous] * rows).reshape(rows, -1),
        torch.tensor([discrete] * rows, dtype=torch.int64).reshape(rows, -1),
        torch.full((rows, len(continuous)), noise),
    )
    return float(computed.detach())


def test_loss_of_continuous_actions_is_the_squared_error_of_a_sample():
    assert loss(Constant([0.5], -20, None), ActionSpec(1, ()), [0.2], []) == pytest.approx(0.09, rel=1e-5)
    # The sample is 0.5 + exp(0) * -1, and the mean over dimensions is taken.
    off = loss(Constant([0.5, 0.0], 0, None), ActionSpec(2, ()), [0.2, -1.0], [], noise=-1.0)
    assert off == pytest.approx((0.7**2 + 0.0) / 2)


def test_loss_of_discrete_actions_is_the_mean_cross_entropy_of_the_branches():
    assert loss(Constant(None, 0, [0.0, 0.0]), ActionSpec(0, (2,)), [], [1]) == pytest.approx(math.log(2))
    both = loss(Constant(None, 0, [0.0, 0.0, 1.0, 1.0, 1.0]), ActionSpec(0, (2, 3)), [], [1, 0])
    assert both == pytest.approx((math.log(2) + math.log(3)) / 2)


def test_loss_of_hybrid_actions_is_the_sum():
    hybrid = loss(Constant([0.5], -20, [0.0, 0.0]), ActionSpec(1, (2,)), [0.2], [0])
    assert hybrid == pytest.approx(0.09 + math.log(2), rel=1e-5)


def test_rows_that_are_padding_do_not_count():
    cloning = made(settings(), ActionSpec(0, (2,)), Constant(None, 0, [0.0, 1.0]))
    given = torch.zeros(3, 3), torch.zeros(3, 0), torch.tensor([[1], [1], [0]]), torch.zeros(3, 0)
    counted = cloning.loss(*given, torch.tensor([True, True, False]))
    assert float(counted.detach()) == pytest.approx(math.log(1 + math.exp(-1)))


def test_samples_of_environments_actions_are_those_that_become_these_actions():
    policy = ActorPolicy("Walk", behavior(ActionSpec(2, ())), settings(), CPU)
    given = np.array([[0.5, -1.0], [0.0, 1.0]], np.float32)
    samples = policy.from_environment(given)
    assert samples.tolist() == [[1.5, -3.0], [0.0, 3.0]]
    nothing = np.zeros((2, 0), np.int64)
    assert policy.action_tuple(SampledActions(samples, nothing, nothing)).continuous.tolist() == given.tolist()


def test_samples_of_a_squashed_policy_are_the_actions():
    policy = SquashedPolicy("Walk", behavior(ActionSpec(2, ())), settings(), CPU)
    given = np.array([[0.5, -1.0]], np.float32)
    assert policy.from_environment(given).tolist() == given.tolist()
    drawn = policy.drawn(torch.tensor([[0.5, 0.0]]), torch.zeros(1, 2), torch.tensor([[1.0, -1.0]]))
    assert drawn[0].tolist() == pytest.approx([math.tanh(1.5), math.tanh(-1.0)])


@pytest.mark.usefixtures("each_way")
@pytest.mark.parametrize("actions", [ActionSpec(2, ()), ActionSpec(0, (3, 2)), ActionSpec(1, (2,))])
def test_steps_are_those_of_adam_in_torch(tmp_path, actions):
    path = expert(tmp_path / "expert.demo", actions)
    cloning = made(settings(path, batch_size=10, num_epoch=3, strength=0.5), actions)
    torch.manual_seed(0)
    reference = ActorPolicy("Walk", behavior(actions), settings(), CPU).actor
    for ours, theirs in zip(cloning.policy.actor.parameters(), reference.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    demonstration, rng, losses = cloning.load(), np.random.default_rng(0), []
    adam = torch.optim.Adam(reference.parameters(), lr=0.5 * 0.01)
    for _ in range(3):
        rows = rng.permutation(10)
        features = torch.from_numpy(demonstration.obs(rows)[0])
        wanted = torch.from_numpy(3 * demonstration.continuous[rows])
        noise = torch.from_numpy(rng.standard_normal(wanted.shape, np.float32))
        mean, log_std, logits = reference(features)
        total = torch.zeros(())
        if mean is not None:
            total = total + functional.mse_loss(mean + log_std.exp() * noise, wanted)
        if logits is not None:
            parts = logits.split(actions.discrete_branches, 1)
            expected = torch.from_numpy(demonstration.discrete[rows])
            total = total + sum(functional.cross_entropy(p, expected[:, i]) for i, p in enumerate(parts)) / len(parts)
        losses.append(float(total.detach()))
        adam.zero_grad()
        total.backward()
        adam.step()
    reported = cloning.update(0)
    assert reported.keys() == {KEY}
    assert float(reported[KEY]) == pytest.approx(np.mean(losses), rel=1e-5)
    for ours, theirs in zip(cloning.policy.actor.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_actor_alone_is_changed_and_the_other_adam_is_left_alone(tmp_path):
    actions = ActionSpec(0, (3,))
    cloning = made(settings(expert(tmp_path / "a.demo", actions), normalize=True), actions)
    optimizer = cloning.optimizer
    before = {name: [p.detach().clone() for p in part.parameters()] for name, part in optimizer.parts().items()}
    moments = optimizer.torch_optimizer.exp_avg.clone()
    cloning.update(0)
    same = {
        name: all(torch.equal(*pair) for pair in zip(before[name], part.parameters(), strict=True))
        for name, part in optimizer.parts().items()
    }
    assert same == {"actor": False, "inputs": True, "critic": True}
    assert torch.equal(optimizer.torch_optimizer.exp_avg, moments)
    assert optimizer.torch_optimizer.steps == 0
    assert cloning.policy.inputs.normalizer.count == 0
    assert cloning.descent.flat.data.data_ptr() == optimizer.flat.data.data_ptr()


@pytest.mark.parametrize(
    ("section", "steps"),
    [
        ({}, [4, 4] * 3),  # There are 10 transitions in minibatches of 4, and ML-Agents' 3 epochs.
        ({"num_epoch": 2}, [4, 4] * 2),
        ({"batch_size": 3, "num_epoch": 1}, [3, 3, 3]),
        ({"batch_size": 50, "num_epoch": 1}, [10]),
        ({"samples_per_update": 4, "num_epoch": 2}, [4, 4]),
        ({"samples_per_update": 7, "num_epoch": 1}, [4]),
        ({"samples_per_update": 3, "num_epoch": 1}, [4, 4]),  # Less than a minibatch means all, as in ML-Agents.
    ],
)
def test_minibatches(tmp_path, section, steps):
    actions = ActionSpec(0, (3,))
    cloning = made(settings(expert(tmp_path / "a.demo", actions), **section), actions)
    drawn = list(cloning._minibatches(cloning.load()))
    assert [units.size for units in drawn] == steps
    first = np.concatenate(drawn[: len(steps) // cloning.epochs]).ravel()
    assert len(set(first.tolist())) == len(first)
    cloning.update(0)
    assert cloning.descent.torch_optimizer.steps == len(steps)


def with_memory(path: Path, **section: Any) -> TrainerSettings:
    given = settings(path, **section)
    given.network_settings.memory = MemorySettings(sequence_length=4, memory_size=6)
    return given


def test_sequences_of_a_memory_are_units_of_its_length(tmp_path):
    actions = ActionSpec(0, (3,))
    cloning = made(with_memory(expert(tmp_path / "a.demo", actions), num_epoch=1, batch_size=8), actions)
    # 10 transitions are sequences of 4, 4 and 2, which ML-Agents counts as 12: 12 // (8 // 4) // 4 minibatches.
    (units,) = cloning._minibatches(cloning.load())
    assert units.shape == (2, 4)
    kinds = {(0, 1, 2, 3), (4, 5, 6, 7), (8, 9, -1, -1)}
    assert {tuple(unit) for unit in units.tolist()} < kinds


@pytest.mark.parametrize(("samples", "steps"), [(0, 3), (3, 3), (4, 1), (7, 1), (8, 2), (100, 3)])
def test_samples_of_each_pass_are_transitions_of_sequences(tmp_path, samples, steps):
    actions = ActionSpec(0, (3,))
    path = expert(tmp_path / "a.demo", actions)  # 10 transitions are 3 sequences, each of which is a minibatch of 4.
    cloning = made(with_memory(path, num_epoch=1, batch_size=4, samples_per_update=samples), actions)
    assert len(list(cloning._minibatches(cloning.load()))) == steps


def test_memory_is_trained_on_sequences_that_begin_with_nothing_and_whose_padding_does_not_count(tmp_path):
    actions = ActionSpec(0, (3,))
    cloning = made(with_memory(expert(tmp_path / "a.demo", actions), num_epoch=1, batch_size=12), actions)
    demonstration, actor = cloning.load(), cloning.policy.actor
    with torch.no_grad():
        errors = []
        for rows in (slice(0, 4), slice(4, 8), slice(8, 10)):
            features = torch.from_numpy(demonstration.obs(rows)[0])
            logits = actor(features, torch.zeros(len(features), 6), len(features)).logits
            discrete = torch.from_numpy(demonstration.discrete[rows])[:, 0]
            errors += functional.cross_entropy(logits, discrete, reduction="none").tolist()
    assert float(cloning.update(0)[KEY]) == pytest.approx(np.mean(errors), rel=1e-5)


def test_schedule_falls_linearly_and_ends_imitation(tmp_path):
    actions = ActionSpec(0, (3,))
    cloning = made(settings(expert(tmp_path / "a.demo", actions), steps=1000, strength=0.5), actions)
    assert cloning.learning_rate(0) == pytest.approx(0.005)
    cloning.update(500)
    assert cloning.descent.torch_optimizer.param_groups[0]["lr"] == pytest.approx(0.0025, rel=1e-6)
    before = cloning.descent.flat.data.clone()
    for step in (1000, 5000):
        assert float(cloning.update(step)[KEY]) == 0
    assert torch.equal(cloning.descent.flat.data, before)


def test_without_steps_the_rate_is_constant():
    cloning = made(settings(strength=2.0), ActionSpec(0, (3,)))
    assert cloning.learning_rate(0) == cloning.learning_rate(10**9) == 0.02


@pytest.mark.parametrize("actions", [ActionSpec(2, ()), ActionSpec(1, (3,))])
def test_state_goes_on_exactly(tmp_path, actions):
    path = expert(tmp_path / "a.demo", actions)
    one, other = made(settings(path), actions), made(settings(path), actions)
    one.update(0)
    weights, state = one.policy.actor.state_dict(), one.state_dict()
    state = {"descent": {k: v.clone() if hasattr(v, "clone") else v for k, v in state["descent"].items()}} | {
        "rng": state["rng"]
    }
    other.policy.actor.load_state_dict({name: value.clone() for name, value in weights.items()})
    other.load_state_dict(state)
    for cloning in (one, other):
        cloning.update(7)
    assert torch.equal(one.descent.flat.data, other.descent.flat.data)
    assert torch.equal(one.descent.torch_optimizer.exp_avg_sq, other.descent.torch_optimizer.exp_avg_sq)


def test_policy_without_an_actor_is_refused():
    class Other:
        behavior_name = "Walk"

    with pytest.raises(PluginError, match="has a policy of type Other from a plugin"):
        BehavioralCloning(Other(), None, settings(), np.random.default_rng(0))  # type: ignore[arg-type]
