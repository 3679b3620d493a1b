"""A connection of the player's server, which may be the player's: a socket, and the HTTP/2 that it carries."""

from __future__ import annotations

import contextlib
import selectors
import socket

from mlhooks.unity import grpc_frames
from mlhooks.unity.http2 import Connection, Http2Error, Stream

_CHUNK = 2**16  # bytes read at once


class Peer:
    """Whoever has connected.

    Args:
        sock: the connection.
        selector: where it is registered until it is closed.

    Attributes:
        closed: empty until it is; then what the other side did.
    """

    def __init__(self, sock: socket.socket, selector: selectors.BaseSelector) -> None:
        self._socket, self._selector, self._http = sock, selector, Connection()
        self._unsent, self._leaving, self._left = b"", False, False
        self.closed = ""
        sock.setblocking(False)
        with contextlib.suppress(OSError):  # it may be gone already
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        selector.register(sock, selectors.EVENT_READ, self)
        self._flush()

    def attend(self) -> list[Stream]:
        """Read and send what can be without waiting; the calls that are complete now."""
        calls: list[Stream] = []
        if not self._unsent:  # one who reads no answers gets no more of them
            try:
                calls = self._read()
            except BlockingIOError:
                pass
            except OSError as error:
                self.close(f"broke the connection ({error.strerror})")
            except Http2Error as error:
                self._http.leave(error.code, str(error))
                self._flush()
                self.close(f"broke the rules of HTTP/2 ({error})")
        self._flush()
        return calls

    def _read(self) -> list[Stream]:
        data = self._socket.recv(_CHUNK)
        if not data:
            self.close()
        return self._http.receive(data)

    def answer(self, call: Stream, message: bytes) -> None:
        """Answer a call; what the other side has no room for is sent by `attend`."""
        self._http.respond(call, grpc_frames.HEAD, grpc_frames.wrap(message), grpc_frames.TRAILERS)
        self._flush()

    def refuse(self, call: Stream, status: int, text: str) -> None:
        """Answer a call with a status of gRPC's, and no message."""
        self._http.reject(call, grpc_frames.refusal(status, text))
        self._flush()

    def leave(self) -> None:
        """Say that this side will close the connection, once everything is sent."""
        self._http.leave()
        self._leaving = True
        self._flush()

    def close(self, why: str = "closed the connection") -> None:
        """Close the socket."""
        if not self.closed:
            self.closed = why
            self._selector.unregister(self._socket)
            self._socket.close()

    def _flush(self) -> None:
        waited, data = bool(self._unsent), self._unsent + self._http.take()
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
            with contextlib.suppress(OSError):  # the other side was faster
                self._socket.shutdown(socket.SHUT_WR)
