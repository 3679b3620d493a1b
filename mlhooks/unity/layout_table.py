"""Read the records of many agents at once, each by its layout."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlhooks.unity.layout import Form, Layout, learn
from mlhooks.unity.records import RECORD, parse_agent

UNREAD = 0
"""Number of the layout of records that have none."""

_MOST = 256  # A behavior has so many layouts; more are no pattern that is worth remembering.
_WEIGHTS = np.uint64(1) << np.arange(0, 70, 7, dtype=np.uint64)  # These are the weights of the bytes of a varint.


@dataclass
class Columns:
    """The values that the agents of one list sent, in its order: arrays of [agents, ...]."""

    done: NDArray[np.bool_]
    interrupted: NDArray[np.bool_]
    agent_id: NDArray[np.int32]
    reward: NDArray[np.float32]
    group_id: NDArray[np.int32]
    group_reward: NDArray[np.float32]
    mask: NDArray[np.bool_]
    obs: list[NDArray[np.float32] | NDArray[np.uint8]]


class LayoutTable:
    """The layouts that the records of one behavior had so far.

    Args:
        form: what the records hold.
        simple: whether they may have layouts at all.
    """

    def __init__(self, form: Form, simple: bool) -> None:
        self._form, self._simple = form, simple
        widths = form.columns()
        ends = np.cumsum([0, *widths.values()]).tolist()
        self._columns = {name: slice(*ends[i : i + 2]) for i, name in enumerate(widths)}
        self._layouts = [_fits_nothing(ends[-1], len(form.shapes))]
        self._by_size: dict[int, list[int]] = {}  # The one that fitted last is in front.
        self._stack()

    def _stack(self) -> None:
        """Put what is looked up for many records at once into arrays: [layouts, ...]."""
        layouts = self._layouts
        self._checked = _padded([layout.checked for layout in layouts])
        self._bits = _padded([layout.bits for layout in layouts])
        self._expected = _padded([layout.expected for layout in layouts])
        self._index = np.stack([layout.index for layout in layouts])
        self._kept = np.stack([layout.kept for layout in layouts])
        self._flags = np.array([layout.flags for layout in layouts])
        self._observations = np.array([layout.observations for layout in layouts], np.intp)

    def match(self, data: bytes, starts: Sequence[int], sizes: Sequence[int]) -> NDArray[np.intp]:
        """Return the number of each record's layout, `UNREAD` for none: [records]."""
        buffer = np.frombuffer(data, np.uint8)
        latest = {size: known[0] for size, known in self._by_size.items()}
        numbers = np.array([latest.get(size, UNREAD) for size in sizes])
        fits = self._fits(buffer, np.array(starts), numbers)
        if self._simple and not fits.all():
            for row in np.flatnonzero(~fits).tolist():
                numbers[row] = self._find(data[starts[row] : starts[row] + sizes[row]])
        return numbers

    def _fits(self, buffer: NDArray[np.uint8], at: NDArray[np.intp], numbers: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Return whether the record that begins at each place has the layout of each number: [records]."""
        found = buffer[at[:, None] + self._checked[numbers]] & self._bits[numbers]
        return np.asarray((found == self._expected[numbers]).all(axis=1))

    def _find(self, record: bytes) -> int:
        known = self._by_size.setdefault(len(record), [])
        numbers = np.array(known, np.intp)
        fits = self._fits(np.frombuffer(record, np.uint8), np.zeros_like(numbers), numbers)
        if fits.any():
            number = known.pop(int(fits.argmax()))
        elif len(self._layouts) < _MOST and (layout := self._learn(record)) is not None:
            number = len(self._layouts)
            self._layouts.append(layout)
            self._stack()
        else:
            number = UNREAD
        if number != UNREAD:
            known.insert(0, number)
        elif not known:
            del self._by_size[len(record)]
        return number

    def _learn(self, record: bytes) -> Layout | None:
        parse_agent(record)  # A record that protobuf refuses is refused, whatever it looks like.
        return learn(record, self._form)

    def read(self, data: bytes, starts: Sequence[int], numbers: NDArray[np.intp]) -> Columns:
        """Return what the records hold that begin at each place; zeros for those without a layout."""
        at = np.array(starts)
        bytes_of = np.frombuffer(data, np.uint8)[at[:, None] + self._index[numbers]] & self._kept[numbers]
        values = {name: bytes_of[:, place] for name, place in self._columns.items()}
        flags = self._flags[numbers]
        return Columns(
            done=flags[:, 0],
            interrupted=flags[:, 1],
            agent_id=_integers(values["id"]),
            reward=_floats(values["reward"])[:, 0],
            group_id=_integers(values["group_id"]),
            group_reward=_floats(values["group_reward"])[:, 0],
            mask=values["action_mask"] != 0,
            obs=[
                (
                    _floats(values[str(sensor)])
                    if str(sensor) in values
                    else _copied(data, at + self._observations[numbers, sensor], numbers, math.prod(shape))
                ).reshape(len(starts), *shape)
                for sensor, shape in enumerate(self._form.shapes)
            ],
        )


def _fits_nothing(width: int, observations: int) -> Layout:
    """Return the layout with the number `UNREAD`: its records would begin with another key than all do."""
    first = np.zeros(1, np.intp), np.full(1, 0xFF, np.uint8), np.full(1, RECORD ^ 0xFF, np.uint8)
    return Layout(*first, np.zeros(width, np.intp), np.zeros(width, np.uint8), (False,) * 2, (0,) * observations)


def _padded(rows: Sequence[NDArray[Any]]) -> NDArray[Any]:
    width = max(map(len, rows))
    return np.stack([np.pad(row, (0, width - len(row))) for row in rows])


def _floats(values: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Read little-endian floats into memory of their own: [records, bytes] -> [records, floats]."""
    if values.shape[1] == 0:
        return np.zeros(values.shape, np.float32)
    return values.copy().view("<f4").astype(np.float32, copy=False)


def _integers(values: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Return varints without their continuation bits: [records, bytes] -> [records]."""
    return (values.astype(np.uint64) @ _WEIGHTS).astype(np.int32)


def _copied(data: bytes, at: NDArray[np.intp], numbers: NDArray[np.intp], count: int) -> NDArray[np.float32]:
    """Copy `count` floats of each record that has a layout: [records, count]."""
    result = np.zeros((len(at), count), np.float32)
    for row in np.flatnonzero(numbers != UNREAD).tolist():
        result[row] = np.frombuffer(data, "<f4", count, at[row])
    return result
