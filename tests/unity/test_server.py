import contextlib
import socket
import struct
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator

import grpc
import pytest
from hpack import Decoder

from mlhooks.unity import grpc_frames
from mlhooks.unity.errors import PlayerStopped, ProtocolBroken
from mlhooks.unity.ports import listen
from mlhooks.unity.server import PlayerServer
from tests.unity.client import free_port
from tests.unity.test_http2 import CALL, FIELDS, PREFACE, SETTINGS, block, frame, frames, head, request, setting

STOP = b"stop"
PATH = CALL[":path"]
MESSAGE = b"\0\0\0\0\x05hello"  # It is not compressed, and has 5 bytes.


class Serve:
    """A server on a port of its own, and what connects to it."""

    def __init__(self) -> None:
        self.port = free_port()
        self.server = PlayerServer(listen(self.port))
        self.things = contextlib.ExitStack()

    def channel(self, *options: tuple[str, int], path: str = PATH, **more: object) -> Callable[..., grpc.Future]:
        unlimited = tuple((f"grpc.max_{which}_message_length", -1) for which in ("receive", "send"))
        channel = grpc.insecure_channel(f"localhost:{self.port}", options=(*unlimited, *options), **more)
        call = self.things.enter_context(channel).unary_unary(path)
        return lambda message: call.future(message, timeout=20)

    def socket(self) -> socket.socket:
        return self.things.enter_context(socket.create_connection(("127.0.0.1", self.port), timeout=10))

    def message(self) -> bytes:
        message = self.server.wait(10)
        assert message is not None
        return message

    def answer(self, call: Callable[..., grpc.Future], message: bytes, answer: bytes) -> bytes:
        """Exchange, and return what the trainer got."""
        future = call(message)
        received = self.message()
        self.server.answer(answer)
        while not future.done():
            assert self.server.wait(0.01) is None  # Large answers need it.
        assert future.result() == answer
        return received


@pytest.fixture
def serve() -> Iterator[Serve]:
    serve = Serve()
    yield serve
    serve.server.close(STOP)
    serve.things.close()


@pytest.mark.parametrize(
    "options",
    [
        (),
        (("grpc.http2.lookahead_bytes", 70_000), ("grpc.http2.bdp_probe", 0)),
        (("grpc.http2.max_frame_size", 2**20), ("grpc.http2.write_buffer_size", 1)),
    ],
)
def test_messages_of_any_size_pass_both_ways(serve: Serve, options: tuple[tuple[str, int], ...]) -> None:
    call = serve.channel(*options)
    large = bytes(range(256)) * 4 * 20 * 2**10  # 20 MiB
    for message, answer in [(b"", b""), (large, large[::-1]), (b"x", b"y"), (large[:300_000], b"")]:
        assert serve.answer(call, message, answer) == message


def test_many_small_messages_pass(serve: Serve) -> None:
    call = serve.channel()
    for number in range(200):
        future = call(b"%d" % number)
        assert serve.message() == b"%d" % number
        serve.server.answer(b"%d" % -number)
        assert future.result() == b"%d" % -number


def test_call_beside_one_that_waits_is_refused(serve: Serve) -> None:
    call = serve.channel()
    first = call(b"first")
    assert serve.message() == b"first"
    for other in (call, serve.channel(("grpc.use_local_subchannel_pool", 1))):
        error = other(b"other").exception()
        assert error.code() is grpc.StatusCode.ALREADY_EXISTS
        assert error.details() == "another player is connected to this port"
    serve.server.answer(b"yes")
    assert first.result() == b"yes"


def test_compressed_message_is_refused_and_reported(serve: Serve) -> None:
    future = serve.channel(compression=grpc.Compression.Gzip)(b"x" * 1000)
    with pytest.raises(ProtocolBroken, match="compressed"):
        serve.message()
    assert future.code() is grpc.StatusCode.UNIMPLEMENTED
    assert "compressed" in future.details()


