"""Plain convolutions without torch.

torch takes a whole batch through one layer after the other, and so through memory; and its kernels reach a half of what
a processor without AVX-512 can do. `native/convolutions.pyx` takes one image after the other through all layers, in the
processor's cache. Several threads share the images.
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
from torch.autograd import forward_ad
from torch.autograd.function import once_differentiable
from torch.nn.modules.module import _has_any_global_hook

from mlhooks.fast.switch import is_plain, native
from mlhooks.nn.layers import Convolution

KERNELS = native("convolutions")
SLOPE = 0.01  # of the leaky ReLU
MOST = 8  # convolutions, as in the native extension


def convolve(layers: nn.Sequential, shape: tuple[int, ...], pixels: Tensor) -> Tensor | None:
    """What layers make of images, to float32 rounding: [rows, size], channels first; None where torch must compute it.

    Args:
        layers: convolutions without padding, a leaky ReLU behind each, and one `nn.Flatten` among them.
        shape: (channels, height, width) of the images.
        pixels: [rows, height * width * channels], float32 or bytes.
    """
    if KERNELS is None or is_plain() or not _suits(pixels):
        return None
    convolutions = _convolutions(layers)
    if convolutions is None:
        return None
    made = _made(shape, tuple((c.out_channels, int(c.kernel_size[0]), int(c.stride[0])) for c in convolutions))
    parameters = [cast("Tensor", parameter) for c in convolutions for parameter in (c.weight, c.bias)]
    if torch.is_grad_enabled() and any(parameter.requires_grad for parameter in parameters):
        result: Tensor = _Convolved.apply(made, pixels, *parameters)  # type: ignore[no-untyped-call]
        return result
    return _Passes(made, pixels, parameters).forward(keep=False)


def _suits(pixels: Tensor) -> bool:
    if type(pixels) is not Tensor or pixels.device.type != "cpu" or pixels.requires_grad:
        return False
    return pixels.dtype in (torch.float32, torch.uint8) and not torch.is_autocast_enabled("cpu") and not is_followed()


def is_followed() -> bool:
    """Return whether something besides autograd follows what torch does, and would not see this."""
    traced = (
        torch.compiler.is_compiling()
        or torch._C._get_tracing_state() is not None
        or torch._C._len_torch_dispatch_stack() > 0
    )
    return traced or torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def _convolutions(layers: nn.Sequential) -> list[nn.Conv2d] | None:
    """The convolutions; None where they are others than the native extension has, or somebody listens to one."""
    for layer in (layers, *layers):
        if layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks or layer._backward_pre_hooks:
            return None
    if _has_any_global_hook():
        return None
    plain = [layer for layer in layers if not _is_flatten(layer)]
    found, behind = plain[::2], plain[1::2]
    if (
        not 0 < len(found) <= MOST
        or len(found) > len(behind)
        or not all(map(_is_leaky, behind))
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
def _made(shape: tuple[int, ...], layers: tuple[tuple[int, int, int], ...]) -> Any:
    assert KERNELS is not None
    return KERNELS.Convolutions(shape, layers)


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(thread_name_prefix="convolutions")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_threads.cache_clear)  # which has none of its parent's threads


class _Passes:
    """A pass forward and one backward; each thread of torch's number has a share of the images."""

    def __init__(self, made: Any, pixels: Tensor, parameters: Sequence[Tensor]) -> None:
        arrays = [parameter.detach().numpy() for parameter in parameters]
        self._made, self._packed = made, made.pack(zip(arrays[::2], arrays[1::2], strict=True))
        images = np.ascontiguousarray(pixels.numpy())
        shares = max(1, min(torch.get_num_threads(), len(images)))
        self._images = np.array_split(images, shares)

    def forward(self, *, keep: bool) -> Tensor:
        """The results, with what `backward` needs where it is to be kept."""
        passed = self._each(lambda share: self._made.forward(self._images[share], self._packed, keep))
        self._kept = [kept for _, kept in passed]
        return torch.from_numpy(passed[0][0] if len(passed) == 1 else np.concatenate([part for part, _ in passed]))

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
        if len(shares) > 1:
            try:
                return [done.result() for done in [_threads().submit(function, share) for share in shares]]
            except RuntimeError as error:
                if "shutdown" not in str(error):  # there are no threads any more where the interpreter ends
                    raise
        return [*map(function, shares)]


class _Convolved(torch.autograd.Function):
    """Convolutions in autograd: of their parameters, not of images, and once."""

    @staticmethod
    def forward(ctx: Any, made: Any, pixels: Tensor, *parameters: Tensor) -> Tensor:
        ctx.passes = _Passes(made, pixels, parameters)
        ctx.pixels, ctx.version = pixels, pixels._version
        ctx.shapes = [parameter.shape for parameter in parameters]
        results: Tensor = ctx.passes.forward(keep=True)
        return results

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.pixels._version != ctx.version:
            raise RuntimeError("Images were changed in place after they were encoded, and before the backward pass.")
        gradients = ctx.passes.backward(gradient.numpy())
        shaped = (torch.from_numpy(g).view(shape) for g, shape in zip(gradients, ctx.shapes, strict=True))
        return None, None, *shaped
