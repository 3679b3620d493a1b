"""Losses on fast networks: their gradients, and what is left to torch."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch

from mlhooks.fast.networks import LossScope
from mlhooks.nn.layers import MLP
from tests.fast.recording import needs_native
from tests.fast.test_networks import on_arrays, outputs

pytestmark = needs_native


def gradients_of(loss: Callable[[Any, Any], Any], scope: LossScope | None) -> list[torch.Tensor | None]:
    """Return the gradients of two networks after a loss on a function that gives a network's outputs for features."""
    torch.manual_seed(0)
    networks = [(MLP(6, [8], "tanh", "orthogonal"), [torch.nn.Linear(8, 2)]) for _ in range(2)]
    with scope or nullcontext():
        total = loss(lambda *asked: outputs(*asked)[0], networks)
    (scope.backward if scope else torch.Tensor.backward)(total)
    return [p.grad for encoder, heads in networks for module in (encoder, *heads) for p in module.parameters()]


ROWS = torch.randn(5, 6, generator=torch.Generator().manual_seed(1))


def called_backward(output: Any, networks: Any) -> Any:
    """Return two steps of an optimizer of its own in the loss, the second through functions that are torch's."""
    optimizer = torch.optim.SGD(networks[1][0].parameters(), 0.5)
    mine = output(*networks[0], ROWS).square()
    for function in (torch.tanh, torch.sigmoid):
        optimizer.zero_grad()
        function(output(*networks[1], ROWS)).sum().backward()
        optimizer.step()
    return mine.sum() + output(*networks[1], ROWS).exp().sum()


def called_backward_on_parts(output: Any, networks: Any) -> Any:
    values = output(*networks[0], ROWS)
    values.backward(torch.ones(5, 2), retain_graph=True)
    (values * 2.0).sigmoid().sum().backward(retain_graph=True)
    return values.square().sum() + values.sigmoid().sum()


def hooks_on_parameters(output: Any, networks: Any) -> Any:
    for parameter in networks[0][0].parameters():
        parameter.register_hook(lambda gradient: gradient.clamp(-0.1, 0.1))
    return output(*networks[0], ROWS).square().sum()


@pytest.mark.parametrize(
    "loss",
    [
        called_backward,
        called_backward_on_parts,
        hooks_on_parameters,
        lambda output, networks: output(*networks[0], ROWS[0]).square().sum(),
        lambda output, networks: output(*networks[0], ROWS[None].repeat(2, 1, 1)).square().sum(),
        lambda output, networks: (output(*networks[0], ROWS) * output(*networks[0], ROWS * 2.0)).sum(),
        lambda output, networks: output(
            *networks[0], torch.cat([ROWS[:, :4], output(*networks[1], ROWS)], dim=1)
        ).sum(),
    ],
    ids=["own backward", "own backward on parts", "hooks", "one row", "rows of rows", "twice", "one on another"],
)
@on_arrays
def test_losses_have_the_gradients_of_torch(loss: Callable[[Any, Any], Any], arrays: bool) -> None:
    wanted = gradients_of(loss, None)
    assert any(gradient is not None for gradient in wanted)
    for gradient, expected in zip(gradients_of(loss, LossScope(arrays=arrays)), wanted, strict=True):
        torch.testing.assert_close(gradient, expected)


