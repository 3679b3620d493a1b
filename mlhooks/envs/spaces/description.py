"""Spaces as Gymnasium knows them, described by numbers and names alone, so that a file can hold them.

Their plain form, of `to_data`, is made of dicts, lists, numbers and texts:

    {"space": "Box", "shape": [2], "dtype": "float32", "low": -1.0, "high": [1.0, 2.0]}
    {"space": "Box", "shape": [6, 7, 2], "dtype": "int8", "low": 0, "high": 1, "grid": true}
    {"space": "Discrete", "n": 3, "start": 5, "dtype": "int64"}
    {"space": "MultiDiscrete", "shape": [2], "nvec": [2, 3], "start": 0, "dtype": "int64"}
    {"space": "MultiBinary", "shape": [4]}
    {"space": "Sequence", "part": {...}, "max_length": 8}
    {"space": "Tuple", "parts": [...]}
    {"space": "Dict", "keys": ["camera", "speed"], "parts": [...]}

A single number stands for an array of that number.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import abc
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from mlhooks.shortening import cut

Path = tuple[str | int, ...]
"""The keys and indices that lead from a space to one of its parts."""

_INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
_NUMBERS = ("float16", "float32", "float64", "bool", *_INTEGERS)
_DEEPEST = 32  # This limits levels of Dict and Tuple in one another, and dimensions of arrays.
_LARGEST = 2**26  # An array may have so many numbers.
_MOST = 2**31 - 1  # A number may have so many values, because indices of actions are int32.


class SpaceError(ValueError):
    """A description of a space that describes none."""


class Space(ABC):
    """A description of a space; two are equal where their plain forms are."""

    @abstractmethod
    def to_data(self) -> dict[str, Any]:
        """Return the plain form."""

    @abstractmethod
    def leaves(self, path: Path = ()) -> Iterator[tuple[Path, Elementary]]:
        """Yield the elementary spaces in their order, each with the path that leads to it."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Space) and self.to_data() == other.to_data()

    __hash__ = None  # type: ignore[assignment]

    @staticmethod
    def from_data(data: Any) -> Space:
        """Return the space of a plain form.

        Raises:
            SpaceError: says what is wrong with it.
        """
        return _from_data(data, 0)


