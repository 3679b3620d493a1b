"""A reward signal that pays the same for whatever an agent does: what GAIL must be better than, in `imitation.py`."""

from __future__ import annotations

import torch
from torch import Tensor

from mlhooks.plugin import Batch, RewardSignal, RewardSignalSettings, hookimpl


class Constant(RewardSignal):
    """Pays 1 at each step."""

    def evaluate(self, batch: Batch) -> Tensor:
        """Return rewards [rows]."""
        return torch.ones(len(batch))


@hookimpl
def get_reward_signals() -> dict[str, tuple[type[RewardSignal], type[RewardSignalSettings]]]:
    """Offer `constant`."""
    return {"constant": (Constant, RewardSignalSettings)}
