"""Reward signals: what a behavior is rewarded for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from mlagents_envs.base_env import BehaviorSpec
from torch import Tensor, nn

from mlhooks.settings import RewardSignalSettings
from mlhooks.training.batch import Batch
from mlhooks.training.part_checks import check_reads, check_reported, check_rewards, check_unwritten, written

if TYPE_CHECKING:
    from mlhooks.training.policy import Policy


class RewardSignal(ABC):
    """One source of reward with its own discount and value head.

    Args:
        name: its name in the configuration.
        behavior_spec: the behavior's observations and actions.
        settings: its settings, of which `gamma` and `strength` mean the same for every signal.

    Attributes:
        reads: the columns that it needs in batches beside actions and the environment's rewards: `"obs"`, the
            observations, and `"next_obs"`, those that followed. With either of them, batches have `ended`, too.
        ignores_ends: whether the value of the final observation follows the end of an episode, as it does where an
            episode was interrupted; otherwise nothing follows an end.
        reads_bytes: whether it takes images as bytes, or looks at no observations; else they are floats.
        step: the agent steps so far when it learns, for messages.

    Raises:
        PluginError: `reads` names something else.
    """

    reads: ClassVar[frozenset[str]] = frozenset()
    ignores_ends: ClassVar[bool] = False
    reads_bytes: ClassVar[bool] = False
    conformance_settings: ClassVar[Mapping[str, Any]] = {}
    """Its settings, as in YAML, for conformance tests, where defaults do not suit it."""
    step = 0

    def __init__(self, name: str, behavior_spec: BehaviorSpec, settings: RewardSignalSettings) -> None:
        check_reads(self)
        self.name, self.behavior_spec, self.settings = name, behavior_spec, settings
        self.gamma: float = settings.gamma
        self.strength: float = settings.strength

    def attach(self, policy: Policy) -> None:
        """Take note of the policy that it rewards, as to make networks on its device; called once, before all else."""

    @abstractmethod
    def evaluate(self, batch: Batch) -> Tensor:
        """Return rewards [rows] of a batch, before `strength`."""

    def rewards(self, batch: Batch) -> Tensor:
        """Return rewards [rows] float32 of a batch, times `strength`, without their graph.

        Raises:
            PluginError: `evaluate` returned something else, or wrote to the batch.
        """
        before = written(batch, self.reads)
        rewards = self.evaluate(batch)
        check_rewards(self, rewards, len(batch))
        check_unwritten(self, "evaluate", batch, before)
        if rewards.requires_grad:  # Else a loss would train the signal by what it rewards.
            rewards = rewards.detach()
        if rewards.dtype is not torch.float32:  # A loss would become what the rewards are.
            rewards = rewards.float()
        return rewards if self.strength == 1.0 else self.strength * rewards

    @property
    def learns(self) -> bool:
        """Whether it has an `update` of its own."""
        return getattr(self.update, "__func__", None) is not RewardSignal.update

    def update(self, batch: Batch) -> dict[str, Tensor]:  # noqa: ARG002
        """Learn from a minibatch, where the signal learns, and return scalars to report, by statistics key.

        On-policy it is called for every minibatch of every epoch, after the policy's step on it; off-policy for
        minibatches of its own, one for every `reward_signal_steps_per_update` agent steps.
        """
        return {}

    def begin_training(self, policy: Policy, folder: Path) -> None:
        """Read what the signal needs to learn, such as a demonstration; called before training, and not to act alone.

        Args:
            policy: the behavior's; its `from_environment` brings actions of a demonstration to the level of `Batch`'s.
            folder: to which relative paths of the settings belong.
        """

    def modules(self) -> dict[str, nn.Module]:
        """Return all modules that a checkpoint holds, by name."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Return all state that a resume needs beyond `modules()`."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""


def all_read(signals: Iterable[RewardSignal]) -> frozenset[str]:
    """Return the columns that any of the signals reads."""
    return frozenset[str]().union(*(signal.reads for signal in signals))


def ignoring_ends(signals: Iterable[RewardSignal]) -> np.ndarray:
    """Return which of the signals ignore the ends of episodes: [signals] bool."""
    return np.array([signal.ignores_ends for signal in signals], np.bool_)


def checked_update(signal: RewardSignal, batch: Batch) -> dict[str, Tensor]:
    """Let a signal learn from a minibatch, and return what it reports.

    Raises:
        PluginError: its `update` returned something else, or wrote to the batch.
    """
    before = written(batch, signal.reads)
    reported = signal.update(batch)
    check_reported(signal, reported)
    check_unwritten(signal, "update", batch, before)
    return reported
