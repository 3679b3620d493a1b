"""The base of simulations whose agents act in groups: shared rewards, members that end before the others."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
from mlagents_envs.base_env import ActionTuple, DecisionSteps, TerminalSteps
from mlagents_envs.exception import UnityEnvironmentException

from mlhooks.sims.base import Rows, Simulation


class Outcome(NamedTuple):
    """The outcome of a step of all groups.

    Attributes:
        group_reward: [groups] float32, for each member that was there when the step began.
        left: [agents] bool, members whose own episode ends in this step, whether their group goes on or not.
        over: [groups] bool, groups whose episode reached a terminal state.
    """

    group_reward: npt.NDArray[np.float32]
    left: npt.NDArray[np.bool_]
    over: npt.NDArray[np.bool_]


class GroupSimulation(Simulation):
    """A simulation of groups of `MEMBERS` agents, whose episodes begin and end together.

    A member may end before its group; it is gone then, until the group begins again. A group cut by `MAX_STEPS` is
    interrupted. Agents `g * MEMBERS` to `(g + 1) * MEMBERS - 1` are the members of group g, whose id is g + 1.

    Subclasses implement `_play` in place of `_move`; in all arrays, the values of agents that are gone are arbitrary.

    Args:
        num_agents: Agents in one area, a multiple of `MEMBERS`; None means one group.
        num_areas: Copies of the area.
        seed: With `worker_id`, all that the course of the simulation depends on beside the actions.
        worker_id: Workers with one seed draw from independent streams.

    Attributes:
        there: [agents], who is in an episode.

    Raises:
        UnityEnvironmentException: The agents do not fill groups.
    """

    MEMBERS: ClassVar[int]

    def __init__(self, *, num_agents: int | None = None, num_areas: int = 1, seed: int = 0, worker_id: int = 0) -> None:
        agents = self.MEMBERS if num_agents is None else num_agents
        if agents % self.MEMBERS:
            raise UnityEnvironmentException(
                f"{self.NAME} has groups of {self.MEMBERS}; {agents} agents do not fill them."
            )
        super().__init__(num_agents=agents, num_areas=num_areas, seed=seed, worker_id=worker_id)
        self.groups = self.num_agents // self.MEMBERS
        self.there = np.ones(self.num_agents, np.bool_)
        self._group_ids = (1 + self._all // self.MEMBERS).astype(np.int32)
        self._group_ids.flags.writeable = False

    @abstractmethod
    def _play(self, action: ActionTuple) -> Outcome:
        """Carry out one decision of every agent that is there; the actions of the others are 0."""

    def _move(self, action: ActionTuple) -> Any:
        """Refuse to be called: groups move by `_play`."""
        raise NotImplementedError

    def _restart(self) -> None:
        self.there[:] = True
        super()._restart()
        self._decisions = self._asked(np.zeros(self.num_agents, np.float32))

    def _advance(self, action: ActionTuple) -> None:
        asked = np.flatnonzero(self.there)
        everyone = self._action_spec.empty_action(self.num_agents)
        everyone.continuous[asked], everyone.discrete[asked] = action.continuous, action.discrete
        outcome = self._play(everyone)
        self._ages += 1
        shared = np.repeat(outcome.group_reward, self.MEMBERS).astype(np.float32)
        over = np.repeat(outcome.over, self.MEMBERS)
        cut = ~over & (self._ages >= self.MAX_STEPS)
        ending = np.flatnonzero(self.there & (outcome.left | over | cut))
        self._terminals = self._none_ended
        if len(ending):
            interrupted = cut[ending] & ~outcome.left[ending]
            self._terminals = self._ended(self._observe(ending), interrupted, ending, shared[ending])
            self.there[ending] = False
        begins = np.flatnonzero(over | cut)
        if len(begins):
            self.there[begins], self._ages[begins], shared[begins] = True, 0, 0.0
            self._start(begins)
        self._decisions = self._asked(shared)

    def _asked(self, shared: npt.NDArray[np.float32]) -> DecisionSteps:
        """Return the decision steps of all that are there, with what their groups got, [agents]."""
        rows = np.flatnonzero(self.there)
        nothing = np.zeros(len(rows), np.float32)
        return DecisionSteps(
            self._observe(rows), nothing, self._ids[rows], self._mask(), self._group_ids[rows], shared[rows]
        )

    def _ended(
        self, obs: Any, interrupted: npt.NDArray[np.bool_], rows: Rows, shared: npt.NDArray[np.float32]
    ) -> TerminalSteps:
        nothing = np.zeros(len(rows), np.float32)
        return TerminalSteps(obs, nothing, interrupted, self._ids[rows], self._group_ids[rows], shared)

    def _decisions_from(self, saved: Mapping[str, Any]) -> DecisionSteps:
        rows, obs = saved["agent_id"], [part.copy() for part in saved["obs"]]
        return DecisionSteps(
            obs, saved["reward"].copy(), rows.copy(), None, self._group_ids[rows], saved["group_reward"].copy()
        )

    def _terminals_from(self, saved: Mapping[str, Any]) -> TerminalSteps:
        if len(saved["agent_id"]) == 0:
            return self._none_ended
        obs, interrupted = [part.copy() for part in saved["obs"]], saved["interrupted"].copy()
        return self._ended(obs, interrupted, saved["agent_id"].astype(np.intp), saved["group_reward"].copy())
