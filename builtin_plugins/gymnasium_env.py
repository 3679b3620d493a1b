"""The environment kind `gymnasium`: any registered Gymnasium environment, such as `gymnasium:CartPole-v1`."""

from __future__ import annotations

import difflib
import importlib
import logging
import re
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from mlhooks.describing import described
from mlhooks.envs.closing import close
from mlhooks.envs.parameters import refuse_parameters
from mlhooks.plugin import EnvironmentFailure, EnvironmentKind, UsageError, hookimpl

if TYPE_CHECKING:
    from gymnasium.envs.registration import EnvSpec
    from mlagents_envs.base_env import BaseEnv
    from mlagents_envs.side_channel.side_channel import SideChannel

    from mlhooks.plugin import RunOptions

logger = logging.getLogger(__name__)

_VERSION = re.compile(r"-v\d+$")
NATIVE, SYNC = "vector_entry_point", "sync"
WORTH_A_VECTOR = 10  # copies from which array code is faster than a loop over scalar code
OURS = {"num_envs": "env_settings.num_areas", "vector_kwargs": "vectorization_mode", "wrappers": "a registered id"}
"""Arguments of `gymnasium.make_vec` that are not the user's to set, and what to use instead."""

conformance_environments = ("gymnasium:CartPole-v1", "gymnasium:Pendulum-v1")
"""The environments with which `mlhooks plugins check` tries this plugin."""


@hookimpl
def get_env_types() -> Mapping[str, Callable[..., BaseEnv]]:
    """Return the scheme `gymnasium`."""
    return {"gymnasium": EnvironmentKind(make, check, behavior_names)}


def check(name: str, options: RunOptions) -> None:
    """Refuse an id that is not registered, and what no environment takes.

    Raises:
        UsageError: Gymnasium or a package that the environment imports is missing, there is no such id, or the
            configuration sets environment parameters or arguments that are not the user's to set.
    """
    gymnasium = _gymnasium(name)
    spec = _find(gymnasium, name)
    _check_arguments(spec, dict(options.env_settings.env_kwargs or {}))
    _check_packages(gymnasium, spec)
    if options.environment_parameters:
        refuse_parameters(options.environment_parameters, f"gymnasium:{spec.id}")


