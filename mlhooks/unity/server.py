"""A gRPC server for one client that makes one call after the other: the player.

Whoever waits for the player's next call reads the sockets itself: to hand bytes over between threads takes longer than
all that is done with them here. The first connection on which a call of the method comes is the player's. Calls on
other connections, and of other methods, are refused, and what does not speak HTTP/2 is turned away. Little is kept of
strangers, however many there are and however they behave, and each of them is heard a little at a time.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import time
from collections.abc import Iterable
from threading import Event, Lock, Thread

from mlhooks.errors import EnvironmentFailure
from mlhooks.unity import grpc_frames
from mlhooks.unity.errors import PlayerStopped, ProtocolBroken
from mlhooks.unity.http2_frames import ENHANCE_YOUR_CALM, Http2Error
from mlhooks.unity.http2_sending import Stream
from mlhooks.unity.peer import Peer

_GLANCE = 0.1  # So many seconds lie between two looks at the connections while nobody waits for a call.
_GOODBYE = 2.0  # The last answer has so many seconds to leave.
_MOST_STRANGERS = 32


class PlayerServer:
    """Finds the player among the connections that come in, and exchanges messages with it.

    Args:
        listeners: sockets that listen; the server closes them.
    """

    def __init__(self, listeners: Iterable[socket.socket]) -> None:
        self._selector = selectors.DefaultSelector()
        self._listeners = list(listeners)
        for listener in self._listeners:
            listener.setblocking(False)
            self._selector.register(listener, selectors.EVENT_READ)
        self._player: Peer | None = None
        self._call: Stream | None = None  # The player's call was not answered yet.
        self._message: bytes | None = None  # That call's message was not returned yet.
        self._failure: EnvironmentFailure | None = None  # It says why the player is gone, and was not raised yet.
        self._lock, self._closed = Lock(), Event()
        self._attendant = Thread(target=self._attend_meanwhile, name="player", daemon=True)
        self._attendant.start()

    def wait(self, timeout: float) -> bytes | None:
        """Return the message of the player's next call; None if it does not come within a time in seconds.

        Raises:
            PlayerStopped, ProtocolBroken: the player is gone.
        """
        deadline = time.monotonic() + timeout
        with self._lock:
            while True:
                self._check()
                if self._message is not None:
                    message, self._message = self._message, None
                    return message
                left = deadline - time.monotonic()
                if left <= 0:
                    return None
                self._attend(left)

    def answer(self, message: bytes) -> None:
        """Answer the player's last call.

        Raises:
            PlayerStopped, ProtocolBroken: the player is gone, or has never come.
        """
        with self._lock:
            self._check()
            self._attend(0.0)
            self._check()
            if self._player is None or self._call is None:
                raise PlayerStopped("No player is connected.")
            self._player.answer(self._call, message)
            self._call = None
            self._notice_loss()
            self._check()

    def close(self, farewell: bytes) -> None:
        """Answer a call that waits with a last message, and free the port; may be called more than once."""
        if self._closed.is_set():
            return
        self._closed.set()
        self._attendant.join()
        with self._lock:
            for listener in self._listeners:
                self._selector.unregister(listener)
                listener.close()
            if self._player is not None and self._call is not None:
                self._player.answer(self._call, farewell)
                self._end_call_of(self._player)
            for key in list(self._selector.get_map().values()):
                key.data.close()
            self._selector.close()

    def _end_call_of(self, player: Peer) -> None:
        """Let what was sent arrive: to close a socket before all is read that came may take it back."""
        player.announce_end()
        deadline = time.monotonic() + _GOODBYE
        while not player.closed and (left := deadline - time.monotonic()) > 0:
            self._attend(left)

    def _attend_meanwhile(self) -> None:
        """Answer pings and refuse other players while the thread that waits for calls does something else."""
        while not self._closed.wait(_GLANCE):
            if self._lock.acquire(blocking=False):
                try:
                    self._attend(0.0)
                finally:
                    self._lock.release()

    def _attend(self, timeout: float) -> None:
        """Do what there is to do for all connections; wait for something to do at most so many seconds."""
        for key, _ in self._selector.select(timeout):
            peer: Peer | None = key.data
            if peer is None:
                self._accept(key.fileobj)  # type: ignore[arg-type]
                continue
            for call in peer.attend():
                self._hear(peer, call)
            self._notice_loss()

    def _accept(self, listener: socket.socket) -> None:
        strangers = [key.data for key in self._selector.get_map().values() if key.data not in (None, self._player)]
        if len(strangers) >= _MOST_STRANGERS:
            oldest = min(strangers, key=lambda peer: peer.since)
            oldest.expel(Http2Error(ENHANCE_YOUR_CALM, "others wait to be heard"))
        with contextlib.suppress(OSError):  # Whoever knocked is gone again.
            Peer(listener.accept()[0], self._selector)

    def _hear(self, peer: Peer, call: Stream) -> None:
        if self._player is not None and (peer is not self._player or self._call is not None):
            peer.refuse(call, grpc_frames.ALREADY_EXISTS, "another player is connected to this port")
            return
        self._player, self._call = peer, call
        peer.trust(player=True)
        try:
            self._message = grpc_frames.unwrap(_body(call))
        except grpc_frames.NoMessage as error:
            peer.refuse(call, error.status, str(error))
            self._lose(ProtocolBroken(f"What the player sent is no message of the protocol: {error}."))

    def _notice_loss(self) -> None:
        if self._player is None:
            return
        if self._player.closed or (self._call is not None and self._call.closed):
            waited = " while it waited for actions" if self._call is not None else ""
            self._lose(PlayerStopped(f"The player {self._player.closed or 'closed the connection'}{waited}."))

    def _lose(self, failure: EnvironmentFailure) -> None:
        self._failure = failure
        if self._player is not None:
            self._player.trust(player=False)
        self._player = self._call = self._message = None

    def _check(self) -> None:
        if self._closed.is_set():
            raise PlayerStopped("The connection to the player is closed.")
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure


def _body(call: Stream) -> bytes | bytearray:
    """Return what a call carries, and free it before the call is answered."""
    if call.excessive:
        most = f"{grpc_frames.LONGEST_MESSAGE / 2**20:g} MiB"
        raise grpc_frames.NoMessage(grpc_frames.RESOURCE_EXHAUSTED, f"the message is longer than {most}")
    body, call.body = call.body, b""
    return body
