"""From what `--env` names to environments."""

from __future__ import annotations

import contextlib
import difflib
import re
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from mlhooks.answers import SCHEME
from mlhooks.envs import references
from mlhooks.envs.factory import EnvironmentFactory, EnvironmentKind, PluginChannels
from mlhooks.envs.own import BASE_ENV, OwnEnvironments
from mlhooks.errors import MlhooksError, UnsupportedError, UsageError
from mlhooks.plugins import PluginManager
from mlhooks.settings import RunOptions
from mlhooks.training.untrusted import refuse_environment_in_run

_SCHEME = re.compile(rf"({SCHEME}):(?![\\/])(.+)")  # x:/ is a path.

_OTHER_NAMES = {
    "gym": "gymnasium",
    "zoo": "pettingzoo",
    "petting_zoo": "pettingzoo",
    "unity3d": "unity",
    "simulation": "sim",
}
"""What people say for an environment kind."""


def environment_name(options: RunOptions) -> str:
    """Return what the environment is called in messages."""
    return options.env_settings.env_path or "the Unity Editor"


def scheme_and_name(env_path: str | None) -> tuple[str, str | None]:
    """Return the environment kind that `--env` names, and what it says behind it; a plain path or none is `unity`.

    `corridor.py:Corridor` is of the kind `python`.
    """
    if env_path is not None and references.is_file_reference(env_path):
        return references.SCHEME, env_path
    match = _SCHEME.fullmatch(env_path or "")
    return (match[1], match[2]) if match else ("unity", env_path)


def make_factory(options: RunOptions, plugins: PluginManager) -> EnvironmentFactory:
    """Return a function that makes the environment of a worker, given the worker's number.

    Raises:
        UsageError: no installed plugin brings the environment's kind, or a class that is named lies in the folder of a
            run.
    """
    types = plugins.collect_claims("get_env_types")
    path = options.env_settings.env_path
    for wrapper in (name for entry in options.env_settings.wrappers or () for name in entry if ":" in name):
        refuse_environment_in_run(wrapper, "wrapper")
    scheme, name = scheme_and_name(path)
    if options.own_environment is None and name and name.endswith(":") and name[:-1] in types:
        raise UsageError(f"--env {path}: say which environment, as in gymnasium:CartPole-v1 or sim:3DBall.")
    if (own := _own(scheme, name, options, types)) is not None:
        return EnvironmentFactory(
            EnvironmentKind(
                own.make, own.check, own.behavior_names, quick=True, takes_areas=own.takes_areas, settings=own.settings
            ),
            name,
            options,
            PluginChannels(plugins),
            own.title,
            plugins=plugins.loaded,
        )
    if scheme not in types:
        kinds = ", ".join(sorted(types)) or "none"
        if scheme == "unity":
            what = f"{path!r} is a Unity player" if path else "Without --env, a run waits for the Unity Editor"
            raise UnsupportedError(
                f"{what}, and no installed plugin brings the environment kind 'unity'; installed are {kinds}. Name "
                "another kind, for example: --env sim:3DBall"
            )
        near = difflib.get_close_matches(_OTHER_NAMES.get(scheme, scheme), types, 1)
        hint = f" Did you mean {near[0]}:{name}?" if near else ""
        hint = hint or " A class of your own is named with its file, as in corridor.py:Corridor."
        raise UsageError(f"--env {path}: there is no environment kind {scheme!r}; installed are {kinds}.{hint}")

    origin, make = types[scheme]
    return EnvironmentFactory(
        make,
        name,
        options,
        PluginChannels(plugins),
        f"The environment kind {scheme!r} of {origin}",
        plugins=plugins.loaded,
        hint=partial(_meant, name, types) if scheme == "unity" and name else None,
    )


def _meant(name: str, types: Mapping[str, Any]) -> str:
    """Guess what the path of a Unity player that is not there means: the name of another kind, or a class."""
    path = Path(name)
    if path.suffix == ".py":
        classes = references.classes_of(path)
        return f"A class in it is named as in --env {name}:{classes[0] if classes else 'CLASS'}"
    with contextlib.suppress(OSError):
        if path.exists():
            return ""
    meant: dict[str, str] = {}
    for scheme, (_, kind) in types.items():
        names: Iterable[str] = ()
        if isinstance(kind, EnvironmentKind) and kind.names is not None:
            with contextlib.suppress(MlhooksError):
                names = kind.names()
        for known in names:
            full = f"{scheme}:{known}"
            meant |= {known.casefold(): full, re.sub(r"-v\d+$", "", known.casefold()): full, full.casefold(): full}
    near = difflib.get_close_matches(name.casefold(), meant, 1, 0.8)
    return f"Did you mean --env {meant[near[0]]}?" if near else ""


def _own(scheme: str, name: str | None, options: RunOptions, types: Mapping[str, Any]) -> OwnEnvironments | None:
    """Return the user's own class or function that `--env` names or `mlhooks.train` was given; None for others."""
    maker = options.own_environment
    if maker is None:
        if scheme in types or not name:
            return None
        if scheme != references.SCHEME:
            if scheme == "unity" or ":" in name or not references.is_module(scheme):
                return None
            name = f"{scheme}:{name}"
        refuse_environment_in_run(name)
    kinds = [kind for _, kind in types.values() if isinstance(kind, EnvironmentKind)]
    interfaces = [interface for kind in kinds for interface in kind.interfaces]
    return OwnEnvironments(name or "", [*interfaces, BASE_ENV], maker)
