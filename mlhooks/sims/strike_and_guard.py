"""Strike and guard: one agent runs at a goal that another one guards."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from mlagents_envs.base_env import ActionSpec, ActionTuple, BehaviorSpec

from mlhooks.sims.base import one_hot, vector_spec
from mlhooks.sims.game import Floats, Game, Rows

LANES, LINES = 3, 3
"""Lanes that lead to the goal, and moves until the striker is there."""
STRIKER, GUARD = "Striker?team=0", "Guard?team=1"


class StrikeAndGuard(Game):
    """A striker runs at a goal of three lanes, which it reaches with its third move, and a guard stands on the line.

    With each move both stay in their lane or change to the one left or right of it, at once; the outer lanes end the
    field. The striker scores where it reaches the goal in another lane than that of the guard. Both begin in lanes that
    are drawn.

    The sides are of two behaviors that differ. The striker sees its own lane as one-hot, how many lanes the guard is to
    the right of it, and how many moves are left; the guard sees both lanes as one-hot, and the moves left.

    Best play is mixed, because a guard that is foreseen is passed: both are to be in the middle lane before the last
    move, and then go to each lane equally often. From every start, best play by both scores in two games of three.
    """

    NAME = "StrikeAndGuard"
    SIDES = {  # noqa: RUF012 - It is never changed.
        STRIKER: BehaviorSpec([vector_spec("run", LANES + 2)], ActionSpec.create_discrete((3,))),
        GUARD: BehaviorSpec([vector_spec("line", 2 * LANES + 1)], ActionSpec.create_discrete((3,))),
    }
    STATE = ("lane", "age")

    def __init__(self, *, num_agents: int | None = None, num_areas: int = 1, seed: int = 0, worker_id: int = 0) -> None:
        super().__init__(num_agents=num_agents, num_areas=num_areas, seed=seed, worker_id=worker_id)
        self.lane = np.zeros((self.num_agents, 2), np.int64)  # [games, sides]
        self.age = np.zeros(self.num_agents, np.int64)

    def _begin(self, rows: Rows) -> None:
        self.lane[rows] = self._rng.integers(0, LANES, (len(rows), 2))
        self.age[rows] = 0

    def _move(self, actions: tuple[ActionTuple, ...]) -> tuple[Floats, npt.NDArray[np.bool_]]:
        chosen = np.stack([action.discrete[:, 0] for action in actions], axis=1)
        self.lane = np.clip(self.lane + np.array([0, -1, 1])[chosen], 0, LANES - 1)
        self.age += 1
        scores = self.lane[:, 0] != self.lane[:, 1]
        return np.where(scores, 1.0, -1.0).astype(np.float32), self.age >= LINES

    def _observe(self, rows: Rows) -> tuple[Floats, ...]:
        striker, guard = self.lane[rows].T
        left = (1.0 - self.age[rows] / LINES)[:, None]
        ahead = ((guard - striker) / LANES)[:, None]
        run = np.concatenate([one_hot(striker, LANES), ahead, left], axis=1)
        line = np.concatenate([one_hot(guard, LANES), one_hot(striker, LANES), left], axis=1)
        return run.astype(np.float32), line.astype(np.float32)
