"""Counting episodes of a policy that is only used."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from mlhooks.training.trainer import Trainer


class Evaluation:
    """Collects the returns of finished episodes until there are enough.

    The first episodes of every agent count, in equal shares: taking whichever finish first would favour short ones.

    Args:
        episodes: how many to collect; None collects until the run is stopped.

    Attributes:
        returns: the returns of the episodes that count.
    """

    def __init__(self, episodes: int | None) -> None:
        self.episodes = episodes
        self.returns: list[float] = []
        self._counted: dict[tuple[str, int], int] = {}
        self._agents: dict[str, int] = {}

    def watch(self, trainer: Trainer) -> None:
        """Count the episodes of a trainer's agents."""
        trainer.episodes.listeners.append(lambda slots, returns: self._record(trainer, slots, returns))

    def _record(self, trainer: Trainer, slots: np.ndarray, returns: np.ndarray) -> None:
        agents = self._agents.setdefault(trainer.behavior_name, trainer.pool.size)
        for slot, episode_return in zip(slots.tolist(), returns.tolist(), strict=True):
            key = (trainer.behavior_name, slot)
            share = None if self.episodes is None else (self.episodes + agents - 1 - slot) // agents
            if share is None or self._counted.get(key, 0) < share:
                self._counted[key] = self._counted.get(key, 0) + 1
                self.returns.append(episode_return)

    def __str__(self) -> str:
        if not self.returns:
            return "No episode finished."
        mean, deviation, least = np.mean(self.returns), np.std(self.returns), np.min(self.returns)
        return f"{len(self.returns)} episodes: mean reward {mean:.3f}, deviation {deviation:.3f}, minimum {least:.3f}"

    def complete(self, trainers: Iterable[Trainer]) -> bool:
        """Whether every behavior's episodes are all in."""
        if self.episodes is None:
            return False
        names = [trainer.behavior_name for trainer in trainers]
        counts = {name: sum(n for (owner, _), n in self._counted.items() if owner == name) for name in names}
        return bool(names) and all(count >= self.episodes for count in counts.values())
