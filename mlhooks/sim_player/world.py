"""The world of a player: behaviors, the messages of their agents, and the actions that come back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from mlhooks.errors import EnvironmentFailure

if TYPE_CHECKING:
    from mlhooks.sim_player.side_channels import Sampler

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]
Bools = npt.NDArray[np.bool_]
NONE, TRANSLATIONAL, VARIABLE = 1, 2, 4
"""Dimension properties, as numbered by the protocol."""


class PlayerError(EnvironmentFailure):
    """The player stand-in cannot go on."""


@dataclass(frozen=True, slots=True)
class Sensor:
    """One observation.

    Attributes:
        name: Sensors are sent sorted by it.
        shape: Of one observation; of an image channels, height, width.
        properties: Dimension property of each dimension.
        goal: Whether it is a goal signal.
        mapping: Of a compressed image, the observation's channel to which each channel of its PNGs belongs, -1 for
            none; equal ones are averaged. None if the observation is sent as floats.
    """

    name: str
    shape: tuple[int, ...]
    properties: tuple[int, ...]
    goal: bool = False
    mapping: tuple[int, ...] | None = None

    @property
    def size(self) -> int:
        """Number of values."""
        return prod(self.shape)


@dataclass(frozen=True, slots=True)
class Behavior:
    """A behavior: its name, which ends in `?team=T`, its sensors sorted by name, and its actions."""

    name: str
    sensors: tuple[Sensor, ...]
    continuous: int = 0
    branches: tuple[int, ...] = ()


@dataclass(slots=True)
class Infos:
    """The messages of some agents of a behavior: all ask for a decision, or the episodes of all have ended.

    Attributes:
        done: Whether their episodes ended.
        ids: [agents].
        obs: Per sensor [agents, *shape] as float32; of a compressed image [agents, height, width, 3 * PNGs] as uint8.
        reward: [agents], the sum since an agent's last info.
        interrupted: [agents]; whose episode was cut by a step limit.
        group_ids: [agents], 0 for none.
        group_reward: [agents], as `reward`.
        mask: [agents, sum of branch sizes], true where an action is forbidden; None if no agent has a mask.
        masked: [agents], who ever had one; None means all.
    """

    done: bool
    ids: Ints
    obs: Sequence[npt.NDArray[Any]]
    reward: Floats
    interrupted: Bools
    group_ids: Ints
    group_reward: Floats
    mask: Bools | None = None
    masked: Bools | None = None

    def __len__(self) -> int:
        return len(self.ids)


class Actions(NamedTuple):
    """One action for each agent that asked, in the order of asking: [agents, size] and [agents, branches]."""

    continuous: Floats
    discrete: Ints


class World(Protocol):
    """Something to play."""

    @property
    def behaviors(self) -> Mapping[str, Behavior]:
        """All behaviors by name, those included that have not appeared yet."""

    def reset(self) -> None:
        """Begin a new episode of every agent; those that ran end without a word."""

    def act(self, actions: Mapping[str, Actions]) -> None:
        """Go on by one step; what is missing is zero."""

    def infos(self) -> Mapping[str, Sequence[Infos]]:
        """Return what the agents of each behavior that has appeared send now, in the order of sending."""

    def stats(self) -> Sequence[tuple[str, float, int]]:
        """Return key, value and aggregation of what happened since the last call."""

    def set_parameters(self, samplers: Mapping[str, Sampler]) -> None:
        """Draw the environment parameters of episodes that begin from now on from these."""
