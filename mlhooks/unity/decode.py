"""From the bytes of a player's message to arrays over all agents of a behavior."""

from __future__ import annotations

import math

import numpy as np
from mlagents_envs.base_env import BehaviorSpec, DecisionSteps, TerminalSteps
from numpy.typing import NDArray

from mlhooks.envs.pixels import blank, to_floats
from mlhooks.errors import EnvironmentFailure, NonFiniteError
from mlhooks.unity import schema
from mlhooks.unity.images import ImageError, decode_images
from mlhooks.unity.layout import Form
from mlhooks.unity.layout_table import UNREAD, Columns, LayoutTable
from mlhooks.unity.records import parse_agent, split
from mlhooks.unity.specs import UnitySpec

schema.install()

from mlagents_envs.communicator_objects.observation_pb2 import NONE, ObservationProto  # noqa: E402

Steps = tuple[DecisionSteps, TerminalSteps]
Values = NDArray[np.float32] | NDArray[np.uint8]


class ObservationMismatch(EnvironmentFailure):
    """An agent whose observations or values are not what its behavior announced."""


class Decoder:
    """Decodes the agents of one behavior.

    Records that are laid out like earlier ones are read together, by numpy; the others one by one, by protobuf.

    Args:
        behavior_id: the behavior's name in messages.
        unity_spec: what the behavior announced.
    """

    def __init__(self, behavior_id: str, unity_spec: UnitySpec) -> None:
        self.behavior_id = behavior_id
        self.unity_spec = unity_spec
        self.spec: BehaviorSpec = unity_spec.spec
        self._branches: tuple[int, ...] = self.spec.action_spec.discrete_branches
        self._shapes = unity_spec.wire_shapes
        self._table = LayoutTable(Form(self._shapes, sum(self._branches)), simple=not unity_spec.compressed)

    def decode(self, data: bytes, start: int = 0, stop: int | None = None) -> Steps:
        """Return the steps in `data[start:stop]`, a serialized ListAgentInfoProto; an agent may have one of each kind.

        Raises:
            ObservationMismatch: observations do not have the shapes that the behavior announced.
            NonFiniteError: an observation or a reward is NaN or infinite.
            WireError: the bytes are no list of agents.
        """
        starts, sizes = split(data, start, len(data) if stop is None else stop)
        if not starts:
            return DecisionSteps.empty(self.spec), TerminalSteps.empty(self.spec)
        numbers = self._table.match(data, starts, sizes)
        columns = self._table.read(data, starts, numbers)
        for row in np.flatnonzero(numbers == UNREAD).tolist():
            self._read_slowly(columns, row, data[starts[row] : starts[row] + sizes[row]])
        return self._steps(columns)

    def _read_slowly(self, columns: Columns, row: int, record: bytes) -> None:
        agent = parse_agent(record)
        columns.done[row], columns.interrupted[row] = agent.done, agent.max_step_reached
        columns.agent_id[row], columns.group_id[row] = agent.id, agent.group_id
        columns.reward[row], columns.group_reward[row] = agent.reward, agent.group_reward
        if len(agent.action_mask) == columns.mask.shape[1]:
            columns.mask[row] = agent.action_mask
        if len(agent.observations) != len(self._shapes):
            raise ObservationMismatch(
                f"{self._agent(agent.id)} sent {len(agent.observations)} observations; its behavior announced "
                f"{len(self._shapes)}. Agents of one behavior must have the same sensors."
            )
        for sensor, observation in enumerate(agent.observations):
            values = self._observation(agent.id, sensor, observation)
            if row == 0 and self.unity_spec.compressed and values.dtype == np.uint8:
                columns.obs[sensor] = self._bytes(sensor, len(columns.done))
            elif values.dtype != columns.obs[sensor].dtype:  # Agents differ in how they are sent.
                columns.obs[sensor], values = to_floats(columns.obs[sensor]), to_floats(values)
            columns.obs[sensor][row] = values

    def _bytes(self, sensor: int, agents: int) -> NDArray[np.uint8]:
        """Make room for images as the player shapes them, with their channels last in memory."""
        shape = self._shapes[sensor]
        last = self.unity_spec.channels_last[sensor]
        return np.zeros((agents, *shape), np.uint8) if last else blank(agents, shape, np.uint8)

    def _observation(self, agent_id: int, sensor: int, observation: ObservationProto) -> Values:
        """Return one agent's observation, as the player shapes it."""
        expected, shape = self._shapes[sensor], tuple(observation.shape)
        where = f"{self._agent(agent_id)}, {self._sensor(sensor)}"
        if shape != expected:
            raise ObservationMismatch(
                f"{where}: the observation has the shape {shape}; the behavior announced {expected}. Shapes must not "
                "change while a player runs, and agents of one behavior must have the same sensors."
            )
        if observation.compression_type == NONE:
            values = np.array(observation.float_data.data, np.float32)
            if values.size != math.prod(expected):
                raise ObservationMismatch(f"{where}: {values.size} numbers came for the shape {shape}.")
            return values.reshape(expected)
        last = self.unity_spec.channels_last[sensor]
        try:
            image = decode_images(
                observation.compressed_data, shape[-1 if last else 0], observation.compressed_channel_mapping
            )
        except ImageError as error:
            raise ObservationMismatch(f"{where}: {error}.") from error
        image = image.transpose(1, 2, 0) if last else image
        if image.shape != shape:
            raise ObservationMismatch(f"{where}: the image has the shape {image.shape} where {shape} is expected.")
        return image

    def _steps(self, columns: Columns) -> Steps:
        """Split what was read into the two kinds of steps, after a check of every value."""
        for name, rewards in (("reward", columns.reward), ("group reward", columns.group_reward)):
            self._check_finite(columns, rewards, name)
        for sensor, obs in enumerate(columns.obs):
            self._check_finite(columns, obs, self._sensor(sensor))
            if self.unity_spec.channels_last[sensor]:
                columns.obs[sensor] = obs.transpose(0, 3, 1, 2)
        ended = columns.done
        rows, ends = (np.flatnonzero(~ended), np.flatnonzero(ended)) if ended.any() else (slice(None), slice(0, 0))
        mask = columns.mask[rows]
        decisions = DecisionSteps(
            [obs[rows] for obs in columns.obs],
            columns.reward[rows],
            columns.agent_id[rows],
            np.split(mask, np.cumsum(self._branches)[:-1], axis=1) if self._branches else None,
            columns.group_id[rows],
            columns.group_reward[rows],
        )
        terminals = TerminalSteps(
            [obs[ends] for obs in columns.obs],
            columns.reward[ends],
            columns.interrupted[ends],
            columns.agent_id[ends],
            columns.group_id[ends],
            columns.group_reward[ends],
        )
        return decisions, terminals

    def _check_finite(self, columns: Columns, values: Values, what: str) -> None:
        if values.dtype == np.uint8:
            return
        finite = np.isfinite(values)
        if not finite.all():
            row = int(np.argwhere(~finite)[0][0])
            value = values[row][~finite[row]].flat[0] if values.ndim > 1 else values[row]
            raise NonFiniteError(
                f"{self._agent(int(columns.agent_id[row]))}, {what}: the player sent {value}. Look at what the agent "
                "adds to its observations and rewards, a division by zero for example."
            )

    def _agent(self, agent_id: int) -> str:
        return f"Behavior {self.behavior_id!r}, agent {agent_id}"

    def _sensor(self, sensor: int) -> str:
        return f"sensor {self.spec.observation_specs[sensor].name!r} (observation {sensor})"
