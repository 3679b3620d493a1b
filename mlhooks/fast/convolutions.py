"""Plain convolutions without torch.

torch computes one layer after the other for a whole batch, so that all activations go through memory, and its kernels
reach half of what a processor without AVX-512 can do. `native/convolutions.pyx` computes all layers for one image after
the other, whose activations stay in the processor's cache. Several threads share the images.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, lru_cache
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch._C import _are_functorch_transforms_active, _get_tracing_state, _len_torch_dispatch_stack
from torch.autograd import forward_ad
from torch.autograd.function import once_differentiable
from torch.compiler import is_compiling
from torch.nn.modules.module import _has_any_global_hook

from mlhooks.fast.switch import is_plain, native
from mlhooks.nn.layers import Convolution

KERNELS = native("convolutions")
SLOPE = 0.01
"""The slope of the leaky ReLU below 0."""
MAX_LAYERS = 8
"""The number of convolutions that the native extension takes."""


def convolve(layers: nn.Sequential, shape: tuple[int, ...], pixels: Tensor) -> Tensor | None:
    """Return the layers' output for images, equal to float32 rounding; None where torch must compute it.

    Args:
        layers: convolutions without padding, a leaky ReLU behind each, and one `nn.Flatten` among them.
        shape: (channels, height, width) of the images.
        pixels: [rows, height * width * channels], float32 or bytes.

    Returns:
        [rows, size], flattened with channels first.
    """
    if KERNELS is None or is_plain() or not _supports(pixels):
        return None
    convolutions = _convolutions(layers)
    if convolutions is None:
        return None
    kernels = _kernels(shape, tuple((c.out_channels, int(c.kernel_size[0]), int(c.stride[0])) for c in convolutions))
    parameters = [cast("Tensor", parameter) for c in convolutions for parameter in (c.weight, c.bias)]
    if torch.is_grad_enabled() and any(parameter.requires_grad for parameter in parameters):
        result: Tensor = _ConvolutionFunction.apply(kernels, pixels, *parameters)  # type: ignore[no-untyped-call]
        return result
    return _ConvolutionPass(kernels, pixels, parameters).forward(keep=False)


def _supports(pixels: Tensor) -> bool:
    if type(pixels) is not Tensor or pixels.device.type != "cpu" or pixels.requires_grad:
        return False
    return pixels.dtype in (torch.float32, torch.uint8) and not is_traced() and not is_watched()


def is_traced() -> bool:
    """Return whether something besides autograd traces torch's operations, and would miss what is computed here."""
    traced = is_compiling() or _get_tracing_state() is not None or _len_torch_dispatch_stack() > 0
    return traced or _are_functorch_transforms_active() or forward_ad._current_level >= 0


def is_watched() -> bool:
    """Return whether torch computes in another type, or packs what it saves, or drops it as checkpoints do."""
    return torch.is_autocast_enabled("cpu") or torch._C._autograd._top_saved_tensors_default_hooks(False) is not None


def _convolutions(layers: nn.Sequential) -> list[nn.Conv2d] | None:
    """Return the convolutions; None where the native extension does not support them, or a module has a hook."""
    for layer in (layers, *layers):
        if layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks or layer._backward_pre_hooks:
            return None
    if _has_any_global_hook():
        return None
    plain = [layer for layer in layers if not _is_flatten(layer)]
    found, activations = plain[::2], plain[1::2]
    if (
        not 0 < len(found) <= MAX_LAYERS
        or len(found) > len(activations)
        or not all(map(_is_leaky, activations))
        or not all(map(_is_plain, found))
    ):
        return None
    return cast("list[nn.Conv2d]", found)


def _is_leaky(layer: nn.Module) -> bool:
    return type(layer) is nn.LeakyReLU and layer.negative_slope == SLOPE


def _is_flatten(layer: nn.Module) -> bool:
    return type(layer) is nn.Flatten and (layer.start_dim, layer.end_dim) == (1, -1)


def _is_plain(layer: nn.Module) -> bool:
    if not isinstance(layer, nn.Conv2d) or type(layer) not in (nn.Conv2d, Convolution):
        return False
    if layer.bias is None or layer.padding != (0, 0) or layer.dilation != (1, 1) or layer.groups != 1:
        return False
    square = len({*layer.kernel_size}) == len({*layer.stride}) == 1
    parameters = layer.weight, layer.bias
    return square and all(p.dtype == torch.float32 and p.is_cpu and p.is_contiguous() for p in parameters)


@lru_cache(maxsize=64)
def _kernels(shape: tuple[int, ...], layers: tuple[tuple[int, int, int], ...]) -> Any:
    assert KERNELS is not None
    return KERNELS.Convolutions(shape, layers)


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(thread_name_prefix="convolutions")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_threads.cache_clear)  # A forked process has none of its parent's threads.


class _ConvolutionPass:
    """A forward and a backward pass over a batch, whose images as many threads share as torch uses."""

    def __init__(self, kernels: Any, pixels: Tensor, parameters: Sequence[Tensor]) -> None:
        arrays = [parameter.detach().numpy() for parameter in parameters]
        self._kernels, self._packed = kernels, kernels.pack(zip(arrays[::2], arrays[1::2], strict=True))
        images = np.ascontiguousarray(pixels.numpy())
        shares = max(1, min(torch.get_num_threads(), len(images)))
        self._images = np.array_split(images, shares)

    def forward(self, *, keep: bool) -> Tensor:
        """Return the results [rows, size]; `keep` saves what `backward` needs."""
        shares = self._each(lambda share: self._kernels.forward(self._images[share], self._packed, keep))
        self._kept = [kept for _, kept in shares]
        return torch.from_numpy(shares[0][0] if len(shares) == 1 else np.concatenate([part for part, _ in shares]))

    def backward(self, gradient: np.ndarray) -> list[np.ndarray]:
        """Return the gradients of the parameters, given that of the results [rows, size]."""
        shares = np.array_split(gradient, len(self._images))
        added: list[np.ndarray] = []
        for layers in self._each(
            lambda n: self._kernels.backward(
                self._images[n], self._packed, self._kept[n], np.ascontiguousarray(shares[n])
            )
        ):
            gradients = [part for layer in layers for part in layer]
            added = [a + b for a, b in zip(added, gradients, strict=True)] if added else gradients
        return added

    def _each(self, function: Callable[[int], Any]) -> list[Any]:
        shares = range(len(self._images))
        if len(shares) > 1:
            try:
                return [done.result() for done in [_threads().submit(function, share) for share in shares]]
            except RuntimeError as error:
                if "shutdown" not in str(error):  # While the interpreter exits, no thread can be started.
                    raise
        return [*map(function, shares)]


class _ConvolutionFunction(torch.autograd.Function):
    """Convolutions as a function of torch's autograd, with first derivatives by their parameters only."""

    @staticmethod
    def forward(ctx: Any, kernels: Any, pixels: Tensor, *parameters: Tensor) -> Tensor:
        ctx.convolutions = _ConvolutionPass(kernels, pixels, parameters)
        ctx.pixels, ctx.version = pixels, pixels._version
        ctx.shapes = [parameter.shape for parameter in parameters]
        results: Tensor = ctx.convolutions.forward(keep=True)
        return results

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.pixels._version != ctx.version:
            raise RuntimeError("Images were changed in place after they were encoded, and before the backward pass.")
        gradients = ctx.convolutions.backward(gradient.numpy())
        shaped = (torch.from_numpy(g).view(shape) for g, shape in zip(gradients, ctx.shapes, strict=True))
        return None, None, *shaped
