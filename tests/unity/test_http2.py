import struct

import pytest

from mlhooks.unity.http2 import Connection, Http2Error

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS, ACKNOWLEDGED = b"\0\0\0\x04\0\0\0\0\0", b"\0\0\0\x04\x01\0\0\0\0"
Frame = tuple[int, int, int, bytes]


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4) + payload


def setting(key: int, value: int) -> bytes:
    return frame(4, 0, 0, struct.pack(">HL", key, value))


def window(stream: int, size: int) -> bytes:
    return frame(8, 0, stream, size.to_bytes(4))


def request(stream: int, body: bytes) -> bytes:
    return frame(1, 4, stream, b"\x82") + frame(0, 1, stream, body)


def frames(data: bytes) -> list[Frame]:
    found = []
    while data:
        size = int.from_bytes(data[:3])
        found.append((data[3], data[4], int.from_bytes(data[5:9]), data[9 : 9 + size]))
        data = data[9 + size :]
    return found


def bodies(data: bytes) -> list[bytes]:
    return [payload for kind, _, _, payload in frames(data) if kind == 0]


@pytest.fixture
def connection() -> Connection:
    """Greeted, with nothing left to send."""
    connection = Connection()
    assert connection.receive(PREFACE + SETTINGS) == []
    connection.take()
    return connection


def test_first_words_are_settings_with_the_widest_windows() -> None:
    sent = frames(Connection().take())
    assert sent == [(4, 0, 0, b"\0\x04\x7f\xff\xff\xff"), (8, 0, 0, b"\x7f\xff\0\0")]


def test_bytes_may_come_one_by_one() -> None:
    connection, complete = Connection(), []
    for byte in PREFACE + SETTINGS + request(1, b"hello"):
        complete += connection.receive(bytes((byte,)))
    (stream,) = complete
    assert (stream.number, stream.body) == (1, b"hello")
    assert ACKNOWLEDGED in connection.take()


def test_response_is_head_body_and_trailers(connection: Connection) -> None:
    (stream,) = connection.receive(request(1, b"x"))
    connection.respond(stream, b"head", b"body", b"end")
    assert frames(connection.take()) == [(1, 4, 1, b"head"), (0, 0, 1, b"body"), (1, 5, 1, b"end")]
    assert stream.closed
    (stream,) = connection.receive(request(3, b"y"))
    connection.reject(stream, b"no")
    assert frames(connection.take()) == [(1, 5, 3, b"no")]


def test_body_in_parts_with_padding_and_unknown_frames_between(connection: Connection) -> None:
    sent = [
        frame(1, 0, 1, b"\x82"),
        frame(9, 4, 1, b"\x83"),  # the rest of the fields
        frame(0, 8, 1, b"\x02ab\0\0"),
        frame(2, 0, 1, bytes(5)),  # priority, which means nothing any more
        frame(0xBE, 0xFF, 1, b"an extension"),
        frame(0, 0, 1),
        frame(0, 9, 1, b"\0cd"),
    ]
    (stream,) = connection.receive(b"".join(sent))
    assert stream.body == b"abcd"


def test_ping_is_answered_and_its_answer_is_not(connection: Connection) -> None:
    connection.receive(frame(6, 0, 0, b"12345678") + frame(6, 1, 0, b"87654321") + frame(4, 1, 0))
    assert frames(connection.take()) == [(6, 1, 0, b"12345678")]


def test_windows_hold_the_body_back(connection: Connection) -> None:
    connection.receive(setting(4, 10))
    (stream,) = connection.receive(request(1, b"x"))
    connection.take()
    body = bytes(range(30))
    connection.respond(stream, b"head", body, b"end")
    assert bodies(connection.take()) == [body[:10]]
    assert connection.responding
    connection.receive(window(1, 5))
    assert bodies(connection.take()) == [body[10:15]]
    connection.receive(setting(4, 3))  # 7 less than before, for open streams, too: -7 are left
    assert bodies(connection.take()) == []
    connection.receive(window(1, 8))
    assert bodies(connection.take()) == [body[15:16]]
    connection.receive(setting(4, 1000))
    assert frames(connection.take()) == [(4, 1, 0, b""), (0, 0, 1, body[16:]), (1, 5, 1, b"end")]
    assert not connection.responding


def test_window_of_the_connection_holds_all_bodies_back(connection: Connection) -> None:
    connection.receive(setting(4, 2**20))
    (stream,) = connection.receive(request(1, b"x"))
    connection.take()
    body = bytes(70_000)
    connection.respond(stream, b"head", body, b"end")
    assert [len(part) for part in bodies(connection.take())] == [16_384] * 3 + [16_383]  # 65,535 in frames of 2**14
    connection.receive(window(0, 2**20))
    assert [len(part) for part in bodies(connection.take())] == [70_000 - 65_535]


def test_frames_are_as_long_as_the_client_reads_them(connection: Connection) -> None:
    connection.receive(setting(5, 40_000))
    (stream,) = connection.receive(request(1, b"x"))
    connection.take()
    connection.respond(stream, b"head", bytes(50_000), b"end")
    assert [len(part) for part in bodies(connection.take())] == [40_000, 10_000]


def test_window_of_the_client_is_filled_up_again(connection: Connection) -> None:
    part, granted = bytes(16_384), 0
    connection.receive(frame(1, 4, 1))
    for _ in range(200):
        connection.receive(frame(0, 0, 1, part))
        granted += sum(int.from_bytes(payload) for kind, _, stream, payload in frames(connection.take()))
    assert 0 <= 200 * len(part) - granted <= 2**20


def test_cancelled_request_is_closed_and_gets_no_answer(connection: Connection) -> None:
    (stream,) = connection.receive(request(1, b"x"))
    assert not stream.closed
    connection.receive(frame(3, 0, 1, bytes(4)) + frame(0, 0, 1, b"late") + frame(1, 5, 1))
    assert stream.closed
    connection.respond(stream, b"head", b"body", b"end")
    connection.reject(stream, b"no")
    assert connection.take() == b""


def test_leaving_names_the_last_request_and_the_reason(connection: Connection) -> None:
    connection.receive(request(7, b"x"))
    connection.leave(1, "why")
    assert frames(connection.take()) == [(7, 0, 0, b"\0\0\0\x07\0\0\0\x01why")]


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"\0\x40\x01\0\0\0\0\0\x01", 6),  # a frame of 16,385 bytes
        (frame(6, 0, 0, b"short"), 6),
        (frame(4, 0, 0, b"short"), 6),
        (frame(8, 0, 0, b"xy"), 6),
        (window(0, 0), 1),
        (window(0, 2**31 - 1), 3),
        (setting(4, 2**31), 3),
        (setting(5, 16_383), 1),
        (frame(1, 4, 2), 1),
        (frame(1, 4, 0), 1),
        (frame(0, 0, 0, b"x"), 1),
        (frame(0, 0, 1, b"x"), 1),
        (frame(1, 4, 1) + frame(0, 8, 1, b"\x01"), 1),
        (frame(5, 0, 1), 1),
        (b"".join(frame(1, 4, number) for number in range(1, 203, 2)), 11),
    ],
)
def test_broken_rules_end_the_connection(connection: Connection, sent: bytes, code: int) -> None:
    with pytest.raises(Http2Error) as caught:
        connection.receive(sent)
    assert caught.value.code == code


@pytest.mark.parametrize("sent", [b"GET / HTTP/1.1\r\n", b"\x16\x03\x01", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\r"])
def test_what_is_no_http2_is_refused_at_once(sent: bytes) -> None:
    with pytest.raises(Http2Error, match="does not speak HTTP/2"):
        Connection().receive(sent)
