"""Native convolutions compute what torch's layers do."""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune
from torch.utils._python_dispatch import TorchDispatchMode

from mlhooks.fast import convolutions
from mlhooks.fast.convolutions import convolve
from mlhooks.fast.switch import native, plain

Shape = tuple[int, int, int]
kernels: Any = native("convolutions")
loops: Any = native("loops")
pytestmark = pytest.mark.skipif(kernels is None, reason="mlhooks was installed without a C compiler")
NATURE = ((32, 8, 4), (64, 4, 2), (64, 3, 1))
CASES: list[tuple[Shape, tuple[Shape, ...]]] = [
    ((4, 84, 84), NATURE),
    ((3, 36, 41), NATURE),
    ((1, 20, 25), ((16, 8, 4), (32, 4, 2))),
    ((5, 7, 6), ((35, 3, 1), (144, 3, 1))),
    ((2, 9, 9), ((3, 2, 3), (5, 2, 1))),  # The last rows and columns are never read.
    ((1, 1, 1), ((1, 1, 1),)),
]


@pytest.fixture(params=loops.kinds() if loops else ["none"])
def kind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Each kind of loops that this processor can run."""
    loops.use(request.param)
    convolutions._kernels.cache_clear()  # Packed weights are as wide as the loops' panels.
    yield
    loops.use(loops.kinds()[0])
    convolutions._kernels.cache_clear()


def make_layers(shape: Shape, filters: tuple[Shape, ...]) -> nn.Sequential:
    """Return layers whose results are not near 0, where rounding would decide between two slopes."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    channels = shape[0]
    for outputs, kernel, stride in filters:
        made = nn.Conv2d(channels, outputs, kernel, stride)
        with torch.no_grad():
            made.weight.mul_(0.5 / made.weight.abs().sum((1, 2, 3), keepdim=True))
            made.bias.copy_(torch.where(torch.rand(outputs) < 0.5, -0.9, 0.9))  # type: ignore[union-attr]
        layers += [made, nn.LeakyReLU()]
        channels = outputs
    return nn.Sequential(*layers[:-1], nn.Flatten(), layers[-1])


def make_pixels(shape: Shape, rows: int, *, floats: bool) -> Tensor:
    """Return bytes, or the floats that they stand for: [rows, channels, height, width]."""
    pixels = torch.randint(0, 256, (rows, *shape), dtype=torch.uint8)
    return pixels / 255 if floats else pixels


def flat(pixels: Tensor) -> Tensor:
    return pixels.permute(0, 2, 3, 1).flatten(1)


def gradients(layers: nn.Module) -> list[Tensor]:
    return [parameter.grad for parameter in layers.parameters() if parameter.grad is not None]


@pytest.mark.usefixtures("kind")
@pytest.mark.parametrize(("shape", "filters"), CASES)
@pytest.mark.parametrize("floats", [True, False])
@pytest.mark.parametrize(("rows", "threads"), [(1, 1), (5, 1), (5, 2)])
def test_results_and_gradients_are_those_of_torch(
    shape: Shape, filters: tuple[Shape, ...], floats: bool, rows: int, threads: int
) -> None:
    layers, pixels = make_layers(shape, filters), make_pixels(shape, rows, floats=floats)
    reference = copy.deepcopy(layers).double()
    wanted = reference((pixels if floats else pixels / 255).double())
    weights = torch.linspace(-1.0, 1.0, wanted.numel()).view(wanted.shape)
    (wanted * weights).sum().backward()
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = convolve(layers, shape, flat(pixels))
        assert found is not None
        (found * weights).sum().backward()
        with torch.no_grad():
            again = convolve(layers, shape, flat(pixels))
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(found, wanted.float(), rtol=1e-5, atol=1e-6)
    assert again is not None
    assert again.equal(found)
    for ours, theirs in zip(gradients(layers), gradients(reference), strict=True):
        torch.testing.assert_close(ours, theirs.float(), rtol=1e-4, atol=1e-5 * float(theirs.abs().max()))


def test_no_images_have_no_results() -> None:
    layers = make_layers((4, 84, 84), NATURE)
    found = convolve(layers, (4, 84, 84), torch.zeros(0, 84 * 84 * 4))
    assert found is not None
    assert found.shape == (0, 3136)
    found.sum().backward()
    assert all(not gradient.any() for gradient in gradients(layers))


def test_backward_pass_uses_the_weights_of_the_forward_pass() -> None:
    shape, filters = CASES[3]
    layers, pixels = make_layers(shape, filters), flat(make_pixels(shape, 4, floats=True))
    found = convolve(layers, shape, pixels)
    assert found is not None
    found.sum().backward(retain_graph=True)
    wanted = [gradient.clone() for gradient in gradients(layers)]
    layers.zero_grad()
    with torch.no_grad():
        layers[2].weight.mul_(3.0)
    found.sum().backward()
    for ours, theirs in zip(gradients(layers), wanted, strict=True):
        assert ours.equal(theirs)


def test_what_was_kept_is_let_go_of_with_the_results() -> None:
    shape, filters = CASES[2]
    found = convolve(make_layers(shape, filters), shape, flat(make_pixels(shape, 3, floats=True)))
    assert found is not None
    kept = weakref.ref(found.grad_fn.convolutions)  # type: ignore[union-attr]
    gc.disable()  # No references go in circles.
    try:
        del found
        assert kept() is None
    finally:
        gc.enable()


