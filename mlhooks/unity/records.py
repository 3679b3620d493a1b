"""The agents of one behavior in a message: a serialized ListAgentInfoProto, record by record."""

from __future__ import annotations

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from mlhooks.unity import schema
from mlhooks.unity.wire import BYTES, WireError, read_varint

schema.install()

from mlagents_envs.communicator_objects.agent_info_pb2 import AgentInfoProto  # noqa: E402

RECORD = 1 << 3 | BYTES
"""Key of the one field of ListAgentInfoProto, with which each record begins."""


def split(data: bytes, start: int, stop: int) -> tuple[list[int], list[int]]:
    """Return where each record of a list begins, its key and length included, and its size.

    Raises:
        WireError: the bytes are no list.
    """
    starts: list[int] = []
    sizes: list[int] = []
    at = start
    try:
        while at < stop:
            if data[at] != RECORD:
                raise WireError(f"there is no agent at byte {at}")
            size = data[at + 1] + 2
            if size > 0x81:  # The length has more bytes.
                length, body = read_varint(data, at + 1)
                size = body + length - at
            starts.append(at)
            sizes.append(size)
            at += size
    except IndexError:
        at = stop + 1
    if at != stop:
        raise WireError("the last agent is longer than its list")
    return starts, sizes


def parse_agent(record: bytes) -> AgentInfoProto:
    """Return an agent from its record, with key and length in front.

    Raises:
        WireError: protobuf cannot read it.
    """
    try:
        return AgentInfoProto.FromString(record[read_varint(record, 1)[1] :])
    except (DecodeError, UnicodeDecodeError) as error:  # protobuf raises the latter without its C part.
        raise WireError(f"an agent cannot be read: {error}") from error
