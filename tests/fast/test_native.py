"""The native extension computes what torch and numpy compute, for every kind of processor that this one can be."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from mlhooks.fast.arrays import ArrayTensor
from mlhooks.fast.networks import LossScope
from mlhooks.fast.switch import native, plain
from mlhooks.nn import heads
from mlhooks.nn.layers import ACTIVATIONS
from tests.fast.recording import needs_native

pytestmark = needs_native
mlp: Any = native("mlp")
actions: Any = native("actions")
experience: Any = native("experience")
updates: Any = native("updates")
loops: Any = native("loops")
KINDS: list[str] = loops.kinds() if loops else ["none"]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each kind of loops that this processor can run."""
    if loops:
        loops.use(request.param)
    yield request.param
    if loops:
        loops.use(KINDS[0])


def layers(rng: np.random.Generator, sizes: list[int], outputs: list[int]) -> tuple[list[Any], list[Any]]:
    def layer(inputs: int, size: int) -> tuple[np.ndarray, np.ndarray]:
        weight = rng.normal(0.0, inputs**-0.5, (size, inputs)).astype(np.float32)
        return weight, rng.normal(0.0, 0.3, size).astype(np.float32)

    hidden = [layer(inputs, size) for inputs, size in pairwise(sizes)]
    return hidden, [layer(sizes[-1], size) for size in outputs]


def test_the_loops_of_every_processor_are_the_last_choice() -> None:
    assert KINDS[-1] == "any processor"
    with pytest.raises(ValueError, match="not in list"):
        loops.use("AVX-1024")


@pytest.mark.usefixtures("kind")
@pytest.mark.parametrize("activation", mlp.KINDS if mlp else [])
@pytest.mark.parametrize("rows", [0, 1, 4, 5, 40, 700])
@pytest.mark.parametrize(
    ("sizes", "outputs"),
    [([4, 64, 64], [2]), ([7, 33, 5], [1, 9]), ([1, 130], [3]), ([150, 20], []), ([9, 200, 195], [6, 70])],
)
def test_passes_are_those_of_torch(activation: str, rows: int, sizes: list[int], outputs: list[int]) -> None:
    rng = np.random.default_rng(0)
    hidden, heads = layers(rng, sizes, outputs)
    features = rng.normal(0.0, 3.0, (rows, sizes[0])).astype(np.float32)
    gradients = [rng.normal(0.0, 1.0, (rows, size)).astype(np.float32) for size in outputs or sizes[-1:]]
    wanted = in_torch(hidden, heads, activation, features, gradients)
    made = mlp.MLP(hidden, heads, activation)
    for _ in range(2):  # The second time uses memory that was used before.
        results, saved = made.record(features)
        sinks = [(np.ones_like(weight), np.ones_like(bias)) for weight, bias in (*hidden, *heads)]
        inputs = np.full_like(features, 9.0)
        made.backward(saved, gradients, sinks, inputs)
        made.release(saved)
        found = [*results, inputs, *(array - 1.0 for sink in sinks for array in sink)]
        for ours, theirs in zip([*found, *made.forward(features)], [*wanted, *wanted[: len(results)]], strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=3e-5, atol=3e-6 * max(10.0, np.abs(theirs).max(initial=0.0)))


def of_size(size: int, scale: float = 1.0) -> tuple[Any, np.ndarray]:
    """Return layers of a size and features for them."""
    rng = np.random.default_rng(size)
    hidden, heads = layers(rng, [5, size, size], [3])
    features = rng.normal(0.0, 1.0, (300, 5)).astype(np.float32)
    return mlp.MLP([(weight * np.float32(scale), bias) for weight, bias in hidden], heads, "swish"), features


def passed(made: Any, features: np.ndarray, size: int) -> list[np.ndarray]:
    """Return all that the passes of `of_size` compute."""
    (outputs,), saved = made.record(features)
    shapes = [(size, 5), (size, size), (3, size)]
    sinks = [(np.zeros(shape, np.float32), np.zeros(shape[0], np.float32)) for shape in shapes]
    inputs = np.empty_like(features)
    made.backward(saved, [outputs], sinks, inputs)
    made.release(saved)
    return [outputs, inputs, *(array for sink in sinks for array in sink), *made.forward(features)]


