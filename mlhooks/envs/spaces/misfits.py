"""Descriptions of observations that are not in their spaces."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from mlhooks.envs.spaces.description import Box, Dict, Path, Sequence, Space, Tuple
from mlhooks.shortening import cut

ROUNDING = 1e-5
"""How far floats may be beyond a bound, as a share of it where it is above 1: bounds and values are rounded apart."""


class Misfit(Exception):
    """An observation that its space does not hold; its text says which part, what was found and what is declared.

    Args:
        path: the path that leads to the part.
        found: what was there, in words.
        declared: the space of the part.
        strict: whether training could go on all the same, because nothing is bent by the encoding.

    Attributes:
        copy: which of several observations it is; None where it is all of them.
    """

    def __init__(self, path: Path, found: str, declared: object, *, strict: bool = False) -> None:
        self.path, self.found, self.declared, self.strict = path, found, declared, strict
        self.copy: int | None = None
        super().__init__(f"{title(path)} is not in its space. Found: {found}. Declared: {declared}")


def title(path: Path) -> str:
    """Return what a part is called in messages."""
    return f'observation "{"/".join(map(str, path))}"' if path else "the observation"


def structure_misfit(space: Space, value: Any, path: Path = ()) -> Misfit | None:
    """Return a misfit for a Dict or Tuple that is none, lacks a part or has one too many; None where all fit."""
    extra: Misfit | None = None
    match space:
        case Dict(parts=parts):
            if not isinstance(value, Mapping):
                return Misfit(path, found(value), f"a dict with the keys {_keys(parts)}")
            missing, unknown = parts.keys() - value.keys(), value.keys() - parts.keys()
            if missing or unknown:
                extra = Misfit(
                    path,
                    found(value),
                    f"a dict with the keys {_keys(parts)}",
                    strict=not missing,
                )
            if missing:
                return extra
        case Tuple(parts=parts):
            if not isinstance(value, tuple | list) or len(value) != len(parts):
                return Misfit(path, found(value), f"a tuple of {len(parts)}")
    for key, part in _parts(space):
        below = structure_misfit(part, value[key], (*path, key))
        if below is not None and not below.strict:
            return below
        extra = extra or below
    return extra


def bounds_misfit(space: Space, value: Any, path: Path) -> Misfit | None:
    """Return a misfit for numbers that exceed their bounds by more than rounding does; None where all fit."""
    declared = space
    if isinstance(space, Sequence) and len(value):
        space = space.part
    if not isinstance(space, Box):
        return None
    array, low, high = np.asarray(value), space.low, space.high
    if space.dtype.kind == "f":
        with np.errstate(over="ignore"):
            low = low - ROUNDING * np.maximum(1.0, np.abs(low.astype(np.float64)))
            high = high + ROUNDING * np.maximum(1.0, np.abs(high.astype(np.float64)))
    if not ((array < low) | (array > high)).any():  # NaN is told of elsewhere
        return None
    return Misfit(path, found(value), declared, strict=True)


def found(value: Any) -> str:
    """Describe a value briefly, however large it is."""
    if isinstance(value, Mapping):
        return f"a dict with the keys {_keys(value)}" if value else "an empty dict"
    if isinstance(value, tuple | list):
        try:
            array = np.asarray(value)
        except ValueError:
            return f"a {type(value).__name__} of {len(value)}, whose parts differ in shape"
        return f"{_array(array)}, given as a {type(value).__name__}"
    if isinstance(value, np.ndarray):
        return _array(value)
    return f"{cut(repr(value), 60)} ({type(value).__name__})"


def _array(array: np.ndarray) -> str:
    what = f"{array.dtype.name} of shape {array.shape}"
    if array.size == 0 or array.dtype.kind not in "iufb":
        return what
    if array.size <= 6:
        return f"{what}, {array.tolist()}"
    return f"{what}, from {array.min().item():.6g} to {array.max().item():.6g}"


def _keys(mapping: Mapping[Any, Any]) -> str:
    return ", ".join(sorted(map(repr, mapping))) or "none"


def _parts(space: Space) -> Iterator[tuple[Any, Space]]:
    if isinstance(space, Dict):
        yield from space.parts.items()
    elif isinstance(space, Tuple):
        yield from enumerate(space.parts)
