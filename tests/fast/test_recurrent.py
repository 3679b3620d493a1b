"""Networks with a memory, in losses and estimates, beside what torch computes."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mlhooks.fast.networks import LossScope
from mlhooks.fast.switch import native, plain
from mlhooks.nn.features import FeatureLayout
from mlhooks.nn.networks import Actor, Critic
from mlhooks.settings import NetworkSettings
from mlhooks.testing.managers import make_manager
from mlhooks.testing.specs import make_behavior_spec
from mlhooks.testing.tasks import any_kind
from mlhooks.testing.trainer_loop import Play, make_trainer
from mlhooks.training.batch import Batch
from mlhooks.training.trainer import Trainer
from tests.fast.recording import needs_native

pytestmark = needs_native
loops: Any = native("loops")
KINDS: list[str] = loops.kinds() if loops else ["none"]
SPEC = make_behavior_spec((3,), continuous=2, branches=(4,))
LAYOUT = FeatureLayout("Recall", SPEC)
SMALL = {"batch_size": 64, "buffer_size": 128}
REPLAY = {"batch_size": 32, "buffer_size": 500, "buffer_init_steps": 64, "steps_per_update": 64}
MIXED = {"continuous": 1, "branches": (3,)}
LEARNERS: list[Any] = [
    ("ppo", SMALL, {"continuous": 2}),
    (
        "ppo",
        {**SMALL, "value_clipping": True, "normalize_advantages": "minibatch"},
        {"continuous": 1, "branches": (3,)},
    ),
    ("ppo", {**SMALL, "shared_critic": True}, {"branches": (2, 3)}),
    ("a2c", SMALL, {"branches": (3,)}),
    ("dqn", REPLAY, {"branches": (3,)}),
    ("dqn", {**REPLAY, "double_q": True, "dueling": True, "n_step": 2, "burn_in": 2}, {"branches": (2, 3)}),
]


@pytest.fixture(params=KINDS)
def each_kind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Try the loops for each kind of processor that this one can run."""
    loops.use(request.param)
    yield
    loops.use(KINDS[0])


def settings(size: int, activation: str = "tanh") -> NetworkSettings:
    memory = {"memory_size": size, "sequence_length": 4}
    return NetworkSettings.model_validate(
        {"hidden_units": 7, "num_layers": 2, "activation": activation, "memory": memory}
    )


def gradients(trainer: Trainer, batch: Batch) -> tuple[Tensor, dict[str, float]]:
    optimizer: Any = trainer.optimizer
    optimizer.descent.flat.zero()
    with optimizer._scope:
        losses = optimizer.loss(batch)
    optimizer._scope.backward(losses["loss"])
    optimizer.descent.flat.collect()
    return optimizer.descent.flat.grad.clone(), {name: float(value.detach()) for name, value in losses.items()}


@pytest.mark.parametrize(("kind", "hyperparameters", "actions"), LEARNERS)
def test_losses_with_a_memory_are_those_of_torch_and_leave_nothing_to_it(
    kind: str, hyperparameters: dict[str, Any], actions: dict[str, Any]
) -> None:
    network = {"hidden_units": 12, "num_layers": 1, "memory": {"memory_size": 20, "sequence_length": 8}}
    given = {"trainer_type": kind, "hyperparameters": hyperparameters, "network_settings": network, "time_horizon": 11}
    task = any_kind(make_behavior_spec((5,), **actions))
    trainer = make_trainer(make_manager(), task.spec, given, seed=2)
    play = Play(trainer, task(8, seed=2, renewed=True, lazy=True))
    play.until_ready()
    trainer.update()
    play.until_ready()
    learning: Any = trainer.learning
    batch = learning.sample(trainer.store, 32) if kind == "dqn" else learning.rollout(trainer.store).laid_out()
    assert batch.present is not None
    scope = trainer.optimizer._scope  # type: ignore[attr-defined]
    scope.fallbacks.clear()
    computed, losses = gradients(trainer, batch)
    assert not scope.fallbacks
    with plain():
        wanted, of_torch = gradients(trainer, batch)
    assert float(wanted.norm()) > 1e-3
    torch.testing.assert_close(computed, wanted, atol=2e-5, rtol=1e-4)
    assert losses == pytest.approx(of_torch, abs=1e-5, rel=1e-5)


