"""Environment parameters on the player's side: what the trainer sent, and what is drawn from it."""

from __future__ import annotations

import struct
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Draws = npt.NDArray[np.float64]

_FLOAT, _SAMPLER = 0, 1
_UNIFORM, _GAUSSIAN, _MULTIRANGE = range(3)


class Sampler:
    """The values of one environment parameter.

    Attributes:
        last: The value that was drawn last.
    """

    def __init__(self, draw: Callable[[int], Draws]) -> None:
        self._draw = draw
        self.last: float | None = None

    def draw(self, count: int, /) -> Draws:
        """Draw values for so many episodes."""
        values = self._draw(count)
        if count:
            self.last = float(values[-1])
        return values


def read_parameter(payload: bytes) -> tuple[str, Sampler]:
    """Read a message of the channel for environment parameters: a name, and a number or a description of a sampler.

    Raises:
        ValueError, struct.error: It is cut short, or of an unknown kind.
    """
    (size,) = struct.unpack_from("<i", payload)
    key, rest = payload[4 : 4 + size].decode("ascii"), payload[4 + size :]
    (kind,) = struct.unpack_from("<i", rest)
    if kind == _FLOAT:
        (value,) = struct.unpack_from("<f", rest, 4)
        return key, Sampler(lambda count: np.full(count, value))
    if kind == _SAMPLER:
        return key, Sampler(_drawn_from(rest[4:]))
    raise ValueError(f"environment parameter {key!r} is of the unknown kind {kind}")


def _drawn_from(payload: bytes) -> Callable[[int], Draws]:
    seed, kind = struct.unpack_from("<2i", payload)
    source = np.random.default_rng(abs(seed))
    if kind == _MULTIRANGE:
        (count,) = struct.unpack_from("<i", payload, 8)
        low, high = np.array(struct.unpack_from(f"<{count}f", payload, 12)).reshape(-1, 2).T
        return _in_ranges(low, high, source)
    first, second = struct.unpack_from("<2f", payload, 8)
    if kind == _UNIFORM:
        return lambda count: source.uniform(first, second, count)
    if kind == _GAUSSIAN:
        return lambda count: source.normal(first, second, count)
    raise ValueError(f"there is no sampler of the kind {kind}")


def _in_ranges(low: Draws, high: Draws, source: np.random.Generator) -> Callable[[int], Draws]:
    widths = high - low
    shares = widths / widths.sum() if widths.any() else None

    def draw(count: int) -> Draws:
        chosen = source.choice(len(low), count, p=shares)
        return np.asarray(source.uniform(low[chosen], high[chosen]))

    return draw
