"""The server's side of an HTTP/2 connection (RFC 9113), without its socket: bytes go in, requests and bytes come out.

It has what one caller of unary calls needs: frames, settings, pings and flow control in both directions. The fields of
requests are not decoded: a port has one method, so nothing depends on them. Fields of responses are sent without
compression (RFC 7541, 6.2.2), which needs no state.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What every client sends first (RFC 9113, 3.4)."""

DATA, HEADERS, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 5, 6, 7, 8
END_STREAM = ACK = 0x1
END_HEADERS, PADDED = 0x4, 0x8
INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE = 4, 5
NO_ERROR, PROTOCOL_ERROR, FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR, ENHANCE_YOUR_CALM = 0, 1, 3, 6, 11

_DEFAULT_WINDOW, _DEFAULT_FRAME = 65_535, 16_384  # until a peer says otherwise (RFC 9113, 6.5.2)
_WIDEST, _LONGEST = 2**31 - 1, 2**24 - 1
_REFILL = 2**20  # bytes received after which as many are granted anew
_MAX_STREAMS = 100
_HEADER = struct.Struct(">HBBBL")


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """A frame (RFC 9113, 4.1)."""
    return _HEADER.pack(len(payload) >> 8, len(payload) & 0xFF, kind, flags, stream) + payload


