"""Frames that no client should send, and what the server of the library `h2` would make of each."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    DataReceived,
    StreamEnded,
)
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings
from hpack import HPACKError
from hypothesis import given, settings
from hypothesis import strategies as st

from mlhooks.unity.http2 import Connection
from mlhooks.unity.http2_frames import (
    CONTINUATION,
    DATA,
    HEADERS,
    PING,
    PREFACE,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WIDEST,
    WINDOW_UPDATE,
    Http2Error,
)
from tests.unity.test_http2 import CALL, Frame, block, frame, frames, request, unconcerned

MOST = 10**6
UNKNOWN = 0xBE


def h2_server() -> H2Connection:
    """Return a server of `h2` with our settings."""
    server = H2Connection(H2Configuration(client_side=False, header_encoding=None))
    limits = {
        SettingCodes.INITIAL_WINDOW_SIZE: WIDEST,
        SettingCodes.MAX_CONCURRENT_STREAMS: 100,
        SettingCodes.MAX_HEADER_LIST_SIZE: 2**14,
    }
    server.local_settings = Settings(client=False, initial_values=limits)
    server.remote_settings = Settings(client=True)
    server.decoder.max_header_list_size = 2**14
    server.initiate_connection()
    server.increment_flow_control_window(WIDEST - 65_535)
    server.data_to_send()
    return server


@dataclass
class Outcome:
    """What a server made of one frame."""

    error: int | None = None  # It ends the connection.
    resets: set[tuple[int, int]] = field(default_factory=set)
    acknowledged: list[Frame] = field(default_factory=list)
    requests: list[tuple[int, bytes]] = field(default_factory=list)

    def sent(self, data: bytes) -> None:
        for kind, flags, stream, payload in frames(data):
            if kind == RST_STREAM:
                self.resets.add((stream, int.from_bytes(payload)))
            elif kind in (PING, SETTINGS):
                self.acknowledged.append((kind, flags, stream, payload))


class Theirs:
    """The server of `h2`."""

    def __init__(self) -> None:
        self.server, self.bodies = h2_server(), dict[int, bytes]()
        self.server.receive_data(PREFACE + frame(SETTINGS, 0, 0))
        self.server.data_to_send()

    def take(self, data: bytes) -> Outcome:
        outcome = Outcome()
        try:
            events = self.server.receive_data(data)
        except ProtocolError as error:
            outcome.error = int(error.error_code)
            if isinstance(error.__cause__, HPACKError) and outcome.error == ErrorCodes.PROTOCOL_ERROR:
                outcome.error = ErrorCodes.COMPRESSION_ERROR  # RFC 9113, 4.3
            return outcome
        for event in events:
            if isinstance(event, DataReceived):
                self.bodies[event.stream_id] = self.bodies.get(event.stream_id, b"") + event.data
            elif isinstance(event, StreamEnded):
                outcome.requests.append((event.stream_id, self.bodies.get(event.stream_id, b"")))
        outcome.sent(self.server.data_to_send())
        return outcome

    def answer(self, stream: int) -> None:
        self.server.send_headers(stream, [(":status", "200")], end_stream=True)
        self.server.data_to_send()


class Ours:
    """The server of mlhooks."""

    def __init__(self) -> None:
        self.server, self.requests = Connection(unconcerned, MOST), {}
        self.server.receive(PREFACE + frame(SETTINGS, 0, 0))
        self.server.take_output()

    def take(self, data: bytes) -> Outcome:
        outcome = Outcome()
        try:
            streams = self.server.receive(data)
        except Http2Error as error:
            outcome.error = error.code
            return outcome
        self.requests |= {stream.number: stream for stream in streams}
        outcome.requests = [(stream.number, bytes(stream.body)) for stream in streams]
        outcome.sent(self.server.take_output())
        return outcome

    def answer(self, stream: int) -> None:
        self.server.reject(self.requests[stream], b"\x88")
        self.server.take_output()


LENGTH = block({"content-length": "2"})
BLOCKS = [
    *[block()] * 4,
    block(CALL | {"content-length": "2"}),
    block({"grpc-note": "trailers"}),
    b"",
    b"\x83\x86\x44\x01/\x41\x01h",  # This enters the path and the host into the table.
    b"\x83\x86\xbf\xbe",  # The field table holds them.
    block(CALL | {"connection": "close"}),
    block(list(CALL.items())[1:]),
    b"\x80",
    b"\x3f\xe1\x1f" + block(),
]
STREAMS, NUMBERS = st.sampled_from([1, 3, 5, 7]), [0, 1, 2**31 - 1, 2**31, 2**32 - 1, 16_384, 70_000]
SETTING = st.tuples(st.integers(0, 9), st.sampled_from(NUMBERS)).map(
    lambda pair: pair[0].to_bytes(2) + pair[1].to_bytes(4)
)
ORDINARY = {
    DATA: ([0, 0, 1], st.sampled_from([b"", b"x", b"xy", b"xyz"])),
    HEADERS: ([4, 4, 5], st.sampled_from(BLOCKS[:-6])),
    PRIORITY: ([0], st.just(b"\x80\0\0\x0b\xff")),
    RST_STREAM: ([0], st.just(b"\0\0\0\x08")),
    WINDOW_UPDATE: ([0], st.sampled_from([b"\0\0\0\1", b"\x40\0\0\0"])),
}
OF_CONNECTION = {
    SETTINGS: ([0], SETTING),
    PING: ([0, 1], st.just(b"12345678")),
    WINDOW_UPDATE: ([0], st.sampled_from([b"\0\0\0\1", b"\x40\0\0\0"])),
    UNKNOWN: ([0, 5], st.binary(max_size=3)),
}


def ordinary(kind: int) -> st.SearchStrategy[list[Frame]]:
    """Return frames that are legal in some state, of a request or of the connection."""
    flags, payloads = ORDINARY.get(kind) or OF_CONNECTION[kind]
    streams = STREAMS if kind in ORDINARY else st.just(0)
    return st.tuples(st.just(kind), st.sampled_from(flags), streams, payloads).map(lambda one: [one])


@st.composite
def padded(draw: st.DrawFn) -> list[Frame]:
    """Return a frame of data with padding, which may be too long by one."""
    data, padding = draw(st.binary(max_size=2)), draw(st.integers(0, 3))
    wrong = draw(st.sampled_from([0, 0, 0, len(data) + 1]))
    return [(DATA, draw(st.sampled_from([8, 9])), draw(STREAMS), bytes((padding + wrong,)) + data + bytes(padding))]


@st.composite
def in_parts(draw: st.DrawFn) -> list[Frame]:
    """Return fields in several frames, with a priority, and with something between them where it is not allowed."""
    fields, stream, last = draw(st.sampled_from(BLOCKS)), draw(STREAMS), draw(st.sampled_from([4, 4, 4, 0]))
    first, second = sorted((draw(st.integers(0, len(fields))), draw(st.integers(0, len(fields)))))
    ends = draw(st.sampled_from([0, 1]))
    priority = b"\0\0\0\x0b\x10" if draw(st.booleans()) else b""
    parts = [
        (HEADERS, ends | (0x20 if priority else 0), stream, priority + fields[:first]),
        (CONTINUATION, 0, stream, fields[first:second]),
        (CONTINUATION, last, stream, fields[second:]),
    ]
    if draw(st.integers(0, 4)) == 0:
        parts.insert(draw(st.integers(1, 2)), draw(ANYTHING))
    return parts


ANYTHING: st.SearchStrategy[Frame] = st.tuples(
    st.sampled_from(
        [DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, WINDOW_UPDATE, CONTINUATION, UNKNOWN]
    ),
    st.integers(0, 255),
    st.sampled_from([0, 1, 2, 3, 5, 7, WIDEST]),
    st.one_of(st.binary(max_size=12), st.sampled_from(BLOCKS), SETTING),
)
"""A frame of a kind that `h2` goes on after, with whatever else."""
CONVERSATIONS = st.lists(
    st.one_of(
        *[ordinary(kind) for kind in (DATA, HEADERS, HEADERS, *ORDINARY, *OF_CONNECTION)],
        *[padded(), in_parts(), ANYTHING.map(lambda one: [one])],
    ),
    max_size=12,
).map(lambda parts: [one for part in parts for one in part])


def verdicts(sent: Frame, theirs: Outcome, within: bool, last: int) -> set[int | None]:
    """Return how a frame may end the connection: as with `h2`, but where RFC 9113 demands something else.

    Args:
        sent: the frame.
        theirs: what `h2` made of it.
        within: whether it came within fields, where only their continuation may come.
        last: the highest number of a stream.
    """
    kind, flags, stream, payload = sent
    error, server = theirs.error, stream % 2 == 0
    if (within and kind != CONTINUATION) or kind == PUSH_PROMISE or (kind == CONTINUATION and not within):
        return {ErrorCodes.PROTOCOL_ERROR}  # This holds whatever else is wrong with it (4.3, 6.10, 8.4).
    if kind == WINDOW_UPDATE and len(payload) == 4 and payload[0] & 0x80:
        return {ErrorCodes.PROTOCOL_ERROR, ErrorCodes.FLOW_CONTROL_ERROR, None}  # The reserved bit is ignored (6.9).
    if kind == SETTINGS and flags & 1 and payload and stream == 0:
        return {ErrorCodes.FRAME_SIZE_ERROR}  # (6.5)
    if kind == RST_STREAM and error is None and (server or stream > last):
        return {ErrorCodes.PROTOCOL_ERROR}  # The stream is idle (6.4).
    if kind in (RST_STREAM, WINDOW_UPDATE) and error is not None and len(payload) != 4:
        return {ErrorCodes.PROTOCOL_ERROR, ErrorCodes.FRAME_SIZE_ERROR}  # It may break two rules.
    if kind == DATA and flags & 8 and not payload:
        return {error, ErrorCodes.FRAME_SIZE_ERROR}  # The rule is the same.
    if kind in (HEADERS, CONTINUATION) and error is not None:  # The rule is the same.
        malformed = kind == HEADERS and (server or flags & 0x28 == 0x28)
        closed = stream <= last  # The stream is closed, or was skipped (5.1).
        others = [(malformed, ErrorCodes.PROTOCOL_ERROR), (closed, ErrorCodes.STREAM_CLOSED)]
        return {error} | {code for holds, code in others if holds}
    if kind in (HEADERS, CONTINUATION) and (stream, ErrorCodes.STREAM_CLOSED) in theirs.resets:
        return {None, ErrorCodes.STREAM_CLOSED}  # An error of a stream may end the connection, too (5.4.1).
    return {error}


class Sides:
    """Both servers, and what is known of the streams of their client."""

    def __init__(self) -> None:
        self.theirs, self.ours = Theirs(), Ours()
        self.reset, self.told = set[int](), set[int]()
        self.last, self.within, self.over, self.fields = 0, False, False, b""

    def take(self, sent: Frame) -> Outcome:
        """Have both take a frame, and compare what they make of it."""
        kind, flags, stream, payload = sent
        theirs, ours = self.theirs.take(frame(*sent)), self.ours.take(frame(*sent))
        if kind == HEADERS and not flags & 4 and ours.error is not None and theirs.error is None:
            theirs = self.theirs.take(frame(CONTINUATION, 4, stream))  # `h2` looks at fields when all are there
        self.fields = payload if kind == HEADERS else self.fields + payload
        if LENGTH in self.fields:
            self.told.add(stream)
        if stream in self.told and theirs.error is None and theirs.requests and not ours.requests:
            theirs = Outcome(ErrorCodes.PROTOCOL_ERROR)  # `h2` compares lengths with frames of data only (8.1.1)
        assert ours.error in verdicts(sent, theirs, self.within, self.last), (sent, theirs, ours)
        self.over = ours.error is not None or theirs.error is not None
        if not self.over:
            for outcome in (theirs, ours):  # One reset is enough.
                outcome.resets = {(number, code) for number, code in outcome.resets if number not in self.reset}
            assert ours == theirs, sent
            self.reset |= {number for number, _ in ours.resets}
        if kind in (HEADERS, CONTINUATION):
            self.within = not flags & 4
            self.last = self.last if self.within else max(stream, self.last)
        return ours

    def answer(self, number: int) -> None:
        """Have both answer a request."""
        self.theirs.answer(number)
        self.ours.answer(number)


def compare(sent: list[Frame], answers: bool) -> None:
    """Send frames to both, until one of them has enough."""
    sides = Sides()
    for one in sent:
        outcome = sides.take(one)
        if sides.over:
            return
        for number, _ in outcome.requests if answers else ():
            sides.answer(number)


@given(CONVERSATIONS, st.booleans())
@settings(max_examples=400)
def test_each_frame_meets_what_h2_does_with_it(sent: list[Frame], answers: bool) -> None:
    compare(sent, answers)


@pytest.mark.slow
@given(CONVERSATIONS, st.booleans())
@settings(max_examples=10_000)
def test_each_frame_of_very_many_meets_what_h2_does_with_it(sent: list[Frame], answers: bool) -> None:
    compare(sent, answers)


WHOLE = (
    PREFACE + frame(SETTINGS, 0, 0, b"\0\4\0\0\xff\xff") + request(1, bytes(300)) + request(3, b"x") + request(5, b"y")
)


@given(
    st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), max_size=6),
    st.sampled_from([1, 10, len(WHOLE)]),
    st.integers(1, 400),
)
@settings(max_examples=200)
def test_damaged_bytes_are_refused_or_taken_and_little_of_them_is_kept(
    damage: list[tuple[int, int]], chunk: int, most: int
) -> None:
    data, connection = bytearray(WHOLE), Connection(unconcerned, most)
    for at, value in damage:
        data[at] = value
    for at in range(0, len(data), chunk):
        try:
            heard = connection.receive(bytes(data[at : at + chunk]))
        except Http2Error:
            return
        assert all(len(stream.body) <= most for stream in heard)
        assert len(connection._unread) < 9 + 16_384
        assert sum(len(stream.body) for stream in connection._streams.values() if not stream.complete) <= most