@pytest.mark.usefixtures("kind")
def test_what_other_passes_left_in_their_memory_changes_nothing() -> None:
    small, features = of_size(37)
    before = passed(small, features, 37)
    assert all(np.isfinite(array).all() for array in before)
    assert np.isnan(passed(*of_size(150, scale=np.nan), 150)[0]).all()
    for ours, theirs in zip(passed(small, features, 37), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_passes_of_several_threads_do_not_share_memory() -> None:
    networks = [(*of_size(size), size) for size in (40, 96, 150)]
    wanted = [passed(*network) for network in networks]
    with ThreadPoolExecutor(len(networks)) as pool:
        found = pool.map(lambda network: [passed(*network) for _ in range(20)], networks)
    for turns, theirs in zip(found, wanted, strict=True):
        for ours in turns:
            assert all(map(np.array_equal, ours, theirs))


def in_torch(
    hidden: list[Any], heads: list[Any], activation: str, features: np.ndarray, gradients: list[np.ndarray]
) -> list[np.ndarray]:
    """Return results of the heads or the last layer, and gradients of inputs, weights and biases, in float64."""
    parameters = [torch.tensor(p, dtype=torch.float64, requires_grad=True) for pair in (*hidden, *heads) for p in pair]
    pairs = list(zip(parameters[::2], parameters[1::2], strict=True))
    x = inputs = torch.from_numpy(features).double().requires_grad_()
    for weight, bias in pairs[: len(hidden)]:
        x = ACTIVATIONS[activation](functional.linear(x, weight, bias))
    results = [functional.linear(x, weight, bias) for weight, bias in pairs[len(hidden) :]] or [x]
    torch.autograd.backward(results, [torch.from_numpy(gradient).double() for gradient in gradients])
    found = [x.detach() for x in results] + [p.grad for p in (inputs, *parameters) if p.grad is not None]
    return [x.numpy() for x in found]


@pytest.mark.usefixtures("kind")
@pytest.mark.parametrize("activation", mlp.KINDS if mlp else [])
@pytest.mark.parametrize("x", [-1e20, -1e4, -90.0, -20.0, -8.3, 1e-3, 8.3, 20.0, 1e4, 1e20])
def test_activations_have_the_slope_of_those_in_torch_everywhere(activation: str, x: float) -> None:
    one, none = np.ones((1, 1), np.float32), np.zeros(1, np.float32)
    place = torch.tensor([x], requires_grad=True)
    wanted = ACTIVATIONS[activation](place)
    wanted.backward()
    assert place.grad is not None
    made = mlp.MLP([(one, none)], [(one, none)], activation)
    (result,), saved = made.record(np.full((1, 1), x, np.float32))
    slope = np.zeros(1, np.float32)
    made.backward(saved, [one], [(None, slope), (None, None)])
    assert (result.item(), slope.item()) == pytest.approx((wanted.item(), place.grad.item()), rel=1e-5, abs=3e-7)


def test_backward_pass_leaves_out_what_nobody_asks_for() -> None:
    hidden, heads = layers(np.random.default_rng(0), [3, 8], [2, 2])
    made = mlp.MLP(hidden, heads, "tanh")
    _, passed = made.record(np.ones((6, 3), np.float32))
    weight = np.zeros((8, 3), np.float32)
    made.backward(passed, [np.ones((6, 2), np.float32), None], [(weight, None), (None, None), (None, None)])
    assert weight.any()


@pytest.mark.parametrize("outputs", [[2, 2], []])
def test_frozen_layers_pass_gradients_on_to_their_inputs(outputs: list[int]) -> None:
    rng = np.random.default_rng(0)
    hidden, heads = layers(rng, [3, 8, 40], outputs)
    made, features = mlp.MLP(hidden, heads, "tanh"), rng.normal(size=(6, 3)).astype(np.float32)
    gradients = [np.ones((6, size), np.float32) for size in outputs or [40]]
    results, passed = made.record(features)
    inputs = np.full_like(features, np.nan)
    made.backward(passed, gradients, [(None, None)] * (2 + len(outputs)), inputs)
    wanted = in_torch(hidden, heads, "tanh", features, gradients)[len(results)]
    np.testing.assert_allclose(inputs, wanted, rtol=1e-5, atol=1e-6)
    made.backward(passed, [None] * len(gradients), [(None, None)] * (2 + len(outputs)), inputs)
    assert not inputs.any()


def test_passes_refuse_arrays_that_they_would_misread() -> None:
    hidden, heads = layers(np.random.default_rng(0), [3, 8], [2])
    made = mlp.MLP(hidden, heads, "relu")
    with pytest.raises(TypeError, match="float32"):
        made.forward(np.ones((4, 3)))
    with pytest.raises(TypeError, match="contiguous"):
        made.forward(np.ones((4, 6), np.float32)[:, ::2])
    with pytest.raises(ValueError, match="size"):
        made.forward(np.ones((4, 2), np.float32))
    with pytest.raises(TypeError, match="float32"):
        made.forward(np.ones((4, 3), ">f4"))


@pytest.mark.parametrize(("sizes", "outputs"), [([3, 8, 300], [2]), ([3, 8], [2, 2])])
def test_passes_refuse_layers_that_do_not_fit_together(sizes: list[int], outputs: list[int]) -> None:
    hidden, heads = layers(np.random.default_rng(0), sizes, outputs)
    for wrong in ([*hidden, *hidden], [*hidden, (np.ones((8, 7), np.float32), np.ones(8, np.float32))]):
        with pytest.raises(ValueError, match="another size"):
            mlp.MLP(wrong, heads, "relu")
    with pytest.raises(ValueError, match="no hidden layers"):
        mlp.MLP([], heads, "relu")
    with pytest.raises(ValueError, match="another size"):
        mlp.MLP(hidden, [*heads, (np.ones((2, 200), np.float32), np.ones(2, np.float32))], "relu")


@pytest.mark.parametrize("size", [1, 2, 7])
def test_categorical_is_that_of_torch(size: int) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0.0, 5.0, (50, 2 * size)).astype(np.float32)[:, :size]  # It uses every other piece of memory.
    taken = rng.integers(0, size, (50, 1))
    upper = rng.normal(size=(50, 1)).astype(np.float32)
    for index, (value, gradients) in enumerate(actions.categorical(logits, taken)):
        theirs = torch.tensor(logits, requires_grad=True)
        wanted = heads.categorical(theirs, torch.from_numpy(taken))[index]
        wanted.backward(torch.from_numpy(upper))
        assert theirs.grad is not None
        np.testing.assert_allclose(value, wanted.detach().numpy(), rtol=1e-5, atol=2e-6)
        np.testing.assert_allclose(gradients[0](upper), theirs.grad.numpy(), rtol=1e-5, atol=2e-6)
    with pytest.raises(IndexError):
        actions.categorical(logits, taken + size)


