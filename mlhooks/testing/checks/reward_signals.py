"""What is demanded of a reward signal: rewards that mean the same everywhere, and learning that goes on exactly."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from mlagents_envs.base_env import BehaviorSpec

from mlhooks.testing.assertions import demand, works
from mlhooks.testing.demonstrations import write_any_demonstration
from mlhooks.testing.specs import ACTION_KINDS, OBSERVATION_KINDS, make_behavior_spec
from mlhooks.testing.target import Target
from mlhooks.testing.trainer_loop import differing, make_trainer

if TYPE_CHECKING:
    from mlhooks.training.batch import Batch
    from mlhooks.training.reward_signals import RewardSignal

KINDS = {
    **{f"{name} actions": spec for name, spec in ACTION_KINDS.items()},
    **{f"{name} observed": make_behavior_spec(branches=(3,), **kind) for name, kind in OBSERVATION_KINDS.items()},
}
NETWORK = {"hidden_units": 16, "num_layers": 1}
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "ppo": {"hyperparameters": {"batch_size": 32, "buffer_size": 128}},
    "dqn": {"hyperparameters": {"batch_size": 32, "buffer_size": 500}},
}
UPDATES = 3
Make = Callable[..., "RewardSignal"]


@pytest.fixture
def make(mlhooks_target: Target, reward_signal: str, scratch: Path) -> Make:
    """Make the signal beside a trainer, as a run does, with its conformance settings."""
    manager, counted = mlhooks_target.manager(), itertools.count()
    kind, model = manager.collect_mapping("get_reward_signals")[reward_signal]

    def make(spec: BehaviorSpec | None = None, trainer_type: str = "ppo", **changes: Any) -> RewardSignal:
        spec = ACTION_KINDS["discrete"] if spec is None else spec
        settings = {"network_settings": NETWORK, **kind.conformance_settings, **changes}
        if "demo_path" in model.model_fields:
            settings["demo_path"] = str(write_any_demonstration(scratch / f"{next(counted)}.demo", spec))
        behavior = {
            **SETTINGS[trainer_type],
            "trainer_type": trainer_type,
            "network_settings": NETWORK,
            "reward_signals": {reward_signal: settings},
        }
        trainer = make_trainer(manager, spec, behavior)
        (signal,) = trainer.reward_signals
        with works("begin_training"):
            signal.begin_training(trainer.policy, scratch)
        return signal

    return make


def _rows(signal: RewardSignal, seed: int = 1, size: int = 48, **columns: Any) -> Batch:
    """Return random rows, with the columns that the signal reads."""
    import torch

    from mlhooks.nn.features import FeatureLayout
    from mlhooks.training.batch import Batch

    rng, spec = np.random.default_rng(seed), signal.behavior_spec
    width, actions = FeatureLayout("", spec).size, spec.action_spec
    discrete = [rng.integers(0, branch, size) for branch in actions.discrete_branches]
    made: dict[str, np.ndarray] = {
        "features": rng.random((size, width), np.float32),
        "continuous": rng.standard_normal((size, actions.continuous_size), np.float32),
        "discrete": np.array(discrete, np.int64).T.reshape(size, -1),
        "rewards": rng.standard_normal(size, np.float32),
    }
    if signal.reads:
        made["ended"] = rng.random(size) < 0.2
    for name in sorted(signal.reads):
        made[name] = rng.random((size, width), np.float32)
    return Batch(**{**{name: torch.from_numpy(array) for name, array in made.items()}, **columns})


def _learn(signal: RewardSignal, seeds: range = range(UPDATES)) -> None:
    for seed in seeds:
        with works("update"):
            signal.update(_rows(signal, seed))


def _weights(signal: RewardSignal) -> dict[str, Any]:
    return {
        f"{name}.{key}": tensor.detach().clone()
        for name, module in signal.modules().items()
        for key, tensor in module.state_dict().items()
    }


@pytest.mark.parametrize("spec", KINDS.values(), ids=KINDS)
def test_rewards_are_finite(make: Make, spec: BehaviorSpec) -> None:
    """Rewards are finite for all kinds of observations and actions, before and after learning, and change nothing."""
    import torch

    signal = make(spec)
    for what in ("before its first update", "after updates"):
        batch, before = _rows(signal), _weights(signal)
        with works(f"evaluate {what}"):
            rewards = signal.rewards(batch)
        demand(bool(torch.isfinite(rewards).all()), f"evaluate returns what is NaN or infinite {what}.")
        changed = differing(before, _weights(signal))
        demand(not changed, f"evaluate changes {', '.join(changed[:3])}: learn in update alone.")
        _learn(signal)


def test_rewards_come_before_strength(make: Make) -> None:
    """Rewards are what `evaluate` says times `strength`, which `evaluate` itself leaves out."""
    import torch

    given = []
    for strength in (0.02, 0.01):
        signal = make(strength=strength)
        _learn(signal)
        batch = _rows(signal)
        given.append(signal.rewards(batch) / strength)
    demand(
        torch.allclose(given[0], given[1], rtol=1e-3, atol=1e-5),
        "What evaluate returns depends on strength, by which mlhooks multiplies it: leave it out.",
    )


def test_gradients_reach_its_networks(make: Make) -> None:
    """Updates change all parameters that need gradients, and no others."""
    signal = make()
    named = {f"{n}.{key}": p for n, module in signal.modules().items() for key, p in module.named_parameters()}
    if not named:
        pytest.skip("it has no networks")
    before = _weights(signal)
    _learn(signal)
    moved = set(differing(before, _weights(signal)))
    still = [name for name, p in named.items() if p.requires_grad and name not in moved]
    demand(
        not still,
        f"Updates do not change {', '.join(still[:3])}: let loss depend on it, or set requires_grad_(False) where it "
        "stays as it is.",
    )
    frozen = [name for name, p in named.items() if not p.requires_grad and name in moved]
    demand(not frozen, f"Updates change {', '.join(frozen[:3])}, which needs no gradient.")


def test_ends_are_as_declared(make: Make) -> None:
    """A signal that ignores the ends of episodes rewards the same whether a row ends one."""
    import torch

    signal = make()
    demand(isinstance(signal.ignores_ends, bool), "ignores_ends must be True or False, in the class.")
    if not (signal.ignores_ends and signal.reads):
        pytest.skip("it does not ignore ends, or sees none")
    _learn(signal)
    given = [signal.rewards(_rows(signal, ended=torch.full((48,), ended))) for ended in (False, True)]
    demand(torch.equal(given[0], given[1]), "ignores_ends is True, and yet rewards depend on batch.ended.")


def test_on_policy_and_off_policy_rewards_are_alike(make: Make) -> None:
    """Beside PPO and beside DQN the same signal gives the same rewards for the same observations and actions."""
    import torch

    ours, theirs = make(), make(trainer_type="dqn")
    _learn(ours)
    _restore(ours, theirs)
    rows = _rows(ours)
    others = _rows(ours, features=rows.features + 1.0) if "obs" in ours.reads else rows
    demand(
        torch.allclose(ours.rewards(rows), theirs.rewards(others), rtol=1e-4, atol=1e-6),
        "Rewards beside DQN are not those beside PPO: read batch.obs, which is as the environment sent it, in place of "
        "batch.features, which are the policy's.",
    )
    _learn(theirs)


def test_state_is_restored(make: Make) -> None:
    """A signal that goes on from a checkpoint rewards and learns as one that was never stopped."""
    import torch

    signal, other = make(), make()
    _learn(signal)
    _restore(signal, other)
    batch = _rows(signal)
    demand(
        torch.equal(signal.rewards(batch), other.rewards(batch)),
        "After a resume rewards differ: name all networks in modules(), and what else counts in state_dict.",
    )
    for each in (signal, other):
        torch.manual_seed(1)
        _learn(each, range(UPDATES, 2 * UPDATES))
    changed = differing(_weights(signal), _weights(other))
    equal = not changed and torch.equal(signal.rewards(batch), other.rewards(batch))
    demand(
        equal,
        f"After a resume it learns otherwise{' (' + ', '.join(changed[:3]) + ')' if changed else ''}: let state_dict "
        "have the optimizer's state and that of random numbers.",
    )


def _restore(signal: RewardSignal, other: RewardSignal) -> None:
    """Let another signal go on where one is, by what a checkpoint holds."""
    import torch

    file = io.BytesIO()
    torch.save([signal.state_dict(), {name: module.state_dict() for name, module in signal.modules().items()}], file)
    file.seek(0)
    state, modules = torch.load(file, weights_only=False)
    with works("load_state_dict"):
        for name, module in other.modules().items():
            module.load_state_dict(modules[name])
        other.load_state_dict(state)
