"""The layout of the values in an agent's serialized record.

A player serializes its agents one like the other: between two records of a behavior mostly the values differ, not what
stands where. A layout is learned from one record. Another record has it if it agrees in every byte that is structure:
keys, lengths, shapes, names, and the continuation bits of varints. `LayoutTable` checks that for every record of every
message, and reads all records at once; a record without a layout is left to protobuf's own parser.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlhooks.unity.schema import FIELDS
from mlhooks.unity.wire import BYTES, FIXED32, VARINT, Span, read_fields, read_varint

_AGENT, _OBSERVATION = FIELDS["AgentInfoProto"], FIELDS["ObservationProto"]
_KINDS = {
    "reward": FIXED32,
    "done": VARINT,
    "max_step_reached": VARINT,
    "id": VARINT,
    "action_mask": BYTES,
    "group_id": VARINT,
    "group_reward": FIXED32,
}
_NAMES = {_AGENT[name]: name for name in _KINDS}
_NOT_SIMPLE = frozenset(_OBSERVATION.values())  # They are compressed, or written in an unusual way.
_FLOATS = 1  # This is the number of the field `data` in ObservationProto.FloatData.

FLAGS = ("done", "max_step_reached")
"""Booleans, which take part in the structure: where they are absent they are false."""

BIG = 1024
"""Bytes of an observation from which on it is copied record by record."""


@dataclass(frozen=True)
class Form:
    """The form of a behavior's records: shapes of the observations, and the number of all discrete actions."""

    shapes: tuple[tuple[int, ...], ...]
    actions: int

    def columns(self) -> dict[str, int]:
        """Return the values that are read together, by name or number of the observation, and the bytes of each."""
        scalars = {"reward": 4, "group_reward": 4, "id": 10, "group_id": 10, "action_mask": self.actions}
        return scalars | {str(sensor): size for sensor, size in enumerate(self.sizes()) if size < BIG}

    def sizes(self) -> list[int]:
        """Return bytes of each observation."""
        return [4 * math.prod(shape) for shape in self.shapes]


@dataclass(frozen=True)
class Layout:
    """The layout of a record that begins with its key and length.

    Attributes:
        checked, bits, expected: the bytes that tell whether a record has this layout, which of their bits count, and
            what those must be: [checked bytes].
        index, kept: the bytes of the values that are read together, and their bits that are the value; where a value
            is absent no bit is kept: [bytes of all columns].
        flags: each of `FLAGS`.
        observations: where the floats of each observation are.
    """

    checked: NDArray[np.intp]
    bits: NDArray[np.uint8]
    expected: NDArray[np.uint8]
    index: NDArray[np.intp]
    kept: NDArray[np.uint8]
    flags: tuple[bool, ...]
    observations: tuple[int, ...]


def learn(record: bytes, form: Form) -> Layout | None:
    """Return the layout of a record, or None if it is not of that form, or not written in the usual way.

    Raises:
        WireError: it is no record.
    """
    places: dict[str, Span] = {}
    sensor = 0
    _, start = read_varint(record, 1)
    for field in read_fields(record, start, len(record)):
        name = _NAMES.get(field.number, "")
        if field.number == _AGENT["observations"] and field.kind == BYTES and sensor < len(form.shapes):
            floats = _learn_observation(record, field.start, field.stop, form.shapes[sensor])
            if floats is None:
                return None
            places[str(sensor)] = floats
            sensor += 1
        elif name and field.kind == _KINDS[name] and name not in places:
            places[name] = Span(field.start, field.stop)
        else:
            return None
    mask = places.get("action_mask", Span(0, 0)).of(record)
    if sensor != len(form.shapes) or max(mask, default=0) > 0x7F:
        return None
    if len(mask) != form.actions:  # The player masks nothing in that way.
        places["other mask"] = places.pop("action_mask", Span(0, 0))
    return _lay_out(record, form, places)


def _lay_out(record: bytes, form: Form, places: dict[str, Span]) -> Layout:
    structure = np.full(len(record), 0xFF, np.uint8)
    for name, place in places.items():
        if name not in FLAGS:
            structure[place.start : place.stop] = _structure_of(name)
    index: list[int] = []
    kept: list[int] = []
    for name, width in form.columns().items():
        place = places.get(name, Span(0, 0))
        absent = [0] * (width - (place.stop - place.start))
        index += [*range(*place), *absent]
        kept += [0xFF ^ _structure_of(name)] * (place.stop - place.start) + absent
    data = np.frombuffer(record, np.uint8)
    checked = np.flatnonzero(structure)
    return Layout(
        checked=checked,
        bits=structure[checked],
        expected=data[checked] & structure[checked],
        index=np.array(index, np.intp),
        kept=np.array(kept, np.uint8),
        flags=tuple(any(places.get(name, Span(0, 0)).of(record)) for name in FLAGS),
        observations=tuple(places[str(sensor)].start for sensor in range(len(form.shapes))),
    )


def _structure_of(name: str) -> int:
    """Return the bits of each byte that are not the value: none of a float, the continuation bit of a varint."""
    return 0x80 if "mask" in name or _KINDS.get(name) == VARINT else 0


def _learn_observation(record: bytes, start: int, stop: int, shape: tuple[int, ...]) -> Span | None:
    """Return where an uncompressed observation's floats are, if it has that shape."""
    found: list[int] = []
    floats: Span | None = None
    for field in read_fields(record, start, stop):
        if field.number == _OBSERVATION["shape"] and field.kind == BYTES:
            at = field.start
            while at < field.stop:
                size, at = read_varint(record, at)
                found.append(size)
        elif field.number == _OBSERVATION["float_data"] and floats is None:
            packed = list(read_fields(record, field.start, field.stop))
            if len(packed) == 1 and (packed[0].number, packed[0].kind) == (_FLOATS, BYTES):
                floats = Span(packed[0].start, packed[0].stop)
        elif field.number in _NOT_SIMPLE:
            return None
    if tuple(found) != shape or floats is None or floats.stop - floats.start != 4 * math.prod(shape):
        return None
    return floats
