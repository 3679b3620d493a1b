"""Numbers to compute with, and what array arithmetic makes of a function of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mlhooks.fast.arrays import ArrayTensor
from mlhooks.fast.networks import LossScope, parameter_like
from mlhooks.fast.switch import native
from mlhooks.nn.networks import Network

G = torch.Generator().manual_seed(3)
X = torch.randn(6, 4, generator=G)
C = torch.randn(6, 4, generator=G)  # It is constant.
ROW = torch.rand(4, generator=G) + 0.5
MASK = torch.rand(6, 4, generator=G) > 0.5
INDEX = torch.tensor([[0, 0], [1, 3], [2, 2], [3, 0], [1, 1], [0, 2]])

Function = Callable[[Any], Any]
needs_native = pytest.mark.skipif(native("mlp") is None, reason="mlhooks was installed without a C compiler")


def on_arrays(function: Function, *, expect: bool | None = None, stays: bool = False) -> tuple[Tensor, Tensor]:
    """Return the sum of weighted results and its gradient, of a parameter.

    Args:
        function: computes the results.
        expect: whether the results have to be an array.
        stays: whether nothing on the way to them may be left to torch.
    """
    parameter = nn.Parameter(X.clone())
    parameter.grad = torch.zeros_like(parameter)
    scope = LossScope(arrays=True)
    with scope:
        x: Any = parameter_like(ArrayTensor(np.zeros(1, np.float32)), parameter)  # type: ignore[arg-type]
        result = function(x)
        assert expect is None or (type(result) is ArrayTensor and result._tensor is None) == expect
        assert not (stays and scope.fallbacks)
        loss = weighted(result)
    scope.backward(loss)
    return loss.detach(), parameter.grad


def weighted(result: Any) -> Any:
    weights = torch.linspace(0.5, 2.0, result.numel()).reshape(result.shape)
    return (result * weights).sum()


class Plain(Network):
    """A network that is nothing but its encoder and heads."""

    def __init__(self, encoder: Any, heads: Sequence[nn.Linear], array_arithmetic: bool) -> None:
        super().__init__()
        self.encoder, self.heads = encoder, nn.ModuleList(heads)
        self.array_arithmetic = array_arithmetic  # type: ignore[misc]

    def linear_heads(self) -> list[nn.Linear]:
        return [*self.heads]  # type: ignore[list-item]

    def forward(self, features: Tensor) -> list[Tensor]:
        return self.outputs(features)


def make_network(encoder: nn.Module, heads: Sequence[nn.Linear], *, array_arithmetic: bool = True) -> Plain:
    """Return a network with that encoder and those heads."""
    return Plain(encoder, heads, array_arithmetic)
