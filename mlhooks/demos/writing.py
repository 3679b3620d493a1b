"""Write `.demo` files, the binary format of ML-Agents' demonstrations; `reading.py` describes it."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
from mlagents_envs.base_env import DimensionProperty, ObservationSpec

from mlhooks.demos.reading import BRAIN_AT, VERSIONS
from mlhooks.demos.records import Records
from mlhooks.errors import DemonstrationError
from mlhooks.unity import schema
from mlhooks.unity.images import encode_images
from mlhooks.unity.schema import FIELDS
from mlhooks.unity.wire import write_bytes, write_varint

schema.install()

from mlagents_envs.communicator_objects.agent_action_pb2 import AgentActionProto  # noqa: E402
from mlagents_envs.communicator_objects.agent_info_action_pair_pb2 import AgentInfoActionPairProto  # noqa: E402
from mlagents_envs.communicator_objects.agent_info_pb2 import AgentInfoProto  # noqa: E402
from mlagents_envs.communicator_objects.brain_parameters_pb2 import BrainParametersProto  # noqa: E402
from mlagents_envs.communicator_objects.demonstration_meta_pb2 import DemonstrationMetaProto  # noqa: E402
from mlagents_envs.communicator_objects.observation_pb2 import PNG, ObservationProto  # noqa: E402

LONGEST_NAME = 16
"""The most characters of a demonstration's name; Unity cuts longer names, too."""
_FLOAT_DATA, _FLOATS = FIELDS["ObservationProto"]["float_data"], 1
_IMAGE = (DimensionProperty.NONE, *[DimensionProperty.TRANSLATIONAL_EQUIVARIANCE] * 2)


def write_demo(path: Path, records: Records) -> None:
    """Write records as a file, which ML-Agents reads as well; a file of that name is replaced.

    Images of bytes are compressed without loss. If someone acts in the record of an episode's end, as in files of old
    players, all actions are written into the field that those players used.

    Raises:
        DemonstrationError: the file cannot be written; no part of it is left.
    """
    data = demo_bytes(path.stem, records)
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(data)
        part.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        reason = error.strerror or error
        raise DemonstrationError(f"The demonstration {path} cannot be written: {reason}.") from error


def demo_bytes(name: str, records: Records) -> bytes:
    """Return the content of a file.

    Args:
        name: the name of the demonstration, of which `metadata` keeps the beginning.
        records: what the file is to hold.
    """
    old = bool((records.done & records.acts).any())
    head = metadata(name, len(records), records.episodes, records.mean_reward)
    parts = [head.ljust(BRAIN_AT, b"\0"), _delimited(_brain(records, old))]
    parts += [_delimited(_pair(records, number, old)) for number in range(len(records))]
    return b"".join(parts)


def metadata(name: str, steps: int, episodes: int, mean_reward: float) -> bytes:
    """Return the metadata at the beginning of a file, with as much of the name as fits in front of the next message."""
    meta = DemonstrationMetaProto(
        api_version=VERSIONS[-1], number_steps=steps, number_episodes=episodes, mean_reward=mean_reward
    )
    head = b""
    for length in range(LONGEST_NAME + 1):
        meta.demonstration_name = name[:length]
        longer = _delimited(meta.SerializeToString())
        if len(longer) > BRAIN_AT:
            break
        head = longer
    return head


def _delimited(message: bytes) -> bytes:
    return write_varint(len(message)) + message


def _brain(records: Records, old: bool) -> bytes:
    spec = records.spec.action_spec
    brain = BrainParametersProto(brain_name=records.behavior_name)
    if not old:
        brain.action_spec.num_continuous_actions = spec.continuous_size
        brain.action_spec.num_discrete_actions = spec.discrete_size
        brain.action_spec.discrete_branch_sizes.extend(spec.discrete_branches)
    is_continuous = spec.continuous_size > 0
    brain.vector_action_size_deprecated.extend([spec.continuous_size] if is_continuous else spec.discrete_branches)
    brain.vector_action_space_type_deprecated = int(is_continuous)
    message: bytes = brain.SerializeToString()
    return message


def _pair(records: Records, number: int, old: bool) -> bytes:
    info = AgentInfoProto(
        reward=records.reward[number],
        done=records.done[number],
        max_step_reached=records.interrupted[number],
    )
    if records.mask is not None:
        info.action_mask.extend(records.mask[number].tolist())
    observations = (
        write_bytes(FIELDS["AgentInfoProto"]["observations"], _observation(spec, obs[number]))
        for spec, obs in zip(records.spec.observation_specs, records.obs, strict=True)
    )
    pair = AgentInfoActionPairProto(action_info=_action(records, number, old))
    message: bytes = write_bytes(1, info.SerializeToString() + b"".join(observations)) + pair.SerializeToString()
    return message


def _action(records: Records, number: int, old: bool) -> AgentActionProto:
    if not records.acts[number] and (old or not records.done[number]):
        return AgentActionProto()
    continuous, discrete = records.continuous[number].tolist(), records.discrete[number].tolist()
    if old:
        return AgentActionProto(vector_actions_deprecated=continuous or discrete)
    return AgentActionProto(continuous_actions=continuous, discrete_actions=discrete)


def _observation(spec: ObservationSpec, value: np.ndarray) -> bytes:
    proto = ObservationProto(shape=value.shape, name=spec.name, observation_type=spec.observation_type.value)
    # An image says that its channels come first, also where a player did not say what its dimensions are.
    properties = spec.dimension_property if any(spec.dimension_property) or value.ndim != 3 else _IMAGE
    proto.dimension_properties.extend(each.value for each in properties)
    if value.dtype == np.uint8:
        proto.compression_type = PNG
        proto.compressed_data, mapping = encode_images(value)
        proto.compressed_channel_mapping.extend(mapping)
        message: bytes = proto.SerializeToString()
        return message
    floats = np.ascontiguousarray(value, "<f4").tobytes()
    described: bytes = proto.SerializeToString()
    return described + write_bytes(_FLOAT_DATA, write_bytes(_FLOATS, floats))
