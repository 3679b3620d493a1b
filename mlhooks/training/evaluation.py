"""Counting episodes of a policy that is only used: with inference, and in evaluations while it is trained."""

from __future__ import annotations

import logging
from collections import Counter

import numpy as np

from mlhooks.training.trainer import Trainer

logger = logging.getLogger("mlhooks")

PATIENCE = 20
"""Times the episodes that are wanted: how many are left out, of agents that have had their share, before they count."""


class Evaluation:
    """Collects the returns of finished episodes, of each behavior for itself, until there are enough.

    The first episodes of every agent count, in equal shares: taking whichever finish first would favour short ones.
    Where an agent does not end its share, because it is gone or its episodes never end, others fill it in the end.

    Args:
        episodes: how many to collect of each behavior; None collects until the run is stopped.

    Attributes:
        returns: behavior name -> the returns of its episodes that count.
        lengths: behavior name -> their lengths in decisions, where these are told.
    """

    def __init__(self, episodes: int | None) -> None:
        self.episodes = episodes
        self.returns: dict[str, list[float]] = {}
        self.lengths: dict[str, list[int]] = {}
        self._counted: Counter[tuple[str, int]] = Counter()
        self._agents: dict[str, int] = {}
        self._left_out: Counter[str] = Counter()

    def watch(self, trainer: Trainer) -> None:
        """Count the episodes of a trainer's agents."""
        name = trainer.behavior_name
        self.expect(name)
        trainer.episodes.listeners.append(lambda slots, returns: self.ended(name, trainer.pool.size, slots, returns))

    def expect(self, name: str) -> None:
        """Begin to count episodes of a behavior."""
        self.returns[name], self.lengths[name] = [], []

    def ended(
        self, name: str, agents: int, slots: np.ndarray, returns: np.ndarray, lengths: np.ndarray | None = None
    ) -> None:
        """Take in episodes that ended together; those that are not among their agents' shares do not count.

        Args:
            name: of the behavior.
            agents: how many there are; what counts is their number when the first episode ends.
            slots: of the agents whose episodes ended, [ended].
            returns: of these episodes.
            lengths: of these episodes, in decisions.
        """
        agents = self._agents.setdefault(name, agents)
        for index, slot in enumerate(slots.tolist()):
            share = None if self.episodes is None else (self.episodes + agents - 1 - slot) // agents
            if share is not None and self._counted[name, slot] >= share and not self._fills_in(name):
                continue
            self._counted[name, slot] += 1
            self.returns[name].append(float(returns[index]))
            if lengths is not None:
                self.lengths[name].append(int(lengths[index]))

    def _fills_in(self, name: str) -> bool:
        """Return whether an episode counts that is not among its agent's share, because others end none of theirs."""
        wanted = self.episodes or 0
        self._left_out[name] += 1
        if self._left_out[name] == PATIENCE * wanted + 1 and len(self.returns[name]) < wanted:
            logger.warning(
                "Behavior %r: %d episodes count, and %s more ended of agents that have had their share, while others "
                "end none. More of these count in place of what is missing.",
                *(name, len(self.returns[name]), f"{self._left_out[name]:,}"),
            )
        return self._left_out[name] > PATIENCE * wanted and len(self.returns[name]) < wanted

    def __str__(self) -> str:
        """Return one line for each behavior."""
        return "\n".join(f"{name}  {_in_words(returns)}" for name, returns in self.returns.items())

    def complete(self) -> bool:
        """Return whether every behavior's episodes are all in."""
        wanted = self.episodes
        return wanted is not None and bool(self.returns) and all(len(r) >= wanted for r in self.returns.values())

    def incomplete(self) -> list[str]:
        """Return the behaviors of which more episodes are to come."""
        return [name for name, r in self.returns.items() if self.episodes is None or len(r) < self.episodes]


def _in_words(returns: list[float]) -> str:
    if not returns:
        return "no episode finished"
    mean, deviation, least = np.mean(returns), np.std(returns), np.min(returns)
    episodes = "1 episode" if len(returns) == 1 else f"{len(returns):,} episodes"
    return f"{episodes}: mean reward {mean:.3f}, deviation {deviation:.3f}, minimum {least:.3f}"
