"""Environments of RL Zoo's entries: which of them is installed, what its actions are, and the wrappers around it."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from mlhooks.zoo.entry import ATARI, Entry, plain

_VERSION = re.compile(r"-v(\d+)$")
_ATARI = re.compile(r"^(ALE/.+|.+(NoFrameskip|Deterministic)-v\d+)$")
ATARI_WRAPPER = "AtariWrapper"
"""Stable-Baselines3's usual preprocessing of Atari games, which is `env_settings.atari`."""
TIME_FEATURE, FRAME_SKIP, MASK = "TimeFeatureWrapper", "FrameSkip", "MaskVelocityWrapper"
RESIZE = "YAMLCompatResizeObservation"
"""Wrappers of sb3_contrib and RL Zoo that Gymnasium, or mlhooks, has by other names and arguments."""
GYMNASIUMS = {
    "ResizeObservation": "ResizeObservation",
    "GrayScaleObservation": "GrayscaleObservation",
    "GrayscaleObservation": "GrayscaleObservation",
    "FlattenObservation": "FlattenObservation",
    "TimeLimit": "TimeLimit",
    "RescaleAction": "RescaleAction",
    "ClipAction": "ClipAction",
    "TimeAwareObservation": "TimeAwareObservation",
}
"""Wrappers of gym, and what Gymnasium calls them."""


@dataclass
class Found:
    """An environment.

    Attributes:
        id: its name, with the newest version where the one that is asked for is not installed.
        bound: the bound of its continuous actions, the same for all; 0 where they are discrete, None where it is not
            known or they have several bounds.
        images: whether it shows images; None where it is not known.
        why_not: why it is not known.
    """

    id: str
    bound: float | None = None
    images: bool | None = None
    why_not: str = ""


def is_atari(name: str) -> bool:
    """Return whether a name is that of an Atari game."""
    return name == ATARI or bool(_ATARI.match(name))


def behavior_name(env_id: str) -> str:
    """Return the name of the behavior that a Gymnasium environment shows."""
    return _VERSION.sub("", env_id.rpartition("/")[2])


def look_up(name: str, arguments: Mapping[str, Any]) -> Found:
    """Return the installed environment that a name of RL Zoo means, and its spaces with these keyword arguments."""
    try:
        gymnasium: Any = import_module("gymnasium")
    except ImportError:
        return Found(name, why_not="gymnasium is not installed")
    if is_atari(name):
        with suppress(ImportError):
            gymnasium.register_envs(import_module("ale_py"))
    candidates, why_not = _versions(gymnasium.registry, name), ""
    for candidate in candidates:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                env = gymnasium.make(candidate, **arguments)
            try:
                return Found(candidate, _bound(gymnasium, env.action_space), _images(env.observation_space))
            finally:
                env.close()
        except Exception as error:
            why_not = why_not or f"{error}".partition("\n")[0][:200]
    return Found(next(iter(candidates), name), why_not=why_not or "no installed package has it")


def _versions(registry: Mapping[str, Any], name: str) -> list[str]:
    """Return the names that an environment is registered by, that of the version asked for and then the newest first.

    Gymnasium also registers versions that are gone, only to say so; those come last.
    """
    base = _VERSION.sub("", name)
    known = {
        int(found[1]): full for full in registry if (found := _VERSION.search(full)) and full[: found.start()] == base
    }
    ordered = dict.fromkeys([name, *(known[version] for version in sorted(known, reverse=True))])
    there = [each for each in ordered if each in registry]
    return sorted(there, key=lambda each: not isinstance(registry[each].entry_point, str))


def _bound(gymnasium: Any, space: Any) -> float | None:
    if not isinstance(space, gymnasium.spaces.Box):
        return 0.0
    high = float(str(space.high.flat[0]))  # The shortest text of a float32 is the number that was meant.
    same = bool((space.high == space.high.flat[0]).all()) and bool((space.low == -space.high).all())
    return high if same and 0.0 < high < float("inf") else None


def _images(space: Any) -> bool:
    return len(space.shape or ()) == 3


