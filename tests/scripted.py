"""Tiny environments and plugins for tests of whole runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from mlagents_envs.base_env import ActionSpec, ActionTuple, BehaviorSpec, DimensionProperty, ObservationSpec
from mlagents_envs.base_env import ObservationType as Kind

import mlhooks
from mlhooks import hookimpl
from mlhooks.envs.single_behavior import SingleBehaviorEnv

if TYPE_CHECKING:
    from mlhooks.training.run import Run

QUIET = ["no:console", "no:tensorboard", "no:curve", "no:onnx_export"]


class Corridor(SingleBehaviorEnv):
    """Episodes of five decisions; action 1 is rewarded. `corrupt(step, obs, reward)` may spoil what is sent."""

    shape: tuple[int, ...] = (3,)

    def __init__(self, name: str = "Corridor", agents: int = 4, corrupt: Callable[..., None] | None = None) -> None:
        observation = ObservationSpec(self.shape, (DimensionProperty.NONE,) * len(self.shape), Kind.DEFAULT, "where")
        super().__init__(name, BehaviorSpec([observation], ActionSpec(0, (2,))), agents)
        self.corrupt, self.steps = corrupt, 0

    def _obs(self) -> list[np.ndarray]:
        return [np.full((self.num_agents, *self.shape), self.steps % 5, np.float32)]

    def _restart(self) -> None:
        self._decisions = self._decide(self._obs(), np.zeros(self.num_agents, np.float32))
        self._terminals = self._none_ended

    def _advance(self, action: ActionTuple) -> None:
        self.steps += 1
        obs, reward = self._obs(), action.discrete[:, 0].astype(np.float32)
        if self.corrupt is not None:
            self.corrupt(self.steps, obs, reward)
        self._terminals = self._none_ended
        if self.steps % 5 == 0:
            rows = np.arange(self.num_agents)
            self._terminals = self._end(obs, reward, np.zeros(self.num_agents, np.bool_), rows)
            reward = np.zeros_like(reward)
        self._decisions = self._decide(obs, reward)


class Env:
    """A plugin that offers `test:ANY`, made by a function."""

    def __init__(self, make: Callable[[], SingleBehaviorEnv] = Corridor) -> None:
        self.make = make

    @hookimpl
    def get_env_types(self) -> Mapping[str, Any]:
        return {"test": lambda name, **_: self.make()}


def config(behavior: str, env: str, *, max_steps: int = 600, **settings: Any) -> dict[str, Any]:
    """Return a small PPO configuration."""
    entry = {
        "trainer_type": "ppo",
        "hyperparameters": {"batch_size": 20, "buffer_size": 100, **settings.pop("hyperparameters", {})},
        "network_settings": {"hidden_units": 8, "num_layers": 1, "normalize": True},
        "max_steps": max_steps,
        "summary_freq": 200,
        "checkpoint_interval": 200,
        "time_horizon": 32,
        **settings,
    }
    return {"behaviors": {behavior: entry}, "env_settings": {"env_path": env, "seed": 5}}


def train(configuration: Mapping[str, Any], folder: Path, *plugins: object, **arguments: Any) -> Run:
    """Call `mlhooks.train` without pictures and noise, into a folder."""
    arguments = {"plugin_names": QUIET, "results_dir": folder, "run_id": "run", **arguments}
    return mlhooks.train(configuration, plugins=plugins, **arguments)
