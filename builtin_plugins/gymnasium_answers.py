"""Checks of what `reset` and `step` of a Gymnasium environment return."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt

from mlhooks.envs.spaces import found
from mlhooks.errors import WrongAnswer
from mlhooks.places import defined_at

NUMBERS = frozenset({float, np.float32, np.float64})
"""Types of rewards that need no second look."""
_FLAGS = frozenset({bool, np.bool_})

RESET = "(observation, info)"
STEP = "(observation, reward, terminated, truncated, info)"
_OLD = "the interface of Gym before 0.26, which Gymnasium does not know"
_UNPACKED = re.compile(r"(not enough|too many) values to unpack|cannot unpack")
_MISSING = re.compile(r"unexpected keyword argument '(seed|options)'")


def of_reset(answer: Any) -> Any:
    """Return the observation from what `reset` returned.

    Raises:
        WrongAnswer: It is not a pair of an observation and a dict.
    """
    if isinstance(answer, tuple | list) and len(answer) == 2 and isinstance(answer[1], Mapping):
        return answer[0]
    raise WrongAnswer(
        f"reset() must return {RESET}, with a dict as info, and returned {found(answer)}. If that is the observation "
        f"alone, this is {_OLD}: write `return observation, {{}}`"
    )


def of_step(answer: Any) -> tuple[Any, Any, Any, Any, Any]:
    """Return the five parts of what `step` returned.

    Raises:
        WrongAnswer: There are not five.
    """
    if isinstance(answer, tuple | list) and len(answer) == 5:
        there, reward, terminated, truncated, info = answer
        return there, reward, terminated, truncated, info
    if isinstance(answer, tuple | list) and len(answer) == 4:
        raise WrongAnswer(
            f"step() must return {STEP} and returned 4 values. If they are (observation, reward, done, info), this is "
            f"{_OLD}: write `return observation, reward, done, False, info`, with True in place of False where a time "
            "limit alone ends the episode"
        )
    what = f"{len(answer)} values" if isinstance(answer, tuple | list) else found(answer)
    raise WrongAnswer(f"step() must return {STEP} and returned {what}")


def wrong_step(answer: Any, error: Exception) -> Exception:
    """Return what is wrong with an answer of `step` that could not be unpacked, or else the error itself."""
    try:
        of_step(answer)
    except WrongAnswer as wrong:
        return wrong
    return error


def reward(given: Any) -> float:
    """Return a reward as a float.

    Raises:
        WrongAnswer: It is not a single number.
    """
    if _is_number(given, "fiub"):
        try:
            return float(given)
        except OverflowError:
            pass
    raise WrongAnswer(
        f"step() returned the reward {found(given)}; a reward must be a single number, as float(reward) makes it"
    )


def flag(name: str, given: Any) -> bool:
    """Return `terminated` or `truncated` as a bool; 0 and 1 count as bools, too.

    Raises:
        WrongAnswer: It is anything else.
    """
    if type(given) in _FLAGS or (_is_number(given, "iub") and given in (0, 1)):
        return bool(given)
    raise WrongAnswer(f"step() returned {found(given)} as {name}, which must be True or False")


def rewards(given: Any, count: int) -> npt.NDArray[np.float32]:
    """Return the rewards of a vector environment as a new array [count].

    Raises:
        WrongAnswer: They are not `count` numbers.
    """
    array = np.asarray(given)
    if array.shape != (count,) or array.dtype.kind not in "fiub":
        raise WrongAnswer(f"step() returned {found(given)} as rewards, which must be {count} numbers")
    return np.array(array, dtype=np.float32)


def flags(name: str, given: Any, count: int) -> npt.NDArray[np.bool_]:
    """Return `terminated` or `truncated` of a vector environment as bools [count].

    Raises:
        WrongAnswer: They are not `count` bools.
    """
    array = np.asarray(given)
    if array.shape != (count,) or array.dtype.kind not in "iub" or (array.dtype.kind != "b" and (array > 1).any()):
        raise WrongAnswer(f"step() returned {found(given)} as {name}, which must be {count} times True or False")
    return array.astype(np.bool_, copy=False)


def interface_hint(error: Exception) -> str:
    """Say how an error in an environment comes from an old interface; empty where nothing suggests that."""
    if isinstance(error, TypeError) and _MISSING.search(str(error)):
        return f"reset() must take the keyword arguments seed and options; without them, this is {_OLD}."
    step = error.__traceback__
    while step is not None and step.tb_next is not None:
        step = step.tb_next
    module = "" if step is None else str(step.tb_frame.f_globals.get("__name__"))
    if module.startswith("gymnasium.") and _UNPACKED.search(str(error)):
        return f"reset() must return {RESET}, and step() {STEP}; with fewer values, this is {_OLD}."
    return ""


def place_of(env: Any, method: str) -> str:
    """Return `file.py:12`, where a method of an environment is defined, below Gymnasium's own wrappers."""
    while type(env).__module__.startswith("gymnasium.") and "env" in vars(env):
        env = env.env
    function = getattr(type(env), method, None)
    inherited = str(getattr(function, "__module__", "")).startswith("gymnasium.")
    return defined_at(type(env) if function is None or inherited else function)


def _is_number(given: Any, kinds: str) -> TypeGuard[Any]:
    if isinstance(given, int) and "i" in kinds:
        return True
    array = np.asarray(given)
    return array.shape == () and array.dtype.kind in kinds
