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
    Sequence,
    Space,
    SpaceError,
    Spaces,
    Tuple,
    UnsupportedError,
)

_SEEN = (
    "which cannot be learned from; wrap the environment so that it shows Box, Discrete, MultiDiscrete or MultiBinary "
    "spaces, a Sequence of them, or a Dict or Tuple."
)
_ENDLESS = (
    "whose length has no maximum. State one, by the attribute max_length of that space or by --set "
    "env_settings.max_entities=N."
)
_TAKEN = "which cannot be acted in; wrap the environment so that it takes a Box of floats, Discrete or MultiDiscrete."


def describe_spaces(
    observation: spaces.Space[Any], action: spaces.Space[Any], title: str, max_entities: int | None = None
) -> Spaces:
    """Describe the spaces of one copy of an environment.

    Args:
        observation: What it shows.
        action: What it takes.
        title: How errors call the environment.
        max_entities: How many members a Sequence has at most that has no `max_length`.

    Raises:
        UnsupportedError: A space, or a part of it, cannot be learned from or acted in.
    """

    def unseen(name: str, part: spaces.Space[Any], why: str) -> UnsupportedError:
        has = f'The observation "{name}" of {title} has the space {part}'
        if isinstance(part, spaces.Sequence) and _max_length(part, max_entities) is None:
            return UnsupportedError(f"{has}, {_ENDLESS}")
        return UnsupportedError(f"{has}{why}, {_SEEN}")

    def untaken(_: str, __: spaces.Space[Any], why: str) -> UnsupportedError:
        return UnsupportedError(f"The action space of {title} is {action}{why}, {_TAKEN}")

    seen, taken = _describe(observation, (), unseen, max_entities), _describe(action, (), untaken)
    try:
        return Spaces(seen, taken)
    except SpaceError:
        raise untaken("", action, "") from None


def _describe(
    space: spaces.Space[Any],
    path: tuple[Any, ...],
    refusal: Callable[[str, spaces.Space[Any], str], UnsupportedError],
    max_entities: int | None = None,
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
            case spaces.Sequence(feature_space=part):
                return Sequence(_describe(part, path, refusal, max_entities), _max_length(space, max_entities))
            case spaces.Tuple():
                parts = enumerate(space.spaces)
                return Tuple([_describe(part, (*path, i), refusal, max_entities) for i, part in parts])
            case spaces.Dict():
                named = space.spaces.items()
                return Dict({key: _describe(part, (*path, key), refusal, max_entities) for key, part in named})
    except SpaceError as error:
        why = f" ({error})"
    raise refusal("/".join(map(str, path)) or "observation", space, why)


def _max_length(space: spaces.Sequence, max_entities: int | None) -> Any:
    """Return how many members a sequence has at most, which Gymnasium's space does not say by itself."""
    return getattr(space, "max_length", max_entities)
