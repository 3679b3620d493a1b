"""From the bytes of a player's message to arrays over all agents of a behavior."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from mlagents_envs.base_env import BehaviorSpec, DecisionSteps, TerminalSteps
from numpy.typing import NDArray

from mlhooks.errors import EnvironmentFailure, NonFiniteError
from mlhooks.unity import schema
from mlhooks.unity.images import ImageError, decode_images
from mlhooks.unity.layout import Layout, Rows, learn, read_floats, split
from mlhooks.unity.specs import UnitySpec
from mlhooks.unity.wire import WireError, read_varint

schema.install()

from mlagents_envs.communicator_objects.agent_info_pb2 import AgentInfoProto  # noqa: E402
from mlagents_envs.communicator_objects.observation_pb2 import NONE, ObservationProto  # noqa: E402

Steps = tuple[DecisionSteps, TerminalSteps]
_MOST_LAYOUTS = 256  # of one behavior; more are no pattern that is worth remembering


class ObservationMismatch(EnvironmentFailure):
    """An agent whose observations or values are not what its behavior announced."""


@dataclass
class _Columns:
    """What the agents of one list sent, in its order: arrays of [agents, ...]."""

    done: NDArray[np.bool_]
    interrupted: NDArray[np.bool_]
    agent_id: NDArray[np.int32]
    reward: NDArray[np.float32]
    group_id: NDArray[np.int32]
    group_reward: NDArray[np.float32]
    mask: NDArray[np.bool_]
    obs: list[NDArray[np.float32]]


class Decoder:
    """Decodes the agents of one behavior.

    Records that look like earlier ones are read together, by numpy; the others one by one, by protobuf.

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
        self._layouts: dict[int, list[Layout]] = {}  # by size of the record

    def decode(self, data: bytes, start: int = 0, stop: int | None = None) -> Steps:
        """The steps in `data[start:stop]`, a serialized ListAgentInfoProto; an agent may have one of each kind.

        Raises:
            ObservationMismatch: observations do not have the shapes that the behavior announced.
            NonFiniteError: an observation or a reward is NaN or infinite.
            WireError: the bytes are no list of agents.
        """
        stop = len(data) if stop is None else stop
        if start == stop:
            return self._steps(self._columns(0))
        buffer = np.frombuffer(data, np.uint8)
        length, body = read_varint(data, start + 1)
        size = body + length - start
        if (stop - start) % size == 0:
            rows = buffer[start:stop].reshape(-1, size)
            for layout in self._layouts.get(size, ()):
                # if the first record's form is everyone's, then each one does end where the next begins
                if layout.fits(rows).all():
                    return self._steps(self._read(layout, rows))
        return self._steps(self._gather(data, buffer, start, stop))

    def _gather(self, data: bytes, buffer: Rows, start: int, stop: int) -> _Columns:
        """Read records of several forms, those of one form together."""
        starts, by_size = split(data, start, stop)
        columns = self._columns(len(starts))
        at = np.array(starts)
        for size, members in by_size.items():
            left = np.array(members)  # the records of this size that are not read yet
            rows = buffer[at[left][:, None] + np.arange(size)]
            known = iter(tuple(self._layouts.get(size, ())))
            while len(left):
                first = starts[left[0]]
                layout = next(known, None) or self._learn(data[first : first + size])
                if layout is None:
                    self._read_slowly(columns, left[0], data[first : first + size])
                    left, rows = left[1:], rows[1:]
                    continue
                fitting = layout.fits(rows)
                if fitting.all():
                    _put(columns, left, self._read(layout, rows))
                    break
                if fitting.any():
                    _put(columns, left[fitting], self._read(layout, rows[fitting]))
                    left, rows = left[~fitting], rows[~fitting]
        return columns

    def _learn(self, record: bytes) -> Layout | None:
        if self.unity_spec.compressed:
            return None
        _parse(record)  # what protobuf refuses is refused
        layout = learn(record, self._shapes)
        if layout is not None:
            if sum(map(len, self._layouts.values())) >= _MOST_LAYOUTS:
                self._layouts.clear()
            self._layouts.setdefault(len(record), []).insert(0, layout)
        return layout

    def _columns(self, count: int) -> _Columns:
        return _Columns(
            done=np.zeros(count, np.bool_),
            interrupted=np.zeros(count, np.bool_),
            agent_id=np.zeros(count, np.int32),
            reward=np.zeros(count, np.float32),
            group_id=np.zeros(count, np.int32),
            group_reward=np.zeros(count, np.float32),
            mask=np.zeros((count, sum(self._branches)), np.bool_),
            obs=[np.zeros((count, *shape), np.float32) for shape in self._shapes],
        )

    def _read(self, layout: Layout, rows: Rows) -> _Columns:
        """Read records of one layout: [agents, size]."""
        count, branches = len(rows), sum(self._branches)
        mask = rows[:, layout.places["action_mask"]] if "action_mask" in layout.places else None
        return _Columns(
            done=np.full(count, layout.flag("done")),
            interrupted=np.full(count, layout.flag("max_step_reached")),
            agent_id=layout.integers(rows, "id"),
            reward=layout.floats(rows, "reward"),
            group_id=layout.integers(rows, "group_id"),
            group_reward=layout.floats(rows, "group_reward"),
            mask=np.zeros((count, branches), np.bool_) if mask is None or mask.shape[1] != branches else mask != 0,
            obs=[
                read_floats(rows, place).reshape(count, *shape)
                for place, shape in zip(layout.observations, self._shapes, strict=True)
            ],
        )

    def _read_slowly(self, columns: _Columns, row: int, record: bytes) -> None:
        agent = _parse(record)
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
            columns.obs[sensor][row] = self._observation(agent.id, sensor, observation)

    def _observation(self, agent_id: int, sensor: int, observation: ObservationProto) -> NDArray[np.float32]:
        """One agent's observation, as the player shapes it."""
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

    def _steps(self, columns: _Columns) -> Steps:
        """Split what was read into the two kinds of steps, after a check of every value."""
        for name, rewards in (("reward", columns.reward), ("group reward", columns.group_reward)):
            self._check_finite(columns, rewards, name)
        for sensor, obs in enumerate(columns.obs):
            self._check_finite(columns, obs, self._sensor(sensor))
            if self.unity_spec.channels_last[sensor]:
                columns.obs[sensor] = np.ascontiguousarray(obs.transpose(0, 3, 1, 2))
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

    def _check_finite(self, columns: _Columns, values: NDArray[np.float32], what: str) -> None:
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


def _parse(record: bytes) -> AgentInfoProto:
    """An agent from its record, with key and length in front."""
    try:
        return AgentInfoProto.FromString(record[read_varint(record, 1)[1] :])
    except DecodeError as error:
        raise WireError(f"an agent cannot be read: {error}") from error


def _put(columns: _Columns, rows: NDArray[np.intp], read: _Columns) -> None:
    columns.done[rows], columns.interrupted[rows] = read.done, read.interrupted
    columns.agent_id[rows], columns.reward[rows] = read.agent_id, read.reward
    columns.group_id[rows], columns.group_reward[rows] = read.group_id, read.group_reward
    columns.mask[rows] = read.mask
    for into, values in zip(columns.obs, read.obs, strict=True):
        into[rows] = values
