"""Optimizers: they improve a policy from batches, and own losses, critics and the torch optimizer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mlhooks.errors import PluginError, UnsupportedError
from mlhooks.fast.adam import Adam, FlatParameters
from mlhooks.fast.networks import LossScope
from mlhooks.fast.opting_in import ArrayArithmetic, opted_in, replaces_methods
from mlhooks.fast.structure import may_do_more
from mlhooks.nn.networks import Actor, Critic
from mlhooks.nn.schedules import Schedule
from mlhooks.settings import TrainerSettings
from mlhooks.training.batch import Batch
from mlhooks.training.descent import Descent, GradientStepper
from mlhooks.training.hyperparameters import hyperparameter
from mlhooks.training.optimizer_checks import check_kinds, check_losses, check_torch_optimizer, checked_update
from mlhooks.training.policy import ActorPolicy, Policy
from mlhooks.training.torch_optimizers import NamedOptimizer, make_torch_optimizer

CHUNK_ROWS, CHUNK_FEATURES = 2**14, 2**22
"""The most rows, and numbers in their features, whose values are estimated at once."""


def rows_at_once(features: Tensor) -> int:
    """Return how many of the rows of features [rows, size] are estimated at once, at least one."""
    return max(1, min(CHUNK_ROWS, CHUNK_FEATURES // features.shape[1]))


class Optimizer(ABC):
    """The base of all optimizers: what `create_optimizer` returns, and what improves a policy from batches.

    Args:
        policy: the policy to improve.
        settings: the behavior's settings.

    Attributes:
        reads_bytes: whether its networks take images as bytes, as `ImageEncoder` does; else features are floats.
        ends_epochs: whether the last `update` left its step out, and with it all that are left of this rollout.
        network_keys: the keys of `network_settings` that it reads and not every network does, such as
            `critic_hidden_layers`. A run whose policy and optimizer both lack one is refused.
    """

    reads_bytes: ClassVar[bool] = False
    network_keys: ClassVar[frozenset[str]] = frozenset()
    ends_epochs: bool = False

    def __init__(self, policy: Policy, settings: TrainerSettings) -> None:
        self.policy = policy
        self.settings = settings

    @abstractmethod
    def update(self, batch: Batch) -> dict[str, Tensor]:
        """Take one gradient step on a minibatch, and return scalars to report by statistics key."""

    @abstractmethod
    def modules(self) -> dict[str, nn.Module]:
        """Return the modules that a checkpoint holds beside the policy's, by name, such as critics."""
        return {}

    def set_step(self, step: int) -> None:
        """Take note of the agent steps so far; a trainer calls this before each round of updates, for schedules."""

    def state_dict(self) -> dict[str, Any]:
        """Return all state that a resume needs beyond `modules()`."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""


class TorchOptimizer(ArrayArithmetic, Optimizer):
    """The base of optimizers whose algorithm is a loss: write `loss`, and `modules` where there are more networks.

    Args:
        policy: the policy to improve.
        settings: the behavior's settings.

    Attributes:
        learning_rate: schedule of the learning rate.
        step: agent steps at the last `set_step`; schedules are read at it.
    """

    OUTSIDE_LOSSES = frozenset(
        {
            "create_torch_optimizer",
            "gradients_ready",
            "load_state_dict",
            "modules",
            "set_step",
            "state_dict",
            "update",
        }
    )

    def __init__(self, policy: Policy, settings: TrainerSettings) -> None:
        super().__init__(policy, settings)
        self.step = 0
        h = settings.hyperparameters
        self.max_grad_norm: float | None = hyperparameter(settings, "max_grad_norm")
        final = hyperparameter(settings, "learning_rate_final")
        self.learning_rate = Schedule(h.learning_rate_schedule, h.learning_rate, final, settings.max_steps)
        self._flat: FlatParameters | None = None
        self._descent: Descent | None = None
        self._scope = LossScope(
            arrays=type(self).array_arithmetic and type(policy).array_arithmetic,
            name=f"The loss of behavior {policy.behavior_name!r}",
        )
        self._checked = False  # It becomes true once the result of the first call of `loss` has been checked.

    @abstractmethod
    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return scalars by name, of which `"loss"` is minimized and the others are reported: this is the algorithm.

        Names are statistics keys, such as `Losses/Policy Loss`.
        """

    def modules(self) -> dict[str, nn.Module]:
        """Return no modules besides the policy's."""
        return {}

    def create_torch_optimizer(self, parameters: FlatParameters) -> GradientStepper:
        """Make the torch optimizer that the hyperparameters name, by default Adam.

        Override this to return any `torch.optim.Optimizer` over `parameters.parameters`. Its learning rate follows the
        schedule.

        Raises:
            UnsupportedError: torch has no such optimizer, or it refuses the arguments.
        """
        return make_torch_optimizer(parameters, self.settings.hyperparameters, self.learning_rate(0))

    def parts(self) -> dict[str, nn.Module]:
        """Return the modules of policy and optimizer, by name."""
        parts = self.policy.modules()
        return parts | {f"optimizer.{name}" if name in parts else name: part for name, part in self.modules().items()}

    @property
    def flat(self) -> FlatParameters:
        """All trainable parameters of policy and optimizer, in one piece."""
        if self._flat is None:
            check_kinds(self.policy.behavior_name, self.parts())
            parts, scope = self.parts().values(), self._scope
            self._flat = FlatParameters(p for part in parts for p in part.parameters())
            self.policy.weights_changed()
            scope.opted_in = opted_in(parts)
            scope.arrays = scope.arrays and not (replaces_methods(self) or replaces_methods(self.policy))
            scope.invalidate()
        return self._flat

    @property
    def descent(self) -> Descent:
        """The descent that takes the steps; it is made when it is first needed, after all networks exist."""
        if self._descent is None:
            self._descent = Descent(
                self.parts(),
                self.learning_rate(0),
                max_grad_norm=self.max_grad_norm,
                flat=self.flat,
                create=self._create,
                scope=self._scope,
            )
        return self._descent

    def _create(self, parameters: FlatParameters) -> GradientStepper:
        made = self.create_torch_optimizer(parameters)
        if not isinstance(made, Adam | NamedOptimizer):
            check_torch_optimizer(self, made, parameters)
        return made

    @property
    def torch_optimizer(self) -> GradientStepper:
        """The torch optimizer."""
        return self.descent.torch_optimizer

    def set_step(self, step: int) -> None:
        """Advance the schedules, and look at the networks again."""
        self.step = step
        self._scope.invalidate()
        self.descent.set_learning_rate(self.learning_rate(step))
        self.descent.at_step = step

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """Take one step of gradient descent on `loss`.

        Raises:
            PluginError: `loss` returned something else than it must, or fails or has another gradient on arrays.
            NonFiniteError: as `gradients_ready`.
        """
        if not self._checked:
            losses = checked_update(self, batch)
            self._checked = True
            return losses
        return self.descent.step(
            lambda: self.loss(batch), gradients_ready=self._gradients_ready, check=partial(check_losses, self)
        )

    @property
    def _gradients_ready(self) -> Callable[[dict[str, Tensor]], None] | None:
        """The method `gradients_ready` where it does more than the base's."""
        method = self.gradients_ready
        return None if getattr(method, "__func__", None) is TorchOptimizer.gradients_ready else method

    def gradients_ready(self, losses: dict[str, Tensor]) -> None:
        """Check and clip the gradients, right before the step.

        Args:
            losses: what `loss` returned, without its graph.

        Raises:
            NonFiniteError: the loss or a gradient is NaN or infinite; nothing was changed.
        """
        self.descent.check_and_clip(losses)

    def state_dict(self) -> dict[str, Any]:
        """Return the torch optimizer's state."""
        return {"torch_optimizer": self.descent.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the torch optimizer's state.

        Raises:
            CheckpointError: it is not of this torch optimizer, or not finite.
        """
        self.descent.load_state_dict(state["torch_optimizer"])


class ActorCriticOptimizer(TorchOptimizer):
    """The base of optimizers with a value network: one head per reward signal, on its own or the actor's encoder.

    Args:
        policy: the policy to improve.
        settings: the behavior's settings; `shared_critic` puts the value heads on the actor's encoder.

    Attributes:
        critic: the value network. A subclass that puts another one in its place, with outputs of another shape,
            overrides `values` and `estimate`.
    """

    policy: ActorPolicy
    network_keys = frozenset({"critic_hidden_layers"})

    def __init__(self, policy: ActorPolicy, settings: TrainerSettings) -> None:
        super().__init__(policy, settings)
        if settings.network_settings.memory is not None and not policy.memory_size:
            raise UnsupportedError(
                f"Behavior {policy.behavior_name!r}: network_settings.memory asks for a memory, and "
                f"{type(policy.actor).__name__} has none: remove the setting, or give that network a memory_size."
            )
        own, base = type(self), ActorCriticOptimizer
        if policy.memory_size and own.estimate is not base.estimate and own.estimate_units is base.estimate_units:
            raise PluginError(
                f"{own.__name__} overrides `estimate`, and the values of a critic with a memory, for which "
                "network_settings.memory asks, come from `estimate_units`: it must be overridden, too."
            )
        actor, shared = policy.actor, hyperparameter(settings, "shared_critic")
        encoder, memory = (actor.encoder, actor.memory) if shared and isinstance(actor, Actor) else (None, None)
        signals = len(settings.reward_signals)
        network = settings.network_settings.of_critic
        self.critic = Critic(policy.layout, network, signals, encoder, memory).to(policy.device)
        # A normalizer changes features between acting and learning, so that an encoding of them would be stale.
        policy.keeps_encodings = encoder is not None and policy.inputs.normalizer is None

    def modules(self) -> dict[str, nn.Module]:
        """Return the critic."""
        return {"critic": self.critic}

    def values(self, batch: Batch) -> Tensor:
        """Return values [rows, signals] of a batch's rows, with gradients, for losses."""
        remembered: Any = ()
        if getattr(self.critic, "memory_size", 0):
            remembered = batch.memory if self.shares_memory else batch.critic_memory, batch.width, batch.lengths
        values: Tensor = self.critic(batch.features, *remembered)
        return values

    @torch.no_grad()
    def estimate(self, features: Tensor) -> Tensor:
        """Return values [rows, signals] of features [rows, size], without gradients, for advantages and returns.

        Features may be of rows that no batch has, such as final observations. A subclass that computes values otherwise
        overrides both `values` and `estimate`: for equal features they must agree.
        """
        rows = rows_at_once(features)
        with self._scope:
            if len(features) <= rows:
                values: Tensor = self.critic(features)
                return values
            return torch.cat([self.critic(part) for part in features.split(rows)])

    @torch.no_grad()
    def estimate_units(
        self, features: Tensor, memory: Tensor, width: int = 1, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return values [rows, signals] by a critic with a memory, and the memories [units, size] after each unit.

        Args:
            features: [units * width, size], as `Network.unroll` takes them with all that follows.
            memory: [units, size], the critic's before each unit, or the actor's where it has that.
            width: rows of a unit.
            lengths: [units] int64 on the CPU, how many rows of each unit are no padding; by default all.
        """
        with self._scope:
            (values,), after = self.critic.unroll(features, memory, width, lengths)
            return values, after

    @property
    def shares_memory(self) -> bool:
        """Whether the critic reads the actor's memory, so that it needs none of its own."""
        memory = getattr(self.critic, "memory", None)
        return memory is not None and memory is getattr(self.policy.actor, "memory", None)

    @property
    def reads_encodings(self) -> bool:
        """Whether `estimate` computes nothing but the critic's heads on the output of the actor's encoder."""
        actor, critic = self.policy.actor, self.critic
        is_plain = (
            type(critic) is Critic and not may_do_more(critic) and type(self).estimate is ActorCriticOptimizer.estimate
        )
        return is_plain and critic.memory is None and isinstance(actor, Actor) and critic.encoder is actor.encoder

    @torch.no_grad()
    def estimate_from_encodings(self, encodings: Tensor) -> Tensor:
        """Return values [rows, signals] of encodings [rows, hidden_units], without gradients.

        Only an optimizer that `reads_encodings` has them.
        """
        values: Tensor = self.critic.heads(encodings)
        return values
