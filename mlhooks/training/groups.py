"""Groups of agents in a rollout: who is a member at which tick, what follows an end, and what the others got.

A member's current row at a tick is the one in which it decided last. It is a member from that tick on, to its next
decision or the end of its episode, so that members that decide at other rhythms are there all the time.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mlhooks.training.store import End, ExperienceStore


class Cells(NamedTuple):
    """The members of groups at single ticks: of each group a cell for each tick at which one of its members decided.

    An agent that is in no group is alone in its cells.

    Attributes:
        members: [cells, width] their current rows, in any order, with -1 behind the last one.
        decided: [cells, width] which of them decided at that tick; each row did so in one cell.
    """

    members: np.ndarray
    decided: np.ndarray

    def choose(self, order: np.ndarray) -> tuple[np.ndarray, Cells]:
        """Return the rows of some cells, one cell after the other, and the cells as places among these rows."""
        members, decided = self.members[order], self.decided[order]
        there = members >= 0
        places = np.where(there, np.cumsum(there).reshape(there.shape) - 1, -1)
        return members[there], Cells(places, decided)

    def counting(self, counts: np.ndarray) -> Cells:
        """Return the cells in which one of the rows that count decided, [rows] bool; no others decided in these."""
        decided = self.decided & counts[self.members]
        left = decided.any(1)
        return _to_the_left(self.members[left], decided[left])

    def moved(self, places: np.ndarray) -> Cells:
        """Return the cells that are left where rows have other places, [rows], -1 for those that are gone."""
        members = np.where(self.members >= 0, places[self.members], -1)
        decided = self.decided & (members >= 0)
        left = decided.any(1)
        return _to_the_left(members[left], decided[left])

    def places(self, rows: int) -> tuple[np.ndarray, np.ndarray]:
        """Return for each of `rows` rows the cell in which it decided, and its column there.

        Both are 0 where it decided in none.
        """
        places = np.zeros((2, rows), np.int64)
        places[:, self.members[self.decided]] = np.nonzero(self.decided)
        return places[0], places[1]


def has_groups(store: ExperienceStore) -> bool:
    """Return whether any agent is in a group."""
    return bool(np.count_nonzero(store.group[: store.size]))


def cells_of(store: ExperienceStore) -> Cells:
    """Return the cells of all rows in use, with those of open rows."""
    n = store.size
    group, tick = store.group[:n], store.tick[:n]
    alone = np.flatnonzero(group == 0)[:, None]
    grouped = np.flatnonzero(group)
    if not len(grouped):
        return Cells(alone, np.ones(alone.shape, np.bool_))
    order = grouped[np.lexsort((tick[grouped], group[grouped]))]
    begins = np.ones(len(order), np.bool_)
    begins[1:] = (group[order][1:] != group[order][:-1]) | (tick[order][1:] != tick[order][:-1])
    first = order[begins]
    members = _Members(store).at(group[first], tick[first])
    decided = (members >= 0) & (tick[members] == tick[first][:, None])
    cells = _to_the_left(members, decided)
    width = cells.members.shape[1]
    members = np.concatenate([cells.members, np.pad(alone, ((0, 0), (0, width - 1)), constant_values=-1)])
    decided = np.concatenate([cells.decided, np.pad(np.ones(alone.shape, np.bool_), ((0, 0), (0, width - 1)))])
    return Cells(members, decided)


def after_ends(store: ExperienceStore, rows: np.ndarray) -> np.ndarray:
    """Return who is there after rows that end episodes: [rows, width], -1 behind the last one.

    These are the agent's own final observation; and of the other members of its group their current rows, or the final
    observations of those that ended at the same time. Where the whole group ended, members that begin again at once are
    left out: their next episode is another one.

    Args:
        store: the rows.
        rows: [rows] of them, each of which ends an episode.

    Returns:
        Indices of rows in use, behind which final observations count on.
    """
    n = store.size
    own: np.ndarray = n + store.final[rows][:, None]
    grouped = np.flatnonzero(store.group[rows])
    if not len(grouped):
        return own
    which = rows[grouped]
    group, tick, slot = store.group[which], store.end_tick[which], store.slot[which][:, None]
    whole = store.group_ended[which][:, None]
    found = _Members(store)
    current, over = found.at(group, tick), found.ended_at(group, tick)
    begins = (store.tick[current] == tick[:, None]) & ~found.goes_on_from[current]
    stays = (current >= 0) & (store.slot[current] != slot) & ~(whole & begins)
    current = np.where(stays, current, -1)
    # Members are in the same columns in both, so that one that is there again replaces its final observation.
    ended = (over >= 0) & (store.slot[over] != slot) & ~stays
    groupmates = np.where(ended, n + store.final[over], current)
    everybody = np.full((len(rows), 1 + groupmates.shape[1]), -1, np.int64)
    everybody[:, :1] = own
    everybody[grouped, 1:] = groupmates
    return _to_the_left(everybody, everybody >= 0).members


def groupmate_rewards(store: ExperienceStore) -> np.ndarray:
    """Return what the other members of each row's group got while the row was current: [rows in use].

    Each reward counts for the row that is current when it arrives. Where all decide together, that is the reward of the
    same step. Of an open row it is what has arrived so far, which is kept for the next rollout, in which the rows of
    the others are gone.
    """
    n = store.size
    group, tick = store.group[:n], store.tick[:n]
    until = _until(store)
    complete = (store.successor[:n] >= 0) | (store.final[:n] >= 0)
    paid = np.flatnonzero(complete & (group > 0))
    rewards = store.reward[:n].astype(np.float64)
    order = paid[np.lexsort((until[paid], group[paid]))]
    sums = np.concatenate([[0.0], np.cumsum(rewards[order])])
    numbers, index = np.unique(group, return_inverse=True)
    span = int(until.max(initial=0)) + 2
    keys = index[order] * span + until[order]

    def received(until: np.ndarray) -> np.ndarray:
        """Return what groups got up to some ticks, since a time that does not matter."""
        total: np.ndarray = sums[np.searchsorted(keys, index * span + until, "right")]
        return total

    others = received(until) - received(tick) - np.where(complete, rewards, 0.0)
    if store.groupmate_reward.shape[1]:
        others += store.groupmate_reward[:n, 0]
    return np.where(group > 0, others, 0.0).astype(np.float32) if numbers.any() else np.zeros(n, np.float32)


class _Members:
    """Finds the members of groups at ticks, among the rows of a store.

    Attributes:
        goes_on_from: [rows in use], whether a row continues an episode of which the row before is there.
    """

    def __init__(self, store: ExperienceStore) -> None:
        n = store.size
        slot, self._tick, group = store.slot[:n], store.tick[:n], store.group[:n]
        self._until, self._end = _until(store), np.where(store.final[:n] >= 0, store.end_tick[:n], -1)
        self._order = order = np.lexsort((self._tick, slot, group))
        begins = np.ones(n, np.bool_)
        begins[1:] = (slot[order][1:] != slot[order][:-1]) | (group[order][1:] != group[order][:-1])
        self._member = np.cumsum(begins) - 1  # These number the pairs of a group and a slot that ever was in it.
        self._groups = group[order][begins]
        self._span = int(max(self._until.max(initial=0), store.clock)) + 2
        self._keys = self._member * self._span + self._tick[order]
        self.goes_on_from = np.zeros(n, np.bool_)
        successor = store.successor[:n]
        self.goes_on_from[successor[successor >= 0]] = True

    def at(self, group: np.ndarray, tick: np.ndarray) -> np.ndarray:
        """Return the current rows of the members of some groups at some ticks: [groups, width], -1 where one is not."""
        rows = self._last(group, tick[:, None])
        return np.where((rows >= 0) & (self._until[rows] > tick[:, None]), rows, -1)

    def ended_at(self, group: np.ndarray, tick: np.ndarray) -> np.ndarray:
        """Return the rows that ended the episodes of members before some ticks, each in the column that `at` has."""
        rows = self._last(group, tick[:, None] - 1)
        return np.where((rows >= 0) & (self._end[rows] == tick[:, None]), rows, -1)

    def _last(self, group: np.ndarray, tick: np.ndarray) -> np.ndarray:
        """Return the last row of each member of some groups up to some ticks [groups, 1]: [groups, width]."""
        first, last = (np.searchsorted(self._groups, group, side) for side in ("left", "right"))
        member = first[:, None] + np.arange(int((last - first).max()))
        real = member < last[:, None]
        found = np.searchsorted(self._keys, member * self._span + tick, "right") - 1
        return np.where(real & (found >= 0) & (self._member[found] == member), self._order[found], -1)


def _until(store: ExperienceStore) -> np.ndarray:
    """Return the tick before which each row in use stops being current; that of the next act call where it is open."""
    n = store.size
    tick, successor = store.tick[:n], store.successor[:n]
    until = np.full(n, max(store.clock, int(tick.max(initial=0))) + 1, np.int64)
    goes_on, ended = np.flatnonzero(successor >= 0), np.flatnonzero(store.final[:n] >= 0)
    until[goes_on] = tick[successor[goes_on]]
    until[ended] = np.maximum(store.end_tick[ended], tick[ended] + 1)
    return until


def _to_the_left(members: np.ndarray, decided: np.ndarray) -> Cells:
    """Return cells with their members in front, and no wider than the largest of them."""
    order = np.argsort(members < 0, axis=1, kind="stable")
    width = max(1, int((members >= 0).sum(1).max(initial=1)))
    members, decided = (np.take_along_axis(array, order, axis=1)[:, :width] for array in (members, decided))
    return Cells(members, decided & (members >= 0))


def is_whole_end(store: ExperienceStore, rows: np.ndarray) -> np.ndarray:
    """Return whether rows end the episodes of whole groups, so that nothing follows them: [rows]."""
    ended: np.ndarray = (store.end[rows] == End.TERMINAL) & store.group_ended[rows]
    return ended
