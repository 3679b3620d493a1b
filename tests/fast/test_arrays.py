from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from mlhooks.fast import arrays
from mlhooks.fast.networks import LossScope, outputs
from mlhooks.fast.operations import FUNCTIONS
from mlhooks.fast.record import Record
from mlhooks.nn import heads
from mlhooks.nn.layers import MLP
from tests.fast.recording import INDEX, MASK, ROW, C, Function, X, make_network, needs_native, on_arrays, weighted

pytestmark = needs_native

COMPUTED: dict[str, Function] = {
    "neg": lambda x: -x,
    "exp": lambda x: torch.exp(x) + x.exp(),
    "add": lambda x: x + C + (1.5 + x) + (C + x) + (x + x),
    "sub": lambda x: (x - C) * (2.0 - x) * (C - x) * (x - 0.5),
    "masked_fill": lambda x: x.masked_fill(MASK, -7.0) * x,
    "gather": lambda x: x.gather(1, INDEX) * x.gather(1, INDEX[:, :1]),
    "getitem": lambda x: x[:, 1:3] * x[..., 0][:, None] + x[2:3, :2] + x[-1, 0],
    "shapes": lambda x: x.unsqueeze(1).squeeze(1).reshape(4, 6).view(2, 12) * x[0, :1].expand(2, 12),
    "squeeze of nothing": lambda x: x.squeeze(1) * 2.0,
    "stack": lambda x: torch.stack([x, C, x * x]).sum(0) + torch.stack([x, x], dim=1)[:, 1],
    "cat": lambda x: torch.cat([x, x * 2.0, C], dim=1)[:, 2:8] * torch.cat((x, x), -1)[:, 1:7],
    "constants of it": lambda x: x * (x > 0.0) + (x > C) * x + torch.zeros_like(x) + x.detach() * x,
    "products": lambda x: x * C * 2.0 + 3 * x * x,
    "quotients": lambda x: x / ROW + 1.0 / (x.square() + 1.0) + C / (x.square() + 1.0) + x / 4,
    "broadcast": lambda x: (x * ROW).sum(1, keepdim=True) * x + x.mean(0) * x[:, :1] + x.sum(),
    "smaller and larger": lambda x: torch.min(x, C) + torch.max(x, C) * x,
    "smaller of equals": lambda x: torch.min(x * 2.0, x.clamp(-0.5, 0.5) + x),
    "of parts": lambda x: (2.0 - x[:, 1:3]) * (1.0 / (x.square() + 1.0)[:, 1:3]) - 2.0 / (3.0 + x.square()[:, 2:]),
    "bounds": lambda x: x.clamp(-0.3, 0.4) * x,
    "sums": lambda x: x.sum(1) + x.sum(dim=-1) + x.sum() + torch.sum(x, 1),
    "means": lambda x: x.mean(0) * x.mean() + torch.mean(x, dim=0) + x.mean((0, 1)),
    "of all": lambda x: x.mean() * x + x.sum() - x.mean().exp() + (2.0 * x).sum().square() / 7.0 - x.sum().neg(),
    "gather from many": lambda x: x.square().gather(-1, INDEX) / x.exp().gather(1, INDEX),
    "gather from columns": lambda x: x[:, 1:].gather(1, INDEX[:, :1] % 3) * x[:, 2:].gather(1, INDEX[:, 1:] % 2),
    "largest of columns": lambda x: largest_of_columns(x)[:, None] * x,
    "expand_as": lambda x: x[:, :1].expand_as(C) * x + C[:, :1] * x[:, 1:2].expand_as(x),
    "errors": lambda x: functional.mse_loss(x, C) * functional.mse_loss(x, C, reduction="none"),
    "Huber losses": lambda x: functional.smooth_l1_loss(3.0 * x, C) + functional.smooth_l1_loss(x, C, reduction="none"),
}
"""What built-in losses compute, which has to stay on arrays."""
OTHERS: dict[str, Function] = {
    "expand_as of constants": lambda x: x[:, :1].expand_as(C) + C[:, :1].expand_as(x) * x,
    "masked_fill with a computed value": lambda x: x.masked_fill(MASK, x.mean()).square(),
    "unknown functions": lambda x: torch.sigmoid(x).cumsum(0) + x.std() + functional.silu(x),
    "keywords": lambda x: torch.cat(tensors=[x, C], dim=1) + torch.add(input=x, other=C).repeat(1, 2),
    "all dimensions": lambda x: x.sum(()) * x.sigmoid() + x.mean(dim=()),
    "power of zero": lambda x: torch.relu(x) ** 0 + x,
    "nothing": lambda x: x[:0].mean().nan_to_num(0.0) + functional.mse_loss(x[:0], C[:0]).nan_to_num(0.0) + x,
    "bfloat16": lambda x: (x * C.bfloat16()).float(),
    "writable": lambda x: x.mean(0).expand(6, 4).sigmoid() * x.expand(6, 4).sigmoid(),
    "view of what turned": lambda x: turned_first(torch.log_softmax(x, 1)).view(2, 12),
    "unknown arguments": lambda x: torch.add(x, C, alpha=2) + x.sum(0, dtype=torch.float64).float(),
    "other dtypes": lambda x: (x * C.double()).float() + x * INDEX[:, :1] + x * np.float64(2.0),
    "indices": lambda x: x[MASK] * 2.0 + x[INDEX[:, 0]].sum(),
    "max over rows": lambda x: torch.max(x, dim=1).values * x.max(1)[0] + x.max() + torch.max(x, 1)[0],
    "min over rows": lambda x: torch.min(x, 0)[0] + torch.min(x, -1).values[:4],
    "bounds that exclude each other": lambda x: x.clamp(0.5, -0.5) * x + x.clamp(2, 1) + x.clamp(torch.nan, 1.0),
    "arguments by name": lambda x: x.gather(1, INDEX, sparse_grad=False) + x.gather(dim=1, index=INDEX),
    "unusual tensors": lambda x: x * torch._neg_view(C),
    "matrix product": lambda x: x @ C.T + C @ x.T,
    "another loss": lambda x: functional.huber_loss(x, C, delta=0.3),
    "first there, then again here": lambda x: x.sigmoid() * x + x.exp(),
    "back and forth": lambda x: (x * 2.0).sigmoid().exp() * x,
    "distributions": lambda x: (
        torch.distributions.Categorical(logits=x).log_prob(INDEX[:, 0])
        + torch.distributions.Normal(x, ROW).entropy().sum(1)
    ),
    "log": lambda x: torch.log(x.square() + 1.0),
    "sqrt": lambda x: (x.square() + 0.5).sqrt(),
    "pow": lambda x: x**3 + x.pow(2),
    "abs": lambda x: x.abs() + abs(x),
    "tanh": lambda x: torch.tanh(x) * functional.tanh(x),
    "relu": lambda x: torch.relu(x) + functional.relu(x),
    "mul": lambda x: x * C * 2.0 + 3 * x * x,
    "div": lambda x: x / ROW + 1.0 / (x.square() + 1.0) + C / (x.abs() + 1.0) + x / 4,
    "broadcast": lambda x: (x * ROW).sum(1, keepdim=True) * x + x.mean(0) * x[:, :1] + x.sum(),
    "min and max": lambda x: torch.min(x, C) + torch.maximum(x, C) * x + x.minimum(-x),
    "min of equals": lambda x: torch.min(x * 2.0, x.clamp(-0.5, 0.5) + x),
    "clamp": lambda x: x.clamp(-0.3, 0.4) + torch.clamp(x, min=0.1) + x.clamp(max=0.2),
    "where": lambda x: torch.where(MASK, x, x * 3.0),
    "sum": lambda x: x.sum(1) + x.sum(dim=-1) + x.sum() + torch.sum(x, 1),
    "mean": lambda x: x.mean(0) * x.mean() + torch.mean(x, dim=0) + x.mean((0, 1)),
    "amax": lambda x: x.amax(1) * torch.amax(x, dim=0).sum() + x.clamp(max=0.0).amax(-1, keepdim=True)[:, 0],
    "log_softmax": lambda x: torch.log_softmax(x, dim=1) * x + functional.log_softmax(x, -1),
    "softmax": lambda x: torch.softmax(x, 1) * x + functional.softmax(x, dim=1) + x.softmax(-1),
    "of all": lambda x: x.mean() * x + x.sum() - x.mean().exp() + (2.0 * x).sum().square() / 7.0 - x.sum().neg(),
    "gather from many": lambda x: x.square().gather(-1, INDEX) / x.exp().gather(1, INDEX),
    "mse_loss": lambda x: functional.mse_loss(x, C) * functional.mse_loss(x, C, reduction="none"),
    "smooth_l1_loss": lambda x: (
        functional.smooth_l1_loss(3.0 * x, C) + functional.smooth_l1_loss(x, C, reduction="none")
    ),
    "infinite where it does not count": lambda x: (
        x.clamp(min=0.0).sqrt()
        + torch.relu(x).sqrt()
        + torch.where(x > 0.0, x, 0.0).sqrt()
        + x.masked_fill(x < 0.0, 0.0).sqrt()
        + torch.max(x, torch.zeros(4)).sqrt()
        + torch.min(x, torch.zeros(4)).neg().sqrt()
        + torch.min(x.masked_fill(MASK, torch.inf), torch.full((4,), torch.inf)).masked_fill(MASK, 0.0)
    ),
    "division by large and small": lambda x: (
        1e-10 * (1e30 / (x.abs() * 1e20 + 1e20)) + (ROW * 1e-25) / (x.abs() * 1e-25 + 1e-25)
    ),
    "exponentials at the limits": lambda x: (
        ((x + 88.0).clamp(max=88.72).exp() * 1e-38).exp() + (x - 89.0).exp().log() + (100.0 * x).clamp(max=80.0).exp()
    ),
    "not a number": lambda x: torch.min(x, C * torch.nan) + torch.max(C * torch.nan, x),
    "scalars": lambda x: x.sum() * x.mean() + x.sum().sum(0) + x.mean().tanh().mean(-1) + x.mean()[None].expand(4),
    "view of a computed one": lambda x: torch.log_softmax(x, 1).view(2, 12) + torch.softmax(x, 1).detach().view(2, 12),
}
"""What has to be equal, wherever it is computed."""


