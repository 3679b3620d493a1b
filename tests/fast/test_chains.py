"""Networks on the outputs of networks: gradients of inputs, encodings, and networks that are frozen for a while."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from mlagents_envs.base_env import ActionSpec
from torch import Tensor, nn

from mlhooks.fast.arrays import ArrayTensor
from mlhooks.fast.networks import LossScope
from mlhooks.fast.switch import plain
from mlhooks.nn.frozen import frozen
from mlhooks.nn.layers import MLP
from tests.fast.recording import Plain, make_network, needs_native
from tests.fast.test_networks import make_actor

pytestmark = needs_native
ACTIVATIONS = ("swish", "tanh", "relu", "leaky_relu", "elu")
X = torch.randn(1000, 6, generator=torch.Generator().manual_seed(1))


class Networks(nn.Module):
    """An actor with two heads and its judges."""

    def __init__(self, activation: str = "tanh") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.actor = self.make(activation, 6, 2, 3)
        self.judge = self.make(activation, 8, 1)
        self.other = self.make(activation, 8, 1)

    @staticmethod
    def make(activation: str, inputs: int, *heads: int) -> Plain:
        encoder = MLP(inputs, [40, 40], activation, "orthogonal")
        return make_network(encoder, [nn.Linear(40, size) for size in heads])


Loss = Callable[[Networks, Tensor], Any]
LOSSES: list[Loss] = []


def as_in_torch(loss: Loss) -> Loss:
    LOSSES.append(loss)
    return loss


@as_in_torch
def value_of_an_action(n: Networks, x: Tensor) -> Any:
    mean, logits = n.actor(x)
    return n.judge(torch.cat([x, mean], 1))[0].mean() + logits.square().mean()


@as_in_torch
def value_by_a_frozen_judge(n: Networks, x: Tensor) -> Any:
    mean, _ = n.actor(x)
    with frozen(n.judge):
        (value,) = n.judge(torch.cat([x, mean], 1))
    return value.mean() + n.other(torch.cat([x, mean * 2.0], 1))[0].square().mean()


@as_in_torch
def judge_that_is_frozen_learns_too(n: Networks, x: Tensor) -> Any:
    inputs = torch.cat([x, n.actor(x)[0]], 1)
    with frozen(n.judge):
        (judged,) = n.judge(inputs)
    (learned,) = n.judge(torch.cat([x, x[:, :2]], 1))
    with torch.no_grad():
        (target,) = n.other(inputs)
    return judged.mean() + (learned - target).square().mean()


@as_in_torch
def parts_are_frozen(n: Networks, x: Tensor) -> Any:
    with frozen(n.judge.encoder):
        (value,) = n.judge(torch.cat([x, n.actor(x)[0]], 1))
    n.actor.encoder.layers[1].weight.requires_grad_(False)
    return value.square().mean() + n.actor(x)[1].mean()


@as_in_torch
def encoding_of_an_output(n: Networks, x: Tensor) -> Any:
    encoding = n.judge.encoding(torch.cat([x, n.actor(x)[0]], 1))
    return encoding.square().mean() + n.actor.encoding(x).mean()


@as_in_torch
def torch_between_networks(n: Networks, x: Tensor) -> Any:
    inputs = torch.nn.functional.pad(torch.sigmoid(n.actor(x)[0]), (0, 6))  # Arrays do not compute this.
    return sum(network(inputs)[0].square().mean() for network in (n.judge, n.other)) + inputs.mean()


@as_in_torch
def encoding_between_networks(n: Networks, x: Tensor) -> Any:
    encoding = torch.nn.functional.softplus(n.actor.encoding(x))
    return n.judge(encoding[:, :8])[0].mean() + n.other(encoding[:, 8:16])[0].square().mean()


@as_in_torch
def long_chain(n: Networks, x: Tensor) -> Any:
    mean = x[:, :2]
    for _ in range(3):
        mean = n.actor(torch.cat([x[:, :4], mean], 1))[0] * 0.5
    return n.judge(torch.cat([x, mean], 1))[0].mean()


@as_in_torch
def chain_with_a_hook_between(n: Networks, x: Tensor) -> Any:
    n.judge.register_forward_hook(lambda module, inputs, outputs: [2.0 * output for output in outputs])
    for parameter in n.other.parameters():
        parameter.register_hook(lambda gradient: gradient * 0.5)
    inputs = torch.cat([x, n.actor(x)[0]], 1)
    return n.judge(inputs)[0].mean() + n.other(inputs)[0].square().mean()


@as_in_torch
def heads_of_which_one_is_used(n: Networks, x: Tensor) -> Any:
    mean, _ = n.actor(torch.cat([x[:, :3], n.actor(x)[1]], 1))
    return n.judge(torch.cat([x, mean], 1))[0].mean()


def found_by(
    loss: Loss, *, activation: str, rows: int, scope: LossScope | None
) -> tuple[Tensor, dict[str, Tensor | None]]:
    networks = Networks(activation)
    with scope or nullcontext():
        total = loss(networks, X[:rows])
    (scope.backward if scope else Tensor.backward)(total)
    return total.detach(), {name: p.grad for name, p in networks.named_parameters()}


def assert_equal(found: tuple[Tensor, dict[str, Any]], wanted: tuple[Tensor, dict[str, Any]]) -> None:
    torch.testing.assert_close(found[0], wanted[0], rtol=1e-5, atol=1e-6)
    assert any(gradient is not None for gradient in wanted[1].values())
    for name, gradient in wanted[1].items():
        assert (gradient is None) == (found[1][name] is None), name
        if gradient is not None:
            torch.testing.assert_close(found[1][name], gradient, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("rows", [1, 1000])
@pytest.mark.parametrize("arrays", [True, False], ids=["arrays", "tensors"])
@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.__name__)
def test_chains_have_the_gradients_of_torch(loss: Loss, arrays: bool, rows: int) -> None:
    wanted = found_by(loss, activation="tanh", rows=rows, scope=None)
    assert_equal(found_by(loss, activation="tanh", rows=rows, scope=LossScope(arrays=arrays)), wanted)
    with plain():
        assert_equal(found_by(loss, activation="tanh", rows=rows, scope=LossScope(arrays=arrays)), wanted)


@pytest.mark.parametrize("arrays", [True, False], ids=["arrays", "tensors"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_all_activations_pass_gradients_on(activation: str, arrays: bool) -> None:
    for loss in (value_by_a_frozen_judge, encoding_of_an_output):
        found, wanted = (
            found_by(loss, activation=activation, rows=50, scope=scope) for scope in (LossScope(arrays=arrays), None)
        )
        assert_equal(found, wanted)


@pytest.mark.parametrize("loss", [value_of_an_action, value_by_a_frozen_judge, judge_that_is_frozen_learns_too])
def test_chains_on_arrays_leave_nothing_to_torch(loss: Loss) -> None:
    scope = LossScope(arrays=True)
    found_by(loss, activation="tanh", rows=10, scope=scope)
    assert not scope.fallbacks


def test_encoding_is_an_array_where_outputs_are() -> None:
    networks = Networks()
    for arrays, kind in ((True, ArrayTensor), (False, Tensor)):
        with LossScope(arrays=arrays):
            encoding = networks.actor.encoding(X)
        assert type(encoding) is kind
        torch.testing.assert_close(encoding.detach(), networks.actor.encoder(X).detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("heads", [(), (2,), (2, 3)], ids=["no heads", "one head", "two heads"])
@pytest.mark.parametrize("rows", [1, 1000])
def test_tensors_have_gradients_of_gradients_by_inputs(heads: tuple[int, ...], rows: int) -> None:
    """The penalty of Wasserstein GANs: the gradient of the size of a gradient, by parameters and by inputs."""
    torch.manual_seed(0)
    network = Networks.make("tanh", 6, *heads)
    results = []
    for scope in (None, LossScope()):
        network.zero_grad()
        x = X[:rows].clone().requires_grad_()
        with scope or nullcontext():
            outputs = network.outputs(x) if heads else [network.encoding(x)]
            (slope,) = torch.autograd.grad([output.sum() for output in outputs], x, create_graph=True)
            penalty = (slope.square().sum(1) - 1.0).square().mean() + outputs[0].square().mean()
        penalty.backward()
        assert x.grad is not None
        results.append((slope.detach(), x.grad, [p.grad for p in network.parameters()]))
    torch.testing.assert_close(results[1][:2], results[0][:2], rtol=1e-4, atol=1e-6)
    for found, wanted in zip(results[1][2], results[0][2], strict=True):
        assert (found is None) == (wanted is None)
        if wanted is not None:
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)


def test_gradients_of_gradients_leave_out_what_was_frozen() -> None:
    networks = Networks()
    x = X[:5].clone().requires_grad_()
    with LossScope():
        with frozen(networks.judge):
            (value,) = networks.judge(torch.cat([x, x[:, :2]], 1))
        (slope,) = torch.autograd.grad(value.square().sum(), x, create_graph=True)
        slope.square().sum().backward()
    assert x.grad is not None
    assert all(parameter.grad is None for parameter in networks.judge.parameters())


def test_leaf_tensor_gets_the_gradient_of_a_loss_on_arrays() -> None:
    networks, gradients = Networks(), []
    for scope in (None, LossScope(arrays=True)):
        x = X[:5].clone().requires_grad_()
        with scope or nullcontext():
            loss = networks.actor(x)[0].square().sum() + networks.actor(x)[1].sum()
        (scope.backward if scope else Tensor.backward)(loss)
        gradients.append(x.grad)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-6)


def test_loss_may_call_backward_through_a_chain_itself() -> None:
    def loss(n: Networks, x: Tensor) -> Any:
        inputs = torch.nn.functional.pad(torch.sigmoid(n.actor(x)[0]), (0, 6))
        n.judge(inputs)[0].mean().backward(retain_graph=True)
        return n.other(inputs)[0].square().mean()

    wanted = found_by(loss, activation="tanh", rows=20, scope=None)
    for arrays in (True, False):
        assert_equal(found_by(loss, activation="tanh", rows=20, scope=LossScope(arrays=arrays)), wanted)


def test_module_is_thawed_after_an_error_and_stays_frozen_where_it_was() -> None:
    networks = Networks()
    networks.judge.encoder.requires_grad_(False)
    with pytest.raises(ValueError, match="mine"), frozen(networks.judge):
        raise ValueError("mine" if not networks.judge.heads[0].weight.requires_grad else "not frozen")  # type: ignore[union-attr]
    assert not any(parameter.requires_grad for parameter in networks.judge.encoder.parameters())
    assert all(parameter.requires_grad for parameter in networks.judge.heads.parameters())


def test_network_acts_while_another_thread_learns() -> None:
    """Losses and acting have passes of their own, with buffers of their own."""
    actor = make_actor("tanh", ActionSpec(2, ()))
    rows = X[:400]
    with torch.no_grad(), plain():
        wanted = actor(rows).mean.numpy()
    stop, wrong = threading.Event(), []

    def act() -> None:
        while not stop.is_set():
            (found,) = actor.compute(rows.numpy()) or [np.nan]
            wrong.append(not np.allclose(found, wanted, rtol=1e-4, atol=1e-5))

    thread = threading.Thread(target=act)
    thread.start()
    scope, gradients = LossScope(arrays=True), []
    for _ in range(50):
        actor.zero_grad()
        with scope:
            loss = actor(rows).mean.square().sum()
        scope.backward(loss)
        gradients.append(torch.cat([p.grad.reshape(-1) for p in actor.parameters() if p.grad is not None]))
    stop.set()
    thread.join()
    assert wrong
    assert not any(wrong)
    assert all(torch.equal(gradient, gradients[0]) for gradient in gradients)
