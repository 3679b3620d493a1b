"""The learning half of a trainer: what makes a policy better from experience.

It gets rows of experience from the acting half, and sends weights back (`mlhooks/training/acting.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mlhooks.settings import RewardNormalization, TrainerSettings
from mlhooks.state_checks import whole
from mlhooks.stats import StatsReporter
from mlhooks.training.acting import Weights
from mlhooks.training.cloning import BehavioralCloning
from mlhooks.training.device import to_device
from mlhooks.training.hyperparameters import hyperparameter
from mlhooks.training.optimizer import Optimizer
from mlhooks.training.part_checks import check_state
from mlhooks.training.policy import Policy
from mlhooks.training.reward_signals import RewardSignal, all_read, ignoring_ends
from mlhooks.training.running_returns import RunningReturns
from mlhooks.training.signal_returns import SignalReturns
from mlhooks.training.store import ExperienceStore

Reported = list[dict[str, Tensor]]
"""What each update of an optimizer or a reward signal reported: scalars by statistics key."""


class LearningHalf:
    """Learns from the experience of one behavior; subclasses say when and how, and this base never does.

    Args:
        settings: the behavior's settings.
        policy: the policy to improve.
        optimizer: improves it.
        reward_signals: those of the behavior, in the order of the value heads.
        stats: gets statistics of the experience.
        rng: the source of all randomness.
        device: where the networks live.

    Attributes:
        settings, policy, optimizer, reward_signals, stats, rng, device: what it was made with.
        behavior_name: the name of the behavior.
        signal_returns: what the reward signals gave in the episodes of agents.
        reads: the columns that any of the signals reads; ignores_ends: which of them ignore ends, [signals] bool.
        signals_that_learn: those with an `update` of their own.
        running_returns: the sums of rewards by whose deviation these are divided, where the settings say `running`.
        return_normalizer: the statistics of sums by which rewards are normalized, or None.
        cloning: imitates a demonstration, where the settings ask for it and the subclass makes it.
        updates: how often it has learned; the version of its weights.
        step: the agent steps of the experience that it was given last.
    """

    def __init__(
        self,
        *,
        settings: TrainerSettings,
        policy: Policy,
        optimizer: Optimizer,
        reward_signals: Sequence[RewardSignal],
        stats: StatsReporter,
        rng: np.random.Generator,
        device: torch.device,
    ) -> None:
        self.settings, self.behavior_name = settings, policy.behavior_name
        self.policy, self.optimizer, self.reward_signals = policy, optimizer, reward_signals
        self.stats, self.rng, self.device = stats, rng, device
        self.signal_returns = SignalReturns([signal.name for signal in reward_signals], stats)
        self.reads, self.ignores_ends = all_read(reward_signals), ignoring_ends(reward_signals)
        self.signals_that_learn = [signal for signal in reward_signals if signal.learns]
        self.updates = self.step = 0
        self.running_returns: RunningReturns | None = None
        self.return_normalizer: nn.Module | None = None
        self.cloning: BehavioralCloning | None = None

    def follow_returns(self, gammas: np.ndarray) -> None:
        """Make what follows discounted sums of rewards, where the settings say `normalize_rewards: running`.

        Args:
            gammas: [signals], the discount factors where `normalize_rewards_gamma` is null.
        """
        if hyperparameter(self.settings, "normalize_rewards") is RewardNormalization.RUNNING:
            self.running_returns = RunningReturns(self.normalizing_gammas(gammas))
            self.return_normalizer = self.running_returns.statistics.to(self.device)

    def normalizing_gammas(self, gammas: np.ndarray) -> np.ndarray:
        """Return the discount factors [signals] of the sums by which rewards are normalized."""
        common = hyperparameter(self.settings, "normalize_rewards_gamma")
        return gammas if common is None else np.full_like(gammas, common)

    @property
    def most_reward(self) -> float:
        """The bound of normalized rewards, before they are multiplied by the strength of their signal."""
        return float(hyperparameter(self.settings, "normalize_rewards_clip"))

    @cached_property
    def strengths(self) -> np.ndarray:
        """The absolute value of each reward signal's strength, [signals] float32."""
        return np.array([abs(signal.strength) for signal in self.reward_signals], np.float32)

    @property
    def strengths_or_1(self) -> np.ndarray:
        """The strengths [signals] with 1 in place of 0, by which rewards can be divided."""
        return np.where(self.strengths == 0.0, np.float32(1.0), self.strengths)

    def make_cloning(self) -> None:
        """Make what imitates a demonstration, where the settings ask for it."""
        if self.settings.behavioral_cloning is not None:
            # Random numbers of its own, because it may run beside acting.
            own = self.rng.spawn(1)[0]
            self.cloning = BehavioralCloning(self.policy, self.optimizer, self.settings, own)

    def begin_training(self, folder: Path) -> None:
        """Read what is needed to learn, so that what is wrong with it is said before training starts.

        Args:
            folder: to which relative paths of the settings belong.

        Raises:
            DemonstrationError: a demonstration cannot be read, or is of another behavior.
        """
        if self.cloning is not None:
            self.cloning.load(folder)
        for signal in self.reward_signals:
            signal.begin_training(self.policy, folder)

    def ready(self, store: ExperienceStore, step: int) -> bool:  # noqa: ARG002
        """Return whether there is enough experience to learn from.

        Args:
            store: the rows.
            step: the agent steps so far.
        """
        return False

    def update(self, store: ExperienceStore, step: int) -> Reported:  # noqa: ARG002
        """Learn from experience, which stays as it is, and return the reported scalars.

        The list is empty where an update only begins, and goes on beside the environments' steps.

        Args:
            store: the rows.
            step: the agent steps so far.
        """
        return []

    def finish_update(self) -> Reported:
        """Finish an update that goes on beside the environments' steps, and return as `update` does."""
        return []

    def await_update(self) -> None:
        """Wait for an update that goes on beside the environments' steps; what it reports comes with the next one."""

    def weights(self) -> Weights:
        """Return what the acting half is to decide by."""
        return Weights(self.updates, self.policy)

    def tensor(self, array: np.ndarray) -> Tensor:
        """Return the array on the device; on the CPU the same memory."""
        return to_device(array, self.device)

    def modules(self) -> dict[str, nn.Module]:
        """Return all modules that a checkpoint holds beside the policy's, by name."""
        modules = {f"optimizer.{name}": module for name, module in self.optimizer.modules().items()}
        for signal in self.reward_signals:
            modules |= {f"{signal.name}.{name}": module for name, module in signal.modules().items()}
        if self.return_normalizer is None:
            return modules
        # The two kinds of statistics are of other sums, so that a resume must not take one for the other.
        name = "return_normalizer" if self.running_returns is None else "running_returns"
        return {**modules, name: self.return_normalizer}

    def state_dict(self) -> dict[str, Any]:
        """Return all state that a resume needs beyond modules."""
        cloning = {} if self.cloning is None else {"cloning": self.cloning.state_dict()}
        following = {} if self.running_returns is None else {"running_returns": self.running_returns.state_dict()}
        return {
            **cloning,
            **following,
            "updates": self.updates,
            "signals": {s.name: check_state(s, s.state_dict()) for s in self.reward_signals},
            "signal_returns": self.signal_returns.state_dict(),
            "optimizer": check_state(self.optimizer, self.optimizer.state_dict()),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.updates = whole(state["updates"], "updates")
        for signal in self.reward_signals:
            signal.load_state_dict(state["signals"][signal.name])
        self.signal_returns.load_state_dict(state["signal_returns"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.running_returns is not None and "running_returns" in state:  # Else all episodes' sums begin with 0.
            self.running_returns.load_state_dict(state["running_returns"])
        if self.cloning is not None and "cloning" in state:  # Else the run begins to imitate now.
            self.cloning.load_state_dict(state["cloning"])
