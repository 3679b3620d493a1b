"""Wrappers for Atari games that Gymnasium lacks, as Stable-Baselines3 and OpenAI Baselines have them."""

from __future__ import annotations

from typing import Any

import gymnasium

Step = tuple[Any, Any, bool, bool, dict[str, Any]]
NOOP, FIRE = 0, 1
"""Actions of Atari games: to do nothing, and the button, where a game has it."""


class EpisodicLife(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Ends the learner's episode where a life is lost, while the game goes on in the next one (Mnih et al. 2015).

    Gymnasium's `AtariPreprocessing(terminal_on_life_loss=True)` begins another game instead, so that an agent sees
    nothing of a game but its first life. This is `EpisodicLifeEnv` of Stable-Baselines3, except that a reset in the
    middle of a life begins another game.

    Args:
        env: an Atari game of `ale_py`, wrapped or not.

    Raises:
        TypeError: it is no Atari game.
    """

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__(env)
        self._ale = _ale_of(env)
        self._lives, self._goes_on = 0, False

    def step(self, action: Any) -> Step:
        """Step, and end the episode with the life."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        lives = self._ale.lives()
        # Some games show no life for some frames before they are over.
        self._goes_on = 0 < lives < self._lives and not (terminated or truncated)
        self._lives = lives
        return obs, reward, terminated or self._goes_on, truncated, info

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin another game, or where only a life was lost go on with it by an action that does nothing."""
        goes_on, self._goes_on = self._goes_on and seed is None, False
        if goes_on:
            obs, _, terminated, truncated, info = self.env.step(NOOP)
            goes_on = not (terminated or truncated)
        if not goes_on:
            obs, info = self.env.reset(seed=seed, options=options)
        self._lives = self._ale.lives()
        return obs, info


class FireReset(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Presses the button that starts a ball or a life after each reset, in games that have it.

    This is `FireResetEnv` of Stable-Baselines3; games without that button are left alone.

    Args:
        env: an Atari game of `ale_py`, wrapped or not.

    Raises:
        TypeError: it is no Atari game.
    """

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__(env)
        _ale_of(env)
        meanings = env.unwrapped.get_action_meanings()  # type: ignore[attr-defined]
        self._has_button = len(meanings) >= 3 and meanings[FIRE] == "FIRE"

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset, and press the button, then the one behind it."""
        obs, info = self.env.reset(seed=seed, options=options)
        for action in (FIRE, FIRE + 1) if self._has_button else ():
            obs, _, terminated, truncated, info = self.env.step(action)
            if terminated or truncated:
                obs, info = self.env.reset(options=options)
        return obs, info


def _ale_of(env: gymnasium.Env[Any, Any]) -> Any:
    ale = getattr(env.unwrapped, "ale", None)
    if ale is None:
        raise TypeError(f"it is for Atari games, and {type(env.unwrapped).__name__} is none")
    return ale