@pytest.mark.parametrize("body", [b"", b"\0\0\0", MESSAGE[:-1], MESSAGE * 2])
def test_call_without_exactly_one_message_is_refused_and_reported(serve: Serve, body: bytes) -> None:
    raw = serve.socket()
    raw.sendall(PREFACE + SETTINGS + request(1, body))
    with pytest.raises(ProtocolBroken, match=r"the call has no message|exactly one message"):
        serve.message()
    assert b"grpc-status\x0213" in received(raw, b"grpc-message")


@pytest.mark.parametrize(
    "path", ["/communicator_objects.UnityToExternalProto/exchange", "/grpc.health.v1.Health/Check"]
)
def test_call_of_another_method_is_refused_and_neither_the_player_nor_in_its_way(serve: Serve, path: str) -> None:
    stranger = serve.channel(path=path)
    for _ in range(2):
        assert stranger(b"hello").code() is grpc.StatusCode.UNIMPLEMENTED
        assert serve.answer(serve.channel(), b"a", b"b") == b"a"
    assert stranger(b"hello").code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize(
    ("fields", "status", "also"),
    [
        ({":method": "GET"}, b"405", ("allow", "POST")),
        ({":method": "PUT"}, b"405", ("allow", "POST")),
        ({"content-type": "application/json"}, b"415", None),
        ({"content-type": "application/grpc+json"}, b"415", None),
        ({"content-type": "application/grpc-web"}, b"415", None),
        ({"content-type": ""}, b"415", None),
        ({":path": "/"}, b"200", ("grpc-status", "12")),
        ({":path": PATH + "/"}, b"200", ("grpc-status", "12")),
    ],
)
def test_request_that_is_no_call_gets_its_status(serve: Serve, fields: dict, status: bytes, also: tuple | None) -> None:
    raw = serve.socket()
    raw.sendall(PREFACE + SETTINGS + frame(1, 4, 1, block(CALL | fields)) + frame(0, 1, 1, MESSAGE))
    sent = frames(received(raw, status if also is None else also[1].encode()))
    (payload,) = [payload for *head, payload in sent if head == [1, 5, 1]]
    answer = Decoder().decode(payload)
    assert answer[0] == (":status", status.decode())
    assert also is None or also in answer
    assert serve.server.wait(0.01) is None
    assert serve.answer(serve.channel(), b"a", b"b") == b"a"


@pytest.mark.parametrize("kind", ["application/grpc", "application/grpc+proto", "application/grpc; charset=utf-8"])
def test_content_types_of_grpc_are_taken(serve: Serve, kind: str) -> None:
    serve.socket().sendall(
        PREFACE + SETTINGS + frame(1, 4, 1, block(CALL | {"content-type": kind})) + frame(0, 1, 1, MESSAGE)
    )
    assert serve.message() == b"hello"
    serve.server.answer(b"")


def flood(first: bytes, more: bytes) -> Callable[[socket.socket], None]:
    """Send for ever, or until the server does not want any more."""

    def send(raw: socket.socket) -> None:
        with contextlib.suppress(OSError):
            raw.sendall(PREFACE + SETTINGS + first)
            while True:
                raw.sendall(more)

    return send


RESET = b"".join(head(number) + frame(3, 0, number, bytes(4)) for number in range(1, 401, 2))
FLOODS = {
    "a body without an end": flood(head(1), frame(0, 0, 1, bytes(16_384))),
    "a body of nothing": flood(head(1), frame(0, 0, 1) * 1000),
    "a body for another method": flood(frame(1, 4, 1, block(CALL | {":path": "/"})), frame(0, 0, 1, bytes(16_384))),
    "fields without an end": flood(frame(1, 0, 1, FIELDS), frame(9, 0, 1)),
    "pings": flood(b"", frame(6, 0, 0, bytes(8)) * 1000),
    "settings": flood(b"", setting(4, 1) * 1000),
    "requests that are cancelled": flood(b"", RESET),
    "unknown frames": flood(b"", frame(0xBE, 0, 0) * 1000),
}


