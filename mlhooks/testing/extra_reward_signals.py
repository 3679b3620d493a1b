"""Reward signals beside `extrinsic`, with which trainers are tried."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mlhooks import hookimpl
from mlhooks.settings import RewardSignalSettings
from mlhooks.testing.tasks import TwoSignals
from mlhooks.training.batch import Batch
from mlhooks.training.reward_signals import RewardSignal


class Size(RewardSignal):
    """A reward for the size of the environment's reward."""

    reads_bytes = True

    def evaluate(self, batch: Batch) -> Tensor:
        """Return rewards [rows]."""
        return batch.rewards.abs()


class Elsewhere(RewardSignal):
    """The reward that `TwoSignals` does not pay: 1 for the right action in its last situations."""

    reads = frozenset({"obs"})

    def evaluate(self, batch: Batch) -> Tensor:
        """Return rewards [rows]."""
        situation = batch.obs.argmax(1)
        right = torch.as_tensor(TwoSignals.RIGHT, device=situation.device)[situation] == batch.discrete[:, 0]
        return (right & (situation >= TwoSignals.PAID)).float()


class NextSeen(RewardSignal):
    """The first number that is seen one step later, whose future goes on after the ends of episodes."""

    reads = frozenset({"next_obs"})
    ignores_ends = True

    def evaluate(self, batch: Batch) -> Tensor:
        """Return rewards [rows]."""
        return batch.next_obs[:, 0]


class MoreSignals:
    """The plugin that offers them."""

    @hookimpl
    def get_reward_signals(self) -> dict[str, tuple[type[RewardSignal], type[RewardSignalSettings]]]:
        """Offer each by its name."""
        kinds: dict[str, Any] = {"size": Size, "elsewhere": Elsewhere, "next_seen": NextSeen}
        return {name: (kind, RewardSignalSettings) for name, kind in kinds.items()}
