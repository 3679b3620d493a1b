"""A Unity player, or the Unity Editor, as an environment."""

from __future__ import annotations

import atexit
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from mlhooks.envs.specs import change_in_words
from mlhooks.unity import messages, schema
from mlhooks.unity.communicator import PlayerCommunicator
from mlhooks.unity.decode import Decoder
from mlhooks.unity.encode import encode_reset, encode_step
from mlhooks.unity.errors import BehaviorChanged, PlayerSilent, PlayerStopped, PlayModeEnded, ProtocolBroken
from mlhooks.unity.launch import PlayerProcess
from mlhooks.unity.messages import PlayerMessage
from mlhooks.unity.ports import EDITOR_PORT
from mlhooks.unity.records import parse_agent, split
from mlhooks.unity.side_channels import PlayerChannels, Stat
from mlhooks.unity.specs import read_spec
from mlhooks.unity.wire import NOWHERE, Span, WireError

schema.install()

from mlagents_envs.base_env import DecisionSteps, TerminalSteps  # noqa: E402
from mlagents_envs.communicator_objects.unity_rl_initialization_output_pb2 import (  # noqa: E402
    UnityRLInitializationOutputProto,
)
from mlagents_envs.environment import UnityEnvironment  # noqa: E402

if TYPE_CHECKING:
    from mlagents_envs.base_env import ActionTuple
    from mlagents_envs.communicator_objects.brain_parameters_pb2 import BrainParametersProto
    from mlagents_envs.communicator_objects.unity_output_pb2 import UnityOutputProto
    from mlagents_envs.communicator_objects.unity_rl_initialization_input_pb2 import UnityRLInitializationInputProto

    from mlhooks.envs.parameters import Sampler

logger = logging.getLogger("mlhooks")

logging.getLogger(UnityEnvironment.__module__).setLevel(logging.WARNING)  # It speaks of the Editor to every player.

LISTENING = "Listening on port %d. Start training by pressing the Play button in the Unity Editor."
_CRASH_SHOWS = 1.0  # A process that closed its connection because it crashes has ended within so many seconds.


