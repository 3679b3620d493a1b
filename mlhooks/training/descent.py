"""Gradient descent on a loss: what optimizers, reward signals that learn, and cloning have in common."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from mlhooks.errors import CheckpointError, MlhooksError, NonFiniteError
from mlhooks.fast.adam import Adam, FlatParameters
from mlhooks.fast.networks import LossScope

NAMED = 3
"""The number of parameters that an error names."""
Losses = dict[str, Tensor]
"""Scalars by name, of which `"loss"` is minimized and the others are reported."""


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


class Descent:
    """Takes steps of gradient descent on the parameters of some modules.

    Args:
        modules: the modules by name, whose trainable parameters are brought into one piece.
        learning_rate: the first learning rate.
        max_grad_norm: the norm to which gradients are clipped; None leaves them alone.
        flat: the parameters, where they are in one piece already, as a part of an optimizer's.
        create: makes the torch optimizer of the parameters; by default it is Adam with torch's own options.
        scope: the context in which losses are computed; by default one for losses on tensors.

    Attributes:
        flat: the parameters in one piece; torch_optimizer: what steps by their gradients.
        at_step: the agent steps so far, of which errors tell.
    """

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        learning_rate: float,
        *,
        max_grad_norm: float | None = None,
        flat: FlatParameters | None = None,
        create: Callable[[FlatParameters], GradientStepper] | None = None,
        scope: LossScope | None = None,
    ) -> None:
        self.modules, self.max_grad_norm, self.at_step = modules, max_grad_norm, 0
        self.flat = flat or FlatParameters(p for module in modules.values() for p in module.parameters())
        self.scope = scope or LossScope()
        self.torch_optimizer = create(self.flat) if create else Adam(self.flat, lr=learning_rate)

    def set_learning_rate(self, learning_rate: float) -> None:
        """Let the next steps have this learning rate."""
        for group in self.torch_optimizer.param_groups:
            group["lr"] = learning_rate

    def step(
        self,
        loss: Callable[[], Losses],
        *,
        gradients_ready: Callable[[Losses], None] | None = None,
        check: Callable[[object], None] | None = None,
    ) -> Losses:
        """Take one step of gradient descent, and return what is to be reported, without its graph.

        Args:
            loss: computes the losses, in the scope.
            gradients_ready: called right before the step in place of `check_and_clip`; it may change gradients.
            check: raises an error that says what is wrong with losses, where a step on them failed.

        Raises:
            NonFiniteError: as `check_and_clip`.
        """
        self.flat.zero()
        with self.scope:
            losses = loss()
        try:
            self.scope.backward(losses["loss"])
            self.flat.collect()
            found = {name: value.detach() for name, value in losses.items()}
            if gradients_ready is None:
                self.check_and_clip(found)
            else:
                gradients_ready(found)
                self.flat.collect()
            self.torch_optimizer.step()
            return {name: value for name, value in found.items() if name != "loss"}
        except MlhooksError:
            raise
        except Exception:
            if check is not None:
                check(losses)
            raise

    def check_and_clip(self, losses: Losses) -> None:
        """Check that the loss and its gradients are finite, and clip the gradients.

        Raises:
            NonFiniteError: the loss or a gradient is NaN or infinite; nothing was changed.
        """
        norm = self.flat.norm()
        if not math.isfinite(norm) or not math.isfinite(losses["loss"].item()):
            raise NonFiniteError(self._name_non_finite(losses, norm))
        if self.max_grad_norm is not None and norm > self.max_grad_norm:
            self.flat.scale(self.max_grad_norm / (norm + 1e-6))

    def _name_non_finite(self, losses: Losses, norm: float) -> str:
        if spoiled := not_finite(self.modules):
            return (
                f"{_first(spoiled)} had values that are NaN or infinite before this update, at step {self.at_step:,}. "
                "A step of the optimizer wrote them, as with a learning rate that is NaN, or code of a plugin did."
            )
        values = {name: float(value) for name, value in losses.items()}
        bad = [f"{name} = {value}" for name, value in values.items() if not math.isfinite(value)]
        if bad:
            source = "the loss became NaN or infinite: " + ", ".join(bad)
        else:
            named = ((f"{m}.{n}", p) for m, module in self.modules.items() for n, p in module.named_parameters())
            source = _worst_gradients({name: p.grad for name, p in named if p.grad is not None}, norm)
        return (
            f"{source}, at step {self.at_step:,}. No parameter was changed by it. Try a lower learning_rate, set "
            "hyperparameters.max_grad_norm, or normalize: true."
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the torch optimizer's state."""
        return self.torch_optimizer.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            CheckpointError: it is not of such a torch optimizer, or not finite.
        """
        if not _all_finite(state):
            raise CheckpointError("the torch optimizer's state has values that are NaN or infinite.")
        try:
            self.torch_optimizer.load_state_dict(state)
        except (ValueError, KeyError) as error:
            reason = f"it has no {error}" if isinstance(error, KeyError) else error
            title = getattr(self.torch_optimizer, "title", type(self.torch_optimizer).__name__)
            raise CheckpointError(f"the torch optimizer's state does not fit {title}: {reason}.") from error


def not_finite(modules: Mapping[str, nn.Module]) -> list[str]:
    """Return the names of trainable parameters that have values which are NaN or infinite."""
    named = ((f"{m}.{n}", p) for m, module in modules.items() for n, p in module.named_parameters())
    return [name for name, p in named if p.requires_grad and not torch.isfinite(p).all()]


def check_finite(modules: Mapping[str, nn.Module], behavior: str, step: int) -> None:
    """Refuse to save weights that could never be loaded.

    Raises:
        NonFiniteError: names the parameters.
    """
    if spoiled := not_finite(modules):
        raise NonFiniteError(
            f"Behavior {behavior!r}: {_first(spoiled)} became NaN or infinite by step {step:,}, so that no checkpoint "
            "was written: the one before, if there is one, is still the newest. A step of an optimizer wrote them, as "
            "with a learning rate that is NaN, or code of a plugin did."
        )


def _first(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{', '.join(names[:NAMED])}{more}"


def _all_finite(state: Any) -> bool:
    if isinstance(state, torch.Tensor):
        return bool(torch.isfinite(state).all())
    values = state.values() if isinstance(state, dict) else state if isinstance(state, list) else ()
    return all(map(_all_finite, values))


def _worst_gradients(gradients: Mapping[str, Tensor], norm: float) -> str:
    """Name the gradients that are not finite, or the largest ones where only their norm is not finite."""
    bad = [name for name, gradient in gradients.items() if not torch.isfinite(gradient).all()]
    if bad:
        return f"gradients became NaN or infinite in {_first(bad)}"
    largest = {name: float(gradient.abs().max()) for name, gradient in gradients.items() if gradient.numel()}
    names = sorted(largest, key=lambda name: -largest[name])[:NAMED]
    sizes = ", ".join(f"{largest[name]:.1e} in {name}" for name in names)
    return f"the norm of the gradients is {norm}, because they are too large to be squared: up to {sizes}"
