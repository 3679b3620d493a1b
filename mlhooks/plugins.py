"""The plugin manager: registers plugins, calls their hooks, and says whose fault a failure is."""

from __future__ import annotations

import contextlib
import itertools
import logging
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pluggy

from mlhooks import hookspecs
from mlhooks.answers import CHECKS
from mlhooks.containment import CONTAINED_COLLECT, DisabledPlugin, Guard
from mlhooks.errors import PluginError, PluginUnfit
from mlhooks.mlagents_wheel.offers import PREFIX, is_own
from mlhooks.plugin_discovery import find_plugins
from mlhooks.plugin_fit import check_fit, deprecated_uses, known_hooks
from mlhooks.plugin_sources import BUILTIN, BUILTIN_PLUGINS, Candidate, Origin, defining, name_of, nearest, short_name

__all__ = ["BUILTIN_PLUGINS", "DisabledPlugin", "Origin", "PluginInfo", "PluginManager", "find_plugins", "load_plugins"]

logger = logging.getLogger("mlhooks")


@dataclass(frozen=True, slots=True)
class PluginInfo:
    """One row of `mlhooks plugins`; `order` counts registrations from 1, and a blocked plugin has 0."""

    name: str
    distribution: str
    version: str
    hooks: tuple[str, ...]
    order: int
    blocked: bool
    source: str


_PLAIN: pluggy.HookimplOpts = {
    "wrapper": False,
    "hookwrapper": False,
    "optionalhook": False,
    "tryfirst": False,
    "trylast": False,
    "specname": None,
}


@dataclass(frozen=True, eq=False)
class _Leaving:
    """The part that stays of a plugin that was taken out."""

    run_finished: Callable[..., None]


