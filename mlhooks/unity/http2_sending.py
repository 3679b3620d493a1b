"""The sending side of an HTTP/2 server's connection: responses, as far as the client makes room, and resets."""

from __future__ import annotations

import struct

from mlhooks.unity.http2_frames import (
    DATA,
    DEFAULT_FRAME,
    DEFAULT_WINDOW,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    NO_ERROR,
    RST_STREAM,
    frame,
)

MOST_STREAMS = 100
_NO_TABLE = b"\x20"
"""What says that field blocks use no table, whatever size the client wants to have for it (RFC 7541, 4.2 and 6.3)."""


class Stream:
    """A request, and the response to it.

    Attributes:
        complete: the whole request is here.
        excessive: its body is longer than what is taken, and was thrown away.
        closed: nothing more can be sent: the response is complete, or the client no longer wants it.
    """

    __slots__ = (
        "body",
        "closed",
        "complete",
        "excessive",
        "length",
        "number",
        "response",
        "sent",
        "size",
        "trailers",
        "window",
    )

    def __init__(self, number: int, window: int, length: int | None) -> None:
        self.number, self.window, self.length = number, window, length
        self.complete = self.excessive = self.closed = False
        self.body: bytes | bytearray = b""
        self.size = 0  # in bytes, of the body with its padding
        self.response: bytes | None = None
        self.sent = 0  # in bytes, of the response
        self.trailers = b""


class Sender:
    """The half of a connection that sends. What is to be sent collects until `take` is called."""

    def __init__(self) -> None:
        self._out: list[bytes] = []
        self._before = _NO_TABLE  # It is sent in front of the next field block.
        self._window, self._stream_window, self._frame_size = DEFAULT_WINDOW, DEFAULT_WINDOW, DEFAULT_FRAME
        self._streams: dict[int, Stream] = {}
        self._last = 0  # This is the highest number of a stream.
        self._late: dict[int, None] = {}  # These streams were reset, and more of them may be on its way.
        self._held = 0  # in bytes, of requests that are not complete
        self._complete: list[Stream] = []  # These requests were not handed over yet.

    def take_output(self) -> bytes:
        """Return what is to be sent now, and forget it."""
        data = b"".join(self._out)
        self._out.clear()
        return data

    def respond(self, stream: Stream, head: bytes, body: bytes, trailers: bytes) -> None:
        """Answer a request: field blocks before and after the body, of which as much is sent as the client lets us."""
        if stream.closed:
            return
        self._tell(END_HEADERS, stream.number, head)
        stream.response, stream.trailers = body, trailers
        self._pour(stream)

    def reject(self, stream: Stream, fields: bytes) -> None:
        """Answer a request, complete or not, with a field block only."""
        self._end(stream, fields)

    def send_goaway(self, code: int = NO_ERROR, text: str = "") -> None:
        """Say that the connection ends, and why (RFC 9113, 6.8)."""
        self._out.append(frame(GOAWAY, 0, 0, struct.pack(">LL", self._last, code) + text.encode()))

    @property
    def responding(self) -> bool:
        """Whether part of a response waits for the client to make room."""
        return any(stream.response is not None for stream in self._streams.values())

    def _pour(self, stream: Stream) -> None:
        """Send as much of a response as the windows have room for (RFC 9113, 6.9)."""
        if stream.response is None:
            return
        while left := len(stream.response) - stream.sent:
            size = min(left, self._window, stream.window, self._frame_size)
            if size <= 0:
                return
            self._out.append(frame(DATA, 0, stream.number, stream.response[stream.sent : stream.sent + size]))
            stream.sent += size
            self._window -= size
            stream.window -= size
        self._end(stream, stream.trailers)

    def _pour_all(self) -> None:
        for stream in list(self._streams.values()):
            self._pour(stream)

    def _end(self, stream: Stream, fields: bytes) -> None:
        if not stream.closed:
            self._tell(END_HEADERS | END_STREAM, stream.number, fields)
            self._forget(stream)
            if not stream.complete:  # The rest is not needed (8.1).
                self._abandon(stream.number, NO_ERROR)

    def _tell(self, flags: int, number: int, block: bytes) -> None:
        self._out.append(frame(HEADERS, flags, number, self._before + block))
        self._before = b""

    def _forget(self, stream: Stream) -> None:
        if not stream.complete:
            self._held -= stream.size
        if stream in self._complete:
            self._complete.remove(stream)
        stream.closed, stream.response, stream.body = True, None, b""
        del self._streams[stream.number]

    def _abandon(self, number: int, code: int) -> None:
        """Reset a stream, of which more may be on its way (5.1)."""
        if stream := self._streams.get(number):
            self._forget(stream)
        self._refuse(number, code)
        self._late[number] = None
        if len(self._late) > MOST_STREAMS:
            del self._late[next(iter(self._late))]

    def _refuse(self, number: int, code: int) -> None:
        self._out.append(frame(RST_STREAM, 0, number, struct.pack(">L", code)))
