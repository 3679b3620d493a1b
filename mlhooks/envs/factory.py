"""The factory of a worker's environment, in this process or, pickled, in another one."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from uuid import UUID

import numpy as np

from mlhooks.answers import checked
from mlhooks.describing import described, named, text_of, with_article
from mlhooks.envs.closing import close
from mlhooks.envs.own import Interface
from mlhooks.envs.parameters import Parameters, set_parameters
from mlhooks.envs.plugin_loading import with_plugins
from mlhooks.envs.told import spaces_of
from mlhooks.errors import EnvironmentFailure, MlhooksError, PluginError, UsageError
from mlhooks.places import defined_at, in_brackets, raised_at
from mlhooks.plugin_sources import Candidate

if TYPE_CHECKING:
    from mlagents_envs.base_env import BaseEnv, BehaviorSpec
    from mlagents_envs.side_channel.side_channel import SideChannel

    from mlhooks.envs.spaces import Spaces
    from mlhooks.plugins import PluginManager
    from mlhooks.settings import RunOptions


_USED = ("behavior_specs", "reset", "step", "get_steps", "set_actions", "close")
"""What a run uses of a `BaseEnv`."""

_GYMNASIUM = "single Gymnasium environments"
OF_SOME_KINDS = {
    "wrappers": _GYMNASIUM,
    "atari": _GYMNASIUM,
    "teams": "environments of PettingZoo",
    "grid_observations": "environments of Gymnasium and PettingZoo",
}
"""Keys of `env_settings` that an environment has to obey and not every kind knows, and what they are for."""

MOST_AREAS = 16
"""Copies of an environment that evaluations make at most, because some are large."""


def evaluation_seed(seed: int) -> int:
    """Return the seed of evaluations of a run with this seed."""
    return int(np.random.SeedSequence([seed, *b"evaluation"]).generate_state(1)[0])


@dataclass(frozen=True)
class EnvironmentKind:
    """A maker of environments of one kind, for `get_env_types`, which can tell in advance what it cannot make.

    Args:
        make: the factory.
        check: called as `check(name, options)` before a run changes anything; raises what keeps the environment from
            being made, such as a wrong name.
        behavior_names: called as `behavior_names(name, options)` after `check`, where a kind knows before it makes an
            environment which behaviors that has; returns all of their names, or None where this one does not tell.
            Settings of other behaviors are then refused before a run changes anything.
        interfaces: those of Python classes whose environments this kind runs, too, as `--env corridor.py:Corridor`
            names them.
        quick: whether making an environment takes little time and changes nothing. A run without a configuration then
            makes one first, to choose settings by what it shows, and each evaluation makes one, with the same seed;
            otherwise one is kept for all evaluations, and reset for each.
        takes_areas: called as `takes_areas(name, options)`; whether `num_areas` may be more than one. Without a
            configuration there are then as many as the trainer type learns well from.
        names: returns names that may stand behind the scheme, for hints and completion.
        settings: called as `settings(name, options)`; returns the keys among `OF_SOME_KINDS` that this environment
            obeys. Others are refused.
        suggests: called as `suggests(name, options)`; returns keys of `env_settings` that a run without a configuration
            has for this environment, such as the usual preprocessing. The general settings may have a section of the
            same name as a key.
    """

    make: Callable[..., BaseEnv]
    check: Callable[[Any, RunOptions], None]
    behavior_names: Callable[[Any, RunOptions], Collection[str] | None] | None = None
    interfaces: Sequence[Interface] = ()
    quick: bool = False
    takes_areas: Callable[[Any, RunOptions], bool] | None = None
    names: Callable[[], Iterable[str]] | None = None
    settings: Callable[[Any, RunOptions], Collection[str]] | None = None
    suggests: Callable[[Any, RunOptions], Mapping[str, Any]] | None = None

    def __call__(self, name: str | None, **arguments: Any) -> BaseEnv:
        """Make an environment."""
        return self.make(name, **arguments)


@dataclass
class EnvironmentFactory:
    """Makes environments: `factory(worker_id)`.

    Pickled, it holds what another process needs and no more: instead of the plugins their functions that make side
    channels, and options without the settings of behaviors, whose classes would import torch. Where it is unpickled in
    another process, `plugins` are loaded first.

    Args:
        make: the factory of the environment kind, as plugins give it.
        name: what `--env` says behind the scheme.
        options: the options of the run.
        channels: makes all plugins' side channels, with whose they are.
        kind: the environment kind and whose it is, for messages.
        parameters: the environment parameters with which an environment starts.
        plugins: what another process must load for what plugins register when they are imported.
        hint: returns what was probably meant by a name that is refused, as the end of a message, or nothing.
    """

    make: Callable[..., BaseEnv]
    name: str | None
    options: RunOptions
    channels: Callable[[RunOptions], list[tuple[Any, Sequence[SideChannel]]]]
    kind: str = "The environment kind"
    parameters: Parameters = field(default_factory=dict)
    plugins: Sequence[Candidate] = ()
    hint: Callable[[], str] | None = None

    def __call__(self, worker_id: int) -> BaseEnv:
        """Make the environment of a worker.

        Raises:
            PluginError: two plugins open the same side channel; or what makes environments takes other arguments, or
                makes something else.
            EnvironmentFailure: the environment cannot be made.
            UsageError: there are environment parameters, and it takes none.
        """
        env = self._made(
            worker_id=worker_id,
            seed=self.options.env_settings.seed,
            num_areas=self.options.env_settings.num_areas,
            options=self.options,
            side_channels=self._side_channels(),
        )
        try:
            set_parameters(env, self.parameters, worker_id, self.options.env_settings.env_path or "The environment")
        except BaseException:
            close(env, "The environment")
            raise
        return env

    def _made(self, **arguments: Any) -> BaseEnv:
        try:
            env = self.make(self.name, **arguments)
        except (MlhooksError, KeyboardInterrupt):
            raise
        except BaseException as error:
            make = self.make.make if isinstance(self.make, EnvironmentKind) else self.make
            self._refuse_signature(make, arguments)
            where = in_brackets(raised_at(error) or defined_at(make))
            raise EnvironmentFailure(f"{self.kind} failed to make its environment: {named(error)}{where}.") from error
        missing = [] if hasattr(type(env), "__getattr__") else [name for name in _USED if name not in dir(env)]
        if missing:
            made = f"{with_article(env)}{in_brackets(defined_at(env))}"
            raise PluginError(
                f"{self.kind} must make a mlagents_envs.base_env.BaseEnv; it made {made}, which has no "
                f"{', '.join(missing)}."
            )
        return env

    def _refuse_signature(self, make: Callable[..., BaseEnv], arguments: Mapping[str, Any]) -> None:
        try:
            inspect.signature(make).bind(self.name, **arguments)
        except TypeError as error:
            function = f"`{getattr(make, '__qualname__', make)}`{in_brackets(defined_at(make))}"
            raise PluginError(
                f"{self.kind} must take the arguments of make(name, *, {', '.join(arguments)}), those unused by **_; "
                f"{function} cannot be called so: {text_of(error)}."
            ) from None
        except ValueError:  # Some functions tell nothing about their arguments.
            return

    def check(self) -> None:
        """Refuse what is known not to start, where the environment kind can tell.

        Raises:
            MlhooksError: says what is wrong; nothing was started.
        """
        self._refuse_settings_of_others()
        if not isinstance(self.make, EnvironmentKind):
            return
        try:
            self._call_kind(self.make.check, self.options.with_evaluation())
        except MlhooksError as error:
            if self.hint is not None and error.exit_code == UsageError.exit_code and (hint := self.hint()):
                what = getattr(error, "what", None)  # Its advice does not help here.
                raise UsageError(f"{what or error}{'.' if what else ''} {hint}") from error
            raise

    def _refuse_settings_of_others(self) -> None:
        env = self.options.env_settings
        asked = [key for key in OF_SOME_KINDS if getattr(env, key)]
        if not asked:
            return
        tell = self.make.settings if isinstance(self.make, EnvironmentKind) else None
        known = () if tell is None else self._call_kind(tell)
        what = env.env_path or "the Unity Editor"
        for key in asked:
            if key not in known:
                raise UsageError(f"env_settings.{key} is for {OF_SOME_KINDS[key]}, and {what} is none: remove it.")

    def suggested_settings(self) -> dict[str, Any]:
        """Return what the kind suggests for `env_settings`, without what was set already."""
        tell = self.make.suggests if isinstance(self.make, EnvironmentKind) else None
        said = self.options.env_settings.model_fields_set
        return {} if tell is None else {k: value for k, value in self._call_kind(tell).items() if k not in said}

    def with_settings(self, settings: Mapping[str, Any]) -> EnvironmentFactory:
        """Return a factory whose options have other values of these keys of `env_settings`."""
        env = self.options.env_settings.model_copy(update=dict(settings))
        return replace(self, options=self.options.model_copy(update={"env_settings": env}))

    def _call_kind(self, question: Callable[[Any, RunOptions], Any], options: RunOptions | None = None) -> Any:
        try:
            return question(self.name, options or self.options)
        except (MlhooksError, KeyboardInterrupt):
            raise
        except BaseException as error:
            function = getattr(question, "__qualname__", question)
            raise PluginError(f"{self.kind} failed in `{function}`: {described(error)}.") from error

    def behavior_names(self) -> list[str] | None:
        """Return the names of all behaviors that the environment will show; None where that is not known yet.

        Raises:
            PluginError: the environment kind answers something else.
        """
        tell = self.make.behavior_names if isinstance(self.make, EnvironmentKind) else None
        names = None if tell is None else self._call_kind(tell)
        if names is None:
            return None
        listed = [] if isinstance(names, str) or not isinstance(names, Collection) else list(names)
        if not listed or not all(isinstance(name, str) for name in listed):
            raise PluginError(
                f"{self.kind} must tell its behaviors' names as a list of text, or None; its behavior_names"
                f"{in_brackets(defined_at(tell))} returned {names!r}."
            )
        return listed

    def takes_areas(self) -> bool:
        """Return whether the kind says that there may be several areas."""
        tell = self.make.takes_areas if isinstance(self.make, EnvironmentKind) else None
        return tell is not None and bool(self._call_kind(tell))

    @property
    def is_quick(self) -> bool:
        """Whether the kind says that making an environment takes little time and changes nothing."""
        return isinstance(self.make, EnvironmentKind) and self.make.quick

    def for_evaluation(self, episodes: int) -> EnvironmentFactory:
        """Return what makes environments for evaluations: with a seed of their own, and an area for each episode.

        Args:
            episodes: the most that are wanted of one behavior. Where the kind does not say that there may be several
                areas, or where somebody watches them, there are as many as in training.
        """
        options = self.options.model_copy(deep=True)
        env = options.env_settings
        env.seed, env.whole_episodes = evaluation_seed(env.seed), True
        if self.takes_areas() and "render_mode" not in (env.env_kwargs or {}):
            env.num_areas = min(episodes, MOST_AREAS)
        return replace(self, options=options)

    def inspect_behaviors(self) -> dict[str, tuple[BehaviorSpec, Spaces | None]] | None:
        """Make an environment to see its behaviors, and close it; None where the kind does not say that this is quick.

        Returns each behavior's spec, and its spaces in the environment's own terms where it has such.

        Raises:
            MlhooksError: it cannot be made.
        """
        if not self.is_quick:
            return None
        options = self.options.model_copy(deep=True)
        options.env_settings.num_areas, options.env_settings.seed = 1, max(0, options.env_settings.seed)
        env = replace(self, options=options)(0)
        try:
            if not env.behavior_specs:
                env.reset()
            spaces = spaces_of(env)
            return {name: (spec, spaces.get(name)) for name, spec in env.behavior_specs.items()}
        finally:
            close(env, "The environment")

    def _side_channels(self) -> list[SideChannel]:
        channels: dict[UUID, tuple[Any, SideChannel]] = {}
        for origin, made in self.channels(self.options):
            for channel in made:
                if channel.channel_id in channels:
                    raise PluginError(
                        f"Two plugins open the side channel {channel.channel_id}: {channels[channel.channel_id][0]} "
                        f"and {origin}. Block one of them with -p no:NAME."
                    )
                channels[channel.channel_id] = origin, channel
        return [channel for _, channel in channels.values()]

    def __reduce__(self) -> tuple[Any, ...]:
        parts = {**self.__dict__, "options": self.options.without_behaviors(), "hint": None}
        return with_plugins(self.plugins, _Parts(parts))


class _Parts:
    """The parts of a factory; unpickled, they are the factory."""

    def __init__(self, parts: dict[str, Any]) -> None:
        self.parts = parts

    def __reduce__(self) -> tuple[Any, ...]:
        return _factory, (self.parts,)


def _factory(parts: dict[str, Any]) -> EnvironmentFactory:
    return EnvironmentFactory(**parts)


class PluginChannels:
    """Collects the side channels of plugins; pickled, it holds the plugins' functions alone."""

    def __init__(self, plugins: PluginManager) -> None:
        self._plugins = plugins

    def __call__(self, options: RunOptions) -> list[tuple[Any, Sequence[SideChannel]]]:
        """Return new side channels for one worker."""
        return [(origin, made) for origin, made in self._plugins.collect("register_side_channels", options=options)]

    def __reduce__(self) -> tuple[Any, ...]:
        makers = [
            (str(self._plugins.origin_of(impl.plugin)), inspect.unwrap(impl.function), impl.argnames)
            for impl in reversed(self._plugins.hook.register_side_channels.get_hookimpls())
            if not (impl.wrapper or impl.hookwrapper)
        ]
        return CollectedChannels, (makers,)


class CollectedChannels:
    """Makes side channels by functions that were taken from their plugins; their failures and answers are judged alike.

    Args:
        makers: of each plugin what it is called, the function, and the names of its arguments.
    """

    def __init__(self, makers: list[tuple[str, Callable[..., Any], Sequence[str]]]) -> None:
        self._makers = makers

    def __call__(self, options: RunOptions) -> list[tuple[Any, Sequence[SideChannel]]]:
        """Return new side channels for one worker."""
        given = {"options": options}
        made = []
        for origin, make, names in self._makers:
            try:
                answer = make(*(given[name] for name in names))
                made.append((origin, [] if answer is None else checked("register_side_channels", answer, given)))
            except (MlhooksError, KeyboardInterrupt):
                raise
            except BaseException as error:
                raise PluginError(f"{origin} failed in its hook register_side_channels: {described(error)}.") from error
        return made