class Http2Error(Exception):
    """The client broke the rules, which ends the connection."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class Stream:
    """A request, and the response to it.

    Attributes:
        complete: the whole request is here.
        closed: nothing more can be sent: the response is complete, or the client no longer wants it.
    """

    __slots__ = ("_parts", "closed", "complete", "number", "response", "trailers", "window")

    def __init__(self, number: int, window: int) -> None:
        self.number, self.window = number, window
        self.complete = self.closed = False
        self._parts: list[bytes] = []
        self.response: memoryview | None = None  # the rest of the body
        self.trailers = b""

    def add(self, part: bytes) -> None:
        """Append to the body of the request."""
        self._parts.append(part)

    @property
    def body(self) -> bytes:
        """The body of the request, as far as it is here."""
        return b"".join(self._parts)


class Connection:
    """One client.

    What is to be sent collects until `take` is called, first of all our settings: windows as wide as they can be, since
    whatever comes is read at once.
    """

    def __init__(self) -> None:
        wide = struct.pack(">HL", INITIAL_WINDOW_SIZE, _WIDEST)
        self._out = [
            frame(SETTINGS, 0, 0, wide),
            frame(WINDOW_UPDATE, 0, 0, struct.pack(">L", _WIDEST - _DEFAULT_WINDOW)),
        ]
        self._unread, self._greeted = b"", False
        self._window, self._stream_window, self._frame_size = _DEFAULT_WINDOW, _DEFAULT_WINDOW, _DEFAULT_FRAME
        self._received = 0  # bytes of bodies for which no new ones were granted yet
        self._streams: dict[int, Stream] = {}
        self._last = 0  # the highest number of a stream
        self._complete: list[Stream] = []
        self._handlers: dict[int, Callable[[int, int, bytes], None]] = {
            DATA: self._data,
            HEADERS: self._headers,
            RST_STREAM: self._reset,
            SETTINGS: self._settings,
            PUSH_PROMISE: self._push,
            PING: self._ping,
            WINDOW_UPDATE: self._window_update,
        }

    def receive(self, data: bytes) -> list[Stream]:
        """Take in what the client sent.

        Returns:
            The requests that are complete now.

        Raises:
            Http2Error: it is not HTTP/2.
        """
        data = self._unread + data
        at, end = 0, len(data)
        if not self._greeted:
            if data[: len(PREFACE)] != PREFACE[:end]:
                raise Http2Error(PROTOCOL_ERROR, "the client does not speak HTTP/2")
            if end < len(PREFACE):
                self._unread = data
                return []
            self._greeted, at = True, len(PREFACE)
        while end - at >= _HEADER.size:
            high, low, kind, flags, stream = _HEADER.unpack_from(data, at)
            start = at + _HEADER.size
            stop = start + (high << 8 | low)
            if stop - start > _DEFAULT_FRAME:
                raise Http2Error(FRAME_SIZE_ERROR, f"a frame of {stop - start} bytes")
            if stop > end:
                break
            if kind in self._handlers:  # the others do not matter here, or are of extensions, to be ignored (5.5)
                self._handlers[kind](flags, stream & _WIDEST, data[start:stop])
            at = stop
        self._unread = data[at:]
        complete, self._complete = self._complete, []
        return complete

    def take(self) -> bytes:
        """What is to be sent now."""
        data = b"".join(self._out)
        self._out.clear()
        return data

    def respond(self, stream: Stream, head: bytes, body: bytes, trailers: bytes) -> None:
        """Answer a request: field blocks before and after the body, of which as much is sent as the client lets us."""
        if stream.closed:
            return
        self._out.append(frame(HEADERS, END_HEADERS, stream.number, head))
        stream.response, stream.trailers = memoryview(body), trailers
        self._pour(stream)

    def reject(self, stream: Stream, fields: bytes) -> None:
        """Answer a request with a field block only."""
        self._end(stream, fields)

    def leave(self, code: int = NO_ERROR, text: str = "") -> None:
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
        while stream.response:
            size = min(len(stream.response), self._window, stream.window, self._frame_size)
            if size <= 0:
                return
            self._out.append(frame(DATA, 0, stream.number, bytes(stream.response[:size])))
            stream.response = stream.response[size:]
            self._window -= size
            stream.window -= size
        self._end(stream, stream.trailers)

    def _pour_all(self) -> None:
        for stream in list(self._streams.values()):
            self._pour(stream)

    def _end(self, stream: Stream, fields: bytes) -> None:
        if not stream.closed:
            self._out.append(frame(HEADERS, END_HEADERS | END_STREAM, stream.number, fields))
            self._forget(stream)

    def _forget(self, stream: Stream) -> None:
        stream.closed, stream.response = True, None
        del self._streams[stream.number]

    def _headers(self, flags: int, number: int, _block: bytes) -> None:
        if number % 2 == 0:
            raise Http2Error(PROTOCOL_ERROR, f"a request on stream {number}")
        stream = self._streams.get(number)
        if stream is None:
            if number <= self._last:
                return  # of a request that was answered before its end, or cancelled
            if len(self._streams) >= _MAX_STREAMS:
                raise Http2Error(ENHANCE_YOUR_CALM, f"more than {_MAX_STREAMS} requests at once")
            self._last = number
            stream = self._streams[number] = Stream(number, self._stream_window)
        self._finish(stream, flags)

    def _data(self, flags: int, number: int, payload: bytes) -> None:
        if number == 0 or number > self._last:
            raise Http2Error(PROTOCOL_ERROR, f"data on stream {number}, which is not open")
        self._received += len(payload)
        if self._received >= _REFILL:
            self._out.append(frame(WINDOW_UPDATE, 0, 0, struct.pack(">L", self._received)))
            self._received = 0
        stream = self._streams.get(number)
        if stream is None:
            return
        if flags & PADDED:
            if not payload or payload[0] >= len(payload):
                raise Http2Error(PROTOCOL_ERROR, "a frame of nothing but padding")
            payload = payload[1 : len(payload) - payload[0]]
        stream.add(payload)
        self._finish(stream, flags)

    def _finish(self, stream: Stream, flags: int) -> None:
        if flags & END_STREAM and not stream.complete:
            stream.complete = True
            self._complete.append(stream)

    def _reset(self, _flags: int, number: int, _code: bytes) -> None:
        if stream := self._streams.get(number):
            self._forget(stream)

    def _settings(self, flags: int, _number: int, payload: bytes) -> None:
        if flags & ACK:
            return
        if len(payload) % 6:
            raise Http2Error(FRAME_SIZE_ERROR, f"settings of {len(payload)} bytes")
        for key, value in struct.iter_unpack(">HL", payload):
            if key == INITIAL_WINDOW_SIZE:
                for stream in self._streams.values():
                    stream.window = _widened(stream.window, value - self._stream_window)
                self._stream_window = _widened(0, value)
            elif key == MAX_FRAME_SIZE:
                if not _DEFAULT_FRAME <= value <= _LONGEST:
                    raise Http2Error(PROTOCOL_ERROR, f"frames of {value} bytes")
                self._frame_size = value
        self._out.append(frame(SETTINGS, ACK, 0))
        self._pour_all()

    def _push(self, *_frame: object) -> None:
        raise Http2Error(PROTOCOL_ERROR, "a client does not push")

    def _ping(self, flags: int, _number: int, payload: bytes) -> None:
        if len(payload) != 8:
            raise Http2Error(FRAME_SIZE_ERROR, f"a ping of {len(payload)} bytes")
        if not flags & ACK:
            self._out.append(frame(PING, ACK, 0, payload))

    def _window_update(self, _flags: int, number: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise Http2Error(FRAME_SIZE_ERROR, f"a window update of {len(payload)} bytes")
        room = int.from_bytes(payload) & _WIDEST
        if room == 0:
            raise Http2Error(PROTOCOL_ERROR, "a window update by nothing")
        if number == 0:
            self._window = _widened(self._window, room)
            self._pour_all()
        elif stream := self._streams.get(number):
            stream.window = _widened(stream.window, room)
            self._pour(stream)


def _widened(window: int, by: int) -> int:
    if window + by > _WIDEST:
        raise Http2Error(FLOW_CONTROL_ERROR, "a window wider than HTTP/2 allows")
    return window + by
