import struct
import tracemalloc
from collections.abc import Callable

import pytest
from hpack import Encoder

from mlhooks.unity.http2 import Connection
from mlhooks.unity.http2_frames import Http2Error

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


@pytest.fixture
def connection() -> Connection:
    return greeted()


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


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (request(1, b"x") + frame(0, 0, 1, b"more"), 5),
        (request(1, b"x") + head(1, 5), 5),
        (head(1) + window(1, 2**31 - 1), 3),
    ],
)
def test_broken_rules_of_a_request_end_it_alone(connection: Connection, sent: bytes, code: int) -> None:
    assert connection.receive(sent) == []
    assert frames(connection.take_output()) == [(3, 0, 1, code.to_bytes(4))]
    (stream,) = connection.receive(frame(0, 1, 1, b"late") + request(3, b"y"))
    assert stream.body == b"y"


def test_data_for_a_request_that_is_over_is_answered_by_a_reset(connection: Connection) -> None:
    (stream,) = connection.receive(request(1, b"x"))
    connection.respond(stream, b"head", b"body", b"end")
    connection.take_output()
    connection.receive(frame(0, 1, 1, b"more"))
    assert frames(connection.take_output()) == [(3, 0, 1, b"\0\0\0\x05")]


def without(name: str) -> dict[str, str]:
    return {other: value for other, value in CALL.items() if other != name}


ORDERED = list(CALL.items())
MALFORMED = {
    "no method": without(":method"),
    "no scheme": without(":scheme"),
    "no path": without(":path"),
    "an empty path": CALL | {":path": ""},
    "no authority": without(":authority"),
    "another host": CALL | {"host": "elsewhere"},
    "a pseudo-field twice": [*ORDERED[:1], *ORDERED],
    "a pseudo-field behind others": [*ORDERED[1:], ORDERED[0]],
    "a pseudo-field of responses": {":status": "200"} | CALL,
    "an unknown pseudo-field": {":protocol": "websocket"} | CALL,
    "a path to connect to": CALL | {":method": "CONNECT"},
    "upper case": CALL | {"Accept": "x"},
    "a space in a name": CALL | {"a b": "x"},
    "a colon in a name": CALL | {"a:b": "x"},
    "no name": CALL | {"": "x"},
    "a name beyond ASCII": [*ORDERED, ("ä", "x")],
    "a line end in a value": CALL | {"a": "x\ny"},
    "a zero in a value": CALL | {"a": "x\0y"},
    "a space before a value": CALL | {"a": " x"},
    "a space behind a value": CALL | {"a": "x\t"},
    "te: gzip": CALL | {"te": "gzip"},
    "connection": CALL | {"connection": "close"},
    "proxy-connection": CALL | {"proxy-connection": "close"},
    "keep-alive": CALL | {"keep-alive": "1"},
    "transfer-encoding": CALL | {"transfer-encoding": "chunked"},
    "upgrade": CALL | {"upgrade": "h2c"},
    "a length of letters": CALL | {"content-length": "ten"},
    "a negative length": CALL | {"content-length": "-1"},
    "an endless length": CALL | {"content-length": "1" * 5000},
    "two lengths": [*ORDERED, ("content-length", "1"), ("content-length", "2")],
}


