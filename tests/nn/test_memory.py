"""The memory behind an encoder: initial weights, sequences, padding and single steps."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from mlhooks.fast.switch import is_plain, native, plain
from mlhooks.nn.features import FeatureLayout
from mlhooks.nn.memory import Memory
from mlhooks.nn.networks import Actor, Critic, QNetwork
from mlhooks.settings import NetworkSettings
from mlhooks.testing.specs import make_behavior_spec

NATIVE = pytest.mark.skipif(is_plain() or native("mlp") is None, reason="torch computes all networks")
SPEC = make_behavior_spec((3,), continuous=2, branches=(4,))
LAYOUT = FeatureLayout("Recall", SPEC)


def settings(**changes: object) -> NetworkSettings:
    memory = {"memory_size": 10, "sequence_length": 4}
    return NetworkSettings.model_validate({"hidden_units": 6, "num_layers": 2, "memory": memory, **changes})


def test_initial_weights_are_those_of_ml_agents() -> None:
    torch.manual_seed(0)
    memory = Memory(40, 128, "lecun_normal")
    for name, inputs in (("weight_ih_l0", 40), ("weight_hh_l0", 64)):
        bound = math.sqrt(6 / (inputs + 64))  # Xavier-uniform in each gate
        for block in getattr(memory.lstm, name).detach().view(4, 64, inputs):
            assert 0.9 * bound < float(block.abs().max()) <= bound
            assert float(block.mean()) == pytest.approx(0.0, abs=0.1 * bound)
    biases = memory.lstm.bias_ih_l0 + memory.lstm.bias_hh_l0
    assert biases.tolist() == [0.0] * 64 + [2.0] * 64 + [0.0] * 128


def test_orthogonal_weights_are_so_in_each_gate() -> None:
    memory = Memory(8, 16, "orthogonal")
    for block in memory.lstm.weight_hh_l0.view(4, 8, 8):
        torch.testing.assert_close(block @ block.T, torch.eye(8), atol=1e-5, rtol=0)


def test_units_begin_with_the_memory_of_their_first_row_and_end_before_their_padding() -> None:
    torch.manual_seed(1)
    memory = Memory(3, 8, "lecun_normal")
    rows, memories, lengths = torch.randn(12, 3), torch.randn(12, 8), torch.tensor([4, 1, 3])
    output, after = memory(rows, memories, 4, lengths)
    cell = nn.LSTMCell(3, 4)
    cell.load_state_dict({name.removesuffix("_l0"): tensor for name, tensor in memory.lstm.state_dict().items()})
    for unit, length in enumerate(lengths.tolist()):
        h, c = memories[4 * unit, None, :4], memories[4 * unit, None, 4:]
        for place in range(length):
            h, c = cell(rows[4 * unit + place, None], (h, c))
            torch.testing.assert_close(output[4 * unit + place], h[0])
        torch.testing.assert_close(after[unit], torch.cat([h, c], 1)[0])
    unpadded, _ = memory(rows, memories[::4], 4)
    there = (torch.arange(4) < lengths[:, None]).ravel()
    torch.testing.assert_close(unpadded[there], output[there])


def test_no_memory_is_a_memory_of_zeros() -> None:
    memory = Memory(3, 8, "lecun_normal")
    rows = torch.randn(6, 3)
    for width in (1, 2, 6):
        assert torch.equal(memory(rows, None, width)[0], memory(rows, torch.zeros(6, 8), width)[0])


@NATIVE
@pytest.mark.parametrize("rows", [1, 5, 64])
def test_step_without_torch_is_what_torch_computes(rows: int) -> None:
    torch.manual_seed(2)
    rng = np.random.default_rng(rows)
    features, memory = rng.normal(size=(rows, 3)).astype(np.float32), 3 * rng.normal(size=(rows, 10)).astype(np.float32)
    for network in (
        Actor(LAYOUT, SPEC.action_spec, settings()),
        Critic(LAYOUT, settings(), 2),
        QNetwork(LAYOUT, make_behavior_spec((3,), branches=(2, 3)).action_spec, settings(), dueling=True),
    ):
        for used in (network, copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
            computed = used.compute_step(features, memory)
            assert computed is not None
            with torch.no_grad():
                outputs, after = used.unroll(torch.from_numpy(features), torch.from_numpy(memory))
            for array, tensor in zip((*computed[0], computed[1]), (*outputs, after), strict=True):
                np.testing.assert_allclose(array, tensor.numpy(), atol=2e-6)


@NATIVE
def test_step_follows_its_weights_wherever_they_go() -> None:
    network = Actor(LAYOUT, SPEC.action_spec, settings())
    features, memory = np.ones((2, 3), np.float32), np.zeros((2, 10), np.float32)
    before = network.compute_step(features, memory)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1.5)
    assert not np.allclose(network.compute_step(features, memory)[1], before[1])
    other = Actor(LAYOUT, SPEC.action_spec, settings())
    for parameter, new in zip(network.parameters(), other.parameters(), strict=True):
        parameter.data = new.data.clone()
    network.weights_changed()
    found, wanted = (each.compute_step(features, memory)[0] for each in (network, other))
    assert all(map(np.array_equal, found, wanted))


@NATIVE
def test_step_is_left_to_torch_where_it_could_be_something_else() -> None:
    features, memory = np.ones((2, 3), np.float32), np.zeros((2, 10), np.float32)

    class Doubled(Memory):
        def forward(self, *arguments: Any, **named: Any) -> tuple[torch.Tensor, torch.Tensor]:
            output, after = super().forward(*arguments, **named)
            return 2 * output, after

    class Own(Actor):
        def outputs(self, *arguments: Any) -> list[torch.Tensor]:
            return [-output for output in super().outputs(*arguments)]

    replaced, hooked, overridden = (kind(LAYOUT, SPEC.action_spec, settings()) for kind in (Actor, Actor, Own))
    replaced.memory = Doubled(6, 10, "lecun_normal")
    hooked.memory.lstm.register_forward_hook(lambda *_: None)
    for network in (replaced, hooked, overridden):
        assert network.compute_step(features, memory) is None
    network = Actor(LAYOUT, SPEC.action_spec, settings())
    assert network.compute(features) is None  # It would leave the memory out.
    with plain():
        assert network.compute_step(features, memory) is None
    assert network.compute_step(features, memory) is not None
