"""Numbers to compute with, and what a tape makes of a function of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mlhooks.nn.recorded import Recorded
from mlhooks.nn.tape import GradientTape

G = torch.Generator().manual_seed(3)
X = torch.randn(6, 4, generator=G)
C = torch.randn(6, 4, generator=G)  # constant
ROW = torch.rand(4, generator=G) + 0.5
MASK = torch.rand(6, 4, generator=G) > 0.5
INDEX = torch.tensor([[0, 0], [1, 3], [2, 2], [3, 0], [1, 1], [0, 2]])

Function = Callable[[Any], Any]


def with_tape(function: Function, *, expect: bool | None = None) -> tuple[Tensor, Tensor]:
    """The sum of weighted results and its gradient, of a parameter that the tape knows."""
    parameter = nn.Parameter(X.clone())
    parameter.grad = torch.zeros_like(parameter)
    tape = GradientTape()
    with tape:
        x: Any = GradientTape.parameter(parameter, Recorded(np.zeros(1, np.float32)))  # type: ignore[arg-type]
        result = function(x)
        assert expect is None or (type(result) is Recorded and result._tensor is None) == expect
        loss = weighted(result)
    tape.backward(loss)
    return loss.detach(), parameter.grad


def weighted(result: Any) -> Any:
    weights = torch.linspace(0.5, 2.0, result.numel()).reshape(result.shape)
    return (result * weights).sum()
