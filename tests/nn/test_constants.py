"""Results in a loss that depend on no parameter."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mlhooks.nn import heads
from mlhooks.nn.recorded import Recorded
from tests.nn.recording import INDEX, C, Function, X, weighted, with_tape


def test_is_a_constant_where_no_gradients_are_wanted() -> None:
    def without(x: Any) -> Any:
        with torch.no_grad():
            constant = x * 2.0 + x.sigmoid()
            assert not constant.requires_grad
        assert (constant.exp() + constant.detach()).requires_grad is False
        return x * constant

    _, gradient = with_tape(without, expect=True)
    weights = torch.linspace(0.5, 2.0, 24).reshape(6, 4)
    torch.testing.assert_close(gradient, (X * 2.0 + X.sigmoid()) * weights)


def frozen(x: Any) -> Any:
    """A constant, as outputs of frozen networks are; in torch a tensor without gradient."""
    return Recorded(X.numpy().copy(), constant=True) if isinstance(x, Recorded) else X.clone()


def changed_constant(x: Any) -> Any:
    w = frozen(x)
    v = w * 0.5
    row, w = v.amax(1).unsqueeze(1), w * 2.0
    w[:, 0] = x[:, 0] * 2.0
    v.add_(x)
    row += 1.0
    return w * v * x + row


def changed_view_of_a_constant(x: Any) -> Any:
    w = frozen(x).amax(1)
    view = w.unsqueeze(1)
    view.mul_(x[:, :1])
    return w * x[:, 1] + view[:, 0]


CONSTANTS: dict[str, Function] = {
    "constants": lambda x: (frozen(x) * C + frozen(x).exp().clamp(0.1, 2.0)) * x + frozen(x).gather(1, INDEX[:, :1]),
    "largest": lambda x: x * frozen(x).amax(1).unsqueeze(1).expand_as(x[:, :1]) + frozen(x).mean(),
    "in torch": lambda x: frozen(x).sigmoid() * x + torch.cumsum(frozen(x), 0),
    "changes in place": changed_constant,
    "changes in place of a view": changed_view_of_a_constant,
    "distribution": lambda x: heads.categorical(frozen(x), INDEX[:, :1])[0] * x[:, 0],
}


@pytest.mark.parametrize("function", CONSTANTS.values(), ids=CONSTANTS)
@pytest.mark.parametrize("compiled", [True, False])
def test_what_is_made_of_constants_is_as_in_torch(
    function: Function, compiled: bool, request: pytest.FixtureRequest
) -> None:
    if not compiled:
        request.getfixturevalue("in_numpy")
    reference = nn.Parameter(X.clone())
    wanted = weighted(function(reference * 1.0))
    wanted.backward()
    loss, gradient = with_tape(function)
    torch.testing.assert_close(loss, wanted.detach())
    torch.testing.assert_close(gradient, reference.grad)


def test_constants_have_no_gradient_until_they_are_told_to() -> None:
    def told(x: Any) -> Any:
        log_probs, entropies = heads.categorical(frozen(x), INDEX[:, :1])
        assert not log_probs.requires_grad
        assert not entropies.requires_grad
        assert isinstance(x.detach(), Tensor)
        constant = frozen(x)
        assert constant.is_leaf
        constant.requires_grad = True
        assert constant.requires_grad
        (gradient,) = torch.autograd.grad((constant * constant).sum(), [constant.tensor()])
        torch.testing.assert_close(gradient, 2.0 * X)
        return x

    with_tape(told)