def test_frozen_layers_get_no_gradient() -> None:
    shape, filters = CASES[2]
    layers = make_layers(shape, filters)
    layers[0].requires_grad_(False)
    found = convolve(layers, shape, flat(make_pixels(shape, 3, floats=True)))
    assert found is not None
    found.sum().backward()
    assert layers[0].weight.grad is None
    assert layers[2].weight.grad is not None
    frozen = convolve(layers.requires_grad_(False), shape, flat(make_pixels(shape, 3, floats=True)))
    assert frozen is not None
    assert not frozen.requires_grad


def test_what_is_not_plain_is_left_to_torch() -> None:
    shape, filters = CASES[2]
    pixels = flat(make_pixels(shape, 3, floats=True))

    def is_left(layers: nn.Sequential, images: Tensor = pixels) -> bool:
        return convolve(layers, shape, images) is None

    plain = make_layers(shape, filters)
    assert not is_left(plain)
    assert is_left(plain, pixels.double())
    assert is_left(plain, pixels.clone().requires_grad_())
    with torch.autocast("cpu", torch.bfloat16):
        assert is_left(plain)
    others = [
        nn.Conv2d(1, 16, 8, 4, padding=1),
        nn.Conv2d(1, 16, 8, 4, bias=False),
        nn.Conv2d(1, 16, 8, (4, 2)),
        nn.Conv2d(1, 16, 8, 4, dtype=torch.float64),
        nn.MaxPool2d(2),
    ]
    assert all(is_left(nn.Sequential(other, *plain[1:])) for other in others)
    assert is_left(nn.Sequential(*plain[:-1], nn.LeakyReLU(0.2)))
    assert is_left(nn.Sequential(plain[0], plain[2], *plain[3:]))  # Nothing is behind the first one.
    assert is_left(plain[:-1])  # Nothing is behind the last one, either.
    assert is_left(nn.Sequential())
    assert is_left(nn.Sequential(*[nn.Conv2d(1, 1, 1), nn.LeakyReLU()] * 9))
    assert is_left(nn.Sequential(*plain[:-2], nn.Flatten(2), plain[-1]))
    with TorchDispatchMode():
        assert is_left(plain)
    assert torch.func.vmap(lambda images: torch.tensor(is_left(plain, images)))(pixels[:, None]).all()
    with torch.autograd.forward_ad.dual_level():
        assert is_left(plain)
    for listened in (plain, plain[0]):
        handle = listened.register_forward_hook(lambda *_: None)
        assert is_left(plain)
        handle.remove()
    handle = nn.modules.module.register_module_forward_hook(lambda *_: None)
    assert is_left(plain)
    handle.remove()
    assert not is_left(plain)


def test_weights_that_were_registered_again_are_found() -> None:
    shape, filters = CASES[2]
    layers, pixels = make_layers(shape, filters), flat(make_pixels(shape, 3, floats=True))
    wanted = convolve(layers, shape, pixels)
    prune.identity(layers[0], "weight")
    prune.remove(layers[0], "weight")
    assert next(iter(dict(layers[0].named_parameters()))) == "bias"
    found = convolve(layers, shape, pixels)
    assert found is not None
    assert wanted is not None
    assert found.equal(wanted)


def test_images_that_changed_before_the_backward_pass_are_an_error() -> None:
    shape, filters = CASES[2]
    pixels = flat(make_pixels(shape, 3, floats=True)).clone()
    found = convolve(make_layers(shape, filters), shape, pixels)
    assert found is not None
    pixels.mul_(2.0)
    with pytest.raises(RuntimeError, match="changed in place"):
        found.sum().backward()


def test_images_are_encoded_where_no_thread_can_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    shape, filters = CASES[2]
    layers, pixels = make_layers(shape, filters), flat(make_pixels(shape, 3, floats=True))
    wanted = convolve(layers, shape, pixels)
    ended = ThreadPoolExecutor(1)
    ended.shutdown()
    monkeypatch.setattr(convolutions, "_threads", lambda: ended)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        found = convolve(layers, shape, pixels)
    finally:
        torch.set_num_threads(before)
    assert found is not None
    assert wanted is not None
    assert found.equal(wanted)


def test_in_plain_torch_nothing_is_convolved_here() -> None:
    with plain():
        assert convolve(make_layers((4, 84, 84), NATURE), (4, 84, 84), torch.zeros(1, 84 * 84 * 4)) is None


def test_native_convolutions_refuse_what_they_would_misread() -> None:
    made = kernels.Convolutions((1, 20, 25), ((16, 8, 4),))
    packed = made.pack([(np.zeros((16, 1, 8, 8), np.float32), np.zeros(16, np.float32))])
    for images in (np.zeros((2, 400), np.float32), np.zeros((2, 400), np.uint8)):
        with pytest.raises(ValueError, match="size"):
            made.forward(images, packed, True)
    with pytest.raises(TypeError, match="float32"):
        made.forward(np.zeros((2, 500)), packed, True)
    with pytest.raises(ValueError, match="size"):
        made.pack([(np.zeros((16, 1, 8, 7), np.float32), np.zeros(16, np.float32))])
    with pytest.raises(ValueError, match="as many"):
        made.pack([])
    for wrong in ((), ((16, 21, 4),), ((16, 8, 0),), ((1, 1, 1),) * 9):
        with pytest.raises(ValueError, match="layer"):
            kernels.Convolutions((1, 20, 25), wrong)
    other = kernels.Convolutions((1, 20, 25), ((32, 8, 4),))
    with pytest.raises(ValueError, match="other"):
        other.forward(np.zeros((2, 500), np.float32), packed, True)