@torch.no_grad()
def largest_of_columns(x: Any) -> Any:
    return x[:, 1:3].amax(1)


def turned_first(x: Any) -> Any:
    x.sigmoid()
    return x


EACH = pytest.mark.parametrize(
    ("function", "expect"),
    [*((f, True) for f in COMPUTED.values()), *((f, None) for f in OTHERS.values())],
    ids=[*COMPUTED, *OTHERS],
)


@EACH
def test_result_and_gradient_are_those_of_torch(function: Function, expect: bool | None) -> None:
    assert_as_in_torch(function, expect=expect)


def assert_as_in_torch(function: Function, *, expect: bool | None) -> None:
    reference = nn.Parameter(X.clone())
    wanted = weighted(function(reference * 1.0))
    wanted.backward()
    loss, gradient = on_arrays(function, expect=expect, stays=expect is True)
    torch.testing.assert_close(loss, wanted.detach(), equal_nan=True)
    torch.testing.assert_close(gradient, reference.grad, equal_nan=True)


def test_every_operation_in_numpy_is_tried_above(monkeypatch: pytest.MonkeyPatch) -> None:
    seen, computed = set(), arrays._compute

    def note(record: Any, operation: Any, args: Any, kwargs: Any) -> Any:
        seen.add(operation)
        return computed(record, operation, args, kwargs)

    monkeypatch.setattr(arrays, "_compute", note)
    for function in COMPUTED.values():
        on_arrays(function)
    assert set(FUNCTIONS.values()) - seen == set()


