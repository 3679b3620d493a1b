"""PushTogether: a block that is too heavy for one agent, and that a group has to push the same way."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from mlagents_envs.base_env import ActionSpec, ActionTuple, BehaviorSpec

from mlhooks.sims.base import Rows, vector_spec
from mlhooks.sims.groups import GroupSimulation, Outcome

WEIGHT, SPEED = 1.0, 0.05
"""The force that the block withstands, and how far each unit of force beyond it moves the block."""
STEP_REWARD = np.float32(-0.01)


class PushTogether(GroupSimulation):
    """Three agents at a block that is to be pushed to one of two goals, 1 to the left or 1 to the right of its start.

    Each pushes with a force between -1 and 1. The block withstands forces up to 1 in all, and moves by 0.05 for each
    unit of force beyond that. The group gets what the block came nearer to its goal, less 0.01 for every step, and its
    episode ends at the goal. The best return is 0.9: three agents push it there in 10 steps. An agent sees the
    direction of the goal, -1 or 1, where the block is, and the force of the last step. Episodes are interrupted after
    60 steps.
    """

    NAME = "PushTogether"
    SPEC = BehaviorSpec([vector_spec("block", 3)], ActionSpec.create_continuous(1))
    AGENTS = MEMBERS = 3
    MAX_STEPS = 60
    STATE = ("goal", "block", "force", "there")

    def __init__(self, *, num_agents: int | None = None, num_areas: int = 1, seed: int = 0, worker_id: int = 0) -> None:
        super().__init__(num_agents=num_agents, num_areas=num_areas, seed=seed, worker_id=worker_id)
        # All members of a group have the same.
        self.goal, self.block, self.force = (np.zeros(self.num_agents) for _ in range(3))

    def _begin(self, rows: Rows) -> None:
        begun = rows[:: self.MEMBERS]  # Groups begin whole, so that these are their first members.
        self.goal[rows] = np.repeat(self._rng.choice([-1.0, 1.0], len(begun)), self.MEMBERS)
        self.block[rows], self.force[rows] = 0.0, 0.0

    def _play(self, action: ActionTuple) -> Outcome:
        pushed = np.clip(action.continuous[:, 0].astype(np.float64), -1.0, 1.0)
        force = pushed.reshape(self.groups, self.MEMBERS).sum(axis=1)
        goal, before = self.goal[:: self.MEMBERS], self.block[:: self.MEMBERS]
        block = before + SPEED * np.sign(force) * np.maximum(np.abs(force) - WEIGHT, 0.0)
        at_goal = block * goal >= 1.0 - 1e-9
        block = np.where(at_goal, goal, np.clip(block, -1.0, 1.0))
        self.block, self.force = np.repeat(block, self.MEMBERS), np.repeat(force, self.MEMBERS)
        nearer = ((block - before) * goal).astype(np.float32)
        return Outcome(nearer + STEP_REWARD, np.zeros(self.num_agents, np.bool_), at_goal)

    def _observe(self, rows: Rows) -> list[npt.NDArray[np.float32]]:
        seen = [self.goal[rows], self.block[rows], self.force[rows] / self.MEMBERS]
        return [np.stack(seen, axis=1).astype(np.float32)]
