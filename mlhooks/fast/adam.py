"""Parameters in one piece, and Adam on them.

Small networks have many small parameters, and an optimizer that touches each pays dispatch for each. Here all
parameters of a learner, and all gradients, are views of two flat tensors: norm, clipping and step are a handful of
operations whatever the number of layers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, pairwise
from operator import attrgetter, is_
from typing import Any, ClassVar
from weakref import WeakValueDictionary

import numpy as np
import torch
from torch import Tensor, nn

from mlhooks.fast.switch import is_plain, kernel, native
from mlhooks.state_checks import number, whole

_GRAD = attrgetter("grad")


def in_one_piece(parameters: Sequence[nn.Parameter]) -> Tensor:
    """Move parameters into one flat tensor, and return it; they stay what they were, as views of it."""
    data = torch.cat([p.detach().reshape(-1) for p in parameters])
    for p, (start, stop) in zip(parameters, places(parameters), strict=True):
        p.data = data[start:stop].view_as(p)
    return data


def places(parameters: Iterable[nn.Parameter]) -> Iterator[tuple[int, int]]:
    """Yield where each parameter begins and ends in one piece."""
    return pairwise(accumulate((p.numel() for p in parameters), initial=0))


class FlatParameters:
    """Moves parameters into one flat tensor; they stay what they were, as views of it.

    Attributes:
        data, grad: [size] values and gradients of all parameters.
        parameters: the parameters, each once.

    Raises:
        ValueError: no parameter requires a gradient; or one is in the piece of another object already, which would lose
            it: use its `part`.
    """

    _by_memory: ClassVar[WeakValueDictionary[int, FlatParameters]] = WeakValueDictionary()

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self.parameters = list(dict.fromkeys(p for p in parameters if p.requires_grad))
        if not self.parameters:
            raise ValueError("there is nothing to learn: no parameter is there that requires a gradient")
        if any(self._holds(p) for p in self.parameters):
            raise ValueError("parameters are in one piece already: take a part of the FlatParameters that has them")
        data = in_one_piece(self.parameters)
        self._set(data, torch.zeros_like(data))
        for p, (start, stop) in zip(self.parameters, places(self.parameters), strict=True):
            p.grad = self.grad[start:stop].view_as(p)
            self._grads.append(p.grad)
        self._by_memory[data.untyped_storage().data_ptr()] = self

    def _set(self, data: Tensor, grad: Tensor) -> None:
        self.data, self.grad = data, grad
        self._grads: list[Tensor] = []  # These are each parameter's part of the gradient.
        self._taken_from: tuple[FlatParameters, int, int] | None = None  # It is set in a part alone.
        # On the CPU, numpy is faster than torch on the same memory.
        on_cpu = grad.device.type == "cpu" and grad.dtype is not torch.bfloat16
        self._grad = grad.numpy() if on_cpu and not is_plain() else None

    @classmethod
    def _holds(cls, parameter: nn.Parameter) -> bool:
        owner = cls._by_memory.get(parameter.untyped_storage().data_ptr())
        return owner is not None and any(parameter is other for other in owner.parameters)

    def part(self, modules: Iterable[nn.Module]) -> FlatParameters:
        """Return the parameters of some modules alone, on the same memory.

        Raises:
            ValueError: they are not all here, or do not lie side by side.
        """
        wanted = dict.fromkeys(p for module in modules for p in module.parameters() if p.requires_grad)
        places = [n for n, parameter in enumerate(self.parameters) if parameter in wanted]
        if not places or len(places) < len(wanted) or places[-1] - places[0] != len(places) - 1:
            raise ValueError("a part has only parameters that these FlatParameters have, side by side")
        return self._part(places[0], places[-1])

    def _part(self, first: int, last: int) -> FlatParameters:
        bounds = list(places(self.parameters))
        here, piece = slice(first, last + 1), slice(bounds[first][0], bounds[last][1])
        part = FlatParameters.__new__(FlatParameters)
        part._set(self.data[piece], self.grad[piece])
        part.parameters, part._grads = self.parameters[here], self._grads[here]
        part._taken_from = self, first, last
        return part

    def __reduce__(self) -> tuple[Any, ...]:
        if self._taken_from is not None:
            return FlatParameters._part, self._taken_from  # The copy is a part of a copy of all.
        return FlatParameters, (self.parameters,)  # The parameters of a copy have memory of their own.

    def collect(self) -> None:
        """Bring in gradients that are elsewhere, because somebody set `.grad`, as `zero_grad` sets it to None."""
        if all(map(is_, map(_GRAD, self.parameters), self._grads)):
            return
        for parameter, grad in zip(self.parameters, self._grads, strict=True):
            if parameter.grad is not grad:
                if parameter.grad is None:
                    grad.zero_()
                else:
                    grad.copy_(parameter.grad)
                parameter.grad = grad

    def norm(self) -> float:
        """Return the Euclidean norm of the gradient."""
        if self._grad is None:
            return float(torch.linalg.vector_norm(self.grad))
        return math.sqrt(float(np.vdot(self._grad, self._grad)))

    def scale(self, factor: float) -> None:
        """Multiply the gradient."""
        if self._grad is None:
            self.grad.mul_(factor)
        else:
            self._grad *= np.float32(factor)

    def zero(self) -> None:
        """Set the gradient to 0."""
        self.collect()
        if self._grad is None:
            self.grad.zero_()
        else:
            self._grad.view(np.uint8).fill(0)  # Bytes are filled faster than numbers.

    def __iter__(self) -> Iterator[nn.Parameter]:
        """Iterate over the parameters, as torch optimizers do."""
        return iter(self.parameters)


class Adam:
    """Adam (Kingma and Ba 2015, algorithm 1) on flat parameters.

    It has the part of `torch.optim.Optimizer`'s interface that training uses. Importing `torch.optim` would load the
    compiler stack of torch, which costs every process more than a second and tens of megabytes.
    """

    def __init__(
        self, parameters: FlatParameters, lr: float, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8
    ) -> None:
        self.parameters = parameters
        self.param_groups: list[dict[str, Any]] = [{"lr": lr, "betas": betas, "eps": eps}]
        self.exp_avg = torch.zeros_like(parameters.data)
        self.exp_avg_sq = torch.zeros_like(parameters.data)
        self.steps = 0
        self._flat = parameters.data, parameters.grad, self.exp_avg, self.exp_avg_sq
        # The kernel takes arrays as well, which need not be looked at again for each step.
        on_cpu = self.exp_avg.device.type == "cpu" and self.exp_avg.dtype is torch.float32
        self._arrays = tuple(tensor.numpy() for tensor in self._flat) if on_cpu and native("updates") else None

    def __reduce__(self) -> tuple[Any, ...]:
        group = self.param_groups[0]
        return Adam, (self.parameters, group["lr"], group["betas"], group["eps"]), self.state_dict()

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.load_state_dict(state)

    def step(self) -> None:
        """Apply the gradients."""
        flat: Any = self._flat if self._arrays is None or is_plain() else self._arrays
        (group,) = self.param_groups
        (beta1, beta2), self.steps = group["betas"], self.steps + 1
        data, grad, mean, square = flat
        adam_step(data, grad, mean, square, group["lr"], beta1, beta2, group["eps"], self.steps)

    def state_dict(self) -> dict[str, Any]:
        """Return moments, step count and options."""
        return {
            "steps": self.steps,
            "exp_avg": self.exp_avg,
            "exp_avg_sq": self.exp_avg_sq,
            "param_groups": self.param_groups,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned, but for betas and eps, which are those that it was made with.

        Raises:
            ValueError: it is not a state of this optimizer, or of parameters of another size.
        """
        if "optimizer" in state:
            raise ValueError(f"it is of {state['optimizer']}, and the settings ask for adam")
        (group,) = state["param_groups"]
        self.steps = whole(state["steps"], "the number of steps")
        for beta in (*group["betas"], group["eps"]):
            number(beta, "an option")
        self.param_groups[0]["lr"] = number(group["lr"], "lr")
        _copy(self.exp_avg, state["exp_avg"])
        _copy(self.exp_avg_sq, state["exp_avg_sq"])


@kernel("updates")
@torch.no_grad()
def adam_step(
    data: Tensor,
    grad: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    step: int,
) -> None:
    """Update parameters by one step (Kingma and Ba 2015, algorithm 1); all tensors are [size], `step` begins at 1."""
    exp_avg.lerp_(grad, 1.0 - beta1)
    exp_avg_sq.mul_(beta2).addcmul_(grad, grad, value=1.0 - beta2)
    deviation = (exp_avg_sq / (1.0 - beta2**step)).sqrt_()
    data.addcdiv_(exp_avg, deviation.add_(eps), value=-lr / (1.0 - beta1**step))


def _copy(target: Tensor, source: Tensor) -> None:
    if target.shape != source.shape:
        raise ValueError(f"optimizer state has {source.numel()} entries, and the networks have {target.numel()}")
    target.copy_(source)
