"""A game of teams whose agents form groups, to train trainers of ML-Agents in."""

from __future__ import annotations

import numpy as np
from mlagents_envs.base_env import (
    ActionSpec,
    ActionTuple,
    BaseEnv,
    BehaviorMapping,
    BehaviorSpec,
    DecisionSteps,
    DimensionProperty,
    ObservationSpec,
    ObservationType,
    TerminalSteps,
)

LENGTH, FEATURES, AREAS, MEMBERS = 10, 6, 2, 2


class Teams(BaseEnv):
    """Episodes of ten steps; observations and rewards are random, and actions change nothing.

    Args:
        teams: how many there are of the behavior Soccer, or behavior ids.
        seed: of its random numbers.
    """

    def __init__(self, teams: int | tuple[str, ...] = 1, seed: int = 3) -> None:
        self._rng = np.random.default_rng(seed)
        names = teams if isinstance(teams, tuple) else [f"Soccer?team={team}" for team in range(teams)]
        self._teams = {name: team for team, name in enumerate(names)}
        seen = ObservationSpec((FEATURES,), (DimensionProperty.NONE,), ObservationType.DEFAULT, "seen")
        self._spec = BehaviorSpec([seen], ActionSpec(0, (3, 2)))
        self.agents = AREAS * MEMBERS
        self.reset()

    @property
    def behavior_specs(self) -> BehaviorMapping:
        return BehaviorMapping(dict.fromkeys(self._teams, self._spec))

    def reset(self) -> None:
        self._time = 0
        self._ended = dict.fromkeys(self._teams, TerminalSteps.empty(self._spec))
        self._show()

    def _seen(self) -> list[np.ndarray]:
        return [self._rng.normal(size=(self.agents, FEATURES)).astype(np.float32)]

    def _who(self, team: int) -> tuple[np.ndarray, np.ndarray]:
        ids = np.arange(self.agents, dtype=np.int32)  # Both teams use these.
        return ids, (np.repeat(np.arange(1, AREAS + 1), MEMBERS) + 100 * team).astype(np.int32)

    def _show(self) -> None:
        self._asked = {}
        for name, team in self._teams.items():
            ids, groups = self._who(team)
            rewards = self._rng.normal(size=self.agents).astype(np.float32)
            mask = [np.zeros((self.agents, size), bool) for size in (3, 2)]
            shared = np.full(self.agents, 0.1, np.float32)
            self._asked[name] = DecisionSteps(self._seen(), rewards, ids, mask, groups, shared)

    def step(self) -> None:
        self._time += 1
        self._ended = dict.fromkeys(self._teams, TerminalSteps.empty(self._spec))
        if self._time % LENGTH == 0:
            for name, team in self._teams.items():
                ids, groups = self._who(team)
                nothing, cut = np.zeros(self.agents, np.float32), np.zeros(self.agents, bool)
                won = np.full(self.agents, 1.0 if (self._time // LENGTH + team) % 2 else -1.0, np.float32)
                self._ended[name] = TerminalSteps(self._seen(), nothing, cut, ids, groups, won)
        self._show()

    def set_actions(self, behavior_name: str, action: ActionTuple) -> None:
        assert action.discrete.shape == (self.agents, 2)
        assert ((action.discrete >= 0) & (action.discrete < (3, 2))).all()

    def set_action_for_agent(self, behavior_name: str, agent_id: int, action: ActionTuple) -> None:
        raise NotImplementedError

    def get_steps(self, behavior_name: str) -> tuple[DecisionSteps, TerminalSteps]:
        return self._asked[behavior_name], self._ended[behavior_name]

    def close(self) -> None:
        pass
