"""Optimizers: the learning half of a trainer, which owns losses, critics and the torch optimizer."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from mlhooks.errors import CheckpointError, MlhooksError, NonFiniteError
from mlhooks.fast.adam import Adam, FlatParameters
from mlhooks.fast.mlp import may_do_more
from mlhooks.fast.networks import ArrayArithmetic, LossScope, opted_in, replaces_methods
from mlhooks.nn.networks import Actor, Critic
from mlhooks.nn.schedules import Schedule
from mlhooks.settings import TrainerSettings
from mlhooks.training.batch import Batch
from mlhooks.training.optimizer_checks import (
    NAMED,
    check_gradient,
    check_losses,
    check_torch_optimizer,
    gradient_of_tensors,
    loss_on_arrays,
)
from mlhooks.training.policy import ActorPolicy, Policy

CHUNK_ROWS, CHUNK_FEATURES = 2**14, 2**22
"""The most rows, and numbers in their features, whose values are estimated at once."""


class GradientStepper(Protocol):
    """The interface that a torch optimizer must have, as every `torch.optim.Optimizer` does."""

    param_groups: list[dict[str, Any]]

    def step(self) -> Any:
        """Apply the gradients."""

    def state_dict(self) -> dict[str, Any]:
        """Return all that `load_state_dict` needs."""
        ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state."""


