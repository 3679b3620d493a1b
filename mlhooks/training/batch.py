"""Batches: rows of experience as losses and reward signals read them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mlhooks.fast.switch import kernel
from mlhooks.training.groups import Cells

ABSENT: Any = None
"""The default of columns that a trainer may leave out; as Any, a loss need not test the ones that its trainer fills."""
LARGE = 2**24  # Beyond so many bytes of features, minibatches are copied one by one, not all at once.


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Rows of experience as tensors; a column that the trainer does not fill is None.

    Rows that belong together are units: sequences for a network with a memory, the members of a group at one tick. A
    rollout has its rows once, in any order, and lays them out by `units`, an index over them. A minibatch has whole
    units, of which each has `width` rows one after the other; where a unit has fewer, its first row comes again as
    padding that is not `present` and does not count in `mean`.

    Attributes:
        features: [rows, features] float32, normalized where the settings ask for it; or uint8, images alone, where all
            that reads them takes bytes.
        obs: as `features`, but not normalized; the very same tensor where the policy does not normalize. It is there
            where a reward signal's `reads` names it.
        next_obs: as `obs`, of what followed each row one step later, be it a final observation; where it is read.
        ended: [rows], True where the row was the last of its episode, terminal or interrupted; where `obs` or
            `next_obs` are read.
        mask: [rows, sum of branch sizes], True where an action was forbidden; None where nothing was.
        continuous: [rows, continuous] samples before clipping; discrete: [rows, branches] int64.
        log_probs: [rows, dimensions], log-probabilities under the policy that acted, of each continuous action and then
            of each branch.
        rewards, group_rewards: [rows], the environment's own; group rewards are None where there never were any.
        groupmate_rewards: [rows], the sum of what the other members of the agent's group got at the same step.
        memory, critic_memory: [rows, size], the memory of actor and critic before each row.
        values, returns: [rows, signals], estimates before the update and their targets.
        baselines: [rows, signals], estimates before the update of what is got whatever the agent itself does.
        advantages: [rows, 1], over all reward signals: a column, which goes with all dimensions of an action.
        next_features, next_mask: what follows, off-policy; as `features` and `mask`.
        following: [rows] int64, off-policy with a memory, in place of `next_features`: the row of this batch that
            follows each row, n steps later; arbitrary where nothing follows. It is laid out in units already.
        signal_rewards: [rows, signals], off-policy: what each reward signal gave, over n steps their discounted sum.
        discounts: [rows, signals], factor on the value of what follows; 0 where the episode ended, but for signals that
            ignore ends.
        loss_mask: [rows], True where a row counts; None where all do.
        present: [rows], False where a row is padding; None where none is.
        width: how many rows a unit has here; where it is 1, each row is a unit of its own.
        units: [units, width] the rows of each unit, of which the first is there; -1 where a unit has no more. None
            where rows are laid out already.
        counts: [units, width] which of these rows count; None where all that are there do.
        cells: the members of groups at single ticks, as rows of this batch, where a trainer learns from groups. Where
            there are no units, minibatches are made of whole cells.
        together: [units] numbers from 0 on; units of one number stay together in minibatches of a batch with `cells`.
    """

    features: Tensor
    continuous: Tensor
    discrete: Tensor
    mask: Tensor | None = None
    obs: Tensor = ABSENT
    next_obs: Tensor = ABSENT
    ended: Tensor = ABSENT
    log_probs: Tensor = ABSENT
    rewards: Tensor = ABSENT
    group_rewards: Tensor | None = None
    groupmate_rewards: Tensor | None = None
    memory: Tensor = ABSENT
    critic_memory: Tensor = ABSENT
    values: Tensor = ABSENT
    returns: Tensor = ABSENT
    baselines: Tensor = ABSENT
    advantages: Tensor = ABSENT
    next_features: Tensor = ABSENT
    next_mask: Tensor | None = None
    following: Tensor = ABSENT
    signal_rewards: Tensor = ABSENT
    discounts: Tensor = ABSENT
    loss_mask: Tensor | None = None
    present: Tensor | None = None
    width: int = 1
    units: np.ndarray | None = None
    counts: np.ndarray | None = None
    cells: Cells | None = None
    together: np.ndarray | None = None

    def __len__(self) -> int:
        return self.features.shape[0]

    @property
    def lengths(self) -> Tensor | None:
        """The rows of each unit that are no padding, [units] int64; None where none is padding."""
        return None if self.present is None else self.present.view(-1, self.width).sum(1)

    def rewarded(self, signal_rewards: Tensor) -> Batch:
        """Put the reward signals' rewards [rows, signals] into this batch, which was just made, and return it.

        It is the same object, because making another one for each sample takes as long as drawing its rows.
        """
        object.__setattr__(self, "signal_rewards", signal_rewards)
        return self

    def __getitem__(self, rows: slice | Tensor) -> Batch:
        """Return some of the rows, each a unit of its own; the batch itself where they are all of them."""
        if isinstance(rows, slice) and rows == slice(0, len(self)):
            return self
        taken = {name: column[rows] for name, column in self._columns()}
        return self._alike(taken, cells=self._cells_at(np.arange(len(self))[_on_cpu(rows)]))

    def map(self, function: Callable[[Tensor], Tensor]) -> Batch:
        """Return the batch with a function applied to every column."""
        columns = {name: function(column) for name, column in self._columns()}
        return self._alike(columns, **{name: getattr(self, name) for name in LAYOUT})

    def with_rows(self, more: Mapping[str, Tensor]) -> Batch:
        """Return the batch with more rows behind its own, which do not count; columns that are not given are 0."""
        count = len(more["features"])
        columns = dict(self._columns())
        if self.loss_mask is None:
            columns["loss_mask"] = torch.ones(len(self), dtype=torch.bool, device=self.features.device)
        longer = {
            name: torch.cat([x, more[name] if name in more else x.new_zeros(count, *x.shape[1:])])
            for name, x in columns.items()
        }
        return self._alike(longer, **{name: getattr(self, name) for name in LAYOUT})

    def _columns(self) -> Iterator[tuple[str, Tensor]]:
        """Yield names and tensors of the columns; raw observations are left out where they are the features."""
        for name in COLUMNS:
            column = getattr(self, name)
            if column is not None and (name != "obs" or column is not self.features):
                yield name, column

    def _alike(self, columns: dict[str, Any], **layout: Any) -> Batch:
        """Return a batch with other tensors in place of those that `_columns` yields."""
        if self.obs is self.features:
            columns["obs"] = columns["features"]
        return Batch(**columns, **layout)

    def mean(self, x: Tensor) -> Tensor:
        """Return the mean of [rows] or [rows, n] over the rows that count."""
        if self.loss_mask is None:
            return x.mean()
        weights = self.loss_mask.to(x.dtype).reshape(-1, *[1] * (x.dim() - 1)).expand(x.shape)
        return (x * weights).sum() / weights.sum().clamp(min=1.0)

    def standardize(self, x: Tensor) -> Tensor:
        """Return [rows] or [rows, 1] shifted and scaled to mean 0 and deviation 1 over the rows that count."""
        if self.loss_mask is None:
            return standardized(x)
        centered = x - self.mean(x)
        return centered / (self.mean(centered.square()).sqrt() + 1e-8)

    def minibatches(self, size: int, rng: np.random.Generator) -> Iterator[Batch]:
        """Yield all rows once in random order, in near-equal parts of at least `size` rows.

        Fewer than 2 * `size` rows are one part, in their order. No rows are left out: those that fill no part of their
        own make the others larger. Where the rows are in units, whole units are in random order, and the parts have
        near-equal numbers of units: of rows that count, padding aside, they have `size` on average at least. Where
        there are `cells`, the members of a group at one tick stay together; parts have near-equal numbers of rows.
        """
        if self.cells is not None:
            yield from self._of_groups(self.cells, size, rng)
            return
        units = len(self) if self.units is None else len(self.units)
        parts = min(self._counting // size, units)
        if parts < 2:
            yield self.laid_out()
            return
        rows, layout = self._rows_in_order(rng.permutation(units))
        sizes = (np.diff(np.linspace(0, units, parts + 1).astype(int)) * (len(rows) // units)).tolist()
        if self.features.nbytes * len(rows) > LARGE * len(self):
            for part in zip(rows.split(sizes), *(column.split(sizes) for column in layout.values()), strict=True):
                yield self._take(part[0], dict(zip(layout, part[1:], strict=True)))
        else:
            shuffled = self._take(rows, layout)
            names, columns = zip(*shuffled._columns(), strict=True)
            for part in zip(*(column.split(sizes) for column in columns), strict=True):
                yield self._alike(dict(zip(names, part, strict=True)), width=shuffled.width)

    def _of_groups(self, cells: Cells, size: int, rng: np.random.Generator) -> Iterator[Batch]:
        """Yield minibatches of whole cells; or of sequences, with the rows of others that are in cells with them."""
        if self.units is None:
            counting = cells.decided.sum(1)
            unit_of = np.arange(len(counting))
        else:
            counting = (self.units >= 0).sum(1)
            unit_of = np.arange(len(counting)) if self.together is None else self.together
        parts = min(int(counting.sum()) // size, int(unit_of.max(initial=-1)) + 1)
        if parts < 2:
            yield self if self.units is None else self._of_sequences(cells, np.arange(len(self.units)))
            return
        # Units that stay together get the same random number.
        order = np.argsort(rng.permutation(int(unit_of.max()) + 1)[unit_of], kind="stable")
        begins = np.flatnonzero(np.diff(unit_of[order], prepend=-1))
        rows = np.add.reduceat(counting[order], begins)
        bounds = np.searchsorted(np.cumsum(rows) - rows, np.linspace(0, rows.sum(), parts + 1)[1:-1])
        for part in np.split(order, np.unique(begins[bounds[(bounds > 0) & (bounds < len(begins))]])):
            yield self._of_cells(cells, part) if self.units is None else self._of_sequences(cells, part)

    def _of_cells(self, cells: Cells, part: np.ndarray) -> Batch:
        """Return the rows of some cells; of those that did not decide there, only the others' values depend on them."""
        rows, chosen = cells.choose(part)
        counts = torch.from_numpy(chosen.decided[chosen.members >= 0])
        layout = {} if counts.all() else {"loss_mask": counts.to(self.features.device)}
        return replace(self._take(torch.from_numpy(rows).to(self.features.device), layout), cells=chosen)

    def _of_sequences(self, cells: Cells, part: np.ndarray) -> Batch:
        """Return the rows of some units, and behind them all others that are in cells with one of them."""
        assert self.units is not None
        units = self.units[part]
        there, width = units >= 0, units.shape[1]
        counts = np.zeros(len(self), np.bool_)
        counts[units[there]] = True
        chosen = cells.counting(counts)
        others = np.setdiff1d(chosen.members[chosen.members >= 0], units[there])
        # They fill whole units, because networks with a memory pass over units; what that gives for them is not used.
        padding = -len(others) % width
        rows = np.concatenate([np.where(there, units, units[:, :1]).ravel(), others, np.repeat(others[:1], padding)])
        present = np.concatenate([there.ravel(), np.ones(len(others), np.bool_), np.zeros(padding, np.bool_)])
        counting = np.concatenate([there.ravel(), np.zeros(len(others) + padding, np.bool_)])
        masks = {"present": present, "loss_mask": counting}
        device = self.features.device
        layout = {name: torch.from_numpy(mask).to(device) for name, mask in masks.items() if not mask.all()}
        return replace(self, cells=chosen)._take(torch.from_numpy(rows).to(device), layout)

    def _cells_at(self, rows: np.ndarray, present: np.ndarray | None = None) -> Cells | None:
        """Return the cells of a batch of some rows [rows], of which some are padding."""
        if self.cells is None:
            return None
        there = np.arange(len(rows)) if present is None else np.flatnonzero(present)
        places = np.full(len(self), -1, np.int64)
        places[rows[there]] = there
        return self.cells.moved(places)

    def laid_out(self) -> Batch:
        """Return a batch with the rows unit after unit; the batch itself where they lie so already."""
        return self if self.units is None else self._take(*self._rows_in_order(np.arange(len(self.units))))

    @property
    def _counting(self) -> int:
        """The number of rows that count, of those in units."""
        if self.units is None:
            return len(self)
        return int(np.count_nonzero(self.units >= 0 if self.counts is None else self.counts))

    def _rows_in_order(self, order: np.ndarray) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the rows of units in some order, unit after unit, and which of them are there and count."""
        device = self.features.device
        if self.units is None:
            return torch.from_numpy(order).to(device), {}
        units = self.units[order]
        present = units >= 0
        counting = present if self.counts is None else present & self.counts[order]
        masks = {"present": present, "loss_mask": counting}
        rows = np.where(present, units, units[:, :1])
        layout = {name: torch.from_numpy(mask.ravel()) for name, mask in masks.items() if not mask.all()}
        return torch.from_numpy(rows.ravel()).to(device), {name: mask.to(device) for name, mask in layout.items()}

    def _take(self, rows: Tensor, layout: dict[str, Tensor]) -> Batch:
        names, columns = zip(*self._columns(), strict=True)
        taken = dict(zip(names, rows_of(columns, rows), strict=True))
        for name, mask in layout.items():
            taken[name] = taken[name] & mask if name in taken else mask
        width = 1 if self.units is None else self.units.shape[1]
        if self.cells is None:
            return self._alike(taken, width=width)
        return self._alike(taken, width=width, cells=self._cells_at(_on_cpu(rows), _on_cpu(layout.get("present"))))


def _on_cpu(rows: Any) -> Any:
    """Return an index of rows as numpy takes it."""
    return rows.cpu().numpy() if isinstance(rows, Tensor) else rows


def column(x: Tensor) -> Tensor:
    """Return numbers [rows] as a column [rows, 1], which goes with all dimensions of an action; a column as it is."""
    return x if x.dim() == 2 else x.unsqueeze(1)


@kernel("updates")
def standardized(x: Tensor) -> Tensor:
    """Return [rows] or [rows, 1] shifted and scaled to mean 0 and deviation 1."""
    centered = x - x.mean()
    return centered / (centered.square().mean() + 1e-16).sqrt()


@kernel("updates")
def rows_of(columns: Sequence[Tensor], rows: Tensor) -> list[Tensor]:
    """Return copies of some rows of each column."""
    return [column.index_select(0, rows) for column in columns]


LAYOUT = frozenset({"width", "units", "counts", "cells", "together"})
"""What a batch has beside its columns."""
COLUMNS = tuple(field.name for field in fields(Batch) if field.name not in LAYOUT)
