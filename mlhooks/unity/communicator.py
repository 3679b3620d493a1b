"""The trainer's end of the connection: a gRPC server to which one player connects.

A player's call carries what its agents observed, and the answer to that call carries their actions. So the handler of a
call hands its bytes to the thread that trains, and waits there for the bytes of the answer.
"""

from __future__ import annotations

import logging
import time
from concurrent.futures import ThreadPoolExecutor
from queue import Empty, SimpleQueue
from threading import Lock
from typing import TYPE_CHECKING

import grpc  # type: ignore[import-untyped]
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from mlhooks.errors import UsageError
from mlhooks.unity import messages, schema
from mlhooks.unity.errors import PlayerSilent, PlayerStopped, PortTaken, ProtocolBroken
from mlhooks.unity.messages import PlayerMessage, read_message
from mlhooks.unity.ports import holder, taken
from mlhooks.unity.wire import WireError

schema.install()

from mlagents_envs.communicator import Communicator, PollCallback  # noqa: E402
from mlagents_envs.communicator_objects.unity_output_pb2 import UnityOutputProto  # noqa: E402

if TYPE_CHECKING:
    from mlagents_envs.communicator_objects.unity_input_pb2 import UnityInputProto

logger = logging.getLogger("mlhooks")

SERVICE, METHOD = "communicator_objects.UnityToExternalProto", "Exchange"
LOOPBACK = ("127.0.0.1", "::1")
"""What `localhost`, to which players connect, may mean."""

_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.so_reuseport", 0),  # a port that is taken is an error, not shared
    ("grpc.minimal_stack", 1),  # no compression, tracing and the like, which cost time in every call
    ("grpc.enable_channelz", 0),
)
_GLANCE = 0.1  # seconds between two looks at the player's process
_GOODBYE = 2.0  # seconds for the last answer to leave


class _Call:
    """A call of the player that waits for its answer."""

    def __init__(self, request: bytes, context: grpc.ServicerContext) -> None:
        self.request, self.context = request, context
        self.answer: SimpleQueue[bytes] = SimpleQueue()


