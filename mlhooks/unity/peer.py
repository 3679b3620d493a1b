"""A connection of the player's server, which may be the player's: a socket, and the HTTP/2 that it carries."""

from __future__ import annotations

import contextlib
import selectors
import socket
import time
from math import inf

from mlhooks.unity import grpc_frames
from mlhooks.unity.http2 import Connection
from mlhooks.unity.http2_frames import ENHANCE_YOUR_CALM, Http2Error
from mlhooks.unity.http2_sending import Stream

_CHUNK, _SIP = 2**16, 2**12  # So many bytes are read at once from the player, and from others, who must not hold it up.
_ALLOWANCE = 2**16  # A stranger may send so many bytes in all: the first call of a player has a few hundred.


class Peer:
    """Whoever has connected: a stranger, of whom little is read, until it is found to be the player.

    Args:
        sock: the connection.
        selector: where it is registered until it is closed.

    Attributes:
        closed: empty until it is; then what the other side did.
        since: when it connected.
    """

    def __init__(self, sock: socket.socket, selector: selectors.BaseSelector) -> None:
        self._http = Connection(grpc_frames.objection, grpc_frames.LONGEST_MESSAGE)
        self._socket, self._selector, self._allowance = sock, selector, float(_ALLOWANCE)
        self._unsent, self._leaving, self._left = b"", False, False
        self.closed, self.since = "", time.monotonic()
        sock.setblocking(False)
        with contextlib.suppress(OSError):  # It may be gone already.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        selector.register(sock, selectors.EVENT_READ, self)
        self._flush()

    def attend(self) -> list[Stream]:
        """Read and send what can be without waiting; the calls that are complete now."""
        calls: list[Stream] = []
        if not self._unsent:  # One who reads no answers gets no more of them.
            try:
                calls = self._read()
            except BlockingIOError:
                pass
            except OSError as error:
                self.close(f"broke the connection ({error.strerror})")
            except Http2Error as error:
                self.expel(error)
        self._flush()
        return calls

    def _read(self) -> list[Stream]:
        if self._allowance <= 0:
            raise Http2Error(ENHANCE_YOUR_CALM, "it sent much, and made no call of a player")
        data = self._socket.recv(_SIP if self._allowance < inf else _CHUNK)
        self._allowance -= len(data)
        if not data:
            self.close()
        return self._http.receive(data)

    def trust(self, *, player: bool) -> None:
        """Set whether it is the player, who may send as much as it wants."""
        self._allowance = inf if player else _ALLOWANCE

    def expel(self, error: Http2Error) -> None:
        """Close the connection, and say why."""
        self._http.send_goaway(error.code, str(error))
        self._flush()
        self.close(f"broke the rules of HTTP/2 ({error})")

    def answer(self, call: Stream, message: bytes) -> None:
        """Answer a call; what the other side has no room for is sent by `attend`."""
        self._http.respond(call, grpc_frames.HEAD, grpc_frames.wrap(message), grpc_frames.TRAILERS)
        self._flush()

    def refuse(self, call: Stream, status: int, text: str) -> None:
        """Answer a call with a status of gRPC's, and no message."""
        self._http.reject(call, grpc_frames.refusal(status, text))
        self._flush()

    def announce_end(self) -> None:
        """Say that this side will close the connection, once everything is sent."""
        self._http.send_goaway()
        self._leaving = True
        self._flush()

    def close(self, why: str = "closed the connection") -> None:
        """Close the socket."""
        if not self.closed:
            self.closed = why
            self._selector.unregister(self._socket)
            self._socket.close()

    def _flush(self) -> None:
        waited, data = bool(self._unsent), self._unsent + self._http.take_output()
        if self.closed or self._left or not data:
            return
        try:
            self._unsent = data[self._socket.send(data) :]
        except BlockingIOError:
            self._unsent = data
        except OSError as error:
            self.close(f"broke the connection ({error.strerror})")
            return
        if waited != bool(self._unsent):
            event = selectors.EVENT_WRITE if self._unsent else selectors.EVENT_READ
            self._selector.modify(self._socket, event, self)
        if self._leaving and not self._unsent and not self._http.responding:
            self._left = True
            with contextlib.suppress(OSError):  # The other side was faster.
                self._socket.shutdown(socket.SHUT_WR)
