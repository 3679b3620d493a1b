import struct
import tracemalloc
from collections.abc import Callable

import pytest
from hpack import Encoder

from mlhooks.unity.http2 import Connection

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS, ACKNOWLEDGED = b"\0\0\0\x04\0\0\0\0\0", b"\0\0\0\x04\x01\0\0\0\0"
Frame = tuple[int, int, int, bytes]
CALL = {
    ":method": "POST",
    ":scheme": "http",
    ":path": "/communicator_objects.UnityToExternalProto/Exchange",
    ":authority": "localhost",
    "te": "trailers",
    "content-type": "application/grpc",
}
MOST = 10**6


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4) + payload


def setting(key: int, value: int) -> bytes:
    return frame(4, 0, 0, struct.pack(">HL", key, value))


def window(stream: int, size: int) -> bytes:
    return frame(8, 0, stream, size.to_bytes(4))


def block(fields: dict[str, str] | list[tuple[str, str]] = CALL) -> bytes:
    """Return fields without any that later ones could refer to."""
    listed = fields.items() if isinstance(fields, dict) else fields
    return Encoder().encode([(name, value, True) for name, value in listed])


FIELDS = block()


def head(stream: int, flags: int = 4) -> bytes:
    return frame(1, flags, stream, FIELDS)


def request(stream: int, body: bytes) -> bytes:
    return head(stream) + frame(0, 1, stream, body)


def frames(data: bytes) -> list[Frame]:
    found = []
    while data:
        size = int.from_bytes(data[:3])
        found.append((data[3], data[4], int.from_bytes(data[5:9]), data[9 : 9 + size]))
        data = data[9 + size :]
    return found


def bodies(data: bytes) -> list[bytes]:
    return [payload for kind, _, _, payload in frames(data) if kind == 0]


def unconcerned(fields: dict[bytes, bytes]) -> bytes:
    return b""


def greeted(objection: Callable[[dict[bytes, bytes]], bytes] = unconcerned) -> Connection:
    """Return a connection with nothing left to send."""
    connection = Connection(objection, MOST)
    assert connection.receive(PREFACE + SETTINGS) == []
    connection.take_output()
    return connection


def test_first_words_are_limits_and_the_widest_windows() -> None:
    sent = frames(Connection(unconcerned, MOST).take_output())
    limits = b"\0\x04\x7f\xff\xff\xff\0\x03\0\0\0\x64\0\x06\0\0\x40\0"
    assert sent == [(4, 0, 0, limits), (8, 0, 0, b"\x7f\xff\0\0")]


def test_bytes_may_come_one_by_one() -> None:
    connection, complete = Connection(unconcerned, MOST), []
    for byte in PREFACE + SETTINGS + request(1, b"hello"):
        complete += connection.receive(bytes((byte,)))
    (stream,) = complete
    assert (stream.number, stream.body) == (1, b"hello")
    assert ACKNOWLEDGED in connection.take_output()


def test_response_is_head_body_and_trailers(connection: Connection) -> None:
    (stream,) = connection.receive(request(1, b"x"))
    connection.respond(stream, b"head", b"body", b"end")
    assert frames(connection.take_output()) == [(1, 4, 1, b"\x20head"), (0, 0, 1, b"body"), (1, 5, 1, b"end")]
    assert stream.closed
    (stream,) = connection.receive(request(3, b"y"))
    connection.reject(stream, b"no")
    assert frames(connection.take_output()) == [(1, 5, 3, b"no")]


def test_body_in_parts_with_padding_and_unknown_frames_between(connection: Connection) -> None:
    sent = [
        frame(1, 0, 1, FIELDS[:9]),
        frame(9, 0, 1),
        frame(9, 4, 1, FIELDS[9:]),
        frame(0, 8, 1, b"\x02ab\0\0"),
        frame(2, 0, 1, bytes(5)),  # A priority means nothing any more.
        frame(0xBE, 0xFF, 1, b"an extension"),
        frame(0, 0, 1),
        frame(0, 9, 1, b"\0cd"),
    ]
    (stream,) = connection.receive(b"".join(sent))
    assert stream.body == b"abcd"