def behavior_names(name: str, options: RunOptions) -> list[str]:  # noqa: ARG001  (every kind gets them)
    """Return the one behavior's name: the id without namespace and version."""
    return [_find(_gymnasium(name), name).name]


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
    implementation, the default for several copies where there is one; `sync` steps single copies. `name` is a
    registered id, with or without its version; `package:id` imports the package that registers it, which may be a
    module in the current folder.

    Raises:
        UsageError: Gymnasium or a package that the environment needs is missing, there is no such id, or it does not
            take an argument or has a space that cannot be used.
        EnvironmentFailure: The environment does not start.
    """
    gymnasium = _gymnasium(name)
    from builtin_plugins.gymnasium_copies import GymnasiumCopies
    from builtin_plugins.gymnasium_vector import GymnasiumVector

    spec = _find(gymnasium, name)
    newest = _newest(gymnasium.registry, spec.id)
    if newest is not None and newest is not spec:
        logger.warning("%s is out of date: there is %s.", spec.id, newest.id)
    mode, envs = _make_envs(gymnasium, spec, num_areas, dict(options.env_settings.env_kwargs or {}))
    behavior: Callable[..., BaseEnv] = GymnasiumVector if mode == NATIVE else GymnasiumCopies
    settings = {"seed": seed, "worker_id": worker_id, "check": options.env_settings.check}
    try:
        return behavior(*envs, behavior_name=spec.name, title=f"gymnasium:{spec.id}", **settings)
    except Exception:
        for env in envs:
            close(env, f"gymnasium:{spec.id}")
        raise


def _gymnasium(name: str) -> ModuleType:
    try:
        return importlib.import_module("gymnasium")
    except ModuleNotFoundError as error:
        if error.name != "gymnasium":
            raise
        raise UsageError(
            f'"gymnasium:{name}" needs Gymnasium, which is not installed: pip install "mlhooks[gymnasium]"'
        ) from error


def _newest(registry: Mapping[str, EnvSpec], env_id: str) -> EnvSpec | None:
    family = _VERSION.sub("", env_id)
    versions = [spec for known, spec in registry.items() if _VERSION.sub("", known) == family]
    return max(versions, key=lambda spec: spec.version or 0, default=None)


def _find(gymnasium: ModuleType, name: str) -> EnvSpec:
    """Return the registered spec, of the newest version if the name has none."""
    package, _, env_id = name.rpartition(":")
    if package:
        if str(Path.cwd()) not in sys.path:
            sys.path.append(str(Path.cwd()))  # where a module of the user's own lies; worker processes inherit it
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise UsageError(
                f'"gymnasium:{name}" needs the package "{package}", which does not import: {error}'
            ) from error
    registry: dict[str, EnvSpec] = gymnasium.registry
    spec = registry.get(env_id) or (None if _VERSION.search(env_id) else _newest(registry, env_id))
    if spec is not None:
        return spec
    ids = {known.casefold(): known for known in sorted(registry)}
    near = [ids[known] for known in difflib.get_close_matches(env_id.casefold(), ids, n=3)]
    meant = " or ".join(f"gymnasium:{package}:{known}" if package else known for known in near)
    hint = f" Did you mean {meant}?" if near else ""
    if package:
        raise UsageError(
            f'Gymnasium knows no environment "{env_id}", and importing "{package}" did not register it.{hint}'
        )
    raise UsageError(
        f'Gymnasium knows no environment "{env_id}".{hint} If a package, or a module in the current folder, registers '
        f'it, name that, too: "gymnasium:MODULE:{env_id}".'
    )


def _check_arguments(spec: EnvSpec, arguments: Mapping[str, Any]) -> None:
    env = f'"gymnasium:{spec.id}"'
    for argument, instead in OURS.items():
        if argument in arguments:
            raise UsageError(f'{env} cannot take "{argument}" from env_settings.env_kwargs; use {instead}.')
    limit = arguments.get("max_episode_steps")
    if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 1):
        raise UsageError(f'"max_episode_steps" of {env} must be a whole number above 0, not {limit!r}.')
    mode = arguments.get("vectorization_mode", SYNC)
    if mode not in (NATIVE, SYNC):
        raise UsageError(
            f'"vectorization_mode" of {env} must be "{NATIVE}" or "{SYNC}", not {mode!r}; for worker processes use '
            "env_settings.num_envs."
        )


def _check_packages(gymnasium: ModuleType, spec: EnvSpec) -> None:
    """Import the module of the environment, most of which ask there for the packages that they need."""
    place = spec.entry_point or spec.vector_entry_point
    try:
        if isinstance(place, str):
            importlib.import_module(place.partition(":")[0])
    except (ImportError, gymnasium.error.DependencyNotInstalled) as error:
        raise _lacking(spec, error) from error
    except Exception:
        return  # making the environment tells that with what came of it


def _lacking(spec: EnvSpec, error: Exception) -> UsageError:
    return UsageError(f'"gymnasium:{spec.id}" needs a package that is not installed: {error}')


def _make_envs(gymnasium: ModuleType, spec: EnvSpec, copies: int, arguments: dict[str, Any]) -> tuple[str, list[Any]]:
    """Return the vectorization mode, and the vector environment or the single copies."""
    env = f'"gymnasium:{spec.id}"'
    _check_arguments(spec, arguments)
    has_native = spec.vector_entry_point is not None and not spec.additional_wrappers
    worth_it = has_native and (copies >= WORTH_A_VECTOR or spec.entry_point is None)
    mode = arguments.pop("vectorization_mode", NATIVE if worth_it else SYNC)
    try:
        with warnings.catch_warnings():
            # Gymnasium's advice to authors of environments, of no use to who trains in them.
            warnings.filterwarnings("ignore", module=r"gymnasium(\.|$)")
            if mode == NATIVE:
                return mode, [gymnasium.make_vec(spec, num_envs=copies, vectorization_mode=mode, **arguments)]
            envs: list[Any] = []
            try:
                envs += (gymnasium.make(spec, **{"disable_env_checker": True, **arguments}) for _ in range(copies))
            except BaseException:
                for made in envs:
                    close(made, f"gymnasium:{spec.id}")
                raise
            return mode, envs
    except (ImportError, gymnasium.error.DependencyNotInstalled) as error:
        raise _lacking(spec, error) from error
    except TypeError as error:
        if not arguments:
            raise EnvironmentFailure(f"{env} does not start: {error}") from error
        hint = (
            f'; its single copies may: add "vectorization_mode: {SYNC}"' if mode == NATIVE and spec.entry_point else ""
        )
        raise UsageError(f"{env} does not take the env_settings.env_kwargs {arguments}: {error}{hint}") from error
    except Exception as error:
        raise EnvironmentFailure(f"{env} does not start: {described(error)}") from error
