"""Gymnasium spaces as observations and actions of a behavior."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from mlagents_envs.base_env import ActionSpec, ActionTuple, DimensionProperty, ObservationSpec, ObservationType

from mlhooks.errors import UnsupportedError

Encoded = npt.NDArray[np.float32] | npt.NDArray[np.uint8]
Path = tuple[str | int, ...]


class ObservationEncoder:
    """Turns batches of a space's observations into newly made arrays, one per elementary space.

    Boxes, whatever their type, become vectors of float32; boxes of two to four dimensions with bytes from 0 to 255
    become images of shape [channels, height, width] and stay bytes, the frames of a stack as channels. Discrete becomes
    one-hot, MultiDiscrete its one-hots side by side, MultiBinary a vector of zeros and ones. The parts of Dict and
    Tuple spaces become observations of their own, in the space's order, named by their keys (`camera/left`).

    Args:
        space: Observation space of one copy.
        title: How errors call the environment.

    Raises:
        UnsupportedError: The space has a part of another kind.
    """

    def __init__(self, space: spaces.Space[Any], title: str) -> None:
        self.specs: list[ObservationSpec] = []
        self._parts: list[tuple[Path, Callable[[Any], Encoded]]] = []
        for path, leaf in _leaves(space, ()):
            name = "/".join(map(str, path)) or "observation"
            shape, encode = _observation(leaf, f'observation "{name}" of {title}')
            image = (DimensionProperty.TRANSLATIONAL_EQUIVARIANCE,) * 2 if len(shape) == 3 else ()
            properties = (DimensionProperty.NONE, *image)
            self.specs.append(ObservationSpec(shape, properties, ObservationType.DEFAULT, name))
            self._parts.append((path, encode))

    def __call__(self, batch: Any) -> list[Encoded]:
        """Encode a batch as a vector environment returns it; each array is [copies, *shape]."""
        encoded = []
        for path, encode in self._parts:
            part = batch
            for key in path:
                part = part[key]
            encoded.append(encode(part))
        return encoded

    def each(self, observations: Sequence[Any]) -> list[Encoded]:
        """Encode one observation of each copy, in their order, as `__call__` would their batch."""
        encoded = []
        for path, encode in self._parts:
            parts = observations
            for key in path:
                parts = [part[key] for part in parts]
            encoded.append(encode(parts))
        return encoded


def _leaves(space: spaces.Space[Any], path: Path) -> Iterator[tuple[Path, spaces.Space[Any]]]:
    parts: Iterable[tuple[str | int, spaces.Space[Any]]]
    if isinstance(space, spaces.Dict):
        parts = space.spaces.items()
    elif isinstance(space, spaces.Tuple):
        parts = enumerate(space.spaces)
    else:
        yield path, space
        return
    for key, part in parts:
        yield from _leaves(part, (*path, key))


def _observation(space: spaces.Space[Any], title: str) -> tuple[tuple[int, ...], Callable[[Any], Encoded]]:
    """Return the shape of one encoded observation and what encodes a batch of them, an array or a list of arrays."""
    match space:
        case spaces.Box(shape=shape) if len(shape) in (2, 3, 4) and _holds_pixels(space):
            return _image(shape)
        case spaces.Box(shape=shape) | spaces.MultiBinary(shape=shape):
            size = int(np.prod(shape))
            return (size,), lambda batch: np.array(batch, dtype=np.float32, order="C").reshape(len(batch), size)
        case spaces.Discrete(n=n, start=start):
            return _one_hots(np.array([n]), np.array([start]))
        case spaces.MultiDiscrete(nvec=nvec, start=starts):
            return _one_hots(nvec.ravel(), starts.ravel())
    raise UnsupportedError(
        f"The {title} has the space {space}, which cannot be learned from; wrap the environment so that it shows Box, "
        "Discrete, MultiDiscrete or MultiBinary spaces, or a Dict or Tuple of them."
    )


def _holds_pixels(space: spaces.Box) -> bool:
    return space.dtype == np.uint8 and bool((space.low == 0).all() and (space.high == 255).all())


def _image(shape: tuple[int, ...]) -> tuple[tuple[int, ...], Callable[[Any], Encoded]]:
    if len(shape) == 2:
        shape = (*shape, 1)
    # Channels are few and come last, except in stacks of gray frames, where frames are channels and come first.
    first = shape[-3] < shape[-1]
    height, width = shape[-2:] if first else shape[-3:-1]
    channels = math.prod(shape) // (height * width)

    def encode(batch: Any) -> Encoded:
        pixels = np.asarray(batch, np.uint8).reshape(len(batch), *shape)
        # what is handed on has its channels first, but last in memory, as experience is kept
        if first:  # plane by plane, which takes a quarter of the time of a copy that numpy transposes
            last = np.stack([*pixels.reshape(-1, channels, height, width).swapaxes(0, 1)], axis=-1)
        else:
            last = np.array(np.moveaxis(pixels, (-3, -2), (1, 2)), order="C").reshape(-1, height, width, channels)
        return np.moveaxis(last, -1, 1)

    return (channels, height, width), encode


def _one_hots(
    sizes: npt.NDArray[np.integer[Any]], starts: npt.NDArray[np.integer[Any]]
) -> tuple[tuple[int, ...], Callable[[Any], Encoded]]:
    width = int(sizes.sum())
    offsets = np.cumsum(sizes) - sizes - starts

    def encode(batch: Any) -> Encoded:
        columns = np.asarray(batch).reshape(len(batch), len(sizes)) + offsets
        encoded = np.zeros((len(columns), width), dtype=np.float32)
        encoded[np.arange(len(columns))[:, None], columns] = 1.0
        return encoded

    return (width,), encode


def action_decoder(
    space: spaces.Space[Any], copies: int, title: str
) -> tuple[ActionSpec, Callable[[ActionTuple], Any]]:
    """Return a behavior's actions for an action space, and what turns them into a batch of the space's actions.

    Args:
        space: Action space of one copy: a Box of floats, of any shape, whose bounded numbers are -1 at the lower and 1
            at the upper bound and whose others stay as they are; Discrete; or MultiDiscrete, one branch per number.
        copies: How many copies act, each at every step.
        title: How errors call the environment.

    Raises:
        UnsupportedError: The space is of another kind.
    """
    match space:
        case spaces.Box(shape=shape) if np.issubdtype(space.dtype, np.floating):
            return ActionSpec.create_continuous(int(np.prod(shape))), _box(space, copies)
        case spaces.Discrete(n=n, start=start, dtype=dtype):
            return ActionSpec.create_discrete((int(n),)), _indices((copies,), np.asarray(start), dtype)
        case spaces.MultiDiscrete(nvec=nvec, start=start, dtype=dtype, shape=shape):
            return ActionSpec.create_discrete(tuple(map(int, nvec.ravel()))), _indices((copies, *shape), start, dtype)
    raise UnsupportedError(
        f"The action space of {title} is {space}, which cannot be acted in; wrap the environment so that it takes a "
        "Box of floats, Discrete or MultiDiscrete."
    )


def _indices(
    shape: tuple[int, ...], start: npt.NDArray[np.integer[Any]], dtype: npt.DTypeLike
) -> Callable[[ActionTuple], Any]:
    # None where all are 0, as they mostly are.
    starts = np.full(shape, start, dtype) if np.any(start) else None

    def decode(action: ActionTuple) -> Any:
        indices = action.discrete.astype(dtype).reshape(shape)
        return indices if starts is None else indices + starts

    return decode


def _box(space: spaces.Box, copies: int) -> Callable[[ActionTuple], Any]:
    # A row for each copy, because numpy computes with arrays of one shape in a third of the time.
    low, high = np.tile(space.low.ravel(), (copies, 1)), np.tile(space.high.ravel(), (copies, 1))
    dtype, shape = space.dtype, (copies, *space.shape)
    with np.errstate(over="ignore", invalid="ignore"):
        # Bounds as far apart as numbers go mean that there are none.
        bounded = np.isfinite(high - low)
        half = np.where(bounded, high / 2 - low / 2, 1).astype(dtype)
        middle = np.where(bounded, high / 2 + low / 2, 0).astype(dtype)

    def decode(action: ActionTuple) -> Any:
        scaled = action.continuous * half + middle
        # What is out of [-1, 1], or rounds past a bound, or has one bound only.
        return np.minimum(np.maximum(scaled, low), high).astype(dtype, copy=False).reshape(shape)

    return decode
