"""How networks act without torch, and that they are called wherever a call may do something else."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from mlagents_envs.base_env import ActionSpec
from torch import Tensor, nn

from builtin_plugins.ppo import PPOSettings
from mlhooks.fast.switch import plain
from mlhooks.nn.heads import ActionHeads
from mlhooks.nn.networks import Actor, Network
from mlhooks.settings import TrainerSettings
from mlhooks.training.policy import ActorPolicy
from tests.fast.recording import needs_native
from tests.fast.test_networks import LAYOUT, make_actor, make_settings
from tests.steps import make_spec

pytestmark = needs_native
X = np.random.default_rng(3).normal(0, 2, (9, 6)).astype(np.float32)


class Own(Network):
    """A network of a kind of its own, with a head for each of two tasks."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = make_actor("tanh", ActionSpec(2, ())).encoder
        self.heads = nn.ModuleList(nn.Linear(32, 3) for _ in range(2))
        self.task = 0

    def linear_heads(self) -> list[nn.Linear]:
        return [self.heads[self.task]]  # type: ignore[list-item]

    def forward(self, features: Tensor) -> Tensor:
        return self.outputs(features)[0]


def computed(network: Network, features: np.ndarray = X) -> np.ndarray:
    (outputs,) = network.compute(features) or [None]
    assert outputs is not None
    return outputs


def in_torch(network: Any, features: np.ndarray = X) -> np.ndarray:
    with torch.no_grad(), plain():
        result = network(torch.from_numpy(features))
    return (result if isinstance(result, Tensor) else result.mean).numpy()


def head_replaced(network: Any) -> None:
    network.heads.mean = nn.Linear(32, 2)


def heads_replaced(network: Any) -> None:
    network.heads = ActionHeads(32, ActionSpec(2, ()), "orthogonal")


def layer_replaced(network: Any) -> None:
    network.encoder.layers[1] = nn.Linear(32, 32)


def layer_added(network: Any) -> None:
    network.encoder.layers.append(nn.Linear(32, 32))


def layers_exchanged(network: Any) -> None:
    layers = network.encoder.layers
    layers[1], layers[2] = layers[2], layers[1]


def activation_replaced(network: Any) -> None:
    network.encoder._activate = torch.relu


def weights_moved(network: Any) -> None:
    network.encoder.layers[2].weight.data = torch.full((32, 32), 0.01)


def parameter_replaced(network: Any) -> None:
    network.heads.mean.weight = nn.Parameter(torch.ones(2, 32))


