"""Action tuples for environments, made without checks of types, and the check of their indices."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from mlagents_envs.base_env import ActionTuple

from mlhooks.fast.switch import is_plain, kernel


class Unchecked(ActionTuple):  # type: ignore[misc]  # mlagents_envs ships no types.
    """An `ActionTuple` that takes a third of the time to make, because the types of its arrays are not checked."""

    def __init__(self, continuous: np.ndarray, discrete: np.ndarray) -> None:
        self._continuous, self._discrete = continuous, discrete


def action_tuple(continuous: np.ndarray, discrete: np.ndarray) -> ActionTuple:
    """Return both kinds of actions as ML-Agents has them.

    Args:
        continuous: [agents, size] float32.
        discrete: [agents, branches] int32.
    """
    return ActionTuple(continuous, discrete) if is_plain() else Unchecked(continuous, discrete)


@kernel("actions")
def are_indices(actions: np.ndarray, sizes: Sequence[int]) -> bool:
    """Return whether actions [agents, branches] int32 are indices of branches of these sizes."""
    # Seen as unsigned, a negative index is a huge one: a single comparison finds both kinds of bad index.
    return not np.count_nonzero(actions.view(np.uint32) >= np.array(sizes, np.uint32))
