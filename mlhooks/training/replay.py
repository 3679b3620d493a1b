"""The replay buffer: the experience store as a ring that is sampled instead of handed over."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import numpy as np
from mlagents_envs.base_env import BehaviorSpec, DecisionSteps

from mlhooks.fast.switch import kernel
from mlhooks.state_checks import whole
from mlhooks.training.store import End, ExperienceStore


class Transitions(NamedTuple):
    """N-step transitions: the rows that they pass through, and what follows these.

    Attributes:
        steps: [rows, n], the rows that each passes through, in order; -1 after its end.
        discounts: [rows, signals], factor on the value of what follows; 0 where the episode ended, but for signals that
            ignore ends.
        next_rows: [rows], the row that follows, or -1 where the episode ended on the way.
        finals: [rows], the final observation that follows where the episode was interrupted and, if any signal ignores
            ends, where it ended; -1 elsewhere. None where no row has one.
    """

    steps: np.ndarray
    discounts: np.ndarray
    next_rows: np.ndarray
    finals: np.ndarray | None

    @property
    def ended(self) -> np.ndarray:
        """Whether the episode ended on the way, by itself or interrupted: [rows]."""
        ended: np.ndarray = self.next_rows < 0
        return ended


class ReplayBuffer(ExperienceStore):
    """A store that keeps at least the last `rows` rows of experience, and samples complete ones.

    New rows overwrite the oldest. A row that is still open when the whole ring has passed is overwritten, too, and its
    agent begins a new trajectory. A subclass may draw rows by other weights than uniformly in `draw`.

    Attributes:
        filled: the number of rows that were ever written; `size` is the index of the next row.
        sequence_length: of sequences that `draw_sequences` finds; 1 where agents have no memory.
    """

    COUNTERS: ClassVar[tuple[str, ...]] = (*ExperienceStore.COUNTERS, "filled")

    def __init__(self, spec: BehaviorSpec, rows: int, time_horizon: int) -> None:
        super().__init__(spec, rows, time_horizon)
        self.filled, self.sequence_length = 0, 1
        self._free_finals: list[int] = []

    @property
    def in_use(self) -> int:
        """The number of rows that hold experience."""
        return self.filled

    def open_rows(self, slots: np.ndarray, steps: DecisionSteps, worker: int = 0) -> None:
        """Open rows as the store does; at the end of the ring, go on at its front."""
        if self.size >= self.rows and self.waiting == self.size:
            self.size = self.waiting = 0
        if self.size < self.filled:
            self._free_finals += overwrite(self, self.size, min(self.size + len(slots), self.filled))
        super().open_rows(slots, steps, worker)
        self.filled = max(self.filled, self.size)

    def remember(self, size: int, length: int = 1) -> None:
        """Remember as the store does, and with which rows sequences of that length begin."""
        super().remember(size, length)
        self.sequence_length = length
        self.sequence = np.full((len(self.slot), 1), -1, np.int64)

    def _recall(self, slots: np.ndarray, new: slice) -> None:
        """Give new rows memories as the store does, and the rows with which their sequences begin.

        As in ML-Agents, trajectories are cut into sequences from their first row on.
        """
        super()._recall(slots, new)
        before, place = self.open_row[slots], self.slot_length[slots]
        goes_on = (before >= 0) & (place < self.time_horizon) & (place % self.sequence_length > 0)
        self.sequence[new, 0] = np.where(goes_on, self.sequence[before, 0], np.arange(new.start, new.stop))

    def _add_finals(self, obs: list[np.ndarray]) -> np.ndarray:
        free, ended = self._free_finals, len(obs[0])
        if not free:
            return super()._add_finals(obs)
        reused = np.array([free.pop() for _ in range(min(ended, len(free)))], np.int64)
        for column, final in zip(self.final_obs, obs, strict=True):
            column[reused] = final[: len(reused)]
        if len(reused) == ended:
            return reused
        added = super()._add_finals([final[len(reused) :] for final in obs])
        return np.concatenate([reused, added])

    def is_complete(self, rows: np.ndarray) -> np.ndarray:
        """Return whether rows have their reward and what follows."""
        complete: np.ndarray = (self.successor[rows] >= 0) | self.end[rows].astype(np.bool_)
        return complete

    def draw(self, size: int, rng: np.random.Generator) -> np.ndarray:
        """Return complete rows, of which there must be one, uniformly and with replacement: [size]."""
        return draw(self, rng.random(size), rng)  # `rng.integers` would take three times as long

    def draw_sequences(self, size: int, rng: np.random.Generator) -> np.ndarray:
        """Return rows with which sequences begin, uniformly and with replacement: [size].

        Where the first row of a sequence is gone, a sequence may begin with each of the others.
        """
        found = np.zeros(0, np.int64)
        while missing := size - len(found):
            # At least one row in so many begins a sequence.
            rows = self.draw(missing * self.sequence_length, rng)
            first = self.sequence[rows, 0]
            is_there = (first >= 0) & (self.trajectory[first] == self.trajectory[rows])
            is_there &= self.tick[first] <= self.tick[rows]  # Else a later row has overwritten it.
            found = np.concatenate([found, rows[~is_there | (first == rows)][:missing]])
        return found

    def transitions(self, rows: np.ndarray, powers: np.ndarray, ignores_ends: np.ndarray) -> Transitions:
        """Follow complete rows for up to n steps: to the end of the episode, or to a row that is still open.

        Args:
            rows: [rows] where they begin.
            powers: [n + 1, signals] float32, the discount factors to the power of 0, 1 and so on.
            ignores_ends: [signals] bool, whether each reward signal ignores the ends of episodes.
        """
        return Transitions(*transitions(self, rows, powers, ignores_ends))

    def _open_rows(self) -> np.ndarray:
        """Return the open rows, the oldest first, which need not come first in the ring."""
        rows = super()._open_rows()
        return rows[np.argsort(self.tick[rows], kind="stable")]

    def keep_open(self) -> None:
        """Let go of all complete rows; open rows move to the front in their order."""
        super().keep_open()
        self.filled = self.size
        self._free_finals = []

    def _remove(self, gone: np.ndarray) -> None:
        """Remove rows as the store does; the ring goes on at the same place, before its oldest rows."""
        size, waiting = (int(np.count_nonzero(~gone[:place])) for place in (self.size, self.waiting))
        super()._remove(gone)
        self.filled, self.size, self.waiting = self.size, size, waiting

    def open_only(self) -> ReplayBuffer:
        """Return a buffer with the open rows alone, for a checkpoint without the experience."""
        other = type(self)(self.spec, self.rows, self.time_horizon)
        state = self.state_dict()
        other.load_state_dict(
            {name: value.copy() if hasattr(value, "copy") else value for name, value in state.items()}
        )
        other.obs = [column.copy() for column in other.obs]
        other.keep_open()
        return other

    def state_dict(self) -> dict[str, Any]:
        """Return all rows in use and the state of all slots."""
        return {**super().state_dict(), "free_finals": list(self._free_finals)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        super().load_state_dict(state)
        self._free_finals = [whole(final, "a free final", 0, self.finals - 1) for final in state["free_finals"]]
        if self.memory_size and not self.sequence.size:
            self.sequence = np.full((len(self.slot), 1), -1, np.int64)


class Sequences(NamedTuple):
    """Sequences of consecutive rows, one place longer than they may be, for what follows: all are [sequences, places].

    Attributes:
        rows: the row at each place; the first row again where there is none.
        finals: the final observation that is at a place instead of a row's, or -1.
        complete: whether a complete row is at a place; present: whether a row or a final observation is there.
    """

    rows: np.ndarray
    finals: np.ndarray
    complete: np.ndarray
    present: np.ndarray


def find_sequences(store: ReplayBuffer, first: np.ndarray, length: int) -> Sequences:
    """Follow complete rows for up to `length` rows each, to the end of the episode or to a row that is still open.

    Args:
        store: the rows.
        first: [sequences] where they begin.
        length: the most complete rows in a sequence.
    """
    powers, every = np.ones((length + 1, 1), np.float32), np.ones(1, np.bool_)
    steps, _, next_rows, finals = store.transitions(first, powers, every)
    complete = np.pad(steps >= 0, ((0, 0), (0, 1)))
    sequence, behind = np.arange(len(first)), (steps >= 0).sum(1)
    rows = np.pad(steps, ((0, 0), (0, 1)), constant_values=-1)
    rows[sequence, behind] = next_rows
    shown = np.full(rows.shape, -1)
    if finals is not None:
        shown[sequence, behind] = np.where(next_rows < 0, finals, -1)
    present = (rows >= 0) | (shown >= 0)
    return Sequences(np.where(rows >= 0, rows, first[:, None]), shown, complete, present)


@kernel("experience")
def overwrite(store: ReplayBuffer, start: int, stop: int) -> list[int]:
    """Detach rows from their agents, and reset them for new rows.

    Returns:
        The final observations of the old rows, whose places are free now.
    """
    old = slice(start, stop)
    finals = [final for final in store.final[old].tolist() if final >= 0]
    slots = store.slot[old]
    lost = store.open_row[slots] == np.arange(start, stop)
    store.open_row[slots[lost]] = -1
    store.blank(old)
    return finals


@kernel("experience")
def draw(store: ReplayBuffer, places: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the rows [size] at places [size] in [0, 1), and others for those that are not complete."""
    rows = (places * store.filled).astype(np.int64)
    while again := len(rows) - np.count_nonzero(complete := store.is_complete(rows)):
        rows[~complete] = (rng.random(again) * store.filled).astype(np.int64)
    return rows


@kernel("experience")
def transitions(
    store: ReplayBuffer, rows: np.ndarray, powers: np.ndarray, ignores_ends: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
    """Return the attributes of the `Transitions` that begin at these rows."""
    steps = np.full((len(rows), len(powers) - 1), -1, np.int64)
    finals = np.full(len(rows), -1, np.int64)
    terminal = np.zeros(len(rows), np.bool_)
    ignored = ignores_ends.any()
    at = rows.copy()  # Each transition has reached this row.
    for k in range(steps.shape[1]):
        going = np.flatnonzero((at >= 0) & store.is_complete(at))
        passed = at[going]
        steps[going, k] = passed
        finals[going] = np.where(ignored | (store.end[passed] == End.INTERRUPTED), store.final[passed], -1)
        terminal[going] = store.end[passed] == End.TERMINAL
        at[going] = store.successor[passed]
    goes_on = np.maximum(at, finals) >= 0
    discounts = powers[(steps >= 0).sum(1)] * (goes_on[:, None] & (ignores_ends | ~terminal[:, None]))
    return steps, discounts, at, finals if (finals >= 0).any() else None