IN_PLACE: dict[str, Function] = {
    "x += y": lambda x: x.__iadd__(C),
    "x *= y": lambda x: (x * 2.0).__imul__(2.0),
    "x[i] = y": lambda x: x.__setitem__(0, 1.0),
    "x.clamp_()": lambda x: x.clamp_(-0.5, 0.5),
    "of a view": lambda x: x[:, 1:3].masked_fill_(MASK[:, 1:3], -1.0),
    "of a tensor": lambda x: torch.Tensor.add_(C.clone(), x),
    "out": lambda x: torch.add(x, x, out=C.clone()),
    "of what torch made a view": lambda x: x.flatten().add_(1.0),
}


@pytest.mark.parametrize("function", IN_PLACE.values(), ids=IN_PLACE)
def test_changes_in_place_are_refused(function: Function) -> None:
    with pytest.raises((TypeError, RuntimeError), match=r"in place|in-place"):
        on_arrays(function)


@pytest.mark.parametrize("actions", [1, 3])
def test_distributions_are_those_of_torch(actions: int) -> None:
    def gaussian(x: Any) -> Any:
        log_std = x.mean(0)[:actions] * 0.3
        log_probs, entropies = heads.gaussian(x[:, :actions], log_std, C[:, :actions])
        return log_probs * 2.0 + entropies.square()

    def categorical(x: Any) -> Any:
        log_probs, entropies = heads.categorical(x, INDEX[:, :1])
        return log_probs * entropies

    def gaussian_by_observation(x: Any) -> Any:
        log_probs, entropies = heads.gaussian(x[:, :actions], x[:, -actions:] * 0.3, C[:, :actions])
        return log_probs * 2.0 + entropies.square()

    def squashed(x: Any) -> Any:
        samples, log_probs = heads.squashed(x[:, :actions] * 4.0, x[:, -actions:] * 0.3, C[:, :actions])
        return samples * 2.0 + log_probs.square()

    def probabilities(x: Any) -> Any:
        found, entropies = heads.probabilities(x.masked_fill(MASK, heads.MASKED_LOGIT))
        return found[:, :1] * entropies + found[:, -1:]

    for function in (gaussian, categorical, gaussian_by_observation, squashed, probabilities):
        assert_as_in_torch(function, expect=True)


