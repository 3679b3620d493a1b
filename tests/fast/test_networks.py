from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from mlagents_envs.base_env import ActionSpec

from builtin_plugins.ppo import PPOSettings
from mlhooks.fast import networks as fast
from mlhooks.fast.adam import FlatParameters
from mlhooks.fast.arrays import ArrayTensor
from mlhooks.fast.mlp import MAX_HIDDEN_UNITS, FastMLP
from mlhooks.fast.networks import MAX_ACTIVATIONS, LossScope
from mlhooks.fast.switch import plain
from mlhooks.nn.features import FeatureLayout
from mlhooks.nn.layers import MLP
from mlhooks.nn.networks import Actor, Critic
from mlhooks.settings import NetworkSettings, TrainerSettings
from mlhooks.training.policy import ActorPolicy
from tests.fast.recording import make_network, needs_native
from tests.steps import make_spec

pytestmark = needs_native
ACTIVATIONS = ("swish", "tanh", "relu", "leaky_relu", "elu")
on_arrays = pytest.mark.parametrize("arrays", [True, False], ids=["arrays", "tensors"])
LAYOUT = FeatureLayout("B", make_spec(observation=6))


def make_settings(activation: str) -> NetworkSettings:
    return NetworkSettings(hidden_units=32, num_layers=3, activation=activation, initialization="kaiming_he")


def make_actor(activation: str, spec: ActionSpec) -> Actor:
    torch.manual_seed(0)
    return Actor(LAYOUT, spec, make_settings(activation))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("spec", [ActionSpec(2, (3, 2)), ActionSpec(3, ()), ActionSpec(0, (5,))], ids=str)
def test_fast_mlp_computes_what_the_actor_computes(activation: str, spec: ActionSpec) -> None:
    actor = make_actor(activation, spec)
    heads = actor.heads.linear()
    assert FastMLP.supports(actor.encoder, heads)
    features = np.random.default_rng(0).normal(0, 30, (17, 6)).astype(np.float32)
    expected = actor(torch.from_numpy(features))
    wanted = [part for part in (expected.mean, expected.logits) if part is not None]
    for ours, theirs in zip(FastMLP(actor.encoder, heads)(features), wanted, strict=True):
        np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=2e-5, atol=2e-5)


def test_fast_mlp_follows_the_weights_without_being_told() -> None:
    actor = make_actor("tanh", ActionSpec(1, ()))
    assert isinstance(actor.encoder, MLP)
    assert actor.heads.mean is not None
    mlp = FastMLP(actor.encoder, [actor.heads.mean])
    with torch.no_grad():
        for parameter in actor.parameters():
            parameter.mul_(0.5)
    features = np.ones((2, 6), np.float32)
    expected = actor(torch.from_numpy(features)).mean.detach().numpy()
    np.testing.assert_allclose(mlp(features)[0], expected, rtol=1e-5)


class Doubled(MLP):
    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return super().forward(features) * 2.0


class DoubledHead(torch.nn.Linear):
    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return super().forward(features) * 2.0


def test_layers_that_may_compute_something_else_are_left_to_torch() -> None:
    layers, head = MLP(6, [8], "tanh", "orthogonal"), torch.nn.Linear(8, 2)
    assert FastMLP.supports(layers, [head])
    assert not FastMLP.supports(torch.nn.Linear(2, 2), [head])
    assert not FastMLP.supports(Doubled(6, [8], "tanh", "orthogonal"), [head])
    assert not FastMLP.supports(layers, [head, DoubledHead(8, 2)])
    assert not FastMLP.supports(layers, [torch.nn.Linear(8, 2, bias=False)])
    head.register_forward_hook(lambda *_: None)
    assert not FastMLP.supports(layers, [head])
    assert not FastMLP.supports(
        MLP(6, [MAX_HIDDEN_UNITS + 1], "tanh", "orthogonal"), [torch.nn.Linear(MAX_HIDDEN_UNITS + 1, 2)]
    )
    assert not FastMLP.supports(MLP(6, [8], "gelu", "orthogonal"), [torch.nn.Linear(8, 2)])


