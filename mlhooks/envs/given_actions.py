"""Checks of the actions that an environment in this process is given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from mlagents_envs.base_env import ActionSpec, ActionTuple
from mlagents_envs.exception import UnityActionException

from mlhooks.fast.actions import are_indices


def check_action(
    behavior: str, spec: ActionSpec, action: ActionTuple, agents: Sequence[int] | npt.NDArray[np.int32]
) -> None:
    """Refuse actions that are not those of a behavior's agents that wait for some.

    Raises:
        UnityActionException: they have another shape, are not finite, or are no indices of their branches.
    """
    continuous, discrete = action.continuous, action.discrete
    count, numbers, branches = len(agents), spec.continuous_size, len(spec.discrete_branches)
    _check_shape(behavior, "continuous", continuous, (count, numbers))
    _check_shape(behavior, "discrete", discrete, (count, branches))
    # count_nonzero takes a fraction of the time of all() and any() on few agents.
    if numbers and np.count_nonzero(np.isfinite(continuous)) < continuous.size:
        bad = np.flatnonzero(~np.isfinite(continuous).all(axis=1))[0]
        raise UnityActionException(f"The action of agent {agents[bad]} of {behavior} is not finite: {continuous[bad]}.")
    if branches and not are_indices(discrete, spec.discrete_branches):
        sizes = spec.discrete_branches
        bad = next(row for row in range(count) if not are_indices(discrete[row : row + 1], sizes))
        raise UnityActionException(
            f"The discrete action of agent {agents[bad]} of {behavior} is {discrete[bad]}, but its "
            f"branches have the sizes {sizes}, counted from 0."
        )


def with_action_of(
    behavior: str,
    spec: ActionSpec,
    given: ActionTuple | None,
    agents: npt.NDArray[np.int32],
    agent_id: int,
    action: ActionTuple,
) -> ActionTuple:
    """Return the actions of all agents that wait for one, of which one agent's is new.

    Args:
        behavior: the name of their behavior.
        spec: its actions.
        given: the actions that were set before, of all agents; None for zeros.
        agents: the ids of all agents that wait.
        agent_id: of the one agent.
        action: its action, of one row.

    Raises:
        UnityActionException: the agent does not wait for an action, or the action does not fit.
    """
    rows = np.flatnonzero(agents == agent_id)
    if len(rows) == 0:
        raise UnityActionException(f"Agent {agent_id} of {behavior} does not wait for an action.")
    check_action(behavior, spec, action, agents[rows])
    merged = spec.empty_action(len(agents))
    if given is not None:
        # A copy: the arrays of set_actions() belong to the caller.
        merged.continuous[:], merged.discrete[:] = given.continuous, given.discrete
    merged.continuous[rows], merged.discrete[rows] = action.continuous, action.discrete
    return merged


def _check_shape(behavior: str, kind: str, given: npt.NDArray[Any] | None, wanted: tuple[int, int]) -> None:
    if given is None or given.shape != wanted:
        found = "there are none" if given is None else f"their shape is {given.shape}"
        raise UnityActionException(f"{behavior} needs {kind} actions of shape {wanted} (agents, action size); {found}.")
