"""The two spaces of a behavior, and their way into a file and back."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from mlagents_envs.base_env import BehaviorSpec

from mlhooks.envs.spaces.actions import ActionDecoder
from mlhooks.envs.spaces.description import Space, SpaceError
from mlhooks.envs.spaces.observations import ObservationEncoder


@dataclass(frozen=True)
class Spaces:
    """The observations and actions of a behavior's agent in the terms of its environment.

    Args:
        observation: what one agent sees.
        action: what one agent does.

    Raises:
        SpaceError: nobody can act in `action`.
    """

    observation: Space
    action: Space

    def __post_init__(self) -> None:
        self.decode  # noqa: B018 - It refuses spaces that nobody can act in.

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel to another process without what was made here."""
        return Spaces, (self.observation, self.action)

    @cached_property
    def encode(self) -> ObservationEncoder:
        """Makes the behavior's observations."""
        return ObservationEncoder(self.observation)

    @cached_property
    def decode(self) -> ActionDecoder:
        """Makes the environment's actions, of any number of agents."""
        return ActionDecoder(self.action)

    def require(self, spec: BehaviorSpec) -> None:
        """Make sure that these are the spaces of a behavior.

        Raises:
            SpaceError: its observations or actions are others.
        """
        shapes = [list(observation.shape) for observation in self.encode.specs]
        wanted = [list(observation.shape) for observation in spec.observation_specs]
        if shapes != wanted:
            raise SpaceError(f"{self.observation}, which makes observations of the shapes {shapes} and not {wanted}")
        if self.decode.spec != spec.action_spec:
            actions = spec.action_spec
            sizes = f"{actions.continuous_size} continuous ones and {list(actions.discrete_branches)}"
            raise SpaceError(f"{self.action}, whose actions are not the behavior's: {sizes}")

    def to_data(self) -> dict[str, Any]:
        """Return the plain form, for a file."""
        return {"observation": self.observation.to_data(), "action": self.action.to_data()}

    @classmethod
    def from_data(cls, data: Any) -> Spaces:
        """Return the spaces of a plain form.

        Raises:
            SpaceError: says what is wrong with it.
        """
        if not isinstance(data, dict) or data.keys() != {"observation", "action"}:
            raise SpaceError("not the two spaces of observations and actions")
        return cls(Space.from_data(data["observation"]), Space.from_data(data["action"]))
