"""A player's life: handshake, then one exchange for every step at which an agent has something to say."""

from __future__ import annotations

import argparse
import itertools
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import grpc  # type: ignore[import-untyped]
from mlagents_envs.communicator_objects.unity_message_pb2 import UnityMessageProto

from mlhooks.errors import UsageError
from mlhooks.sim_player.behavior import World
from mlhooks.sim_player.channels import Channels
from mlhooks.sim_player.dialect import Dialect, dialect
from mlhooks.sim_player.faults import Faults, Quit
from mlhooks.sim_player.stage import Live, Prepared, Stage
from mlhooks.sim_player.wire import OK_HEADER, STOP
from mlhooks.sim_player.worlds import world_maker

logger = logging.getLogger("mlhooks.sim_player")

METHOD = "/communicator_objects.UnityToExternalProto/Exchange"
CHANNEL = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_http_proxy", 0),
)
LEAVE_SECONDS = 5.0
UNITY_NAME = "AcademySingleton"


class _Over(Exception):
    """The trainer has gone, or has said to go."""


def play(options: argparse.Namespace, port: int) -> None:
    """Connect to the trainer and obey it until it says to leave.

    Raises:
        UsageError: The options do not fit together.
        PlayerError: The trainer answered what a player cannot make sense of.
    """
    speech = dialect(options.communication_version, options.package_version)
    make_world = world_maker(options, speech)
    channels = Channels(_uuid(text) for text in options.echo_channel)
    faults = Faults(options, port)
    try:
        faults.before(0)
        with _connection(faults.target) as connection:
            trainer = _shake_hands(connection, speech, channels, faults)
            speech = speech.with_trainer(trainer.capabilities)
            world = make_world(trainer.seed, options.areas or max(1, trainer.num_areas))
            _play(connection, _stage(options, world, channels, speech), faults)
    except _Over as end:
        logger.info("%s", end)
    except Quit:
        logger.info("The player quits.")


class _Connection:
    def __init__(self, call: Any) -> None:
        self._call = call

    def exchange(self, data: bytes) -> Any:
        """Send a message and return the UnityMessageProto of the answer."""
        try:
            reply = UnityMessageProto.FromString(self._call(data))
        except grpc.RpcError as error:
            raise _Over(f"No trainer answers: {error.details()}") from error
        if reply.header.status != 200:
            raise _Over("The trainer says that it is done.")
        return reply

    def leave(self) -> None:
        """Say that the player goes."""
        try:
            self._call(STOP, timeout=LEAVE_SECONDS)
        except grpc.RpcError as error:
            logger.info("The trainer did not answer the farewell: %s", error.details())


@contextmanager
def _connection(target: str) -> Iterator[_Connection]:
    with grpc.insecure_channel(target, options=CHANNEL) as channel:
        connection = _Connection(channel.unary_unary(METHOD))
        try:
            yield connection
        except (Quit, KeyboardInterrupt):
            connection.leave()
            raise


def _shake_hands(connection: _Connection, speech: Dialect, channels: Channels, faults: Faults) -> Any:
    """Return the trainer's UnityRLInitializationInputProto."""
    hello = UnityMessageProto()
    hello.header.status = 200
    about = hello.unity_output.rl_initialization_output
    about.name, about.package_version = UNITY_NAME, speech.package
    about.communication_version = faults.version or speech.communication
    for name in speech.capabilities:
        setattr(about.capabilities, name, True)
    trainer = connection.exchange(hello.SerializeToString()).unity_input.rl_initialization_input
    first = connection.exchange(OK_HEADER).unity_input.rl_input
    ours, theirs = about.communication_version.split(".")[0], trainer.communication_version.split(".")[0]
    if ours != theirs:
        raise _Over(
            f"The trainer speaks version {trainer.communication_version} of the protocol, the player "
            f"{about.communication_version}: they do not fit."
        )
    logger.info("Connected to a trainer of version %s.", trainer.package_version)
    # Of the first input, a player heeds the side channels only: it resets of its own accord.
    channels.receive(first.side_channel)
    return trainer


def _play(connection: _Connection, stage: Stage, faults: Faults) -> None:
    for step in itertools.count(1):
        message = faults.before(step, stage.message())
        reply = connection.exchange(message)
        if not stage.answer(reply.unity_input.rl_input):
            raise _Over("The trainer says to quit.")


def _stage(options: argparse.Namespace, world: World, channels: Channels, speech: Dialect) -> Stage:
    live = Live(world, channels, speech, stats=options.stats)
    return live if options.prepared is None else Prepared(live, options.prepared)


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError as error:
        raise UsageError(f"--echo-channel {text} is not a UUID.") from error
