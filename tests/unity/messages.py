"""Made-up players' messages, as protobuf objects."""

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from mlhooks.unity import schema

schema.install()

from mlagents_envs.communicator_objects.agent_info_pb2 import AgentInfoProto  # noqa: E402
from mlagents_envs.communicator_objects.brain_parameters_pb2 import BrainParametersProto  # noqa: E402
from mlagents_envs.communicator_objects.observation_pb2 import PNG, ObservationProto  # noqa: E402
from mlagents_envs.communicator_objects.unity_rl_output_pb2 import UnityRLOutputProto  # noqa: E402

ListAgentInfoProto = UnityRLOutputProto.ListAgentInfoProto
HEIGHT_WIDTH_CHANNELS, CHANNELS_HEIGHT_WIDTH = (2, 2, 1), (1, 2, 2)
"""Dimension properties of images, in the older order of the axes and in the newer one."""


def observation(
    values: np.ndarray, name: str = "sensor", properties: Sequence[int] = (), kind: int = 0
) -> ObservationProto:
    """Return an uncompressed observation."""
    proto = ObservationProto(shape=values.shape, name=name, dimension_properties=properties, observation_type=kind)
    proto.float_data.data.extend(values.ravel().tolist())
    return proto


def png(pixels: np.ndarray) -> bytes:
    """Return [height, width, 3] bytes as a PNG file."""
    file = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def image(
    pixels: np.ndarray,
    channels: int,
    mapping: Sequence[int] = (),
    name: str = "camera",
    properties: Sequence[int] = HEIGHT_WIDTH_CHANNELS,
) -> ObservationProto:
    """Return a compressed observation of `channels` channels from [height, width, 3 * images] bytes."""
    height, width = pixels.shape[:2]
    last = tuple(properties) != CHANNELS_HEIGHT_WIDTH
    return ObservationProto(
        shape=(height, width, channels) if last else (channels, height, width),
        name=name,
        dimension_properties=properties,
        compression_type=PNG,
        compressed_data=b"".join(png(part) for part in np.split(pixels, pixels.shape[2] // 3, axis=2)),
        compressed_channel_mapping=mapping,
    )


def agent(
    agent_id: int,
    observations: Sequence[ObservationProto],
    *,
    reward: float = 0.0,
    done: bool = False,
    interrupted: bool = False,
    mask: Sequence[bool] = (),
    group: int = 0,
    group_reward: float = 0.0,
) -> AgentInfoProto:
    """Return one agent's decision request, or its end."""
    return AgentInfoProto(
        id=agent_id,
        observations=observations,
        reward=reward,
        done=done,
        max_step_reached=interrupted,
        action_mask=[bool(forbidden) for forbidden in mask],
        group_id=group,
        group_reward=group_reward,
    )


def brain(name: str = "Ball?team=0", *, continuous: int = 0, branches: Sequence[int] = ()) -> BrainParametersProto:
    """Return the announcement of a behavior."""
    proto = BrainParametersProto(brain_name=name, is_training=True)
    proto.action_spec.num_continuous_actions = continuous
    proto.action_spec.num_discrete_actions = len(branches)
    proto.action_spec.discrete_branch_sizes.extend(branches)
    return proto


def serialized(agents: Sequence[AgentInfoProto]) -> bytes:
    """Return a behavior's list of agents."""
    data: bytes = ListAgentInfoProto(value=agents).SerializeToString()
    return data
