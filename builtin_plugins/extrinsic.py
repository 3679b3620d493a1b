"""The reward that the environment itself gives."""

from __future__ import annotations

from torch import Tensor

from mlhooks.plugin import Batch, RewardSignal, RewardSignalSettings, hookimpl


class ExtrinsicReward(RewardSignal):
    """The agent's own reward plus its group's, and where a trainer learns from groups, what its groupmates got."""

    reads_bytes = True

    def evaluate(self, batch: Batch) -> Tensor:
        """Return rewards [rows]."""
        rewards = batch.rewards if batch.group_rewards is None else batch.rewards + batch.group_rewards
        return rewards if batch.groupmate_rewards is None else rewards + batch.groupmate_rewards


@hookimpl
def get_reward_signals() -> dict[str, tuple[type[RewardSignal], type[RewardSignalSettings]]]:
    """Offer `extrinsic`."""
    return {"extrinsic": (ExtrinsicReward, RewardSignalSettings)}
