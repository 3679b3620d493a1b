"""A behavior's agent infos as bytes, whatever its sensors, and what a player says about the behavior itself."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from mlagents_envs.communicator_objects.agent_info_pb2 import AgentInfoProto
from mlagents_envs.communicator_objects.brain_parameters_pb2 import BrainParametersProto
from mlagents_envs.communicator_objects.observation_pb2 import PNG, ObservationProto

from mlhooks.sim_player.behavior import Behavior, Infos, Sensor
from mlhooks.sim_player.dialect import Dialect
from mlhooks.sim_player.packing import Packer, description, wire_shape
from mlhooks.sim_player.wire import field

CONTINUOUS_SPACE = 1


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
        entries.append(field(1, info.SerializeToString()))
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


def brain_parameters(behavior: Behavior, dialect: Dialect) -> BrainParametersProto:
    """Describe a behavior, as a player does together with the first infos of its agents."""
    proto = BrainParametersProto(brain_name=behavior.name, is_training=True)
    if dialect.action_spec:
        proto.action_spec.num_continuous_actions = behavior.continuous
        proto.action_spec.num_discrete_actions = len(behavior.branches)
        proto.action_spec.discrete_branch_sizes.extend(behavior.branches)
    elif behavior.continuous:
        proto.vector_action_size_deprecated.append(behavior.continuous)
        proto.vector_action_space_type_deprecated = CONTINUOUS_SPACE
    else:
        proto.vector_action_size_deprecated.extend(behavior.branches)
    return proto
