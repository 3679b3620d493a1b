"""Clients of the library `h2` in every legal variation: all of them get their answers."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import ConnectionTerminated, DataReceived, ResponseReceived, StreamReset, TrailersReceived
from h2.settings import SettingCodes
from hypothesis import given, settings
from hypothesis import strategies as st

from mlhooks.unity import grpc_frames
from mlhooks.unity.http2 import Connection
from mlhooks.unity.http2_frames import CONTINUATION, HEADERS, PING, PREFACE, PRIORITY, SETTINGS
from mlhooks.unity.http2_sending import Stream
from tests.unity.test_http2 import CALL, frame, frames

MOST = 10**6
UNKNOWN = 0xBE


@dataclass
class Call:
    """What a client does with one call."""

    message: int  # in bytes
    answer: int
    parts: list[int]  # These are sizes of frames of data, used in a circle.
    padding: int | None
    ends: str
    more: list[tuple[str, str]]
    cancelled: bool


@dataclass
class Habits:
    """What a client does with all of its calls."""

    settings: dict[int, int]
    table: int  # in bytes, of its encoder's table
    chunk: int  # in bytes, as they arrive at once
    noise: bool  # Frames that mean nothing to us come between others.
    fields: int  # in bytes, of fields in a frame
    padding: int | None  # Fields have padding, too.
    priority: bool
    granted: int  # It makes room for answers in so many parts.
    beside: int  # So many calls are made at once.


NAMES = st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=8).map(lambda name: f"x-{name}")
VALUES = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30).map(str.strip)
SIZES = st.one_of(st.integers(0, 40), st.sampled_from([1000, 16_384, 40_000, 70_000]))
CONTENT = random.Random(0).randbytes(80_000)
PADDING = st.sampled_from([None, None, 0, 1, 255])
CALLS = st.builds(
    Call,
    message=SIZES,
    answer=SIZES.map(lambda size: size + 1),
    parts=st.lists(st.sampled_from([1, 2, 5, 100, 5000, 16_000]), min_size=1, max_size=4),
    padding=PADDING,
    ends=st.sampled_from(["with the data", "with an empty frame", "with trailers"]),
    more=st.lists(st.tuples(NAMES, VALUES), max_size=4),
    cancelled=st.integers(0, 5).map(lambda number: number == 0),
)
HABITS = st.builds(
    Habits,
    settings=st.fixed_dictionaries(
        {},
        optional={
            SettingCodes.INITIAL_WINDOW_SIZE: st.sampled_from([0, 1, 100, 65_535, 2**20]),
            SettingCodes.MAX_FRAME_SIZE: st.sampled_from([16_384, 20_000, 2**24 - 1]),
            SettingCodes.HEADER_TABLE_SIZE: st.sampled_from([0, 100, 65_536]),
            SettingCodes.ENABLE_PUSH: st.just(0),
            SettingCodes.MAX_CONCURRENT_STREAMS: st.just(0),
        },
    ),
    table=st.sampled_from([0, 64, 300, 4096]),
    chunk=st.sampled_from([1, 7, 100, 2**16]),
    noise=st.booleans(),
    fields=st.sampled_from([3, 20, 16_384]),
    padding=PADDING,
    priority=st.booleans(),
    granted=st.sampled_from([1, 2, 10]),
    beside=st.integers(1, 4),
)


class Client:
    """A client of `h2`, whose frames are rewritten in another legal way, and the server that it talks to."""

    def __init__(self, habits: Habits) -> None:
        self.habits, self.random = habits, random.Random(repr(habits))
        self.server = Connection(grpc_frames.objection, MOST)
        self.client = H2Connection(H2Configuration(client_side=True, header_encoding="ascii"))
        self.client.initiate_connection()
        self.client.update_settings(habits.settings)
        self.heard: dict[int, Stream] = {}
        self.answers: dict[int, bytes] = {}
        self.status: dict[int, list[tuple[str, str]]] = {}
        self.pass_on()
        self.client.encoder.header_table_size = habits.table

    def pass_on(self) -> None:
        """Carry what was said, until nobody has anything to say."""
        while (said := self.client.data_to_send()) or self.hear():
            said = self.rewritten(said)
            chunk = max(self.habits.chunk, len(said) // 20)
            for at in range(0, len(said), chunk):
                for stream in self.server.receive(said[at : at + chunk]):
                    self.heard[stream.number] = stream
        assert len(self.server._unread) < 16_384 + 9

    def hear(self) -> bool:
        """Take in what the server says; whether that was anything."""
        data = self.server.take_output()
        for event in self.client.receive_data(data):
            number = getattr(event, "stream_id", 0)
            assert not isinstance(event, ConnectionTerminated)
            if isinstance(event, StreamReset):
                assert event.error_code == ErrorCodes.NO_ERROR
            if isinstance(event, DataReceived):
                self.answers[number] += event.data
            if isinstance(event, ResponseReceived | TrailersReceived):
                self.answers.setdefault(number, b"")
                self.status.setdefault(number, []).extend(event.headers)
        return bool(data)

    def grant(self, call: Call, number: int) -> None:
        """Make room for a part of an answer."""
        part = (call.answer + 5) // self.habits.granted + 1
        self.client.increment_flow_control_window(part)
        if ("grpc-status", "0") not in self.status.get(number, []):
            self.client.increment_flow_control_window(part, number)
        self.pass_on()

    def rewritten(self, said: bytes) -> bytes:
        """Return the same frames, spelled in another way."""
        begins = said.startswith(PREFACE)
        parts = [PREFACE] if begins else []
        for number, (kind, flags, stream, payload) in enumerate(frames(said[len(PREFACE) :] if begins else said)):
            if self.habits.noise and (number or not begins):
                parts.append(self.noise())
            if kind == HEADERS:
                parts += self.fields(flags, stream, payload)
            else:
                parts.append(frame(kind, flags, stream | (2**31 if self.habits.noise else 0), payload))
        return b"".join(parts)

    def noise(self) -> bytes:
        return self.random.choice(
            [
                frame(PRIORITY, 0, 2**31 - 1, b"\0\0\0\1\0"),
                frame(UNKNOWN, 0xFF, self.random.randrange(5), b"noise"),
                frame(PING, 1, 0, b"unasked!"),
                frame(SETTINGS, 0, 0, b"\0\x99\0\0\0\1"),
            ]
        )

    def fields(self, flags: int, stream: int, payload: bytes) -> Iterator[bytes]:
        """Yield fields in several frames, the first one with padding and a priority."""
        size, padding = self.habits.fields, self.habits.padding
        size = max(size, len(payload) // 30 + 1)  # No client needs more frames.
        pieces = [payload[at : at + size] for at in range(0, len(payload), size)] or [b""]
        first, flags = pieces[0], flags & 1
        if self.habits.priority:
            first, flags = b"\x80\0\0\0\x10" + first, flags | 0x20
        if padding is not None:
            first, flags = bytes((padding,)) + first + bytes(padding), flags | 8
        yield frame(HEADERS, flags | (4 if len(pieces) == 1 else 0), stream, first)
        for number, piece in enumerate(pieces[1:], 2):
            yield frame(CONTINUATION, 4 if number == len(pieces) else 0, stream, piece)

    def begin(self, call: Call) -> int:
        number: int = self.client.get_next_available_stream_id()
        self.client.send_headers(number, [*CALL.items(), *call.more])
        return number

    def send(self, number: int, call: Call) -> Iterator[None]:
        """Send the body of a call, frame by frame."""
        body, sizes = grpc_frames.wrap(CONTENT[: call.message]), itertools.cycle(call.parts)
        least = len(body) // 12
        while body:
            size = max(next(sizes), least)
            part, body = body[:size], body[size:]
            ends = not body and call.ends == "with the data"
            self.client.send_data(number, part, end_stream=ends, pad_length=call.padding)
            if call.cancelled:
                self.client.reset_stream(number)
                return
            yield
        if call.ends == "with an empty frame":
            self.client.send_data(number, b"", end_stream=True)
        elif call.ends == "with trailers":
            self.client.send_headers(number, [("x-end", "1")], end_stream=True)


def serve(habits: Habits, calls: list[Call]) -> None:
    """Have a client make calls, and check what it gets."""
    client = Client(habits)
    waiting, active = list(calls), dict[int, tuple[Call, Iterator[None]]]()
    done: dict[int, Call] = {}
    while waiting or active:
        while waiting and len(active) < habits.beside:
            call = waiting.pop(0)
            number = client.begin(call)
            active[number] = call, client.send(number, call)
        for number, (call, sending) in list(active.items()):
            if next(sending, number) == number:  # It has sent all.
                done[number] = active.pop(number)[0]
            client.pass_on()
            if number in client.heard and number in done and not call.cancelled:
                stream = client.heard[number]
                assert grpc_frames.unwrap(stream.body) == CONTENT[: call.message]
                client.server.respond(
                    stream, grpc_frames.HEAD, grpc_frames.wrap(CONTENT[-call.answer :]), grpc_frames.TRAILERS
                )
                client.pass_on()
    wanted = {number: call for number, call in done.items() if not call.cancelled}
    for _ in range(habits.granted):
        for number, call in wanted.items():
            client.grant(call, number)
    assert client.status.keys() == client.answers.keys() == wanted.keys()
    for number, call in wanted.items():
        assert client.answers[number] == grpc_frames.wrap(CONTENT[-call.answer :])
        assert client.status[number] == [(":status", "200"), ("content-type", "application/grpc"), ("grpc-status", "0")]
    assert client.server._held == 0  # Nothing is kept of what is over.
    assert not client.server._streams


@given(HABITS, st.lists(CALLS, min_size=1, max_size=4))
@settings(max_examples=100)
def test_every_legal_client_gets_its_answers(habits: Habits, calls: list[Call]) -> None:
    serve(habits, calls)


@pytest.mark.slow
@given(HABITS, st.lists(CALLS, min_size=1, max_size=8))
@settings(max_examples=2000)
def test_every_legal_client_of_very_many_gets_its_answers(habits: Habits, calls: list[Call]) -> None:
    serve(habits, calls)
