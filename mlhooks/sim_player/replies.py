"""What the trainer answers: actions for the agents that asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mlhooks.errors import EnvironmentFailure
from mlhooks.sim_player.behavior import Actions, Behavior, Infos
from mlhooks.sim_player.dialect import Dialect


class PlayerError(EnvironmentFailure):
    """The player stand-in cannot go on."""


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
