"""From what `--env` names to environments."""

from __future__ import annotations

import difflib
import re

from mlhooks.answers import SCHEME
from mlhooks.envs.factory import EnvironmentFactory, PluginChannels
from mlhooks.errors import UnsupportedError, UsageError
from mlhooks.plugins import PluginManager
from mlhooks.settings import RunOptions

_SCHEME = re.compile(rf"({SCHEME}):(?![\\/])(.+)")  # x:/ is a path


def environment_name(options: RunOptions) -> str:
    """What the environment is called in messages."""
    return options.env_settings.env_path or "the Unity Editor"


def scheme_and_name(env_path: str | None) -> tuple[str, str | None]:
    """The environment kind that `--env` names, and what it says behind it; a plain path or none is `unity`."""
    match = _SCHEME.fullmatch(env_path or "")
    return (match[1], match[2]) if match else ("unity", env_path)


def make_factory(options: RunOptions, plugins: PluginManager) -> EnvironmentFactory:
    """A function that makes the environment of a worker, by its number.

    Raises:
        UsageError: no installed plugin brings the environment's kind.
    """
    types = plugins.collect_claims("get_env_types")
    path = options.env_settings.env_path
    scheme, name = scheme_and_name(path)
    if scheme not in types:
        kinds = ", ".join(sorted(types)) or "none"
        if scheme == "unity":
            what = f"{path!r} is a Unity player" if path else "Without --env, a run waits for the Unity Editor"
            raise UnsupportedError(
                f"{what}, and no installed plugin brings the environment kind 'unity'; installed are {kinds}. Name "
                "another kind, for example: --env sim:3DBall"
            )
        near = difflib.get_close_matches(scheme, types, 1)
        hint = f" Did you mean {near[0]}:{name}?" if near else ""
        raise UsageError(f"--env {path}: there is no environment kind {scheme!r}; installed are {kinds}.{hint}")

    origin, make = types[scheme]
    return EnvironmentFactory(
        make,
        name,
        options,
        PluginChannels(plugins),
        f"The environment kind {scheme!r} of {origin}",
        plugins=plugins.loaded,
    )
