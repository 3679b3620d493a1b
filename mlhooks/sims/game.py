"""The base of games between teams: each side has a behavior id of its own, and all agents of a game end together."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from copy import deepcopy
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from mlagents_envs.base_env import ActionTuple, BaseEnv, BehaviorSpec, DecisionSteps, TerminalSteps
from mlagents_envs.exception import UnityActionException, UnityEnvironmentException

from mlhooks.envs.single_behavior import SingleBehaviorEnv

Rows = npt.NDArray[np.intp]
"""Indices of games."""
Floats = npt.NDArray[np.float32]


class Side(SingleBehaviorEnv):
    """The agents of one side, one in each game; the game says what they see.

    Args:
        behavior_id: Name under which trainers know the side.
        spec: Its observations and actions.
        agents: How many games there are.
        first: The id of its first agent; the others count on.
    """

    def __init__(self, behavior_id: str, spec: BehaviorSpec, agents: int, first: int) -> None:
        super().__init__(behavior_id, spec, agents)
        self._ids = np.arange(first, first + agents, dtype=np.int32)
        self._ids.flags.writeable = False

    def _restart(self) -> None:
        """Do nothing: the game begins."""

    def _advance(self, action: ActionTuple) -> None:
        """Do nothing: the game goes on."""

    def show(self, obs: Floats, reward: Floats, ended: Rows) -> None:
        """Show agents what they see [games, size] now, and to those whose game ended [ended] its last reward [games].

        The terminal step of an agent and the first decision of its next game arrive together.
        """
        self._decisions = self._decide([obs], np.where(self._is_in(ended), np.float32(0.0), reward))

    def end(self, obs: Floats, reward: Floats, ended: Rows) -> None:
        """Tell the agents of these games what they see last [ended, size], and their last reward [ended]."""
        self._terminals = self._none_ended
        if len(ended):
            self._terminals = self._end([obs], reward, np.zeros(len(ended), np.bool_), ended)

    def take_action(self) -> ActionTuple:
        """Return the actions of all agents; those that got none act zero."""
        action, self._action = self._action, None
        return self._action_spec.empty_action(self.num_agents) if action is None else action

    def _is_in(self, games: Rows) -> npt.NDArray[np.bool_]:
        inside = np.zeros(self.num_agents, np.bool_)
        inside[games] = True
        return inside

    def _games(self, terminals: TerminalSteps) -> Rows:
        games: Rows = terminals.agent_id.astype(np.intp) - int(self._ids[0])
        return games

    def state_dict(self) -> dict[str, Any]:
        """Return the steps that wait."""
        decisions, terminals = self._decisions, self._terminals
        return {
            "decisions": None if decisions is None else [decisions.obs[0].copy(), decisions.reward.copy()],
            "terminals": [terminals.obs[0].copy(), terminals.reward.copy(), self._games(terminals)],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        saved, self._action = state["decisions"], None
        self._decisions = None if saved is None else self._decide([saved[0].copy()], saved[1].copy())
        obs, reward, ended = state["terminals"]
        self.end(obs.copy(), reward.copy(), ended)


class Game(BaseEnv):  # type: ignore[misc]  # mlagents_envs ships no types.
    """A zero-sum game of two sides with one agent each, in which both decide at every step, in many copies.

    What one side gets, the other one loses, in the step in which the game ends. The next game begins at once.
    Subclasses name themselves and implement `_begin`, `_move` and `_observe`.

    Args:
        num_agents: Agents of each side in one area, and so games; None means the simulation's own number.
        num_areas: Copies of the area.
        seed: With `worker_id`, all that the course of the games depends on beside the actions.
        worker_id: Workers with one seed draw from independent streams.
    """

    NAME: ClassVar[str]
    SIDES: ClassVar[Mapping[str, BehaviorSpec]]
    """The behavior ids of both sides, such as `Tag?team=0`."""
    AGENTS: ClassVar[int] = 8
    STATE: ClassVar[tuple[str, ...]]
    """Names of the attributes, arrays whose first axis is the game's, that make up the state of a game."""
    PARAMETERS: ClassVar[Mapping[str, float]] = {}
    """Environment parameters; games have none."""

    def __init__(self, *, num_agents: int | None = None, num_areas: int = 1, seed: int = 0, worker_id: int = 0) -> None:
        super().__init__()
        self.num_agents = (self.AGENTS if num_agents is None else num_agents) * num_areas
        self.sides = {
            name: Side(name, spec, self.num_agents, index * self.num_agents)
            for index, (name, spec) in enumerate(self.SIDES.items())
        }
        self._rng = np.random.default_rng([seed, worker_id])
        self._all: Rows = np.arange(self.num_agents)
        self._begun = self._closed = False

    @classmethod
    def behavior_names(cls) -> list[str]:
        """Return the names of all behaviors, without teams."""
        return list(dict.fromkeys(name.partition("?")[0] for name in cls.SIDES))

    @abstractmethod
    def _begin(self, rows: Rows) -> None:
        """Put the games at `rows` at their start."""

    @abstractmethod
    def _move(self, actions: tuple[ActionTuple, ...]) -> tuple[Floats, npt.NDArray[np.bool_]]:
        """Carry out one decision of every agent, given by side.

        Returns:
            What the first side gets where a game is over, 1 for a win, [games]; and which games are over, [games].
        """

    @abstractmethod
    def _observe(self, rows: Rows) -> tuple[Floats, ...]:
        """Return newly made observations [rows, size] of both sides in the games at `rows`."""

    @property
    def behavior_specs(self) -> Mapping[str, BehaviorSpec]:
        """Both sides; known from the start, before the first reset."""
        return MappingProxyType(dict(self.SIDES))

    def reset(self) -> None:
        """Begin all games again; may be called at any time."""
        self._require_open()
        self._begin(self._all)
        self._begun = True
        nothing, none = np.zeros(self.num_agents, np.float32), self._all[:0]
        for side, obs in zip(self.sides.values(), self._observe(self._all), strict=True):
            side.take_action()
            side.show(obs, nothing, none)
            side.end(obs[:0], nothing[:0], none)

    def step(self) -> None:
        """Carry out the actions set since the last step; agents without one act zero, and the first step resets."""
        self._require_open()
        if not self._begun:
            self.reset()
            return
        gain, over = self._move(tuple(side.take_action() for side in self.sides.values()))
        ended = np.flatnonzero(over)
        rewards = [np.where(over, sign * gain, 0.0).astype(np.float32) for sign in (1.0, -1.0)]
        last = self._observe(ended)
        self._begin(ended)
        shown = self._observe(self._all)
        for side, obs, final, reward in zip(self.sides.values(), shown, last, rewards, strict=True):
            side.show(obs, reward, ended)
            side.end(final, reward[ended], ended)

    def set_parameters(self, parameters: Mapping[str, object]) -> None:
        """Ignore environment parameters, as a Unity player ignores those that it does not know."""

    def get_steps(self, behavior_name: str) -> tuple[DecisionSteps, TerminalSteps]:
        """Return the agents of a side that need an action now, and those whose game ended in the last step."""
        return self._side(behavior_name).get_steps(behavior_name)

    def set_actions(self, behavior_name: str, action: ActionTuple) -> None:
        """Set the actions of all agents of a side, in the order of their decision steps.

        Raises:
            UnityActionException: The action has another shape than the side's, or is no index of its branch.
        """
        self._side(behavior_name).set_actions(behavior_name, action)

    def set_action_for_agent(self, behavior_name: str, agent_id: int, action: ActionTuple) -> None:
        """Set the action, of one row, of one agent; other agents keep theirs.

        Raises:
            UnityActionException: There is no such agent, or the action does not fit.
        """
        self._side(behavior_name).set_action_for_agent(behavior_name, agent_id, action)

    def close(self) -> None:
        """Release what the environment holds; further calls do nothing."""
        self._closed = True

    def state_dict(self) -> dict[str, Any]:
        """Return the whole state between two steps; actions that were set but not yet carried out are no part of it."""
        return {
            "games": {name: getattr(self, name).copy() for name in self.STATE},
            "random": deepcopy(self._rng.bit_generator.state),
            "begun": self._begun,
            "sides": [side.state_dict() for side in self.sides.values()],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue exactly where `state_dict()` was taken.

        Raises:
            UnityEnvironmentException: The state is of another number of games.
        """
        saved = {len(values) for values in state["games"].values()}
        if saved != {self.num_agents}:
            raise UnityEnvironmentException(
                f"The saved state is of {max(saved, default=0)} games of {self.NAME}, this environment has "
                f"{self.num_agents}; resume with the same num_agents and num_areas."
            )
        for name in self.STATE:
            getattr(self, name)[...] = state["games"][name]
        self._rng.bit_generator.state = state["random"]
        self._begun = state["begun"]
        for side, own in zip(self.sides.values(), state["sides"], strict=True):
            side.load_state_dict(own)

    def _side(self, behavior_name: str) -> Side:
        if behavior_name not in self.sides:
            raise UnityActionException(
                f'There is no behavior "{behavior_name}" here; there are {", ".join(self.sides)}.'
            )
        return self.sides[behavior_name]

    def _require_open(self) -> None:
        if self._closed:
            raise UnityEnvironmentException(f"This {self.NAME} environment is closed; make a new one.")
