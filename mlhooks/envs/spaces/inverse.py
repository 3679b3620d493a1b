"""Back from a behavior's arrays to an observation of the environment, and from its actions to those of a behavior."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from mlhooks.envs.spaces.description import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space, Tuple
from mlhooks.envs.spaces.misfits import found


class ActionMisfit(ValueError):
    """Something that is no action of a space."""


def observation_of(space: Space, obs: Sequence[np.ndarray]) -> Any:
    """Return what an agent of the environment saw, of which an encoder made these arrays.

    Args:
        space: the observation space.
        obs: the arrays of one agent, without a dimension of agents.
    """
    return _member(space, iter(obs))


def _member(space: Space, parts: Iterator[np.ndarray]) -> Any:
    match space:
        case Dict():
            return {key: _member(part, parts) for key, part in space.parts.items()}
        case Tuple():
            return tuple(_member(part, parts) for part in space.parts)
        case Box() if space.is_image or space.is_grid:
            return _planes(space, next(parts))
        case Box() | MultiBinary():
            return next(parts).reshape(space.shape).astype(space.dtype)
        case Discrete():
            return space.dtype.type(next(parts).argmax() + space.start)
        case MultiDiscrete():
            hot = np.split(next(parts), np.cumsum(space.nvec.ravel())[:-1])
            chosen = np.array([one.argmax() for one in hot], np.int64).reshape(space.shape)
            return (chosen + space.start).astype(space.dtype)
    return next(parts)


def _planes(space: Box, planes: np.ndarray) -> np.ndarray:
    """Return an image or grid [channels, height, width] in the order of the axes of its space."""
    if space.is_image and planes.dtype != np.uint8:
        planes = np.rint(planes * 255)
    shape, pixels = space.shape, planes.astype(space.dtype, copy=False)
    if len(shape) == 2 or space.channels_first:
        return pixels.reshape(shape)
    height, width = shape[-3:-1]
    last = np.moveaxis(pixels, 0, -1).reshape(height, width, *shape[:-3], shape[-1])
    return np.moveaxis(last, (0, 1), (-3, -2))


def action_of(space: Space, action: Any) -> np.ndarray:
    """Return the numbers of a behavior's action that a decoder makes this action of: floats, or whole numbers.

    Args:
        space: the action space.
        action: of one agent.

    Raises:
        ActionMisfit: it is none of the space.
    """
    try:
        given = np.asarray(action)
    except ValueError:  # The lists differ in length.
        given = np.empty(0, np.object_)
    if given.shape != getattr(space, "shape", None) or given.dtype.kind not in "fiub":
        raise ActionMisfit(f"{found(action)}, which is no action of {space}")
    if isinstance(space, Box):
        with np.errstate(over="ignore", invalid="ignore"):
            half, middle = space.high / 2 - space.low / 2, space.high / 2 + space.low / 2
            bounded = np.isfinite(space.high - space.low) & (half > 0)
            scaled = np.where(bounded, (given - middle) / np.where(bounded, half, 1), given)
        if not np.isfinite(scaled).all():
            raise ActionMisfit(f"{found(action)}, which holds NaN or an infinite number")
        return np.where(bounded, scaled.clip(-1, 1), scaled).astype(np.float32).ravel()
    assert isinstance(space, Discrete | MultiDiscrete)
    sizes = np.full((), space.n) if isinstance(space, Discrete) else space.nvec
    index = given - space.start
    if not ((index == np.floor(index)) & (index >= 0) & (index < sizes)).all():
        raise ActionMisfit(f"{found(action)}, which is no action of {space}")
    return index.astype(np.int32).ravel()