class UnityPlayer(UnityEnvironment):  # type: ignore[misc]  # mlagents_envs ships no types.
    """One player and the connection to it; the constructor returns when the player has connected.

    When the Editor leaves Play mode, `step` and `reset` raise PlayModeEnded. The next `reset` waits, for as long as it
    takes, until it is played again, with the same behaviors.

    Args:
        path: of the player's executable; None waits for the Editor.
        port: where to listen, and what the player is told.
        seed: of the player's random numbers.
        num_areas: copies of the training area, for players that make them.
        timeout_wait: seconds to wait for the player to connect, for each of its messages, and for its end.
        args: further arguments of the player.
        no_graphics: run it without a graphics device.
        log: the file that the player should write its log to.
        channels: the side channels, with what is to be sent first.
        bind: the address to listen on, in place of the loopback address.

    Raises:
        PlayerNotFound, PlayerExited, PlayerSilent, PlayerStopped, ProtocolBroken, PortTaken: the player did not start.
    """

    def __init__(
        self,
        path: str | None,
        *,
        port: int = EDITOR_PORT,
        seed: int = 0,
        num_areas: int = 1,
        timeout_wait: float = 60,
        args: Sequence[str] = (),
        no_graphics: bool = False,
        log: Path | None = None,
        channels: PlayerChannels | None = None,
        bind: str | None = None,
    ) -> None:
        self._path, self._bind = path, bind
        self._log = log.absolute() if log is not None and "-logfile" not in map(str.lower, args) else None
        self._announced: dict[str, BrainParametersProto] = {}
        self._decoders: dict[str, Decoder] = {}
        self._package_version = ""
        self._communicator: PlayerCommunicator | None = None
        self._process: PlayerProcess | None = None
        self._begun = self._paused = self._silent = False
        self.channels = channels or PlayerChannels()
        try:
            with self._explained():
                super().__init__(
                    base_port=port,
                    seed=seed,
                    no_graphics=no_graphics,
                    timeout_wait=timeout_wait,
                    additional_args=list(args),
                    num_areas=num_areas,
                )
        except BaseException:
            self._close(0)
            raise
        self._side_channel_manager = self.channels
        self._begun = True

    def _get_communicator(self, worker_id: int, base_port: int, timeout_wait: float) -> PlayerCommunicator:
        return PlayerCommunicator(base_port + worker_id, timeout_wait, self._bind)

    def _send_academy_parameters(self, init_parameters: UnityRLInitializationInputProto) -> UnityOutputProto:
        """Start the player, now that it can connect, and tell it the parameters of the run."""
        self._init_parameters = init_parameters
        if self._path is None:
            logger.info(LISTENING, self._port)
        else:
            if self._log is not None:
                self._log.parent.mkdir(parents=True, exist_ok=True)
            self._process = PlayerProcess(self._path, self._executable_args(), self._log)
        with self._explained():  # The process is still known here.
            return self._shake_hands()

    def _shake_hands(self) -> UnityOutputProto:
        output = super()._send_academy_parameters(self._init_parameters)
        self._greet(output.rl_initialization_output)
        return output

    def _executable_args(self) -> list[str]:
        args: list[str] = super()._executable_args()
        return args if self._log is None else ["-logFile", str(self._log), *args]

    def _greet(self, player: UnityRLInitializationOutputProto) -> None:
        theirs, ours = player.communication_version, self.API_VERSION
        if not _compatible(theirs, ours):
            raise ProtocolBroken(
                f"The player speaks version {theirs or 'unknown'} of the protocol, and mlhooks {ours} (any 1.x). The "
                f"player was built with the Unity package com.unity.ml-agents {player.package_version or 'unknown'}: "
                "rebuild it with a release of ML-Agents from 1.0 on."
            )
        self._package_version = player.package_version
        logger.info("Connected to Unity: package %s, protocol %s.", player.package_version or "unknown", theirs)

    def reset(self) -> None:
        """Ask the player to begin new episodes; an Editor that left Play mode is waited for first.

        Raises:
            EnvironmentFailure: it failed; the subclass and the message say how.
        """
        if self._paused:
            self._wait_for_play()
        self._advance(encode_reset(self.channels.generate_side_channel_messages()))
        self._is_first_message = False

    def _wait_for_play(self) -> None:
        assert self._communicator is not None
        logger.info(LISTENING, self._port)
        with self._explained():
            while self._paused:
                try:
                    self._shake_hands()
                    self._paused = False
                except PlayerSilent:
                    if self._communicator.connected:
                        raise

    def _listen_again(self) -> None:
        """Free the port of an Editor that left Play mode, and take it again at once: Play may be pressed any moment."""
        assert self._communicator is not None
        self._communicator.close()
        self._communicator = self._get_communicator(0, self._port, self._timeout_wait)
        self._paused = True
        self.channels.begin_again()
        self._announced, self._decoders = {}, {}
        self._env_actions.clear()
        self._env_state = {
            name: (DecisionSteps.empty(spec), TerminalSteps.empty(spec)) for name, spec in self._env_specs.items()
        }

    def step(self) -> None:
        """Send the actions that were set, zeros for the others, and take in what the agents sent after them.

        Raises:
            EnvironmentFailure: the player failed; the subclass and the message say how.
        """
        if self._is_first_message:
            self.reset()
            return
        for behavior_id, spec in self._env_specs.items():
            if behavior_id not in self._env_actions:
                self._env_actions[behavior_id] = spec.action_spec.empty_action(len(self._env_state[behavior_id][0]))
        self._advance(self._generate_step_input(self._env_actions))

    def _generate_step_input(self, vector_action: Mapping[str, ActionTuple]) -> bytes:
        return encode_step(vector_action, self.channels.generate_side_channel_messages())

    def _advance(self, rl_input: bytes) -> None:
        with self._explained():
            if self._communicator is None:
                raise PlayerStopped("The connection to the player is closed.")
            message = self._communicator.exchange_bytes(messages.wrap_rl_input(rl_input), self._poll_process)
            self._update_behavior_specs(message)
            self._update_state(message)
        self._env_actions.clear()

    def _update_behavior_specs(self, output: PlayerMessage | UnityOutputProto) -> None:
        """Take in the behaviors that a message announces, once one of their agents has shown its observations."""
        if not isinstance(output, PlayerMessage):
            return  # These are the player's first words, which name no behavior.
        if output.initialization.stop > output.initialization.start:
            brains = UnityRLInitializationOutputProto.FromString(output.initialization.of(output.data)).brain_parameters
            self._announced.update((brain.brain_name, brain) for brain in brains)
        for behavior_id in [name for name in self._announced if _any(output.agents.get(name))]:
            place = output.agents[behavior_id]
            starts, sizes = split(output.data, place.start, place.stop)
            agent = parse_agent(output.data[starts[0] : starts[0] + sizes[0]])
            unity_spec = read_spec(self._announced.pop(behavior_id), agent, self._package_version)
            known = self._env_specs.get(behavior_id, unity_spec.spec)
            if known != unity_spec.spec:
                if behavior_id in self._decoders:
                    raise ProtocolBroken(
                        f"The player announced the behavior {behavior_id!r} again, with another shape."
                    )
                raise BehaviorChanged(
                    change_in_words(behavior_id, "the Unity Editor was played last", known, unity_spec.spec)
                )
            self._decoders[behavior_id] = Decoder(behavior_id, unity_spec)
            self._env_specs[behavior_id] = unity_spec.spec

    def _update_state(self, output: PlayerMessage) -> None:
        for behavior_id, decoder in self._decoders.items():
            place = output.agents.get(behavior_id, NOWHERE)
            self._env_state[behavior_id] = decoder.decode(output.data, place.start, place.stop)
        self.channels.process_side_channel_message(output.side_channel)

    def take_stats(self) -> list[Stat]:
        """Return what the player has added to its statistics since the last call."""
        return self.channels.take_stats()

    def set_parameters(self, parameters: Mapping[str, Sampler]) -> None:
        """Let the player draw its environment parameters from these; it gets them with the next message."""
        self.channels.set_parameters({name: sampler.settings for name, sampler in parameters.items()})

    def _poll_process(self) -> None:
        if self._process is not None:
            self._process.check()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Say the true cause of what went wrong."""
        try:
            yield
        except (WireError, DecodeError) as error:
            raise ProtocolBroken(f"What the player sent is no message of the protocol: {error}.") from error
        except PlayerStopped as error:
            if self._process is not None and self._process.wait(_CRASH_SHOWS):
                self._process.check()
            if self._path is None and self._begun and self._communicator is not None:
                self._listen_again()
                raise PlayModeEnded("The Unity Editor left Play mode.") from error
            if self._process is not None:
                raise PlayerStopped(f"The player quit by itself.{self._process.last_words()}") from error
            raise
        except PlayerSilent as error:
            if self._silent:
                raise  # It was explained before.
            self._silent = True
            words = "" if self._process is None else self._process.last_words()
            raise PlayerSilent(f"{self._why_silent()}{words}") from error

    def _why_silent(self) -> str:
        waited = f"within {self._timeout_wait:g} seconds (--timeout-wait)"
        if self._communicator is None or not self._communicator.connected:
            if self._path is None:
                return (
                    f"The Unity Editor did not connect to port {self._port} {waited}. Press its Play button earlier, "
                    "or raise --timeout-wait."
                )
            return (
                f"The player {self._path} runs, but did not connect to port {self._port} {waited}. Does it wait for "
                "someone at a window (try --no-graphics), and was it built with ML-Agents?"
            )
        if not self._decoders:
            return (
                f"The player connected, but no agent requested a decision {waited}. Is there a Decision Requester "
                'beside each agent, and is the Behavior Type of its Behavior Parameters "Default"?'
            )
        return f"The player stopped answering: it sent nothing {waited}."

    def close(self, timeout: float | None = None) -> None:
        """Tell the player to quit, end it if it does not, and free the port; may be called more than once.

        Args:
            timeout: seconds for it to quit by itself, such as 0 for one that hangs; `timeout_wait` unless given.
        """
        self._close(timeout)

    def _close(self, timeout: float | None = None) -> None:
        atexit.unregister(self._close)
        self._loaded = False
        communicator, self._communicator = self._communicator, None
        process, self._process = self._process, None
        if communicator is not None:
            communicator.close()
        if process is not None:
            patience = 0 if self._silent else self._timeout_wait
            process.close(patience if timeout is None else timeout)


def _compatible(theirs: str, ours: str) -> bool:
    """Return whether two versions of the protocol go together: equal majors, before 1.0 equal minors, too."""
    try:
        (major, minor), known = schema.Version(theirs).version[:2], schema.Version(ours).version[:2]
    except ValueError:
        return False
    return (major, minor) == known if major == 0 else major == known[0]


def _any(place: Span | None) -> bool:
    return place is not None and place.stop > place.start
