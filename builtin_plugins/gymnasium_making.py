"""Make Gymnasium environments of a spec: single copies, or a vector environment of the environment's own."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

from builtin_plugins.gymnasium_registry import is_atari, missing_package
from mlhooks.envs.closing import close
from mlhooks.envs.own import starting
from mlhooks.plugin import UsageError

if TYPE_CHECKING:
    from gymnasium.envs.registration import EnvSpec

NATIVE, SYNC = "vector_entry_point", "sync"
"""The vectorization modes: the environment's own vector environment, and a loop over single copies."""
LEAST_COPIES = 10
"""The number of copies from which on array code is faster than a loop over scalar code."""
NOT_FOR_USERS = {
    "num_envs": "env_settings.num_areas",
    "vector_kwargs": "vectorization_mode",
    "wrappers": "env_settings.wrappers",
}
"""Arguments of `gymnasium.make_vec` that users cannot set, and what to use instead."""


def check_arguments(spec: EnvSpec, arguments: Mapping[str, Any], *, wrapped: bool = False) -> None:
    """Refuse arguments of `gymnasium.make` that users cannot set, or values that it does not take.

    Args:
        spec: of the environment.
        arguments: those of the configuration.
        wrapped: whether the configuration puts wrappers around single copies.

    Raises:
        UsageError: says which, and what to use instead.
    """
    env = f'"gymnasium:{spec.id}"'
    for argument, instead in NOT_FOR_USERS.items():
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
    if wrapped and (mode == NATIVE or spec.entry_point is None):
        instead = "remove vectorization_mode from env_settings.env_kwargs"
        raise UsageError(
            f"The wrappers of env_settings are put around single copies, and {env} is to be made as a vector "
            f"environment of its own: {instead if spec.entry_point else 'it has no single ones'}."
        )


def make_envs(gymnasium: ModuleType, spec: EnvSpec, copies: int, arguments: dict[str, Any]) -> tuple[str, list[Any]]:
    """Return the vectorization mode, and the vector environment or the single copies.

    Raises:
        UsageError: a package is missing, or the environment does not take the arguments.
        EnvironmentFailure: the environment does not start.
    """
    check_arguments(spec, arguments)
    # That of Atari games shows other observations than a single copy does.
    has_native = spec.vector_entry_point is not None and not spec.additional_wrappers and not is_atari(spec)
    worth_it = has_native and (copies >= LEAST_COPIES or spec.entry_point is None)
    mode = arguments.pop("vectorization_mode", NATIVE if worth_it else SYNC)
    title = f'"gymnasium:{spec.id}"'
    if mode == SYNC:
        return mode, make_copies(gymnasium, spec, copies, arguments, title)
    hint = f'; its single copies may: add "vectorization_mode: {SYNC}"' if spec.entry_point else ""
    with _starting(gymnasium, spec, arguments, title, hint):
        return mode, [gymnasium.make_vec(spec, num_envs=copies, vectorization_mode=mode, **arguments)]


def make_copies(
    gymnasium: ModuleType, spec: EnvSpec, copies: int, arguments: Mapping[str, Any], title: str
) -> list[Any]:
    """Make single copies of an environment; if one fails, close the others.

    Raises:
        UsageError: a package is missing, or the environment does not take the arguments.
        EnvironmentFailure: the environment does not start.
    """
    with _starting(gymnasium, spec, arguments, title):
        envs: list[Any] = []
        try:
            envs += (gymnasium.make(spec, **{"disable_env_checker": True, **arguments}) for _ in range(copies))
        except BaseException:
            for made in envs:
                close(made, title)
            raise
        return envs


@contextlib.contextmanager
def without_gymnasiums_warnings() -> Iterator[None]:
    """Suppress Gymnasium's warnings in the block: they are for authors of environments, not for those who train."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"gymnasium(\.|$)")
        yield


@contextlib.contextmanager
def _starting(
    gymnasium: ModuleType, spec: EnvSpec, arguments: Mapping[str, Any], title: str, hint: str = ""
) -> Iterator[None]:
    """Turn what goes wrong while environments are made in the block into errors for the person who chose them."""
    with starting(title, arguments, hint), without_gymnasiums_warnings():
        try:
            yield
        except (ImportError, gymnasium.error.DependencyNotInstalled) as error:
            raise missing_package(title, spec, error) from error
