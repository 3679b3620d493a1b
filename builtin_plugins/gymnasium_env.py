"""The environment kind `gymnasium`: any registered Gymnasium environment, such as `gymnasium:CartPole-v1`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from builtin_plugins.gymnasium_making import NATIVE, SYNC, check_arguments, make_envs
from builtin_plugins.gymnasium_own import INTERFACES, copies_of, settings_of
from builtin_plugins.gymnasium_registry import (
    check_packages,
    find_spec,
    ids,
    import_gymnasium,
    is_atari,
    newest_version,
)
from builtin_plugins.gymnasium_wrapping import KEYS, wrappers_of
from mlhooks.envs.closing import close
from mlhooks.envs.parameters import refuse_parameters
from mlhooks.plugin import EnvironmentKind, UsageError, hookimpl

if TYPE_CHECKING:
    from gymnasium.envs.registration import EnvSpec
    from mlagents_envs.base_env import BaseEnv
    from mlagents_envs.side_channel.side_channel import SideChannel

    from mlhooks.plugin import RunOptions

logger = logging.getLogger(__name__)

conformance_environments = ("gymnasium:CartPole-v1", "gymnasium:Pendulum-v1")
"""The environments with which `mlhooks plugins check` tries this plugin."""


@hookimpl
def get_env_types() -> Mapping[str, Callable[..., BaseEnv]]:
    """Return the scheme `gymnasium`."""
    return {
        "gymnasium": EnvironmentKind(
            make,
            check,
            behavior_names,
            INTERFACES,
            quick=True,
            takes_areas=lambda *_: True,
            names=ids,
            settings=lambda *_: KEYS,
            suggests=suggests,
        )
    }


def check(name: str, options: RunOptions) -> None:
    """Refuse an id that is not registered, and what no environment takes.

    Raises:
        UsageError: Gymnasium or a package that the environment imports is missing, there is no such id, or the
            configuration sets environment parameters, arguments that are not the user's to set, or wrappers that are
            not there or do not take their arguments.
    """
    gymnasium = import_gymnasium(name)
    spec = find_spec(gymnasium, name)
    wrappers = wrappers_of(gymnasium, options.env_settings)
    check_arguments(spec, dict(options.env_settings.env_kwargs or {}), wrapped=bool(wrappers))
    check_packages(gymnasium, spec)
    if options.env_settings.atari and not is_atari(spec):
        raise UsageError(f"env_settings.atari is for Atari games, and gymnasium:{spec.id} is none: remove it.")
    refuse_parameters(options.environment_parameters, f"gymnasium:{spec.id}")


def behavior_names(name: str, options: RunOptions) -> list[str]:  # noqa: ARG001  (every kind gets them)
    """Return the one behavior's name: the id without namespace and version."""
    return [find_spec(import_gymnasium(name), name).name]


def suggests(name: str, options: RunOptions) -> dict[str, Any]:
    """Return the settings of a run without a configuration: the usual preprocessing of Atari games that show frames."""
    spec = find_spec(import_gymnasium(name), name)
    settings = options.env_settings
    shown = ({**spec.kwargs, **(settings.env_kwargs or {})}).get("obs_type")
    return {"atari": True} if is_atari(spec) and shown != "ram" and not settings.wrappers else {}


def make(
    name: str,
    *,
    worker_id: int,
    seed: int,
    num_areas: int,
    options: RunOptions,
    side_channels: Sequence[SideChannel] = (),  # noqa: ARG001  (every factory gets them)
) -> BaseEnv:
    """Make `num_areas` copies of a Gymnasium environment, as one environment whose agents are the copies.

    The keyword arguments of the environment come from `env_settings.env_kwargs`, among them those of `gymnasium.make`
    such as `max_episode_steps`, and `vectorization_mode`: `vector_entry_point` is the environment's own vectorized
    implementation, the default for several copies where there is one; `sync` steps single copies, and so do wrappers of
    `env_settings`, which are put around each of them. `name` is a
    registered id, with or without its version; `package:id` imports the package that registers it, which may be a
    module in the current folder.

    Raises:
        UsageError: Gymnasium or a package that the environment needs is missing, there is no such id, or it does not
            take an argument or has a space that cannot be used.
        EnvironmentFailure: The environment does not start.
    """
    gymnasium = import_gymnasium(name)
    from builtin_plugins.gymnasium_vector import GymnasiumVector

    spec = find_spec(gymnasium, name)
    newest = newest_version(gymnasium.registry, spec.id)
    if newest is not None and newest is not spec and worker_id == 0:  # One worker says it for all.
        logger.warning("%s is out of date: there is %s.", spec.id, newest.id)
    arguments = _arguments(spec, options)
    mode, envs = make_envs(gymnasium, spec, num_areas, arguments)
    title = f"gymnasium:{spec.id}"
    settings: dict[str, Any] = {"behavior_name": spec.name, "title": title, "seed": seed, "worker_id": worker_id}
    if mode != NATIVE:
        return copies_of(gymnasium, envs, options, **settings)
    try:
        return GymnasiumVector(envs[0], **settings, **settings_of(options))
    except Exception:
        for env in envs:
            close(env, title)
        raise


def _arguments(spec: EnvSpec, options: RunOptions) -> dict[str, Any]:
    """Return the keyword arguments of `gymnasium.make`; wrappers step single copies, and that of Atari skips frames."""
    settings = options.env_settings
    arguments = dict(settings.env_kwargs or {})
    if settings.wrappers or settings.atari:
        check_arguments(spec, arguments, wrapped=True)
        arguments["vectorization_mode"] = SYNC
    if is_atari(spec) and (settings.atari or any("AtariPreprocessing" in entry for entry in settings.wrappers or ())):
        arguments.setdefault("frameskip", 1)
    return arguments
