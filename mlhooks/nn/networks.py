"""Actor and critic networks."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
import torch
from mlagents_envs.base_env import ActionSpec
from torch import Tensor, nn

from mlhooks.fast import networks as fast
from mlhooks.fast.mlp import ActingNetwork, dense_part
from mlhooks.fast.opting_in import ArrayArithmetic
from mlhooks.fast.recurrent import ActingMemory
from mlhooks.fast.structure import computes_as
from mlhooks.nn.encoders import Encoder, make_encoder
from mlhooks.nn.features import FeatureLayout
from mlhooks.nn.heads import ActionHeads, ActionParameters, branch_slices
from mlhooks.nn.layers import linear
from mlhooks.nn.memory import Memory, make_memory
from mlhooks.nn.state_noise import StateNoiseHeads

if TYPE_CHECKING:
    from mlhooks.settings import NetworkSettings

Array = TypeVar("Array", Tensor, np.ndarray)


class Network(nn.Module, ArrayArithmetic):
    """An encoder with linear heads on it, and a memory between them where the settings ask for one.

    Attributes:
        memory: the memory behind the encoder, or None.
        autocast: the type in which torch computes the network, if not float32. Parameters, gradients, outputs and all
            that `mlhooks.fast` computes are float32 in any case.
        reads_bytes: whether it takes images as bytes.
    """

    OUTSIDE_LOSSES = frozenset({"compute", "compute_step", "computes_heads_only", "step", "weights_changed"})
    reads_bytes = True
    encoder: Encoder
    autocast: torch.dtype | None = None

    def __init__(self) -> None:
        super().__init__()
        self._acting, self._remembering = ActingNetwork(), ActingMemory()
        self.memory: Memory | None = None

    @property
    def memory_size(self) -> int:
        """The size of the memory that each agent carries; 0 without."""
        return 0 if self.memory is None else self.memory.size

    @property
    def encoding_size(self) -> int:
        """The size of what the heads read."""
        return self.encoder.output_size if self.memory is None else self.memory.output_size

    def linear_heads(self) -> list[nn.Linear]:
        """Return the heads; each subclass has its own. Without any, the one output is what they would read."""
        raise NotImplementedError

    def outputs(
        self,
        features: Tensor,
        memory: Tensor | None = None,
        width: int = 1,
        lengths: Tensor | None = None,
        *,
        beside: Tensor | None = None,
    ) -> list[Tensor]:
        """Return the output of each head [rows, out] for features [rows, size], which may come from other networks.

        Args:
            features: of a network with a memory, unit after unit of `width` consecutive rows.
            memory: as `unroll` takes it.
            width: rows of a unit; 1 without a memory.
            lengths: [units] int64, how many rows of each unit are no padding, whose outputs may be any; by default all.
            beside: [rows, extra], what the last layers read beside encodings of images, such as actions.
        """
        if self.memory is not None:
            computed = fast.unrolled(self, features, memory, width, lengths) if beside is None else None
            return self.unroll(features, memory, width, beside=beside)[0] if computed is None else computed[0]
        outputs = fast.outputs(self, features, beside)
        if outputs is not None:
            return outputs
        with self._precision(features):
            return [self._in_float32(output) for output in self._in_torch(features, beside)]

    def encoding(self, features: Tensor, beside: Tensor | None = None) -> Tensor:
        """Return the encoder's output [rows, encoder.output_size] for features [rows, size]; `beside` as `outputs`."""
        encoding = fast.encoding(self, features, beside)
        if encoding is not None:
            return encoding
        with self._precision(features):
            return self._in_float32(fast.encoding_in_torch(self.encoder, features, beside))

    def unroll(
        self,
        features: Tensor,
        memory: Tensor | None,
        width: int = 1,
        lengths: Tensor | None = None,
        beside: Tensor | None = None,
    ) -> tuple[list[Tensor], Tensor]:
        """Pass through units of rows by the memory that the network has, each from its own memory on.

        Args:
            features: [units * width, size], unit after unit.
            memory: [units * width, memory_size], the memory before each row, of which that of a unit's first row
                counts; or [units, memory_size]; None for zeros.
            width: rows of a unit.
            lengths: [units] int64 on the CPU, how many rows of each unit are no padding; by default all.
            beside: as `outputs` takes it.

        Returns:
            The output of each head [units * width, out]; and the memory after each unit [units, memory_size].
        """
        assert self.memory is not None
        if beside is None and not torch.is_grad_enabled():
            computed = fast.unrolled(self, features, memory, width, lengths)
            if computed is not None and computed[1] is not None:
                return computed[0], computed[1]
        output, after = self.memory(self.encoding(features, beside), memory, width, lengths)
        return [head(output) for head in self.linear_heads()] or [output], after

    def unrolls_as_network(self) -> bool:
        """Return whether this class and nobody else says how the network passes through units of rows."""
        own = (getattr(type(self), name) is getattr(Network, name) for name in ("unroll", "encoding"))
        return all(own) and not vars(self).keys() & {"unroll", "encoding"}

    def _in_torch(self, features: Tensor, beside: Tensor | None = None) -> list[Tensor]:
        encoding = fast.encoding_in_torch(self.encoder, features, beside)
        return [head(encoding) for head in self.linear_heads()] or [encoding]

    def _precision(self, features: Tensor) -> AbstractContextManager[Any]:
        return nullcontext() if self.autocast is None else torch.autocast(features.device.type, self.autocast)

    def _in_float32(self, output: Tensor) -> Tensor:
        return output if self.autocast is None else output.float()

    def compute(self, features: np.ndarray) -> list[np.ndarray] | None:
        """Return what `outputs` does, for acting: without torch and its autograd.

        Losses may compute the network at the same time in another thread.

        Returns:
            The output of each head [rows, out] for features [rows, size] float32. None where the network must be
            called: torch has to compute it, or a call may do more than use the outputs of the heads.
        """
        return self._acting.outputs(self, features)

    def compute_step(self, features: np.ndarray, memory: np.ndarray) -> tuple[list[np.ndarray], np.ndarray] | None:
        """Return what `unroll` does for units of one row, as `compute` does it."""
        return self._remembering.step(self, features, memory)

    def weights_changed(self) -> None:
        """Take note that modules may have changed, to look at them before the network acts again."""
        self._acting.weights_changed()
        self._remembering.weights_changed()

    def computes_heads_only(self) -> bool:
        """Return whether a call computes what the class right below `Network` says, and nothing else."""
        kind = next(kind for kind in reversed(type(self).__mro__) if issubclass(kind, Network) and kind is not Network)
        return computes_as(self, kind)


