"""Networks with a memory, without torch: plain layers, long short-term memory, and linear heads on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from torch import Tensor, nn

from mlhooks.fast.mlp import (
    REQUIRES_GRAD,
    Arrays,
    FastMLP,
    NetworkMLP,
    ParameterGradient,
    SavedPass,
    is_plain_parameter,
)
from mlhooks.fast.structure import has_gradient_hooks, may_do_more
from mlhooks.fast.switch import is_plain, native
from mlhooks.nn.memory import Memory

if TYPE_CHECKING:
    from mlhooks.nn.networks import Network

KERNELS = native("recurrent")


class SavedSequences(NamedTuple):
    """Results that a forward pass saved for the backward pass; the arrays have no padding.

    Attributes:
        passed: of the layers.
        gates: [rows, 4 * size], the activations of the gates; memory: [sequences, 2 * size], the initial ones.
        outputs, cells: [rows, size].
        lengths: [sequences], rows of each.
        places: [rows], of these among the rows with padding; None where there is none.
    """

    passed: SavedPass
    gates: np.ndarray
    memory: np.ndarray
    outputs: np.ndarray
    cells: np.ndarray
    lengths: np.ndarray
    places: np.ndarray | None


class FastRecurrent:
    """Computes plain layers, a memory and linear heads on the CPU, to float32 rounding.

    Weights are read where torch has them in every pass. One thread at a time may use an object. It computes no padding,
    where outputs are those of an output of zeros.

    Args:
        mlp: the plain layers, with what they add to the gates as the one head.
        memory: the memory.
        heads: linear layers on its output. Without any, that is the one output.
    """

    def __init__(self, mlp: FastMLP, memory: Memory, heads: Sequence[nn.Linear]) -> None:
        self.mlp, self.memory, self.heads = mlp, memory, [*heads]
        of_memory = [memory.lstm.get_parameter(f"{name}_hh_l0") for name in ("weight", "bias")]
        self.parameters: list[Tensor] = [*of_memory, *(p for head in heads for p in (head.weight, head.bias))]
        self._addresses = [parameter.data_ptr() for parameter in self.parameters]
        self._gradients = [ParameterGradient(parameter) for parameter in self.parameters]
        arrays = [parameter.detach().numpy() for parameter in self.parameters]
        self._weight, self._bias = arrays[:2]
        self._heads = list(zip(arrays[2::2], arrays[3::2], strict=True))

    def is_of(self, mlp: FastMLP, memory: nn.Module | None, heads: Sequence[nn.Linear]) -> bool:
        """Return whether it computes these parts, whose parameters lie where they were."""
        same = self.mlp is mlp and self.memory is memory and self.heads == [*heads]
        return same and not self.has_moved

    @property
    def has_moved(self) -> bool:
        """Whether parameters have other memory than before."""
        return self.mlp.has_moved or [p.data_ptr() for p in self.parameters] != self._addresses

    @property
    def learns(self) -> bool:
        """Whether all parameters have gradients to collect, for which no hook waits."""
        parameters = [*self.mlp.parameters, *self.parameters]
        return all(map(REQUIRES_GRAD, parameters)) and not any(map(has_gradient_hooks, parameters))

    def __call__(
        self, features: np.ndarray, memory: np.ndarray, width: int = 1, lengths: np.ndarray | None = None
    ) -> tuple[list[np.ndarray], np.ndarray]:
        """Return the outputs [units * width, out], and the memories [units, size] after each unit.

        Args:
            features: [units * width, size] float32, unit after unit, each with its padding at the end.
            memory: [units, size] float32, the memory before each.
            width: rows of a unit.
            lengths: [units] int64, the rows of each that are no padding; by default all.
        """
        places, lengths = _without_padding(len(features), width, lengths)
        gates = self.mlp(features if places is None else features[places])[0]
        outputs, cells = self._pass(gates, memory, lengths)
        last = np.cumsum(lengths) - 1
        after = np.concatenate([outputs[last], cells[last]], axis=1)
        return self._of_heads(outputs, places, len(features)), after

    def _pass(self, gates: np.ndarray, memory: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        assert KERNELS is not None
        passed: tuple[np.ndarray, np.ndarray] = KERNELS.forward(gates, memory, self._weight, self._bias, lengths)
        return passed

    def _of_heads(self, outputs: np.ndarray, places: np.ndarray | None, rows: int) -> list[np.ndarray]:
        found = [outputs @ weight.T + bias for weight, bias in self._heads] or [outputs]
        if places is None:
            return found
        nothing = np.zeros((rows, outputs.shape[1]), np.float32)
        padded = [np.tile(bias, (rows, 1)) for _, bias in self._heads] or [nothing]
        for array, part in zip(padded, found, strict=True):
            array[places] = part
        return padded

    def record(
        self, features: np.ndarray, memory: np.ndarray, width: int = 1, lengths: np.ndarray | None = None
    ) -> tuple[list[np.ndarray], SavedSequences]:
        """Return the outputs, and what the backward pass needs."""
        places, lengths = _without_padding(len(features), width, lengths)
        (gates,), passed = self.mlp.record(features if places is None else features[places])
        outputs, cells = self._pass(gates, memory, lengths)
        saved = SavedSequences(passed, gates, memory, outputs, cells, lengths, places)
        return self._of_heads(outputs, places, len(features)), saved

    def add_gradients(self, saved: SavedSequences, gradients: Arrays, *, inputs: bool = False) -> None:
        """Add the gradients of parameters to their `.grad`; features have none.

        Args:
            saved: what `record` returned.
            gradients: [units * width, out] of the loss with respect to each output; None for one that it does not use.
            inputs: whether the gradient of the features is wanted, which there is none of.
        """
        assert KERNELS is not None
        assert not inputs
        found: list[np.ndarray | None] = [None, None]
        above = np.zeros_like(saved.outputs)
        if not self._heads and gradients[0] is not None:
            above += gradients[0] if saved.places is None else gradients[0][saved.places]
        for gradient, (weight, _) in zip(gradients, self._heads, strict=bool(self._heads)):
            if gradient is None:
                found += [None, None]
                continue
            part = gradient if saved.places is None else gradient[saved.places]
            above += part @ weight
            # Padding reaches the bias alone, and has no gradient where it counts in no mean.
            found += [part.T @ saved.outputs, gradient.sum(0)]
        gates = saved.gates.copy()  # A loss may propagate gradients more than once.
        KERNELS.backward(gates, saved.memory, self._weight, saved.cells, above, saved.lengths)
        before = np.empty_like(saved.outputs)
        before[1:] = saved.outputs[:-1]
        before[np.cumsum(saved.lengths) - saved.lengths] = saved.memory[:, : before.shape[1]]
        found[:2] = gates.T @ before, gates.sum(0)
        for parameter, gradient in zip(self._gradients, found, strict=True):
            sink = None if gradient is None else parameter.sink()
            if sink is not None:
                sink += gradient
                parameter.flush()
        self.mlp.add_gradients(saved.passed, [gates])


def _without_padding(rows: int, width: int, lengths: np.ndarray | None) -> tuple[np.ndarray | None, np.ndarray]:
    """Return the places of rows that are no padding, None for all, and the lengths of sequences."""
    if lengths is None:
        return None, np.full(rows // width, width, np.int64)
    if lengths.sum() == rows:
        return None, lengths
    return np.flatnonzero(np.arange(width) < lengths[:, None]), lengths


class RecurrentNetwork(NetworkMLP):
    """The `FastRecurrent` of a network, which is looked for again only where the network has changed."""

    def __init__(self) -> None:
        super().__init__()
        self._found: FastRecurrent | None = None
        self._gates: nn.Linear | None = None
        self._heads: list[nn.Linear] = []

    def of(self, network: Network) -> FastRecurrent | None:
        """Return what computes the network; None where torch must."""
        mlp = self.find(network)
        if mlp is None or network.memory is None:
            return None
        if self._found is None or not self._found.is_of(mlp, network.memory, self._heads):
            self._found = FastRecurrent(mlp, network.memory, self._heads)
        return self._found

    def _parts(self, network: Network) -> tuple[nn.Module, Sequence[nn.Linear]] | None:
        self._heads = network.linear_heads()
        if not self._is_plain(network) or not _supports(network.memory, self._heads):
            return None
        assert network.memory is not None
        return network.encoder, [self._gates_of(network.memory.lstm)]

    def _is_plain(self, network: Network) -> bool:
        return network.unrolls_as_network()

    def _gates_of(self, lstm: nn.LSTM) -> nn.Linear:
        """Return a layer that shares the parameters by which the gates read the encoding."""
        weight, bias = (lstm.get_parameter(f"{name}_ih_l0") for name in ("weight", "bias"))
        if self._gates is None or self._gates.weight is not weight or self._gates.bias is not bias:
            self._gates = nn.Linear(lstm.input_size, 4 * lstm.hidden_size, device="meta")
            self._gates.weight, self._gates.bias = weight, bias
        return self._gates

    def _called(self, network: Network, mlp: FastMLP) -> Sequence[nn.Module]:
        assert network.memory is not None
        return *mlp.modules, network.memory, network.memory.lstm, *self._heads


class ActingMemory(RecurrentNetwork):
    """One step of a network with a memory; losses compute the network in another way."""

    def __init__(self) -> None:
        super().__init__()
        self._acting: FastRecurrent | None = None
        self._is_stale = True

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
        if self._is_stale or (self._acting is not None and self._acting.has_moved):
            self._acting, self._is_stale = self.of(network), False
        return None if self._acting is None else self._acting(features, np.ascontiguousarray(memory))

    def _is_plain(self, network: Network) -> bool:
        return network.computes_heads_only()

    def _called(self, network: Network, mlp: FastMLP) -> Sequence[nn.Module]:
        return network, *super()._called(network, mlp)


def _supports(memory: nn.Module | None, heads: Sequence[nn.Module]) -> bool:
    """Return whether this is the memory that `Memory` makes, with plain heads, all on the CPU, and nobody listens."""
    if KERNELS is None or type(memory) is not Memory or type(memory.lstm) is not nn.LSTM:
        return False
    lstm = memory.lstm
    if (lstm.num_layers, lstm.proj_size, lstm.bidirectional, lstm.bias) != (1, 0, False, True):
        return False
    if any(type(head) is not nn.Linear or head.bias is None for head in heads):
        return False
    modules = [memory, lstm, *heads]
    parameters = [parameter for module in modules for parameter in module.parameters()]
    return not any(map(may_do_more, modules)) and all(map(is_plain_parameter, parameters))
