"""Plays against the stand-in through the reference client, and keeps what every agent sent and was told to do."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from subprocess import Popen
from typing import Any
from unittest import mock

import numpy as np
from mlagents_envs import env_utils
from mlagents_envs.base_env import ActionTuple
from mlagents_envs.environment import UnityEnvironment
from mlagents_envs.exception import UnityEnvironmentException

from mlhooks.sim_player.command import write_executable


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


class Reference(UnityEnvironment):
    """The reference client, which leaves its server open when a player goes before it connects."""

    def __init__(self, *args: Any, **options: Any) -> None:
        try:
            super().__init__(*args, **options)
        except UnityEnvironmentException:
            self._close(0)  # When the interpreter exits, Python 3.12.1 no longer starts the thread that this takes.
            raise


@contextmanager
def connected(folder: Path, *arguments: str, timeout: int = 60, **options: Any) -> Iterator[UnityEnvironment]:
    """Start a stand-in as the reference starts a build; it is gone at the end, whatever happened to it."""
    path = write_executable(folder / "Build" / "Player", arguments)
    options = {"base_port": free_port(), "seed": 7, "no_graphics": True, "log_folder": str(folder), **options}
    started: list[Popen[bytes]] = []
    launch = env_utils.launch_executable
    try:
        with mock.patch.object(env_utils, "launch_executable", lambda *how: started.append(launch(*how)) or started[0]):
            env = Reference(str(path), timeout_wait=timeout, **options)
        env.player = started[0]
        # So that a player that goes away is noticed at once, and not at the end of a slice of the timeout.
        env._communicator.timeout_wait = 9
        try:
            yield env
        finally:
            env.close()
    finally:
        for process in started:
            process.kill()
            process.wait()


@dataclass
class Seen:
    """One agent's info, and the action that it got for it."""

    message: int
    id: int
    obs: dict[str, np.ndarray]
    reward: float
    group_id: int
    group_reward: float
    interrupted: bool | None = None  # It is None where no episode ended.
    mask: list[np.ndarray] | None = None
    continuous: np.ndarray | None = None
    discrete: np.ndarray | None = None

    @property
    def done(self) -> bool:
        return self.interrupted is not None

    @property
    def agent(self) -> int:
        return int(self.obs["clock"][1])

    @property
    def episode(self) -> int:
        return int(self.obs["clock"][2])

    @property
    def step(self) -> int:
        return int(self.obs["clock"][3])


class Recording:
    """What the agents of each behavior sent, in the order of arrival."""

    def __init__(self) -> None:
        self.infos: dict[str, list[Seen]] = {}
        self.specs: dict[str, Any] = {}
        self.messages = 0

    def of(self, behavior: str) -> list[Seen]:
        return self.infos[f"{behavior}?team=0"]

    def lives(self, behavior: str) -> list[list[Seen]]:
        """Return the infos of each agent id."""
        lives: dict[int, list[Seen]] = {}
        for seen in self.of(behavior):
            lives.setdefault(seen.id, []).append(seen)
        return list(lives.values())

    def pairs(self, behavior: str) -> list[tuple[Seen, Seen]]:
        """Return each info with the next one of the same agent id."""
        return [pair for life in self.lives(behavior) for pair in pairwise(life)]

    def play(self, env: UnityEnvironment, steps: int, seed: int = 0) -> Recording:
        """Reset, and take steps with random allowed actions."""
        source = np.random.default_rng(seed)
        env.reset()
        for _ in range(steps):
            self._record(env, source)
            env.step()
        return self

    def _record(self, env: UnityEnvironment, source: np.random.Generator) -> None:
        for name, spec in env.behavior_specs.items():
            self.specs[name] = spec
            names = [part.name for part in spec.observation_specs]
            decisions, terminals = env.get_steps(name)
            infos = self.infos.setdefault(name, [])
            for row in range(len(terminals)):
                infos.append(self._seen(terminals, names, row))
                infos[-1].interrupted = bool(terminals.interrupted[row])
            actions = _actions(spec.action_spec, decisions, source)
            for row in range(len(decisions)):
                infos.append(seen := self._seen(decisions, names, row))
                seen.mask = None if decisions.action_mask is None else [part[row] for part in decisions.action_mask]
                seen.continuous, seen.discrete = actions.continuous[row], actions.discrete[row]
            env.set_actions(name, actions)
        self.messages += 1

    def _seen(self, steps: Any, names: list[str], row: int) -> Seen:
        return Seen(
            self.messages,
            int(steps.agent_id[row]),
            {name: steps.obs[index][row] for index, name in enumerate(names)},
            float(steps.reward[row]),
            int(steps.group_id[row]),
            float(steps.group_reward[row]),
        )


def _actions(spec: Any, decisions: Any, source: np.random.Generator) -> ActionTuple:
    count = len(decisions)
    continuous = source.uniform(-1, 1, (count, spec.continuous_size)).astype(np.float32)
    discrete = np.zeros((count, spec.discrete_size), dtype=np.int32)
    for branch in range(spec.discrete_size):
        for row, forbidden in enumerate(decisions.action_mask[branch]):
            discrete[row, branch] = source.choice(np.flatnonzero(~forbidden))
    return ActionTuple(continuous, discrete)
