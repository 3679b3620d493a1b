"""Rewards in units of the deviation of their running returns, against `VecNormalize`'s loop written down by hand."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from builtin_plugins.dqn import DQNSettings
from mlhooks import hookimpl
from mlhooks.errors import CheckpointError, SettingsError
from mlhooks.plugins import load_plugins
from mlhooks.settings import SettingsRegistry, load_run_options
from tests.scripted import Corridor, Env, config, train

AGENTS, STEPS = 3, 5


class Paid(Corridor):
    """A corridor whose agents end together after five decisions, and whose rewards are kept: [steps, agents]."""

    def __init__(self) -> None:
        super().__init__(agents=AGENTS, corrupt=self.pay)
        self.paid: list[np.ndarray] = []

    def pay(self, step: int, obs: Any, reward: np.ndarray) -> None:
        reward[:] = 3.0 * np.sin(step + np.arange(AGENTS)) + (40.0 if step == 27 else 0.0)
        self.paid.append(reward.astype(np.float64))


class Kept:
    """Keeps the rewards of rollouts or minibatches as they are learned from, and the trainer."""

    def __init__(self) -> None:
        self.rewards: list[np.ndarray] = []

    @hookimpl
    def behavior_added(self, trainer: Any) -> None:
        self.trainer, learning = trainer, trainer.learning
        if hasattr(learning, "_normalized"):
            normalized = learning._normalized
            learning._normalized = lambda *a: (self.rewards.append(normalized(*a)), self.rewards[-1])[1]


def by_hand(paid: list[np.ndarray], gamma: float, clip: float = 10.0) -> tuple[np.ndarray, float]:
    """Return rewards [steps, agents] as `VecNormalize` gives them, and the last deviation."""
    returns, count, mean, variance, given = np.zeros(AGENTS), 1e-4, 0.0, 1.0, []
    for step, reward in enumerate(paid):
        returns = gamma * returns + reward
        delta, total = returns.mean() - mean, count + AGENTS
        m2 = variance * count + returns.var() * AGENTS + delta**2 * count * AGENTS / total
        mean, variance, count = mean + delta * AGENTS / total, m2 / total, total
        given.append(np.clip(reward / np.sqrt(variance + 1e-8), -clip, clip))
        if step % STEPS == STEPS - 1:
            returns[:] = 0.0
    return np.array(given), float(np.sqrt(variance + 1e-8))


@pytest.mark.parametrize(
    ("more", "gamma", "clip"),
    [({}, 0.9, 10.0), ({"normalize_rewards_gamma": 0.5, "normalize_rewards_clip": 1.5}, 0.5, 1.5)],
)
@pytest.mark.parametrize("strength", [1.0, -0.5])
def test_rewards_of_rollouts_are_those_of_vec_normalize(
    tmp_path: Path, more: dict[str, Any], gamma: float, clip: float, strength: float
) -> None:
    env, kept = Paid(), Kept()
    asked = config(
        "Corridor",
        "test:x",
        max_steps=252,
        time_horizon=4,  # The sums go on where trajectories are cut.
        hyperparameters={"batch_size": 12, "buffer_size": 36, "normalize_rewards": "running", **more},
        reward_signals={"extrinsic": {"gamma": 0.9, "strength": strength}},
    )
    train(asked, tmp_path, Env(lambda: env), kept)
    wanted, _ = by_hand(env.paid[:84], gamma, clip)  # Rollouts of 12 steps end in the middle of episodes.
    found = np.concatenate(kept.rewards)[:, 0].reshape(84, AGENTS)
    np.testing.assert_allclose(found, strength * wanted, rtol=1e-5, atol=1e-6)
    assert (np.abs(found).max() == np.float32(clip * abs(strength))) == (np.abs(wanted).max() == clip)


def test_rewards_of_a_replay_buffer_are_divided_by_the_deviation_of_now(tmp_path: Path) -> None:
    env, kept, batches = Paid(), Kept(), list[tuple[int, Any]]()
    asked = config("Corridor", "test:x", max_steps=120)
    asked["behaviors"]["Corridor"] |= {
        "trainer_type": "dqn",
        "hyperparameters": {"batch_size": 8, "buffer_init_steps": 30, "normalize_rewards": "running", "gamma": 0.9},
    }

    class Look:
        @hookimpl
        def behavior_added(self, trainer: Any) -> None:
            sample = trainer.learning.sample
            trainer.learning.sample = lambda *a: (batches.append((trainer.step // AGENTS, sample(*a))), batches[-1][1])[
                1
            ]

    train(asked, tmp_path, Env(lambda: env), kept, Look())
    assert len(batches) > 50
    for steps, batch in batches:
        _, deviation = by_hand(env.paid[:steps], 0.9)
        wanted = np.clip(batch.rewards.numpy() / deviation, -10.0, 10.0)
        np.testing.assert_allclose(batch.signal_rewards[:, 0].numpy(), wanted, rtol=1e-5)
    scale = kept.trainer.learning.running_returns.statistics.scale()
    assert scale[0] == pytest.approx(1.0 / deviation, rel=1e-6)


def test_following_sums_are_refused_where_they_are_not_known() -> None:
    with pytest.raises(ValueError, match="write normalize_rewards: running"):
        DQNSettings(normalize_rewards=True)


@pytest.mark.parametrize(("key", "kind"), [("epsilon_final", "epsilon"), ("learning_rate_final", "learning_rate")])
def test_end_of_a_schedule_that_stays_constant_is_said_to_have_no_effect(key: str, kind: str) -> None:
    asked = config("Corridor", "test:x", hyperparameters={key: 0, f"{kind}_schedule": "constant"})
    registry = SettingsRegistry.from_plugins(load_plugins(autoload=False))
    (warning,) = load_run_options(asked, registry).warnings
    assert f"{key} has no effect, because {kind}_schedule is constant" in warning.message


def test_unknown_way_of_normalization_names_the_others(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="following, running, none"):
        train(config("Corridor", "test:x", hyperparameters={"normalize_rewards": "returns"}), tmp_path, Env())


def digest(folder: Path) -> str:
    return hashlib.sha256((folder / "run" / "3DBall" / "3DBall-900.pt").read_bytes()).hexdigest()


class Snapshot:
    """Copies the run's folder after the second update: what is left when the process is killed there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @hookimpl
    def run_started(self, run: Any) -> None:
        self.run = run

    @hookimpl
    def update_finished(self, trainer: Any) -> None:
        if trainer.updates == 2:
            shutil.copytree(self.run.path, self.folder / "run")


