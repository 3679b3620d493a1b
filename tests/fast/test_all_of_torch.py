"""What losses may do with networks and parameters besides calling them: as torch does it without `mlhooks.fast`."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from mlagents_envs.base_env import ActionSpec
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils import parametrizations, prune
from torch.utils.checkpoint import checkpoint

from mlhooks.fast.arrays import ArrayTensor
from mlhooks.fast.networks import LossScope
from mlhooks.fast.opting_in import opted_in
from mlhooks.fast.switch import plain
from mlhooks.nn.networks import Actor, Critic
from tests.fast.recording import needs_native
from tests.fast.test_networks import LAYOUT, make_settings

pytestmark = [
    needs_native,
    pytest.mark.filterwarnings("ignore:Full backward hook is firing"),  # Nobody wants the gradient of inputs.
]
X = torch.randn(20, 6, generator=torch.Generator().manual_seed(3))


class Networks(nn.Module):
    """An actor, and a critic on its encoder."""

    def __init__(self, activation: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        settings = make_settings(activation)
        self.actor = Actor(LAYOUT, ActionSpec(2, ()), settings)
        self.encoder: Any = self.actor.encoder
        self.critic = Critic(LAYOUT, settings, 2, self.encoder)

    def weights(self) -> dict[str, Tensor]:
        return dict(self.critic.named_parameters())


Loss = Callable[[Networks], Any]
LOSSES: list[Loss] = []


def as_in_torch(loss: Loss) -> Loss:
    LOSSES.append(loss)
    return loss


@as_in_torch
def other_weights(n: Networks) -> Any:
    halves = {name: weight * 0.5 for name, weight in n.weights().items()}
    return functional_call(n.critic, halves, (X,)).square().sum() + n.critic(X).sum()


@as_in_torch
def weights_after_a_step(n: Networks) -> Any:
    weights = n.weights()
    slopes = torch.autograd.grad(n.critic(X).square().mean(), [*weights.values()], create_graph=True)
    moved = {name: w - 0.1 * slope for (name, w), slope in zip(weights.items(), slopes, strict=True)}
    return functional_call(n.critic, moved, (X,)).square().mean()


@as_in_torch
def gradient_of_a_function(n: Networks) -> Any:
    values = {name: weight.detach() for name, weight in n.weights().items()}
    slopes = torch.func.grad(lambda weights: functional_call(n.critic, weights, (X,)).square().mean())(values)
    return sum((weight * slopes[name]).sum() for name, weight in n.weights().items())


@as_in_torch
def ensemble(n: Networks) -> Any:
    weights, _ = torch.func.stack_module_state([copy.deepcopy(n.critic) for _ in range(3)])
    values = {name: weight.detach() for name, weight in weights.items()}
    several = torch.func.vmap(lambda one: functional_call(n.critic, one, (X,)))(values)
    return (n.critic(X) - 2.0 * several.mean(0)).square().sum()


@as_in_torch
def optimizer_of_its_own(n: Networks) -> Any:
    optimizer = torch.optim.SGD(n.critic.parameters(), 0.1)
    n.critic(X).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()
    return n.critic(X).square().mean() + n.actor(X).mean.square().sum()


@as_in_torch
def memory_exchanged_for_a_while(n: Networks) -> Any:
    before = [weight.data for weight in n.critic.parameters()]
    for weight in n.critic.parameters():
        weight.data = weight.data * 0.5
    targets = n.critic(X).detach()
    for weight, data in zip(n.critic.parameters(), before, strict=True):
        weight.data = data
    return (n.critic(X) - targets).square().sum()


@as_in_torch
def another_layer(n: Networks) -> Any:
    torch.manual_seed(9)
    n.encoder.layers[0] = nn.Linear(6, 32)
    return n.critic(X).square().sum()


@as_in_torch
def another_parameter(n: Networks) -> Any:
    n.encoder.layers[0].weight = nn.Parameter(torch.full((32, 6), 0.1))
    return n.critic(X).square().sum()


@as_in_torch
def spectral_norm(n: Networks) -> Any:
    parametrizations.spectral_norm(n.encoder.layers[1])
    return n.critic(X).square().sum()


@as_in_torch
def weight_norm(n: Networks) -> Any:
    parametrizations.weight_norm(n.encoder.layers[1])
    return n.critic(X).square().sum()


@as_in_torch
def pruned_weights(n: Networks) -> Any:
    prune.l1_unstructured(n.encoder.layers[1], "weight", 0.5)  # type: ignore[no-untyped-call]
    return n.critic(X).square().sum()


@as_in_torch
def penalty_on_layers_that_share_weights(n: Networks) -> Any:
    n.encoder.layers[2] = n.encoder.layers[1]
    first = n.critic(X).square().mean()
    slopes = torch.autograd.grad(first, [*n.critic.parameters()], create_graph=True)
    return first + sum(slope.square().sum() for slope in slopes)


@as_in_torch
def gradient_halved_behind_a_layer(n: Networks) -> Any:
    n.encoder.layers[1].register_full_backward_hook(lambda module, to, of: (to[0] * 0.5,))
    return n.critic(X).square().sum()


@as_in_torch
def gradient_halved_before_a_layer(n: Networks) -> Any:
    n.encoder.layers[1].register_full_backward_pre_hook(lambda module, of: (of[0] * 0.5,))
    return n.critic(X).square().sum()


@as_in_torch
def gradient_halved_before_a_network(n: Networks) -> Any:
    n.critic.register_full_backward_pre_hook(lambda module, of: (of[0] * 0.5,))
    return n.critic(X).square().sum()


@as_in_torch
def activations_by_a_hook(n: Networks) -> Any:
    first = n.critic(X).square().sum()
    found: list[Tensor] = []
    hook = n.encoder.layers[1].register_forward_hook(lambda module, inputs, output: found.append(output))
    second = n.critic(X).square().sum()
    hook.remove()
    return first + second + found[0].square().sum()


@as_in_torch
def hook_on_all_modules(n: Networks) -> Any:
    hook = nn.modules.module.register_module_forward_hook(
        lambda module, inputs, output: 2.0 * output if isinstance(module, nn.Linear) else None
    )
    try:
        return n.critic(X).square().sum()
    finally:
        hook.remove()


@as_in_torch
def forward_of_its_own(n: Networks) -> Any:
    layer = n.encoder.layers[1]
    layer.forward = lambda x, forward=layer.forward: 2.0 * forward(x)
    return n.critic(X).square().sum()


@as_in_torch
def many_gradients_at_once(n: Networks) -> Any:
    values = n.critic(X)
    each = torch.eye(40).view(40, 20, 2)
    slopes = torch.autograd.grad(values, [*n.critic.parameters()], each, is_grads_batched=True)
    return n.critic(X).square().sum() * sum(slope.square().sum() for slope in slopes)


@as_in_torch
def activations_computed_again(n: Networks) -> Any:
    return checkpoint(n.critic, X, use_reentrant=False).square().sum()


@as_in_torch
def dropout(n: Networks) -> Any:
    n.encoder.register_forward_hook(lambda module, inputs, output: nn.functional.dropout(output, 0.5))
    return (n.critic(X) - n.critic(X)).square().sum()


@as_in_torch
def half_precision(n: Networks) -> Any:
    with torch.autocast("cpu", torch.bfloat16):
        values = n.critic(X)
    assert values.dtype == torch.bfloat16
    return values.float().square().sum()


@as_in_torch
def hooks_that_normalize_gradients(n: Networks) -> Any:
    for weight in n.parameters():
        weight.register_hook(lambda slope: slope / (slope.norm() + 1e-6))
    return sum((n.actor(X * k).mean * n.actor(X * k).log_std.exp()).square().sum() for k in (1, 2)) + n.critic(X).sum()


def found_by(loss: Loss, activation: str, *, warm: bool, fast: bool) -> tuple[Tensor, dict[str, Tensor | None]]:
    networks, scope = Networks(activation), LossScope()
    with nullcontext() if fast else plain():
        for asked in [lambda n: n.critic(X).sum() + n.actor(X).mean.sum(), loss][not warm :]:
            networks.zero_grad()
            torch.manual_seed(1)
            with scope:
                total = asked(networks)
            scope.backward(total)
    return total.detach(), {name: p.grad for name, p in networks.named_parameters()}


@pytest.mark.parametrize("activation", ["tanh", "gelu"])
@pytest.mark.parametrize("warm", [False, True], ids=["first", "later"])
@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.__name__)
def test_losses_do_with_networks_what_torch_lets_them(loss: Loss, warm: bool, activation: str) -> None:
    (wanted_loss, wanted), (found_loss, found) = (
        found_by(loss, activation, warm=warm, fast=fast) for fast in (False, True)
    )
    torch.testing.assert_close(found_loss, wanted_loss, rtol=1e-4, atol=1e-4)
    assert any(gradient is not None for gradient in wanted.values())
    for name, gradient in wanted.items():
        other = found[name]
        assert (gradient is None) == (other is None), name
        if gradient is not None:
            atol = 1e-4 * float(gradient.abs().max()) + 1e-6
            torch.testing.assert_close(other, gradient, rtol=1e-3, atol=atol, msg=name)


def test_hooks_on_parameters_get_the_whole_gradient_of_losses_on_arrays() -> None:
    gradients = []
    for arrays in (False, True):
        networks, scope = Networks("tanh"), LossScope(arrays=arrays)
        with scope, torch.no_grad():
            networks.critic(X)
        scope.invalidate()
        with scope:
            loss = hooks_that_normalize_gradients(networks)
        scope.backward(loss)
        gradients.append([p.grad for p in networks.parameters()])
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "ask",
    [
        lambda n, values: torch.autograd.grad(values.sum(), [*n.critic.parameters()], allow_unused=True),
        lambda n, values: values.register_hook(lambda slope: slope * 0.5),
        lambda n, values: values.retain_grad(),
        lambda n, values: values.grad_fn,
        lambda n, values: values.grad,
    ],
)
def test_arrays_refuse_what_only_the_graph_of_torch_knows(ask: Callable[[Networks, Any], Any]) -> None:
    networks = Networks("tanh")
    with (
        LossScope(arrays=True),
        pytest.raises(TypeError, match="would ask torch's autograd"),
    ):
        ask(networks, networks.critic(X))


class Wrapper(nn.Module):
    """Code that never opted in, around a network that did."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, features: Tensor) -> Any:
        return self.network(features)