def test_ping_is_answered_and_its_answer_is_not(connection: Connection) -> None:
    connection.receive(frame(6, 0, 0, b"12345678") + frame(6, 1, 0, b"87654321") + frame(4, 1, 0))
    assert frames(connection.take_output()) == [(6, 1, 0, b"12345678")]


def test_windows_hold_the_body_back(connection: Connection) -> None:
    connection.receive(setting(4, 10))
    (stream,) = connection.receive(request(1, b"x"))
    connection.take_output()
    body = bytes(range(30))
    connection.respond(stream, b"head", body, b"end")
    assert bodies(connection.take_output()) == [body[:10]]
    assert connection.responding
    connection.receive(window(1, 5))
    assert bodies(connection.take_output()) == [body[10:15]]
    connection.receive(setting(4, 3))  # 7 less than before, for open streams, too: -7 are left
    assert bodies(connection.take_output()) == []
    connection.receive(window(1, 8))
    assert bodies(connection.take_output()) == [body[15:16]]
    connection.receive(setting(4, 1000))
    assert frames(connection.take_output()) == [(4, 1, 0, b""), (0, 0, 1, body[16:]), (1, 5, 1, b"end")]
    assert not connection.responding


def test_window_of_the_connection_holds_all_bodies_back(connection: Connection) -> None:
    connection.receive(setting(4, 2**20))
    (stream,) = connection.receive(request(1, b"x"))
    connection.take_output()
    body = bytes(70_000)
    connection.respond(stream, b"head", body, b"end")
    sent = [len(part) for part in bodies(connection.take_output())]
    assert sent == [16_384] * 3 + [16_383]  # Those are 65,535 bytes in frames of 2**14.
    connection.receive(window(0, 2**20))
    assert [len(part) for part in bodies(connection.take_output())] == [70_000 - 65_535]


def test_frames_are_as_long_as_the_client_reads_them(connection: Connection) -> None:
    connection.receive(setting(5, 40_000))
    (stream,) = connection.receive(request(1, b"x"))
    connection.take_output()
    connection.respond(stream, b"head", bytes(50_000), b"end")
    assert [len(part) for part in bodies(connection.take_output())] == [40_000, 10_000]


def test_window_of_the_client_is_filled_up_again(connection: Connection) -> None:
    part, granted = bytes(16_384), 0
    for number in range(200):
        connection.receive(request(2 * number + 1, part))
        sent = frames(connection.take_output())
        granted += sum(int.from_bytes(payload) for kind, _, stream, payload in sent if kind == 8)
    assert 0 <= 200 * len(part) - granted <= 2**20


def test_cancelled_request_is_closed_and_gets_no_answer(connection: Connection) -> None:
    (stream,) = connection.receive(request(1, b"x"))
    assert not stream.closed
    connection.receive(frame(3, 0, 1, bytes(4)))
    assert stream.closed
    connection.respond(stream, b"head", b"body", b"end")
    connection.reject(stream, b"no")
    assert connection.take_output() == b""
    # It was cancelled before it was handled.
    assert connection.receive(request(3, b"x") + frame(3, 0, 3, bytes(4))) == []


def test_leaving_names_the_last_request_and_the_reason(connection: Connection) -> None:
    connection.receive(request(7, b"x"))
    connection.send_goaway(1, "why")
    assert frames(connection.take_output()) == [(7, 0, 0, b"\0\0\0\x07\0\0\0\x01why")]


@pytest.mark.parametrize("whole", [False, True])
def test_objection_is_the_answer_and_what_still_comes_is_ignored(whole: bool) -> None:
    seen = []
    connection = greeted(lambda fields: seen.append(fields) or b"no")
    assert connection.receive(head(1, 5 if whole else 4)) == []
    assert seen == [{name.encode(): value.encode() for name, value in CALL.items()}]
    reset = [] if whole else [(3, 0, 1, bytes(4))]
    assert frames(connection.take_output()) == [(1, 5, 1, b"\x20no"), *reset]
    if not whole:
        assert connection.receive(frame(0, 0, 1, b"late") + frame(1, 5, 1, block({"late": "too"}))) == []
        assert connection.take_output() == b""


