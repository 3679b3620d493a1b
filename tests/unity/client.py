"""A player that follows a script, in a thread of the test."""

import socket
import threading
from collections.abc import Iterable, Sequence

import grpc

from mlhooks.unity import schema

schema.install()

from mlagents_envs.communicator_objects.agent_info_pb2 import AgentInfoProto  # noqa: E402
from mlagents_envs.communicator_objects.brain_parameters_pb2 import BrainParametersProto  # noqa: E402
from mlagents_envs.communicator_objects.unity_message_pb2 import UnityMessageProto  # noqa: E402

_IMPATIENT = tuple((f"grpc.{which}_reconnect_backoff_ms", 50) for which in ("initial", "min", "max"))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def hello(communication: str = "1.5.0", package: str = "3.0.0") -> UnityMessageProto:
    message = UnityMessageProto()
    message.header.status = 200
    player = message.unity_output.rl_initialization_output
    player.name, player.communication_version, player.package_version = "AcademySingleton", communication, package
    player.capabilities.baseRLCapabilities = True
    return message


def empty(status: int = 200) -> UnityMessageProto:
    message = UnityMessageProto()
    message.header.status = status
    return message


def output(
    agents: dict[str, Sequence[AgentInfoProto]],
    announced: Iterable[BrainParametersProto] = (),
    side_channel: bytes = b"",
) -> UnityMessageProto:
    message = empty()
    rl_output = message.unity_output.rl_output
    for name, infos in agents.items():
        rl_output.agentInfos[name].value.extend(infos)
    rl_output.side_channel = side_channel
    for brain in announced:
        message.unity_output.rl_initialization_output.brain_parameters.append(brain)
    return message


class ScriptedPlayer(threading.Thread):
    """Connects to a port and sends messages, protobuf objects or bytes, one after each answer.

    `answers` has what came back. What the player cannot send ends it; `error` says why. `cancel` gives up a call.
    """

    def __init__(self, port: int, script: Iterable[UnityMessageProto | bytes]) -> None:
        super().__init__(daemon=True)
        self.port, self.script = port, list(script)
        self.answers: list[UnityMessageProto] = []
        self.error: grpc.RpcError | None = None
        self.pending: grpc.Future | None = None
        self.leave = threading.Event()
        self.start()

    def run(self) -> None:
        with grpc.insecure_channel(f"localhost:{self.port}", options=_IMPATIENT) as channel:
            call = channel.unary_unary("/communicator_objects.UnityToExternalProto/Exchange")
            for message in self.script:
                data = message if isinstance(message, bytes) else message.SerializeToString()
                try:
                    self.pending = call.future(data, wait_for_ready=True, timeout=10)
                    answer = self.pending.result()
                except grpc.RpcError as error:
                    self.error = error
                    return
                except grpc.FutureCancelledError:
                    return
                self.answers.append(UnityMessageProto.FromString(answer))
            self.leave.wait(10)

    def cancel(self) -> None:
        while self.is_alive():  # A call may be there before `pending` is that call.
            self.pending.cancel()
            self.join(0.01)

    def finish(self) -> None:
        self.leave.set()
        self.join(10)
        assert not self.is_alive()
