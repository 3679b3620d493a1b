"""Reward signals: what a behavior is rewarded for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from mlagents_envs.base_env import BehaviorSpec
from torch import Tensor, nn

from mlhooks.settings import RewardSignalSettings
from mlhooks.training.batch import Batch
from mlhooks.training.part_checks import check_rewards


class RewardSignal(ABC):
    """One source of reward with its own discount and value head.

    Args:
        name: its name in the configuration.
        behavior_spec: the behavior's observations and actions.
        settings: its settings, of which `gamma` and `strength` mean the same for every signal.

    Attributes:
        reads_bytes: whether it takes images as bytes, or looks at no features; else features are floats.
    """

    reads_bytes: ClassVar[bool] = False

    def __init__(self, name: str, behavior_spec: BehaviorSpec, settings: RewardSignalSettings) -> None:
        self.name, self.behavior_spec, self.settings = name, behavior_spec, settings
        self.gamma: float = settings.gamma
        self.strength: float = settings.strength

    @abstractmethod
    def evaluate(self, batch: Batch) -> Tensor:
        """Return rewards [rows] of a batch, before `strength`."""

    def rewards(self, batch: Batch) -> Tensor:
        """Return rewards [rows] of a batch, times `strength`.

        Raises:
            PluginError: `evaluate` returned something else.
        """
        rewards = self.evaluate(batch)
        check_rewards(self, rewards, len(batch))
        return rewards if self.strength == 1.0 else self.strength * rewards

    def update(self, batch: Batch) -> dict[str, Tensor]:  # noqa: ARG002
        """Learn from a batch, where the signal learns; returns scalars to report, by statistics key."""
        return {}

    def modules(self) -> dict[str, nn.Module]:
        """Return all modules that a checkpoint holds, by name."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Return all state that a resume needs beyond `modules()`."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