@pytest.mark.parametrize("fields", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_fields_end_the_connection(connection: Connection, fields: dict[str, str]) -> None:
    with pytest.raises(Http2Error, match="malformed") as caught:
        connection.receive(frame(1, 5, 1, block(fields)))
    assert caught.value.code == 1


TOLD = frame(1, 4, 1, block(CALL | {"content-length": "2"}))
BROKEN = {
    "a frame of 16,385 bytes": (b"\0\x40\x01\0\0\0\0\0\x01", 6),
    "a frame of an unknown kind of 16,385 bytes": (b"\0\x40\x01\xbe\0\0\0\0\x01", 6),
    "a short ping": (frame(6, 0, 0, b"short"), 6),
    "a ping of a stream": (frame(6, 0, 1, bytes(8)), 1),
    "settings of 5 bytes": (frame(4, 0, 0, b"short"), 6),
    "settings of a stream": (frame(4, 0, 1), 1),
    "acknowledged settings with values": (frame(4, 1, 0, bytes(6)), 6),
    "a push neither on nor off": (setting(2, 2), 1),
    "extended CONNECT neither on nor off": (setting(8, 2), 1),
    "too wide windows": (setting(4, 2**31), 3),
    "too wide a window by settings": (head(1) + window(1, 2**30) + setting(4, 2**31 - 1), 3),
    "too short frames": (setting(5, 16_383), 1),
    "too long frames": (setting(5, 2**24), 1),
    "a short window update": (frame(8, 0, 0, b"xy"), 6),
    "a window update by nothing": (window(0, 0), 1),
    "a window update of a stream by nothing": (head(1) + window(1, 0), 1),
    "a window update of an idle stream": (window(1, 1), 1),
    "too wide a window": (window(0, 2**31 - 1), 3),
    "fields of stream 0": (head(0), 1),
    "fields of a stream of the server": (head(2), 1),
    "fields of a stream that was skipped": (head(3) + head(1), 5),
    "fields of a closed stream": (head(1) + frame(3, 0, 1, bytes(4)) + head(1), 5),
    "fields in the middle": (head(1) + frame(1, 4, 1, block({"a": "b"})), 1),
    "pseudo-fields at the end": (head(1) + head(1, 5), 1),
    "upper case at the end": (head(1) + frame(1, 5, 1, block({"A": "b"})), 1),
    "nothing but padding in fields": (frame(1, 12, 1, b"\x01"), 1),
    "padding in place of a priority": (frame(1, 0x2C, 1, b"\x01" + bytes(5)), 1),
    "fields without a padding": (frame(1, 12, 1), 6),
    "fields without a priority": (frame(1, 0x24, 1, bytes(4)), 6),
    "fields of a stream that depends on itself": (frame(1, 0x24, 1, b"\0\0\0\1\0" + FIELDS), 1),
    "data of stream 0": (frame(0, 0, 0, b"x"), 1),
    "data of an idle stream": (frame(0, 0, 1, b"x"), 1),
    "data of a stream of the server": (head(3) + frame(0, 0, 2, b"x"), 1),
    "nothing but padding": (head(1) + frame(0, 8, 1, b"\x01"), 1),
    "data without a padding": (head(1) + frame(0, 8, 1), 6),
    "a body that is too long": (TOLD + frame(0, 0, 1, b"abc"), 1),
    "a body that is too short": (TOLD + frame(0, 1, 1, b"a"), 1),
    "a body that is too short for its trailers": (TOLD + frame(0, 0, 1, b"a") + frame(1, 5, 1, b""), 1),
    "a length without a body": (TOLD.replace(b"\x01\x04", b"\x01\x05", 1), 1),
    "a priority of the connection": (frame(2, 0, 0, bytes(5)), 1),
    "a short priority": (frame(2, 0, 1, bytes(4)), 6),
    "a priority below itself": (frame(2, 0, 1, b"\x80\0\0\1\0"), 1),
    "a reset of the connection": (frame(3, 0, 0, bytes(4)), 1),
    "a reset of an idle stream": (frame(3, 0, 1, bytes(4)), 1),
    "a long reset": (head(1) + frame(3, 0, 1, bytes(5)), 6),
    "a push": (frame(5, 4, 1, b"\0\0\0\2"), 1),
    "a stream that goes away": (frame(7, 0, 1, bytes(8)), 1),
    "a short farewell": (frame(7, 0, 0, bytes(7)), 6),
    "a continuation of nothing": (frame(9, 4, 1), 1),
    "a continuation after the end": (head(1) + frame(9, 4, 1), 1),
    "a continuation on another stream": (frame(1, 0, 1, FIELDS) + frame(9, 4, 3), 1),
    "another frame within fields": (frame(1, 0, 1, FIELDS) + frame(6, 0, 0, bytes(8)), 1),
    "an unknown frame within fields": (frame(1, 0, 1, FIELDS) + frame(0xBE, 0, 1), 1),
    "very many continuations": (frame(1, 0, 1, FIELDS) + frame(9, 0, 1) * 33, 11),
    "very long fields": (frame(1, 0, 1, FIELDS) + frame(9, 0, 1, bytes(16_384)), 11),
    "fields that unfold to very many": (frame(1, 5, 1, b"\x82" * 500), 11),
    "index 0": (frame(1, 5, 1, b"\x80"), 9),
    "an index beyond the table": (frame(1, 5, 1, b"\xbe"), 9),
    "an endless index": (frame(1, 5, 1, b"\xff" * 20), 9),
    "a text that is cut": (frame(1, 5, 1, b"\x04\x05/abc"), 9),
    "a bad end of a compressed text": (frame(1, 5, 1, b"\x04\x81\0"), 9),
    "the end of a compressed text within it": (frame(1, 5, 1, b"\x04\x84\xff\xff\xff\xff"), 9),
    "a table of 4,097 bytes": (frame(1, 5, 1, b"\x3f\xe2\x1f" + FIELDS), 9),
    "another size of the table in the middle": (frame(1, 5, 1, FIELDS + b"\x20"), 9),
}


@pytest.mark.parametrize(("sent", "code"), BROKEN.values(), ids=BROKEN.keys())
def test_broken_rules_end_the_connection(connection: Connection, sent: bytes, code: int) -> None:
    with pytest.raises(Http2Error) as caught:
        connection.receive(sent)
    assert caught.value.code == code


@pytest.mark.parametrize("sent", [b"GET / HTTP/1.1\r\n", b"\x16\x03\x01", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\r"])
def test_what_is_no_http2_is_refused_at_once(sent: bytes) -> None:
    with pytest.raises(Http2Error, match="does not speak HTTP/2"):
        Connection(unconcerned, MOST).receive(sent)


@pytest.mark.parametrize("first", [head(1), frame(6, 0, 0, bytes(8)), frame(0xBE, 0, 0), ACKNOWLEDGED])
def test_client_that_begins_without_settings_is_refused(first: bytes) -> None:
    with pytest.raises(Http2Error) as caught:
        Connection(unconcerned, MOST).receive(PREFACE + first)
    assert caught.value.code == 1


def test_what_is_allowed_is_taken(connection: Connection) -> None:
    fine = [
        frame(2, 0xFF, 9, b"\0\0\0\1\xff"),  # This is a priority of an idle stream.
        frame(1, 0x2C, 1, b"\x03" + b"\x80\0\0\5\x07" + FIELDS + bytes(3)),  # It is padded, with a priority.
        frame(0, 0x28, 1, b"\x02\0\0"),  # It holds nothing, is padded, and has a flag that data does not have.
        b"\0\0\x01\0\0\x80\0\0\1x",  # It sets a reserved bit.
        frame(7, 0, 0, bytes(8) + b"bye"),
        setting(0x99, 7) + setting(2, 0) + setting(3, 0) + setting(6, 0) + setting(1, 0),
        frame(4, 1, 0) * 3,
        frame(0x0A, 0, 0, b"\xff"),
        frame(1, 5, 1, block({"grpc-note": "trailers", "te": "Trailers"})),
        frame(1, 5, 3, block(without(":authority") | {"host": "localhost"})),
        frame(1, 5, 5, block({":method": "CONNECT", ":authority": "localhost"})),
        frame(1, 5, 7, b"\x20\x3f\xe1\x1f" + FIELDS),  # The table is emptied, and as large as before.
        frame(3, 0, 7, bytes(4)) + frame(3, 0, 7, bytes(4)) + window(7, 1),
    ]
    streams = [stream for part in fine for stream in connection.receive(part)]
    assert [(stream.number, stream.body) for stream in streams] == [(1, b"x"), (3, b""), (5, b""), (7, b"")]