class Actor(Network):
    """A policy network: an encoder and the action heads on it.

    Args:
        layout: layout of the input features.
        action_spec: the behavior's actions.
        settings: size, activation and initialization of the network.
        conditional: whether standard deviations depend on what is observed, as those of squashed actions do.
    """

    array_arithmetic = True
    heads: ActionHeads

    def __init__(
        self,
        layout: FeatureLayout,
        action_spec: ActionSpec,
        settings: NetworkSettings,
        *,
        conditional: bool = False,
    ) -> None:
        super().__init__()
        self.encoder = make_encoder(layout, settings)
        self.memory = make_memory(self.encoder.output_size, settings)
        kind, log_std = settings.initialization, settings.log_std_init
        if settings.use_sde and action_spec.continuous_size:
            self.heads = StateNoiseHeads(
                self.encoding_size,
                action_spec,
                kind,
                log_std_init=log_std,
                full_std=settings.full_std,
                squashed=conditional,
            )
        else:
            conditional = conditional or settings.state_dependent_std
            self.heads = ActionHeads(
                self.encoding_size, action_spec, kind, conditional=conditional, log_std_init=log_std or 0.0
            )

    def linear_heads(self) -> list[nn.Linear]:
        """Return the heads, as `ActionHeads.linear` has them."""
        return self.heads.linear()

    def forward(
        self, features: Tensor, memory: Tensor | None = None, width: int = 1, lengths: Tensor | None = None
    ) -> ActionParameters:
        """Return distribution parameters for features [rows, size]; the others are as for `outputs`."""
        return self.heads.parameters_of(self.outputs(features, memory, width, lengths))

    def step(self, features: Tensor, memory: Tensor) -> tuple[ActionParameters, Tensor]:
        """Return distribution parameters for features [rows, size], and the memories [rows, memory_size] after them."""
        outputs, after = self.unroll(features, memory)
        if self.computes_heads_only():
            return self.heads.parameters_of(outputs), after
        return self(features, memory), after

    def weights_changed(self) -> None:
        """Do what the base class does, and drop what the heads derived from their weights."""
        super().weights_changed()
        if isinstance(self.heads, StateNoiseHeads):
            self.heads.weights_changed()

    def computes_heads_only(self) -> bool:
        """Return whether a call computes action parameters from the outputs of the heads, and nothing else."""
        return super().computes_heads_only() and type(self.heads) in (ActionHeads, StateNoiseHeads)