@pytest.mark.parametrize("send", FLOODS.values(), ids=FLOODS.keys())
def test_stranger_that_floods_is_turned_away_and_the_player_served(serve: Serve, send: Callable[..., None]) -> None:
    threads = [threading.Thread(target=send, args=(serve.socket(),)) for _ in range(3)]
    for thread in threads:
        thread.start()
    call = serve.channel()
    for number in range(20):
        assert serve.answer(call, b"%d" % number, b"yes") == b"%d" % number
    for thread in threads:
        while thread.is_alive():  # It ends when it is turned away.
            assert serve.server.wait(0.01) is None
    assert serve.answer(call, b"a", b"b") == b"a"


def test_little_is_kept_of_strangers(serve: Serve) -> None:
    body = frame(0, 0, 1, bytes(10_000))
    tracemalloc.start()
    try:
        for _ in range(100):
            serve.socket().sendall(PREFACE + SETTINGS + head(1) + body * 6)
            assert serve.server.wait(0.001) is None
        assert serve.server.wait(0.2) is None
        assert tracemalloc.get_traced_memory()[0] < 5 * 2**20
    finally:
        tracemalloc.stop()
    assert serve.answer(serve.channel(), b"a", b"b") == b"a"


def test_slow_strangers_keep_nobody_out(serve: Serve) -> None:
    slow = [serve.socket() for _ in range(40)]
    for raw in slow:
        raw.sendall(PREFACE[:5])
        assert serve.server.wait(0.001) is None
    player = serve.channel()
    assert serve.answer(player, b"a", b"b") == b"a"
    assert frames(received_all(slow[0]))[-1][0] == 7
    slow += [serve.socket() for _ in range(40)]
    assert serve.answer(player, b"c", b"d") == b"c"
    slow[-1].sendall(PREFACE + SETTINGS + request(1, MESSAGE))
    assert b"grpc-status\x016" in received(slow[-1], b"another player")


def test_message_that_is_too_long_is_refused_and_reported(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc_frames, "LONGEST_MESSAGE", 2**20)
    call = serve.channel()
    fits = bytes(2**20 - 5)
    assert serve.answer(call, b"a", b"b") == b"a"
    assert serve.answer(call, fits, b"b") == fits
    future = call(bytes(2**21))
    with pytest.raises(ProtocolBroken, match="longer than 1 MiB"):
        serve.message()
    assert future.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize(
    "words",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\x16\x03\x01\x02\0\x01\0\x01",
        PREFACE + b"\xff" * 100,
        PREFACE + frame(6, 0, 0, b"short"),
    ],
)
def test_garbage_is_turned_away_and_the_player_served(serve: Serve, words: bytes) -> None:
    quiet, raw = serve.socket(), serve.socket()
    raw.sendall(words)
    assert frames(received_all(raw))[-1][0] == 7  # A GOAWAY comes, and the end.
    assert serve.answer(serve.channel(), b"a", b"b") == b"a"
    assert frames(received(quiet, b"\x7f\xff\0\0"))[0][0] == 4  # It has been greeted, and may wait.


def test_pings_are_answered_while_nobody_waits_for_a_call(serve: Serve) -> None:
    raw = serve.socket()
    raw.sendall(PREFACE + SETTINGS + frame(6, 0, 0, b"are you?"))
    assert frames(received(raw, b"are you?"))[-1] == (6, 1, 0, b"are you?")


@pytest.mark.parametrize("killed", [False, True])
def test_player_that_goes_while_it_waits_is_noticed_and_another_may_come(serve: Serve, killed: bool) -> None:
    raw = serve.socket()
    raw.sendall(PREFACE + SETTINGS + request(1, MESSAGE))
    assert serve.message() == b"hello"
    reset(raw) if killed else raw.close()
    with pytest.raises(PlayerStopped, match=r"the connection.* while it waited for actions"):
        serve.server.wait(10)
    with pytest.raises(PlayerStopped, match="No player"):
        serve.server.answer(b"to nobody")
    assert serve.answer(serve.channel(), b"a", b"b") == b"a"