class PluginManager(pluggy.PluginManager):
    """Calls hooks as `manager.hook.NAME(...)`; every failure names hook, plugin, distribution and version.

    What plugins return is checked at once, and a wrong answer is a failure. Observers, `summary_stats` and
    `export_model` are contained: a failure is logged once for each cause, the other plugins still get the call, and
    after three failures in a row the plugin is taken out and listed in `disabled`. With `strict` every failure raises
    PluginError. Whatever a plugin raises is its failure, `sys.exit()` too; only KeyboardInterrupt passes.
    """

    def __init__(self, strict: bool = False, blocked: Iterable[str] = ()) -> None:
        super().__init__("mlhooks")
        self.strict = strict
        self.disabled: list[DisabledPlugin] = []
        self.active: Origin | None = None
        self.answers: list[tuple[Origin, Any]] = []
        self.given: Mapping[str, Any] = {}
        self._collecting: list[tuple[Origin, Any]] | None = None
        self.reported: set[tuple[str, ...]] = set()
        self._loaded: list[Candidate] = []
        self._origins: dict[str, Origin] = {}
        self._conflicts: set[str] = set()
        self._guarded: set[pluggy.HookImpl] = set()
        self._implemented: frozenset[str] = frozenset()
        self.add_hookspecs(hookspecs)
        for name in blocked:
            self.set_blocked(name)

    def set_blocked(self, name: str) -> None:
        """Keep a plugin out, or take it out; a built-in one goes by its short or its full name."""
        super().set_blocked(short_name(name))

    def register(self, plugin: object, name: str | None = None, *, origin: Origin | None = None) -> str | None:
        """Register a module or object with hookimpls, and return its name, or None where that name is blocked.

        Raises:
            PluginUnfit: it does not fit the hook contract, or its name is taken.
            PluginError: its `configure` fails.
        """
        name = name or self._name_for(plugin)
        in_code = origin is None and self.active is None
        origin = replace(origin or self._inherited_origin(), name=name)
        if self.is_blocked(name):
            self._origins[name] = origin
            return None
        if self.is_registered(plugin):
            raise PluginUnfit(f"{origin} is registered already, as {self.origin_of(plugin)}")
        if self.has_plugin(name):
            raise PluginUnfit(
                f"Two plugins claim the name {name!r}: {self._origins[name]} and {origin}. "
                "Rename or uninstall one of them"
            )
        check_fit(self, plugin, origin)
        if in_code and (module := defining(plugin, origin)) is not None:
            self._loaded.append(module)
        self._origins[name] = origin
        try:
            super().register(plugin, name)
        except BaseException as error:
            if self.has_plugin(name):
                self.unregister(name=name)
            if not isinstance(error, pluggy.PluginValidationError):
                raise
            raise PluginUnfit(f"{origin} does not fit the hook contract: {error}. {origin.advice}") from error
        for caller in self.get_hookcallers(plugin) or ():
            self._guard(caller.name, [impl for impl in caller.get_hookimpls() if impl.plugin is plugin])
        self._note_implemented()
        for use in deprecated_uses(self, plugin, origin):
            logger.warning("%s", use)
        return name

    def unregister(self, plugin: object | None = None, name: str | None = None) -> Any | None:
        """Take a plugin out, by itself or by its name."""
        removed = super().unregister(plugin, name)
        self._note_implemented()
        return removed

    def add(self, candidate: Candidate) -> None:
        """Import and register a plugin, unless it is blocked or already there; a blocked one is not even imported."""
        origin = candidate.origin
        if self.is_blocked(origin.name):
            self._origins[origin.name] = origin
            return
        plugin = candidate.load()
        if plugin is None or not self.is_registered(plugin):
            self.register(plugin, origin.name, origin=origin)
            if origin.source != BUILTIN and candidate.in_workers:
                self._loaded.append(candidate)

    @property
    def loaded(self) -> list[Candidate]:
        """The plugins that did not come with mlhooks, as another process can load them, in their order."""
        return [candidate for candidate in self._loaded if not self.is_blocked(candidate.origin.name)]

    def implemented(self, hook_name: str) -> bool:
        """Return whether any plugin implements a hook; cheap enough to ask before every statistic."""
        return hook_name in self._implemented

    def configure(self, options: object) -> None:
        """Hand the run options to every plugin, those registered later included."""
        self.hook.configure.call_historic(kwargs={"pluginmanager": self, "options": options})

    def collect(self, hook_name: str, **kwargs: object) -> list[tuple[Origin, Any]]:
        """Call a collect hook and return each answer with the plugin that gave it."""
        owned: list[tuple[Origin, Any]] = []
        self._collecting = owned
        results = getattr(self.hook, hook_name)(**kwargs)
        owners = {id(answer): origin for origin, answer in owned}
        return [(owners[id(result)], result) for result in results]

    def collect_mapping(self, hook_name: str, *, taken: Collection[str] = (), **kwargs: object) -> dict[str, Any]:
        """Call a collect hook and merge the mappings that it answers; mlhooks itself has `taken` some of the keys.

        Raises:
            PluginError: two plugins claim one key, or one a key that is taken. Where the hook is contained, the first
                answer stays and the other is logged instead.
        """
        claims = self.collect_claims(hook_name, taken=taken, **kwargs)
        return {key: value for key, (_, value) in claims.items()}

    def collect_claims(
        self, hook_name: str, *, taken: Collection[str] = (), **kwargs: object
    ) -> dict[str, tuple[Origin, Any]]:
        """Do as `collect_mapping`, and return each answer with the plugin that gave it.

        A trainer type of ML-Agents' kind, `mlagents:NAME`, is also NAME where nobody else claims that.
        """
        claims: dict[str, tuple[Origin, Any]] = {}
        for origin, mapping in self.collect(hook_name, **kwargs):
            for key, value in mapping.items():
                if key in taken:
                    claim = f"{origin} claims {key!r} in {hook_name}, which the run itself reports"
                    self._conflict(claim, hook_name, "Its value is left out")
                    continue
                if key in claims:
                    first, known = claims[key]
                    if is_own(known) != is_own(value):  # As in ML-Agents, a package's takes the place of its own.
                        claims[key] = (origin, value) if is_own(known) else claims[key]
                        continue
                    self._conflict(f"Two plugins claim {key!r} in {hook_name}: {first} and {origin}", hook_name)
                    continue
                claims[key] = origin, value
        for key in [key for key in claims if hook_name == "get_trainer_types" and key.startswith(PREFIX)]:
            claims.setdefault(key.removeprefix(PREFIX), claims[key])
        return claims

    def first_answer(
        self, hook_name: str, last: Callable[..., Any], origin: Origin, where: str, **kwargs: object
    ) -> Any:
        """Call a firstresult hook to which `last` is one more implementation, asked when no plugin has answered.

        It takes arguments by name, is checked, and lies within wrappers, as those of plugins do.

        Args:
            hook_name: the hook.
            last: the implementation.
            origin: the plugin to which it belongs.
            where: what messages name in place of the hook.
            kwargs: the arguments of the hook.
        """
        caller = getattr(self.hook, hook_name)
        impl = pluggy.HookImpl(None, origin.name, last, _PLAIN)
        guard = Guard(self, caller, origin, where)
        impl.function = guard.around(impl.function, impl.argnames)  # type: ignore[misc]  # pluggy calls this, as in _guard.
        return self._hookexec(hook_name, [impl, *caller.get_hookimpls()], kwargs, True)

    def check_pending(self) -> None:
        """Raise PluginUnfit for a registered implementation of a hook that does not exist."""
        for name, plugin in self.list_name_plugin():
            if plugin is not None:
                check_fit(self, plugin, self._origins[name])

    def origin_of(self, plugin: object) -> Origin | None:
        """Return whose plugin this is, or None for one that is not registered."""
        name = self.get_name(plugin)
        return None if name is None else self._origins[name]

    def describe(self) -> list[PluginInfo]:
        """Return all plugins in the order of their registration, then the blocked ones."""
        registered = [name for name, plugin in self.list_name_plugin() if plugin is not None]
        blocked = [name for name, plugin in self.list_name_plugin() if plugin is None and name in self._origins]
        rows = [self._info(name, order, self._hooks_of(name)) for order, name in enumerate(registered, start=1)]
        return rows + [self._info(name, 0, ()) for name in blocked]

    @property
    def others(self) -> dict[str, str]:
        """The plugins that did not come with mlhooks, by name: distribution and version, or where they came from."""
        return {
            row.name: f"{row.distribution} {row.version}" if row.distribution else row.source
            for row in self.describe()
            if not (row.blocked or row.distribution == "mlhooks" or row.name in BUILTIN_PLUGINS)
            and not row.source.startswith("registered by ")
        }

    def take_out(self, disabled: DisabledPlugin) -> None:
        """Unregister a plugin that failed too often, and remember why; it still gets `run_finished`, to close files."""
        self.disabled.append(disabled)
        plugin = self.get_plugin(disabled.origin.name)
        if plugin is None:
            return
        last = [impl.function for impl in self.hook.run_finished.get_hookimpls() if impl.plugin is plugin]
        self.unregister(plugin)
        if last and disabled.hook != "run_finished":
            unguarded = last[0].__wrapped__  # type: ignore[attr-defined]
            self.register(_Leaving(unguarded), disabled.origin.name, origin=disabled.origin)

    def _hookexec(
        self,
        hook_name: str,
        methods: Sequence[pluggy.HookImpl],
        kwargs: Mapping[str, object],
        firstresult: bool,
    ) -> object | list[object]:
        if hook_name == "configure":
            # A late plugin gets this call while it is being registered, before register can guard it.
            self._guard(hook_name, methods)
        if hook_name not in CHECKS:
            return self._inner_hookexec(hook_name, methods, kwargs, firstresult)
        collecting, self._collecting = self._collecting, None  # A hook that is called by a plugin has its own answers.
        outer = self.given, self.answers
        self.given, self.answers = kwargs, [] if collecting is None else collecting
        try:
            return self._inner_hookexec(hook_name, methods, kwargs, firstresult)
        finally:
            self.given, self.answers = outer

    def _guard(self, hook_name: str, impls: Iterable[pluggy.HookImpl]) -> None:
        caller = known_hooks(self).get(hook_name)
        for impl in impls:
            if caller is None or impl in self._guarded:
                continue
            guard = Guard(self, caller, self._origins[impl.plugin_name])
            wraps = impl.wrapper or impl.hookwrapper
            # pluggy calls what stands here; it has no other place where the failures of one plugin can be told apart.
            around = guard.around_wrapper if wraps else guard.around
            impl.function = around(impl.function, impl.argnames)  # type: ignore[misc]
            self._guarded.add(impl)

    def _note_implemented(self) -> None:
        callers = vars(self.hook).values()
        self._implemented = frozenset(caller.name for caller in callers if caller.get_hookimpls())
        self._guarded.intersection_update(impl for caller in callers for impl in caller.get_hookimpls())

    def _name_for(self, plugin: object) -> str:
        if hasattr(plugin, "__name__"):
            return self.get_canonical_name(plugin)
        kind = type(plugin).__name__
        name = kind if self.active is None else f"{self.active.name}.{kind}"
        later = (f"{name}-{count}" for count in itertools.count(2))
        return name if not self.has_plugin(name) else next(other for other in later if not self.has_plugin(other))

    def _inherited_origin(self) -> Origin:
        if self.active is None:
            return Origin("", source="registered in code")
        return replace(self.active, source=f"registered by {self.active.name}")

    def _hooks_of(self, name: str) -> tuple[str, ...]:
        return tuple(sorted(caller.name for caller in self.get_hookcallers(self.get_plugin(name)) or ()))

    def _info(self, name: str, order: int, hooks: tuple[str, ...]) -> PluginInfo:
        origin = self._origins[name]
        return PluginInfo(name, origin.distribution, origin.version, hooks, order, order == 0, origin.source)

    def _conflict(self, message: str, hook_name: str, kept: str = "The first one counts") -> None:
        if hook_name not in CONTAINED_COLLECT or self.strict:
            raise PluginError(f"{message}. Uninstall the plugin that you do not need, or block it with -p no:NAME")
        if message not in self._conflicts:
            self._conflicts.add(message)
            logger.error("%s. %s.", message, kept)


