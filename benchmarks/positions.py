"""CartPole-v1 for `speed.py` without its velocities, which a policy has to work out from what it saw before."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.classic_control import CartPoleEnv

NAME = "CartPolePositions-v0"


class Positions(gymnasium.ObservationWrapper[np.ndarray, int, np.ndarray]):
    """Shows the position of the cart and the angle of the pole."""

    def __init__(self, env: gymnasium.Env[np.ndarray, int]) -> None:
        super().__init__(env)
        space: Any = env.observation_space
        self.observation_space = spaces.Box(space.low[::2], space.high[::2], dtype=np.float32)

    def observation(self, observation: np.ndarray) -> np.ndarray:
        """Leave the velocities out."""
        return observation[::2]


def make(**arguments: Any) -> gymnasium.Env[np.ndarray, int]:
    """Return the environment."""
    return Positions(CartPoleEnv(**arguments))


gymnasium.register(NAME, make, max_episode_steps=500)
