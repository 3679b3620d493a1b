"""The base of all simulations: episodes per agent, seeds, environment parameters, and state that can be saved."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from copy import deepcopy
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt
from mlagents_envs.base_env import (
    ActionTuple,
    BehaviorSpec,
    DecisionSteps,
    DimensionProperty,
    ObservationSpec,
    ObservationType,
    TerminalSteps,
)
from mlagents_envs.exception import UnityEnvironmentException

from mlhooks.envs.single_behavior import SingleBehaviorEnv

Rows = npt.NDArray[np.intp]
"""Indices of agents."""


class Sampler(Protocol):
    """The source of an environment parameter's values."""

    def draw(self, count: int, /) -> npt.NDArray[np.float64]:
        """Draw values for so many episodes."""


def vector_spec(name: str, size: int, kind: ObservationType = ObservationType.DEFAULT) -> ObservationSpec:
    """Return the spec of a vector observation."""
    return ObservationSpec((size,), (DimensionProperty.NONE,), kind, name)


def one_hot(index: npt.NDArray[np.intp], size: int) -> npt.NDArray[np.float32]:
    """Return [len(index), size] zeros with a one at each index."""
    out = np.zeros((len(index), size), dtype=np.float32)
    out[np.arange(len(index)), index] = 1.0
    return out


