"""Games for tests of self-play, in which every observation says whose it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from mlagents_envs.base_env import ActionSpec, ActionTuple, BehaviorSpec

from mlhooks import hookimpl
from mlhooks.sims.base import one_hot, vector_spec
from mlhooks.sims.game import Game, Rows

TEAM, LAST = 0, 1
"""Which number of an observation names the team, and which one what it did last."""
SPEC = BehaviorSpec([vector_spec("seen", 5)], ActionSpec.create_discrete((3,)))


class Duel(Game):
    """Games of three moves; in the last one the larger choice wins, an equal one is a draw.

    An agent sees its team, its last choice, a random number, and how many moves there were, of two of them as one-hot.
    """

    NAME = "Duel"
    SIDES: ClassVar[Mapping[str, BehaviorSpec]] = {"Duel?team=0": SPEC, "Duel?team=1": SPEC}
    STATE = ("last", "luck", "age")
    LENGTH = 3

    def __init__(self, **arguments: int) -> None:
        super().__init__(**arguments)
        self.last = np.zeros((self.num_agents, 2), np.int64)
        self.luck = np.zeros((self.num_agents, 2))
        self.age = np.zeros(self.num_agents, np.int64)

    def _begin(self, rows: Rows) -> None:
        self.last[rows], self.age[rows] = 0, 0
        self.luck[rows] = self._rng.random((len(rows), 2))

    def _move(self, actions: tuple[ActionTuple, ...]) -> tuple[np.ndarray, np.ndarray]:
        self.last = np.stack([action.discrete[:, 0].astype(np.int64) for action in actions], axis=1)
        self.age += 1
        return np.sign(self.last[:, 0] - self.last[:, 1]).astype(np.float32), self.age >= self.LENGTH

    def _observe(self, rows: Rows) -> tuple[np.ndarray, ...]:
        age = one_hot(np.minimum(self.age[rows], 1), 2)
        return tuple(
            np.column_stack([np.full(len(rows), team), self.last[rows, team], self.luck[rows, team], age]).astype(
                np.float32
            )
            for team in range(2)
        )


class Siege(Duel):
    """The same between two behaviors."""

    NAME = "Siege"
    SIDES: ClassVar[Mapping[str, BehaviorSpec]] = {"Castle?team=1": SPEC, "Tower?team=0": SPEC}


class Matrix(Game):
    """One move each, at once; the first side gets what the matrix says for both choices.

    It is zero-sum and symmetric, and its only equilibrium is (1/4, 1/2, 1/4): each move gets 0 against that.
    """

    NAME = "Matrix"
    PAYOFF = np.array([[0, 1, -2], [-1, 0, 1], [2, -1, 0]], np.float32)
    SPEC = BehaviorSpec([vector_spec("nothing", 1)], ActionSpec.create_discrete((3,)))
    SIDES: ClassVar[Mapping[str, BehaviorSpec]] = {"Matrix?team=0": SPEC, "Matrix?team=1": SPEC}
    STATE: ClassVar[tuple[str, ...]] = ("age",)

    def __init__(self, **arguments: int) -> None:
        super().__init__(**arguments)
        self.age = np.zeros(self.num_agents, np.int64)

    def _begin(self, rows: Rows) -> None:
        """Do nothing: all games are alike."""

    def _move(self, actions: tuple[ActionTuple, ...]) -> tuple[np.ndarray, np.ndarray]:
        gains = self.PAYOFF[actions[0].discrete[:, 0], actions[1].discrete[:, 0]]
        return gains / np.float32(2.0), np.ones(self.num_agents, np.bool_)

    def _observe(self, rows: Rows) -> tuple[np.ndarray, ...]:
        return tuple(np.ones((len(rows), 1), np.float32) for _ in range(2))


class Games:
    """A plugin that offers games as `game:NAME`."""

    KINDS: ClassVar[dict[str, type[Game]]] = {kind.NAME: kind for kind in (Duel, Siege, Matrix)}

    @hookimpl
    def get_env_types(self) -> Mapping[str, Any]:
        def make(name: str, *, worker_id: int, seed: int, num_areas: int, **_: Any) -> Game:
            return self.KINDS[name](num_agents=4, num_areas=num_areas, seed=seed, worker_id=worker_id)

        return {"game": make}
