"""What is learned by reward signals: a corridor whose end is never found by chance, and a demonstration alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mlagents_envs.base_env import ActionSpec, ActionTuple, BehaviorSpec, DimensionProperty, ObservationSpec
from mlagents_envs.base_env import ObservationType as Kind

from mlhooks import hookimpl
from mlhooks.demos.writing import write_demo
from mlhooks.envs.single_behavior import SingleBehaviorEnv
from mlhooks.settings import RewardSignalSettings
from mlhooks.sims.basic import Basic
from mlhooks.training.batch import Batch
from mlhooks.training.recording import Recorder, Scripted
from mlhooks.training.reward_signals import RewardSignal
from tests.scripted import Env, config, train

pytestmark = pytest.mark.slow
LENGTH, LIMIT, COST = 30, 45, np.float32(0.002)


class LongCorridor(SingleBehaviorEnv):
    """The end alone pays, and is reached by chance in one of 200,000 episodes; each step towards it costs a little.

    Which of two actions leads on differs from place to place; the other one leads back.
    """

    ONWARD = np.random.default_rng(4).integers(0, 2, LENGTH)

    def __init__(self, agents: int = 16) -> None:
        seen = ObservationSpec((LENGTH + 1,), (DimensionProperty.NONE,), Kind.DEFAULT, "place")
        super().__init__("LongCorridor", BehaviorSpec([seen], ActionSpec(0, (2,))), agents)

    def _obs(self) -> list[np.ndarray]:
        return [np.eye(LENGTH + 1, dtype=np.float32)[self.place]]

    def _restart(self) -> None:
        self.place, self.steps = np.zeros(self.num_agents, np.int64), np.zeros(self.num_agents, np.int64)
        self._decisions = self._decide(self._obs(), np.zeros(self.num_agents, np.float32))
        self._terminals = self._none_ended

    def _advance(self, action: ActionTuple) -> None:
        onward = action.discrete[:, 0] == self.ONWARD[self.place]
        self.place = np.maximum(self.place + np.where(onward, 1, -1), 0)
        self.steps += 1
        there, late = self.place == LENGTH, self.steps == LIMIT
        reward = there.astype(np.float32) - COST * onward
        ended = np.flatnonzero(there | late)
        self._terminals = self._none_ended
        if len(ended):
            self._terminals = self._end([part[ended] for part in self._obs()], reward[ended], ~there[ended], ended)
            self.place[ended] = self.steps[ended] = 0
        self._decisions = self._decide(self._obs(), np.where(there | late, np.float32(0), reward))


def corridor(**signals: Any) -> dict[str, Any]:
    settings = {
        "hyperparameters": {
            "batch_size": 64,
            "buffer_size": 720,
            "learning_rate": 0.001,
            "beta": 0.01,
            "learning_rate_schedule": "constant",
        },
        "network_settings": {"hidden_units": 32, "num_layers": 1},
        "reward_signals": {"extrinsic": {"gamma": 0.99}, **signals},
        "time_horizon": 64,
    }
    return config("LongCorridor", "test:x", max_steps=60_000, summary_freq=10_000, **settings)


NETWORK = {"hidden_units": 32, "num_layers": 1}
CURIOUS = {
    "curiosity": {"strength": 0.1, "learning_rate": 0.001, "network_settings": NETWORK},
    "rnd": {"strength": 0.1, "learning_rate": 0.001, "network_settings": NETWORK},
}


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("name", CURIOUS)
def test_end_of_a_long_corridor_is_found_by_who_is_curious(tmp_path: Path, name: str, seed: int) -> None:
    run = train(corridor(**{name: CURIOUS[name]}), tmp_path, Env(LongCorridor), seed=seed)
    assert run.trainers["LongCorridor"].mean_reward > 0.9


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_end_of_a_long_corridor_is_not_found_without(tmp_path: Path, seed: int) -> None:
    run = train(corridor(), tmp_path, Env(LongCorridor), seed=seed)
    assert run.trainers["LongCorridor"].mean_reward <= 0.0


class Constant(RewardSignal):
    """Pays for staying."""

    def evaluate(self, batch: Batch) -> torch.Tensor:
        return torch.ones(len(batch))


class Offer:
    @hookimpl
    def get_reward_signals(self) -> Any:
        return {"constant": (Constant, RewardSignalSettings)}


def alone(signal: dict[str, Any], folder: Path, seed: int) -> float:
    """Train Basic by one signal, which is not the environment's, and return what the environment paid at the end."""
    settings = {
        "hyperparameters": {"batch_size": 32, "buffer_size": 256, "learning_rate": 0.003},
        "network_settings": {"hidden_units": 20, "num_layers": 1},
        "reward_signals": signal,
    }
    basic = config("Basic", "sim:Basic", max_steps=8000, **settings)
    basic["env_settings"]["num_areas"] = 4
    reward = train(basic, folder, Offer(), seed=seed).trainers["Basic"].mean_reward
    assert reward is not None
    return reward


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_demonstration_alone_teaches_basic_and_a_constant_reward_does_not(tmp_path: Path, seed: int) -> None:
    def right(*_: Any) -> Scripted:
        return Scripted(lambda seen: 2, "right", Basic.SPEC, None)

    write_demo(tmp_path / "right.demo", Recorder(Basic(), right).record(10))
    demo = {"demo_path": str(tmp_path / "right.demo"), "use_actions": True}
    gail = {"gamma": 0.5, "learning_rate": 0.003, "network_settings": NETWORK, **demo}
    assert alone({"gail": gail}, tmp_path / "imitated", seed) > 0.8
    assert alone({"constant": {"gamma": 0.5}}, tmp_path / "constant", seed) < 0.5
