"""The wrapper that hides velocities, as RL Baselines3 Zoo has it for agents with a memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

VELOCITIES = {
    "Acrobot": (4, 5),
    "CartPole": (1, 3),
    "LunarLander": (2, 3, 5),
    "LunarLanderContinuous": (2, 3, 5),
    "MountainCar": (1,),
    "MountainCarContinuous": (1,),
    "Pendulum": (2,),
}
"""Places of the velocities in what Gymnasium's environments show, by their ids without version."""


class MaskVelocity(gymnasium.ObservationWrapper[Any, Any, Any]):
    """Shows 0 in place of velocities, which a policy then has to work out from what it saw before.

    This is `MaskVelocityWrapper` of RL Baselines3 Zoo.

    Args:
        env: an environment that shows a vector.
        indices: the places of what is hidden in the vector; by default those of the velocities, where they are known.

    Raises:
        ValueError: it shows no vector, or it is not known where velocities are, or there is no such place.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], indices: Sequence[int] | None = None) -> None:
        super().__init__(env)
        space = env.observation_space
        if not isinstance(space, spaces.Box) or len(space.shape) != 1:
            raise ValueError(f"it hides parts of a vector, and observations are {space}")
        if indices is None:
            name = "" if env.spec is None else env.spec.name
            if name not in VELOCITIES:
                raise ValueError(f"it is not known where {name or 'the environment'} shows velocities: give indices")
            indices = VELOCITIES[name]
        (size,) = space.shape
        if not isinstance(indices, (list, tuple)) or any(type(i) is not int or not 0 <= i < size for i in indices):
            raise ValueError(f"indices must be a list of whole numbers from 0 to {size - 1}, and are {indices!r}")
        self._hidden = np.array(indices, np.intp)
        low, high = space.low.copy(), space.high.copy()
        low[self._hidden] = high[self._hidden] = 0
        self.observation_space = spaces.Box(low, high, dtype=space.dtype.type)

    def observation(self, observation: Any) -> Any:
        """Return an observation without what is hidden."""
        shown = np.array(observation)
        shown[self._hidden] = 0
        return shown