def test_fast_mlp_ends_with_a_hook_or_other_memory() -> None:
    layers, head = MLP(6, [8], "tanh", "orthogonal"), torch.nn.Linear(8, 2)
    mlp = FastMLP(layers, [head])
    assert mlp.is_current
    hook = layers.register_forward_hook(lambda *_: None)
    assert not mlp.is_current
    hook.remove()
    assert mlp.is_current
    layers.layers[0].weight.data = torch.ones(8, 6)
    assert not mlp.is_current


class Networks(torch.nn.Module):
    """An actor, and a critic with two heads on the actor's encoder."""

    def __init__(self, activation: str) -> None:
        super().__init__()
        self.actor = make_actor(activation, ActionSpec(2, (3,)))
        assert isinstance(self.actor.encoder, MLP)
        self.critic = Critic(LAYOUT, make_settings(activation), 2, self.actor.encoder)
        self.frozen = self.actor.encoder.layers[1].weight
        self.frozen.requires_grad_(False)

    def loss(self, features: torch.Tensor) -> torch.Tensor:
        mean, log_std, logits = self.actor(features)
        with torch.no_grad():
            targets = self.critic(features * 0.5)
        errors = (self.critic(features) - targets).square().sum()
        return errors + (mean * log_std.exp()).pow(3).sum() + torch.log_softmax(logits, 1)[:, 1].sum()

    def gradients(self) -> dict[str, torch.Tensor | None]:
        return {name: None if p.grad is None else p.grad.clone() for name, p in self.named_parameters()}


@on_arrays
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradients_of_fast_networks_are_those_of_torch(activation: str, arrays: bool) -> None:
    networks, scope = Networks(activation), LossScope(arrays=arrays)
    features = torch.from_numpy(np.random.default_rng(0).normal(0, 2, (50, 6)).astype(np.float32))
    wanted_loss = networks.loss(features)
    wanted_loss.backward()
    wanted = networks.gradients()
    for _ in range(2):  # The second time uses what the scope has found.
        for parameter in networks.parameters():
            parameter.grad = torch.ones_like(parameter)  # Gradients are added to what is there.
        with scope:
            loss = networks.loss(features)
        scope.backward(loss)
        torch.testing.assert_close(loss.detach(), wanted_loss.detach(), rtol=1e-4, atol=1e-3)
        for name, gradient in networks.gradients().items():
            assert gradient is not None
            expected = wanted[name]
            size = 1.0 if expected is None else expected.abs().max().item()
            there = 1.0 if expected is None else 1.0 + expected
            torch.testing.assert_close(gradient, gradient * 0 + there, rtol=1e-4, atol=1e-4 * size, msg=name)


def outputs(encoder: Any, heads: Any, features: torch.Tensor, *, array_arithmetic: bool = True) -> Any:
    """Return what a network makes of features: here, or else by torch."""
    return make_network(encoder, heads, array_arithmetic=array_arithmetic)(features)


