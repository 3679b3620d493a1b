"""Wrappers around Gymnasium environments, as `env_settings.wrappers` and `env_settings.atari` name them."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from builtin_plugins.gymnasium_extras import by_our_extras
from builtin_plugins.gymnasium_making import without_gymnasiums_warnings
from mlhooks.describing import named, with_article
from mlhooks.envs import references
from mlhooks.envs.own import signature_of
from mlhooks.places import defined_at, in_brackets, raised_at
from mlhooks.plugin import MlhooksError, UnsupportedError, UsageError

if TYPE_CHECKING:
    from builtin_plugins.gymnasium_stack import Stack
    from mlhooks.settings import EnvironmentSettings

WRAPPERS, ATARI = "env_settings.wrappers", "env_settings.atari"
KEYS = frozenset({"wrappers", "atari", "grid_observations"})
"""The keys of `env_settings` that single environments obey beside those that all kinds do."""
OURS = {
    "EpisodicLife": "builtin_plugins.gymnasium_atari:EpisodicLife",
    "FireReset": "builtin_plugins.gymnasium_atari:FireReset",
    "MaskVelocity": "builtin_plugins.gymnasium_masking:MaskVelocity",
}
"""Wrappers that Gymnasium lacks, by the names that a configuration may use beside Gymnasium's."""
ATARI_WRAPPERS: tuple[Mapping[str, Mapping[str, Any]], ...] = (
    {"AtariPreprocessing": {"noop_max": 30, "frame_skip": 4, "screen_size": 84, "grayscale_obs": True}},
    {"EpisodicLife": {}},
    {"FrameStackObservation": {"stack_size": 4}},
    {"ClipReward": {"min_reward": -1.0, "max_reward": 1.0}},
)
"""The meaning of `atari: true` (Mnih et al. 2015, https://doi.org/10.1038/nature14236, methods)."""
REFUSED = {
    "NormalizeObservation": "its running means are no part of a checkpoint, so that inference and evaluation would see "
    "other observations than training; use network_settings.normalize",
}
"""Wrappers of Gymnasium that do not go with training, and what to use instead."""
NEEDS = {
    "AtariPreprocessing": ("cv2", "'mlhooks[atari]'"),
    "ResizeObservation": ("cv2", "opencv-python-headless"),
    "RecordVideo": ("moviepy", "moviepy"),
}
"""Packages that wrappers of Gymnasium import when they are made, and what to install for them."""


@dataclass(frozen=True)
class ConfiguredWrapper:
    """A wrapper of a configuration.

    Attributes:
        name: its name in the configuration.
        key: where it stands there.
        maker: the class, or a function, called with an environment and `arguments`.
        arguments: its keyword arguments.
    """

    name: str
    key: str
    maker: Callable[..., Any]
    arguments: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.name} ({self.key})"


def wrappers_of(
    gymnasium: ModuleType, settings: EnvironmentSettings, *, whole_episodes: bool = False
) -> list[ConfiguredWrapper]:
    """Return the wrappers of a configuration, the innermost first.

    Args:
        gymnasium: the package.
        settings: the section that names them.
        whole_episodes: whether episodes must not end before the game does. AtariPreprocessing then goes on when a life
            is lost, because it would begin another game.

    Raises:
        UsageError: there is no such wrapper, or it does not take the arguments.
    """
    entries = [(ATARI, item) for entry in ATARI_WRAPPERS if settings.atari for item in entry.items()]
    for index, entry in enumerate(settings.wrappers or ()):
        entries += ((f"{WRAPPERS}[{index}]", item) for item in entry.items())
    wrappers = [_configured(gymnasium, key, name, arguments) for key, (name, arguments) in entries]
    if whole_episodes:
        wrappers = [_without_lives(gymnasium, wrapper) for wrapper in wrappers]
    return wrappers


def wrap_all(
    gymnasium: ModuleType, envs: Sequence[Any], wrappers: Sequence[ConfiguredWrapper], title: str
) -> list[Stack]:
    """Put the wrappers around each copy of an environment.

    Raises:
        UsageError: a wrapper does not go with the environment or with its arguments.
    """
    from builtin_plugins.gymnasium_stack import Stack

    stacks = [Stack(env) for env in envs]
    with without_gymnasiums_warnings():
        for stack in stacks:
            for wrapper in wrappers:
                stack.add(wrapper, _wrapped(gymnasium, stack.env, wrapper, title))
    return stacks


def blamed(stacks: Sequence[Stack], error: Exception) -> Exception:
    """Return an error about the spaces of wrapped environments with the wrapper that made such spaces."""
    wrapper = stacks[0].unsupported() if stacks and isinstance(error, UnsupportedError) else None
    return error if wrapper is None else UnsupportedError(f"{error} The wrapper {wrapper} makes it so.")


