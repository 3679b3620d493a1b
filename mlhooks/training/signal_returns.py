"""Sums of rewards in the episodes of agents, such as the returns of reward signals, which are reported at an end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mlhooks.state_checks import LARGEST_WHOLE, array_of, indices, whole
from mlhooks.stats import StatsReporter
from mlhooks.training.store import ExperienceStore

EXTRINSIC = "extrinsic"
"""The reward signal that gives the environment's rewards; the acting half reports its returns itself."""


def reward_key(signal: str) -> str:
    """Return the statistics key of the returns of a reward signal, as ML-Agents has it."""
    return f"Policy/{signal.capitalize()} Reward"


class EpisodeSums:
    """Sums over the rows of each agent's episode, which may come in several calls.

    Between them its sums are kept by slot, with the number of the trajectory that its next row will have. If a row of
    another trajectory comes, as after an environment has failed, the sums are forgotten.

    Args:
        columns: how many sums there are of each episode.
    """

    def __init__(self, columns: int) -> None:
        self._next = np.zeros(0, np.int64)  # [slots] the trajectory that an unfinished episode goes on with, or -1
        self._tick = np.zeros(0, np.int64)  # [slots] the tick of the last row that is in the sums
        self._sums = np.zeros((0, columns))
        self._from = 0  # Rows from this tick on may be missing in the sums.

    def new_rows(self, store: ExperienceStore) -> np.ndarray:
        """Return the complete rows that are not in the sums yet, in the order of time."""
        self._reserve(store)
        in_use = store.in_use
        rows = np.flatnonzero(store.tick[:in_use] >= self._from)
        complete = (store.successor[rows] >= 0) | (store.final[rows] >= 0)
        rows = rows[complete & (store.tick[rows] > self._tick[store.slot[rows]])]
        waiting = store.tick[store.open_row[store.open_row >= 0]]
        self._from = int(waiting.min()) if len(waiting) else store.clock
        return rows[np.argsort(store.tick[rows], kind="stable")]

    def episodes(self, store: ExperienceStore, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return where the episodes of complete rows, sorted by slot and time, begin and end, and what they go on from.

        Returns:
            The places of their first and of their last row, [episodes], and their sums of earlier calls, [episodes,
            columns], 0 where there are none.
        """
        self._reserve(store)
        slot, ended = store.slot[rows], store.final[rows] >= 0
        begins = np.ones(len(rows), np.bool_)
        begins[1:] = (slot[1:] != slot[:-1]) | ended[:-1]
        first = np.flatnonzero(begins)
        last = np.append(first[1:], len(rows)) - 1
        slots = slot[first]
        # Only the first episode of a slot can have begun before: the others have later trajectories.
        going_on = self._next[slots] == store.trajectory[rows[first]]
        return first, last, np.where(going_on[:, None], self._sums[slots], 0.0)

    def keep(self, store: ExperienceStore, rows: np.ndarray, last: np.ndarray, sums: np.ndarray) -> np.ndarray:
        """Keep the sums [episodes, columns] of episodes that go on, and return which are over, [episodes]."""
        slot = store.slot[rows]
        over: np.ndarray = store.final[rows[last]] >= 0
        self._tick[slot] = store.tick[rows]  # numpy keeps the last of several values.
        self._next[slot] = -1
        left = last[~over]
        self._next[slot[left]] = store.trajectory[store.successor[rows[left]]]
        self._sums[slot[left]] = sums[~over]
        return over

    def _reserve(self, store: ExperienceStore) -> None:
        more = len(store.open_row) - len(self._next)
        if more > 0:
            self._next = np.append(self._next, np.full(more, -1))
            self._tick = np.append(self._tick, np.full(more, -1))
            self._sums = np.concatenate([self._sums, np.zeros((more, self._sums.shape[1]))])

    def state_dict(self) -> dict[str, Any]:
        """Return the sums of the episodes that go on."""
        return {"next": self._next, "tick": self._tick, "sums": self._sums, "from": self._from}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._next = indices(state["next"], "next", -1, LARGEST_WHOLE)
        self._tick = indices(state["tick"], "tick", len(self._next), LARGEST_WHOLE)
        self._sums = array_of(state["sums"], "sums", np.float64, (len(self._next), self._sums.shape[1]))
        self._from = whole(state["from"], "from")


class SignalReturns(EpisodeSums):
    """Sums of the rewards of reward signals in each agent's episode, as a rule of all but `extrinsic`.

    Args:
        signals: the names of the reward signals.
        stats: gets the sums of the episodes that end.
        with_extrinsic: whether `extrinsic` is among them, whose returns the acting half does not report then.

    Attributes:
        columns: the indices of these signals among all.
    """

    def __init__(self, signals: Sequence[str], stats: StatsReporter, *, with_extrinsic: bool = False) -> None:
        self.columns = [index for index, name in enumerate(signals) if with_extrinsic or name != EXTRINSIC]
        super().__init__(len(self.columns))
        self._keys = [reward_key(signals[index]) for index in self.columns]
        self._stats = stats

    def add(self, store: ExperienceStore, rows: np.ndarray, rewards: np.ndarray) -> None:
        """Add the rewards of complete rows, and report the sums of the episodes that end with one of them.

        Args:
            store: the rows.
            rows: [rows] indices of rows, in any order; between those of one agent, none is missing.
            rewards: [rows, other signals].
        """
        if not len(rows):
            return
        order = np.lexsort((store.tick[rows], store.slot[rows]))
        rows = rows[order]
        first, last, sums = self.episodes(store, rows)
        sums = np.add.reduceat(rewards[order].astype(np.float64), first) + sums
        over = self.keep(store, rows, last, sums)
        for key, column in zip(self._keys, sums[over].T, strict=True):
            self._stats.add_stats(key, column)
