"""A warning about agents that are waited for and never heard of again, while others go on."""

from __future__ import annotations

import logging

import numpy as np

from mlhooks.training.store import ExperienceStore

logger = logging.getLogger("mlhooks")

FEW = 4096
"""Up to this many slots, nobody asks whether their agents are silent."""
SILENT = 1000
"""Decisions of a behavior after which an agent that took part in none of them counts as silent."""


class SilentAgents:
    """Warns when most of a behavior's agents are silent; it looks each time that the number of agents has doubled.

    An agent may pause for as long as it likes, so this ends no run. An agent that is gone without a terminal step,
    however, is waited for as long as the run goes on, and its last decision is kept for it.
    """

    def __init__(self) -> None:
        self._next = FEW

    def check_open_rows(self, store: ExperienceStore, behavior_id: str) -> None:
        """Look at the open rows of agents, when there are many."""
        if len(store.open_row) < self._next:
            return
        self._next = 2 * len(store.open_row)
        rows = store.open_row[store.open_row >= 0]
        silent = int(np.count_nonzero(store.clock - store.tick[rows] > SILENT))
        if 2 * silent > len(rows):
            logger.warning(
                "Behavior %r: of %s agents that have decided and not ended, %s took part in none of the last %s "
                "decisions. If they are gone, the environment must say so by a terminal step for each: their last "
                "decisions stay in memory, and are never learned from.",
                behavior_id,
                f"{len(rows):,}",
                f"{silent:,}",
                f"{SILENT:,}",
            )