class Halved(torch.autograd.Function):
    """Passes half of the gradient on."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x * 1.0

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return gradient * 0.5


def penalty(output: Any, networks: Any) -> Any:
    """Return a penalty on the gradient of parameters, whose own gradient is one of second order."""
    first = output(*networks[0], ROWS).square().mean()
    gradients = torch.autograd.grad(first, [*networks[0][0].parameters()], create_graph=True)
    return first + sum(gradient.square().sum() for gradient in gradients)


def all_that_torch_has(output: Any, networks: Any) -> Any:
    values = output(*networks[0], ROWS)
    assert isinstance(values, torch.Tensor)
    values = Halved.apply(values)  # type: ignore[no-untyped-call]
    values[:, 0] += 1.0
    values.mul_(torch.where(values > 0.0, 2.0, 3.0))
    each = torch.func.vmap(lambda row: row.square().sum())(values)
    return each.mean() + torch.func.grad(lambda v: v.pow(3).sum())(values).mean()


def kept_graph(output: Any, networks: Any) -> Any:
    values = output(*networks[0], ROWS)
    for _ in range(2):
        values.sigmoid().sum().backward(retain_graph=True)
    return values.exp().sum() + output(*networks[0], ROWS * 2.0).sum()


@pytest.mark.parametrize("loss", [penalty, all_that_torch_has, kept_graph])
def test_real_tensors_are_all_that_torch_has(loss: Callable[[Any, Any], Any]) -> None:
    wanted = gradients_of(loss, None)
    for gradient, expected in zip(gradients_of(loss, LossScope()), wanted, strict=True):
        torch.testing.assert_close(gradient, expected)


def test_networks_below_transforms_of_torch_are_left_to_torch() -> None:
    torch.manual_seed(0)
    layers, heads = MLP(6, [8], "tanh", "orthogonal"), [torch.nn.Linear(8, 2)]

    def values(rows: torch.Tensor) -> Any:
        return outputs(layers, heads, rows)[0]

    wanted = torch.func.vmap(lambda row: heads[0](layers(row[None]))[0])(ROWS)
    with LossScope(), torch.no_grad():
        found = torch.func.vmap(lambda row: values(row[None])[0])(ROWS)
        slopes = torch.func.vmap(torch.func.jacrev(lambda row: values(row[None])[0]))(ROWS)
    torch.testing.assert_close(found, wanted)
    assert slopes.shape == (5, 2, 6)


def test_graph_that_outlives_its_loss_keeps_what_it_needs() -> None:
    torch.manual_seed(0)
    layers, heads = MLP(6, [8], "tanh", "orthogonal"), [torch.nn.Linear(8, 2)]
    scope, kept = LossScope(), []
    for scale in (1.0, 2.0):
        with scope:
            kept.append(outputs(layers, heads, ROWS * scale)[0].square().sum())
    kept[0].backward()
    found = [p.grad.clone() for p in layers.parameters() if p.grad is not None]
    layers.zero_grad()
    heads[0](layers(ROWS)).square().sum().backward()
    torch.testing.assert_close(found, [p.grad for p in layers.parameters()])


def test_scope_can_be_entered_again_by_a_loss() -> None:
    def loss(output: Any, networks: Any) -> Any:
        values = output(*networks[0], ROWS)
        with torch.no_grad(), LossScope.entered.get() or nullcontext():
            targets = output(*networks[1], ROWS)
        return (values - targets).square().sum()

    for arrays in (True, False):
        found, wanted = gradients_of(loss, LossScope(arrays=arrays)), gradients_of(loss, None)
        for gradient, expected in zip(found, wanted, strict=True):
            torch.testing.assert_close(gradient, expected)


def test_encoding_is_computed_again_for_features_that_changed_in_place() -> None:
    encoder, heads, rows = torch.nn.Linear(6, 8), [torch.nn.Linear(8, 2)], torch.ones(3, 6)
    with LossScope(arrays=True):
        first = outputs(encoder, heads, rows)[0]
        rows.mul_(2.0)
        second = outputs(encoder, heads, rows)[0]
    torch.testing.assert_close(second, heads[0](encoder(rows)))
    assert not torch.equal(first, second)


def test_scope_is_left_when_a_loss_raises() -> None:
    plain, heads = MLP(6, [8], "tanh", "orthogonal"), [torch.nn.Linear(8, 2)]
    with pytest.raises(ValueError, match="mine"), LossScope(arrays=True):
        raise ValueError("mine")
    assert isinstance(outputs(plain, heads, torch.ones(3, 6))[0], torch.Tensor)


def test_encoder_that_two_share_is_asked_once_for_the_same_features() -> None:
    asked = []

    class Other(torch.nn.Linear):
        def forward(self, features: torch.Tensor) -> torch.Tensor:
            asked.append(torch.is_grad_enabled())
            return super().forward(features)

    encoder, heads, rows = Other(6, 8), [torch.nn.Linear(8, 2)], torch.ones(3, 6)
    for _ in range(2):  # The encoding that an earlier loss asked for is forgotten.
        with LossScope(arrays=True):
            first, second = (outputs(encoder, heads, rows)[0] for _ in range(2))
            outputs(encoder, heads, rows.clone())
            with torch.no_grad():
                assert not outputs(encoder, heads, rows)[0].requires_grad
        torch.testing.assert_close(first, second)
    assert asked == [True, True, False] * 2
