"""The agent infos of a behavior as bytes.

Where all observations are floats, every agent's info is laid out with all its optional fields at fixed columns of one
array, and what a message would leave out is then dropped. The bytes are those that protobuf writes. Where images are
compressed, protobuf encodes one info after another.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from mlagents_envs.communicator_objects.agent_info_pb2 import AgentInfoProto
from mlagents_envs.communicator_objects.observation_pb2 import PNG, ObservationProto

from mlhooks.sim_player.dialect import Dialect, description, wire_shape
from mlhooks.sim_player.world import Behavior, Bools, Infos, Ints, Sensor
from mlhooks.unity.records import RECORD
from mlhooks.unity.schema import FIELDS
from mlhooks.unity.wire import FIXED32, VARINT, write_bytes, write_varint

Bytes = npt.NDArray[np.uint8]
Sizes = npt.NDArray[np.intp]

_LENGTH = 1  # The length follows the tag of the list's entry.
_VARINT = 5  # A number has at most so many bytes.
_REWARD, _DONE, _INTERRUPTED, _ID, _MASK = slice(6, 11), slice(11, 13), slice(13, 15), slice(15, 21), 21
_AGENT, _OBSERVATION, _FLOATS = FIELDS["AgentInfoProto"], FIELDS["ObservationProto"], 1
_REWARD_TAG, _GROUP_REWARD_TAG = (_AGENT[name] << 3 | FIXED32 for name in ("reward", "group_reward"))
_ID_TAG, _GROUP_TAG = (_AGENT[name] << 3 | VARINT for name in ("id", "group_id"))
_DONE_FIELD, _INTERRUPTED_FIELD = (bytes((_AGENT[name] << 3 | VARINT, 1)) for name in ("done", "max_step_reached"))


def encoder(behavior: Behavior, dialect: Dialect) -> Callable[[Sequence[Infos]], bytes]:
    """Return a function that encodes what agents of the behavior send as a ListAgentInfoProto."""
    if any(sensor.mapping is not None for sensor in behavior.sensors):
        return lambda lists: b"".join(encode_rows(behavior, dialect, infos) for infos in lists)
    packers = {done: Packer(behavior, dialect, done=done) for done in (True, False)}
    return lambda lists: b"".join(packers[infos.done](infos) for infos in lists)


def encode_rows(behavior: Behavior, dialect: Dialect, infos: Infos) -> bytes:
    """Encode infos one by one, with protobuf, as entries of a ListAgentInfoProto."""
    entries = []
    for row in range(len(infos)):
        info = AgentInfoProto(
            id=infos.ids[row],
            reward=infos.reward[row],
            done=infos.done,
            max_step_reached=infos.done and bool(infos.interrupted[row]),
        )
        if "multiAgentGroups" in dialect.capabilities:
            info.group_id, info.group_reward = infos.group_ids[row], infos.group_reward[row]
        if infos.mask is not None and (infos.masked is None or infos.masked[row]):
            info.action_mask.extend(infos.mask[row].tolist())
        for sensor, obs in zip(behavior.sensors, infos.obs, strict=True):
            info.observations.append(_observation(sensor, obs[row], dialect))
        entries.append(write_bytes(1, info.SerializeToString()))
    return b"".join(entries)


def _observation(sensor: Sensor, value: npt.NDArray[Any], dialect: Dialect) -> ObservationProto:
    proto = ObservationProto.FromString(description(sensor, dialect))
    proto.shape.extend(wire_shape(sensor, dialect))
    if sensor.mapping is not None and _can_compress(sensor.mapping, dialect):
        proto.compression_type = PNG
        images = np.split(value, value.shape[-1] // 3, axis=-1)
        proto.compressed_data = b"".join(map(png, images))
        if "compressedChannelMapping" in dialect.capabilities:
            proto.compressed_channel_mapping.extend(sensor.mapping)
        return proto
    if sensor.mapping is not None:
        value = decompressed(value, sensor.mapping)
    if value.ndim == 3 and not dialect.channels_first:
        value = value.transpose(1, 2, 0)
    proto.float_data.data.extend(value.ravel().tolist())
    return proto


def _can_compress(mapping: Sequence[int], dialect: Dialect) -> bool:
    return len(mapping) == 3 or "concatenatedPngObservations" in dialect.capabilities


def png(image: npt.NDArray[np.uint8]) -> bytes:
    """Encode an image [height, width, 3] as a PNG file."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(file, "png", compress_level=1)
    return file.getvalue()


def decompressed(images: npt.NDArray[np.uint8], mapping: Sequence[int]) -> npt.NDArray[np.float32]:
    """Return the observation [channels, height, width] of images [height, width, 3 * PNGs]."""
    channels = (images.transpose(2, 0, 1) / np.float32(255)).astype(np.float32)
    belongs = np.array(mapping)
    return np.stack([channels[belongs == channel].mean(axis=0) for channel in range(max(mapping) + 1)])


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
        mask = write_bytes(_AGENT["action_mask"], bytes(width)) if width else b""
        self._mask = slice(_MASK, _MASK + len(mask))
        self._mask_values = slice(self._mask.stop - width, self._mask.stop)
        template = bytearray(_MASK) + mask
        self._values: list[slice] = []
        for sensor in behavior.sensors:
            data = write_bytes(_OBSERVATION["float_data"], write_bytes(_FLOATS, bytes(4 * sensor.size)))
            start = write_bytes(_OBSERVATION["shape"], b"".join(map(write_varint, wire_shape(sensor, dialect))))
            about = description(sensor, dialect)
            template += write_bytes(_AGENT["observations"], start + data + about)
            end = len(template) - len(about)
            self._values.append(slice(end - 4 * sensor.size, end))
        self._group = slice(len(template), len(template) + 1 + _VARINT)
        self._group_reward = slice(self._group.stop, self._group.stop + 5)
        template += bytes(self._group_reward.stop - len(template))
        template[0], template[_REWARD.start], template[_ID.start] = RECORD, _REWARD_TAG, _ID_TAG
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
    """Write a field of integers, left out where it is 0, and return its sizes [agents]."""
    sizes = _put_varint(rows, keep, column + 1, values.astype(np.intp))
    keep[:, column] = values != 0
    keep[:, column + 1] = values != 0
    return np.where(values == 0, 0, sizes + 1)


def _put_varint(rows: Bytes, keep: Bools, column: int, values: Sizes) -> Sizes:
    """Write integers that are not negative, and return their sizes [agents]."""
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
