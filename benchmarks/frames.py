"""An environment of pictures for `speed.py`: four frames of 84 x 84 pixels, as from an Atari game, at next to no cost.

One quarter of the newest frame is lit and names the action that is rewarded; the others are noise.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

STEPS, CHOICES = 128, 64


class Frames(gymnasium.Env[np.ndarray, int]):
    """Shows one of a few prepared stacks of frames at each step, [4, 84, 84] bytes, the newest last."""

    observation_space = spaces.Box(0, 255, (4, 84, 84), np.uint8)
    action_space = spaces.Discrete(4)

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self._stacks = rng.integers(0, 100, (CHOICES, 4, 84, 84), dtype=np.uint8)
        for number, stack in enumerate(self._stacks):
            row, column = divmod(number % 4, 2)
            stack[3, 42 * row : 42 * row + 42, 42 * column : 42 * column + 42] += 150

    def reset(
        self,
        *,
        seed: int | None = None,
        options: dict[str, Any] | None = None,  # noqa: ARG002  (Gymnasium's)
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin an episode."""
        super().reset(seed=seed)
        self._step = 0
        return self._show(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Reward the action that was lit."""
        reward = float(action == self._shown % 4)
        self._step += 1
        return self._show(), reward, False, self._step == STEPS, {}

    def _show(self) -> np.ndarray:
        self._shown = int(self.np_random.integers(CHOICES))
        return self._stacks[self._shown]


gymnasium.register("Frames-v0", Frames)
