"""From the actions of a behavior to those of an environment's own space."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from mlagents_envs.base_env import ActionSpec, ActionTuple

from mlhooks.envs.spaces.description import Box, Discrete, MultiDiscrete, Space, SpaceError


class ActionDecoder:
    """Turns a behavior's actions into a batch of a space's, as vector environments take it.

    Args:
        space: Action space of one copy: a Box of floats, of any shape, whose bounded numbers are -1 at the lower and 1
            at the upper bound and whose others stay as they are; Discrete; or MultiDiscrete, one branch per number.
        copies: How many copies always act, where that is known, which saves time.

    Attributes:
        spec: The behavior's actions.

    Raises:
        SpaceError: The space is of another kind.
    """

    def __init__(self, space: Space, copies: int = 1) -> None:
        self.space, self._copies = space, copies
        self._of_numbers = isinstance(space, Box) and space.shape == ()
        match space:
            case Box() if space.dtype.kind == "f":
                self.spec = ActionSpec.create_continuous(space.size)
            case Discrete():
                self.spec = ActionSpec.create_discrete((space.n,))
            case MultiDiscrete():
                self.spec = ActionSpec.create_discrete(tuple(space.nvec.ravel().tolist()))
            case _:
                raise SpaceError(f"{space}, in which nobody can act")

    @cached_property
    def _decode(self) -> Callable[[ActionTuple], npt.NDArray[Any]]:
        """The decoding function; it is made late, when the sizes that a file claims have been checked."""
        space = self.space
        if isinstance(space, Box):
            return _box(space, self._copies)
        assert isinstance(space, Discrete | MultiDiscrete)
        return _indices(space.shape, np.asarray(space.start), space.dtype)

    def __call__(self, action: ActionTuple) -> npt.NDArray[Any]:
        """Decode the actions of all agents: [agents, *shape of the space], in the type of the space."""
        return self._decode(action)

    def each(self, batch: npt.NDArray[Any]) -> Iterable[Any]:
        """Return the action of each agent in a batch, as the space's own `sample` would give it."""
        if self._of_numbers:
            return [np.asarray(number) for number in batch]
        return batch  # Its rows are the actions.

    def differs(self, other: ActionDecoder) -> bool:
        """Return whether one action of a behavior is another one in the other space."""
        return _meaning(self.space) != _meaning(other.space)


def _meaning(space: Space) -> tuple[list[Any], ...]:
    if isinstance(space, Box):
        return space.low.ravel().tolist(), space.high.ravel().tolist()
    assert isinstance(space, Discrete | MultiDiscrete)
    starts = np.ravel(space.start).tolist()
    return (starts, [space.n] if isinstance(space, Discrete) else space.nvec.ravel().tolist())


def _indices(
    shape: tuple[int, ...], start: npt.NDArray[np.integer[Any]], dtype: np.dtype[Any]
) -> Callable[[ActionTuple], npt.NDArray[Any]]:
    # Starts are mostly 0, and then nothing is added.
    starts = start.astype(dtype) if np.any(start) else None

    def decode(action: ActionTuple) -> npt.NDArray[Any]:
        indices: npt.NDArray[Any] = action.discrete.astype(dtype).reshape(-1, *shape)
        return indices if starts is None else indices + starts

    return decode


def _box(space: Box, copies: int) -> Callable[[ActionTuple], npt.NDArray[Any]]:
    # A row for each copy, because numpy computes with arrays of one shape in a third of the time.
    low, high = np.tile(space.low.ravel(), (copies, 1)), np.tile(space.high.ravel(), (copies, 1))
    dtype, shape = space.dtype, space.shape
    with np.errstate(over="ignore", invalid="ignore"):
        # Bounds as far apart as numbers go mean that there are none.
        has_bounds = np.isfinite(high - low)
        half = np.where(has_bounds, high / 2 - low / 2, 1).astype(dtype)
        middle = np.where(has_bounds, high / 2 + low / 2, 0).astype(dtype)

    def decode(action: ActionTuple) -> npt.NDArray[Any]:
        scaled: npt.NDArray[Any] = action.continuous * half + middle
        # Numbers may be out of [-1, 1], round past a bound, or have one bound only.
        bounded: npt.NDArray[Any] = np.minimum(np.maximum(scaled, low), high)
        return bounded.astype(dtype, copy=False).reshape(len(scaled), *shape)

    return decode