@pytest.mark.usefixtures("each_kind")
@pytest.mark.parametrize("size", [2, 10, 24, 128])
def test_estimates_of_sequences_are_those_of_torch(size: int) -> None:
    torch.manual_seed(size)
    for network, lengths in itertools.product(
        (Critic(LAYOUT, settings(size), 3), Actor(LAYOUT, SPEC.action_spec, settings(size, "swish"))),
        (None, torch.tensor([5, 1, 3, 5, 2, 4, 1])),
    ):
        features, memory = torch.randn(35, 3), 2 * torch.randn(35, size)
        there = torch.ones(35, dtype=torch.bool) if lengths is None else (torch.arange(5) < lengths[:, None]).ravel()
        with torch.no_grad():
            wanted, after = network.unroll(features, memory, 5, lengths)
            for given in (memory, memory[::5].clone()):
                with LossScope():
                    found, left = network.unroll(features, given, 5, lengths)
                for output, expected in zip(found, wanted, strict=True):
                    torch.testing.assert_close(output[there], expected[there], atol=2e-6, rtol=1e-5)
                torch.testing.assert_close(left, after, atol=2e-6, rtol=1e-5)
            with LossScope():
                zeros = network.outputs(features, None, 5)
            for output, expected in zip(zeros, network.unroll(features, None, 5)[0], strict=True):
                torch.testing.assert_close(output, expected, atol=2e-6, rtol=1e-5)


@pytest.mark.usefixtures("each_kind")
@pytest.mark.parametrize("size", [2, 10, 128])
def test_gradients_of_sequences_are_those_of_torch(size: int) -> None:
    torch.manual_seed(size)
    network = Critic(LAYOUT, settings(size), 2)
    features, memory, lengths = torch.randn(18, 3), torch.randn(18, size), torch.tensor([6, 2, 5])
    there = (torch.arange(6) < lengths[:, None]).ravel()
    weights = torch.randn(18, 2) * there[:, None]
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    other = copy.deepcopy(network)
    (other(features, memory, 6) * weights).sum().backward()
    scope = LossScope(arrays=True)
    with scope:
        loss = (network(features, memory, 6, lengths) * weights).sum()
    assert type(loss) is not Tensor
    scope.backward(loss)
    assert not scope.fallbacks
    for (name, parameter), expected in zip(network.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, expected.grad, atol=2e-5, rtol=1e-4, msg=name)


def test_gates_that_are_nearly_closed_have_their_small_gradients() -> None:
    torch.manual_seed(0)
    network = Critic(LAYOUT, settings(24), 1)
    features, memory = 40 * torch.randn(24, 3), torch.randn(24, 24)
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    with torch.no_grad():
        network.memory.lstm.bias_ih_l0[:12] = -20.0  # type: ignore[union-attr]
    other = copy.deepcopy(network)
    other(features, memory, 4).sum().backward()
    scope = LossScope(arrays=True)
    with scope:
        loss = network(features, memory, 4).sum()
    scope.backward(loss)
    found, wanted = (each.memory.lstm.weight_ih_l0.grad[:12] for each in (network, other))  # type: ignore[union-attr]
    most = float(wanted.abs().max())
    assert 0 < most < 1e-6
    torch.testing.assert_close(found, wanted, atol=1e-4 * most, rtol=1e-3)


def test_frozen_and_hooked_memories_are_left_to_torch() -> None:
    features, memory = torch.randn(6, 3), torch.randn(6, 10)
    for spoil in (
        lambda network: network.memory.lstm.weight_hh_l0.requires_grad_(False),
        lambda network: network.memory.register_forward_hook(lambda *_: None),
        lambda network: network.encoder.layers[0].weight.register_hook(lambda gradient: gradient),
    ):
        network = Critic(LAYOUT, settings(10), 1)
        for parameter in network.parameters():
            parameter.grad = torch.zeros_like(parameter)
        spoil(network)
        scope = LossScope(arrays=True)
        with scope:
            loss = network(features, memory, 3).sum()
        assert type(loss) is Tensor
        assert scope.fallbacks
        scope.backward(loss)
        assert float(network.heads.weight.grad.norm()) > 0


def test_kernels_refuse_sequences_that_do_not_fit_their_rows() -> None:
    kernels = native("recurrent")
    assert kernels is not None
    gates, memory, weight = np.zeros((5, 8), np.float32), np.zeros((2, 4), np.float32), np.zeros((8, 2), np.float32)
    for lengths in ([2, 2], [5, 0], [6, -1]):
        with pytest.raises(ValueError, match="sequence"):
            kernels.forward(gates, memory, weight, np.zeros(8, np.float32), np.array(lengths))
    with pytest.raises(ValueError, match="size"):
        kernels.forward(gates, memory[:1], weight, np.zeros(8, np.float32), np.array([2, 3]))
