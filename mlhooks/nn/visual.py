"""Encoders of images, layer by layer those of ML-Agents."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from mlhooks.errors import UnsupportedError
from mlhooks.fast.convolutions import convolve
from mlhooks.nn.features import Image
from mlhooks.nn.layers import SCALE, Convolution, initialize, linear

if TYPE_CHECKING:
    from mlhooks.settings import NetworkSettings

CONVOLUTIONS: dict[str, tuple[tuple[int, int, int], ...]] = {
    "fully_connected": (),
    "match3": ((35, 3, 1), (144, 3, 1)),  # Gudmundsson et al. 2018, https://doi.org/10.1109/CIG.2018.8490442
    "simple": ((16, 8, 4), (32, 4, 2)),  # Mnih et al. 2013, https://arxiv.org/abs/1312.5602
    "nature_cnn": ((32, 8, 4), (64, 4, 2), (64, 3, 1)),  # Mnih et al. 2015, https://doi.org/10.1038/nature14236
}
"""Channels, kernel size and stride of each convolution; `visual_activation` follows it."""

STACKS = (16, 32, 32)
"""Channels of the residual stacks of `resnet` (Espeholt et al. 2018, https://arxiv.org/abs/1802.01561, figure 3)."""

SMALLEST = {"fully_connected": 1, "match3": 5, "resnet": 15, "simple": 20, "nature_cnn": 36}
"""Pixels that an image must have in height and width."""


class ImageEncoder(nn.Module):
    """Convolutions and a linear layer, chosen by `network_settings.vis_encode_type`.

    Initial weights of the convolutions are torch's own with `lecun_normal`, as in ML-Agents, and else follow
    `network_settings.initialization`; the linear layer's always do.

    Raises:
        UnsupportedError: the image is too small.
    """

    def __init__(self, image: Image, settings: NetworkSettings) -> None:
        super().__init__()
        kind, scheme = settings.vis_encode_type.value, settings.initialization.value
        channels, height, width = self.shape = image.shape
        leaky = settings.visual_activation == "leaky_relu"
        if min(height, width) < SMALLEST[kind]:
            fitting = [name for name, smallest in SMALLEST.items() if smallest <= min(height, width)]
            raise UnsupportedError(
                f"{image.title} has shape {image.shape} (channels, height, width), and vis_encode_type {kind} needs "
                f"height and width of at least {SMALLEST[kind]}. Choose another vis_encode_type under network_settings "
                f"({', '.join(fitting)}), or let the environment show larger images."
            )
        self.layers = nn.Sequential(
            *(_residual(channels) if kind == "resnet" else _plain(channels, CONVOLUTIONS[kind], leaky=leaky))
        )
        gain = 1.0 if scheme == "kaiming_he" else math.sqrt(2.0)
        if scheme != "lecun_normal":
            for layer in self.layers.modules():
                if isinstance(layer, nn.Conv2d):
                    initialize(layer, scheme, gain)
        with torch.no_grad():
            size = self.layers(torch.zeros(1, *self.shape)).numel()
        self.dense = linear(size, settings.hidden_units, initialization=scheme, gain=gain)
        self._activate = functional.leaky_relu if leaky and kind != "resnet" else functional.relu

    def forward(self, pixels: Tensor) -> Tensor:
        """Encode images to [rows, hidden_units].

        Args:
            pixels: [rows, height * width * channels], floats in [0, 1] or bytes; or such floats as environments give
                them, [rows, channels, height, width].
        """
        if pixels.dim() == 4:
            return self._activate(self.dense(self._unflattened(pixels)))
        encoding, dense = convolve(self.layers, self.shape, pixels), self.dense
        if encoding is None:
            encoding = self._through_torch(pixels)
        # Without convolutions, scaling the fewer outputs replaces scaling the pixels.
        if encoding.dtype is torch.uint8:
            return self._activate(torch.addmm(dense.bias, encoding.float(), dense.weight.t(), alpha=SCALE))
        return self._activate(dense(encoding))

    def _through_torch(self, pixels: Tensor) -> Tensor:
        channels, height, width = self.shape
        images = pixels.unflatten(1, (height, width, channels)).permute(0, 3, 1, 2)
        if images.dtype is not torch.uint8:
            # This copies nothing, unless other features lie beside the image.
            images = images.contiguous(memory_format=torch.channels_last)
        encoding: Tensor = self.layers(images).flatten(1)
        return encoding

    def _unflattened(self, images: Tensor) -> Tensor:
        for layer in self.layers:
            images = images if isinstance(layer, nn.Flatten) else layer(images)
        return images.reshape(-1, self.dense.in_features)  # Inference engines need a known size.


def _plain(channels: int, convolutions: tuple[tuple[int, int, int], ...], *, leaky: bool) -> Iterator[nn.Module]:
    for number, (outputs, kernel, stride) in enumerate(convolutions, 1):
        yield Convolution(channels, outputs, kernel, stride)
        if number == len(convolutions):
            # It stands before the activation, whose gradient would otherwise mix two memory layouts.
            yield nn.Flatten()
        yield nn.LeakyReLU(inplace=True) if leaky else nn.ReLU(inplace=True)
        channels = outputs


def _residual(channels: int) -> Iterator[nn.Module]:
    for inputs, outputs in itertools.pairwise((channels, *STACKS)):
        yield Convolution(inputs, outputs, 3, padding=1)
        yield nn.MaxPool2d(3, 2)
        yield _ResidualBlock(outputs)
        yield _ResidualBlock(outputs)
    yield nn.SiLU()


class _ResidualBlock(nn.Module):
    """Two convolutions, each behind a swish, added to what they get."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        convolutions = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
        self.layers = nn.Sequential(*(layer for convolution in convolutions for layer in (nn.SiLU(), convolution)))

    def forward(self, x: Tensor) -> Tensor:
        """Compute the block: [rows, channels, height, width] -> the same."""
        result: Tensor = x + self.layers(x)
        return result