CHANGES = [
    *(head_replaced, heads_replaced, layer_replaced, layer_added, layers_exchanged, activation_replaced),
    *(weights_moved, parameter_replaced),
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_network_acts_as_it_is_after_a_change(change: Callable[[Any], None]) -> None:
    actor = make_actor("tanh", ActionSpec(2, ()))
    before = computed(actor)
    np.testing.assert_allclose(before, in_torch(actor), rtol=2e-5, atol=2e-5)
    torch.manual_seed(5)
    change(actor)
    actor.weights_changed()
    after = actor.compute(X)
    assert not np.allclose(before, in_torch(actor), atol=1e-3)
    if change is not activation_replaced:  # No native activation computes that one.
        assert after is not None
        np.testing.assert_allclose(after[0], in_torch(actor), rtol=2e-5, atol=2e-5)
    else:
        assert after is None


class Doubled(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return 2.0 * super().forward(x)


class OtherHeads(ActionHeads):
    def parameters_of(self, outputs: list[Tensor]) -> Any:
        return super().parameters_of([2.0 * output for output in outputs])


def hook(network: Any) -> None:
    network.register_forward_hook(lambda *_: None)


def hook_on_a_layer(network: Any) -> None:
    network.encoder.layers[1].register_forward_hook(lambda *_: None)


def own_forward(network: Any) -> None:
    network.forward = lambda features: network.heads(network.encoder(2.0 * features))


def own_forward_of_a_layer(network: Any) -> None:
    layer = network.encoder.layers[0]
    layer.forward = lambda x: 2.0 * nn.functional.linear(x, layer.weight, layer.bias)


def class_of_a_layer(network: Any) -> None:
    network.encoder.layers[0].__class__ = Doubled


def other_heads(network: Any) -> None:
    network.heads = OtherHeads(32, ActionSpec(2, ()), "orthogonal")


class Negated(Actor):
    def forward(self, features: Tensor) -> Any:
        return super().forward(-features)


def class_of_the_network(network: Any) -> None:
    network.__class__ = Negated


DO_MORE = [hook, hook_on_a_layer, own_forward, own_forward_of_a_layer, class_of_a_layer, other_heads]


@pytest.mark.parametrize("change", [*DO_MORE, class_of_the_network], ids=lambda change: change.__name__)
def test_network_that_may_do_more_than_its_heads_is_called(change: Callable[[Any], None]) -> None:
    actor = make_actor("tanh", ActionSpec(2, ()))
    assert actor.compute(X) is not None
    change(actor)
    actor.weights_changed()
    assert actor.compute(X) is None
    fresh = make_actor("tanh", ActionSpec(2, ()))
    change(fresh)
    assert fresh.compute(X) is None


def test_actor_whose_heads_are_not_linear_is_called() -> None:
    class Odd(Actor):
        def __init__(self) -> None:
            super().__init__(LAYOUT, ActionSpec(2, ()), make_settings("tanh"))
            self.heads: Any = nn.Bilinear(6, 32, 2)

        def forward(self, features: Tensor) -> Any:
            return self.heads(features, self.encoder(features))

    assert Odd().compute(X) is None


def test_network_of_a_kind_of_its_own_acts_by_the_head_that_it_has_chosen() -> None:
    network = Own()
    found = [computed(network)]
    network.task = 1
    network.weights_changed()
    found.append(computed(network))
    for task, outputs in enumerate(found):
        network.task = task
        np.testing.assert_allclose(outputs, in_torch(network), rtol=2e-5, atol=2e-5)
    assert not np.allclose(*found)


def test_several_networks_of_a_policy_act_each_by_itself() -> None:
    networks = [Own(), make_actor("relu", ActionSpec(2, ())), Own()]
    for _ in range(2):
        for network in networks:
            np.testing.assert_allclose(computed(network), in_torch(network), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda network: pickle.loads(pickle.dumps(network))])
def test_copy_of_a_network_that_has_acted_acts_by_its_own_weights(copied: Callable[[Any], Any]) -> None:
    network = Own()
    before = computed(network)
    other = copied(network)
    assert other._acting.mlp is None
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(0.5)
    np.testing.assert_allclose(computed(other), in_torch(other), rtol=2e-5, atol=2e-5)
    np.testing.assert_array_equal(computed(network), before)


def test_network_is_called_where_everything_is_plain() -> None:
    with plain():
        assert Own().compute(X) is None


class SeveralNetworks(ActorPolicy):
    """A policy with more networks than its actor, one of them inside another module."""

    def __init__(self) -> None:
        settings = TrainerSettings(trainer_type="ppo", hyperparameters=PPOSettings())
        super().__init__("B", make_spec(observation=6, continuous=2), settings, torch.device("cpu"))
        self.first, self.inner = Own(), Own()

    def modules(self) -> dict[str, nn.Module]:
        return {**super().modules(), "first": self.first, "others": nn.Sequential(self.inner)}


def test_all_networks_of_a_policy_are_looked_at_when_weights_changed() -> None:
    policy = SeveralNetworks()
    networks: list[Any] = [policy.actor, policy.first, policy.inner]
    assert all(network.compute(X) is not None for network in networks)
    for network in networks:
        hook(network)
    policy.weights_changed()
    assert all(network.compute(X) is None for network in networks)
