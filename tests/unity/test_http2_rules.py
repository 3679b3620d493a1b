"""What is not HTTP/2 as its standard has it ends a request or the connection; all else is taken."""

import pytest

from mlhooks.unity.http2 import Connection
from mlhooks.unity.http2_frames import Http2Error
from tests.unity.test_http2 import (
    ACKNOWLEDGED,
    CALL,
    FIELDS,
    MOST,
    PREFACE,
    block,
    frame,
    frames,
    head,
    request,
    setting,
    unconcerned,
    window,
)


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