def test_equal_fields_get_an_equal_verdict_however_they_are_compressed() -> None:
    said: list[bytes] = []
    connection = greeted(lambda fields: said.append(fields[b":path"]) or (b"no" if fields[b":path"] == b"/b" else b""))
    encoder = Encoder()
    paths = ["/a", "/a", "/b", "/b", "/a", "/b", "/a", "/a"]
    heads = [encoder.encode(list((CALL | {":path": path}).items())) for path in paths]
    assert len(set(heads)) < len(paths)
    heard = [len(connection.receive(frame(1, 5, 2 * i + 1, fields))) for i, fields in enumerate(heads)]
    assert heard == [path == "/a" for path in paths]
    refused = [stream for kind, _, stream, payload in frames(connection.take_output()) if payload.endswith(b"no")]
    assert refused == [2 * i + 1 for i, path in enumerate(paths) if path == "/b"]
    assert len(said) < len(paths)


def test_fields_that_refer_to_a_changed_table_are_read_again() -> None:
    seen: list[bytes] = []
    connection = greeted(lambda fields: seen.append(fields[b"x"]) or b"")
    encoder = Encoder()
    plain = [(name, value, True) for name, value in CALL.items()]
    first, again, other = (encoder.encode([*plain, ("x", value)]) for value in ("1", "1", "2"))
    for number, fields in enumerate([first, again, again, other, again]):  # By now, the last one's index means another.
        connection.receive(frame(1, 5, 2 * number + 1, fields))
    assert seen == [b"1", b"1", b"2", b"2"]


def test_bodies_beyond_the_limit_are_handed_over_without_content_and_not_kept(connection: Connection) -> None:
    part = bytes(16_000)
    assert connection.receive(head(1) + frame(0, 0, 1, part) * 40 + head(3)) == []
    (stream,) = connection.receive(frame(0, 0, 3, part) * 25)  # Together they are too much.
    assert (stream.number, stream.excessive, stream.complete, stream.body) == (3, True, False, b"")
    assert connection.receive(frame(0, 0, 3, part) * 100) == []
    connection.reject(stream, b"too much")
    assert [sent for sent in frames(connection.take_output()) if sent[0] != 8] == [
        (1, 5, 3, b"\x20too much"),
        (3, 0, 3, bytes(4)),
    ]
    (first,) = connection.receive(frame(0, 0, 3, part) + frame(0, 1, 1, part) + request(5, part)[:30])
    assert (first.number, first.excessive, len(first.body)) == (1, False, 41 * len(part))


def test_room_of_bodies_is_free_again_when_they_are_complete_or_cancelled(connection: Connection) -> None:
    for number in range(1, 21, 4):
        begun = [head(stream) + frame(0, 0, stream, bytes(16_000)) * 60 for stream in (number, number + 2)]
        (complete,) = connection.receive(begun[0] + frame(0, 1, number))
        assert (complete.excessive, len(complete.body)) == (False, 960_000)
        assert connection.receive(begun[1] + frame(3, 0, number + 2, bytes(4))) == []


def test_body_of_tiny_frames_takes_no_more_memory_than_its_bytes(connection: Connection) -> None:
    tracemalloc.start()
    try:
        connection.receive(head(1))
        for _ in range(20):
            connection.receive((frame(0, 0, 1, b"ab") + frame(0, 0, 1)) * 1000)
        assert tracemalloc.get_traced_memory()[0] < 2 * 10**5
    finally:
        tracemalloc.stop()
    (stream,) = connection.receive(frame(0, 1, 1, b"c"))
    assert stream.body == b"ab" * 20_000 + b"c"


@pytest.mark.parametrize("length", [5, 0])
def test_length_that_is_told_and_true_is_fine(connection: Connection, length: int) -> None:
    fields = block(CALL | {"content-length": str(length)})
    (stream,) = connection.receive(frame(1, 4, 1, fields) + frame(0, 1, 1, bytes(length)))
    assert len(stream.body) == length


def test_requests_beyond_the_limit_are_refused_by_themselves(connection: Connection) -> None:
    connection.receive(b"".join(head(number) for number in range(1, 203, 2)))
    assert frames(connection.take_output()) == [(3, 0, 201, b"\0\0\0\x07")]
    assert connection.receive(frame(0, 1, 201, b"late")) == []
    (stream,) = connection.receive(frame(0, 1, 1, b"x"))
    connection.reject(stream, b"")
    (stream,) = connection.receive(request(203, b"y"))
    assert stream.body == b"y"
