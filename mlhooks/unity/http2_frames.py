"""Frames of HTTP/2 (RFC 9113, 4 and 6), and what is wrong with one."""

from __future__ import annotations

import struct
from collections.abc import Iterator

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What every client sends first (RFC 9113, 3.4)."""

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM = ACK = 0x1
END_HEADERS, PADDED, PRIORITIZED = 0x4, 0x8, 0x20
ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = 2, 3, 4, 5, 6
ENABLE_CONNECT_PROTOCOL = 8  # RFC 8441

NO_ERROR, PROTOCOL_ERROR, FLOW_CONTROL_ERROR, STREAM_CLOSED, FRAME_SIZE_ERROR, REFUSED_STREAM = 0, 1, 3, 5, 6, 7
COMPRESSION_ERROR, ENHANCE_YOUR_CALM = 9, 11

DEFAULT_WINDOW, DEFAULT_FRAME = 65_535, 16_384  # They hold until a peer says otherwise (6.5.2).
# The widest window is also the highest number of a stream; the longest is of a frame.
WIDEST, LONGEST = 2**31 - 1, 2**24 - 1
HEADER = struct.Struct(">HBBBL")
_RANGES = {
    ENABLE_PUSH: (0, 1, PROTOCOL_ERROR),
    INITIAL_WINDOW_SIZE: (0, WIDEST, FLOW_CONTROL_ERROR),
    MAX_FRAME_SIZE: (DEFAULT_FRAME, LONGEST, PROTOCOL_ERROR),
    ENABLE_CONNECT_PROTOCOL: (0, 1, PROTOCOL_ERROR),
}


class Http2Error(Exception):
    """The client broke the rules, which ends the connection."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return a frame (4.1)."""
    return HEADER.pack(len(payload) >> 8, len(payload) & 0xFF, kind, flags, stream) + payload


def settings(values: dict[int, int]) -> bytes:
    """Return a frame of settings (6.5)."""
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HL", *item) for item in values.items()))


def settings_of(flags: int, payload: bytes) -> Iterator[tuple[int, int]]:
    """Return the settings of a frame, whose values are checked (6.5.2).

    Raises:
        Http2Error: they have others, or the frame has another size.
    """
    if len(payload) % 6 or (flags & ACK and payload):
        raise Http2Error(FRAME_SIZE_ERROR, f"settings of {len(payload)} bytes")
    for key, value in struct.iter_unpack(">HL", payload):
        least, most, code = _RANGES.get(key, (0, value, NO_ERROR))
        if not least <= value <= most:
            raise Http2Error(code, f"{value} for setting {key}")
        yield key, value


def unpadded(flags: int, payload: bytes) -> bytes:
    """Return what a frame carries beside its padding (6.1), which must not reach into its priority (6.2).

    Raises:
        Http2Error: the padding is longer than the frame.
    """
    if not flags & PADDED:
        return payload
    if not payload:
        raise Http2Error(FRAME_SIZE_ERROR, "a frame that is too short for its padding")
    fixed = 5 if flags & PRIORITIZED and len(payload) > 5 else 0
    if payload[0] >= len(payload) - fixed:
        raise Http2Error(PROTOCOL_ERROR, "a frame of nothing but padding")
    return payload[1 : len(payload) - payload[0]]


def without_priority(stream: int, payload: bytes) -> bytes:
    """Return what follows the priority of a stream, which is deprecated and ignored (5.3).

    Raises:
        Http2Error: there is none, or the stream depends on itself.
    """
    if len(payload) < 5:
        raise Http2Error(FRAME_SIZE_ERROR, f"a priority of {len(payload)} bytes")
    if int.from_bytes(payload[:4]) & WIDEST == stream:
        raise Http2Error(PROTOCOL_ERROR, f"stream {stream} depends on itself")
    return payload[5:]


def sized(kind: str, payload: bytes, size: int) -> int:
    """Return the number that the payload of a frame holds.

    Raises:
        Http2Error: it has another size.
    """
    if len(payload) != size:
        raise Http2Error(FRAME_SIZE_ERROR, f"a {kind} of {len(payload)} bytes")
    return int.from_bytes(payload)