def test_player_that_goes_while_it_is_answered_is_noticed(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = serve.socket()
    raw.sendall(PREFACE + SETTINGS + request(1, MESSAGE))
    assert serve.message() == b"hello"
    monkeypatch.setattr(serve.server, "_attend", lambda timeout: None)  # It looks a moment too early.
    reset(raw)
    with pytest.raises(PlayerStopped, match="broke the connection"):
        serve.server.answer(b"to nobody")


@pytest.mark.parametrize("half", [False, True])
def test_player_that_goes_in_the_middle_of_a_message_is_noticed(serve: Serve, half: bool) -> None:
    raw = serve.socket()
    raw.sendall(PREFACE + SETTINGS + request(1, MESSAGE))
    assert serve.message() == b"hello"
    serve.server.answer(b"go on")
    raw.sendall(request(3, MESSAGE)[:-3])
    raw.shutdown(socket.SHUT_WR) if half else raw.close()
    with pytest.raises(PlayerStopped, match=r"The player (closed|broke) the connection"):
        serve.message()


def test_player_that_comes_after_one_that_went_unnoticed_is_not_taken_for_it(serve: Serve) -> None:
    raw = serve.socket()
    raw.sendall(PREFACE + SETTINGS + request(1, MESSAGE))
    assert serve.message() == b"hello"
    raw.close()
    while serve.server._player is not None:
        time.sleep(0.001)
    future = serve.channel()(b"second")
    while serve.server._player is None:
        time.sleep(0.001)
    with pytest.raises(PlayerStopped, match="while it waited for actions"):
        serve.server.answer(b"for the first")
    assert serve.message() == b"second"
    serve.server.answer(b"for the second")
    assert future.result() == b"for the second"


def test_answer_waits_for_a_player_that_makes_no_room(serve: Serve) -> None:
    raw = serve.socket()
    raw.sendall(PREFACE + setting(4, 0) + request(1, MESSAGE))
    assert serve.message() == b"hello"
    serve.server.answer(b"actions")
    assert serve.server.wait(0.05) is None
    raw.sendall(frame(8, 0, 1, b"\0\0\0\x64"))
    assert serve.server.wait(0.05) is None
    assert b"actions" in received(raw, b"grpc-status\x010")


def test_player_that_reads_nothing_holds_up_no_other(serve: Serve) -> None:
    raw = serve.socket()
    wide = frame(8, 0, 0, (2**30).to_bytes(4))
    raw.sendall(PREFACE + setting(4, 2**30) + wide + request(1, MESSAGE))
    assert serve.message() == b"hello"
    answer = bytes(30 * 2**20)
    serve.server.answer(answer)
    error = serve.channel()(b"other")
    assert serve.server.wait(0.1) is None
    assert error.code() is grpc.StatusCode.ALREADY_EXISTS
    reader = threading.Thread(target=received, args=(raw, b"grpc-status\x010"))
    reader.start()
    while reader.is_alive():
        assert serve.server.wait(0.01) is None


def test_close_answers_the_call_that_waits_and_frees_the_port(serve: Serve) -> None:
    future = serve.channel()(b"a")
    serve.message()
    serve.server.close(STOP)
    serve.server.close(STOP)
    assert future.result() == STOP
    with pytest.raises(PlayerStopped, match="is closed"):
        serve.server.wait(10)
    for listener in listen(serve.port):
        listener.close()


def test_close_does_not_wait_for_a_player_that_reads_nothing_for_ever(serve: Serve, monkeypatch) -> None:
    monkeypatch.setattr("mlhooks.unity.server._GOODBYE", 0.05)
    raw = serve.socket()
    raw.sendall(PREFACE + setting(4, 0) + request(1, MESSAGE))
    serve.message()
    serve.server.close(STOP)
    assert STOP not in received_all(raw)


def reset(raw: socket.socket) -> None:
    """Close it as the system does for a process that was killed before it had read everything."""
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    raw.close()


def received(raw: socket.socket, last: bytes) -> bytes:
    """Return what comes, until the last bytes are there."""
    data = b""
    while last not in data[-200_000:]:
        part = raw.recv(2**20)
        assert part, data[-1000:]
        data = data[-200_000:] + part if len(data) > 2**20 else data + part
    return data


def received_all(raw: socket.socket) -> bytes:
    return b"".join(iter(lambda: raw.recv(2**16), b""))