@pytest.mark.parametrize("shape", [(1, 4), (5, 1), (5, 4)])
def test_logits_stay_what_they_were_when_a_distribution_is_made_of_them(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    layers, actions = MLP(3, [8], "tanh", "orthogonal"), torch.zeros(shape[0], 1, dtype=torch.int64)
    head, rows = nn.Linear(8, shape[1]), torch.randn(shape[0], 3)

    def loss(logits: Any) -> Any:
        log_probs, entropies = heads.categorical(logits, actions)
        return log_probs.sum() + entropies.sum() + logits.square().mean()

    loss(head(layers(rows))).backward()
    wanted, head.weight.grad = head.weight.grad, None
    scope = LossScope(arrays=True)
    with scope:
        (logits,) = outputs(make_network(layers, [head]), rows) or ()
        recorded_loss = loss(logits)
    scope.backward(recorded_loss)
    torch.testing.assert_close(head.weight.grad, wanted)


def test_a_list_may_change_after_it_was_stacked() -> None:
    def loss(x: Any) -> Any:
        parts = [x[:, 0], x[:, 1]]
        stacked = torch.stack(parts)
        parts.clear()
        return stacked.square()

    assert_as_in_torch(loss, expect=True)


def test_wrong_shapes_are_told_as_by_torch() -> None:
    with pytest.raises(RuntimeError, match="must match the size of tensor b"):
        on_arrays(lambda x: x + torch.ones(5, 4))


def test_sums_of_many_numbers_stay_exact() -> None:
    def loss(x: Any) -> Any:
        many = x[:1, :1].expand(500, 1000) * 1.0
        return torch.stack([many.sum() / 500_000.0, many.mean()])

    torch.testing.assert_close(on_arrays(loss, expect=True)[0], (X[0, 0] * 2.5), rtol=1e-6, atol=0.0)


def test_operands_that_are_none_are_refused() -> None:
    for function in (lambda x: x + None, lambda x: torch.mul(x, None), lambda x: None / x):
        with pytest.raises(TypeError):
            on_arrays(function)


@pytest.mark.parametrize("gradient", [None, torch.ones(()), torch.ones(4), torch.ones(6, 4, 1)])
def test_backward_begins_at_one_number_or_with_a_gradient_of_the_same_shape(gradient: Tensor | None) -> None:
    def loss(x: Any) -> Any:
        (x * 2.0).backward(gradient)

    with pytest.raises(RuntimeError, match="a loss is one number"):
        on_arrays(loss)


def test_backward_takes_a_gradient_of_the_same_shape() -> None:
    def loss(x: Any) -> Any:
        (x * 2.0).backward(C.double())
        return x * 0.0

    torch.testing.assert_close(on_arrays(loss)[1], C * 2.0)


def test_wrong_indices_and_conditions_are_told_as_by_torch() -> None:
    with pytest.raises(RuntimeError, match="same number of dimensions"):
        on_arrays(lambda x: x.gather(1, INDEX[:, 0]))
    with pytest.raises(RuntimeError, match="bool"):
        on_arrays(lambda x: x.masked_fill(INDEX[:, :1], 0.0))


def test_can_be_looked_at_as_a_tensor() -> None:
    def look(x: Any) -> Any:
        assert x.shape == (6, 4)
        assert (x.dim(), x.ndim, x.numel(), len(x), x.requires_grad) == (2, 2, 24, 6, True)
        assert float(x.sum()) == pytest.approx(float(X.sum()), abs=1e-5)
        assert x.mean().item() == pytest.approx(float(X.mean()), abs=1e-6)
        assert (x == X).all()
        assert bool(x[0, 0] == X[0, 0])
        assert "ArrayTensor" in repr(x)
        return x * 1.0

    on_arrays(look, expect=True)


def test_record_goes_with_its_loss_where_an_operation_went_through_torch() -> None:
    def count() -> int:
        gc.collect()
        return sum(type(thing) is Record for thing in gc.get_objects())

    before = count()
    for _ in range(3):
        on_arrays(lambda x: torch.sigmoid(x).cumsum(0))
    assert count() == before
