"""Plain convolutions without torch, where there was a compiler.

torch takes a whole batch through one layer after the other, and so through memory; and its kernels reach a half of what
a processor without AVX-512 can do. `native/convolutions.pyx` takes one image after the other through all layers, in the
processor's cache. Several threads share the images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, lru_cache
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from mlhooks import native

COMPILED = native.load("convolutions")
SLOPE = 0.01  # of the leaky ReLU
SCALE = 1 / 255
"""What a byte is multiplied by to be a brightness in [0, 1]."""


class Convolution(nn.Conv2d):
    """A convolution that takes images as bytes, too; then its weights are scaled, of which there are fewer."""

    def forward(self, images: Tensor) -> Tensor:
        """[rows, channels, height, width], floats or bytes, to [rows, outputs, height, width]."""
        if images.dtype is not torch.uint8:
            return super().forward(images)
        pixels = images.to(torch.float32, memory_format=torch.channels_last)
        return functional.conv2d(pixels, self.weight * SCALE, self.bias, self.stride, self.padding)


def convolve(layers: nn.Sequential, shape: tuple[int, ...], pixels: Tensor) -> Tensor | None:
    """What layers make of images, to float32 rounding: [rows, size], channels first; None where torch must compute it.

    Args:
        layers: convolutions without padding, a leaky ReLU behind each, and one `nn.Flatten` among them.
        shape: (channels, height, width) of the images.
        pixels: [rows, height * width * channels], float32 or bytes.
    """
    if COMPILED is None or not _suits(pixels):
        return None
    convolutions = _convolutions(layers)
    if convolutions is None:
        return None
    made = _made(shape, tuple((c.out_channels, int(c.kernel_size[0]), int(c.stride[0])) for c in convolutions))
    parameters = [parameter for c in convolutions for parameter in c.parameters()]
    if torch.is_grad_enabled() and any(parameter.requires_grad for parameter in parameters):
        result: Tensor = _Convolved.apply(made, pixels, *parameters)  # type: ignore[no-untyped-call]
        return result
    return _Passes(made, pixels, parameters, keep=False).results


def _suits(pixels: Tensor) -> bool:
    plain = pixels.device.type == "cpu" and pixels.dtype in (torch.float32, torch.uint8) and not pixels.requires_grad
    return plain and not torch.compiler.is_compiling() and not torch.is_autocast_enabled("cpu")


def _convolutions(layers: nn.Sequential) -> list[nn.Conv2d] | None:
    """The convolutions; None where layers are not what is compiled, or somebody listens to one."""
    for layer in layers:
        if layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks or layer._backward_pre_hooks:
            return None
    plain = [layer for layer in layers if type(layer) is not nn.Flatten]
    found, behind = plain[::2], plain[1::2]
    if not found or len(found) > len(behind) or not all(map(_is_leaky, behind)) or not all(map(_is_plain, found)):
        return None
    return cast("list[nn.Conv2d]", found)


def _is_leaky(layer: nn.Module) -> bool:
    return isinstance(layer, nn.LeakyReLU) and layer.negative_slope == SLOPE


def _is_plain(layer: nn.Module) -> bool:
    if not isinstance(layer, nn.Conv2d) or type(layer) not in (nn.Conv2d, Convolution):
        return False
    plain = layer.padding == (0, 0) and layer.dilation == (1, 1) and layer.groups == 1 and layer.bias is not None
    square = len({*layer.kernel_size}) == len({*layer.stride}) == 1
    return plain and square and layer.weight.dtype == torch.float32 and layer.weight.is_contiguous()


@lru_cache(maxsize=64)
def _made(shape: tuple[int, ...], layers: tuple[tuple[int, int, int], ...]) -> Any:
    assert COMPILED is not None
    return COMPILED.Convolutions(shape, layers)


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(thread_name_prefix="convolutions")


class _Passes:
    """A pass forward, and all that one backward needs; each thread of torch's number has a share of the images."""

    def __init__(self, made: Any, pixels: Tensor, parameters: Sequence[Tensor], *, keep: bool) -> None:
        arrays = [parameter.detach().numpy() for parameter in parameters]
        self._made, self._packed = made, made.pack(zip(arrays[::2], arrays[1::2], strict=True))
        images = np.ascontiguousarray(pixels.numpy())
        shares = max(1, min(torch.get_num_threads(), len(images)))
        self._images = np.array_split(images, shares)
        passed = self._each(lambda share: made.forward(self._images[share], self._packed, keep))
        self._kept = [kept for _, kept in passed]
        self.results = torch.from_numpy(passed[0][0] if shares == 1 else np.concatenate([part for part, _ in passed]))

    def backward(self, gradient: np.ndarray) -> list[np.ndarray]:
        """The gradients of the parameters, from that of the results."""
        shares = np.array_split(gradient, len(self._images))
        added: list[np.ndarray] = []
        for layers in self._each(
            lambda n: self._made.backward(self._images[n], self._packed, self._kept[n], np.ascontiguousarray(shares[n]))
        ):
            gradients = [part for layer in layers for part in layer]
            added = [a + b for a, b in zip(added, gradients, strict=True)] if added else gradients
        return added

    def _each(self, function: Callable[[int], Any]) -> list[Any]:
        shares = range(len(self._images))
        return [*(map(function, shares) if len(shares) == 1 else _threads().map(function, shares))]


class _Convolved(torch.autograd.Function):
    """Convolutions in autograd: of their parameters, and not of images."""

    @staticmethod
    def forward(ctx: Any, made: Any, pixels: Tensor, *parameters: Tensor) -> Tensor:
        ctx.passes = _Passes(made, pixels, parameters, keep=True)
        ctx.shapes = [parameter.shape for parameter in parameters]
        results: Tensor = ctx.passes.results
        return results

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        gradients = ctx.passes.backward(gradient.numpy())
        shaped = (torch.from_numpy(g).view(shape) for g, shape in zip(gradients, ctx.shapes, strict=True))
        return None, None, *shaped
