"""Faults on request: the player crashes, hangs, leaves, sends nonsense, or breaks the connection in a message."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import socket
import struct
import threading
import time
from pathlib import Path
from typing import Any

logger = logging.getLogger("mlhooks.sim_player")

UNKNOWN_VERSION = "99.0.0"
STALL_SECONDS, HANG_SECONDS = 5.0, 3600.0
EXIT_CODE = 1
CHUNK = 1 << 16


class Quit(Exception):
    """The player leaves of its own accord, and says so to the trainer."""


class Faults:
    """The one fault that the options ask for, if it is for this player.

    Args:
        options: Of the command line.
        port: The trainer's.
    """

    def __init__(self, options: argparse.Namespace, port: int) -> None:
        mine = options.fault_worker is None or options.fault_worker == port - options.base_port
        self._kind: str | None = options.fault if mine else None
        self._step: int = options.fault_step
        self._seconds: float | None = options.fault_seconds
        self._once: Path | None = options.fault_once
        self._relay = Relay(port) if self._kind == "close" else None
        self.target = f"localhost:{port}" if self._relay is None else f"127.0.0.1:{self._relay.port}"
        self.version: str | None = None

    def before(self, step: int, data: bytes = b"") -> bytes:
        """Go wrong if it is time, before message `step` is sent, and return what to send in its place.

        Raises:
            Quit: The player is to leave in an orderly manner.
            SystemExit: It is to exit as it is.
        """
        if self._kind is None or step != self._step or not self._claim():
            return data
        logger.info("Fault at message %d: %s", step, self._kind)
        match self._kind:
            case "crash":
                _crash()
            case "exit":
                raise SystemExit(EXIT_CODE)
            case "quit":
                raise Quit
            case "hang":
                time.sleep(HANG_SECONDS if self._seconds is None else self._seconds)
                raise SystemExit(EXIT_CODE)
            case "stall" | "slow-start":
                time.sleep(STALL_SECONDS if self._seconds is None else self._seconds)
            case "version":
                self.version = UNKNOWN_VERSION
            case "close":
                assert self._relay is not None
                self._relay.cut_after(len(data) // 2)
            case _:
                return _spoilt(data, self._kind)
        return data

    def _claim(self) -> bool:
        if self._once is None:
            return True
        try:
            self._once.touch(exist_ok=False)
        except FileExistsError:
            return False
        return True


def _crash() -> None:
    with contextlib.suppress(ImportError):
        import resource  # Windows has no such module.

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.abort()


def _spoilt(data: bytes, kind: str) -> bytes:
    """Return the message with one wrong value in the first agent's info."""
    from mlagents_envs.communicator_objects.unity_message_pb2 import UnityMessageProto

    message = UnityMessageProto.FromString(data)
    lists = message.unity_output.rl_output.agentInfos.values()
    info = next(infos.value[0] for infos in lists if infos.value)
    if kind == "nan-reward":
        info.reward = float("nan")
        return bytes(message.SerializeToString())
    obs: Any = next(obs for obs in info.observations if obs.float_data.data)
    if kind == "nan":
        obs.float_data.data[0] = float("nan")
    else:
        obs.shape[0] += 1
        obs.float_data.data.extend([0.0] * (len(obs.float_data.data) // (obs.shape[0] - 1)))
    return bytes(message.SerializeToString())


class Relay:
    """Stands between player and trainer on a free loopback port, and can break the connection in a message.

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
