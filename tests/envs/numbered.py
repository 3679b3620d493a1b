"""Environments for worker processes: tiny, without torch, and with every step of every episode told apart."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from mlagents_envs.base_env import (
    ActionSpec,
    BaseEnv,
    BehaviorSpec,
    DecisionSteps,
    DimensionProperty,
    ObservationSpec,
    ObservationType,
    TerminalSteps,
)

SEEN = 4
"""What is observed: life and worker as 100 * life + worker, agent, episode, step."""


def spec(name: str = "numbers", shape: tuple[int, ...] = (SEEN,)) -> BehaviorSpec:
    observation = ObservationSpec(shape, (DimensionProperty.NONE,) * len(shape), ObservationType.DEFAULT, name)
    return BehaviorSpec([observation], ActionSpec(1, (2, 3)))


@dataclass
class Plan:
    """What goes wrong in which step, counted over the life of an environment, and how agents come and go."""

    faults: Mapping[int, str] = field(default_factory=dict)
    lives: int = 1_000_000  # It goes wrong in so many lives of the environment.
    folder: str = ""  # Lives are counted there.
    agents: int = 3
    growth: int = 0  # Each episode has so many more agents.
    length: int = 5
    late: int = -1  # A second behavior appears at this step.
    masked: bool = False
    random: float = 0.0  # This is the probability of a random fault in each step.
    kinds: tuple[str, ...] = ("raise", "nan")


@dataclass
class Make:
    """A factory of one plan for each worker."""

    plans: Sequence[Plan]

    def __call__(self, worker_id: int) -> Numbered:
        return Numbered(worker_id, self.plans[worker_id % len(self.plans)])


class Numbered(BaseEnv):
    """Agents whose observations say which life, agent, episode and step they are of; rewards say which step."""

    def __init__(self, worker: int = 0, plan: Plan | None = None) -> None:
        self.worker, self.plan = worker, plan or Plan()
        self.life = self._count_life()
        self.rng = np.random.default_rng([worker, self.life])
        self.total = self.episode = self.step_number = 0
        self.actions: dict[str, Any] = {}
        self.closed = False

    def _count_life(self) -> int:
        if not self.plan.folder:
            return 0
        life = 0
        while True:
            try:
                os.close(os.open(f"{self.plan.folder}/{self.worker}-{life}", os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                life += 1
            else:
                return life

    @property
    def behavior_specs(self) -> Mapping[str, BehaviorSpec]:
        specs = {"Numbers": spec()}
        if 0 <= self.plan.late <= self.total:
            specs["Late?team=1"] = spec("square", (2, 2))
        return specs

    def reset(self) -> None:
        self.step_number = 0
        self.episode += 1
        self._ended: TerminalSteps | None = None

    def step(self) -> None:
        self.total += 1
        fault = self.plan.faults.get(self.total, "") if self.life < self.plan.lives else ""
        if (
            self.rng.random() < self.plan.random and self.total > 1
        ):  # Otherwise it would fail twice without a step between.
            fault = str(self.rng.choice(self.plan.kinds))
        getattr(self, f"_{fault}", lambda: None)()
        self.nan = fault == "nan"
        self.step_number += 1
        self._ended = None
        if self.step_number == self.plan.length:
            self._ended = TerminalSteps(*self._common(), *self._rest(TerminalSteps))
            self.episode += 1
            self.step_number = 0

    def _raise(self) -> None:
        raise RuntimeError("it exploded")

    def _connection(self) -> None:
        raise ConnectionResetError("the robot hung up")

    def _interrupt(self) -> None:
        raise KeyboardInterrupt("says the environment")

    def _crash(self) -> None:
        os._exit(7)

    def _hang(self) -> None:
        time.sleep(1000)

    nan = False

    @property
    def count(self) -> int:
        return self.plan.agents + self.plan.growth * self.episode

    def _common(self) -> tuple[list[np.ndarray], np.ndarray]:
        n = self.count
        obs = np.zeros((n, SEEN), np.float32)
        obs[:] = [100 * self.life + self.worker, 0, self.episode, self.step_number]
        obs[:, 1] = np.arange(n)
        if self.nan:
            obs[0, 0] = np.nan
        return [obs], np.full(n, self.step_number, np.float32)

    def _rest(self, kind: type) -> tuple[Any, ...]:
        n = self.count
        ids, no_group, no_reward = np.arange(n, dtype=np.int32), np.zeros(n, np.int32), np.zeros(n, np.float32)
        if kind is TerminalSteps:
            return np.full(n, self.episode % 2 == 0), ids, no_group, no_reward
        mask = [np.zeros((n, 2), np.bool_), np.tile([False, True, False], (n, 1))] if self.plan.masked else None
        return ids, mask, no_group, no_reward

    def get_steps(self, behavior_name: str) -> tuple[DecisionSteps, TerminalSteps]:
        kind = self.behavior_specs[behavior_name]
        obs, reward = self._common()
        decisions = DecisionSteps(obs, reward, *self._rest(DecisionSteps))
        ended = self._ended or TerminalSteps.empty(kind)
        if self._ended is not None:
            decisions.reward[:] = 0.0
        if behavior_name != "Numbers":
            decisions.obs[0] = decisions.obs[0].reshape(-1, 2, 2)
            ended = TerminalSteps.empty(kind)
        return decisions, ended

    def set_actions(self, behavior_name: str, action: Any) -> None:
        self.actions[behavior_name] = action

    def set_action_for_agent(self, behavior_name: str, agent_id: int, action: Any) -> None:
        raise NotImplementedError

    def close(self) -> None:
        self.closed = True
