"""Gymnasium spaces, described as mlhooks knows them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from gymnasium import spaces

from mlhooks.plugin import (
    Box,
    Dict,
    Discrete,
    MultiBinary,
    MultiDiscrete,
    Space,
    SpaceError,
    Spaces,
    Tuple,
    UnsupportedError,
)

_SEEN = (
    "which cannot be learned from; wrap the environment so that it shows Box, Discrete, MultiDiscrete or MultiBinary "
    "spaces, or a Dict or Tuple of them."
)
_TAKEN = "which cannot be acted in; wrap the environment so that it takes a Box of floats, Discrete or MultiDiscrete."


def describe_spaces(observation: spaces.Space[Any], action: spaces.Space[Any], title: str) -> Spaces:
    """Describe the spaces of one copy of an environment.

    Args:
        observation: What it shows.
        action: What it takes.
        title: How errors call the environment.

    Raises:
        UnsupportedError: A space, or a part of it, cannot be learned from or acted in.
    """

    def unseen(name: str, part: spaces.Space[Any], why: str) -> UnsupportedError:
        return UnsupportedError(f'The observation "{name}" of {title} has the space {part}{why}, {_SEEN}')

    def untaken(_: str, __: spaces.Space[Any], why: str) -> UnsupportedError:
        return UnsupportedError(f"The action space of {title} is {action}{why}, {_TAKEN}")

    seen, taken = _describe(observation, (), unseen), _describe(action, (), untaken)
    try:
        return Spaces(seen, taken)
    except SpaceError:
        raise untaken("", action, "") from None


def _describe(
    space: spaces.Space[Any],
    path: tuple[Any, ...],
    refusal: Callable[[str, spaces.Space[Any], str], UnsupportedError],
) -> Space:
    why = ""
    try:
        match space:
            case spaces.Box(low=low, high=high, shape=shape, dtype=dtype):
                return Box(low, high, shape, np.dtype(dtype))
            case spaces.Discrete(n=n, start=start, dtype=dtype):
                return Discrete(n, start, np.dtype(dtype))
            case spaces.MultiDiscrete(nvec=nvec, start=start, shape=shape, dtype=dtype):
                return MultiDiscrete(nvec, shape, start, np.dtype(dtype))
            case spaces.MultiBinary(shape=shape):
                return MultiBinary(shape)
            case spaces.Tuple():
                return Tuple([_describe(part, (*path, i), refusal) for i, part in enumerate(space.spaces)])
            case spaces.Dict():
                return Dict({key: _describe(part, (*path, key), refusal) for key, part in space.spaces.items()})
    except SpaceError as error:
        why = f" ({error})"
    raise refusal("/".join(map(str, path)) or "observation", space, why)
