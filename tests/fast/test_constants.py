"""Results in a loss that depend on no parameter."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mlhooks.fast.arrays import ArrayTensor
from mlhooks.nn import heads
from tests.fast.recording import INDEX, C, Function, X, needs_native, on_arrays, weighted

pytestmark = needs_native


def test_is_a_constant_where_no_gradients_are_wanted() -> None:
    def without(x: Any) -> Any:
        with torch.no_grad():
            constant = x * 2.0 + x.sigmoid()
            assert not constant.requires_grad
        assert (constant.exp() + constant.detach()).requires_grad is False
        return x * constant

    _, gradient = on_arrays(without, expect=True)
    weights = torch.linspace(0.5, 2.0, 24).reshape(6, 4)
    torch.testing.assert_close(gradient, (X * 2.0 + X.sigmoid()) * weights)


def frozen(x: Any) -> Any:
    """Return a constant, as outputs of frozen networks are; in torch a tensor without gradient."""
    return ArrayTensor(X.numpy().copy(), constant=True) if isinstance(x, ArrayTensor) else X.clone()


CONSTANTS: dict[str, Function] = {
    "constants": lambda x: (frozen(x) * C + frozen(x).exp().clamp(0.1, 2.0)) * x + frozen(x).gather(1, INDEX[:, :1]),
    "largest": lambda x: x * frozen(x).amax(1).unsqueeze(1).expand_as(x[:, :1]) + frozen(x).mean(),
    "in torch": lambda x: frozen(x).sigmoid() * x + torch.cumsum(frozen(x), 0),
    "distribution": lambda x: heads.categorical(frozen(x), INDEX[:, :1])[0] * x[:, 0],
}


@pytest.mark.parametrize("function", CONSTANTS.values(), ids=CONSTANTS)
def test_what_is_made_of_constants_is_as_in_torch(function: Function) -> None:
    reference = nn.Parameter(X.clone())
    wanted = weighted(function(reference * 1.0))
    wanted.backward()
    loss, gradient = on_arrays(function)
    torch.testing.assert_close(loss, wanted.detach())
    torch.testing.assert_close(gradient, reference.grad)


def test_constants_have_no_gradient() -> None:
    def told(x: Any) -> Any:
        log_probs, entropies = heads.categorical(frozen(x), INDEX[:, :1])
        assert not log_probs.requires_grad
        assert not entropies.requires_grad
        assert isinstance(x.detach(), Tensor)
        assert frozen(x).is_leaf
        return x

    on_arrays(told)
