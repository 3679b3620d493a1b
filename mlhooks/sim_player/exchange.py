"""The exchange of a player with the trainer: what it sends at each step, and what it does with the answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from mlagents_envs.communicator_objects.command_pb2 import QUIT, RESET
from mlagents_envs.communicator_objects.unity_rl_initialization_output_pb2 import UnityRLInitializationOutputProto

from mlhooks.sim_player.agent_infos import encoder
from mlhooks.sim_player.dialect import Dialect, brain_parameters
from mlhooks.sim_player.side_channels import MOST_RECENT, Channels
from mlhooks.sim_player.world import Actions, Behavior, Infos, PlayerError, World
from mlhooks.unity.messages import wrap_output


class Exchange(Protocol):
    """A source of messages."""

    def message(self) -> bytes:
        """Return the next UnityMessageProto, serialized."""

    def answer(self, rl_input: Any) -> bool:
        """Obey a UnityRLInputProto, and return False if it says to quit."""


class Live:
    """Plays a world, from a reset on.

    Args:
        world: What to play.
        channels: The side channels; they may have been read from already.
        dialect: How to speak.
        stats: Whether to send stats.
    """

    def __init__(self, world: World, channels: Channels, dialect: Dialect, *, stats: bool = False) -> None:
        self._world, self._channels, self._dialect, self._stats = world, channels, dialect, stats
        self._encode = {name: encoder(behavior, dialect) for name, behavior in world.behaviors.items()}
        self._introduced: set[str] = set()
        self._sent: Mapping[str, Sequence[Infos]] = {}
        self._begun = False  # It is set when all agents have just begun an episode.
        world.set_parameters(channels.samplers)
        self._reset()

    def message(self) -> bytes:
        """Return what the agents say now, or at the next step at which one of them says something."""
        sent = self._world.infos()
        while not any(sent.values()):
            self._world.act({})
            sent = self._world.infos()
        self._sent = sent
        if self._stats:
            self._report()
        lists = {name: self._encode[name](infos) for name, infos in sent.items()}
        return wrap_output(lists, self._channels.take_messages(), self._introduction())

    def answer(self, rl_input: Any) -> bool:
        """Read the side channels, then obey the command."""
        if rl_input.side_channel:
            self._channels.receive(rl_input.side_channel)
            self._world.set_parameters(self._channels.samplers)
        if rl_input.command == QUIT:
            return False
        if rl_input.command == RESET:
            self._reset()
            return True
        self._world.act(read_actions(rl_input.agent_actions, self._world.behaviors, self._sent, self._dialect))
        return True

    def random_actions(self, source: np.random.Generator) -> dict[str, Actions]:
        """Return actions for those who asked in the last message."""
        asked = {
            name: sum(len(infos) for infos in lists if not infos.done) for name, lists in self._sent.items() if lists
        }
        return {name: _random(self._world.behaviors[name], count, source) for name, count in asked.items() if count}

    def act(self, actions: Mapping[str, Actions]) -> None:
        """Go on without a trainer."""
        self._world.act(actions)

    def _reset(self) -> None:
        self._world.reset()
        self._begun = True

    def _report(self) -> None:
        """Send the world's stats and, when an episode begins, the environment parameters as they were drawn last."""
        for stat in self._world.stats():
            self._channels.stat(*stat)
        if self._begun or any(infos.done for lists in self._sent.values() for infos in lists):
            for key, sampler in self._channels.samplers.items():
                if sampler.last is not None:
                    self._channels.stat(f"Parameter/{key}", sampler.last, MOST_RECENT)
        self._begun = False

    def _introduction(self) -> bytes:
        new = [name for name, lists in self._sent.items() if lists and name not in self._introduced]
        if not new:
            return b""
        self._introduced.update(new)
        proto = UnityRLInitializationOutputProto()
        for name in new:
            proto.brain_parameters.append(brain_parameters(self._world.behaviors[name], self._dialect))
        return bytes(proto.SerializeToString())


class Prepared:
    """Messages recorded beforehand, with random actions: the first one, then the others in turn, whatever the answers.

    Args:
        live: What to record.
        count: Number of messages, at least 2.
    """

    def __init__(self, live: Live, count: int) -> None:
        source = np.random.default_rng(0)
        self._messages = [live.message()]
        for _ in range(max(1, count - 1)):
            live.act(live.random_actions(source))
            self._messages.append(live.message())
        self._next = 0

    def message(self) -> bytes:
        """Return the next message of the record."""
        data = self._messages[self._next]
        self._next = self._next % (len(self._messages) - 1) + 1
        return data

    def answer(self, rl_input: Any) -> bool:
        """Obey nothing but the command to quit."""
        return bool(rl_input.command != QUIT)


def _random(behavior: Behavior, agents: int, source: np.random.Generator) -> Actions:
    continuous = source.uniform(-1.0, 1.0, (agents, behavior.continuous)).astype(np.float32)
    return Actions(continuous, source.integers(0, behavior.branches, (agents, len(behavior.branches)), dtype=np.int32))


def read_actions(
    agent_actions: Any, behaviors: Mapping[str, Behavior], sent: Mapping[str, Sequence[Infos]], dialect: Dialect
) -> dict[str, Actions]:
    """Return the actions of each behavior that sent decision infos; zeros where the trainer sent none.

    Args:
        agent_actions: Behavior name -> ListAgentActionProto.
        behaviors: All behaviors.
        sent: What the answer is to.
        dialect: Says which fields the actions are in.

    Raises:
        PlayerError: The number of actions is not the number of agents that asked, or an action has another size.
    """
    actions = {}
    for name, lists in sent.items():
        asked = sum(len(infos) for infos in lists if not infos.done)
        if not asked:
            continue
        behavior = behaviors[name]
        given = agent_actions[name].value if name in agent_actions else []
        if len(given) not in {0, asked}:
            raise PlayerError(f"{asked} agents of {name} asked for a decision, and the trainer sent {len(given)}.")
        try:
            actions[name] = _actions(given, asked, behavior, dialect)
        except ValueError as error:
            raise PlayerError(
                f"An action for {name} does not have {behavior.continuous} continuous and {len(behavior.branches)} "
                f"discrete values: {given[0]}"
            ) from error
    return actions


def _actions(given: Sequence[Any], asked: int, behavior: Behavior, dialect: Dialect) -> Actions:
    continuous = np.zeros((asked, behavior.continuous), dtype=np.float32)
    discrete = np.zeros((asked, len(behavior.branches)), dtype=np.int32)
    if given and behavior.continuous:
        rows = [(a.continuous_actions if dialect.action_spec else a.vector_actions_deprecated)[:] for a in given]
        continuous[:] = _of_width(rows, behavior.continuous)
    if given and behavior.branches:
        rows = [(a.discrete_actions if dialect.action_spec else a.vector_actions_deprecated)[:] for a in given]
        discrete[:] = _of_width(rows, len(behavior.branches))
    return Actions(continuous, discrete)


def _of_width(rows: list[list[float]], width: int) -> list[list[float]]:
    # numpy would spread a single value over the whole row.
    if any(len(row) != width for row in rows):
        raise ValueError(f"{width} values expected")
    return rows
