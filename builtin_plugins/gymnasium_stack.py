"""The wrappers around one copy of a Gymnasium environment, and the measurement of its episodes beneath them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import gymnasium

from builtin_plugins import gymnasium_answers as answers
from builtin_plugins.gymnasium_answers import NUMBERS
from builtin_plugins.gymnasium_spaces import Reading, describe_spaces
from mlhooks.plugin import UnsupportedError

if TYPE_CHECKING:
    from builtin_plugins.gymnasium_wrapping import ConfiguredWrapper

_TRIED = 3
"""Steps that are made to find the wrapper whose answers are not in its space."""


class Meter(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Adds up the environment's own rewards, beneath all wrappers of the configuration, and checks its answers.

    Attributes:
        total: the rewards since the environment was last reset.
    """

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__(env)
        self.total, self._over = 0.0, math.nan

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset the environment, which ends its episode."""
        if math.isnan(self._over):  # A wrapper may reset again, after no-ops that ended an episode.
            self._over = self.total
        self.total = 0.0
        answer: tuple[Any, dict[str, Any]] = self.env.reset(seed=seed, options=options)
        answers.of_reset(answer)
        return answer

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step the environment, and add the reward."""
        answer = _, reward, *_ = answers.of_step(self.env.step(action))
        self.total += reward if type(reward) in NUMBERS else answers.reward(reward)
        return answer

    def take(self) -> float:
        """Return the return of the environment's episode that ended since the last call; NaN where none did."""
        over, self._over = self._over, math.nan
        return over


class Stack:
    """A copy of an environment with its wrappers.

    Attributes:
        env: the outermost one.
        meter: measures the environment's own episodes.
    """

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        self.env: gymnasium.Env[Any, Any] = Meter(env)
        self.meter = self.env
        self._levels: list[tuple[ConfiguredWrapper, gymnasium.Env[Any, Any]]] = []

    def add(self, wrapper: ConfiguredWrapper, env: gymnasium.Env[Any, Any]) -> None:
        """Note what a wrapper has made of the environment so far."""
        self.env = env
        self._levels.append((wrapper, env))

    def raised_in(self, error: BaseException) -> ConfiguredWrapper | None:
        """Return the wrapper whose code raised an error; None where it was the environment's, or neither's."""
        step, found = error.__traceback__, None
        while step is not None:
            me = step.tb_frame.f_locals.get("self")
            if me is self.meter:
                return None
            found = next((wrapper for wrapper, env in self._levels if env is me), found)
            step = step.tb_next
        return found

    def is_environments(self, error: BaseException) -> bool:
        """Return whether an error came through the environment itself."""
        step = error.__traceback__
        while step is not None:
            if step.tb_frame.f_locals.get("self") is self.meter:
                return True
            step = step.tb_next
        return False

    def unfit(self, reading: Reading) -> ConfiguredWrapper | None:
        """Return the innermost wrapper whose answers are not what its spaces say; None where that is not found.

        The environment and then each wrapper are reset and stepped for this, so that nothing can go on afterwards.
        """
        if not _answers_fit(self.meter, reading):
            return None
        return next((wrapper for wrapper, env in self._levels if not _answers_fit(env, reading)), None)

    def unsupported(self) -> ConfiguredWrapper | None:
        """Return the wrapper that made spaces which cannot be used; None where they are the environment's own."""
        found = None
        for wrapper, env in reversed(self._levels):
            if _has_known_spaces(env):
                return found
            found = wrapper
        return found if _has_known_spaces(self.meter) else None


def _has_known_spaces(env: gymnasium.Env[Any, Any]) -> bool:
    try:
        describe_spaces(env.observation_space, env.action_space, "")
    except UnsupportedError:
        return False
    return True


def _answers_fit(env: gymnasium.Env[Any, Any], reading: Reading) -> bool:
    try:
        spaces = describe_spaces(env.observation_space, env.action_space, "", reading)
    except UnsupportedError:
        return True  # Another wrapper may make a space of it that is known.
    try:
        spaces.encode.check(answers.of_reset(env.reset(seed=0)))
        for _ in range(_TRIED):
            seen, reward, terminated, truncated, _ = answers.of_step(env.step(env.action_space.sample()))
            spaces.encode.check(seen)
            answers.reward(reward)
            if answers.flag("terminated", terminated) or answers.flag("truncated", truncated):
                break
    except Exception:
        return False
    return True
