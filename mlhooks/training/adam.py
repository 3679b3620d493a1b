"""Parameters in one piece, and Adam on them.

Small networks have many small parameters, and an optimizer that touches each pays dispatch for each. Here all
parameters of a learner, and all gradients, are views of two flat tensors: norm, clipping and step are a handful of
operations whatever the number of layers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mlhooks import native
from mlhooks.training.state_checks import number, whole

COMPILED = native.load("updates")


class FlatParameters:
    """Moves parameters into one flat tensor; they stay what they were, as views of it.

    Attributes:
        data, grad: [size] values and gradients of all parameters.
        parameters: the parameters, each once.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self.parameters = list(dict.fromkeys(p for p in parameters if p.requires_grad))
        self.data = torch.cat([p.detach().reshape(-1) for p in self.parameters])
        self.grad = torch.zeros_like(self.data)
        # on the CPU its memory as an array, which takes a few operations sooner than torch
        self._grad = self.grad.numpy() if self.grad.device.type == "cpu" else None
        start = 0
        for p in self.parameters:
            stop = start + p.numel()
            p.data = self.data[start:stop].view_as(p)
            p.grad = self.grad[start:stop].view_as(p)
            start = stop

    def norm(self) -> float:
        """The Euclidean norm of the gradient."""
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
        """Forget the gradient."""
        if self._grad is None:
            self.grad.zero_()
        else:
            self._grad.fill(0.0)

    def __iter__(self) -> Iterator[nn.Parameter]:
        """The parameters, as torch optimizers take them."""
        return iter(self.parameters)


class Adam:
    """Adam (Kingma and Ba 2015, algorithm 1) on flat parameters.

    It has the surface of a `torch.optim.Optimizer` that training uses, without its import of the compiler stack, which
    costs every process more than a second and tens of megabytes.
    """

    def __init__(
        self, parameters: FlatParameters, lr: float, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8
    ) -> None:
        self.parameters = parameters
        self.param_groups: list[dict[str, Any]] = [{"lr": lr, "betas": betas, "eps": eps}]
        self.exp_avg = torch.zeros_like(parameters.data)
        self.exp_avg_sq = torch.zeros_like(parameters.data)
        self.steps = 0
        self._count = torch.zeros((), device=parameters.data.device)
        flat = parameters.data, parameters.grad, self.exp_avg, self.exp_avg_sq
        self._arrays = None if parameters.data.device.type != "cpu" else [tensor.numpy() for tensor in flat]

    def step(self) -> None:
        """Apply the gradients."""
        group = self.param_groups[0]
        self.steps += 1
        if COMPILED is not None and self._arrays is not None:
            COMPILED.adam_step(*self._arrays, group["lr"], *group["betas"], group["eps"], self.steps)
            return
        # the kernel of torch.optim.Adam(fused=True): one pass over memory instead of seven
        torch._fused_adam_(
            [self.parameters.data],
            [self.parameters.grad],
            [self.exp_avg],
            [self.exp_avg_sq],
            [],
            [self._count.fill_(self.steps)],
            lr=group["lr"],
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            weight_decay=0.0,
            eps=group["eps"],
            amsgrad=False,
            maximize=False,
        )

    def state_dict(self) -> dict[str, Any]:
        """Moments, step count and options."""
        return {
            "steps": self.steps,
            "exp_avg": self.exp_avg,
            "exp_avg_sq": self.exp_avg_sq,
            "param_groups": self.param_groups,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        (group,) = state["param_groups"]
        self.steps = whole(state["steps"], "the number of steps")
        beta1, beta2 = (number(beta, "a beta") for beta in group["betas"])
        self.param_groups = [
            {"lr": number(group["lr"], "lr"), "betas": (beta1, beta2), "eps": number(group["eps"], "eps")}
        ]
        _copy(self.exp_avg, state["exp_avg"])
        _copy(self.exp_avg_sq, state["exp_avg_sq"])


def _copy(target: Tensor, source: Tensor) -> None:
    if target.shape != source.shape:
        raise ValueError(f"optimizer state has {source.numel()} entries, and the networks have {target.numel()}")
    target.copy_(source)