class PlayerCommunicator(Communicator):  # type: ignore[misc]  # mlagents_envs ships no types
    """Exchanges messages with one player.

    Args:
        port: where to listen.
        timeout_wait: seconds to wait for each message of the player.
        bind: the address to listen on, for players on other machines or in containers; the loopback address unless
            given. The protocol has no authentication.

    Raises:
        PortTaken: another process listens on the port.
        UsageError: the address is none of this machine.
    """

    def __init__(self, port: int, timeout_wait: float, bind: str | None = None) -> None:
        super().__init__(0, port)
        self.port, self.timeout_wait, self.connected = port, timeout_wait, False
        self._calls: SimpleQueue[_Call] = SimpleQueue()
        self._call: _Call | None = None  # the one that waits for its answer
        self._lock, self._closed = Lock(), False
        self._threads = ThreadPoolExecutor(max_workers=4, thread_name_prefix="player")
        self._server = grpc.server(self._threads, options=_OPTIONS)
        handler = grpc.unary_unary_rpc_method_handler(self._handle)  # no serializers: bytes in, bytes out
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler}),))
        self._listen(bind)

    def _listen(self, bind: str | None) -> None:
        addresses = LOOPBACK if bind is None else (bind,)
        if bind is not None:
            logger.warning(
                "Listening on %s, port %d. The protocol has no authentication: whoever reaches this port can take the "
                "player's place.",
                bind,
                self.port,
            )
        states = {address: taken(address, self.port) for address in addresses}
        if any(states.values()):
            who = holder(self.port)
            by = f"by {who}" if who else "by another process"
            raise PortTaken(
                f"Port {self.port} is taken {by}. End that process, or choose other ports with --base-port."
            )
        here = [address for address, state in states.items() if state is not None]
        if not here:
            raise UsageError(f"Cannot listen on {', '.join(addresses)}: this machine does not have the address.")
        for address in here:
            try:
                self._server.add_insecure_port(
                    f"[{address}]:{self.port}" if ":" in address else f"{address}:{self.port}"
                )
            except RuntimeError as error:
                raise PortTaken(f"Port {self.port} cannot be opened: {error}") from error
        self._server.start()

    def _handle(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        call = _Call(request, context)
        with self._lock:
            if self._closed:
                return messages.STOP
            pending = self._call
            if pending is not None:
                if pending.context.is_active():
                    context.abort(grpc.StatusCode.ALREADY_EXISTS, "another player is connected to this port")
                pending.answer.put(messages.STOP)  # to nobody, so that its thread ends
            self._call = call
        self.connected = True
        self._calls.put(call)
        return call.answer.get()

    def initialize(self, inputs: UnityInputProto, poll_callback: PollCallback | None = None) -> UnityOutputProto:
        """Wait for the player, and tell it the parameters of the run.

        Returns:
            What the player tells about itself.

        Raises:
            PlayerSilent, PlayerStopped, ProtocolBroken: as `exchange_bytes`.
        """
        output = _parse(self._receive(poll_callback))
        self._answer(messages.wrap_input(inputs.SerializeToString()))
        self._receive(poll_callback)  # an empty message, whose answer will be the first command
        return output

    def exchange(self, inputs: UnityInputProto, poll_callback: PollCallback | None = None) -> UnityOutputProto:
        """Answer the player's last call and wait for the next one, as `exchange_bytes`, in protobuf's classes."""
        message = self.exchange_bytes(inputs.SerializeToString(), poll_callback)
        return _parse(message)

    def exchange_bytes(self, unity_input: bytes, poll_callback: PollCallback | None = None) -> PlayerMessage:
        """Answer the player's last call and wait for the next one.

        Args:
            unity_input: the answer, a serialized UnityInputProto.
            poll_callback: called ten times a second; what it raises ends the wait.

        Raises:
            PlayerSilent: the call does not come within the timeout.
            PlayerStopped: the player ended the connection.
            ProtocolBroken: the call is no message of the protocol.
        """
        self._answer(messages.wrap_input(unity_input))
        return self._receive(poll_callback)

    def _answer(self, data: bytes) -> None:
        with self._lock:
            call, self._call = self._call, None
        if call is None:
            raise PlayerStopped("No player is connected.")
        gone = not call.context.is_active()
        call.answer.put(data)
        if gone:
            raise PlayerStopped("The player closed the connection while it waited for actions.")

    def _receive(self, poll_callback: PollCallback | None) -> PlayerMessage:
        call = self._wait(poll_callback)
        try:
            message = read_message(call.request)
        except WireError as error:
            raise ProtocolBroken(f"What the player sent is no message of the protocol: {error}.") from error
        if message.status != messages.OK:
            raise PlayerStopped("The player ended the connection.")
        return message

    def _wait(self, poll_callback: PollCallback | None) -> _Call:
        deadline = time.monotonic() + self.timeout_wait
        while True:
            left = deadline - time.monotonic()
            try:
                return self._calls.get(timeout=max(0.0, min(_GLANCE, left)))
            except Empty:
                if poll_callback is not None:
                    poll_callback()
            if left <= 0:
                raise PlayerSilent(f"The player sent nothing for {self.timeout_wait:g} seconds.")

    def close(self) -> None:
        """Tell the player to quit, and free the port; may be called more than once."""
        with self._lock:
            self._closed = True
            call, self._call = self._call, None
        if call is not None:
            call.answer.put(messages.STOP)
        self._server.stop(_GOODBYE).wait()
        self._threads.shutdown(wait=False)


def _parse(message: PlayerMessage) -> UnityOutputProto:
    try:
        return UnityOutputProto.FromString(message.output.of(message.data))
    except DecodeError as error:
        raise ProtocolBroken(f"What the player sent is no message of the protocol: {error}.") from error
