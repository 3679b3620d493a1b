"""The interfaces by which the environment kind `gymnasium` runs classes and functions of users."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from builtin_plugins.gymnasium_making import make_copies
from builtin_plugins.gymnasium_registry import import_gymnasium, spec_of
from builtin_plugins.gymnasium_wrapping import KEYS, blamed, wrap_all, wrappers_of
from mlhooks.envs.closing import close
from mlhooks.envs.own import accepts, call
from mlhooks.envs.parameters import refuse_parameters
from mlhooks.places import defined_at, in_brackets
from mlhooks.plugin import ContractBroken, Interface

if TYPE_CHECKING:
    from types import ModuleType

    from mlagents_envs.base_env import BaseEnv
    from mlagents_envs.side_channel.side_channel import SideChannel

    from builtin_plugins.gymnasium_stack import Stack
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
    """Make `num_areas` copies of a class or function, with the arguments that a registered id would get.

    Raises:
        UsageError: it does not take an argument or has a space that cannot be used.
        EnvironmentFailure: it does not start.
    """
    gymnasium = import_gymnasium(title)
    names: list[str] = []

    def made(**arguments: Any) -> Any:
        env = maker(**arguments)
        for space in ("observation_space", "action_space"):
            if getattr(env, space, None) is None:
                place = in_brackets(defined_at(type(env).__init__))
                raise ContractBroken(f"{title} has no {space}: set self.{space} in __init__{place}.")
        names.append(behavior_name or name_of(env))
        return env

    arguments = dict(options.env_settings.env_kwargs or {})
    copies = make_copies(gymnasium, spec_of(gymnasium, made, behavior_name or "Own"), num_areas, arguments, title)
    settings = {"behavior_name": names[0], "title": title, "seed": seed, "worker_id": worker_id}
    return copies_of(gymnasium, copies, options, **settings)


def copies_of(gymnasium: ModuleType, envs: Sequence[Any], options: RunOptions, **settings: Any) -> BaseEnv:
    """Return single copies of an environment with the wrappers of the configuration, as one environment.

    Args:
        gymnasium: the package.
        envs: the copies, which are closed if this fails.
        options: of the run.
        settings: those of `GymnasiumBehavior`, without what `options` say.

    Raises:
        UsageError: a wrapper does not go with the environment, or a space cannot be used.
        EnvironmentFailure: the copies differ in their spaces.
    """
    from builtin_plugins.gymnasium_copies import GymnasiumCopies

    title, wanted = settings["title"], options.env_settings
    stacks: Sequence[Stack] = ()
    try:
        if wanted.wrappers or wanted.atari:
            whole = wanted.whole_episodes or options.checkpoint_settings.inference
            stacks = wrap_all(gymnasium, envs, wrappers_of(gymnasium, wanted, whole_episodes=whole), title)
            envs = [stack.env for stack in stacks]
        return GymnasiumCopies(*envs, stacks=stacks, **settings, **settings_of(options))
    except Exception as error:
        for env in envs:
            close(env, title)
        raise blamed(stacks, error) from error.__cause__


def adapt_vector(
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
    """Make a vector environment, which gets `num_areas` as its `num_envs` where it takes that.

    Raises:
        EnvironmentFailure: it does not start.
    """
    from builtin_plugins.gymnasium_vector import GymnasiumVector

    arguments = dict(options.env_settings.env_kwargs or {})
    if num_areas > 1 and accepts(maker, "num_envs"):
        arguments.setdefault("num_envs", num_areas)
    env = call(title, maker, arguments)
    settings = {"seed": seed, "worker_id": worker_id, **settings_of(options)}
    try:
        return GymnasiumVector(env, behavior_name=behavior_name or name_of(env), title=title, **settings)
    except Exception:
        close(env, title)
        raise


def settings_of(options: RunOptions) -> dict[str, Any]:
    """Return the settings of a run that `GymnasiumBehavior` takes."""
    from builtin_plugins.gymnasium_spaces import Reading

    return {"check": options.env_settings.check, "reading": Reading.of(options)}


def name_of(env: Any) -> str:
    """Return the behavior's name of an environment: that of its registered id, or else its class's name."""
    spec = getattr(env, "spec", None)
    return str(getattr(spec, "name", None) or type(getattr(env, "unwrapped", env)).__name__)


def _check_own(title: str, options: RunOptions) -> None:
    refuse_parameters(options.environment_parameters, title)
    wrappers_of(import_gymnasium(title), options.env_settings)


INTERFACES = (
    Interface(
        "gymnasium.Env", adapt, name_of, frozenset({"max_episode_steps", "disable_env_checker"}), _check_own, KEYS
    ),
    Interface(
        "gymnasium.vector.VectorEnv",
        adapt_vector,
        name_of,
        check=_check_own,
        settings=frozenset({"grid_observations"}),
    ),
)
"""The interfaces of classes that this kind runs."""
