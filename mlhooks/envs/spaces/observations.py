"""From observations in an environment's own terms to the arrays of its behavior."""

from __future__ import annotations

from collections import abc
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from mlagents_envs.base_env import DimensionProperty, ObservationSpec, ObservationType

from mlhooks.envs.spaces.description import (
    Box,
    Dict,
    Discrete,
    Elementary,
    MultiBinary,
    MultiDiscrete,
    Path,
    Sequence,
    Space,
    Tuple,
)
from mlhooks.envs.spaces.misfits import Misfit, bounds_misfit, found, structure_misfit

Encoded = npt.NDArray[np.float32] | npt.NDArray[np.uint8]
Encode = Callable[[Any, int], Encoded]
"""What encodes so many observations of an elementary space, an array or a list of arrays."""

_FLOAT32 = np.dtype(np.float32)
_NONE, _SPATIAL = DimensionProperty.NONE, DimensionProperty.TRANSLATIONAL_EQUIVARIANCE
_DIMENSIONS = {1: (_NONE,), 2: (DimensionProperty.VARIABLE_SIZE, _NONE), 3: (_NONE, _SPATIAL, _SPATIAL)}


class _Unfit(Exception):
    """Something is not in its space."""


class ObservationEncoder:
    """Turns batches of a space's observations into newly made arrays, one per elementary space.

    Boxes, whatever their type, become vectors of float32; boxes of two to four dimensions with bytes from 0 to 255
    become images of shape [channels, height, width] and stay bytes, the frames of a stack as channels; boxes that are
    grids become such images of float32, with the numbers that they hold. Discrete becomes
    one-hot, MultiDiscrete its one-hots side by side, MultiBinary a vector of zeros and ones. Sequences of any of these
    but images become observations of variable length, [max_length, size], with zeros behind what is there. The parts of
    Dict and Tuple spaces become observations of their own, in the space's order, named by their keys (`camera/left`).

    What would be bent on the way is refused with every batch: other shapes, other kinds of values, numbers that the
    type of their space cannot hold, and values that are none of a discrete space. `check` also looks at all the rest.

    Args:
        space: Observation space of one copy.

    Attributes:
        specs: The behavior's observations.
    """

    def __init__(self, space: Space) -> None:
        self.space = space
        self.specs: list[ObservationSpec] = []
        self._parts: list[tuple[Path, Elementary, Encode]] = []
        for path, leaf in space.leaves():
            shape, encode = _encoding(leaf)
            name = "/".join(map(str, path)) or "observation"
            self.specs.append(ObservationSpec(shape, _DIMENSIONS[len(shape)], ObservationType.DEFAULT, name))
            self._parts.append((path, leaf, encode))

    def __call__(self, batch: Any, count: int) -> list[Encoded]:
        """Encode a batch of so many observations as vector environments give it; each array is [count, *shape].

        Raises:
            Misfit: An observation is not in the space.
        """
        try:
            return [encode(_part(batch, path), count) for path, _, encode in self._parts]
        except Exception:
            self._refuse_batch(batch, count)
            raise

    def each(self, observations: abc.Sequence[Any]) -> list[Encoded]:
        """Encode one observation of each copy, in their order, as `__call__` would their batch.

        Raises:
            Misfit: An observation is not in the space.
        """
        encoded, count = [], len(observations)
        try:
            for path, _, encode in self._parts:
                parts = observations
                for key in path:
                    parts = [part[key] for part in parts]
                encoded.append(encode(parts, count))
        except Exception:
            for copy, observation in enumerate(observations):
                self._refuse(observation, copy)
            raise
        return encoded

    def count(self, observation: Any) -> int | None:
        """Count the observations in a batch as vector environments give it; None for a single observation.

        Every part tells which of the two it is: a batch has one dimension more than the space.

        Raises:
            Misfit: It is neither, an empty batch, or a part says something else than another.
        """
        misfit = structure_misfit(self.space, observation)
        if misfit is not None and not misfit.strict:
            raise misfit
        counts: set[int | None] = set()
        for path, leaf, _ in self._parts:
            part = _part(observation, path)
            try:
                counts.add(_count_sequences(leaf, part) if isinstance(leaf, Sequence) else _count(leaf, part))
            except (_Unfit, ValueError):  # Lists that differ in length are a ValueError.
                raise Misfit(path, found(part), f"{leaf}, or a batch") from None
        if len(counts) > 1:
            parts = sorted(str(count or "one") for count in counts)
            raise Misfit((), f"parts of batches of different sizes: {', '.join(parts)}", self.space)
        return counts.pop() if counts else None

    def check(self, observation: Any, copy: int = 0) -> None:
        """Look at all of one observation, its bounds included.

        Raises:
            Misfit: It is not in the space.
        """
        self._refuse(observation, copy, strict=True)
        for path, leaf, _ in self._parts:
            misfit = bounds_misfit(leaf, _part(observation, path), path)
            if misfit is not None:
                misfit.copy = copy
                raise misfit

    def row(self, batch: Any, copy: int) -> Any:
        """Return the observation of one copy in a batch as vector environments give it."""
        return _row(self.space, batch, copy)

    def _refuse(self, observation: Any, copy: int, *, strict: bool = False) -> None:
        misfit = structure_misfit(self.space, observation)
        if misfit is None or (misfit.strict and not strict):
            misfit = next((m for leaf in self._parts if (m := self._leaf_misfit(observation, *leaf))), None)
        if misfit is not None:
            misfit.copy = copy
            raise misfit

    @staticmethod
    def _leaf_misfit(observation: Any, path: Path, leaf: Elementary, encode: Encode) -> Misfit | None:
        value = _part(observation, path)
        try:
            encode([value], 1)
        except Exception:
            return Misfit(path, found(value), leaf)
        return None

    def _refuse_batch(self, batch: Any, count: int) -> None:
        misfit = structure_misfit(self.space, batch)
        if misfit is not None and not misfit.strict:
            raise misfit
        for path, leaf, _ in self._parts:
            part = _part(batch, path)
            if not hasattr(part, "__len__") or len(part) != count:
                raise Misfit(path, found(part), f"{count} times {leaf}")
        for copy in range(count):
            self._refuse(self.row(batch, copy), copy)


