"""Environments of the user's own classes and functions, whatever interface they have.

A class is named by `--env corridor.py:Corridor`, or handed to `mlhooks.train(env=Corridor)`. Environment kinds declare
the interfaces that they can run; mlhooks itself runs `BaseEnv`.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mlhooks.describing import described, named, with_article
from mlhooks.envs.closing import close
from mlhooks.envs.references import find
from mlhooks.errors import EnvironmentFailure, MlhooksError, UsageError
from mlhooks.places import defined_at, in_brackets, raised_at

if TYPE_CHECKING:
    from mlagents_envs.base_env import BaseEnv
    from mlagents_envs.side_channel.side_channel import SideChannel

    from mlhooks.settings import RunOptions

OLD = {"gym": "gym has become gymnasium: make it a class of gymnasium.Env"}
"""Packages whose environments cannot be run, and what to say about them."""


@dataclass(frozen=True)
class Interface:
    """An interface of Python classes whose environments an environment kind can run.

    Args:
        name: the dotted name of the interface's class, such as `gymnasium.Env`. It need not be imported here, because
            whoever defines an environment of it has imported it.
        adapt: called as `adapt(maker, title=..., behavior_name=..., worker_id=..., seed=..., num_areas=...,
            options=..., side_channels=...)`, where `maker` is the user's class or function and takes
            `env_settings.env_kwargs`; returns a `BaseEnv`. `behavior_name` is the class's name, or None for a function.
        behavior_name: returns the name of the one behavior of an environment that a function made; None for interfaces
            whose environments name their behaviors themselves.
        arguments: keys of `env_settings.env_kwargs` that the adapter gets, unless the maker takes them itself.
        check: called as `check(title, options)`; raises what keeps environments of this interface from being made.
        settings: the keys of `env_settings` that its environments obey, of those that not every kind knows.
        names_when_made: whether an adapted environment, which is made in little time, shows all behaviors in
            `behavior_specs` before its first reset, or none where it does not know them yet.
    """

    name: str
    adapt: Callable[..., BaseEnv]
    behavior_name: Callable[[Any], str] | None = None
    arguments: frozenset[str] = frozenset()
    check: Callable[[str, RunOptions], None] | None = None
    settings: frozenset[str] = frozenset()
    names_when_made: bool = False

    def fits(self, kind: type) -> bool:
        """Return whether a class has this interface."""
        module, _, name = self.name.rpartition(".")
        base = getattr(sys.modules.get(module), name, None)
        return isinstance(base, type) and issubclass(kind, base)


@dataclass
class OwnEnvironments:
    """A factory of the environments of one class or function.

    Pickled without a `maker`, it holds the reference alone.

    Args:
        title: the reference, or the name of the maker in messages.
        interfaces: the interfaces of all environment kinds, and `BaseEnv`.
        maker: the class or function, where it was handed over and not named.
    """

    title: str
    interfaces: Sequence[Interface]
    maker: Callable[..., Any] | None = None
    _found: Callable[..., Any] | None = field(default=None, repr=False, compare=False)
    _made: tuple[Interface, str | None] | None = field(default=None, repr=False, compare=False)
    _living: list[weakref.ref[Any]] = field(default_factory=list, repr=False, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_found": None, "_living": []}

    def check(self, _: Any, options: RunOptions) -> None:
        """Refuse what cannot be found, is no environment, or does not take the arguments.

        Raises:
            UsageError: says what is wrong; nothing was made.
        """
        maker = self._maker()
        if isinstance(maker, type):
            interface = self._interface(maker)
            if interface.check is not None:
                interface.check(self.title, options)
            self._check_arguments(maker, self._arguments(maker, interface, options))

    def behavior_names(self, _: Any, options: RunOptions) -> list[str] | None:
        """Return the name of a class; a function is called once, for the name of what it makes."""
        maker = self._maker()
        kind = isinstance(maker, type)
        interface, name = (self._interface(maker), maker.__name__) if kind else self._seen(maker, options)
        if interface.behavior_name is not None and name is not None:
            return [name]
        return names_of(self.make, None, options, self.title) if interface.names_when_made else None

    def _seen(self, maker: Callable[..., Any], options: RunOptions) -> tuple[Interface, str | None]:
        """Return the interface of what a function makes, and the one behavior's name; the function is called once."""
        if self._made is None:
            made, interface = self._call(maker, options)
            try:
                self._made = interface, interface.behavior_name(made) if interface.behavior_name else None
            finally:
                close(made, self.title)
        return self._made

    def takes_areas(self, _: Any, options: RunOptions) -> bool:
        """Return whether a worker may hold several copies; a `BaseEnv` without the argument `num_areas` cannot."""
        maker = self._maker()
        if accepts(maker, "num_areas"):
            return True
        if isinstance(maker, type):
            return self._interface(maker) is not BASE_ENV
        return self._seen(maker, options)[0] is not BASE_ENV

    def settings(self, _: Any, options: RunOptions) -> frozenset[str]:
        """Return the keys of `env_settings` that the environment's interface obeys beside those that all do."""
        maker = self._maker()
        interface = self._interface(maker) if isinstance(maker, type) else self._seen(maker, options)[0]
        return interface.settings

    def make(
        self,
        _: Any,
        *,
        worker_id: int,
        seed: int,
        num_areas: int,
        options: RunOptions,
        side_channels: Sequence[SideChannel] = (),
    ) -> BaseEnv:
        """Make the environment of a worker.

        Raises:
            UsageError: it is no environment, or does not take the arguments.
            EnvironmentFailure: it cannot be made.
        """
        maker = self._maker()
        name = None
        if isinstance(maker, type):
            interface = self._interface(maker)
            name = maker.__name__
            self._check_arguments(maker, self._arguments(maker, interface, options))
        else:
            made, interface = self._call(maker, options)
            maker = _after(made, maker)
            if options.evaluations:  # Evaluations would change a shared environment.
                maker = self._new_each_time(maker)
        return interface.adapt(
            maker,
            title=self.title,
            behavior_name=name,
            worker_id=worker_id,
            seed=seed,
            num_areas=num_areas,
            options=options,
            side_channels=side_channels,
        )

    def _new_each_time(self, maker: Callable[..., Any]) -> Callable[..., Any]:
        def made(**arguments: Any) -> Any:
            env = maker(**arguments)
            self._living = [reference for reference in self._living if reference() is not None]
            if any(reference() is env for reference in self._living):
                raise UsageError(
                    f"{self.title} gives the same {type(env).__name__} each time it is called, and an evaluation needs "
                    "an environment of its own: let the function make a new one."
                )
            with contextlib.suppress(TypeError):  # There are no weak references to some objects.
                self._living.append(weakref.ref(env))
            return env

        return made

    def _maker(self) -> Callable[..., Any]:
        if self._found is None:
            self._found = self.maker or find(self.title)
        return self._found

    def _interface(self, thing: Any) -> Interface:
        kind = thing if isinstance(thing, type) else type(thing)
        for interface in self.interfaces:
            if interface.fits(kind):
                return interface
        wanted = " or ".join(each.name for each in self.interfaces)
        old = next((OLD[name] for base in kind.__mro__ if (name := base.__module__.partition(".")[0]) in OLD), None)
        what = "is a class" if isinstance(thing, type) else f"makes {with_article(thing)},"
        what += f"{in_brackets(defined_at(kind))} that is" if isinstance(thing, type) else " which is"
        raise UsageError(f"{self.title} {what} no environment: {old or f'it must be a {wanted}'}.")

    def _call(self, maker: Callable[..., Any], options: RunOptions) -> tuple[Any, Interface]:
        """Call a function, and return the environment that it made with the interface that this has."""
        others = frozenset[str]().union(*(each.arguments for each in self.interfaces))
        given = dict(options.env_settings.env_kwargs or {})
        arguments = {key: value for key, value in given.items() if key not in others or accepts(maker, key)}
        self._check_arguments(maker, arguments)
        made = call(self.title, maker, arguments)
        return made, self._interface(made)

    def _arguments(self, maker: Callable[..., Any], interface: Interface, options: RunOptions) -> Mapping[str, Any]:
        given = options.env_settings.env_kwargs or {}
        return {key: value for key, value in given.items() if key not in interface.arguments or accepts(maker, key)}

    def _check_arguments(self, maker: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
        signature = signature_of(maker)
        if signature is None:
            return
        try:
            signature.bind(**arguments)
        except TypeError as error:
            raise UsageError(
                f"{self.title} {_cannot_be_made_with(arguments)}: {error}{in_brackets(defined_at(maker))}. Its "
                "arguments come from env_settings.env_kwargs, as in --set 'env_settings.env_kwargs={size: 5}'."
            ) from None


def _cannot_be_made_with(arguments: Mapping[str, Any]) -> str:
    return f"does not take the arguments {dict(arguments)}" if arguments else "needs arguments"


def names_of(make: Callable[..., BaseEnv], name: str | None, options: RunOptions, title: str) -> list[str] | None:
    """Return the names of the behaviors that an environment shows before its first reset; None where it shows none.

    Args:
        make: the factory of the environment kind.
        name: what it gets as the name.
        options: of the run.
        title: the name of the environment in messages.

    Raises:
        UsageError: it cannot be made as the options say.
    """
    try:
        env = make(name, worker_id=0, seed=max(0, options.env_settings.seed), num_areas=1, options=options)
    except EnvironmentFailure:
        return None  # The run tells it when it makes the environment.
    try:
        return list(dict.fromkeys(behavior_id.partition("?")[0] for behavior_id in env.behavior_specs)) or None
    finally:
        close(env, title)


def signature_of(maker: Callable[..., Any]) -> inspect.Signature | None:
    """Return the signature of a class or function; None where Python does not know it."""
    try:
        return inspect.signature(maker)
    except (TypeError, ValueError):
        return None


def accepts(maker: Callable[..., Any], argument: str) -> bool:
    """Return whether a class or function takes an argument by its name."""
    signature = signature_of(maker)
    return signature is not None and argument in signature.parameters


def call(title: str, maker: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    """Return what a class or function of users makes.

    Raises:
        EnvironmentFailure: it fails, with the line.
    """
    try:
        return maker(**arguments)
    except (MlhooksError, KeyboardInterrupt):
        raise
    except BaseException as error:
        where = in_brackets(raised_at(error) or defined_at(maker))
        raise EnvironmentFailure(f"{title} cannot be made: {named(error)}{where}.") from error


@contextlib.contextmanager
def starting(title: str, arguments: Mapping[str, Any], hint: str = "") -> Iterator[None]:
    """Turn what goes wrong while an environment is made in the block into errors for the person who chose it.

    Args:
        title: its name in messages.
        arguments: what it gets from `env_settings.env_kwargs`.
        hint: the end of a message about these.

    Raises:
        UsageError: it does not take the arguments.
        EnvironmentFailure: it does not start.
    """
    try:
        yield
    except MlhooksError:
        raise
    except TypeError as error:
        if not arguments:
            raise EnvironmentFailure(f"{title} does not start: {described(error)}") from error
        raise UsageError(
            f"{title} does not take the env_settings.env_kwargs {dict(arguments)}: {described(error)}{hint}"
        ) from error
    except Exception as error:
        raise EnvironmentFailure(f"{title} does not start: {described(error)}") from error


def _after(first: Any, maker: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that returns `first` once, and what `maker` makes from then on."""
    waiting = [first]

    def made(**arguments: Any) -> Any:
        return waiting.pop() if waiting else maker(**arguments)

    return made


def adapt_base_env(
    maker: Callable[..., Any],
    *,
    title: str,
    num_areas: int,
    options: RunOptions,
    behavior_name: str | None = None,  # noqa: ARG001  (a `BaseEnv` names its behaviors)
    **offered: Any,
) -> BaseEnv:
    """Make a `BaseEnv`, which gets those of seed, worker_id, num_areas and side_channels that its constructor names.

    Raises:
        UsageError: there should be several copies in it, and it takes no `num_areas`.
        EnvironmentFailure: it cannot be made.
    """
    offered["num_areas"] = num_areas
    given = {key: value for key, value in offered.items() if accepts(maker, key)}
    if num_areas > 1 and "num_areas" not in given:
        raise UsageError(
            f"{title} takes no argument num_areas, so that there cannot be {num_areas} areas in it; --num-envs makes "
            "several of it, in a process each."
        )
    made: BaseEnv = call(title, maker, given | (options.env_settings.env_kwargs or {}))
    return made


BASE_ENV = Interface("mlagents_envs.base_env.BaseEnv", adapt_base_env)
