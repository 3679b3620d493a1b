"""Which world the options ask for."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from mlhooks.errors import UsageError
from mlhooks.sim_player.behavior import World
from mlhooks.sim_player.dialect import Dialect
from mlhooks.sim_player.script import parts, with_team

MakeWorld = Callable[[int, int], World]
"""Makes a world from a seed and a number of areas, which the trainer gives."""


def world_maker(options: argparse.Namespace, dialect: Dialect) -> MakeWorld:
    """Return what makes the world, once its options are found to be right.

    Raises:
        UsageError: A behavior is not one of the world, or has what players of this protocol version do not have.
    """
    return _scripted(options, dialect) if options.world == "scripted" else _simulated(options)


def _simulated(options: argparse.Namespace) -> MakeWorld:
    from mlhooks.sim_player.simulated import Simulated

    names = options.behaviors or [options.world]
    if len(names) > 1:
        raise UsageError(f"{options.world} has one behavior, so --behavior can be given once only.")
    return lambda seed, areas: Simulated(
        options.world,
        behavior_name=with_team(names[0]),
        agents=options.agents,
        areas=areas,
        seed=seed,
        change_ids=options.agent_ids == "change",
    )


def _scripted(options: argparse.Namespace, dialect: Dialect) -> MakeWorld:
    from mlhooks.sim_player.scripted import Scripted

    found = parts(options.behaviors)
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
