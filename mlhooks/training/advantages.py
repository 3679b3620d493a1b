"""Generalized advantage estimation over rows in arrival order."""

from __future__ import annotations

import numpy as np

from mlhooks.fast.switch import kernel
from mlhooks.training.store import End, ExperienceStore


@kernel("experience")
def next_values(
    store: ExperienceStore, values: np.ndarray, final_values: np.ndarray, ignores_ends: np.ndarray
) -> np.ndarray:
    """Return the value that follows each row.

    It is that of its successor; that of the final observation where the episode was interrupted; and at the end of an
    episode that of the final observation for reward signals that ignore ends, 0 for the others.

    Args:
        store: the rows.
        values: [rows, signals], of all rows in use.
        final_values: [finals, signals], of the final observations; may be empty where `needs_finals` is False.
        ignores_ends: [signals], whether each reward signal ignores the ends of episodes.

    Returns:
        [rows, signals]; 0 for open rows.
    """
    n = store.size
    padded = np.concatenate([values, np.zeros((1, values.shape[1]), values.dtype)])  # Nothing follows row -1.
    following = padded[store.successor[:n]]
    interrupted = np.flatnonzero(store.end[:n] == End.INTERRUPTED)
    following[interrupted] = final_values[store.final[interrupted]]
    if np.count_nonzero(ignores_ends):
        terminal = np.flatnonzero(store.end[:n] == End.TERMINAL)
        following[terminal] = np.where(ignores_ends, final_values[store.final[terminal]], 0.0)
    return following


@kernel("experience")
def needs_finals(store: ExperienceStore, ignores_ends: np.ndarray) -> bool:
    """Return whether `next_values` looks at the values of final observations."""
    ends = store.end[: store.size]
    ended = ends == End.INTERRUPTED
    if np.count_nonzero(ignores_ends):
        ended |= ends == End.TERMINAL
    return bool(np.count_nonzero(ended))


@kernel("experience")
def generalized_advantages(
    store: ExperienceStore,
    rewards: np.ndarray,
    values: np.ndarray,
    following: np.ndarray,
    gamma: np.ndarray,
    lambd: float,
) -> np.ndarray:
    """Return advantages by GAE (Schulman et al. 2016, eq. 16), in one pass from each agent's last row to its first.

    The sum over temporal differences stops where a trajectory ends: at the end of an episode, at its interruption, at
    the time horizon, and at rows that are still open.

    Args:
        store: the rows.
        rewards: [rows, signals].
        values: [rows, signals], the value of each row.
        following: [rows, signals], the value that follows it.
        gamma: [signals], discount factors.
        lambd: GAE's lambda.

    Returns:
        [rows, signals]; 0 for open rows.
    """
    n = store.size
    goes_on, ends = store.successor[:n] >= 0, store.end[:n] != End.NONE
    deltas = rewards + gamma * following - values
    deltas[~(goes_on | ends)] = 0.0
    backwards = np.argsort(store.slot[:n], kind="stable")[::-1]
    deltas, goes_on = deltas[backwards], (goes_on & ~ends)[backwards]
    advantages = np.empty(deltas.shape, np.float32)
    for signal, discount in enumerate((gamma * lambd).tolist()):
        advantage, discounts = 0.0, (goes_on * discount).tolist()
        # A loop over Python's floats takes a fraction of one over small arrays, and adds up in double precision.
        advantages[backwards, signal] = [
            advantage := delta + factor * advantage
            for delta, factor in zip(deltas[:, signal].tolist(), discounts, strict=True)
        ]
    return advantages
