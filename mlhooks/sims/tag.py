"""Tag: one agent runs after another one, which gets away until time is up."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from mlagents_envs.base_env import ActionSpec, ActionTuple, BehaviorSpec

from mlhooks.sims.base import vector_spec
from mlhooks.sims.game import Floats, Game, Rows

SIZE, TIME = 7, 8
"""Cells of the field's edge, and steps until the runner has got away."""
STAY, NORTH, EAST, SOUTH, WEST, NORTHEAST, SOUTHEAST, SOUTHWEST, NORTHWEST = range(9)
DIRECTION = np.array([(0, 0), (0, 1), (1, 0), (0, -1), (-1, 0), (1, 1), (1, -1), (-1, -1), (-1, 1)])
"""Where each action leads, as [x, y]; the last four are the tagger's alone."""
SPEC = BehaviorSpec([vector_spec("field", 6)], ActionSpec.create_discrete((len(DIRECTION),)))


class Tag(Game):
    """A tagger and a runner in a field of 7 x 7 cells; which team tags is drawn for each game.

    Both move at once, to a neighbouring cell or not at all. The tagger may also move diagonally, which leaves the
    runner where it is. The runner is tagged where both are in neighbouring cells, diagonally or not, after a move, and
    has got away after eight moves. The tagger begins in the first two columns, the runner in the last two.

    Each team sees whether it tags (1 or -1), where it is (x and y from -1 to 1), where the other one is from there (in
    units of the field's size), and how much of the time is left.

    Whoever plays perfectly as the tagger wins: to move towards the runner in both coordinates at once reaches any
    runner in time, because the field ends. So the better of two players is who catches where the other one does not.
    """

    NAME = "Tag"
    SIDES = {"Tag?team=0": SPEC, "Tag?team=1": SPEC}  # noqa: RUF012 - It is never changed.
    STATE = ("place", "tagger", "age")

    def __init__(self, *, num_agents: int | None = None, num_areas: int = 1, seed: int = 0, worker_id: int = 0) -> None:
        super().__init__(num_agents=num_agents, num_areas=num_areas, seed=seed, worker_id=worker_id)
        self.place = np.zeros((self.num_agents, 2, 2), np.int64)  # [games, teams, x and y]
        self.tagger = np.zeros(self.num_agents, np.int64)  # This is the team that tags.
        self.age = np.zeros(self.num_agents, np.int64)

    def _begin(self, rows: Rows) -> None:
        games = len(rows)
        self.tagger[rows] = tagger = self._rng.integers(0, 2, games)
        self.age[rows] = 0
        drawn = self._rng.integers(0, [[2, SIZE], [2, SIZE]], (games, 2, 2))
        drawn[:, 1, 0] += SIZE - 2
        each = np.arange(games)
        self.place[rows[each], tagger] = drawn[:, 0]
        self.place[rows[each], 1 - tagger] = drawn[:, 1]

    def _move(self, actions: tuple[ActionTuple, ...]) -> tuple[Floats, npt.NDArray[np.bool_]]:
        chosen = np.stack([action.discrete[:, 0] for action in actions], axis=1)  # [games, teams]
        tags = self.tagger[:, None] == np.arange(2)
        chosen = np.where(~tags & (chosen >= NORTHEAST), STAY, chosen)
        self.place = np.clip(self.place + DIRECTION[chosen], 0, SIZE - 1)
        self.age += 1
        tagged = np.abs(self.place[:, 0] - self.place[:, 1]).max(axis=1) <= 1
        over = tagged | (self.age >= TIME)
        first_wins = tagged == (self.tagger == 0)
        return np.where(first_wins, 1.0, -1.0).astype(np.float32), over

    def _observe(self, rows: Rows) -> tuple[Floats, ...]:
        place, left = self.place[rows], 1.0 - self.age[rows] / TIME
        seen = []
        for team in range(2):
            own, other = place[:, team], place[:, 1 - team]
            role = np.where(self.tagger[rows] == team, 1.0, -1.0)
            parts = [role[:, None], 2.0 * own / (SIZE - 1) - 1.0, (other - own) / SIZE, left[:, None]]
            seen.append(np.concatenate(parts, axis=1).astype(np.float32))
        return tuple(seen)
