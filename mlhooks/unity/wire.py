"""Read and write protobuf's wire format, as much of it as the Unity protocol's hot messages need.

A message is a sequence of fields, each a key (number << 3 | wire type) and a value: a varint (0), 8 bytes (1), bytes of
stated length (2) or 4 bytes (5). See https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_SHORT = [bytes((value,)) for value in range(0x80)]


class WireError(ValueError):
    """Bytes that are not a protobuf message."""


class Span(NamedTuple):
    """Part of some bytes, such as the value of a field."""

    start: int
    stop: int

    def of(self, data: bytes) -> bytes:
        """Return the part itself."""
        return data[self.start : self.stop]


NOWHERE = Span(0, 0)


class Field(NamedTuple):
    """One field of a message; its value is `data[start:stop]`, and is `value` as well where it is a varint."""

    number: int
    kind: int
    start: int
    stop: int
    value: int


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the varint at `at`, and where it ends.

    Raises:
        WireError: the data end within it, or it is longer than 64 bits.
    """
    if at < len(data) and data[at] < 0x80:  # This is nearly always so.
        return data[at], at + 1
    value = shift = 0
    for index in range(at, min(at + 10, len(data))):
        byte = data[index]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, index + 1
        shift += 7
    raise WireError(f"there is no whole number at byte {at}")


def read_fields(data: bytes, start: int, stop: int) -> Iterator[Field]:
    """Yield the fields of the message that is `data[start:stop]`, in order.

    Raises:
        WireError: it is no message.
    """
    while start < stop:
        key, start = read_varint(data, start)
        number, kind = key >> 3, key & 7
        value = 0
        if kind == BYTES:
            value, start = read_varint(data, start)
            end = start + value
        elif kind == VARINT:
            value, end = read_varint(data, start)
        elif kind in (FIXED32, FIXED64):
            end = start + (4 if kind == FIXED32 else 8)
        else:
            raise WireError(f"there is no field at byte {start}")
        if end > stop:
            raise WireError(f"the field at byte {start} is longer than its message")
        yield Field(number, kind, start, end, value)
        start = end


def write_varint(value: int) -> bytes:
    """Return a number from 0 up as a varint."""
    if value < 0x80:
        return _SHORT[value]
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def write_bytes(number: int, value: bytes) -> bytes:
    """Return a field whose value is bytes, text or a message."""
    return write_varint(number << 3 | BYTES) + write_varint(len(value)) + value
