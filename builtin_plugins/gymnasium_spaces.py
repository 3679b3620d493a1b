"""Gymnasium spaces, described as mlhooks knows them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from mlhooks.plugin import RunOptions

_SEEN = (
    "which cannot be learned from; wrap the environment so that it shows Box, Discrete, MultiDiscrete or MultiBinary "
    "spaces, a Sequence of them, or a Dict or Tuple."
)
_ENDLESS = (
    "whose length has no maximum. State one, by the attribute max_length of that space or by --set "
    "env_settings.max_entities=N."
)
_TAKEN = "which cannot be acted in; wrap the environment so that it takes a Box of floats, Discrete or MultiDiscrete."


@dataclass(frozen=True)
class Reading:
    """What a configuration says about observations whose spaces leave it open.

    Attributes:
        max_entities: How many members a Sequence has at most that has no `max_length`.
        grids: Whether boxes of three or four dimensions that are no images are grids, which encoders of images read.
    """

    max_entities: int | None = None
    grids: bool = False

    @classmethod
    def of(cls, options: RunOptions) -> Reading:
        """Return what a run's settings say."""
        return cls(options.env_settings.max_entities, options.env_settings.grid_observations)


AS_DECLARED = Reading()


def describe_spaces(
    observation: spaces.Space[Any], action: spaces.Space[Any], title: str, reading: Reading = AS_DECLARED
) -> Spaces:
    """Describe the spaces of one copy of an environment.

    Args:
        observation: What it shows.
        action: What it takes.
        title: How errors call the environment.
        reading: What the configuration says about observations.

    Raises:
        UnsupportedError: A space, or a part of it, cannot be learned from or acted in.
    """

    def unseen(name: str, part: spaces.Space[Any], why: str) -> UnsupportedError:
        has = f'The observation "{name}" of {title} has the space {part}'
        if isinstance(part, spaces.Sequence) and _max_length(part, reading) is None:
            return UnsupportedError(f"{has}, {_ENDLESS}")
        return UnsupportedError(f"{has}{why}, {_SEEN}")

    def untaken(_: str, __: spaces.Space[Any], why: str) -> UnsupportedError:
        return UnsupportedError(f"The action space of {title} is {action}{why}, {_TAKEN}")

    seen, taken = _describe(observation, (), unseen, reading), _describe(action, (), untaken, AS_DECLARED)
    try:
        return Spaces(seen, taken)
    except SpaceError:
        raise untaken("", action, "") from None


def _describe(
    space: spaces.Space[Any],
    path: tuple[Any, ...],
    refusal: Callable[[str, spaces.Space[Any], str], UnsupportedError],
    reading: Reading,
) -> Space:
    why = ""
    try:
        match space:
            case spaces.Box(low=low, high=high, shape=shape, dtype=dtype):
                return Box(low, high, shape, np.dtype(dtype), grid=reading.grids)
            case spaces.Discrete(n=n, start=start, dtype=dtype):
                return Discrete(n, start, np.dtype(dtype))
            case spaces.MultiDiscrete(nvec=nvec, start=start, shape=shape, dtype=dtype):
                return MultiDiscrete(nvec, shape, start, np.dtype(dtype))
            case spaces.MultiBinary(shape=shape):
                return MultiBinary(shape)
            case spaces.Sequence(feature_space=part):
                members = replace(reading, grids=False)
                return Sequence(_describe(part, path, refusal, members), _max_length(space, reading))
            case spaces.Tuple():
                parts = enumerate(space.spaces)
                return Tuple([_describe(part, (*path, i), refusal, reading) for i, part in parts])
            case spaces.Dict():
                named = space.spaces.items()
                return Dict({key: _describe(part, (*path, key), refusal, reading) for key, part in named})
    except SpaceError as error:
        why = f" ({error})"
    raise refusal("/".join(map(str, path)) or "observation", space, why)


def _max_length(space: spaces.Sequence, reading: Reading) -> Any:
    """Return how many members a sequence has at most, which Gymnasium's space does not say by itself."""
    return getattr(space, "max_length", reading.max_entities)
