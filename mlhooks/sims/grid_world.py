"""GridWorld: walk to the one of two marks that the goal signal names, and around the other."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from mlagents_envs.base_env import ActionSpec, ActionTuple, BehaviorSpec, ObservationType

from mlhooks.sims.base import Rows, Simulation, one_hot, vector_spec

SIZE = 5
CELLS = SIZE * SIZE
STEP_REWARD, GOAL_REWARD, WRONG_REWARD = -0.01, 1.0, -1.0
MOVES = ((0, 0), (0, 1), (0, -1), (-1, 0), (1, 0))
"""(x, y) of each action: stay, up, down, left, right."""

# These are the numbers of cells for the agent, the plus and the cross, and of goals.
_CHOICES = np.array([[CELLS], [CELLS - 1], [CELLS - 2], [2]])


def _walk() -> tuple[npt.NDArray[np.intp], npt.NDArray[np.bool_]]:
    """Return where each action leads from each cell and whether a wall forbids it, both [cells, actions]."""
    cell = np.arange(CELLS)[:, None]
    right, up = np.array(MOVES).T
    x, y = cell % SIZE + right, cell // SIZE + up
    forbidden = (x < 0) | (x >= SIZE) | (y < 0) | (y >= SIZE)
    return np.where(forbidden, cell, y * SIZE + x), forbidden


NEXT_CELL, FORBIDDEN = _walk()


class GridWorld(Simulation):
    """An agent on a 5 x 5 grid with a plus and a cross, one of which is the goal.

    It sees three planes of 25 cells with a one at agent, plus and cross (cell `y * 5 + x`), and as goal signal which of
    the two is the goal (plus, cross). Moves into a wall are masked. Every step costs 0.01; the goal gives 1, the other
    mark -1, and both end the episode, which is interrupted after 100 steps.
    """

    NAME = "GridWorld"
    SPEC = BehaviorSpec(
        [vector_spec("grid", 3 * CELLS), vector_spec("goal", 2, ObservationType.GOAL_SIGNAL)],
        ActionSpec.create_discrete((len(MOVES),)),
    )
    AGENTS = 9
    MAX_STEPS = 100
    STATE = ("cell", "marks", "goal")

    def __init__(self, *, num_agents: int | None = None, num_areas: int = 1, seed: int = 0, worker_id: int = 0) -> None:
        super().__init__(num_agents=num_agents, num_areas=num_areas, seed=seed, worker_id=worker_id)
        self.cell = np.zeros(self.num_agents, dtype=np.intp)
        self.marks = np.zeros((2, self.num_agents), dtype=np.intp)  # These are the cells of plus and cross.
        self.goal = np.zeros(self.num_agents, dtype=np.intp)  # This is a row of `marks`.

    def _begin(self, rows: Rows) -> None:
        # Each cell is drawn among those still free; stepping over the taken ones, lowest first, makes it a cell.
        cell, plus, cross, goal = (self._rng.random((4, len(rows))) * _CHOICES).astype(np.intp)
        plus += plus >= cell
        low, high = np.minimum(cell, plus), np.maximum(cell, plus)
        cross += cross >= low
        cross += cross >= high
        self.cell[rows], self.marks[0, rows], self.marks[1, rows] = cell, plus, cross
        self.goal[rows] = goal

    def _move(self, action: ActionTuple) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        self.cell = NEXT_CELL[self.cell, action.discrete[:, 0]]
        reached = self.cell == self.marks
        at_goal = reached[self.goal, self._all]
        terminated = reached[0] | reached[1]
        reward = np.full(self.num_agents, STEP_REWARD, dtype=np.float32)
        if np.count_nonzero(terminated):
            reward += np.where(at_goal, np.float32(GOAL_REWARD), np.float32(WRONG_REWARD)) * terminated
        return reward, terminated

    def _observe(self, rows: Rows) -> list[npt.NDArray[np.float32]]:
        count = np.arange(len(rows))
        grid = np.zeros((len(rows), 3 * CELLS), dtype=np.float32)
        grid[count, self.cell[rows]] = 1.0
        grid[count, self.marks[0, rows] + CELLS] = 1.0
        grid[count, self.marks[1, rows] + 2 * CELLS] = 1.0
        return [grid, one_hot(self.goal[rows], 2)]

    def _mask(self) -> list[npt.NDArray[np.bool_]]:
        return [FORBIDDEN[self.cell]]
