"""Agent infos whose observations are all floats, encoded for all agents at once.

Every agent's info is laid out with all its optional fields at fixed columns of one array; what a message would leave
out is then dropped. The bytes are those that protobuf writes.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mlhooks.sim_player.behavior import Behavior, Bools, Infos, Ints, Sensor
from mlhooks.sim_player.dialect import Dialect
from mlhooks.sim_player.wire import field, packed

Bytes = npt.NDArray[np.uint8]
Sizes = npt.NDArray[np.intp]

_LENGTH = 1  # after the tag of the list's entry
_VARINT = 5  # bytes, at most, of a number
_REWARD, _DONE, _INTERRUPTED, _ID, _MASK = slice(6, 11), slice(11, 13), slice(13, 15), slice(15, 21), 21
_ENTRY_TAG, _REWARD_TAG, _ID_TAG, _GROUP_TAG, _GROUP_REWARD_TAG = 0x0A, 0x3D, 0x50, 0x70, 0x7D
_DONE_FIELD, _INTERRUPTED_FIELD = b"\x40\x01", b"\x48\x01"


def wire_shape(sensor: Sensor, dialect: Dialect) -> tuple[int, ...]:
    """Return the shape that the player gives for an observation."""
    if len(sensor.shape) < 3 or dialect.channels_first:
        return sensor.shape
    return (*sensor.shape[1:], sensor.shape[0])


def description(sensor: Sensor, dialect: Dialect) -> bytes:
    """Encode what an ObservationProto says after its data."""
    if not dialect.described:
        return b""
    properties = sensor.properties
    if len(properties) == 3 and not dialect.channels_first:
        properties = (*properties[1:], properties[0])
    return field(6, packed(properties)) + (b"\x38\x01" if sensor.goal else b"") + field(8, sensor.name.encode())


class Packer:
    """Encodes infos of one behavior, none of whose sensors is compressed; call it with them.

    The layout is kept while the agents stay the same.

    Args:
        behavior: Whose agents send.
        dialect: How they speak.
        done: Whether the infos are of ended episodes, or ask for decisions.
    """

    def __init__(self, behavior: Behavior, dialect: Dialect, *, done: bool) -> None:
        self._done = done
        self._channels_last = not dialect.channels_first
        self._groups = "multiAgentGroups" in dialect.capabilities
        width = sum(behavior.branches)
        mask = field(11, bytes(width)) if width else b""
        self._mask = slice(_MASK, _MASK + len(mask))
        self._mask_values = slice(self._mask.stop - width, self._mask.stop)
        template = bytearray(_MASK) + mask
        self._values: list[slice] = []
        for sensor in behavior.sensors:
            data = field(4, field(1, bytes(4 * sensor.size)))
            start = field(1, packed(wire_shape(sensor, dialect)))
            about = description(sensor, dialect)
            template += field(13, start + data + about)
            end = len(template) - len(about)
            self._values.append(slice(end - 4 * sensor.size, end))
        self._group = slice(len(template), len(template) + 1 + _VARINT)
        self._group_reward = slice(self._group.stop, self._group.stop + 5)
        template += bytes(self._group_reward.stop - len(template))
        template[0], template[_REWARD.start], template[_ID.start] = _ENTRY_TAG, _REWARD_TAG, _ID_TAG
        template[_DONE], template[_INTERRUPTED] = _DONE_FIELD, _INTERRUPTED_FIELD
        template[self._group.start], template[self._group_reward.start] = _GROUP_TAG, _GROUP_REWARD_TAG
        self._template = np.frombuffer(bytes(template), dtype=np.uint8)
        self._body = self._group.start - self._mask.stop
        self._ids: Ints | None = None
        self._group_ids: Ints | None = None

    def __call__(self, infos: Infos) -> bytes:
        """Return the serialized entries of a ListAgentInfoProto."""
        if not (_same(infos.ids, self._ids) and _same(infos.group_ids, self._group_ids)):
            self._lay_out(infos)
        rows, keep = self._rows, self._keep
        rewarded = infos.reward != 0
        rows[:, _REWARD.start + 1 : _REWARD.stop] = _bytes(infos.reward)
        keep[:, _REWARD] = rewarded[:, None]
        sizes: Sizes = self._sizes + 5 * rewarded
        if self._done:
            keep[:, _INTERRUPTED] = infos.interrupted[:, None]
            sizes += 2 * infos.interrupted
        if self._mask.stop > _MASK:
            masked = self._put_mask(infos)
            sizes += (self._mask.stop - _MASK) * masked
        for values, obs in zip(self._values, infos.obs, strict=True):
            if obs.ndim == 4 and self._channels_last:
                obs = obs.transpose(0, 2, 3, 1)
            rows[:, values] = _bytes(obs)
        if self._groups:
            shared = infos.group_reward != 0
            rows[:, self._group_reward.start + 1 : self._group_reward.stop] = _bytes(infos.group_reward)
            keep[:, self._group_reward] = shared[:, None]
            sizes += 5 * shared
        _put_varint(rows, keep, _LENGTH, sizes)
        return rows[keep].tobytes()

    def _lay_out(self, infos: Infos) -> None:
        self._ids, self._group_ids = infos.ids, infos.group_ids
        self._rows = rows = np.tile(self._template, (len(infos), 1))
        self._keep = keep = np.zeros(rows.shape, dtype=np.bool_)
        keep[:, 0] = True
        keep[:, _DONE] = self._done
        keep[:, self._mask.stop : self._group.start] = True
        self._sizes = self._body + 2 * self._done + _put_number(rows, keep, _ID.start, infos.ids)
        if self._groups:
            self._sizes += _put_number(rows, keep, self._group.start, infos.group_ids)

    def _put_mask(self, infos: Infos) -> Bools:
        nobody = infos.mask is None
        masked = np.full(len(infos), not nobody) if nobody or infos.masked is None else infos.masked
        self._keep[:, self._mask] = masked[:, None]
        if infos.mask is not None:
            self._rows[:, self._mask_values] = infos.mask
        return masked


def _same(new: Ints, old: Ints | None) -> bool:
    return new is old or (old is not None and new.tobytes() == old.tobytes())


def _bytes(values: npt.NDArray[np.float32]) -> Bytes:
    little: npt.NDArray[np.float32] = np.ascontiguousarray(values, dtype="<f4")
    return little.reshape(len(values), -1).view(np.uint8)


def _put_number(rows: Bytes, keep: Bools, column: int, values: Ints) -> Sizes:
    """Write a field of integers, left out where it is 0; return its sizes [agents]."""
    sizes = _put_varint(rows, keep, column + 1, values.astype(np.intp))
    keep[:, column] = values != 0
    keep[:, column + 1] = values != 0
    return np.where(values == 0, 0, sizes + 1)


def _put_varint(rows: Bytes, keep: Bools, column: int, values: Sizes) -> Sizes:
    """Write integers that are not negative; return their sizes [agents]."""
    sizes = np.ones(len(values), dtype=np.intp)
    keep[:, column] = True
    for place in range(column, column + _VARINT):
        rows[:, place] = values & 0x7F
        values = values >> 7
        longer = values > 0
        if place + 1 < column + _VARINT:
            keep[:, place + 1] = longer
        if not longer.any():
            break
        rows[:, place] |= longer.astype(np.uint8) << 7
        sizes += longer
    return sizes
