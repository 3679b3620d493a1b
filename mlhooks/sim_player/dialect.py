"""The protocol as a player of some version speaks it, with its announcements of behaviors and sensors."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from mlagents_envs.communicator_objects.brain_parameters_pb2 import BrainParametersProto

from mlhooks.sim_player.world import Behavior, Sensor
from mlhooks.unity.wire import write_bytes, write_varint

CAPABILITIES = {
    "baseRLCapabilities": (1, 0),
    "concatenatedPngObservations": (1, 1),
    "compressedChannelMapping": (1, 2),
    "hybridActions": (1, 3),
    "trainingAnalytics": (1, 4),
    "variableLengthObservation": (1, 5),
    "multiAgentGroups": (1, 5),
}
"""Capability -> protocol version that brought it."""

CONTINUOUS_SPACE = 1


@dataclass(frozen=True, slots=True)
class Dialect:
    """A protocol version, a package version and what follows from them.

    Attributes:
        communication: Protocol version that the player names.
        package: Version of the Unity package that it names.
        capabilities: Names of what both sides are able to do.
        action_spec: Behaviors are described and actions read in today's fields, not in the deprecated ones.
        described: Observations have a name, a type and dimension properties.
        channels_first: Images are channels, height, width; before package 3 they were height, width, channels.
    """

    communication: str
    package: str
    capabilities: frozenset[str]
    action_spec: bool
    described: bool
    channels_first: bool

    def with_trainer(self, capabilities: Any) -> Dialect:
        """Return the dialect for a trainer with these capabilities, a UnityRLCapabilitiesProto."""
        return replace(self, capabilities=frozenset(name for name in self.capabilities if getattr(capabilities, name)))


def dialect(communication: str, package: str | None = None) -> Dialect:
    """Return the dialect of a protocol version; one that is no version speaks the newest."""
    found = re.match(r"(\d+)\.(\d+)", communication)
    version = (int(found[1]), int(found[2])) if found else (1, 5)
    package = package or ("3.0.0" if version >= (1, 5) else "1.0.8")
    major = re.match(r"\d+", package)
    return Dialect(
        communication,
        package,
        frozenset(name for name, since in CAPABILITIES.items() if version >= since),
        action_spec=version >= (1, 3),
        described=version >= (1, 5),
        channels_first=major is None or int(major[0]) >= 3,
    )


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
    dimensions = write_bytes(6, b"".join(map(write_varint, properties)))
    return dimensions + (b"\x38\x01" if sensor.goal else b"") + write_bytes(8, sensor.name.encode())
