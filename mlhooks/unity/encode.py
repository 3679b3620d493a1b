"""From actions as arrays to the bytes of a message to a player."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from mlagents_envs.base_env import ActionTuple
from numpy.typing import NDArray

from mlhooks.unity.schema import FIELDS
from mlhooks.unity.wire import write_bytes, write_varint

_INPUT, _ACTION = FIELDS["UnityRLInputProto"], FIELDS["AgentActionProto"]
_RESET = 1  # CommandProto calls it RESET.
_SMALL = 0x7F  # This is the largest number that is one byte as a varint.


def encode_step(actions: Mapping[str, ActionTuple], side_channel: bytes) -> bytes:
    """Return a serialized UnityRLInputProto with the command STEP, which is 0 and thus not written.

    Args:
        actions: behavior id -> the actions of its agents that asked for a decision, in their order; behaviors without
            such an agent are left out.
        side_channel: the messages of all side channels.
    """
    parts = []
    for behavior_id, action in actions.items():
        if len(action.continuous):
            entry = write_bytes(1, behavior_id.encode()) + write_bytes(2, encode_actions(action))
            parts.append(write_bytes(_INPUT["agent_actions"], entry))
    if side_channel:
        parts.append(write_bytes(_INPUT["side_channel"], side_channel))
    return b"".join(parts)


def encode_reset(side_channel: bytes) -> bytes:
    """Return a serialized UnityRLInputProto with the command RESET."""
    command = write_varint(_INPUT["command"] << 3) + write_varint(_RESET)
    return command + (write_bytes(_INPUT["side_channel"], side_channel) if side_channel else b"")


def encode_actions(action: ActionTuple) -> bytes:
    """Return a serialized ListAgentActionProto: one AgentActionProto for each row of the actions.

    The field for players older than protocol 1.3 holds continuous and discrete actions as floats, one after another.
    """
    continuous: NDArray[np.float32] = np.asarray(action.continuous, "<f4")  # [agents, continuous size]
    discrete: NDArray[np.int32] = np.asarray(action.discrete, np.int32)  # [agents, branches]
    both = np.concatenate([continuous, discrete.astype("<f4")], axis=1)
    if discrete.size and (discrete.min() < 0 or discrete.max() > _SMALL):
        branches = [b"".join(map(_encode_int32, row)) for row in discrete.tolist()]
        return b"".join(
            write_bytes(1, _record(old.tobytes(), new.tobytes(), branch))
            for old, new, branch in zip(both, continuous, branches, strict=True)
        )
    # All rows have the same length, so that one of them tells where the bytes of all go.
    count = len(both)
    widths = (4 * both.shape[1], 4 * continuous.shape[1], discrete.shape[1])
    pattern = write_bytes(1, _record(*(b"\0" * width for width in widths)))
    rows = np.tile(np.frombuffer(pattern, np.uint8), (count, 1))
    values = (_bytes_of(both), _bytes_of(continuous), discrete.astype(np.uint8))
    stop = len(pattern)
    for width, value in reversed(list(zip(widths, values, strict=True))):
        if width:
            rows[:, stop - width : stop] = value
            # This goes over its key and length, to the end of the field before.
            stop -= width + len(write_varint(width)) + 1
    return rows.tobytes()


def _record(both: bytes, continuous: bytes, discrete: bytes) -> bytes:
    fields = ("vector_actions_deprecated", both), ("continuous_actions", continuous), ("discrete_actions", discrete)
    return b"".join(write_bytes(_ACTION[name], value) for name, value in fields if value)


def _bytes_of(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(values).view(np.uint8).reshape(len(values), 4 * values.shape[1])


def _encode_int32(value: int) -> bytes:
    return write_varint(value % 2**64)  # A negative number is written as if it had 64 bits.
