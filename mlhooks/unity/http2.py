"""The server's side of an HTTP/2 connection (RFC 9113), without its socket: bytes go in, requests and bytes come out.

It has what one caller of unary calls needs: frames, fields, settings, pings and flow control in both directions. Fields
of responses are sent without compression (RFC 7541, 6.2.2), which needs no state.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import ClassVar

from mlhooks.unity.http2_fields import MOST_FIELDS, FieldReader, Request
from mlhooks.unity.http2_frames import (
    ACK,
    CONTINUATION,
    DATA,
    DEFAULT_FRAME,
    DEFAULT_WINDOW,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    GOAWAY,
    HEADER,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    MAX_CONCURRENT_STREAMS,
    MAX_FRAME_SIZE,
    MAX_HEADER_LIST_SIZE,
    PADDED,
    PING,
    PREFACE,
    PRIORITIZED,
    PRIORITY,
    PROTOCOL_ERROR,
    PUSH_PROMISE,
    REFUSED_STREAM,
    RST_STREAM,
    SETTINGS,
    STREAM_CLOSED,
    WIDEST,
    WINDOW_UPDATE,
    Http2Error,
    frame,
    settings,
    settings_of,
    sized,
    unpadded,
    without_priority,
)
from mlhooks.unity.http2_sending import MOST_STREAMS, Sender, Stream

_REFILL = 2**20  # After so many bytes were received, as many are granted again.
_MOST_CONTINUATIONS = 32


class Connection(Sender):
    """One client.

    What is sent first is our settings. Windows are as wide as they can be, since whatever comes is read at once: bodies
    have a limit of their own, which is reached before.

    Args:
        objection: to a request, by its fields: the fields of an answer that is given at once, or nothing.
        most: bytes of bodies, of all requests that are not complete together.
    """

    def __init__(self, objection: Callable[[dict[bytes, bytes]], bytes], most: int) -> None:
        ours = {INITIAL_WINDOW_SIZE: WIDEST, MAX_CONCURRENT_STREAMS: MOST_STREAMS, MAX_HEADER_LIST_SIZE: MOST_FIELDS}
        wide = frame(WINDOW_UPDATE, 0, 0, struct.pack(">L", WIDEST - DEFAULT_WINDOW))
        super().__init__()
        self._out += [settings(ours), wide]
        self._most, self._fields = most, FieldReader(objection)
        self._unread, self._greeted = b"", False
        self._only: int | None = SETTINGS  # The next frame has to be of this kind.
        # These are fields that go on, and their stream, flags and frames.
        self._block, self._begun = bytearray(), (0, 0, 0)
        self._received = 0  # For so many bytes of bodies, no new ones were granted yet.

    def receive(self, data: bytes) -> list[Stream]:
        """Take in what the client sent.

        Returns:
            The requests that are complete now, or excessive.

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
        while end - at >= HEADER.size:
            high, low, kind, flags, stream = HEADER.unpack_from(data, at)
            start = at + HEADER.size
            stop = start + (high << 8 | low)
            if stop - start > DEFAULT_FRAME:
                raise Http2Error(FRAME_SIZE_ERROR, f"a frame of {stop - start} bytes")
            if stop > end:
                break
            if self._only is not None and kind != self._only:
                raise Http2Error(PROTOCOL_ERROR, f"a frame of kind {kind}, where one of kind {self._only} has to be")
            if kind in self._HANDLERS:  # The others are of extensions, and ignored (5.5).
                self._HANDLERS[kind](self, flags, stream & WIDEST, data[start:stop])
            at = stop
        self._unread = data[at:]
        complete, self._complete = self._complete, []
        return complete

    def _headers(self, flags: int, number: int, payload: bytes) -> None:
        if number % 2 == 0:
            raise Http2Error(PROTOCOL_ERROR, f"a request on stream {number}")
        if flags & (PADDED | PRIORITIZED):
            payload = unpadded(flags, payload)
            if flags & PRIORITIZED:
                payload = without_priority(number, payload)
        if flags & END_HEADERS:
            self._fields_of(number, flags, payload)
        else:
            self._only, self._begun, self._block = CONTINUATION, (number, flags, 0), bytearray(payload)

    def _continuation(self, flags: int, number: int, payload: bytes) -> None:
        begun, first, frames = self._begun
        if self._only != CONTINUATION or number != begun:
            raise Http2Error(PROTOCOL_ERROR, f"fields of stream {number} that nothing began")
        self._block += payload
        self._begun = begun, first, frames + 1
        if len(self._block) > MOST_FIELDS or frames == _MOST_CONTINUATIONS:
            raise Http2Error(ENHANCE_YOUR_CALM, f"fields of more than {MOST_FIELDS} bytes, or in very many frames")
        if flags & END_HEADERS:
            self._only = None
            self._fields_of(number, first, bytes(self._block))

    def _fields_of(self, number: int, flags: int, block: bytes) -> None:
        stream = self._streams.get(number)
        if number > self._last:
            self._begin(number, flags, self._fields.request(block))
        elif number in self._late:
            self._fields.decode(block)
        elif stream is None:
            raise Http2Error(STREAM_CLOSED, f"fields on stream {number}, which is closed")
        elif stream.complete:
            self._fields.decode(block)
            self._abandon(number, STREAM_CLOSED)
        else:
            self._fields.trailers(block)
            if not flags & END_STREAM:
                raise Http2Error(PROTOCOL_ERROR, "fields in the middle of a request")
            self._finish(stream)

    def _begin(self, number: int, flags: int, request: Request) -> None:
        self._last = number
        if len(self._streams) >= MOST_STREAMS:
            self._abandon(number, REFUSED_STREAM)
            return
        stream = self._streams[number] = Stream(number, self._stream_window, request.length)
        if request.objection:
            stream.complete = bool(flags & END_STREAM)
            self.reject(stream, request.objection)
        elif flags & END_STREAM:
            self._finish(stream)

    def _data(self, flags: int, number: int, payload: bytes) -> None:
        size = len(payload)
        self._received += size
        if self._received >= _REFILL:
            self._out.append(frame(WINDOW_UPDATE, 0, 0, struct.pack(">L", self._received)))
            self._received = 0
        if flags & PADDED:
            payload = unpadded(PADDED, payload)  # Its other flags mean nothing here.
        stream = self._opened("body", number)
        if stream is None:
            if number not in self._late:
                self._refuse(number, STREAM_CLOSED)
        elif stream.complete:
            self._abandon(number, STREAM_CLOSED)
        else:
            self._add(stream, payload, size)
            if flags & END_STREAM:
                self._finish(stream)

    def _add(self, stream: Stream, payload: bytes, size: int) -> None:
        """Append to the body of a request; a body in one frame, which is most of them, is not copied."""
        stream.size += size
        self._held += size
        if stream.excessive:
            return
        if not stream.body:
            stream.body = payload
        else:
            if isinstance(stream.body, bytes):
                stream.body = bytearray(stream.body)
            stream.body += payload
        if stream.length is not None and len(stream.body) > stream.length:
            raise Http2Error(PROTOCOL_ERROR, "a body that is longer than its fields say")
        if self._held > self._most:
            stream.excessive, stream.body = True, b""
            self._complete.append(stream)

    def _finish(self, stream: Stream) -> None:
        stream.complete = True
        self._held -= stream.size
        if stream.excessive:
            return
        if stream.length not in (None, len(stream.body)):
            raise Http2Error(PROTOCOL_ERROR, "a body that is shorter than its fields say")
        self._complete.append(stream)

    def _opened(self, kind: str, number: int) -> Stream | None:
        """Return the stream that a frame is about; None if it is closed."""
        if number % 2 == 0 or number > self._last:
            raise Http2Error(PROTOCOL_ERROR, f"a {kind} on stream {number}, which was never opened")
        return self._streams.get(number)

    def _reset(self, _flags: int, number: int, payload: bytes) -> None:
        sized("reset", payload, 4)
        if stream := self._opened("reset", number):
            self._forget(stream)

    def _priority(self, _flags: int, number: int, payload: bytes) -> None:
        if number == 0:
            raise Http2Error(PROTOCOL_ERROR, "a priority of the connection")
        sized("priority", payload, 5)
        without_priority(number, payload)

    def _settings(self, flags: int, number: int, payload: bytes) -> None:
        if number != 0 or (flags & ACK and self._only == SETTINGS):
            raise Http2Error(PROTOCOL_ERROR, "settings of a stream, or acknowledged before they were sent")
        self._only = None
        for key, value in settings_of(flags, payload):
            if key == INITIAL_WINDOW_SIZE:
                self._set_window(value)
            elif key == MAX_FRAME_SIZE:
                self._frame_size = value
        if not flags & ACK:
            self._out.append(frame(SETTINGS, ACK, 0))
            self._pour_all()

    def _set_window(self, size: int) -> None:
        """Take in the size of streams' windows, which counts for those that are open, too (6.9.2)."""
        for stream in self._streams.values():
            stream.window += size - self._stream_window
            if stream.window > WIDEST:
                raise Http2Error(FLOW_CONTROL_ERROR, "a window wider than HTTP/2 allows")
        self._stream_window = size

    def _push(self, *_frame: object) -> None:
        raise Http2Error(PROTOCOL_ERROR, "a client does not push")

    def _ping(self, flags: int, number: int, payload: bytes) -> None:
        if number != 0:
            raise Http2Error(PROTOCOL_ERROR, "a ping of a stream")
        sized("ping", payload, 8)
        if not flags & ACK:
            self._out.append(frame(PING, ACK, 0, payload))

    def _goaway(self, _flags: int, number: int, payload: bytes) -> None:
        if number != 0:
            raise Http2Error(PROTOCOL_ERROR, "a stream that goes away")
        sized("farewell", payload[:8], 8)

    def _window_update(self, _flags: int, number: int, payload: bytes) -> None:
        room = sized("window update", payload, 4) & WIDEST
        if room == 0:
            raise Http2Error(PROTOCOL_ERROR, "a window update by nothing")
        if number == 0:
            self._window += room
            if self._window > WIDEST:
                raise Http2Error(FLOW_CONTROL_ERROR, "a window wider than HTTP/2 allows")
            self._pour_all()
        elif stream := self._opened("window update", number):
            stream.window += room
            if stream.window > WIDEST:
                self._abandon(number, FLOW_CONTROL_ERROR)
            else:
                self._pour(stream)

    _HANDLERS: ClassVar[dict[int, Callable[[Connection, int, int, bytes], None]]] = {
        DATA: _data,
        HEADERS: _headers,
        PRIORITY: _priority,
        RST_STREAM: _reset,
        SETTINGS: _settings,
        PUSH_PROMISE: _push,
        PING: _ping,
        GOAWAY: _goaway,
        WINDOW_UPDATE: _window_update,
        CONTINUATION: _continuation,
    }