class Simulation(SingleBehaviorEnv):
    """A simulation in which every agent decides at every step.

    When an episode ends, its terminal step and the first decision step of the agent's next episode arrive together. An
    episode cut by `MAX_STEPS` is interrupted.

    An environment parameter is drawn again for each episode that begins. Those that were never set have their defaults,
    and those that the simulation does not know are ignored, as a Unity player ignores them.

    Subclasses name themselves and implement `_begin`, `_move`, `_observe` and, with masks, `_mask`.

    Args:
        num_agents: Agents in one area; None means the simulation's own number.
        num_areas: Copies of the area.
        seed: With `worker_id`, all that the course of the simulation depends on beside the actions.
        worker_id: Workers with one seed draw from independent streams.
    """

    NAME: ClassVar[str]
    SPEC: ClassVar[BehaviorSpec]
    AGENTS: ClassVar[int]
    MAX_STEPS: ClassVar[int]
    STATE: ClassVar[tuple[str, ...]]
    """Names of the attributes, arrays whose last axis is the agent's, that make up an agent's state."""
    PARAMETERS: ClassVar[Mapping[str, float]] = {}
    """Environment parameters and their defaults."""

    @classmethod
    def behavior_names(cls) -> list[str]:
        """Return the names of all behaviors."""
        return [cls.NAME]

    def __init__(self, *, num_agents: int | None = None, num_areas: int = 1, seed: int = 0, worker_id: int = 0) -> None:
        per_area = self.AGENTS if num_agents is None else num_agents
        super().__init__(self.NAME, self.SPEC, per_area * num_areas)
        self._rng = np.random.default_rng([seed, worker_id])
        self._all: Rows = np.arange(self.num_agents)
        self._ages = np.zeros(self.num_agents, dtype=np.int64)
        self.parameters = {name: np.full(self.num_agents, value) for name, value in self.PARAMETERS.items()}
        """The environment parameters of each agent's episode, each [agents]."""
        self._samplers: dict[str, Any] = {}

    def set_parameters(self, parameters: Mapping[str, Sampler]) -> None:
        """Draw environment parameters from these in the episodes that begin from now on."""
        self._samplers = {name: sampler for name, sampler in parameters.items() if name in self.PARAMETERS}

    def _start(self, rows: Rows) -> None:
        for name, sampler in self._samplers.items():
            self.parameters[name][rows] = sampler.draw(len(rows))
        self._begin(rows)

    @abstractmethod
    def _begin(self, rows: Rows) -> None:
        """Put the agents at `rows` at the start of a new episode, whose environment parameters are in `parameters`."""

    @abstractmethod
    def _move(self, action: ActionTuple) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """Carry out one decision of every agent, and return rewards and who reached a terminal state, both [agents]."""

    @abstractmethod
    def _observe(self, rows: Rows) -> list[npt.NDArray[np.float32]]:
        """Return newly made observations of the agents at `rows`."""

    def _mask(self) -> list[npt.NDArray[np.bool_]] | None:
        """Return what is forbidden to each agent, per branch [agents, branch size]; None if everything is allowed."""
        return None

    def _restart(self) -> None:
        self._start(self._all)
        self._ages[:] = 0
        reward = np.zeros(self.num_agents, dtype=np.float32)
        self._decisions = self._decide(self._observe(self._all), reward, mask=self._mask())
        self._terminals = self._none_ended

    def _advance(self, action: ActionTuple) -> None:
        reward, terminated = self._move(action)
        self._ages += 1
        obs = self._observe(self._all)
        self._terminals = self._none_ended
        ended = terminated | (self._ages >= self.MAX_STEPS)
        if np.count_nonzero(ended):
            rows = np.flatnonzero(ended)
            self._terminals = self._end([part[rows] for part in obs], reward[rows], ~terminated[rows], rows)
            reward[rows] = 0.0
            self._ages[rows] = 0
            self._start(rows)
            for part, first in zip(obs, self._observe(rows), strict=True):
                part[rows] = first
        self._decisions = self._decide(obs, reward, mask=self._mask())

    def state_dict(self) -> dict[str, Any]:
        """Return the whole state between two steps: agents, random generators, and the steps that wait.

        Actions that were set but not yet carried out are not part of it, and neither is what `set_parameters` was given
        but for how far it was drawn from.
        """
        return {
            "agents": {name: getattr(self, name).copy() for name in self.STATE},
            "ages": self._ages.copy(),
            "parameters": {name: values.copy() for name, values in self.parameters.items()},
            "samplers": {name: deepcopy(sampler.state_dict()) for name, sampler in self._samplers.items()},
            "random": deepcopy(self._rng.bit_generator.state),
            "decisions": None if self._decisions is None else _arrays_of(self._decisions),
            "terminals": _arrays_of(self._terminals),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue exactly where `state_dict()` was taken; environment parameters are to be set before.

        Raises:
            UnityEnvironmentException: The state is of another number of agents.
        """
        saved = len(state["ages"])
        if saved != self.num_agents:
            raise UnityEnvironmentException(
                f"The saved state is of {saved} agents of {self.NAME}, this environment has {self.num_agents}; "
                "resume with the same num_agents and num_areas."
            )
        for name in self.STATE:
            getattr(self, name)[...] = state["agents"][name]
        self._ages[:] = state["ages"]
        for name, values in state["parameters"].items():
            self.parameters[name][:] = values
        for name in self._samplers.keys() & state["samplers"].keys():
            self._samplers[name].load_state_dict(state["samplers"][name])
        self._rng.bit_generator.state = state["random"]
        self._action = None
        self._decisions = None if state["decisions"] is None else self._decisions_from(state["decisions"])
        self._terminals = self._terminals_from(state["terminals"])

    def _decisions_from(self, saved: Mapping[str, Any]) -> DecisionSteps:
        mask = saved["mask"]
        copies = None if mask is None else [part.copy() for part in mask]
        return self._decide([part.copy() for part in saved["obs"]], saved["reward"].copy(), mask=copies)

    def _terminals_from(self, saved: Mapping[str, Any]) -> TerminalSteps:
        if len(saved["agent_id"]) == 0:
            return self._none_ended
        obs = [part.copy() for part in saved["obs"]]
        # Ids are rows.
        return self._end(obs, saved["reward"].copy(), saved["interrupted"].copy(), saved["agent_id"].astype(np.intp))


def _arrays_of(steps: DecisionSteps | TerminalSteps) -> dict[str, Any]:
    names = ("reward", "agent_id", "group_reward")
    arrays = {"obs": [part.copy() for part in steps.obs], **{name: getattr(steps, name).copy() for name in names}}
    if isinstance(steps, TerminalSteps):
        return {**arrays, "interrupted": steps.interrupted.copy()}
    mask = steps.action_mask
    return {**arrays, "mask": None if mask is None else [part.copy() for part in mask]}
