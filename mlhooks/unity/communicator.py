"""The trainer's end of the connection: a gRPC server to which one player connects.

A player's call carries what its agents observed, and the answer to that call carries their actions.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from mlhooks.unity import messages, schema
from mlhooks.unity.errors import PlayerSilent, PlayerStopped, ProtocolBroken
from mlhooks.unity.messages import PlayerMessage, read_message
from mlhooks.unity.ports import listen
from mlhooks.unity.server import PlayerServer
from mlhooks.unity.wire import WireError

schema.install()

from mlagents_envs.communicator import Communicator, PollCallback  # noqa: E402
from mlagents_envs.communicator_objects.unity_output_pb2 import UnityOutputProto  # noqa: E402

if TYPE_CHECKING:
    from mlagents_envs.communicator_objects.unity_input_pb2 import UnityInputProto

_GLANCE = 0.1  # So many seconds lie between two looks at the player's process.


class PlayerCommunicator(Communicator):  # type: ignore[misc]  # mlagents_envs ships no types.
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
        self._server = PlayerServer(listen(port, bind))

    def initialize(self, inputs: UnityInputProto, poll_callback: PollCallback | None = None) -> UnityOutputProto:
        """Wait for the player, and tell it the parameters of the run.

        Returns:
            What the player tells about itself.

        Raises:
            PlayerSilent, PlayerStopped, ProtocolBroken: as `exchange_bytes`.
        """
        output = _parse(self._receive(poll_callback))
        self._answer(messages.wrap_input(inputs.SerializeToString()))
        self._receive(poll_callback)  # This is an empty message, whose answer will be the first command.
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
        self._server.answer(data)

    def _receive(self, poll_callback: PollCallback | None) -> PlayerMessage:
        data = self._wait(poll_callback)
        self.connected = True
        try:
            message = read_message(data)
        except WireError as error:
            raise ProtocolBroken(f"What the player sent is no message of the protocol: {error}.") from error
        if message.status != messages.OK:
            raise PlayerStopped("The player ended the connection.")
        return message

    def _wait(self, poll_callback: PollCallback | None) -> bytes:
        deadline = time.monotonic() + self.timeout_wait
        while True:
            left = deadline - time.monotonic()
            data = self._server.wait(max(0.0, min(_GLANCE, left)))
            if data is not None:
                return data
            if poll_callback is not None:
                poll_callback()
            if left <= 0:
                raise PlayerSilent(f"The player sent nothing for {self.timeout_wait:g} seconds.")

    def close(self) -> None:
        """Tell the player to quit, and free the port; may be called more than once."""
        self._server.close(messages.STOP)


def _parse(message: PlayerMessage) -> UnityOutputProto:
    try:
        return UnityOutputProto.FromString(message.output.of(message.data))
    except DecodeError as error:
        raise ProtocolBroken(f"What the player sent is no message of the protocol: {error}.") from error