class Optimizer(ABC):
    """The base of all optimizers: what `create_optimizer` returns, and what improves a policy from batches.

    Args:
        policy: the policy to improve.
        settings: the behavior's settings.

    Attributes:
        reads_bytes: whether its networks take images as bytes, as `ImageEncoder` does; else features are floats.
    """

    reads_bytes: ClassVar[bool] = False

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
        parameters = settings.hyperparameters
        self.max_grad_norm: float | None = getattr(parameters, "max_grad_norm", None)
        self.learning_rate = Schedule(
            parameters.learning_rate_schedule, parameters.learning_rate, 1e-10, settings.max_steps
        )
        self._torch_optimizer: GradientStepper | None = None
        self._flat: FlatParameters | None = None
        arrays = type(self).array_arithmetic and type(policy).array_arithmetic
        self._scope = LossScope(arrays=arrays)
        self._checked = False  # whether the result of the first call of `loss` was checked

    @abstractmethod
    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return scalars by name, of which `"loss"` is minimized and the others are reported: this is the algorithm.

        Names are statistics keys, such as `Losses/Policy Loss`.
        """

    def modules(self) -> dict[str, nn.Module]:
        """Return no modules besides the policy's."""
        return {}

    def create_torch_optimizer(self, parameters: FlatParameters) -> GradientStepper:
        """Make the torch optimizer, by default Adam.

        Override this to return any `torch.optim.Optimizer` over `parameters.parameters`. Its learning rate follows the
        schedule.
        """
        return Adam(parameters, lr=self.learning_rate(0))

    @property
    def flat(self) -> FlatParameters:
        """All trainable parameters of policy and learner, in one piece."""
        if self._flat is None:
            modules = [*self.policy.modules().values(), *self.modules().values()]
            self._flat = FlatParameters(p for module in modules for p in module.parameters())
            self.policy.weights_changed()
            self._scope.opted_in = opted_in(modules)
            self._scope.arrays = self._scope.arrays and not (replaces_methods(self) or replaces_methods(self.policy))
            self._scope.invalidate()
        return self._flat

    @property
    def torch_optimizer(self) -> GradientStepper:
        """The torch optimizer, made when it is first needed, after all networks exist."""
        if self._torch_optimizer is None:
            made = self.create_torch_optimizer(self.flat)
            check_torch_optimizer(self, made)
            self._torch_optimizer = made
        return self._torch_optimizer

    def set_step(self, step: int) -> None:
        """Advance the schedules, and look at the networks again."""
        self.step = step
        self._scope.invalidate()
        for group in self.torch_optimizer.param_groups:
            group["lr"] = self.learning_rate(step)

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """Take one step of gradient descent on `loss`.

        Raises:
            PluginError: `loss` returned something else than it must, or fails or has another gradient on arrays.
            NonFiniteError: as `gradients_ready`.
        """
        wanted = None if self._checked or not self._scope.arrays else gradient_of_tensors(self, batch)
        self.flat.zero()
        with self._scope:
            losses = self.loss(batch) if wanted is None else loss_on_arrays(self, batch)
        if not self._checked:
            check_losses(self, losses)
            self._checked = True
        try:
            self._scope.backward(losses["loss"])
            self.flat.collect()
            found = {name: value.detach() for name, value in losses.items()}
            if wanted is not None:
                check_gradient(self, wanted)
            self.gradients_ready(found)
            self.flat.collect()
            self.torch_optimizer.step()
            return {name: value for name, value in found.items() if name != "loss"}
        except MlhooksError:
            raise
        except Exception:
            check_losses(self, losses)
            raise

    def gradients_ready(self, losses: dict[str, Tensor]) -> None:
        """Check and clip the gradients, right before the step.

        Args:
            losses: what `loss` returned, without its graph.

        Raises:
            NonFiniteError: the loss or a gradient is NaN or infinite; nothing was changed.
        """
        norm = self.flat.norm()
        if not math.isfinite(norm) or not math.isfinite(losses["loss"].item()):
            raise NonFiniteError(self._name_non_finite(losses, norm))
        if self.max_grad_norm is not None and norm > self.max_grad_norm:
            self.flat.scale(self.max_grad_norm / (norm + 1e-6))

    def _name_non_finite(self, losses: dict[str, Tensor], norm: float) -> str:
        values = {name: float(value) for name, value in losses.items()}
        bad = [f"{name} = {value}" for name, value in values.items() if not math.isfinite(value)]
        if bad:
            source = "the loss became NaN or infinite: " + ", ".join(bad)
        else:
            modules = {**self.policy.modules(), **self.modules()}
            named = ((f"{m}.{n}", p) for m, module in modules.items() for n, p in module.named_parameters())
            source = _worst_gradients({name: p.grad for name, p in named if p.grad is not None}, norm)
        return (
            f"{source}, at step {self.step:,}. No parameter was changed by it. Try a lower learning_rate, set "
            "hyperparameters.max_grad_norm, or normalize: true."
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the torch optimizer's state."""
        return {"torch_optimizer": self.torch_optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the torch optimizer's state."""
        if not _all_finite(state["torch_optimizer"]):
            raise CheckpointError("the torch optimizer's state has values that are NaN or infinite.")
        try:
            self.torch_optimizer.load_state_dict(state["torch_optimizer"])
        except (ValueError, KeyError) as error:
            reason = f"it has no {error}" if isinstance(error, KeyError) else error
            raise CheckpointError(
                f"the torch optimizer's state does not fit {type(self.torch_optimizer).__name__}: {reason}."
            ) from error


def _all_finite(state: Any) -> bool:
    if isinstance(state, torch.Tensor):
        return bool(torch.isfinite(state).all())
    values = state.values() if isinstance(state, dict) else state if isinstance(state, list) else ()
    return all(map(_all_finite, values))


def _worst_gradients(gradients: Mapping[str, Tensor], norm: float) -> str:
    """Name the gradients that are not finite, or the largest ones where only their norm is not finite."""
    bad = [name for name, gradient in gradients.items() if not torch.isfinite(gradient).all()]
    if bad:
        more = f" and {len(bad) - NAMED} more" if len(bad) > NAMED else ""
        return f"gradients became NaN or infinite in {', '.join(bad[:NAMED])}{more}"
    largest = {name: float(gradient.abs().max()) for name, gradient in gradients.items() if gradient.numel()}
    names = sorted(largest, key=lambda name: -largest[name])[:NAMED]
    sizes = ", ".join(f"{largest[name]:.1e} in {name}" for name in names)
    return f"the norm of the gradients is {norm}, because they are too large to be squared: up to {sizes}"


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

    def __init__(self, policy: ActorPolicy, settings: TrainerSettings) -> None:
        super().__init__(policy, settings)
        actor, shared = policy.actor, getattr(settings.hyperparameters, "shared_critic", False)
        encoder = actor.encoder if shared and isinstance(actor, Actor) else None
        signals = len(settings.reward_signals)
        self.critic = Critic(policy.layout, settings.network_settings, signals, encoder).to(policy.device)
        # A normalizer changes features between acting and learning, so that an encoding of them would be stale.
        policy.keeps_encodings = encoder is not None and policy.inputs.normalizer is None

    def modules(self) -> dict[str, nn.Module]:
        """Return the critic."""
        return {"critic": self.critic}

    def values(self, batch: Batch) -> Tensor:
        """Return values [rows, signals] of a batch's rows, with gradients, for losses."""
        values: Tensor = self.critic(batch.features)
        return values

    @torch.no_grad()
    def estimate(self, features: Tensor) -> Tensor:
        """Return values [rows, signals] of features [rows, size], without gradients, for advantages and returns.

        Features may be of rows that no batch has, such as final observations. A subclass that computes values otherwise
        overrides both `values` and `estimate`: for equal features they must agree.
        """
        rows = max(1, min(CHUNK_ROWS, CHUNK_FEATURES // features.shape[1]))
        with self._scope:
            if len(features) <= rows:
                values: Tensor = self.critic(features)
                return values
            return torch.cat([self.critic(part) for part in features.split(rows)])

    @property
    def reads_encodings(self) -> bool:
        """Whether `estimate` computes nothing but the critic's heads on the output of the actor's encoder."""
        actor, critic = self.policy.actor, self.critic
        is_plain = (
            type(critic) is Critic and not may_do_more(critic) and type(self).estimate is ActorCriticOptimizer.estimate
        )
        return is_plain and isinstance(actor, Actor) and critic.encoder is actor.encoder

    @torch.no_grad()
    def estimate_from_encodings(self, encodings: Tensor) -> Tensor:
        """Return values [rows, signals] of encodings [rows, hidden_units], without gradients.

        Only an optimizer that `reads_encodings` has them.
        """
        values: Tensor = self.critic.heads(encodings)
        return values