def test_other_networks_large_batches_and_other_numbers_are_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    heads = [torch.nn.Linear(8, 2)]
    layers, other = MLP(6, [8], "tanh", "orthogonal"), torch.nn.Linear(6, 8)
    network, rows, many = make_network(layers, heads), torch.ones(3, 6), torch.ones(MAX_ACTIVATIONS // 8 + 1, 6)
    cases = [
        (make_network(other, heads), rows),
        (network, many),
        (network, rows.as_subclass(torch.nn.Parameter)),
        (network, rows[None]),
        (network, rows.double()),
    ]
    with LossScope(arrays=True):
        for asked, features in cases:
            assert fast.outputs(asked, features) is None
        assert isinstance(outputs(layers, heads, rows)[0], ArrayTensor)
        with plain():
            assert fast.outputs(network, rows) is None
        monkeypatch.setattr(torch, "get_num_threads", lambda: 1)  # torch has nothing to win then.
        assert isinstance(outputs(layers, heads, many)[0], ArrayTensor)
    assert fast.outputs(network, rows) is None  # This is outside of a loss.


@pytest.mark.parametrize(("loss", "network"), [(True, False), (False, True), (False, False)])
def test_arrays_stand_in_for_tensors_only_where_loss_and_network_opt_in(loss: bool, network: bool) -> None:
    layers, heads = MLP(6, [8], "tanh", "orthogonal"), [torch.nn.Linear(8, 2)]
    with LossScope(arrays=loss):
        (output,) = outputs(layers, heads, torch.ones(3, 6), array_arithmetic=network)
        with torch.no_grad():
            (constant,) = outputs(layers, heads, torch.ones(3, 6), array_arithmetic=network)
    assert type(output) is type(constant) is torch.Tensor
    assert output.requires_grad
    assert not constant.requires_grad


@on_arrays
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_many_rows_are_computed_in_blocks_as_at_once(activation: str, arrays: bool) -> None:
    torch.manual_seed(0)
    encoder, heads = MLP(6, [512, 512], activation, "lecun_normal"), [torch.nn.Linear(512, 2), torch.nn.Linear(512, 1)]
    modules = [encoder, *heads]
    features, weights = torch.randn(1000, 6), torch.randn(1000, 3)
    scope = LossScope(arrays=arrays)
    for rows in (1000, 300, 900):  # These are whole blocks and a part of one, in arrays that are used again.

        def loss(outputs: list[torch.Tensor], rows: int = rows) -> torch.Tensor:
            return (outputs[0] * weights[:rows, :2]).sum() + (outputs[1] * weights[:rows, 2:]).sum()

        wanted_loss = loss([head(encoder(features[:rows])) for head in heads])
        wanted_loss.backward()
        wanted = [p.grad.clone() for module in modules for p in module.parameters() if p.grad is not None]
        for module in modules:
            module.zero_grad(set_to_none=False)
        with scope:
            ours = loss(outputs(encoder, heads, features[:rows]))
        scope.backward(ours)
        torch.testing.assert_close(ours.detach(), wanted_loss.detach(), rtol=1e-4, atol=1e-2)
        gradients = [p.grad for module in modules for p in module.parameters()]
        torch.testing.assert_close(gradients, wanted, rtol=1e-4, atol=1e-3)
        for module in modules:
            module.zero_grad()


@on_arrays
def test_parameters_may_be_frozen_and_thawed_between_losses(arrays: bool) -> None:
    torch.manual_seed(0)
    encoder, heads, scope = MLP(6, [8], "tanh", "orthogonal"), [torch.nn.Linear(8, 2)], LossScope(arrays=arrays)
    weight = encoder.layers[0].weight
    moved = []
    for learns in (True, False, True):
        encoder.requires_grad_(learns)
        weight.grad = torch.zeros_like(weight)
        with scope:
            (output,) = outputs(encoder, heads, torch.ones(3, 6))
            loss = output.sum()
        scope.backward(loss)
        moved.append(bool(weight.grad.any()))
    assert moved == [True, False, True]


@on_arrays
# torch wants another layout.
@pytest.mark.filterwarnings("ignore:grad and param do not obey the gradient layout contract")
def test_gradients_may_lie_in_memory_as_they_like(arrays: bool) -> None:
    torch.manual_seed(0)
    encoder, heads, scope = MLP(6, [8], "tanh", "orthogonal"), [torch.nn.Linear(8, 2)], LossScope(arrays=arrays)
    weight = encoder.layers[0].weight
    moved = []
    for grad in (torch.ones(8, 6), torch.ones(6, 8).t(), torch.ones(8, 6, 2)[..., 0]):
        weight.grad = grad
        with scope:
            loss = outputs(encoder, heads, torch.ones(3, 6))[0].sum()
        scope.backward(loss)
        moved.append(weight.grad.clone())
    torch.testing.assert_close(moved[1:], moved[:1] * 2)
    assert (moved[0] != 1.0).any()


def test_policy_acts_with_moved_weights_even_if_nobody_tells_it() -> None:
    class Forgetful(ActorPolicy):
        def weights_changed(self) -> None:
            """Forget to pass it on."""

    settings = TrainerSettings(trainer_type="ppo", hyperparameters=PPOSettings())
    policy = Forgetful("B", make_spec(observation=6, continuous=2), settings, torch.device("cpu"))
    policy.deterministic = True
    obs, rng = [np.ones((3, 6), np.float32)], np.random.default_rng(0)
    before = policy.act(obs, None, rng).continuous
    FlatParameters(policy.actor.parameters()).data += 1.0
    policy.weights_changed()
    after = policy.act(obs, None, rng).continuous
    wanted = policy.actor(torch.ones(3, 6)).mean.detach().numpy()
    np.testing.assert_allclose(after, wanted, rtol=1e-5)
    assert not np.allclose(before, after)
