"""Environments of PettingZoo's two interfaces, made of a class or function of users or of PettingZoo's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from builtin_plugins.pettingzoo_finding import VERSION, import_pettingzoo, made
from mlhooks.describing import with_article
from mlhooks.envs.closing import close
from mlhooks.envs.own import starting
from mlhooks.envs.parameters import refuse_parameters
from mlhooks.places import defined_at, in_brackets
from mlhooks.plugin import ContractBroken, Interface

if TYPE_CHECKING:
    from mlagents_envs.base_env import BaseEnv
    from mlagents_envs.side_channel.side_channel import SideChannel

    from mlhooks.plugin import RunOptions


def adapt(
    maker: Callable[..., Any],
    *,
    title: str,
    behavior_name: str | None,
    worker_id: int,
    seed: int,
    num_areas: int,
    options: RunOptions,
    side_channels: Sequence[SideChannel] = (),  # noqa: ARG001  (every adapter gets them)
) -> BaseEnv:
    """Make `num_areas` copies of an environment, with the arguments in `env_settings.env_kwargs`.

    Raises:
        UsageError: a package is missing, or the environment does not take an argument or the teams, or has a space that
            cannot be used.
        EnvironmentFailure: it does not start, or is no environment of PettingZoo.
    """
    import_pettingzoo(title)
    from builtin_plugins.gymnasium_spaces import Reading
    from builtin_plugins.pettingzoo_behaviors import PettingZooEnv

    settings = options.env_settings
    envs: list[Any] = []
    try:
        envs += (_make(maker, title, dict(settings.env_kwargs or {})) for _ in range(num_areas))
        return PettingZooEnv(
            envs,
            title=title,
            name=behavior_name or name_of(envs[0]),
            seed=seed,
            worker_id=worker_id,
            teams=settings.teams or (),
            check=settings.check,
            reading=Reading.of(options),
        )
    except BaseException:
        for env in envs:
            close(env, title)
        raise


def _make(maker: Callable[..., Any], title: str, arguments: dict[str, Any]) -> Any:
    from pettingzoo import AECEnv, ParallelEnv

    with starting(title, arguments):
        env = made(title, maker, arguments)
    if not isinstance(env, AECEnv | ParallelEnv):
        raise ContractBroken(
            f"{title} makes {with_article(env)}{in_brackets(defined_at(env))}, which is neither a "
            "pettingzoo.ParallelEnv nor a pettingzoo.AECEnv."
        )
    return env


def name_of(env: Any) -> str:
    """Return what an environment calls itself, without its version; that of its class where it has no name."""
    name = (getattr(env, "metadata", None) or {}).get("name")
    return VERSION.sub("", str(name)) if name else type(env.unwrapped).__name__


def _check_own(title: str, options: RunOptions) -> None:
    refuse_parameters(options.environment_parameters, title)


KEYS = frozenset({"teams", "grid_observations"})
"""The keys of `env_settings` that environments of PettingZoo obey beside those that all do."""
INTERFACES = tuple(
    Interface(f"pettingzoo.{kind}", adapt, check=_check_own, settings=KEYS, names_when_made=True)
    for kind in ("ParallelEnv", "AECEnv")
)
"""The interfaces of classes that this kind runs."""
