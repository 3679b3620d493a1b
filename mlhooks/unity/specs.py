"""From what a player announces about a behavior to its BehaviorSpec."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlagents_envs.base_env import ActionSpec, BehaviorSpec, DimensionProperty, ObservationSpec, ObservationType

from mlhooks.unity.images import image_size

if TYPE_CHECKING:
    from mlagents_envs.communicator_objects.agent_info_pb2 import AgentInfoProto
    from mlagents_envs.communicator_objects.brain_parameters_pb2 import BrainParametersProto
    from mlagents_envs.communicator_objects.observation_pb2 import ObservationProto

_CHANNELS_FIRST_SINCE = 3  # This is a major version of the package com.unity.ml-agents.
_SPATIAL, _CHANNELS = DimensionProperty.TRANSLATIONAL_EQUIVARIANCE, DimensionProperty.NONE


@dataclass(frozen=True)
class UnitySpec:
    """A behavior's spec, and how its observations look on the wire.

    Images are [channels, height, width] in the spec, as the networks take them. Players older than version 3 of the
    Unity package send [height, width, channels].

    Attributes:
        spec: what trainers see.
        wire_shapes: shape of each observation in messages.
        channels_last: for each observation, whether it is an image in the older order.
        compressed: whether an observation comes as a PNG image.
    """

    spec: BehaviorSpec
    wire_shapes: tuple[tuple[int, ...], ...]
    channels_last: tuple[bool, ...]
    compressed: bool


def read_spec(brain: BrainParametersProto, agent: AgentInfoProto, package_version: str) -> UnitySpec:
    """Read the spec of a behavior, from its announcement and the observations of its first agent.

    Args:
        brain: the announcement, which tells the actions.
        agent: an agent, which tells the observations.
        package_version: the player's version of the Unity package.
    """
    last = tuple(_channels_last(observation, package_version) for observation in agent.observations)
    observations = [_observation_spec(*pair) for pair in zip(agent.observations, last, strict=True)]
    return UnitySpec(
        spec=BehaviorSpec(observations, _action_spec(brain)),
        wire_shapes=tuple(tuple(observation.shape) for observation in agent.observations),
        channels_last=last,
        compressed=any(observation.compression_type for observation in agent.observations),
    )


def _observation_spec(observation: ObservationProto, channels_last: bool) -> ObservationSpec:
    shape = tuple(observation.shape)
    properties = _properties(observation) or (DimensionProperty.UNSPECIFIED,) * len(shape)
    if channels_last:
        shape, properties = (shape[2], *shape[:2]), (properties[2], *properties[:2])
    kind = ObservationType(observation.observation_type)
    return ObservationSpec(shape=shape, dimension_property=properties, observation_type=kind, name=observation.name)


def _properties(observation: ObservationProto) -> tuple[DimensionProperty, ...]:
    return tuple(DimensionProperty(value) for value in observation.dimension_properties)


def _channels_last(observation: ObservationProto, package_version: str) -> bool:
    """Return whether an observation is an image in the older order, as it, its PNG or the player's age says."""
    shape = tuple(observation.shape)
    if len(shape) != 3:
        return False
    properties = _properties(observation)
    if properties == (_SPATIAL, _SPATIAL, _CHANNELS):
        return True
    if properties == (_CHANNELS, _SPATIAL, _SPATIAL):
        return False
    if observation.compressed_data:
        size = image_size(observation.compressed_data)
        if (size == shape[:2]) != (size == shape[1:]):
            return size == shape[:2]
    major = package_version.partition(".")[0]
    return major.isdecimal() and int(major) < _CHANNELS_FIRST_SINCE


def _action_spec(brain: BrainParametersProto) -> ActionSpec:
    actions = brain.action_spec
    if actions.num_continuous_actions or actions.num_discrete_actions:
        return ActionSpec(actions.num_continuous_actions, tuple(actions.discrete_branch_sizes))
    sizes = tuple(brain.vector_action_size_deprecated)  # The protocol did this before 1.3.
    if brain.vector_action_space_type_deprecated == 1:
        return ActionSpec(sum(sizes[:1]), ())
    return ActionSpec(0, sizes)
