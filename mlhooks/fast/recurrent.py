"""The step of a network with a memory, as agents act by it, without torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor, nn

from mlhooks.fast.mlp import FastMLP, NetworkMLP, is_plain_parameter
from mlhooks.fast.structure import may_do_more
from mlhooks.fast.switch import is_plain
from mlhooks.nn.memory import Memory

if TYPE_CHECKING:
    from mlhooks.nn.networks import Network


class ActingMemory(NetworkMLP):
    """What computes one step of a network with a memory; losses compute the network otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self._step: _Step | None = None
        self._is_stale = True
        self._gates: nn.Linear | None = None

    def weights_changed(self) -> None:
        """Look before the next step whether this can still compute the network."""
        self._is_stale = True

    def step(
        self, network: Network, features: np.ndarray, memory: np.ndarray
    ) -> tuple[list[np.ndarray], np.ndarray] | None:
        """Return the output of each head for features [rows, size], and the memories [rows, memory_size] after them.

        The result is None where torch must compute the network.
        """
        if is_plain():
            return None
        if self._is_stale or (self._step is not None and self._step.mlp.has_moved):
            mlp = self.find(network)
            self._step = None if mlp is None or network.memory is None else _Step(mlp, network.memory, self._heads)
            self._is_stale = False
        return None if self._step is None else self._step(features, memory)

    def _parts(self, network: Network) -> tuple[nn.Module, Sequence[nn.Linear]] | None:
        if network.memory is None or not network.computes_heads_only():
            return None
        self._heads = network.linear_heads()
        if not _supports(network.memory, self._heads):
            return None
        return network.encoder, [self._gates_of(network.memory.lstm)]

    def _gates_of(self, lstm: nn.LSTM) -> nn.Linear:
        """Return a layer that shares the parameters by which the gates read the encoding."""
        weight, bias = (lstm.get_parameter(f"{name}_ih_l0") for name in ("weight", "bias"))
        if self._gates is None or self._gates.weight is not weight or self._gates.bias is not bias:
            self._gates = nn.Linear(lstm.input_size, 4 * lstm.hidden_size, device="meta")
            self._gates.weight, self._gates.bias = weight, bias
        return self._gates

    def _called(self, network: Network, mlp: FastMLP) -> Sequence[nn.Module]:
        assert network.memory is not None
        return network, *mlp.modules, network.memory, network.memory.lstm, *self._heads


class _Step:
    """One step of encoder, memory and heads, which reads weights where torch has them.

    Args:
        mlp: computes the encoder, and what it adds to the gates.
        memory: the memory.
        heads: linear layers on its output.
    """

    def __init__(self, mlp: FastMLP, memory: Memory, heads: Sequence[nn.Linear]) -> None:
        self.mlp, self._size = mlp, memory.output_size
        self._recurrent, self._bias = _arrays(*map(memory.lstm.get_parameter, ("weight_hh_l0", "bias_hh_l0")))
        self._heads = [_arrays(head.weight, head.bias) for head in heads]
        # The logistic function of x is (1 + tanh(x / 2)) / 2, so that one call of tanh serves all gates.
        self._scale = np.full(4 * self._size, 0.5, np.float32)
        self._scale[2 * self._size : 3 * self._size] = 1.0

    def __call__(self, features: np.ndarray, memory: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
        size = self._size
        gates = self.mlp(features)[0]
        gates += memory[:, :size] @ self._recurrent
        gates += self._bias
        gates *= self._scale
        np.tanh(gates, out=gates)
        cell = gates[:, 2 * size : 3 * size]
        admit, keep, show = ((gates[:, n * size : (n + 1) * size] + 1.0) * 0.5 for n in (0, 1, 3))
        after = np.empty_like(memory)
        after[:, size:] = keep * memory[:, size:] + admit * cell
        output = np.multiply(show, np.tanh(after[:, size:]), out=after[:, :size])
        return [output @ weight + bias for weight, bias in self._heads], after


def _supports(memory: nn.Module, heads: Sequence[nn.Module]) -> bool:
    """Return whether this is the memory that `Memory` makes, with plain heads, all on the CPU, and nobody listens."""
    if type(memory) is not Memory or type(memory.lstm) is not nn.LSTM:
        return False
    lstm = memory.lstm
    if (lstm.num_layers, lstm.proj_size, lstm.bidirectional, lstm.bias) != (1, 0, False, True):
        return False
    if any(type(head) is not nn.Linear or head.bias is None for head in heads):
        return False
    modules = [memory, lstm, *heads]
    parameters = [parameter for module in modules for parameter in module.parameters()]
    return not any(map(may_do_more, modules)) and all(map(is_plain_parameter, parameters))


def _arrays(weight: Tensor, bias: Tensor) -> tuple[np.ndarray, np.ndarray]:
    return weight.detach().numpy().T, bias.detach().numpy()
