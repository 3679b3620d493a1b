"""The values of a rollout by a critic with a memory, which has to see the rows of each agent in their order."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from mlhooks.training.device import to_device
from mlhooks.training.optimizer import CHUNK_ROWS, ActorCriticOptimizer
from mlhooks.training.store import ExperienceStore
from mlhooks.training.units import sequences


def sequences_of(store: ExperienceStore, length: int) -> np.ndarray:
    """Return the sequences of a store's complete rows: [units, width], no wider than the longest of them.

    Args:
        store: the rows.
        length: the most rows in a sequence.

    Returns:
        Places among the complete rows; -1 where a sequence has no more.
    """
    rows = store.complete_rows()
    units = sequences(store.slot[rows], store.trajectory[rows], length)
    return units[:, : max(1, int((units >= 0).sum(1).max(initial=0)))]


class Recurrence:
    """The values of a rollout's rows by a critic with a memory.

    A critic that shares the actor's memory reads what acting stored with each row. One with a memory of its own passes
    over each agent's rows, and begins with the memory that the rollout before stored with the row that was open then.
    What it remembers before each unit and before each open row is stored in the store's `critic_memory`.

    Args:
        store: the rows.
        optimizer: the optimizer, whose critic has a memory.
        units: as `sequences_of` returns them.
        outputs: the numbers that the critic has for each row; by default those of the reward signals.
    """

    def __init__(
        self, store: ExperienceStore, optimizer: ActorCriticOptimizer, units: np.ndarray, outputs: int | None = None
    ) -> None:
        self.store, self.optimizer = store, optimizer
        self.outputs = len(optimizer.settings.reward_signals) if outputs is None else outputs
        rows = np.arange(store.size)[store.complete_rows()]
        self.units = np.where(units >= 0, rows[units], -1)
        self.lengths = (units >= 0).sum(1)
        # These have for each row the unit that ends with it, and the row before it; their last entries serve row -1.
        self._ending, self._before = (np.full(store.size + 1, -1, np.int64) for _ in range(2))
        self._ending[self.units[np.arange(len(units)), self.lengths - 1]] = np.arange(len(units))
        goes_on = np.flatnonzero(store.successor[: store.size] >= 0)
        self._before[store.successor[goes_on]] = goes_on

    def estimate(self, features: Tensor, finals: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the values of all rows and those of final observations, each [rows, signals].

        Args:
            features: [rows in use, size].
            finals: [finals, size], of final observations; None where nobody needs their values.
        """
        if self.optimizer.shares_memory:
            memories = to_device(self.store.memory[: self.store.size], features.device)
            values, after = self._step(features, memories)
            return values, self._of_finals(finals, values, lambda ended: after[ended])
        values, after = self._pass(features)
        unit_of = self._ending
        return values, self._of_finals(finals, values, lambda ended: after[unit_of[ended]])

    def _pass(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return the values of all rows, and the critic's memory after each unit."""
        store, units, first = self.store, self.units, self.units[:, 0]
        size = self.optimizer.critic.memory_size
        if store.critic_memory.shape[1] != size:
            store.critic_memory = np.zeros((len(store.slot), size), np.float32)
        before = to_device(store.critic_memory[first], features.device)
        after = torch.empty_like(before)
        values = before.new_zeros(store.size, self.outputs)
        for part, follow in self._in_turn():
            width = int(self.lengths[part].max())
            here = units[part, :width]
            there = here >= 0
            if follow:
                before[part] = after[part - 1]
            rows = torch.from_numpy(np.where(there, here, here[:, :1]).ravel())
            lengths = torch.from_numpy(self.lengths[part])
            found, after[part] = self.optimizer.estimate_units(features[rows], before[part], width, lengths)
            values[here[there]] = found[there.ravel()]
        store.critic_memory[first] = before.cpu().numpy()

        waiting = store.open_row[store.open_row >= 0]
        unit = self._ending[self._before[waiting]]
        follows = unit >= 0
        store.critic_memory[waiting[follows]] = after[unit[follows]].cpu().numpy()
        values[waiting], _ = self._step(features[waiting], to_device(store.critic_memory[waiting], features.device))
        return values, after

    def _in_turn(self) -> Iterator[tuple[np.ndarray, bool]]:
        """Yield indices of units that can be passed at once, and whether each goes on from the unit before it.

        The first units of all agents come first, then their second ones, and so on.
        """
        places = np.arange(len(self.units))
        begins = self._ending[self._before[self.units[:, 0]]] < 0
        turns = places - np.maximum.accumulate(np.where(begins, places, 0))
        some = max(1, CHUNK_ROWS // self.units.shape[1])
        for turn in range(turns.max(initial=-1) + 1):
            of_turn = np.flatnonzero(turns == turn)
            for start in range(0, len(of_turn), some):
                yield of_turn[start : start + some], turn > 0

    def _step(self, features: Tensor, memories: Tensor) -> tuple[Tensor, Tensor]:
        """Return the values of rows [rows, signals] and the memories after each, from the memory before each."""
        parts = zip(features.split(CHUNK_ROWS), memories.split(CHUNK_ROWS), strict=True)
        values, after = zip(*(self.optimizer.estimate_units(*part) for part in parts), strict=True)
        return torch.cat(values), torch.cat(after)

    def _of_finals(self, finals: Tensor | None, values: Tensor, memories: Callable[[np.ndarray], Tensor]) -> Tensor:
        """Return the values of final observations, from the memories after the rows that they follow."""
        if finals is None:
            return values[:0]
        ended = np.flatnonzero(self.store.final[: self.store.size] >= 0)
        places = self.store.final[ended]
        final_values = values.new_zeros(len(finals), values.shape[1])
        if len(ended):
            final_values[places], _ = self._step(finals[places], memories(ended))
        return final_values