def _configured(gymnasium: ModuleType, key: str, name: str, arguments: Mapping[str, Any]) -> ConfiguredWrapper:
    maker = _maker(gymnasium, key, name)
    signature = signature_of(maker)
    if signature is None:
        return ConfiguredWrapper(name, key, maker, arguments)
    parameters = dict(list(signature.parameters.items())[1:])  # The first one is the environment.
    for parameter in parameters.values():
        if "Callable" in str(parameter.annotation):
            required = parameter.default is inspect.Parameter.empty and parameter.name not in arguments
            if required or isinstance(arguments.get(parameter.name), str | int | float | list | dict):
                raise UsageError(
                    f"{key}: {name} takes a function as {parameter.name}, which a configuration cannot hold. Write a "
                    "class of gymnasium.Wrapper in a file of yours that does the same, and name it as FILE.py:CLASS."
                )
    try:
        signature.bind(None, **arguments)
    except TypeError as error:
        unknown = next((argument for argument in arguments if argument not in parameters), None)
        near = difflib.get_close_matches(unknown, parameters, 1) if unknown else []
        near = near or [parameter for parameter in parameters if unknown and parameter.startswith(unknown)]
        what = f"does not take the arguments {dict(arguments)}" if arguments else "needs arguments"
        raise UsageError(
            f"{key}: {name} {what}: {error}{in_brackets(_place(maker))}."
            f"{f' Did you mean {near[0]}?' if near else ''} It takes {', '.join(parameters) or 'none'}."
        ) from None
    fitted = {
        argument: _fitted(value, str(parameters[argument].annotation) if argument in parameters else "")
        for argument, value in arguments.items()
    }
    return ConfiguredWrapper(name, key, maker, fitted)


def _place(maker: Callable[..., Any]) -> str:
    """Return where a wrapper of a user is defined; nothing for Gymnasium's."""
    return "" if getattr(maker, "__module__", "").startswith("gymnasium.") else defined_at(maker)


def _fitted(value: Any, annotation: str) -> Any:
    """Return a list as the tuple or array that a parameter wants, because YAML has only lists."""
    if isinstance(value, list):
        if "tuple" in annotation.casefold():
            return tuple(value)
        if "ndarray" in annotation:
            return np.array(value)
    return value


def _maker(gymnasium: ModuleType, key: str, name: str) -> Callable[..., Any]:
    if name in REFUSED:
        raise UsageError(f"{key}: {name} is refused, because {REFUSED[name]}.")
    if name in OURS:
        module, _, own = OURS[name].partition(":")
        return getattr(importlib.import_module(module), own)  # type: ignore[no-any-return]
    if ":" in name:
        try:
            return references.find(name)
        except UsageError as error:
            raise UsageError(f"{key}: {error}") from error
    try:
        found = getattr(gymnasium.wrappers, name, None)
    except (ImportError, gymnasium.error.Error) as error:
        raise UsageError(f"{key}: {name} needs a package that is not installed: {error}") from error
    if isinstance(found, type) and issubclass(found, gymnasium.Wrapper):
        package, install = NEEDS.get(name, ("", ""))
        if package and sys.modules.get(package) is None and importlib.util.find_spec(package) is None:
            lacks = f"needs the package {package}, which is not installed: pip install {install}"
            raise UsageError(f"{key}: {name} {lacks}")
        return found
    raise UsageError(f'{key}: there is no wrapper "{name}"{_meant(gymnasium, name)}')


def _meant(gymnasium: ModuleType, name: str) -> str:
    """Return the end of a message about a wrapper that is not known."""
    plain = name.rpartition(".")[2]
    known = {known.casefold(): known for known in (*gymnasium.wrappers.__all__, *OURS) if known != "vector"}
    if plain not in known.values() and plain in gymnasium.wrappers.vector.__all__:
        return ", which is one for vector environments: the wrappers here are put around each copy for itself."
    if plain.casefold() in known:
        return f". Did you mean {known[plain.casefold()]}?"
    near = difflib.get_close_matches(plain.casefold(), known, 3, 0.6)
    hint = f". Did you mean {' or '.join(known[each] for each in near)}?" if near else "."
    own = f"{name.rpartition('.')[0]}:{plain}" if "." in name else "FILE.py:CLASS or MODULE:CLASS"
    listed = "" if near else f" Gymnasium's are {', '.join(sorted(known.values()))}."
    return f"{hint}{listed} A class of your own, or of another package, is named {own}."


def _wrapped(gymnasium: ModuleType, env: Any, wrapper: ConfiguredWrapper, title: str) -> Any:
    if wrapper.key == ATARI and not hasattr(env.unwrapped, "ale"):
        raise UsageError(f"{ATARI} is for Atari games, such as gymnasium:ALE/Pong-v5, and {title} is none: remove it.")
    around = f"The wrapper {wrapper} cannot be put around {title}"
    try:
        made = wrapper.maker(env, **wrapper.arguments)
    except (MlhooksError, KeyboardInterrupt):
        raise
    except (ImportError, gymnasium.error.DependencyNotInstalled) as error:
        lacks = by_our_extras(str(error))
        raise UsageError(f"The wrapper {wrapper} needs a package that is not installed: {lacks}") from error
    except BaseException as error:
        hint = ""
        if hasattr(env.unwrapped, "ale") and "frame-skipping" in str(error):
            hint = " Atari games of -v5 skip frames themselves: set env_settings.env_kwargs to {frameskip: 1}."
        place = in_brackets(raised_at(error) or _place(wrapper.maker))
        said = f"{dict(wrapper.arguments)}: {named(error)}"
        raise UsageError(f"{around} with the arguments {said}{place}.{hint}") from error
    if not isinstance(made, gymnasium.Env):
        place = in_brackets(_place(wrapper.maker))
        raise UsageError(f"{around}: it must make a gymnasium.Env, and made {with_article(made)}{place}.")
    return made


def _without_lives(gymnasium: ModuleType, wrapper: ConfiguredWrapper) -> ConfiguredWrapper:
    if wrapper.maker is gymnasium.wrappers.AtariPreprocessing and "terminal_on_life_loss" in wrapper.arguments:
        return replace(wrapper, arguments={**wrapper.arguments, "terminal_on_life_loss": False})
    return wrapper
