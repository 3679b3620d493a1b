"""A relay between player and trainer that can break the connection in the middle of a message."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading

CHUNK = 1 << 16


class Relay:
    """Listens on a free loopback port and passes what it gets on to the trainer's.

    Args:
        port: The trainer's port.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._left: int | None = None
        threading.Thread(target=self._serve, daemon=True).start()

    def cut_after(self, size: int) -> None:
        """Break the connection after that many further bytes to the trainer."""
        self._left = size

    def _serve(self) -> None:
        while True:
            player, _ = self._listener.accept()
            try:
                trainer = socket.create_connection(("localhost", self._target))
            except OSError:
                player.close()
                continue
            for end in (player, trainer):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._pass_on, args=(trainer, player, False), daemon=True).start()
            threading.Thread(target=self._pass_on, args=(player, trainer, True), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, limited: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(CHUNK):
                if limited and self._left is not None:
                    data, self._left = data[: self._left], self._left - len(data)
                target.sendall(data)
                if limited and self._left is not None and self._left <= 0:
                    break
        for end in (source, target):
            with contextlib.suppress(OSError):
                # Closed like this, a socket tells its peer of a reset and not of an orderly end.
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                end.shutdown(socket.SHUT_RDWR)
                end.close()
