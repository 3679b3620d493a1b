"""Counting episodes of a policy that is only used."""

from __future__ import annotations

from collections import Counter

import numpy as np

from mlhooks.training.trainer import Trainer


class Evaluation:
    """Collects the returns of finished episodes, of each behavior for itself, until there are enough.

    The first episodes of every agent count, in equal shares: taking whichever finish first would favour short ones.

    Args:
        episodes: how many to collect of each behavior; None collects until the run is stopped.

    Attributes:
        returns: behavior name -> the returns of its episodes that count.
    """

    def __init__(self, episodes: int | None) -> None:
        self.episodes = episodes
        self.returns: dict[str, list[float]] = {}
        self._counted: Counter[tuple[str, int]] = Counter()
        self._agents: dict[str, int] = {}

    def watch(self, trainer: Trainer) -> None:
        """Count the episodes of a trainer's agents."""
        self.returns[trainer.behavior_name] = []
        trainer.episodes.listeners.append(lambda slots, returns: self._record(trainer, slots, returns))

    def _record(self, trainer: Trainer, slots: np.ndarray, returns: np.ndarray) -> None:
        name = trainer.behavior_name
        agents = self._agents.setdefault(name, trainer.pool.size)
        for slot, episode_return in zip(slots.tolist(), returns.tolist(), strict=True):
            share = None if self.episodes is None else (self.episodes + agents - 1 - slot) // agents
            if share is None or self._counted[name, slot] < share:
                self._counted[name, slot] += 1
                self.returns[name].append(episode_return)

    def __str__(self) -> str:
        """One line for each behavior."""
        return "\n".join(f"{name}  {_in_words(returns)}" for name, returns in self.returns.items())

    def complete(self) -> bool:
        """Whether every behavior's episodes are all in."""
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