def wrappers_of(entry: Entry, *, images: bool | None) -> tuple[list[dict[str, Any]], bool]:
    """Return the wrappers that an entry names, for `env_settings.wrappers`, and whether they are Atari's usual ones.

    Args:
        entry: the entry.
        images: whether the environment shows images, where that is known.

    Raises:
        UsageError: a wrapper or its arguments have no names, or the number of stacked frames is no whole number.
    """
    written = entry.take("env_wrapper")
    listed = written if isinstance(written, list) else [] if written is None else [written]
    wrappers: list[dict[str, Any]] = []
    atari = False
    for item in listed:
        if not isinstance(item, str | dict):
            raise entry.wrong("env_wrapper", plain(item), "must be the name of a wrapper, or names with arguments")
        named: Mapping[str, Any] = item if isinstance(item, dict) else {item: None}
        for path, arguments in named.items():
            if arguments is not None and not isinstance(arguments, dict):
                raise entry.wrong("env_wrapper", plain(arguments), f"must be arguments of {path} by name")
            given = dict(arguments or {})
            name = str(path).rpartition(".")[2]
            if name == ATARI_WRAPPER:
                atari = True
                for argument, value in given.items():
                    entry.lacks(f"env_wrapper {path}: {argument}: {plain(value)}")
            elif (known := _known(entry, str(path), name, given)) is not None:
                wrappers.append(known)
    stack = entry.whole("frame_stack", 1) if entry.has("frame_stack") else None
    if stack is not None and not (atari and stack == 4):
        if atari:
            entry.lacks(f"frame_stack: {plain(stack)}, where atari: true stacks 4 frames")
        else:
            wrappers += _stacked(entry, wrappers, stack, images=images)
    elif atari and stack is None:
        entry.lacks("one frame without a stack, where atari: true stacks 4")
    return wrappers, atari


def _stacked(entry: Entry, wrappers: list[dict[str, Any]], stack: Any, *, images: bool | None) -> list[dict[str, Any]]:
    """Return wrappers that stack observations along their last axis behind zeros, as SB3's VecFrameStack does."""
    gray = next((each["GrayscaleObservation"] for each in wrappers if "GrayscaleObservation" in each), None)
    stacking: list[dict[str, Any]] = [{"FrameStackObservation": {"stack_size": stack, "padding_type": "zero"}}]
    if gray is not None:
        gray.pop("keep_dim", None)  # The frames of a stack are the channels then.
        return stacking
    if images:
        entry.lacks(f"frame_stack: {plain(stack)} of images in color")
        return []
    return [*stacking, {"FlattenObservation": {}}]


def _known(entry: Entry, path: str, name: str, given: dict[str, Any]) -> dict[str, Any] | None:
    """Return a wrapper as a configuration names it; None where it is noted as missing."""
    if name == TIME_FEATURE:
        if given:
            entry.lacks(f"env_wrapper {path}: {plain(given)}")
        entry.assumes(
            f"{path} adds the share of time that is left, TimeAwareObservation the share that is over: what networks "
            "know is the same"
        )
        return {"TimeAwareObservation": {"flatten": True, "normalize_time": True}}
    if name == FRAME_SKIP and given.keys() <= {"skip"}:
        return {"RepeatAction": {"num_repeats": given.get("skip", 4)}}
    if name == RESIZE and given.keys() == {"shape"}:
        return {"ResizeObservation": given}
    if name == MASK and not given:
        return {"MaskVelocity": {}}
    if name in GYMNASIUMS and path.startswith(("gym.", "gymnasium.")):
        if name == "ResizeObservation" and isinstance(given.get("shape"), int):
            given = {**given, "shape": [given["shape"], given["shape"]]}
        return {GYMNASIUMS[name]: given}
    if (
        path.startswith(("rl_zoo.", "rl_zoo3.", "utils.", "stable_baselines3.", "sb3_contrib.", "gym."))
        or "." not in path
    ):
        entry.lacks(f"env_wrapper {path}{f': {plain(given)}' if given else ''}")
        return None
    module = path.rpartition(".")[0]
    entry.assumes(f"the wrapper {path} is one of Gymnasium's kind")
    return {f"{module}:{name}": given}
