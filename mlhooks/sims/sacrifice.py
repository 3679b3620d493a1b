"""Sacrifice: one member of a group opens a door and is gone, and the others are paid for it later."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from mlagents_envs.base_env import ActionSpec, ActionTuple, BehaviorSpec

from mlhooks.sims.base import Rows, one_hot, vector_spec
from mlhooks.sims.groups import GroupSimulation, Outcome

MEMBERS, CELLS, START = 3, 7, 3
PLATE, DOOR = 0, CELLS - 1
DIRECTION = np.array([0, -1, 1, 0])
"""Where each action leads: stay, left, right, press."""
PRESS = 3


class Sacrifice(GroupSimulation):
    """Three agents in a corridor of 7 cells, at whose left end is a plate, and at whose right end a door.

    They begin in the middle, and stay, go left, go right or press. Who presses on the plate opens the door and is gone.
    When the door is open, its cell is the way out: the group gets 1 once a member is there, and its episode ends. The
    best return of a group is 1, after 5 decisions. An agent that learns from its own rewards alone learns never to
    press, because nothing comes after that.

    An agent sees its cell as one-hot, how many of the other members are in each cell, as a share of them, whether the
    door is open, and which of the three it is, as one-hot. A group that is still there after 20 decisions gets nothing,
    and ends.
    """

    NAME = "Sacrifice"
    SPEC = BehaviorSpec(
        [vector_spec("corridor", 2 * CELLS + 1 + MEMBERS)], ActionSpec.create_discrete((len(DIRECTION),))
    )
    AGENTS = MEMBERS = MEMBERS
    LIMIT: ClassVar[int] = 20
    MAX_STEPS = LIMIT + 1  # Nothing is interrupted.
    STATE = ("cell", "open", "there")

    def __init__(self, *, num_agents: int | None = None, num_areas: int = 1, seed: int = 0, worker_id: int = 0) -> None:
        super().__init__(num_agents=num_agents, num_areas=num_areas, seed=seed, worker_id=worker_id)
        self.cell = np.full(self.num_agents, START, np.intp)
        self.open = np.zeros(self.num_agents, np.bool_)  # All members of a group have the same.

    def _begin(self, rows: Rows) -> None:
        self.cell[rows], self.open[rows] = START, False

    def _play(self, action: ActionTuple) -> Outcome:
        choice = action.discrete[:, 0]
        self.cell = np.clip(self.cell + DIRECTION[choice], 0, CELLS - 1)
        presses = self.there & (choice == PRESS) & (self.cell == PLATE) & ~self.open
        first = presses & (np.cumsum(self._by_group(presses), axis=1).ravel() == 1)
        out = self._by_group(self.there & self.open & (self.cell == DOOR)).any(axis=1)
        self.open |= np.repeat(self._by_group(first).any(axis=1), MEMBERS)
        late = self._by_group(self._ages)[:, 0] + 1 >= self.LIMIT
        return Outcome(np.asarray(out, np.float32), first, out | late)

    def _by_group(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return [groups, members] for [agents]."""
        return values.reshape(self.groups, MEMBERS)

    def _observe(self, rows: Rows) -> list[npt.NDArray[np.float32]]:
        own = one_hot(self.cell, CELLS) * self.there[:, None]  # [agents, cells]
        others = np.repeat(own.reshape(self.groups, MEMBERS, CELLS).sum(axis=1), MEMBERS, axis=0) - own
        parts = one_hot(self.cell[rows], CELLS), others[rows] / (MEMBERS - 1), self.open[rows, None]
        return [np.concatenate([*parts, one_hot(rows % MEMBERS, MEMBERS)], axis=1).astype(np.float32)]
