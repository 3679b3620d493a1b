"""Recall: a corridor with a sign at its beginning, which says where to turn at its end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from mlagents_envs.base_env import ActionSpec, ActionTuple, BehaviorSpec

from mlhooks.sims.base import Rows, Simulation, vector_spec

FORWARD = 0
"""The action that leads on; 1 turns left and 2 turns right."""
STEP_REWARD, RIGHT_REWARD, WRONG_REWARD = np.float32(-0.01), np.float32(1.0), np.float32(-0.1)


class Recall(Simulation):
    """An agent in a corridor that has to remember a sign, in the manner of Unity's Hallway.

    In the first cell it sees whether the sign says left or right, and nowhere else. It walks forward to the last cell,
    where it turns left or right; turning elsewhere leaves it where it is. To turn as the sign said gives 1, to turn the
    other way -0.1, and both end the episode, of which every step costs 0.01. It sees the sign, two numbers of which
    one is 1; how far it has come, from 0 to 1; and whether it is in the last cell.

    Whoever does not remember the sign is right half of the time, which is worth 0.45 at most, less the steps. Episodes
    are interrupted after 100 steps. The environment parameter `length` is the number of steps to the last cell.
    """

    NAME = "Recall"
    SPEC = BehaviorSpec([vector_spec("corridor", 4)], ActionSpec.create_discrete((3,)))
    AGENTS = 1
    MAX_STEPS = 100
    STATE = ("sign", "cell", "last")
    PARAMETERS: ClassVar[Mapping[str, float]] = {"length": 6.0}

    def __init__(self, *, num_agents: int | None = None, num_areas: int = 1, seed: int = 0, worker_id: int = 0) -> None:
        super().__init__(num_agents=num_agents, num_areas=num_areas, seed=seed, worker_id=worker_id)
        self.sign = np.zeros(self.num_agents, np.intp)  # 0 for left, 1 for right
        self.cell = np.zeros(self.num_agents, np.intp)
        self.last = np.ones(self.num_agents, np.intp)  # This is the number of the last cell.

    def _begin(self, rows: Rows) -> None:
        self.sign[rows] = self._rng.integers(0, 2, len(rows))
        self.cell[rows] = 0
        self.last[rows] = np.maximum(np.rint(self.parameters["length"][rows]), 1)

    def _move(self, action: ActionTuple) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        choice, at_end = action.discrete[:, 0], self.cell == self.last
        turned = at_end & (choice != FORWARD)
        self.cell += ~at_end & (choice == FORWARD)
        gained = np.where(choice - 1 == self.sign, RIGHT_REWARD, WRONG_REWARD)
        return np.where(turned, gained, np.float32(0.0)) + STEP_REWARD, turned

    def _observe(self, rows: Rows) -> list[npt.NDArray[np.float32]]:
        cell, last = self.cell[rows], self.last[rows]
        seen = np.zeros((len(rows), 4), np.float32)
        seen[np.arange(len(rows)), self.sign[rows]] = cell == 0
        seen[:, 2], seen[:, 3] = cell / last, cell == last
        return [seen]