def _part(observation: Any, path: Path) -> Any:
    for key in path:
        observation = observation[key]
    return observation


def _row(space: Space, batch: Any, copy: int) -> Any:
    if isinstance(space, Dict):
        return {key: _row(part, batch[key], copy) for key, part in space.parts.items()}
    if isinstance(space, Tuple):
        return tuple(_row(part, below, copy) for part, below in zip(space.parts, batch, strict=True))
    return batch[copy]


def _count(space: Elementary, value: Any) -> int | None:
    """Return the size of a batch; None for a single member of the space."""
    shape: tuple[int, ...] = np.shape(value)
    if shape == space.shape:
        return None
    if shape[1:] != space.shape or len(shape) == 0 or shape[0] == 0:
        raise _Unfit
    return shape[0]


def _count_sequences(space: Sequence, value: Any) -> int | None:
    """Return as `_count` does; a sequence without members is a single one."""
    if not isinstance(value, tuple | list | np.ndarray):
        raise _Unfit
    if all(_has_shape(member, space.part.shape) for member in value):
        return None
    if any(_count_sequences(space, sequence) is not None for sequence in value):
        raise _Unfit
    return len(value)


def _has_shape(value: Any, shape: tuple[int, ...]) -> bool:
    try:
        return bool(np.shape(value) == shape)
    except ValueError:
        return False


def _encoding(space: Elementary) -> tuple[tuple[int, ...], Encode]:
    """Return the shape of one encoded observation, and what encodes a batch of them."""
    match space:
        case Box():
            return _image(space) if space.is_image else _grid(space) if space.is_grid else _vector(space)
        case MultiBinary():
            return _zeros_and_ones(space)
        case Discrete():
            return _one_hots(np.array([space.n]), np.array([space.start]), ())
        case MultiDiscrete():
            return _one_hots(space.nvec.ravel(), space.start.ravel(), space.shape)
        case Sequence():
            return _sequence(space)
    raise TypeError(f"{space} is no elementary space")


def _vector(space: Box) -> tuple[tuple[int, ...], Encode]:
    size, shape, whole = space.size, space.shape, space.dtype.kind != "f"

    def encode(batch: Any, count: int) -> Encoded:
        array = np.array(batch, order="C")
        if array.shape != (count, *shape) or (whole and not _holds(space, array)):
            raise _Unfit
        if array.dtype is not _FLOAT32:
            if array.dtype.kind not in "fiub":
                raise _Unfit
            array = array.astype(_FLOAT32)
        return array.reshape(count, size)

    return (size,), encode


