import logging
import os
import socket
import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import psutil
import pytest
from mlagents_envs.exception import UnityWorkerInUseException

from mlhooks.errors import UsageError
from mlhooks.unity import messages, schema
from mlhooks.unity.communicator import PlayerCommunicator
from mlhooks.unity.errors import PlayerExited, PlayerSilent, PlayerStopped, PortTaken
from mlhooks.unity.ports import complaint, holder
from tests.unity.client import ScriptedPlayer, empty, free_port, hello, output
from tests.unity.messages import agent, brain

schema.install()

from mlagents_envs.communicator import Communicator  # noqa: E402
from mlagents_envs.communicator_objects.unity_input_pb2 import UnityInputProto  # noqa: E402

Listen = Callable[..., PlayerCommunicator]


@pytest.fixture
def listen() -> Iterator[Listen]:
    opened: list[PlayerCommunicator] = []

    def start(kind: type[PlayerCommunicator] = PlayerCommunicator, **arguments: object) -> PlayerCommunicator:
        opened.append(kind(**{"port": free_port(), "timeout_wait": 5.0, **arguments}))
        return opened[-1]

    yield start
    for communicator in opened:
        communicator.close()


def test_exchanges_are_those_of_the_interface(listen: Listen) -> None:
    communicator = listen()
    assert isinstance(communicator, Communicator)
    sent = output({"Ball": [agent(3, [])]}, [brain("Ball", continuous=1)], b"side")
    player = ScriptedPlayer(communicator.port, [hello(), empty(), sent])
    inputs = UnityInputProto()
    inputs.rl_initialization_input.seed = 5
    greeting = communicator.initialize(inputs)
    assert greeting.rl_initialization_output.name == "AcademySingleton"
    inputs = UnityInputProto()
    inputs.rl_input.command = 1
    assert communicator.exchange(inputs) == sent.unity_output
    communicator.close()
    player.finish()
    assert [answer.header.status for answer in player.answers] == [200, 200, 400]
    assert player.answers[1].unity_input == inputs


def test_handshake_that_stops_half_way_ends_with_the_timeout(listen: Listen) -> None:
    class Impatient(PlayerCommunicator):
        def _answer(self, data: bytes) -> None:
            super()._answer(data)
            self.timeout_wait = 0.1

    communicator = listen(Impatient)
    player = ScriptedPlayer(communicator.port, [hello()])
    with pytest.raises(PlayerSilent, match=r"0\.1 seconds"):
        communicator.initialize(UnityInputProto())
    assert communicator.connected
    player.finish()


def test_callback_ends_the_wait(listen: Listen) -> None:
    def poll() -> None:
        raise PlayerExited("it is gone")

    with pytest.raises(PlayerExited, match="it is gone"):
        listen().initialize(UnityInputProto(), poll)


def test_goodbye_in_the_handshake_stops(listen: Listen) -> None:
    communicator = listen()
    player = ScriptedPlayer(communicator.port, [empty(status=400)])
    with pytest.raises(PlayerStopped):
        communicator.initialize(UnityInputProto())
    communicator.close()
    player.finish()


def test_exchange_without_a_player_is_refused(listen: Listen) -> None:
    with pytest.raises(PlayerStopped, match="No player is connected"):
        listen().exchange(UnityInputProto())


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
def test_port_that_is_taken_is_an_error_that_names_the_holder(listen: Listen, address: str) -> None:
    with socket.socket() as other:
        other.bind((address, 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(PortTaken, match=rf"Port {port} is taken by .*--base-port") as caught:
            listen(port=port)
        assert isinstance(caught.value, UnityWorkerInUseException)
        if sys.platform != "darwin":
            assert f"(pid {os.getpid()})" in str(caught.value)
            assert holder(port) in str(caught.value)
    assert holder(port) is None


class Hidden(psutil.Process):
    """A process whose command line is not for us."""

    def cmdline(self) -> list[str]:
        raise psutil.AccessDenied(self.pid)


@pytest.mark.parametrize("hidden", ["sockets", "owner", "owner's end"])
def test_port_is_named_alone_where_the_system_hides_its_holder(monkeypatch: pytest.MonkeyPatch, hidden: str) -> None:
    def connections(kind: str) -> list[SimpleNamespace]:
        if hidden == "sockets":
            raise psutil.AccessDenied
        owner = None if hidden == "owner" else 2**22 + 1  # Linux gives no number that high.
        return [SimpleNamespace(status=psutil.CONN_LISTEN, laddr=SimpleNamespace(port=5005), pid=owner)]

    monkeypatch.setattr(psutil, "net_connections", connections)
    assert complaint(5005) == (
        "Port 5005 is taken by another process. End that process, or choose other ports with --base-port."
    )


@pytest.mark.skipif(sys.platform == "darwin", reason="the sockets are hidden, too")
def test_holder_that_hides_its_command_line_is_named_by_its_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "Process", Hidden)
    with socket.create_server(("127.0.0.1", 0)) as other:
        assert holder(other.getsockname()[1]) == f"{Hidden().name()} (pid {os.getpid()})"


def test_two_communicators_do_not_share_a_port(listen: Listen) -> None:
    first = listen()
    with pytest.raises(PortTaken):
        listen(port=first.port)
    first.close()
    first.close()
    listen(port=first.port)


def test_only_this_machine_can_connect_unless_told_otherwise(listen: Listen, caplog: pytest.LogCaptureFixture) -> None:
    local = listen()
    assert "authentication" not in caplog.text
    with socket.socket() as elsewhere:
        elsewhere.bind(("127.0.0.2", local.port))  # It would be refused if every address were listened on.
    with caplog.at_level(logging.WARNING, "mlhooks"):
        listen(bind="0.0.0.0")
    assert "no authentication" in caplog.text


def test_address_of_another_machine_is_refused(listen: Listen) -> None:
    with pytest.raises(UsageError, match=r"203\.0\.113\.7: this machine does not have"):
        listen(bind="203.0.113.7")


def test_messages_are_taken_apart() -> None:
    sent = output({"A": [agent(1, [])], "B": []}, [brain("A")], b"side")
    message = messages.read_message(sent.SerializeToString())
    assert message.status == 200
    assert {name: span.of(message.data) for name, span in message.agents.items()} == {
        name: infos.SerializeToString() for name, infos in sent.unity_output.rl_output.agentInfos.items()
    }
    assert message.side_channel == b"side"
    assert message.output.of(message.data) == sent.unity_output.SerializeToString()
    wanted = sent.unity_output.rl_initialization_output.SerializeToString()
    assert message.initialization.of(message.data) == wanted
