"""The reward that the environment itself gives."""

from __future__ import annotations

from torch import Tensor

from mlhooks.plugin import Batch, RewardSignal, RewardSignalSettings, hookimpl


class ExtrinsicReward(RewardSignal):
    """The agent's own reward plus its group's."""

    reads_bytes = True

    def evaluate(self, batch: Batch) -> Tensor:
        """Return rewards [rows]."""
        return batch.rewards if batch.group_rewards is None else batch.rewards + batch.group_rewards


@hookimpl
def get_reward_signals() -> dict[str, tuple[type[RewardSignal], type[RewardSignalSettings]]]:
    """Offer `extrinsic`."""
    return {"extrinsic": (ExtrinsicReward, RewardSignalSettings)}
