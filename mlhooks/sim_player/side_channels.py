"""The player's side of the side channels, and the environment parameters that come through one of them."""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable, Iterable
from uuid import UUID

import numpy as np
import numpy.typing as npt

from mlhooks.sim_player.world import PlayerError

logger = logging.getLogger("mlhooks.sim_player")

Draws = npt.NDArray[np.float64]

ENGINE = UUID("e951342c-4f7e-11ea-b238-784f4387d1f7")
PARAMETERS = UUID("534c891e-810f-11ea-a9d0-822485860400")
STATS = UUID("a1d8f7b7-cec8-50f9-b78b-d3e165a78520")
ANALYTICS = UUID("b664a4a9-d86f-5a5f-95cb-e8353a7e8356")

AVERAGE, MOST_RECENT, SUM, HISTOGRAM = range(4)
"""Aggregations of a stat."""

ENGINE_SETTINGS = (
    ("resolution", "<2i"),
    ("quality level", "<i"),
    ("time scale", "<f"),
    ("target frame rate", "<i"),
    ("capture frame rate", "<i"),
)
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


class Channels:
    """Reads what the trainer says and collects what the player answers with.

    Args:
        echo: Channels whose messages are sent back as they came.

    Attributes:
        samplers: The environment parameters that the trainer has set.
    """

    def __init__(self, echo: Iterable[UUID] = ()) -> None:
        self._echo = frozenset(echo)
        self.samplers: dict[str, Sampler] = {}
        self._outgoing = bytearray()

    def receive(self, data: bytes) -> None:
        """Read the messages of one reply.

        Raises:
            PlayerError: A message is cut short, or is not what its channel is for.
        """
        offset = 0
        try:
            while offset < len(data):
                channel = UUID(bytes_le=data[offset : offset + 16])
                (size,) = struct.unpack_from("<i", data, offset + 16)
                offset += 20 + size
                if size < 0 or offset > len(data):
                    raise ValueError(f"a message of {size} bytes is cut short")  # noqa: TRY301
                self._read(channel, data[offset - size : offset])
        except (struct.error, ValueError, IndexError) as error:
            raise PlayerError(f"The trainer's side channels cannot be read: {error}.") from error

    def stat(self, key: str, value: float, aggregation: int) -> None:
        """Queue a stat for the trainer."""
        self._send(STATS, _text(key) + struct.pack("<fi", value, aggregation))

    def take_messages(self) -> bytes:
        """Return what is queued, and forget it."""
        data, self._outgoing = bytes(self._outgoing), bytearray()
        return data

    def _read(self, channel: UUID, payload: bytes) -> None:
        if channel == ENGINE:
            name, layout = ENGINE_SETTINGS[struct.unpack_from("<i", payload)[0]]
            values = " x ".join(f"{value:g}" for value in struct.unpack_from(layout, payload, 4))
            logger.info("Engine configuration: %s %s", name, values)
        elif channel == PARAMETERS:
            key, sampler = read_parameter(payload)
            self.samplers[key] = sampler
        elif channel in self._echo:
            self._send(channel, payload)
        elif channel != ANALYTICS:
            logger.warning("Unknown side channel %s, %d bytes.", channel, len(payload))

    def _send(self, channel: UUID, payload: bytes) -> None:
        self._outgoing += channel.bytes_le + struct.pack("<i", len(payload)) + payload


def _text(text: str) -> bytes:
    return struct.pack("<i", len(text)) + text.encode("ascii")


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
