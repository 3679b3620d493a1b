"""Linear layers, their initialization, and the stack of them that every network here is built from."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "swish": functional.silu,
    "tanh": torch.tanh,
    "relu": functional.relu,
    "elu": functional.elu,
    "leaky_relu": functional.leaky_relu,
    "gelu": functional.gelu,
}


class Registered:
    """A module's attribute that holds a submodule or a parameter, or None.

    It is found sooner than by torch's own lookup, which begins with one that fails.
    """

    def __set_name__(self, _: type, name: str) -> None:
        self.name = name

    def __get__(self, module: nn.Module | None, _: type | None = None) -> Any:
        if module is None:
            return self
        for registered in (module._modules, module._parameters):
            if self.name in registered:
                return registered[self.name]
        raise AttributeError(self.name)  # after which Python asks torch, which looks at buffers, too


def registered() -> Any:
    """A `Registered` in place of what it will hold, as type checkers want it."""
    return Registered()


def linear(inputs: int, outputs: int, *, initialization: str, gain: float) -> nn.Linear:
    """A linear layer with zero bias.

    Args:
        inputs: features in.
        outputs: features out.
        initialization: `lecun_normal` (normal with variance 1 / inputs; LeCun et al. 1998, section 4.6), `kaiming_he`
            (normal with variance 2 / inputs; He et al. 2015) or `orthogonal` (Saxe et al. 2014).
        gain: factor on the initial weights.
    """
    layer = nn.Linear(inputs, outputs)
    initialize(layer, initialization, gain)
    return layer


@torch.no_grad()
def initialize(layer: nn.Linear | nn.Conv2d, initialization: str, gain: float) -> None:
    """Draw a layer's weights again, by the same schemes; the inputs of a convolution are those of one output."""
    if initialization == "orthogonal":
        nn.init.orthogonal_(layer.weight, gain)
    else:
        variance = (2.0 if initialization == "kaiming_he" else 1.0) / layer.weight[0].numel()
        layer.weight.normal_(0.0, gain * math.sqrt(variance))
    if layer.bias is not None:
        layer.bias.zero_()


class MLP(nn.Module):
    """`num_layers` linear layers of `hidden_units`, each followed by the activation; [rows, inputs] -> [rows, hidden].

    Initial weights follow `network_settings.initialization`: `lecun_normal` as in ML-Agents, `kaiming_he`, or
    `orthogonal` with gain sqrt(2) as most published PPO results use (Andrychowicz et al. 2021, section 3.2).
    """

    def __init__(self, inputs: int, hidden_units: int, num_layers: int, activation: str, initialization: str) -> None:
        super().__init__()
        gain = math.sqrt(2.0) if initialization == "orthogonal" else 1.0
        sizes = [inputs] + [hidden_units] * num_layers
        self.activation = activation
        self.output_size = sizes[-1]
        self.layers = nn.ModuleList(
            linear(a, b, initialization=initialization, gain=gain) for a, b in itertools.pairwise(sizes)
        )
        self._activate = ACTIVATIONS[activation]

    def forward(self, features: Tensor) -> Tensor:
        """Encode [rows, inputs] to [rows, hidden_units]."""
        for layer in self.layers:
            features = self._activate(layer(features))
        return features
