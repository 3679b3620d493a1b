"""Basic: a corridor with a small goal near by and a large one further away."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from mlagents_envs.base_env import ActionSpec, ActionTuple, BehaviorSpec

from mlhooks.sims.base import Rows, Simulation, one_hot, vector_spec

CELLS = 20
START, SMALL_GOAL, LARGE_GOAL = 10, 7, 17
STEP_REWARD = -0.01
DIRECTION = np.array([0, -1, 1])
"""Where each action leads: stay, left, right."""
GOAL_REWARD = np.zeros(CELLS, dtype=np.float32)
GOAL_REWARD[SMALL_GOAL] = 0.1
GOAL_REWARD[LARGE_GOAL] = 1.0


class Basic(Simulation):
    """An agent in a corridor of 20 cells that sees where it is, as one-hot, and stays, goes left or goes right.

    Every step costs 0.01; the goal three cells to the left gives 0.1, the one seven cells to the right 1, and both end
    the episode. The best return is 0.93. Unlike Unity's, an episode is interrupted after 100 steps, so that one whose
    agent stays where it is ends.
    """

    NAME = "Basic"
    SPEC = BehaviorSpec([vector_spec("position", CELLS)], ActionSpec.create_discrete((3,)))
    AGENTS = 1
    MAX_STEPS = 100
    STATE = ("cell",)

    def __init__(self, *, num_agents: int | None = None, num_areas: int = 1, seed: int = 0, worker_id: int = 0) -> None:
        super().__init__(num_agents=num_agents, num_areas=num_areas, seed=seed, worker_id=worker_id)
        self.cell = np.full(self.num_agents, START, dtype=np.intp)

    def _begin(self, rows: Rows) -> None:
        self.cell[rows] = START

    def _move(self, action: ActionTuple) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        # No bounds to check: the goals end every episode on the way to the corridor's ends.
        self.cell += DIRECTION[action.discrete[:, 0]]
        goal = GOAL_REWARD[self.cell]
        return goal + np.float32(STEP_REWARD), goal > 0

    def _observe(self, rows: Rows) -> list[npt.NDArray[np.float32]]:
        return [one_hot(self.cell[rows], CELLS)]