class Critic(Network):
    """A value network with one head per reward signal: values of states, or of actions.

    Args:
        layout: layout of the input features.
        settings: size, activation and initialization of the network.
        signals: number of reward signals.
        encoder: an encoder to share with the actor; by default the critic has its own.
        memory: the memory behind that encoder.
        extra: size of the continuous actions that it reads beside the features.
        outputs: number of values of each signal, such as one for each choice of all branches.
    """

    array_arithmetic = True
    heads: nn.Linear

    def __init__(
        self,
        layout: FeatureLayout,
        settings: NetworkSettings,
        signals: int,
        encoder: Encoder | None = None,
        memory: Memory | None = None,
        *,
        extra: int = 0,
        outputs: int = 1,
    ) -> None:
        super().__init__()
        self.encoder = make_encoder(layout, settings, extra) if encoder is None else encoder
        self.memory = make_memory(self.encoder.output_size, settings) if encoder is None else memory
        kind = settings.initialization
        self.heads = linear(self.encoding_size, signals * outputs, initialization=kind, gain=1.0)
        if kind == "lecun_normal":  # ML-Agents draws the weights of each signal's value head like this.
            for weight in self.heads.weight.detach().split(outputs):
                nn.init.xavier_uniform_(weight)

    def linear_heads(self) -> list[nn.Linear]:
        """Return the one layer that computes all values."""
        return [self.heads]

    def forward(
        self,
        features: Tensor,
        memory: Tensor | None = None,
        width: int = 1,
        lengths: Tensor | None = None,
        *,
        actions: Tensor | None = None,
    ) -> Tensor:
        """Return values [rows, signals * outputs] for features [rows, size] and actions [rows, extra].

        `memory`, `width` and `lengths` are as for `outputs`.
        """
        features, actions = self.joined(features, actions)
        return self.outputs(features, memory, width, lengths, beside=actions)[0]

    def joined(self, features: Tensor, actions: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return features and actions as one where the encoder reads them so, for several critics that read the same.

        Returns:
            What `forward` takes for both.
        """
        if actions is None or hasattr(type(self.encoder), "before_body"):
            return features, actions
        return torch.cat([features, actions], 1), None


class QNetwork(Network):
    """Values of all actions of all branches.

    Args:
        layout: layout of the input features.
        action_spec: the behavior's actions, all discrete.
        settings: size, activation and initialization of the network.
        dueling: whether a state's value has a head of its own (Wang et al. 2016).
    """

    array_arithmetic = True
    advantages: nn.Linear
    value: nn.Linear | None

    def __init__(
        self, layout: FeatureLayout, action_spec: ActionSpec, settings: NetworkSettings, *, dueling: bool
    ) -> None:
        super().__init__()
        self.branches = branch_slices(action_spec)
        self.encoder = make_encoder(layout, settings)
        self.memory = make_memory(self.encoder.output_size, settings)
        size, kind = self.encoding_size, settings.initialization
        self.advantages = linear(size, sum(action_spec.discrete_branches), initialization=kind, gain=0.1)
        self.value = linear(size, 1, initialization=kind, gain=0.1) if dueling else None

    def linear_heads(self) -> list[nn.Linear]:
        """Return the heads in the order of `combine`'s arguments."""
        return [self.advantages] if self.value is None else [self.advantages, self.value]

    def forward(
        self, features: Tensor, memory: Tensor | None = None, width: int = 1, lengths: Tensor | None = None
    ) -> Tensor:
        """Return values [rows, sum of branch sizes] for features [rows, size]; the others are as for `outputs`."""
        return self.combine(*self.outputs(features, memory, width, lengths))

    def step(self, features: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Return values [rows, sum of branch sizes], and the memories [rows, memory_size] after these rows."""
        outputs, after = self.unroll(features, memory)
        return self.combine(*outputs) if self.computes_heads_only() else self(features, memory), after

    def combine(self, advantages: Array, value: Array | None = None) -> Array:
        """Compute values from the heads' outputs: with dueling heads, Wang et al., equation 9, in every branch."""
        if value is None:
            return advantages
        parts = [advantages[:, columns] for columns in self.branches]
        centered = [part - part.mean(1)[:, None] + value for part in parts]
        if isinstance(advantages, np.ndarray):
            return np.concatenate(centered, axis=1)
        return torch.cat(centered, dim=1)


def reads_unjoined(network: nn.Module) -> bool:
    """Return whether a network reads `UnjoinedFeatures`: only its encoder reads features, and takes them apart."""
    if not isinstance(network, Network) or not network.computes_heads_only():
        return False
    return dense_part(network.encoder) is not network.encoder


def exported_step(network: Any, features: Any, memory: Tensor) -> tuple[Any, Tensor]:
    """Return what `network.step` does, of memories with an axis for time as exported models carry them.

    Args:
        network: one that has a memory.
        features: as the network reads them.
        memory: [rows, 1, memory_size].

    Returns:
        What is decided by, and the memories [rows, 1, memory_size] after that.
    """
    timed = isinstance(network, Network) and network.computes_heads_only()
    decided, after = cast("Any", network).step(features, memory if timed else memory.squeeze(1))
    return decided, after if timed else after.unsqueeze(1)
