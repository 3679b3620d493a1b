"""Generalized advantage estimation over rows in arrival order."""

from __future__ import annotations

import numpy as np

from mlhooks.training.store import End, ExperienceStore


def next_values(store: ExperienceStore, values: np.ndarray, final_values: np.ndarray) -> np.ndarray:
    """The value that follows each row: its successor's, the final observation's where interrupted, 0 at an end.

    Args:
        store: the rows.
        values: [rows, signals], of all rows in use.
        final_values: [finals, signals], of the final observations; may be empty where nothing is interrupted.

    Returns:
        [rows, signals]; 0 for open rows.
    """
    n = store.size
    padded = np.concatenate([values, np.zeros((1, values.shape[1]), values.dtype)])  # row -1: nothing follows
    following = padded[store.successor[:n]]
    interrupted = np.flatnonzero(store.end[:n] == End.INTERRUPTED)
    following[interrupted] = final_values[store.final[interrupted]]
    return following


def generalized_advantages(
    store: ExperienceStore,
    rewards: np.ndarray,
    values: np.ndarray,
    following: np.ndarray,
    gamma: np.ndarray,
    lambd: float,
) -> np.ndarray:
    """Advantages by GAE (Schulman et al. 2016, eq. 16), backwards over ticks and vectorized over agents.

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
        [rows, signals]; meaningless for open rows.
    """
    n = store.size
    advantages = np.zeros((n + 1, rewards.shape[1]), np.float32)
    advantages[:n] = rewards + gamma * following - values
    successor = store.successor[:n]
    is_open = (successor < 0) & (store.end[:n] == End.NONE)
    advantages[:n][is_open] = 0.0
    continues = (store.end[:n] == End.NONE) & (successor >= 0)
    decay = (continues[:, None] * (gamma * lambd)).astype(np.float32)
    starts = np.flatnonzero(np.diff(store.tick[:n], prepend=-1)).tolist()
    for start, stop in zip(reversed(starts), reversed([*starts[1:], n]), strict=True):
        # a successor is always in a later tick, so its advantage is final; row -1 is the 0 at the end
        advantages[start:stop] += decay[start:stop] * advantages[successor[start:stop]]
    return advantages[:n]
