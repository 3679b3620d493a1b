"""From what `--env` names to environments."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from typing import TYPE_CHECKING
from uuid import UUID

from mlagents_envs.base_env import BaseEnv

from mlhooks.errors import PluginError, UnsupportedError, UsageError
from mlhooks.plugins import PluginManager
from mlhooks.settings import RunOptions

if TYPE_CHECKING:
    from mlagents_envs.side_channel.side_channel import SideChannel

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9_.+-]+):(?![\\/])(.+)")  # one letter is a drive, x:/ a path


def environment_name(options: RunOptions) -> str:
    """What the environment is called in messages."""
    return options.env_settings.env_path or "the Unity Editor"


def make_factory(options: RunOptions, plugins: PluginManager) -> Callable[[int], BaseEnv]:
    """A function that makes the environment of a worker, by its number.

    Raises:
        UsageError: no installed plugin brings the environment's kind.
    """
    types = plugins.collect_mapping("get_env_types")
    path = options.env_settings.env_path
    match = _SCHEME.fullmatch(path or "")
    scheme, name = match.groups() if match else ("unity", path)
    if scheme not in types:
        installed = ", ".join(f"{kind}:" for kind in sorted(types))
        if match is None:
            what = f"{path!r} is a Unity player" if path else "Without --env, a run waits for the Unity Editor"
            raise UnsupportedError(
                f"{what}, and no installed plugin brings the environment kind 'unity'. Name another kind with --env: "
                f"{installed} For example: --env sim:3DBall."
            )
        near = difflib.get_close_matches(scheme, types, 1)
        hint = f" Did you mean {near[0]}:{name}?" if near else ""
        raise UsageError(f"--env {path}: there is no environment kind {scheme!r}; installed are {installed}{hint}")

    def make_env(worker_id: int) -> BaseEnv:
        env: BaseEnv = types[scheme](
            name,
            worker_id=worker_id,
            seed=options.env_settings.seed,
            num_areas=options.env_settings.num_areas,
            options=options,
            side_channels=_side_channels(options, plugins),
        )
        return env

    return make_env


def _side_channels(options: RunOptions, plugins: PluginManager) -> list[SideChannel]:
    channels: dict[UUID, tuple[str, SideChannel]] = {}
    for origin, answer in plugins.collect("register_side_channels", options=options):
        for channel in answer:
            if channel.channel_id in channels:
                raise PluginError(
                    f"Two plugins open the side channel {channel.channel_id}: {channels[channel.channel_id][0]} and "
                    f"{origin}. Block one of them with -p no:NAME."
                )
            channels[channel.channel_id] = str(origin), channel
    return [channel for _, channel in channels.values()]
