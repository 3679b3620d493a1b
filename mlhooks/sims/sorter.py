"""Sorter: take tiles in the order of their distance, the nearest first, of which there are more or fewer."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import numpy.typing as npt
from mlagents_envs.base_env import (
    ActionSpec,
    ActionTuple,
    BehaviorSpec,
    DimensionProperty,
    ObservationSpec,
    ObservationType,
)

from mlhooks.sims.base import Rows, Simulation, vector_spec

MOST = 8
NEAREST, GAP = 0.2, 0.1
RIGHT, WRONG = 1.0, -1.0
VARIABLE_LENGTH = DimensionProperty.VARIABLE_SIZE, DimensionProperty.NONE


class Sorter(Simulation):
    """An agent with up to 8 tiles around it, each in another direction, which it takes from near to far.

    It sees how many tiles are left, as a share of 8, and as an observation of variable length the tiles that are left:
    their direction as one-hot, and their distance, in no particular order. A decision names the direction of the
    nearest tile, which is then taken. All tiles in their order give 1, each its share; a wrong one gives -1 and ends
    the episode.

    The environment parameter `num_tiles`, as in ML-Agents' Sorter, says how many tiles there are at most, up to 8; each
    episode has 1 to so many.
    """

    NAME = "Sorter"
    SPEC = BehaviorSpec(
        [
            vector_spec("left", 1),
            ObservationSpec((MOST, MOST + 1), VARIABLE_LENGTH, ObservationType.DEFAULT, "tiles"),
        ],
        ActionSpec.create_discrete((MOST,)),
    )
    AGENTS = 16
    MAX_STEPS = MOST
    STATE = ("direction", "distance", "number")
    PARAMETERS: ClassVar = {"num_tiles": float(MOST)}

    def __init__(self, *, num_agents: int | None = None, num_areas: int = 1, seed: int = 0, worker_id: int = 0) -> None:
        super().__init__(num_agents=num_agents, num_areas=num_areas, seed=seed, worker_id=worker_id)
        self.direction = np.zeros((MOST, self.num_agents), dtype=np.intp)
        self.distance = np.zeros((MOST, self.num_agents))  # It is 0 where there is no tile.
        self.number = np.ones(self.num_agents, dtype=np.intp)  # So many tiles were there at the beginning.

    def _begin(self, rows: Rows) -> None:
        most = np.clip(np.round(self.parameters["num_tiles"][rows]), 1, MOST)
        self.number[rows] = 1 + (self._rng.random(len(rows)) * most).astype(np.intp)
        self.direction[:, rows], rank = self._rng.random((2, MOST, len(rows))).argsort(axis=1)
        distance = NEAREST + GAP * (rank + 0.5 * self._rng.random(rank.shape))
        self.distance[:, rows] = distance * (np.arange(MOST)[:, None] < self.number[rows])

    def _move(self, action: ActionTuple) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        nearest = np.where(self.distance > 0, self.distance, np.inf).argmin(axis=0)
        right = self.direction[nearest, self._all] == action.discrete[:, 0]
        self.distance[nearest[right], self._all[right]] = 0.0
        reward = np.where(right, RIGHT / self.number, WRONG).astype(np.float32)
        return reward, ~right | ~self.distance.any(axis=0)

    def _observe(self, rows: Rows) -> list[npt.NDArray[np.float32]]:
        distance = self.distance[:, rows].T  # [rows, tiles]
        there = distance > 0
        tiles = np.zeros((len(rows), MOST, MOST + 1), dtype=np.float32)
        tiles[..., :MOST] = (self.direction[:, rows].T[..., None] == np.arange(MOST)) & there[..., None]
        tiles[..., MOST] = distance
        return [(there.sum(axis=1, keepdims=True) / MOST).astype(np.float32), tiles]