def _as_it_is(_: Candidate) -> contextlib.AbstractContextManager[None]:
    return contextlib.nullcontext()


def load_plugins(
    *,
    names: Iterable[str] = (),
    plugins_dir: Path | None = None,
    strict: bool = False,
    autoload: bool | None = None,
    trace: bool = False,
    configured: Sequence[str] = (),
    around: Callable[[Candidate], contextlib.AbstractContextManager[None]] = _as_it_is,
) -> PluginManager:
    """Return a manager with the built-in plugins, those of installed packages, and those asked for.

    Args:
        names: The values of `-p`: a plugin, module or .py file to load, or `no:NAME` to block one.
        plugins_dir: A folder whose .py files are plugins.
        strict: Whether the failure of an observer stops the run.
        autoload: Whether entry points are loaded unasked; None asks MLHOOKS_DISABLE_PLUGIN_AUTOLOAD.
        trace: Whether every hook call is written to stderr.
        configured: As `names`, and in front of them, from a configuration.
        around: Called with each plugin before it is imported; a context in which that is done.

    Raises:
        PluginError: a plugin does not load, or (PluginUnfit) does not fit; names it and says how to block it.
        UsageError: `names` or `plugins_dir` name something that does not exist.
    """
    names = list(names)
    candidates, blocked = find_plugins(names=names, plugins_dir=plugins_dir, autoload=autoload, configured=configured)
    known = {candidate.origin.name for candidate in candidates} | {name_of(text) for text in configured}
    for name in blocked:
        if f"no:{name}" in names and name not in known and (guess := nearest(name, known)):
            logger.warning("-p no:%s blocks nothing that is installed%s", name, guess)
    manager = PluginManager(strict, blocked)
    if trace:
        manager.trace.root.setwriter(sys.stderr.write)
        manager.enable_tracing()
    for candidate in candidates:
        with contextlib.nullcontext() if manager.is_blocked(candidate.origin.name) else around(candidate):
            manager.add(candidate)
    manager.check_pending()
    return manager
