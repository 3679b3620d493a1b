"""Behavioral cloning: teaching a policy to do what an expert did, beside what it learns from rewards."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from mlhooks.errors import PluginError
from mlhooks.nn.schedules import Schedule
from mlhooks.settings import ScheduleType, TrainerSettings
from mlhooks.training.descent import Descent, Losses
from mlhooks.training.optimizer import Optimizer, TorchOptimizer
from mlhooks.training.policy import ActorPolicy, Policy
from mlhooks.training.units import sequences

if TYPE_CHECKING:
    from mlhooks.demos.demonstration import Demonstration

KEY = "Losses/Pretraining Loss"
"""The statistics key of the loss, as ML-Agents calls it."""
NOTHING = 1e-10
"""The learning rate at which a linear schedule ends; nothing is imitated at that rate or below."""
EPOCHS = 3
"""Passes over the demonstration where the section does not say how many; the trainer's own `num_epoch` is not read."""


class BehavioralCloning:
    """Imitates a demonstration by an Adam of its own on the policy's actor.

    Args:
        policy: the policy to teach.
        optimizer: the optimizer of the policy, whose parameters it shares.
        settings: the behavior's settings, with a section `behavioral_cloning`.
        rng: the source of all randomness; nobody else may use it, because an update may run in another thread.

    Attributes:
        learning_rate: the schedule of its learning rate, which begins at that of the trainer times `strength`, and
            falls to nothing over `steps`, or stays as it is where `steps` is 0.

    Raises:
        PluginError: a plugin's policy has no actor to be taught.
    """

    def __init__(
        self, policy: Policy, optimizer: Optimizer, settings: TrainerSettings, rng: np.random.Generator
    ) -> None:
        if not isinstance(policy, ActorPolicy):
            raise PluginError(
                f"Behavior {policy.behavior_name!r} has a policy of type {type(policy).__name__} from a plugin, and "
                "behavioral_cloning teaches an ActorPolicy. Let create_policy return one, or set behavioral_cloning to "
                "null."
            )
        section, h, memory = settings.behavioral_cloning, settings.hyperparameters, settings.network_settings.memory
        assert section is not None
        self.policy, self.optimizer, self.rng = policy, optimizer, rng
        self.path, self.samples = section.demo_path, section.samples_per_update
        self.epochs = section.num_epoch or EPOCHS
        self.batch_size = section.batch_size or h.batch_size
        self.width = memory.sequence_length if memory is not None and policy.memory_size else 1
        kind = ScheduleType.LINEAR if section.steps else ScheduleType.CONSTANT
        self.learning_rate = Schedule(kind, h.learning_rate * section.strength, NOTHING, section.steps)
        self._demonstration: Demonstration | None = None

    @cached_property
    def descent(self) -> Descent:
        """The descent on the actor's part of the optimizer's parameters; made when all networks exist."""
        actor = self.policy.actor
        flat = self.optimizer.flat.part([actor]) if isinstance(self.optimizer, TorchOptimizer) else None
        return Descent({"actor": actor}, self.learning_rate(0), flat=flat)

    def load(self, folder: Path | None = None) -> Demonstration:
        """Read the demonstration, and return it.

        Args:
            folder: to which a relative path belongs; the working directory without it.

        Raises:
            DemonstrationError: it cannot be read, or is of another behavior.
        """
        from mlhooks.demos.demonstration import load_demonstration  # Few runs need it; protobuf is slow to import.

        policy = self.policy
        self._demonstration = load_demonstration(self.path, policy.behavior_name, policy.behavior_spec, folder)
        return self._demonstration

    def update(self, step: int) -> Losses:
        """Take steps towards the expert's actions, and return the mean loss.

        Args:
            step: the agent steps so far, at which the schedule is read.

        Raises:
            NonFiniteError: the loss or a gradient is NaN or infinite.
        """
        rate = self.learning_rate(step)
        if rate <= NOTHING:
            return {KEY: torch.zeros((), device=self.policy.device)}
        self.descent.set_learning_rate(rate)
        self.descent.at_step = step
        demonstration = self._demonstration or self.load()
        losses = [self._step(demonstration, units) for units in self._minibatches(demonstration)]
        return {KEY: torch.stack(losses).mean()} if losses else {}

    def _minibatches(self, demonstration: Demonstration) -> Iterator[np.ndarray]:
        """Yield the transitions of each minibatch, [units, width], -1 behind the last one of a shorter unit.

        As in ML-Agents, units that are too few for another minibatch are left out, and a `samples_per_update` that is
        smaller than a minibatch limits nothing.
        """
        rows, width = len(demonstration), self.width
        units = np.arange(rows)[:, None]
        if width > 1:
            units = sequences(np.zeros(rows, np.int64), demonstration.trajectory, width)
        size = max(1, min(self.batch_size, units.size) // width)
        batches, most = len(units) // size, self.samples // (size * width)
        for _ in range(self.epochs):
            order = self.rng.permutation(len(units))
            for index in range(min(batches, most) if most else batches):
                yield units[order[index * size : (index + 1) * size]]

    def _step(self, demonstration: Demonstration, units: np.ndarray) -> Tensor:
        rows, present = np.where(units < 0, units[:, :1], units).ravel(), units.ravel() >= 0
        features = self.policy.features(demonstration.obs(rows))
        continuous = self.policy.from_environment(demonstration.continuous[rows])
        noise = self.rng.standard_normal(continuous.shape, np.float32)
        given = [torch.from_numpy(array).to(features.device) for array in (continuous, demonstration.discrete[rows])]
        drawn = torch.from_numpy(noise).to(features.device)
        counts = None if present.all() else torch.from_numpy(present).to(features.device)

        def losses() -> Losses:
            loss = self.loss(features, given[0], given[1], drawn, counts)
            return {"loss": loss, KEY: loss}

        return self.descent.step(losses)[KEY]

    def loss(
        self, features: Tensor, continuous: Tensor, discrete: Tensor, noise: Tensor, counts: Tensor | None = None
    ) -> Tensor:
        """Return how far the policy is from the expert's actions: the squared error, plus the cross-entropy.

        As in ML-Agents, the squared error is that of a sample with its noise, not of the mean, so that the policy's
        deviation falls, too; and masks are not heeded.

        Args:
            features: [rows, size].
            continuous: [rows, size], the expert's actions at the level of the policy's samples.
            discrete: [rows, branches].
            noise: [rows, size], drawn from a standard normal distribution.
            counts: [rows], False where a row is padding; None where none is.
        """
        arguments: tuple[Any, ...] = ()
        if self.policy.memory_size:  # Each sequence begins with a memory of zeros.
            arguments = features.new_zeros(len(features), self.policy.memory_size), self.width
        parameters = self.policy.actor(features, *arguments)
        parts: list[Tensor] = []
        if parameters.mean is not None:
            sampled = self.policy.drawn(parameters.mean, parameters.log_std, noise)
            parts.append((sampled - continuous).square().mean(1))
        if parameters.logits is not None:
            branches = [
                functional.cross_entropy(parameters.logits[:, columns], discrete[:, index], reduction="none")
                for index, columns in enumerate(self.policy.branches)
            ]
            parts.append(torch.stack(branches, 1).mean(1))
        errors = sum(parts[1:], parts[0])
        return errors.mean() if counts is None else errors[counts].mean()

    def state_dict(self) -> dict[str, Any]:
        """Return all state that a resume needs."""
        return {"descent": self.descent.state_dict(), "rng": self.rng.bit_generator.state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            CheckpointError: the state is of another actor, or not finite.
        """
        self.descent.load_state_dict(state["descent"])
        self.rng.bit_generator.state = state["rng"]
