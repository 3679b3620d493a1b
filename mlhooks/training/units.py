"""Units: rows of experience that belong together, as an index over rows that lie flat.

Sequences for networks with a memory, the members of a group at one tick, and paths through a replay buffer are all of
one form: an array [units, width] of rows, with -1 where a unit has no more.
"""

from __future__ import annotations

import numpy as np


def sequences(slot: np.ndarray, trajectory: np.ndarray, length: int) -> np.ndarray:
    """Return sequences of consecutive rows of one trajectory: [units, length], with -1 behind the end of a trajectory.

    Only the last sequence of a trajectory may be shorter than `length`, and none begins in the middle of one before.

    Args:
        slot: [rows] the agent's slot, of rows of which each agent's are in the order of time.
        trajectory: [rows] the number of the trajectory; those of one slot grow.
        length: the most rows in a sequence.
    """
    order = np.lexsort((trajectory, slot))
    slot, trajectory, places = slot[order], trajectory[order], np.arange(len(order))
    begins = np.ones(len(order), np.bool_)
    begins[1:] = (slot[1:] != slot[:-1]) | (trajectory[1:] != trajectory[:-1])
    # These are rows since the trajectory's first one here.
    since = places - np.maximum.accumulate(np.where(begins, places, 0))
    unit = np.cumsum(since % length == 0) - 1
    units = np.full((unit[-1] + 1 if len(unit) else 0, length), -1, np.int64)
    units[unit, since % length] = order
    return units
