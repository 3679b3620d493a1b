"""The environment kind `pettingzoo`: environments of many agents, such as `pettingzoo:connect_four_v3`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from builtin_plugins.pettingzoo_finding import find_maker, names
from builtin_plugins.pettingzoo_own import INTERFACES, KEYS, adapt
from mlhooks.envs.own import names_of
from mlhooks.envs.parameters import refuse_parameters
from mlhooks.plugin import EnvironmentKind, hookimpl

if TYPE_CHECKING:
    from mlagents_envs.base_env import BaseEnv
    from mlagents_envs.side_channel.side_channel import SideChannel

    from mlhooks.plugin import RunOptions


conformance_environments = tuple(f"pettingzoo:builtin_plugins.pettingzoo_samples:{name}" for name in ("Hunt", "Nim"))
"""The environments with which `mlhooks plugins check` tries this plugin; PettingZoo's own need more packages."""


@hookimpl
def get_env_types() -> Mapping[str, Callable[..., BaseEnv]]:
    """Return the scheme `pettingzoo`."""
    return {
        "pettingzoo": EnvironmentKind(
            make,
            check,
            behavior_names,
            INTERFACES,
            quick=True,
            takes_areas=lambda *_: True,
            names=names,
            settings=lambda *_: KEYS,
        )
    }


def check(name: str, options: RunOptions) -> None:
    """Refuse a name of no environment, and what no environment takes.

    Raises:
        UsageError: PettingZoo or a package that the environment imports is missing, there is no such environment, or
            the configuration sets environment parameters.
    """
    find_maker(name)
    refuse_parameters(options.environment_parameters, f"pettingzoo:{name}")


def behavior_names(name: str, options: RunOptions) -> list[str] | None:
    """Return the names of all behaviors; None where the environment tells no `possible_agents`.

    Raises:
        UsageError: As `make`.
    """
    return names_of(make, name, options, f"pettingzoo:{name}")


def make(
    name: str,
    *,
    worker_id: int,
    seed: int,
    num_areas: int,
    options: RunOptions,
    side_channels: Sequence[SideChannel] = (),
) -> BaseEnv:
    """Make `num_areas` copies of an environment of PettingZoo, as one environment that has all their agents.

    The keyword arguments of the environment come from `env_settings.env_kwargs`, and the behaviors, teams and groups of
    its agents from `env_settings.teams`.

    Raises:
        UsageError: PettingZoo or a package that the environment needs is missing, there is no such environment, or it
            does not take an argument, has a space that cannot be used, or other agents than the teams.
        EnvironmentFailure: The environment does not start.
    """
    return adapt(
        find_maker(name),
        title=f"pettingzoo:{name}",
        behavior_name=None,
        worker_id=worker_id,
        seed=seed,
        num_areas=num_areas,
        options=options,
        side_channels=side_channels,
    )
