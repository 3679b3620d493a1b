"""Linear layers, their initialization, and the stack of them that every network here is built from."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

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
SCALE = 1 / 255
"""The factor that turns a byte into a brightness in [0, 1]."""


def linear(inputs: int, outputs: int, *, initialization: str, gain: float) -> nn.Linear:
    """Return a linear layer, whose bias is zero unless torch's own initialization is asked for.

    Args:
        inputs: features in.
        outputs: features out.
        initialization: `lecun_normal` (normal with variance 1 / inputs; LeCun et al. 1998, section 4.6), `kaiming_he`
            (normal with variance 2 / inputs; He et al. 2015), `orthogonal` (Saxe et al. 2014), or `torch`: torch's own
            default, uniform up to 1 / sqrt(inputs), biases too.
        gain: factor on the initial weights; without effect for `torch`.
    """
    layer = nn.Linear(inputs, outputs)
    initialize(layer, initialization, gain)
    return layer


@torch.no_grad()
def initialize(layer: nn.Linear | nn.Conv2d, initialization: str, gain: float) -> None:
    """Draw a layer's weights again, as `linear` does; the inputs of a convolution are those of one output."""
    if initialization == "torch":
        layer.reset_parameters()
        return
    if initialization == "orthogonal":
        nn.init.orthogonal_(layer.weight, gain)
    else:
        variance = (2.0 if initialization == "kaiming_he" else 1.0) / layer.weight[0].numel()
        layer.weight.normal_(0.0, gain * math.sqrt(variance))
    if layer.bias is not None:
        layer.bias.zero_()


class Convolution(nn.Conv2d):
    """A convolution that also takes images as bytes; it then scales its weights, which are fewer than the pixels."""

    def forward(self, images: Tensor) -> Tensor:
        """Convolve [rows, channels, height, width], floats or bytes, to [rows, outputs, height, width]."""
        if images.dtype is not torch.uint8:
            return super().forward(images)
        pixels = images.to(torch.float32, memory_format=torch.channels_last)
        return functional.conv2d(pixels, self.weight * SCALE, self.bias, self.stride, self.padding)


class MLP(nn.Module):
    """Linear layers of some widths, each followed by the activation; [rows, inputs] -> [rows, width of the last one].

    Initial weights follow `network_settings.initialization`: `lecun_normal` as in ML-Agents, `kaiming_he`, `torch`, or
    `orthogonal` with gain sqrt(2) as most published PPO results use (Andrychowicz et al. 2021, section 3.2).
    """

    def __init__(self, inputs: int, widths: Sequence[int], activation: str, initialization: str) -> None:
        super().__init__()
        gain = math.sqrt(2.0) if initialization == "orthogonal" else 1.0
        sizes = [inputs, *widths]
        self.activation = activation
        self.output_size, self.widest = sizes[-1], max(sizes[1:], default=0)
        self.layers = nn.ModuleList(
            linear(a, b, initialization=initialization, gain=gain) for a, b in itertools.pairwise(sizes)
        )
        self._activate = ACTIVATIONS[activation]

    def forward(self, features: Tensor) -> Tensor:
        """Encode [rows, inputs] to [rows, output_size]."""
        for layer in self.layers:
            features = self._activate(layer(features))
        return features
