"""A game of two teams in which the first one always wins, and each observation begins with the team."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import numpy as np
from mlagents_envs.base_env import ActionTuple, DecisionSteps, TerminalSteps

from mlhooks.testing.specs import make_behavior_spec

TEAMS = (0, 1)
LENGTH = 4


class TeamGame:
    """Episodes of four decisions, all agents in step; actions change nothing.

    Args:
        actions: those of its spec, as `make_behavior_spec` takes them.

    Attributes:
        spec: of both teams.
        agents: of each team.
    """

    agents = 6

    def __init__(self, **actions: Any) -> None:
        self.spec = make_behavior_spec((4,), **actions)
        self._rng, self._age = np.random.default_rng(4), 0

    def reset(self) -> None:
        """Begin all episodes again."""
        self._age = 0
        self._show(ended=False)

    def step(self) -> None:
        """Go on by one decision."""
        self._age = (self._age + 1) % LENGTH
        self._show(ended=self._age == 0)

    def _show(self, *, ended: bool) -> None:
        self._steps = {team: self._of(team, ended) for team in TEAMS}

    def _of(self, team: int, ended: bool) -> tuple[DecisionSteps, TerminalSteps]:
        reward = np.full(self.agents, 1.0 if team == 0 else -1.0, np.float32)
        ids, none = np.arange(self.agents, dtype=np.int32) + team * self.agents, np.zeros(self.agents, np.int32)
        nothing = np.zeros(self.agents, np.float32)
        decisions = DecisionSteps(self._seen(team), nothing, ids, None, none, nothing)
        if not ended:
            return decisions, TerminalSteps.empty(self.spec)
        cut = np.zeros(self.agents, np.bool_)
        return decisions, TerminalSteps(self._seen(team), reward, cut, ids, none, nothing)

    def _seen(self, team: int) -> list[np.ndarray]:
        seen = self._rng.normal(size=(self.agents, 4)).astype(np.float32)
        seen[:, 0] = team
        return [seen]

    def get_steps(self, team: int) -> tuple[DecisionSteps, TerminalSteps]:
        """Return what a team's agents see."""
        return self._steps[team]

    def set_actions(self, team: int, action: ActionTuple) -> None:
        """See whether there is an action for each agent of a team."""
        assert team in TEAMS
        assert len(action.continuous) == len(action.discrete) == self.agents

    def state_dict(self) -> dict[str, Any]:
        """Return the whole state between two steps."""
        return deepcopy({"rng": self._rng.bit_generator.state, "age": self._age, "steps": self._steps})

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        state = deepcopy(dict(state))
        self._rng.bit_generator.state, self._age, self._steps = state["rng"], state["age"], state["steps"]