def test_networks_inside_of_code_that_did_not_opt_in_give_tensors() -> None:
    n = Networks("tanh")
    assert {n.actor, n.critic} <= opted_in([n.actor, nn.ModuleList([n.critic])])
    assert n.critic not in opted_in([n.actor, Wrapper(n.critic), n.critic])
    with LossScope(arrays=True, opted_in=opted_in([n.actor, Wrapper(n.critic)])):
        assert type(n.actor(X).mean) is ArrayTensor
        assert type(n.critic(X)) is Tensor
    n.critic.forward = n.critic.forward  # type: ignore[method-assign]
    assert n.critic not in opted_in([n.critic])


def test_hooks_on_networks_get_tensors() -> None:
    n, kinds = Networks("tanh"), []
    n.critic.register_forward_hook(lambda module, inputs, output: kinds.append(type(output)))
    with LossScope(arrays=True):
        n.critic(X)
    assert kinds == [Tensor]


def opted_out(critic: Any) -> None:
    critic.array_arithmetic = False


@pytest.mark.parametrize(
    "change",
    [
        opted_out,
        lambda critic: critic.register_forward_hook(lambda *_: None),
        lambda critic: critic.encoder.register_forward_hook(lambda *_: None),
        lambda critic: critic.heads.weight.register_hook(lambda slope: slope),
        lambda critic: critic.heads.register_forward_pre_hook(lambda *_: None),
        lambda critic: setattr(critic, "heads", torch.nn.Sequential(critic.heads)),
    ],
    ids=["opted out", "hook", "hook of the encoder", "hook of a gradient", "hook of a head", "other head"],
)
def test_scope_sees_what_changed_of_a_network_that_it_knows(change: Callable[[Any], object]) -> None:
    n, scope = Networks("tanh"), LossScope(arrays=True)
    kinds = []
    for changes in (False, False, True):
        if changes:
            change(n.critic)
        scope.invalidate()
        with scope:
            kinds.append(type(n.critic(X)))
    assert kinds == [ArrayTensor, ArrayTensor, Tensor]


def test_scope_forgets_networks_that_are_there_no_more() -> None:
    n, scope = Networks("tanh"), LossScope()
    for _ in range(3):
        with scope:
            copy.deepcopy(n.critic)(X)
        scope.invalidate()
    assert len(scope._heads._mlps) == 1


def test_scope_begins_with_nothing_in_a_copy() -> None:
    n, scope = Networks("tanh"), LossScope(arrays=True)
    with scope:
        n.critic(X)
    assert copy.deepcopy(scope).arrays
    assert not copy.deepcopy(scope)._heads._mlps
