"""RMSprop as TensorFlow 1 computes it, of which Stable-Baselines3 has a copy for settings that were tuned with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer


class RMSpropTF(Optimizer):
    """RMSprop (Tieleman and Hinton 2012) whose mean squares begin at 1, and whose epsilon is under the square root.

    It takes what `torch.optim.RMSprop` does, and the learning rate is part of what momentum sums up, as in
    Stable-Baselines3's `RMSpropTFLike`.

    Args:
        params: the parameters.
        lr: learning rate; alpha: weight of the past in means; eps: added to mean squares.
        weight_decay: factor on parameters that are added to their gradients.
        momentum: weight of earlier steps; centered: whether the variance takes the place of the mean square.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
    ) -> None:
        for name, value in {"alpha": alpha, "eps": eps, "weight_decay": weight_decay, "momentum": momentum}.items():
            if not value >= 0.0:
                raise ValueError(f"Invalid {name}: {value}")
        defaults = {"lr": lr, "alpha": alpha, "eps": eps, "weight_decay": weight_decay, "momentum": momentum}
        super().__init__(params, {**defaults, "centered": centered})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Apply the gradients; a closure, where one is given, computes the loss again first."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._step(parameter, group)
        return loss

    def _step(self, parameter: Tensor, group: dict[str, Any]) -> None:
        assert parameter.grad is not None
        state, alpha, grad = self.state[parameter], group["alpha"], parameter.grad
        if not state:
            state["square_avg"] = torch.ones_like(parameter)
            if group["momentum"]:
                state["momentum_buffer"] = torch.zeros_like(parameter)
            if group["centered"]:
                state["grad_avg"] = torch.zeros_like(parameter)
        if group["weight_decay"]:
            grad = grad.add(parameter, alpha=group["weight_decay"])
        square = state["square_avg"].mul_(alpha).addcmul_(grad, grad, value=1.0 - alpha)
        if group["centered"]:
            mean = state["grad_avg"].mul_(alpha).add_(grad, alpha=1.0 - alpha)
            square = square.addcmul(mean, mean, value=-1.0)
        deviation = square.add(group["eps"]).sqrt_()
        if group["momentum"]:
            moved = state["momentum_buffer"].mul_(group["momentum"]).addcdiv_(grad, deviation, value=group["lr"])
            parameter.sub_(moved)
        else:
            parameter.addcdiv_(grad, deviation, value=-group["lr"])
