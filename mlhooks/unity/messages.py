"""The envelope of the protocol: what both sides put around observations and actions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mlhooks.unity.schema import FIELDS
from mlhooks.unity.wire import BYTES, NOWHERE, Span, WireError, read_fields, write_bytes, write_varint

_MESSAGE, _OUTPUT, _RL_OUTPUT = FIELDS["UnityMessageProto"], FIELDS["UnityOutputProto"], FIELDS["UnityRLOutputProto"]
OK, STOPPED = 200, 400


def _header(status: int) -> bytes:
    return write_bytes(_MESSAGE["header"], write_varint(FIELDS["HeaderProto"]["status"] << 3) + write_varint(status))


EMPTY = _header(OK)
"""A message without contents, which is the second one of every player."""
STOP = _header(STOPPED)
"""The answer that ends a player."""


def wrap_input(unity_input: bytes) -> bytes:
    """Return a message to the player, from a serialized UnityInputProto."""
    return EMPTY + write_bytes(_MESSAGE["unity_input"], unity_input)


def wrap_rl_input(rl_input: bytes) -> bytes:
    """Return a serialized UnityInputProto, from a serialized UnityRLInputProto."""
    return write_bytes(FIELDS["UnityInputProto"]["rl_input"], rl_input)


def wrap_output(lists: Mapping[str, bytes], side_channel: bytes, initialization: bytes) -> bytes:
    """Encode a UnityMessageProto of a player that goes on.

    Args:
        lists: Behavior name -> serialized ListAgentInfoProto.
        side_channel: What the side channels say.
        initialization: Serialized UnityRLInitializationOutputProto; empty if there is no new behavior.
    """
    entries = [write_bytes(1, name.encode()) + write_bytes(2, infos) for name, infos in lists.items()]
    parts = [write_bytes(_RL_OUTPUT["agentInfos"], entry) for entry in entries]
    if side_channel:
        parts.append(write_bytes(_RL_OUTPUT["side_channel"], side_channel))
    output = write_bytes(_OUTPUT["rl_output"], b"".join(parts))
    if initialization:
        output += write_bytes(_OUTPUT["rl_initialization_output"], initialization)
    return EMPTY + write_bytes(_MESSAGE["unity_output"], output)


@dataclass
class PlayerMessage:
    """A message of a player, taken apart down to the list of each behavior's agents.

    Attributes:
        data: the serialized message.
        status: of its header: 200, or 400 when the player says goodbye.
        output: where in `data` the UnityOutputProto is.
        initialization: where its UnityRLInitializationOutputProto is; most messages have none.
        agents: behavior id -> where its ListAgentInfoProto is.
        side_channel: the messages of all side channels.
    """

    data: bytes
    status: int = 0
    output: Span = NOWHERE
    initialization: Span = NOWHERE
    agents: dict[str, Span] = field(default_factory=dict)
    side_channel: bytes = b""


def read_message(data: bytes) -> PlayerMessage:
    """Take a player's message apart.

    Raises:
        WireError: it is none.
    """
    message = PlayerMessage(data)
    for number, value in _parts(data, Span(0, len(data))):
        if number == _MESSAGE["header"]:
            for part in read_fields(data, value.start, value.stop):
                if part.number == FIELDS["HeaderProto"]["status"]:
                    message.status = part.value
        elif number == _MESSAGE["unity_output"]:
            message.output = value
            _read_output(message)
    return message


def _read_output(message: PlayerMessage) -> None:
    for number, value in _parts(message.data, message.output):
        if number == _OUTPUT["rl_initialization_output"]:
            message.initialization = value
        elif number == _OUTPUT["rl_output"]:
            _read_rl_output(message, value)


def _read_rl_output(message: PlayerMessage, place: Span) -> None:
    for number, value in _parts(message.data, place):
        if number == _RL_OUTPUT["agentInfos"]:
            # In an entry of a map, 1 is the key and 2 the value; an empty one may lack.
            entry = dict(_parts(message.data, value))
            behavior_id = _text(message.data, entry.get(1, NOWHERE))
            message.agents[behavior_id] = entry.get(2, NOWHERE)
        elif number == _RL_OUTPUT["side_channel"]:
            message.side_channel = value.of(message.data)


def _text(data: bytes, place: Span) -> str:
    try:
        return place.of(data).decode()
    except UnicodeDecodeError as error:
        raise WireError(f"a behavior's name is not text: {error}") from error


def _parts(data: bytes, place: Span) -> list[tuple[int, Span]]:
    """Return the fields of a message that are bytes, text or messages, and where their values lie."""
    fields = read_fields(data, place.start, place.stop)
    return [(part.number, Span(part.start, part.stop)) for part in fields if part.kind == BYTES]
