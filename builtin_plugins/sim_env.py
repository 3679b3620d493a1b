"""The environment kind `sim`: simulations in numpy, such as `sim:3DBall`, that need no installation."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mlhooks.plugin import EnvironmentKind, UsageError, hookimpl

if TYPE_CHECKING:
    from mlagents_envs.base_env import BaseEnv
    from mlagents_envs.side_channel.side_channel import SideChannel

    from mlhooks.plugin import RunOptions

conformance_environments = (
    *("sim:3DBall", "sim:Basic", "sim:GridWorld", "sim:Sorter"),
    *("sim:StrikeAndGuard", "sim:Tag", "sim:Sacrifice"),
)
"""The environments with which `mlhooks plugins check` tries this plugin."""


@hookimpl
def get_env_types() -> Mapping[str, Callable[..., BaseEnv]]:
    """Return the scheme `sim`."""
    return {
        "sim": EnvironmentKind(
            make,
            check,
            _behavior_names,
            quick=True,
            takes_areas=lambda *_: True,
            names=_names,
        )
    }


def _behavior_names(name: str, options: RunOptions) -> list[str] | None:  # noqa: ARG001  (every kind gets them)
    from mlhooks.sims import SIMULATIONS

    return SIMULATIONS[name].behavior_names() if name in SIMULATIONS else None


def _names() -> list[str]:
    from mlhooks.sims import SIMULATIONS

    return list(SIMULATIONS)


def check(name: str, options: RunOptions) -> None:
    """Refuse a name of no simulation, and what a simulation does not take.

    Raises:
        UsageError: There is no such simulation, or it does not take an argument or its value, or an environment
            parameter.
    """
    # Here, so that starting the command line does not wait for numpy.
    from mlhooks.sims import SIMULATIONS

    if name not in SIMULATIONS:
        raise UsageError(f'There is no simulation "sim:{name}"; {_choices(name, SIMULATIONS)}')
    simulation = SIMULATIONS[name]
    arguments = _arguments(options)
    taken = set(inspect.signature(simulation).parameters) - {"num_areas", "seed", "worker_id"}
    for argument in arguments:
        if argument not in taken:
            raise UsageError(
                f'"sim:{name}" does not take the argument "{argument}" of env_settings.env_kwargs; '
                f"{_choices(argument, taken)}"
            )
    _refuse_no_counts(name, arguments)
    members = getattr(simulation, "MEMBERS", 1)
    if arguments.get("num_agents", 0) % members:
        raise UsageError(
            f'"num_agents" of "sim:{name}" must be a multiple of {members}, the members of a group, not '
            f"{arguments['num_agents']}."
        )
    for parameter in options.environment_parameters or {}:
        if parameter not in simulation.PARAMETERS:
            raise UsageError(
                f'"sim:{name}" has no environment parameter "{parameter}", which environment_parameters of the '
                f"configuration sets; {_choices(parameter, simulation.PARAMETERS)}"
            )


def _arguments(options: RunOptions) -> dict[str, Any]:
    return dict(options.env_settings.env_kwargs or {})


def make(
    name: str,
    *,
    worker_id: int,
    seed: int,
    num_areas: int,
    options: RunOptions,
    side_channels: Sequence[SideChannel] = (),  # noqa: ARG001  (every factory gets them)
) -> BaseEnv:
    """Make the simulation called `name`, with the arguments in `env_settings.env_kwargs`.

    Raises:
        UsageError: As `check`.
    """
    from mlhooks.sims import SIMULATIONS

    check(name, options)
    _refuse_no_counts(name, {"num_areas": num_areas})
    return SIMULATIONS[name](num_areas=num_areas, seed=seed, worker_id=worker_id, **_arguments(options))


def _refuse_no_counts(name: str, arguments: Mapping[str, Any]) -> None:
    for argument, value in arguments.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise UsageError(f'"{argument}" of "sim:{name}" must be a whole number above 0, not {value!r}.')


def _choices(given: str, names: Iterable[str]) -> str:
    """Return the end of a sentence that lists the names, led by the one that is nearest to what was given."""
    by_folded = {name.casefold(): name for name in sorted(names)}
    near = difflib.get_close_matches(given.casefold(), by_folded, n=1)
    meant = f'did you mean "{by_folded[near[0]]}"? ' if near else ""
    return f"{meant}There are: {', '.join(by_folded.values()) or 'none'}."
