"""The base of scripted environments: many agents side by side in short episodes, with every step noted."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import numpy as np
from mlagents_envs.base_env import (
    ActionTuple,
    BaseEnv,
    BehaviorMapping,
    BehaviorSpec,
    DecisionSteps,
    TerminalSteps,
)

BEHAVIOR = "Scripted"
GOES_ON, TERMINAL, INTERRUPTED = 0, 1, 2
DECISION = ("obs", "reward", "agent_id", "action_mask", "group_id", "group_reward")
TERMINAL_STEP = ("obs", "reward", "interrupted", "agent_id", "group_id", "group_reward")
LONGEST_ABSENCE = 3
LAZY_SHARE = 0.7


class Outcome(NamedTuple):
    """The outcome of an action: `reward` [agents] and `end` [agents], `GOES_ON`, `TERMINAL` or `INTERRUPTED`."""

    reward: np.ndarray
    end: np.ndarray


@dataclass
class Audit:
    """The calls that an environment got.

    Attributes:
        transitions: decisions whose reward was sent.
        forbidden: actions that the mask forbade.
        outside: actions that are not finite, beyond [-1, 1], or no index of their branch.
        actions: where `keep_actions` is set, the actions of each tick.
        returns: of the episodes that ended.
    """

    transitions: int = 0
    forbidden: int = 0
    outside: int = 0
    keep_actions: bool = False
    actions: list[np.ndarray] = field(default_factory=list)
    returns: list[float] = field(default_factory=list)


class ScriptedEnv(BaseEnv):  # type: ignore[misc]  # mlagents_envs ships no types.
    """An environment in numpy whose outcomes are known; subclasses implement `begin`, `observe` and `play`.

    Args:
        agents: agents side by side, each in its own episodes.
        seed: of everything random in it.
        renewed: let agents go when their episodes end; others with new ids come some ticks later.
        lazy: ask each agent for decisions at random ticks only.

    Attributes:
        spec: observations and actions.
        gamma: discount factor with which the task is to be learned.
        enough: mean return of the deterministic policy that counts as learned.
        state: per-agent arrays by name, which subclasses add theirs to; saved and restored.
        audit: what the environment was asked to do.
    """

    spec: ClassVar[BehaviorSpec]
    gamma: ClassVar[float] = 0.9
    enough: ClassVar[float] = float("nan")

    def __init__(self, agents: int = 16, seed: int = 0, *, renewed: bool = False, lazy: bool = False) -> None:
        self.agents, self.renewed, self.lazy = agents, renewed, lazy
        self.rng = np.random.default_rng([seed, 17])
        self.audit = Audit()
        self.state: dict[str, np.ndarray] = {}
        self._specs = BehaviorMapping({BEHAVIOR: self.spec})
        self._next_id = agents
        self._waiting = np.zeros(0, np.int64)
        self._action: ActionTuple | None = None

    # --- what subclasses say

    @abstractmethod
    def begin(self, rows: np.ndarray) -> None:
        """Put the agents at `rows` at the start of an episode."""

    @abstractmethod
    def observe(self, rows: np.ndarray) -> list[np.ndarray]:
        """Return what the agents at `rows` observe, a list of [rows, *shape]; images are floats, or bytes as uint8."""

    @abstractmethod
    def play(self, rows: np.ndarray, action: ActionTuple) -> Outcome:
        """Carry out one action of each agent at `rows`."""

    def group_reward(self, rows: np.ndarray) -> np.ndarray:
        """Return the group's reward beside the agents' own, [rows]; none by default."""
        return np.zeros(len(rows), np.float32)

    def group_id(self, rows: np.ndarray) -> np.ndarray:
        """Return the groups of agents, [rows]; 0, which is none, by default."""
        return np.zeros(len(rows), np.int32)

    def mask(self, rows: np.ndarray) -> list[np.ndarray] | None:  # noqa: ARG002
        """Return what is forbidden, per branch [rows, choices], or None."""
        return None

    # --- BaseEnv

    @property
    def behavior_specs(self) -> Mapping[str, BehaviorSpec]:
        """The one behavior."""
        specs: Mapping[str, BehaviorSpec] = self._specs
        return specs

    def reset(self) -> None:
        """Begin an episode of every agent."""
        everyone = np.arange(self.agents)
        self.state["_id"] = everyone.astype(np.int32)
        self.state["_absent"] = np.zeros(self.agents, np.int64)
        self.state["_open"] = np.zeros(self.agents, np.bool_)
        self.state["_reward"] = np.zeros(self.agents, np.float32)
        self.state["_return"] = np.zeros(self.agents)
        self.begin(everyone)
        self._terminals = TerminalSteps.empty(self.spec)
        self._ask()

    def step(self) -> None:
        """Carry out the actions that were set, for all agents that wait for one."""
        acted, over = self._waiting, self._waiting[:0]
        if len(acted):
            assert self._action is not None, "step() needs set_actions() first: agents wait for an action"
            reward, end = self.play(acted, self._action)
            self.state["_reward"][acted] = reward
            self.state["_return"][acted] += reward
            over = acted[end != GOES_ON]
            self._terminals = self._terminal_steps(over, end[end != GOES_ON] == INTERRUPTED)
        else:
            self._terminals = TerminalSteps.empty(self.spec)
        self.state["_absent"] = np.maximum(self.state["_absent"] - 1, 0)
        self._end(over)
        self._ask()

    def get_steps(self, behavior_name: str) -> tuple[DecisionSteps, TerminalSteps]:
        """Return what the agents see."""
        assert behavior_name == BEHAVIOR
        return self._decisions, self._terminals

    def set_actions(self, behavior_name: str, action: ActionTuple) -> None:
        """Take the actions of the agents that wait, and note what is wrong with them."""
        assert behavior_name == BEHAVIOR
        spec, agents = self.spec.action_spec, len(self._waiting)
        continuous, discrete = np.asarray(action.continuous), np.asarray(action.discrete)
        assert continuous.shape == (agents, spec.continuous_size), f"continuous actions of shape {continuous.shape}"
        assert discrete.shape == (agents, spec.discrete_size), f"discrete actions of shape {discrete.shape}"
        with np.errstate(invalid="ignore"):
            self.audit.outside += int((~(np.abs(continuous) <= 1.0 + 1e-5)).sum())
        self.audit.outside += int(((discrete < 0) | (discrete >= np.array(spec.discrete_branches, int))).sum())
        for branch, forbidden in enumerate(self._decisions.action_mask or ()):
            self.audit.forbidden += int(forbidden[np.arange(agents), discrete[:, branch]].sum())
        if self.audit.keep_actions:
            self.audit.actions.append(np.concatenate([continuous, discrete], axis=1))
        self._action = action

    def set_action_for_agent(self, behavior_name: str, agent_id: int, action: ActionTuple) -> None:
        """Refuse: trainers decide for all agents at once."""
        raise NotImplementedError

    def close(self) -> None:
        """Do nothing: there is nothing to free."""

    def state_dict(self) -> dict[str, Any]:
        """Return the whole state between two steps."""
        decisions, terminals = self._decisions, self._terminals
        return deepcopy(
            {
                "agents": self.state,
                "random": self.rng.bit_generator.state,
                "next_id": self._next_id,
                "waiting": self._waiting,
                "decisions": [getattr(decisions, name) for name in DECISION],
                "terminals": [getattr(terminals, name) for name in TERMINAL_STEP],
            }
        )

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        state = deepcopy(dict(state))
        self.state, self._next_id, self._waiting = state["agents"], state["next_id"], state["waiting"]
        self.rng.bit_generator.state = state["random"]
        self._decisions = DecisionSteps(*state["decisions"])
        self._terminals = TerminalSteps(*state["terminals"])

    # --- one tick

    def _observed(self, rows: np.ndarray) -> list[np.ndarray]:
        parts = self.observe(rows)
        return [part if part.dtype == np.uint8 and part.ndim == 4 else part.astype(np.float32) for part in parts]

    def _terminal_steps(self, over: np.ndarray, interrupted: np.ndarray) -> TerminalSteps:
        obs = self._observed(over)
        ids, reward = self.state["_id"][over], self.state["_reward"][over]
        return TerminalSteps(obs, reward, interrupted, ids, self.group_id(over), self.group_reward(over))

    def _end(self, over: np.ndarray) -> None:
        """Note the episodes that are over and begin the next ones."""
        state = self.state
        self.audit.transitions += len(over)
        self.audit.returns.extend(state["_return"][over].tolist())
        state["_open"][over], state["_reward"][over], state["_return"][over] = False, 0.0, 0.0
        if self.renewed:
            state["_id"][over] = np.arange(self._next_id, self._next_id + len(over), dtype=np.int32)
            state["_absent"][over] = self.rng.integers(0, LONGEST_ABSENCE, len(over))
            self._next_id += len(over)
        if len(over):
            self.begin(over)

    def _ask(self) -> None:
        """Ask the agents that are there for a decision."""
        state = self.state
        asked = np.flatnonzero(state["_absent"] == 0)
        if self.lazy:
            asked = asked[self.rng.random(len(asked)) < LAZY_SHARE]
        self.audit.transitions += int(state["_open"][asked].sum())
        obs = self._observed(asked)
        reward, ids = state["_reward"][asked], state["_id"][asked]
        shared = np.where(state["_open"][asked], self.group_reward(asked), 0.0).astype(np.float32)
        self._decisions = DecisionSteps(obs, reward, ids, self.mask(asked), self.group_id(asked), shared)
        state["_open"][asked], state["_reward"][asked] = True, 0.0
        self._waiting, self._action = asked, None


def one_hot(index: np.ndarray, size: int) -> np.ndarray:
    """Return [rows, size] zeros with a one at each index."""
    rows: np.ndarray = np.eye(size, dtype=np.float32)[index]
    return rows
