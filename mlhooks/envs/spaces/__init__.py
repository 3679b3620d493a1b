"""Spaces of an environment, in its own terms, as plain data, and their translation to and from arrays."""

from mlhooks.envs.spaces.actions import ActionDecoder
from mlhooks.envs.spaces.description import (
    Box,
    Dict,
    Discrete,
    MultiBinary,
    MultiDiscrete,
    Sequence,
    Space,
    SpaceError,
    Tuple,
)
from mlhooks.envs.spaces.misfits import Misfit, found
from mlhooks.envs.spaces.observations import Encoded, ObservationEncoder
from mlhooks.envs.spaces.pair import Spaces

__all__ = [
    "ActionDecoder",
    "Box",
    "Dict",
    "Discrete",
    "Encoded",
    "Misfit",
    "MultiBinary",
    "MultiDiscrete",
    "ObservationEncoder",
    "Sequence",
    "Space",
    "SpaceError",
    "Spaces",
    "Tuple",
    "found",
]
