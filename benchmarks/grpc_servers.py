"""What does one exchange with a player cost a server? Ours, one written with the library `h2`, and grpc's own.

`python benchmarks/grpc_servers.py` has the same player call all three in turns, and writes `results/grpc_servers.json`
and `.md`. The player is a process of its own (`prepared_player.py`), a client on the C library that Unity has.

- microseconds: processor time of the server's process, all threads together, over the number of exchanges.

All answer with the same bytes and decode nothing of the messages.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from queue import SimpleQueue

import grpc
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, StreamEnded
from peers import HERE, THREAD_VARIABLES
from report import machine, spread, table, today, write

from mlhooks.unity import messages
from mlhooks.unity.ports import listen
from mlhooks.unity.server import PlayerServer

ANSWER = bytes(300)  # The actions of twelve agents take as many bytes.
AGENTS = (1, 12, 256)
Exchange = Callable[[bytes], None]


def ours(port: int) -> Iterator[Exchange]:
    """Yield the server of mlhooks."""
    server = PlayerServer(listen(port))
    server.wait(60)

    def exchange(answer: bytes) -> None:
        server.answer(answer)
        server.wait(60)

    yield exchange
    server.close(messages.STOP)


def of_h2(port: int) -> Iterator[Exchange]:
    """Serve by `h2` as little as a server for one player can: it waits for one socket, and sends what has room."""
    with socket.create_server(("127.0.0.1", port)) as listener:
        player, _ = listener.accept()
    player.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection = H2Connection(H2Configuration(client_side=False, header_encoding=None))
    connection.initiate_connection()
    body = bytearray()

    def receive() -> int:
        while True:
            player.sendall(connection.data_to_send())
            for event in connection.receive_data(player.recv(2**16)):
                if isinstance(event, DataReceived):
                    body.extend(event.data)
                    connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                elif isinstance(event, StreamEnded):
                    body.clear()
                    return event.stream_id

    stream = receive()

    def send(answer: bytes) -> None:
        connection.send_headers(stream, [(":status", "200"), ("content-type", "application/grpc")])
        connection.send_data(stream, b"\0" + len(answer).to_bytes(4) + answer)
        connection.send_headers(stream, [("grpc-status", "0")], end_stream=True)

    def exchange(answer: bytes) -> None:
        nonlocal stream
        send(answer)
        stream = receive()

    yield exchange
    send(messages.STOP)
    player.sendall(connection.data_to_send())
    player.recv(2**16)
    player.close()


def of_grpc(port: int) -> Iterator[Exchange]:
    """Yield the server of grpc; what a call brings, and what answers it, passes between its threads and this one."""
    calls: SimpleQueue[bytes] = SimpleQueue()
    answers: SimpleQueue[bytes] = SimpleQueue()

    def call(message: bytes, _context: grpc.ServicerContext) -> bytes:
        calls.put(message)
        return answers.get()

    handlers = {"Exchange": grpc.unary_unary_rpc_method_handler(call)}
    handler = grpc.method_handlers_generic_handler("communicator_objects.UnityToExternalProto", handlers)
    server = grpc.server(ThreadPoolExecutor(10), handlers=(handler,))
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    calls.get()

    def exchange(answer: bytes) -> None:
        answers.put(answer)
        calls.get()

    yield exchange
    answers.put(messages.STOP)
    server.stop(5).wait()


SERVERS = {"mlhooks": ours, "h2": of_h2, "grpcio": of_grpc}


def measure(kind: str, agents: int, exchanges: int) -> float:
    """Return microseconds of processor time that an exchange costs."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    player = subprocess.Popen([sys.executable, HERE / "prepared_player.py", str(port), "--agents", str(agents)])
    server = SERVERS[kind](port)
    exchange = next(server)
    for _ in range(exchanges // 5):  # These warm up.
        exchange(ANSWER)
    started = time.process_time()
    for _ in range(exchanges):
        exchange(ANSWER)
    spent = time.process_time() - started
    next(server, None)
    player.wait(60)
    return 1e6 * spent / exchanges


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=int, nargs="+", default=AGENTS, help="whose observations are sent")
    parser.add_argument("--exchanges", type=int, default=5000, help="of each measurement (default 5000)")
    parser.add_argument("--turns", type=int, default=5, help="measurements of each (default 5)")
    parser.add_argument("--servers", nargs="+", default=list(SERVERS), choices=SERVERS)
    parser.add_argument("--output", type=Path, default=HERE / "results", metavar="DIR", help="where to write")
    args = parser.parse_args()
    if any(os.environ.get(name) != "1" for name in THREAD_VARIABLES):
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | dict.fromkeys(THREAD_VARIABLES, "1"))
    runs = {agents: {kind: list[float]() for kind in args.servers} for agents in args.agents}
    for turn in range(args.turns):
        for agents in args.agents:
            for kind in args.servers if turn % 2 == 0 else reversed(args.servers):
                runs[agents][kind].append(measure(kind, agents, args.exchanges))
                print(f"{turn + 1}/{args.turns}  {agents:4} agents  {kind:8} {runs[agents][kind][-1]:8.1f}", flush=True)
    libraries = ("mlhooks", "h2", "grpcio")
    flags = f"--agents {' '.join(map(str, args.agents))} --turns {args.turns} --exchanges {args.exchanges}"
    facts = {
        "date": today(),
        "machine": machine(),
        "libraries": ", ".join(f"{name} {version(name)}" for name in libraries),
        "work": f"{args.turns} turns of {args.exchanges:,} exchanges with each, in alternation",
        "command": f"python benchmarks/grpc_servers.py {flags}",
    }
    lines = [
        "Microseconds of processor time that one exchange costs the server's process:",
        "",
        *table(
            ["agents", *args.servers],
            ([str(agents), *(spread(values, 0) for values in kinds.values())] for agents, kinds in runs.items()),
        ),
        "",
        "Medians, in brackets the least and the greatest of all turns; `grpc_servers.py` says what is timed.",
    ]
    write(args.output, "grpc_servers", facts, {"runs": runs}, lines)


if __name__ == "__main__":
    main()