def _holds(space: Box, array: np.ndarray) -> bool:
    """Return whether whole numbers of any type are within the bounds and the type of their space."""
    if array.dtype == space.dtype:
        return True
    if array.dtype.kind not in "fiub" or (array.dtype.kind == "f" and not (array == np.floor(array)).all()):
        return False
    return bool(((array >= space.low) & (array <= space.high)).all())


def _image(space: Box) -> tuple[tuple[int, ...], Encode]:
    shape, arrange = _planes(space)

    def encode(batch: Any, count: int) -> Encoded:
        pixels = np.asarray(batch)
        if pixels.shape != (count, *space.shape):
            raise _Unfit
        # Whole floats are refused, too, because nobody knows which of zeros and ones is white.
        if pixels.dtype != np.uint8:
            if pixels.dtype.kind not in "iub" or pixels.min() < 0 or pixels.max() > 255:
                raise _Unfit
            pixels = pixels.astype(np.uint8)
        return arrange(pixels)

    return shape, encode


def _grid(space: Box) -> tuple[tuple[int, ...], Encode]:
    shape, arrange = _planes(space)
    _, numbers = _vector(space)
    return shape, lambda batch, count: arrange(numbers(batch, count))


def _planes(space: Box) -> tuple[tuple[int, ...], Callable[[np.ndarray], Encoded]]:
    """Return [channels, height, width] of an image or grid, and what brings members of the space into that order."""
    shape = (*space.shape, 1) if len(space.shape) == 2 else space.shape
    first = space.channels_first
    height, width = shape[-2:] if first else shape[-3:-1]
    channels = space.size // (height * width)

    def arrange(members: np.ndarray) -> Encoded:
        # The result has its channels first, but last in memory, as experience is kept.
        if first:  # Copying plane by plane takes a quarter of the time of a copy that numpy transposes.
            last = np.stack([*members.reshape(-1, channels, height, width).swapaxes(0, 1)], axis=-1)
        else:
            ordered = np.moveaxis(members.reshape(-1, *shape), (-3, -2), (1, 2))
            last = np.array(ordered, order="C").reshape(-1, height, width, channels)
        return np.moveaxis(last, -1, 1)

    return (channels, height, width), arrange


def _sequence(space: Sequence) -> tuple[tuple[int, ...], Encode]:
    ((size,), encode_members), most = _encoding(space.part), space.max_length
    places = np.arange(most)

    def encode(batch: Any, count: int) -> Encoded:
        lengths = np.array([len(sequence) for sequence in batch])
        if len(lengths) != count or lengths.max(initial=0) > most:
            raise _Unfit
        encoded = np.zeros((count, most, size), dtype=np.float32)
        members = [member for sequence in batch for member in sequence]
        if members:
            encoded[places < lengths[:, None]] = encode_members(members, len(members))
        return encoded

    return (most, size), encode


def _zeros_and_ones(space: MultiBinary) -> tuple[tuple[int, ...], Encode]:
    size, shape = space.size, space.shape

    def encode(batch: Any, count: int) -> Encoded:
        array = np.array(batch)
        if array.shape != (count, *shape) or array.dtype.kind not in "fiub":
            raise _Unfit
        if np.count_nonzero((array != 0) & (array != 1)):
            raise _Unfit
        return array.astype(np.float32, order="C").reshape(count, size)

    return (size,), encode


def _one_hots(
    sizes: npt.NDArray[np.int64], starts: npt.NDArray[np.int64], shape: tuple[int, ...]
) -> tuple[tuple[int, ...], Encode]:
    width, numbers = int(sizes.sum()), len(sizes)
    offsets, bounds = np.cumsum(sizes) - sizes, sizes.astype(np.uint64)
    shifted, several = bool(starts.any()), numbers > 1
    lines = np.arange(1)[:, None]

    def encode(batch: Any, count: int) -> Encoded:
        values = np.asarray(batch)
        if values.shape != (count, *shape) or values.dtype.kind not in "iub":
            raise _Unfit
        columns = values.reshape(count, numbers).astype(np.int64, copy=False)
        if shifted:
            columns = columns - starts
        # Seen as unsigned, a negative index is a huge one: a single comparison finds both kinds of bad index.
        if np.count_nonzero(columns.view(np.uint64) >= bounds):
            raise _Unfit
        nonlocal lines
        if len(lines) != count:
            lines = np.arange(count)[:, None]
        encoded = np.zeros((count, width), dtype=np.float32)
        encoded[lines, columns + offsets if several else columns] = 1.0
        return encoded

    return (width,), encode