def test_run_with_settings_of_stable_baselines3_resumes_exactly(tmp_path: Path) -> None:
    asked = config(
        "3DBall",
        "sim:3DBall",
        max_steps=900,
        hyperparameters={
            "batch_size": 60,
            "buffer_size": 300,
            "normalize_rewards": "running",
            "optimizer": "rmsprop_tf",
            "optimizer_kwargs": {"eps": 1e-5},
            "target_kl": 0.01,
            "learning_rate_final": 0,
        },
        network_settings={"hidden_units": 8, "num_layers": 1, "normalize": True, "normalize_clip": 10},
    )
    train(asked, tmp_path / "whole", Snapshot(tmp_path / "killed"))
    train(asked, tmp_path / "killed", resume=True)
    assert digest(tmp_path / "killed") == digest(tmp_path / "whole")


def test_resume_does_not_take_statistics_of_other_sums(tmp_path: Path) -> None:
    hyperparameters = {"batch_size": 60, "buffer_size": 300, "normalize_rewards": "running"}
    network = {"hidden_units": 8, "num_layers": 1}
    asked = config("3DBall", "sim:3DBall", max_steps=300, hyperparameters=hyperparameters, network_settings=network)
    train(asked, tmp_path)
    asked["behaviors"]["3DBall"]["max_steps"] = 600
    asked["behaviors"]["3DBall"]["hyperparameters"]["normalize_rewards"] = "following"
    with pytest.raises(CheckpointError, match="running_returns"):
        train(asked, tmp_path, resume=True)
