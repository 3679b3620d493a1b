"""The few parts of protobuf's wire format that put a message together from parts that are ready."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

OK_HEADER = b"\x0a\x03\x08\xc8\x01"
"""The field `header` of a UnityMessageProto, with status 200."""
STOP = b"\x0a\x03\x08\x90\x03"
"""A UnityMessageProto that says that its sender leaves: status 400."""


def varint(value: int) -> bytes:
    """Encode an integer that is not negative."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def packed(values: Iterable[int]) -> bytes:
    """Encode integers that are not negative as the payload of a packed field."""
    return b"".join(map(varint, values))


def field(number: int, payload: bytes) -> bytes:
    """Encode a field, of number 1 to 15, that has a length."""
    return bytes((number << 3 | 2,)) + varint(len(payload)) + payload


def output_message(lists: Mapping[str, bytes], side_channel: bytes, initialization: bytes) -> bytes:
    """Encode a UnityMessageProto of a player that goes on.

    Args:
        lists: Behavior name -> serialized ListAgentInfoProto.
        side_channel: What the side channels say.
        initialization: Serialized UnityRLInitializationOutputProto; empty if there is no new behavior.
    """
    parts = [field(2, field(1, name.encode()) + field(2, infos)) for name, infos in lists.items()]
    if side_channel:
        parts.append(field(3, side_channel))
    output = field(1, b"".join(parts))
    if initialization:
        output += field(2, initialization)
    return OK_HEADER + field(2, output)
