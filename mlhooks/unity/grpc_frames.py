"""The frames of gRPC around a message in HTTP/2: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md."""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from urllib.parse import quote

_PREFIX = struct.Struct(">BL")  # It says whether the message is compressed, and its length.
_STATUS_200, _STATUS_405, _STATUS_415 = b"\x88", b"\x08\x03405", b"\x08\x03415"  # RFC 7541, appendix A, entry 8
_CONTENT = re.compile(rb"application/grpc(\+proto)?[ \t]*(;.*)?")

EXCHANGE = b"/communicator_objects.UnityToExternalProto/Exchange"
"""The one method that there is."""
LONGEST_MESSAGE = 2**28
"""Bytes of a player's message: 64 times what ML-Agents takes, and enough for images of hundreds of agents."""


class NoMessage(Exception):
    """A request without one whole readable message.

    Attributes:
        status: what the client is to be told.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def _field(name: str, value: str) -> bytes:
    """Return a field, literally and without indexing (RFC 7541, 6.2.2); lengths below 127 only (5.1)."""
    if max(len(name), len(value)) >= 0x7F:
        raise ValueError(f"{name} is too long for a field: {value}")
    return b"\x00" + b"".join(bytes((len(text),)) + text.encode("ascii") for text in (name, value))


HEAD = _STATUS_200 + _field("content-type", "application/grpc")
"""The field block before a message."""
TRAILERS = _field("grpc-status", "0")
"""The field block after it."""

ALREADY_EXISTS, RESOURCE_EXHAUSTED, UNIMPLEMENTED, INTERNAL = 6, 8, 12, 13
"""Status codes: https://grpc.github.io/grpc/core/md_doc_statuscodes.html."""


def objection(fields: Mapping[bytes, bytes]) -> bytes:
    """Return the field block that answers a request which is no call of the method; empty for a call of it."""
    if fields[b":method"] != b"POST":
        return _STATUS_405 + _field("allow", "POST")
    if not _CONTENT.fullmatch(fields.get(b"content-type", b"")):
        return _STATUS_415
    if fields[b":path"] != EXCHANGE:
        return refusal(UNIMPLEMENTED, "there is no such method here")
    return b""


def refusal(status: int, text: str) -> bytes:
    """Return the field block of an answer without a message."""
    return HEAD + _field("grpc-status", str(status)) + _field("grpc-message", quote(text, safe=" ,"))


def wrap(message: bytes) -> bytes:
    """Return the body that carries a message."""
    return _PREFIX.pack(0, len(message)) + message


def unwrap(body: bytes | bytearray) -> bytes:
    """Return the message that a body carries.

    Raises:
        NoMessage: it is not exactly one, or it is compressed.
    """
    if len(body) < _PREFIX.size:
        raise NoMessage(INTERNAL, "the call has no message")
    compressed, size = _PREFIX.unpack_from(body)
    if compressed:
        raise NoMessage(UNIMPLEMENTED, "compressed messages cannot be read here")
    if len(body) != _PREFIX.size + size:
        raise NoMessage(INTERNAL, "the call does not have exactly one message")
    return bytes(memoryview(body)[_PREFIX.size :])