class Elementary(Space):
    """A space without parts: its members are arrays of a shape, or numbers where that is ()."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def leaves(self, path: Path = ()) -> Iterator[tuple[Path, Elementary]]:
        """Yield this space alone."""
        yield path, self


class _Array(Elementary):
    def __init__(self, shape: abc.Sequence[int], dtype: DTypeLike, dtypes: abc.Sequence[str]) -> None:
        self.shape = tuple(int(size) for size in shape)
        self.dtype = np.dtype(dtype)
        if self.dtype.name not in dtypes:
            raise SpaceError(f"{type(self).__name__} of {self.dtype.name}, which is none of {', '.join(dtypes)}")
        if len(self.shape) > _DEEPEST or min(self.shape, default=1) < 0 or math.prod(self.shape) > _LARGEST:
            raise SpaceError(f"{type(self).__name__} of the shape {self.shape}")

    @property
    def size(self) -> int:
        """How many numbers a member has."""
        return math.prod(self.shape)

    def _spread(self, name: str, value: ArrayLike, dtype: DTypeLike) -> np.ndarray:
        """Return a number for each number of a member, in place of one for all."""
        try:
            given = np.asarray(value)
            with np.errstate(invalid="ignore", over="ignore"):
                array = given.astype(dtype)
            if not np.array_equal(array, given):
                raise SpaceError(f"{name} of {type(self).__name__} holds what is no {np.dtype(dtype).name}")
            return np.broadcast_to(array if array.ndim == 0 else array.reshape(self.shape), self.shape)
        except (TypeError, ValueError, OverflowError) as error:
            if isinstance(error, SpaceError):
                raise
            raise SpaceError(f"{name} of {type(self).__name__} does not fit its shape {self.shape}: {error}") from None


class Box(_Array):
    """Arrays of numbers between bounds, which may be infinite.

    Args:
        low, high: the bounds, a number for all or one for each.
        shape: of a member.
        dtype: of a member.
        grid: whether networks are to read members as they read images, where these have three or four dimensions.
    """

    def __init__(
        self,
        low: ArrayLike,
        high: ArrayLike,
        shape: abc.Sequence[int],
        dtype: DTypeLike = np.float32,
        *,
        grid: bool = False,
    ) -> None:
        super().__init__(shape, dtype, _NUMBERS)
        self.low, self.high = self._spread("low", low, self.dtype), self._spread("high", high, self.dtype)
        if not (self.low <= self.high).all():
            raise SpaceError("low of Box is above its high, or NaN")
        self.is_grid = grid and len(self.shape) in (3, 4) and self.size > 0 and not self.is_image

    def to_data(self) -> dict[str, Any]:
        """Return the plain form."""
        bounds = {"low": _packed(self.low), "high": _packed(self.high)}
        grid = {"grid": True} if self.is_grid else {}
        return {"space": "Box", "shape": list(self.shape), "dtype": self.dtype.name, **bounds, **grid}

    @property
    def is_image(self) -> bool:
        """Whether its members are pixels: two to four dimensions of bytes from 0 to 255."""
        pixels = self.dtype == np.uint8 and len(self.shape) in (2, 3, 4)
        return pixels and bool((self.low == 0).all() and (self.high == 255).all())

    @property
    def channels_first(self) -> bool:
        """Whether channels come before height and width in an image or grid of three or four dimensions.

        Where two neighboring axes are equal, they are height and width, and the third one holds the channels. Elsewhere
        channels are few: they come last, except in stacks of gray frames, where frames are channels and come first.
        """
        if len(self.shape) < 3:
            return False
        first, middle, last = self.shape[-3:]
        if first != last and middle in (first, last):
            return middle == last
        return first < last

    def __str__(self) -> str:
        low, high = (_range(bound) for bound in (self.low, self.high))
        return f"Box({low}, {high}, {self.shape}, {self.dtype.name})"


class Discrete(Elementary):
    """The whole numbers from `start` on, `n` of them."""

    shape = ()

    def __init__(self, n: int, start: int = 0, dtype: DTypeLike = np.int64) -> None:
        self.n, self.start = _whole("n", n, least=1), _whole("start", start)
        self.dtype = np.dtype(dtype)
        if self.dtype.name not in _INTEGERS:
            raise SpaceError(f"Discrete of {self.dtype.name}, which is none of {', '.join(_INTEGERS)}")

    def to_data(self) -> dict[str, Any]:
        """Return the plain form."""
        return {"space": "Discrete", "n": self.n, "start": self.start, "dtype": self.dtype.name}

    def __str__(self) -> str:
        return f"Discrete({self.n}{f', start={self.start}' if self.start else ''})"


class MultiDiscrete(_Array):
    """Arrays of whole numbers, each of which counts from its own start."""

    def __init__(
        self, nvec: ArrayLike, shape: abc.Sequence[int], start: ArrayLike = 0, dtype: DTypeLike = np.int64
    ) -> None:
        super().__init__(shape, dtype, _INTEGERS)
        self.nvec, self.start = self._spread("nvec", nvec, np.int64), self._spread("start", start, np.int64)
        if not ((self.nvec > 0) & (self.nvec <= _MOST)).all():
            raise SpaceError("nvec of MultiDiscrete holds a number below 1 or too large")

    def to_data(self) -> dict[str, Any]:
        """Return the plain form."""
        counts = {"nvec": _packed(self.nvec), "start": _packed(self.start)}
        return {"space": "MultiDiscrete", "shape": list(self.shape), "dtype": self.dtype.name, **counts}

    def __str__(self) -> str:
        start = f", start={self.start.tolist()}" if self.start.any() else ""
        return f"MultiDiscrete({self.nvec.tolist()}{start})"


class MultiBinary(_Array):
    """Arrays of zeros and ones."""

    def __init__(self, shape: abc.Sequence[int]) -> None:
        super().__init__(shape, np.int8, ("int8",))

    def to_data(self) -> dict[str, Any]:
        """Return the plain form."""
        return {"space": "MultiBinary", "shape": list(self.shape)}

    def __str__(self) -> str:
        return f"MultiBinary({self.shape})"


class Sequence(Elementary):
    """Tuples of some members of another space, of which there are more or fewer, up to a maximum."""

    def __init__(self, part: Space, max_length: int) -> None:
        if not isinstance(part, Elementary) or isinstance(part, Sequence) or _is_spatial(part):
            raise SpaceError(f"Sequence of {part}, which is no vector")
        self.part, self.max_length = part, _whole("max_length", max_length, least=1)
        self.shape, self.dtype = (self.max_length, *part.shape), part.dtype
        if math.prod(self.shape) > _LARGEST or 0 in self.shape:
            raise SpaceError(f"Sequence of the shape {self.shape}")

    def to_data(self) -> dict[str, Any]:
        """Return the plain form."""
        return {"space": "Sequence", "part": self.part.to_data(), "max_length": self.max_length}

    def __str__(self) -> str:
        return f"Sequence({self.part}, up to {self.max_length})"


class Tuple(Space):
    """Tuples with a member of each part."""

    def __init__(self, parts: abc.Sequence[Space]) -> None:
        self.parts = tuple(parts)

    def to_data(self) -> dict[str, Any]:
        """Return the plain form."""
        return {"space": "Tuple", "parts": [part.to_data() for part in self.parts]}

    def leaves(self, path: Path = ()) -> Iterator[tuple[Path, Elementary]]:
        """Yield those of all parts, in their order."""
        for index, part in enumerate(self.parts):
            yield from part.leaves((*path, index))

    def __str__(self) -> str:
        return f"Tuple({', '.join(map(str, self.parts))})"


class Dict(Space):
    """Mappings with a member of each part under its key."""

    def __init__(self, parts: Mapping[str | int, Space]) -> None:
        self.parts = dict(parts)
        for key in self.parts:
            if isinstance(key, bool) or not isinstance(key, str | int):
                raise SpaceError(f"Dict with the key {key!r}, which is neither a text nor a whole number")

    def to_data(self) -> dict[str, Any]:
        """Return the plain form."""
        return {"space": "Dict", "keys": [*self.parts], "parts": [part.to_data() for part in self.parts.values()]}

    def leaves(self, path: Path = ()) -> Iterator[tuple[Path, Elementary]]:
        """Yield those of all parts, in their order."""
        for key, part in self.parts.items():
            yield from part.leaves((*path, key))

    def __str__(self) -> str:
        return f"Dict({', '.join(f'{key}: {part}' for key, part in self.parts.items())})"


def _is_spatial(space: Space) -> bool:
    return isinstance(space, Box) and (space.is_image or space.is_grid)


def _packed(array: np.ndarray) -> Any:
    """Return the numbers of an array, or a single one where all are equal."""
    numbers = array.ravel()
    if numbers.size and (numbers == numbers[0]).all():
        return numbers[0].item()
    return numbers.tolist()


def _range(bound: np.ndarray) -> str:
    if bound.size == 0:
        return "-"
    least, most = bound.min().item(), bound.max().item()
    return f"{least:.6g}" if least == most else f"{least:.6g}..{most:.6g}"


def _whole(name: str, value: Any, *, least: int = -(2**62)) -> int:
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | np.integer):
        raise SpaceError(f"{name} is {value!r}, and no whole number")
    if not least <= value <= (_MOST if name == "n" else 2**62):
        raise SpaceError(f"{name} is {value}, which is too small or too large")
    return int(value)


def _from_data(data: Any, depth: int) -> Space:
    if depth > _DEEPEST:
        raise SpaceError(f"spaces in one another, more than {_DEEPEST} levels deep")
    match data:
        case {"space": "Box", "shape": shape, "dtype": str(dtype), "low": low, "high": high}:
            return Box(_numbers(low), _numbers(high), _shape(shape), _dtype(dtype), grid=data.get("grid") is True)
        case {"space": "Discrete", "n": n, "start": start, "dtype": str(dtype)}:
            return Discrete(n, start, _dtype(dtype))
        case {"space": "MultiDiscrete", "shape": shape, "nvec": nvec, "start": start, "dtype": str(dtype)}:
            return MultiDiscrete(_numbers(nvec), _shape(shape), _numbers(start), _dtype(dtype))
        case {"space": "MultiBinary", "shape": shape}:
            return MultiBinary(_shape(shape))
        case {"space": "Sequence", "part": part, "max_length": most}:
            return Sequence(_from_data(part, depth + 1), most)
        case {"space": "Tuple", "parts": list(parts)}:
            return Tuple([_from_data(part, depth + 1) for part in parts])
        case {"space": "Dict", "keys": list(keys), "parts": list(parts)} if len(keys) == len(parts):
            if not all(isinstance(key, str | int) for key in keys) or len(set(keys)) < len(keys):
                raise SpaceError(f"Dict with the keys {_short(keys)}")
            return Dict({key: _from_data(part, depth + 1) for key, part in zip(keys, parts, strict=True)})
    raise SpaceError(f"{_short(data)}, which describes no space")


def _short(data: Any) -> str:
    return f"a {type(data).__name__} of {len(data)}" if isinstance(data, list | dict) else cut(repr(data), 80)


def _shape(data: Any) -> list[int]:
    if not isinstance(data, list) or len(data) > _DEEPEST:
        raise SpaceError(f"the shape {_short(data)}")
    return [_whole("size", size, least=0) for size in data]


def _dtype(name: str) -> str:
    if name not in _NUMBERS:
        raise SpaceError(f"the type {_short(name)}, which is none of {', '.join(_NUMBERS)}")
    return name


def _numbers(data: Any) -> Any:
    """Check that this is a number or a flat list of numbers, because an array can be made of much else."""
    for number in data if isinstance(data, list) else [data]:
        if not isinstance(number, int | float):
            raise SpaceError(f"{_short(number)} where a number is wanted")
    return data
