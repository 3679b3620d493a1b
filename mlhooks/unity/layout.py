"""Where the values lie in an agent's serialized record, so that numpy can read all records of that form at once.

A player serializes its agents one like the other: between two records of a behavior only the values differ, not what
stands where. A layout is learned from one record. Another record has it if it agrees in every byte that is structure:
keys, lengths, shapes, names, and the continuation bits of varints. That is checked for every record of every message,
and a record that no layout fits is read by protobuf's own parser.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mlhooks.unity.schema import FIELDS
from mlhooks.unity.wire import BYTES, FIXED32, VARINT, WireError, read_fields, read_varint

_AGENT, _OBSERVATION = FIELDS["AgentInfoProto"], FIELDS["ObservationProto"]
_SCALARS = {
    _AGENT["reward"]: ("reward", FIXED32),
    _AGENT["done"]: ("done", VARINT),
    _AGENT["max_step_reached"]: ("max_step_reached", VARINT),
    _AGENT["id"]: ("id", VARINT),
    _AGENT["action_mask"]: ("action_mask", BYTES),
    _AGENT["group_id"]: ("group_id", VARINT),
    _AGENT["group_reward"]: ("group_reward", FIXED32),
}
_NOT_SIMPLE = frozenset(_OBSERVATION.values())  # compressed, or written in an unusual way
_RECORD = 1 << 3 | BYTES  # key of the one field of ListAgentInfoProto
_FLOATS = 1  # number of the field `data` in ObservationProto.FloatData
_WIDE = 512  # bytes from which on most of a record is values, so that looking at structure alone is faster

Rows = NDArray[np.uint8]


@dataclass(frozen=True)
class Layout:
    """The form of a record, with its key and length in front: [size] bytes.

    Attributes:
        template: a record of this form: [size].
        structure: the bits that every such record shares: [size].
        places: field name -> the bytes of its value; absent fields have the value 0.
        observations: the bytes of each observation's floats.
    """

    template: Rows
    structure: Rows
    places: dict[str, slice]
    observations: tuple[slice, ...]

    @cached_property
    def _checked(self) -> tuple[NDArray[np.intp] | slice, Rows, Rows]:
        columns = np.flatnonzero(self.structure) if len(self.structure) > _WIDE else slice(None)
        return columns, self.template[columns], self.structure[columns]

    def fits(self, rows: Rows) -> NDArray[np.bool_]:
        """Which rows have this layout: [rows, size] -> [rows]."""
        columns, template, structure = self._checked
        return np.asarray(~((rows[:, columns] ^ template) & structure).any(axis=1))

    def floats(self, rows: Rows, name: str) -> NDArray[np.float32]:
        """A 32-bit float of each row: [rows]."""
        if name not in self.places:
            return np.zeros(len(rows), np.float32)
        return read_floats(rows, self.places[name])[:, 0]

    def integers(self, rows: Rows, name: str) -> NDArray[np.int32]:
        """A varint of each row, as int32: [rows]."""
        if name not in self.places:
            return np.zeros(len(rows), np.int32)
        result = np.zeros(len(rows), np.uint64)
        for power, column in enumerate(range(self.places[name].start, self.places[name].stop)):
            result |= (rows[:, column] & 0x7F).astype(np.uint64) << (7 * power)
        return result.astype(np.int32)

    def flag(self, name: str) -> bool:
        """A boolean, which is structure."""
        return name in self.places and bool(self.template[self.places[name]].any())


def read_floats(rows: Rows, place: slice) -> NDArray[np.float32]:
    """Packed little-endian floats of each row, in memory of their own: [rows, bytes] -> [rows, floats]."""
    return rows[:, place].copy().view("<f4").astype(np.float32, copy=False)


def learn(record: bytes, shapes: Sequence[tuple[int, ...]]) -> Layout | None:
    """The layout of a record with its key and length in front, or None if it has no simple one.

    Args:
        record: an AgentInfoProto as an element of a repeated field.
        shapes: the shapes that its observations should have; another, or a compressed one, is not simple.
    """
    structure = np.full(len(record), 0xFF, np.uint8)
    places: dict[str, slice] = {}
    observations: list[slice] = []
    _, start = read_varint(record, 1)
    for field in read_fields(record, start, len(record)):
        place = slice(field.start, field.stop)
        name, kind = _SCALARS.get(field.number, ("", 0))
        if field.number == _AGENT["observations"] and field.kind == BYTES and len(observations) < len(shapes):
            floats = _learn_observation(record, place, shapes[len(observations)])
            if floats is None:
                return None
            structure[floats] = 0
            observations.append(floats)
        elif not name or field.kind != kind or name in places:
            return None
        else:
            places[name] = place
            if kind == FIXED32:
                structure[place] = 0
            elif name not in ("done", "max_step_reached"):
                structure[place] = 0x80
    if len(observations) != len(shapes):
        return None
    if "action_mask" in places and max(record[places["action_mask"]], default=0) > 0x7F:  # not one byte per boolean
        return None
    return Layout(np.frombuffer(record, np.uint8), structure, places, tuple(observations))


def _learn_observation(record: bytes, place: slice, shape: tuple[int, ...]) -> slice | None:
    """The bytes of an uncompressed observation's floats, if it has that shape."""
    found: list[int] = []
    floats: slice | None = None
    for field in read_fields(record, place.start, place.stop):
        if field.number == _OBSERVATION["shape"] and field.kind == BYTES:
            at = field.start
            while at < field.stop:
                size, at = read_varint(record, at)
                found.append(size)
        elif field.number == _OBSERVATION["float_data"] and floats is None:
            packed = list(read_fields(record, field.start, field.stop))
            if len(packed) == 1 and (packed[0].number, packed[0].kind) == (_FLOATS, BYTES):
                floats = slice(packed[0].start, packed[0].stop)
            elif not packed:
                floats = slice(field.start, field.start)
        elif field.number in _NOT_SIMPLE:
            return None
    if tuple(found) != shape or floats is None or floats.stop - floats.start != 4 * math.prod(shape):
        return None
    return floats


def split(data: bytes, start: int, stop: int) -> tuple[list[int], dict[int, list[int]]]:
    """Take a list of records apart.

    Returns:
        Where each record starts, its key and length included; and by size which records have it.

    Raises:
        WireError: the bytes are no list.
    """
    starts: list[int] = []
    by_size: dict[int, list[int]] = {}
    at = start
    try:
        while at < stop:
            if data[at] != _RECORD:
                raise WireError(f"there is no agent at byte {at}")
            length, body = read_varint(data, at + 1) if data[at + 1] > 0x7F else (data[at + 1], at + 2)
            by_size.setdefault(body + length - at, []).append(len(starts))
            starts.append(at)
            at = body + length
    except IndexError:
        at = stop + 1
    if at != stop:
        raise WireError("the last agent is longer than its list")
    return starts, by_size
