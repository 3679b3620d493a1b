"""The part of a `BaseEnv` that all in-process environments share: one behavior, its actions and its steps."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
from mlagents_envs.base_env import (
    ActionTuple,
    BaseEnv,
    BehaviorSpec,
    DecisionSteps,
    TerminalSteps,
)
from mlagents_envs.exception import UnityActionException, UnityEnvironmentException

from mlhooks.envs.given_actions import check_action, with_action_of

Observations = Sequence[npt.NDArray[np.float32] | npt.NDArray[np.uint8]]
"""An array [agents, *shape] for each observation."""


class SingleBehaviorEnv(BaseEnv):  # type: ignore[misc]  # mlagents_envs ships no types.
    """An environment with one behavior whose agents keep their ids `0 .. agents - 1` over all episodes.

    Subclasses implement `_restart` and `_advance`, which set `_decisions` and `_terminals` to newly made arrays: what
    `get_steps` returned is never changed afterwards.

    Args:
        behavior_name: Name under which trainers know the behavior.
        spec: Its observations and actions.
        agents: How many agents there are.
    """

    def __init__(self, behavior_name: str, spec: BehaviorSpec, agents: int) -> None:
        self.behavior_name = behavior_name
        self.num_agents = agents
        self._specs = MappingProxyType({behavior_name: spec})
        self._action_spec = spec.action_spec
        self._ids = np.arange(agents, dtype=np.int32)
        self._no_groups = np.zeros(agents, dtype=np.int32)
        self._no_group_reward = np.zeros(agents, dtype=np.float32)
        # Handed out with every step: who holds the same array knows without looking that the agents are the same.
        for shared in (self._ids, self._no_groups, self._no_group_reward):
            shared.flags.writeable = False
        self._none_ended = TerminalSteps.empty(spec)
        self._decisions: DecisionSteps | None = None
        self._terminals: TerminalSteps = self._none_ended
        self._action: ActionTuple | None = None
        self._closed = False

    @abstractmethod
    def _restart(self) -> None:
        """Start a new episode of every agent and set `_decisions` and `_terminals`."""

    @abstractmethod
    def _advance(self, action: ActionTuple) -> None:
        """Carry out one action per agent of `_decisions`, in their order, and set the next steps."""

    @property
    def behavior_specs(self) -> Mapping[str, BehaviorSpec]:
        """The one behavior; known from the start, before the first reset."""
        return self._specs

    def reset(self) -> None:
        """Start a new episode of every agent; may be called at any time."""
        self._require_open()
        self._action = None
        self._restart()

    def step(self) -> None:
        """Carry out the actions set since the last step; agents without one act zero, and the first step resets."""
        self._require_open()
        if self._decisions is None:
            self._restart()
            return
        action = self._action
        if action is None:
            action = self._action_spec.empty_action(len(self._decisions))
        self._action = None
        self._advance(action)

    def close(self) -> None:
        """Release what the environment holds; further calls do nothing."""
        self._closed = True

    def get_steps(self, behavior_name: str) -> tuple[DecisionSteps, TerminalSteps]:
        """Return the agents that need an action now, and those whose episode ended in the last step."""
        if behavior_name != self.behavior_name:
            raise UnityActionException(
                f'There is no behavior "{behavior_name}" here; the only one is "{self.behavior_name}".'
            )
        if self._decisions is None:
            raise UnityEnvironmentException(
                f"{self.behavior_name} has no steps before its first reset(); call it first."
            )
        return self._decisions, self._terminals

    def set_actions(self, behavior_name: str, action: ActionTuple) -> None:
        """Set the actions of all agents that wait for one, in the order of their decision steps.

        Raises:
            UnityActionException: The action has another shape than the behavior's, is not finite, or is no index of
                its branch.
        """
        waiting, _ = self.get_steps(behavior_name)
        check_action(self.behavior_name, self._action_spec, action, waiting.agent_id)
        self._action = action

    def set_action_for_agent(self, behavior_name: str, agent_id: int, action: ActionTuple) -> None:
        """Set the action, of one row, of one agent that waits for one; other agents keep theirs.

        Raises:
            UnityActionException: The agent does not wait for an action, or the action does not fit.
        """
        agents = self.get_steps(behavior_name)[0].agent_id
        self._action = with_action_of(behavior_name, self._action_spec, self._action, agents, agent_id, action)

    def _decide(
        self,
        obs: Observations,
        reward: npt.NDArray[np.float32],
        rows: npt.NDArray[np.intp] | None = None,
        mask: list[npt.NDArray[np.bool_]] | None = None,
    ) -> DecisionSteps:
        """Return the decision steps of all agents, or of those at `rows`; the arrays hold those agents only."""
        if rows is None:
            return DecisionSteps(obs, reward, self._ids, mask, self._no_groups, self._no_group_reward)
        count = len(rows)
        return DecisionSteps(obs, reward, self._ids[rows], mask, self._no_groups[:count], self._no_group_reward[:count])

    def _end(
        self,
        obs: Observations,
        reward: npt.NDArray[np.float32],
        interrupted: npt.NDArray[np.bool_],
        rows: npt.NDArray[np.intp],
    ) -> TerminalSteps:
        """Return the terminal steps of the agents at `rows`; the arrays hold those agents only."""
        count = len(rows)
        return TerminalSteps(
            obs, reward, interrupted, self._ids[rows], self._no_groups[:count], self._no_group_reward[:count]
        )

    def _require_open(self) -> None:
        if self._closed:
            raise UnityEnvironmentException(f"This {self.behavior_name} environment is closed; make a new one.")
