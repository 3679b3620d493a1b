"""The ports on which players connect: listen there, or say who holds them."""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
import sys
from collections.abc import Iterable

import psutil

from mlhooks.errors import UsageError
from mlhooks.unity.errors import PortTaken

logger = logging.getLogger("mlhooks")

EDITOR_PORT = 5004
"""Where the Unity Editor connects."""
LOOPBACK = ("127.0.0.1", "::1")
"""What `localhost`, to which players connect, may mean."""


def listen(port: int, bind: str | None = None) -> list[socket.socket]:
    """Listen on a port.

    Args:
        port: the port.
        bind: the address, in place of all loopback addresses that this machine has.

    Raises:
        PortTaken: another process listens there.
        UsageError: the address is none of this machine.
    """
    addresses = LOOPBACK if bind is None else (bind,)
    if bind is not None:
        logger.warning(
            "Listening on %s, port %d. The protocol has no authentication: whoever reaches this port can take the "
            "player's place.",
            bind,
            port,
        )
    states = {address: taken(address, port) for address in addresses}
    if any(states.values()):
        raise PortTaken(complaint(port))
    here = [address for address, state in states.items() if state is not None]
    if not here:
        raise UsageError(f"Cannot listen on {', '.join(addresses)}: this machine does not have the address.")
    listeners: list[socket.socket] = []
    try:
        for address in here:
            listeners.append(_listener(address, port))  # noqa: PERF401 - So that those before a failure can be closed.
    except OSError as error:
        for listener in listeners:
            listener.close()
        raise PortTaken(f"Port {port} cannot be opened: {error}") from error
    return listeners


def _listener(address: str, port: int) -> socket.socket:
    if ":" not in address:
        return socket.create_server((address, port))
    both = address == "::" and socket.has_dualstack_ipv6()  # It listens on every IPv4 address, too.
    return socket.create_server((address, port), family=socket.AF_INET6, dualstack_ipv6=both)


def taken(address: str, port: int) -> bool | None:
    """Return whether another process listens there; None if this machine does not have the address."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            if sys.platform != "win32":  # Windows would allow to share a port that is in use.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address, port))
    except OSError as error:
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            return True
        return None
    return False


def refuse_taken(ports: Iterable[int], bind: str | None = None) -> None:
    """Check that a run can listen on its ports.

    Raises:
        PortTaken: another process listens on one of them; says which process.
    """
    for port in ports:
        if any(taken(address, port) for address in ([bind] if bind else LOOPBACK)):
            raise PortTaken(complaint(port))


def complaint(port: int) -> str:
    """Return what to say about a port that is taken: by whom, and what to do."""
    who = holder(port)
    by = f"by {who}" if who else "by another process"
    otherwise = (
        ": the Unity Editor connects to this port alone."
        if port == EDITOR_PORT
        else ", or choose other ports with --base-port."
    )
    return f"Port {port} is taken {by}. End that process{otherwise}"


def holder(port: int) -> str | None:
    """Return the process that listens on a port, as `name (pid 123)`, where the system shows it."""
    with contextlib.suppress(psutil.Error, OSError):  # macOS shows sockets of other processes to administrators only.
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port
            if listens and connection.pid:
                process = psutil.Process(connection.pid)
                return f"{_command(process)} (pid {process.pid})"
    return None


def _command(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.AccessDenied):
        if command := " ".join(process.cmdline()).strip():
            return command
    return process.name()
