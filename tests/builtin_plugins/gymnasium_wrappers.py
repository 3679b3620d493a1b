"""Wrappers of users, and a game with lives, for tests of `env_settings.wrappers`."""

from __future__ import annotations

from types import SimpleNamespace

import gymnasium
import numpy as np
from gymnasium import spaces


class Game(gymnasium.Env):
    """Shows how many steps there were; pays 5 in each, takes a life every three, and is over after three lives."""

    observation_space = spaces.Box(0, 100, (1,), np.float32)
    action_space = spaces.Discrete(3)

    def __init__(self, button=False):
        self.ale = SimpleNamespace(lives=lambda: self.lives)
        self.button, self.taken = button, []

    def get_action_meanings(self):
        return ["NOOP", "FIRE" if self.button else "UP", "RIGHT"]

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps, self.lives = 0, 3
        self.taken.append("reset")
        return self._show(), {}

    def _show(self):
        return np.array([self.steps], np.float32)

    def step(self, action):
        self.taken.append(int(action))
        self.steps += 1
        self.lives = 3 - self.steps // 3
        return self._show(), 5.0, self.lives == 0, False, {}


class Weighted(gymnasium.ObservationWrapper):
    """Multiplies observations."""

    def __init__(self, env, weight=1.0):
        super().__init__(env)
        self.weight = weight

    def observation(self, observation):
        return (observation * self.weight).astype(np.float32)


class Wide(gymnasium.ObservationWrapper):
    """Shows a number more than its space says."""

    def observation(self, observation):
        return np.append(observation, np.float32(0))


class Named(gymnasium.ObservationWrapper):
    """Makes a space that cannot be learned from."""

    def __init__(self, env):
        super().__init__(env)
        self.observation_space = spaces.Text(5)


class Fragile(gymnasium.Wrapper):
    """Raises in `step`."""

    def step(self, action):
        raise KeyError("the thread is torn")


class Unmakeable(gymnasium.Wrapper):
    """Raises when it is made."""

    def __init__(self, env):
        raise RuntimeError("no licence")


class NoReward(gymnasium.Wrapper):
    """Loses the reward."""

    def step(self, action):
        obs, _, *rest = self.env.step(action)
        return obs, None, *rest


def doubled(env, times=2):
    """Wrap by a function."""
    return Weighted(env, times)


def nothing(env):
    """Return no environment."""


if "mlhooks-tests/Game-v0" not in gymnasium.registry:  # A test imports this file by its path, too.
    gymnasium.register("mlhooks-tests/Game-v0", Game)
