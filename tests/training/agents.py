"""Agents of several workers that come, decide in rhythms of their own, end, are lost, and take over slots of others."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mlhooks.testing.scripted import BEHAVIOR
from mlhooks.training.trainer import Trainer
from tests.steps import decisions, terminals

SIZE = 4
"""Numbers that an agent sees; the first one differs from that of everything else that was ever seen."""


class Seen(NamedTuple):
    """What one agent sees at one time: who, what, and whether its episode is over with that."""

    agent: tuple[int, int]
    observation: np.ndarray
    is_last: bool


class Agents:
    """Plays random histories on a trainer, whose course does not depend on its actions.

    Args:
        trainer: takes part.
        seed: of the histories.
        workers: environments with three agents each.
    """

    def __init__(self, trainer: Trainer, seed: int, workers: int = 2) -> None:
        self.trainer, self.rng = trainer, np.random.default_rng(seed)
        # These are by the ids of the agents that are there.
        self.decided: list[dict[int, bool]] = [{} for _ in range(workers)]
        self.next_id = self.shown = 0

    def _see(self, count: int) -> np.ndarray:
        seen = self.rng.normal(size=(count, SIZE)).astype(np.float32)
        seen[:, 0] = np.arange(self.shown, self.shown + count) / 512  # It is exact in float32.
        self.shown += count
        return seen

    def observe(self) -> list[Seen]:
        """Let every worker send a step, and return what agents saw, in the order of time."""
        found: list[Seen] = []
        for worker, here in enumerate(self.decided):
            while len(here) < 3:
                here[self.next_id] = False
                self.next_id += 1
            ending = [agent for agent, has in here.items() if has and self.rng.random() < 0.08]
            rhythm = {agent: 0.3 + 0.3 * (agent % 3) for agent in here if agent not in ending}
            deciding = [agent for agent, often in rhythm.items() if self.rng.random() < often]
            last, seen = self._see(len(ending)), self._see(len(deciding))
            self.trainer.observe(
                worker,
                BEHAVIOR,
                decisions(deciding, seen.ravel().tolist(), self._rewards(deciding)),
                terminals(ending, last.ravel().tolist(), self._rewards(ending), [agent % 2 == 0 for agent in ending]),
            )
            found += [Seen((worker, agent), obs, True) for agent, obs in zip(ending, last, strict=True)]
            found += [Seen((worker, agent), obs, False) for agent, obs in zip(deciding, seen, strict=True)]
            self.decided[worker] = {agent: has or agent in deciding for agent, has in here.items()}
            for agent in ending:
                del self.decided[worker][agent]
        return found

    def _rewards(self, agents: list[int]) -> list[float]:
        rewards: list[float] = self.rng.normal(size=len(agents)).tolist()
        return rewards

    def lose_a_worker(self) -> list[tuple[int, int]]:
        """Lose a worker with its agents, and return these."""
        worker = int(self.rng.integers(len(self.decided)))
        self.trainer.worker_failed(worker)
        lost = [(worker, agent) for agent in self.decided[worker]]
        self.decided[worker] = {}
        return lost