def test_choice_is_that_in_numpy() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0.0, 2.0, (400, 5)).astype(np.float32)
    logits[:, 3] = heads.MASKED_LOGIT
    arrivals = rng.standard_exponential((5, 400), np.float32)
    arrivals[2, 7] = 0.0  # The generator may draw it.
    for times in (arrivals, None):
        with plain():
            theirs, their_log_probs = heads.choose(logits, times)
        ours, log_probs = actions.choose(logits, times)
        assert ours.tolist() == theirs.tolist()
        assert 3 not in ours
        np.testing.assert_allclose(log_probs, their_log_probs, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="no categories"):
        actions.choose(np.zeros((2, 0), np.float32), None)
    assert np.isnan(actions.choose(np.full((1, 2), np.nan, np.float32), None)[1]).all()


@pytest.mark.usefixtures("kind")
@pytest.mark.parametrize("size", [1, 5, 16, 1000, 3001])
def test_sums_exponentials_and_steps_are_those_in_numpy(size: int) -> None:
    x = np.random.default_rng(0).normal(0.0, 20.0, size).astype(np.float32)
    with LossScope(arrays=True):
        total, exponential = ArrayTensor(x).sum(), ArrayTensor(x).exp()
    assert total.item() == pytest.approx(x.sum(dtype=np.float64), rel=1e-6, abs=1e-4)
    np.testing.assert_allclose(exponential.array, np.exp(x, dtype=np.float64), rtol=2e-6)
    data, mean, square = np.ones(size, np.float32), np.zeros(size, np.float32), np.zeros(size, np.float32)
    updates.adam_step(*map(torch.from_numpy, (data, x, mean, square)), 0.1, 0.9, 0.999, 1e-8, 1)
    np.testing.assert_allclose(data, 1.0 - 0.1 * np.sign(x), rtol=1e-5)  # The first step is as long as the rate.


@pytest.mark.usefixtures("kind")
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("shape", [(1,), (3, 7), (2, 3, 5, 4)])
def test_numbers_that_are_not_finite_are_found_wherever_they_are(shape: tuple[int, ...], value: float) -> None:
    x = np.random.default_rng(0).normal(0.0, 20.0, shape).astype(np.float32)
    # Images have their channels last in memory.
    last = np.moveaxis(np.moveaxis(x, 1, -1).copy(), -1, 1) if x.ndim == 4 else x
    fine = np.ones(5, np.float32), np.full((2, 3, 4, 4), 255, np.uint8)
    for array in x, last:
        assert experience.all_finite((*fine, array))
        for place in np.ndindex(shape):
            kept, array[place] = array[place], value
            assert not experience.all_finite((array, *fine))
            array[place] = kept
    for other in (x.astype(np.float64), [1.0]):
        assert experience.all_finite((other,)) is NotImplemented
