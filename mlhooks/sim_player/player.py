"""A player's life: handshake, then one exchange for every step at which an agent has something to say."""

from __future__ import annotations

import argparse
import itertools
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import grpc  # type: ignore[import-untyped]
from mlagents_envs.communicator_objects.unity_message_pb2 import UnityMessageProto

from mlhooks.errors import UsageError
from mlhooks.sim_player.dialect import Dialect, dialect
from mlhooks.sim_player.exchange import Exchange, Live, Prepared
from mlhooks.sim_player.faults import Faults, Quit
from mlhooks.sim_player.options import SCENES, scripted_behaviors
from mlhooks.sim_player.scripted import Scripted
from mlhooks.sim_player.side_channels import Channels
from mlhooks.sim_player.simulated import Simulated
from mlhooks.sim_player.world import World
from mlhooks.unity.grpc_frames import EXCHANGE
from mlhooks.unity.messages import EMPTY, OK, STOP

logger = logging.getLogger("mlhooks.sim_player")

CHANNEL = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_http_proxy", 0),
)
LEAVE_SECONDS = 5.0
UNITY_NAME = "AcademySingleton"

MakeWorld = Callable[[int, int], World]
"""Makes a world from a seed and a number of areas, which the trainer gives."""


class _Over(Exception):
    """The trainer has gone, or has said to go."""


def play(options: argparse.Namespace, port: int) -> None:
    """Connect to the trainer and obey it until it says to leave.

    Raises:
        UsageError: The options do not fit together.
        PlayerError: The trainer answered what a player cannot make sense of.
    """
    speech = dialect(options.communication_version, options.package_version)
    make_world = _world_maker(options, speech)
    channels = Channels(_uuid(text) for text in options.echo_channel)
    faults = Faults(options, port)
    try:
        faults.before(0)
        with _connection(faults.target) as connection:
            trainer = _shake_hands(connection, speech, channels, faults)
            speech = speech.with_trainer(trainer.capabilities)
            world = make_world(trainer.seed, options.areas or max(1, trainer.num_areas))
            _play(connection, _exchange(options, world, channels, speech), faults)
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
        if reply.header.status != OK:
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
        connection = _Connection(channel.unary_unary(EXCHANGE.decode()))
        try:
            yield connection
        except (Quit, KeyboardInterrupt):
            connection.leave()
            raise


def _shake_hands(connection: _Connection, speech: Dialect, channels: Channels, faults: Faults) -> Any:
    """Return the trainer's UnityRLInitializationInputProto."""
    hello = UnityMessageProto()
    hello.header.status = OK
    about = hello.unity_output.rl_initialization_output
    about.name, about.package_version = UNITY_NAME, speech.package
    about.communication_version = faults.version or speech.communication
    for name in speech.capabilities:
        setattr(about.capabilities, name, True)
    trainer = connection.exchange(hello.SerializeToString()).unity_input.rl_initialization_input
    first = connection.exchange(EMPTY).unity_input.rl_input
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


def _play(connection: _Connection, exchange: Exchange, faults: Faults) -> None:
    for step in itertools.count(1):
        message = faults.before(step, exchange.message())
        reply = connection.exchange(message)
        if not exchange.answer(reply.unity_input.rl_input):
            raise _Over("The trainer says to quit.")


def _exchange(options: argparse.Namespace, world: World, channels: Channels, speech: Dialect) -> Exchange:
    live = Live(world, channels, speech, stats=options.stats)
    return live if options.prepared is None else Prepared(live, options.prepared)


def _world_maker(options: argparse.Namespace, dialect: Dialect) -> MakeWorld:
    """Return what makes the world, once its options are found to be right.

    Raises:
        UsageError: A behavior is not one of the world, or has what players of this protocol version do not have.
    """
    if options.world in SCENES and options.behaviors:
        raise UsageError(f"{options.world} has its own behaviors; --behavior is for scripted and for simulations.")
    scripted = options.world == "scripted" or options.world in SCENES
    return _scripted(options, dialect) if scripted else _simulated(options)


def _simulated(options: argparse.Namespace) -> MakeWorld:
    if len(options.behaviors) > 1:
        raise UsageError(f"{options.world} has one behavior, so --behavior can be given once only.")
    name = options.behaviors[0] if options.behaviors else None
    return lambda seed, areas: Simulated(
        options.world,
        behavior_name=name,
        agents=options.agents,
        areas=areas,
        seed=seed,
        change_ids=options.agent_ids == "change",
    )


def _scripted(options: argparse.Namespace, dialect: Dialect) -> MakeWorld:
    found = scripted_behaviors(SCENES.get(options.world) or options.behaviors)
    for part in found:
        if not dialect.action_spec and all(part.actions):
            raise UsageError(
                f"Players of protocol {dialect.communication} have no hybrid actions, which {part.name} has; give the "
                "behaviors with --behavior."
            )
    return lambda seed, areas: Scripted(
        found,
        agents=options.agents,
        areas=areas,
        seed=seed,
        episode_length=options.episode_length,
        image_size=options.image_size,
        change_ids=options.agent_ids == "change",
    )


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError as error:
        raise UsageError(f"--echo-channel {text} is not a UUID.") from error
