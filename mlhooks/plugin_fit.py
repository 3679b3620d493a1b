"""Check that an object fits the hook contract before it is registered, so that a refusal leaves no trace."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pluggy

from mlhooks.describing import named
from mlhooks.errors import PluginUnfit
from mlhooks.places import defined_at, in_brackets
from mlhooks.plugin_sources import Origin, nearest

_NAMED = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)

LISTS = ("export_model", "register_side_channels")
"""Hooks that return any number of things, and so may yield them."""


def check_fit(manager: pluggy.PluginManager, plugin: object, origin: Origin) -> None:
    """Raise PluginUnfit unless `plugin` implements hooks, all of them known and with arguments that they have."""
    if plugin is None or inspect.isclass(plugin):
        what = f"the class {plugin.__name__}; register an instance of it" if inspect.isclass(plugin) else "None"
        raise PluginUnfit(f"{origin} is {what}. {origin.advice}")
    specs = known_hooks(manager)
    found = False
    for hook_name, function, options in _implementations(manager, plugin, origin):
        found = True
        if hook_name in specs:
            problem = _misfit(specs[hook_name], hook_name, function, options)
        elif options.get("optionalhook"):
            continue
        else:
            guess = nearest(hook_name, specs) or "; `mlhooks plugins hooks` lists them"
            problem = f"implements {hook_name}, which is no hook{guess}"
        if problem:
            stop = "" if problem.endswith("?") else "."
            raise PluginUnfit(f"{origin} {problem}{stop} {origin.advice}")
    if not found:
        raise PluginUnfit(f"{origin} implements no hooks: {_why_empty(plugin, specs)}. {origin.advice}")


def deprecated_uses(manager: pluggy.PluginManager, plugin: object, origin: Origin) -> Iterator[str]:
    """Yield a sentence for each hook and argument that a plugin uses and that a later version will not have.

    A specification announces that by `warn_on_impl` or `warn_on_impl_args`, for which pluggy itself emits warnings of
    Python; those name neither the plugin nor its distribution, and outside of tests nobody sees them.
    """
    specs = known_hooks(manager)
    for hook_name, function, _ in _implementations(manager, plugin, origin):
        spec = specs[hook_name].spec if hook_name in specs else None
        if spec is None:
            continue
        place = in_brackets(defined_at(inspect.unwrap(function)))
        if spec.warn_on_impl:
            yield f"{origin} implements the hook {hook_name}{place}, which is deprecated: {spec.warn_on_impl}"
        for argument, warning in (spec.warn_on_impl_args or {}).items():
            if argument in inspect.signature(function).parameters:
                what = f"the argument {argument!r} of the hook {hook_name}{place}"
                yield f"{origin} takes {what}, which is deprecated: {warning}"


def known_hooks(manager: pluggy.PluginManager) -> dict[str, pluggy.HookCaller]:
    """Return the hooks that have a specification, by name."""
    return {name: caller for name, caller in vars(manager.hook).items() if caller.has_spec()}


def _implementations(
    manager: pluggy.PluginManager, plugin: object, origin: Origin
) -> Iterator[tuple[str, Callable[..., Any], Mapping[str, Any]]]:
    for attribute in dir(plugin):
        try:
            options = manager.parse_hookimpl_opts(plugin, attribute)
        except Exception as error:
            raise PluginUnfit(f"{origin}: its attribute {attribute} raises {named(error)}. {origin.advice}") from error
        if options is not None:
            yield options.get("specname") or attribute, getattr(plugin, attribute), dict(options)


def _misfit(
    caller: pluggy.HookCaller, hook_name: str, function: Callable[..., Any], options: Mapping[str, Any]
) -> str | None:
    assert caller.spec is not None
    known = caller.spec.argnames
    for parameter in inspect.signature(function).parameters.values():
        required = parameter.kind in _NAMED and parameter.default is parameter.empty
        if required and parameter.name not in known:
            return (
                f"takes an argument {parameter.name!r} in {hook_name}, which the hook does not have"
                f"{nearest(parameter.name, known) or '.'} It has: {', '.join(known) or 'no arguments'}"
            )
    if options.get("wrapper") or options.get("hookwrapper"):
        if caller.is_historic():
            return f"wraps {hook_name}, which cannot be wrapped, because it is called again for late plugins"
        if not inspect.isgeneratorfunction(function):
            return f"marks {hook_name} as a wrapper, but the function does not yield"
    elif inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        return f"writes {hook_name} as an async function, which nobody awaits: nothing of it would run; write `def`"
    elif inspect.isgeneratorfunction(function) and hook_name not in LISTS:
        return (
            f"yields in {hook_name}, of which nothing would run, because nobody asks for the values: return them, or "
            "mark a wrapper by @hookimpl(wrapper=True)"
        )
    return None


def _why_empty(plugin: object, specs: Mapping[str, object]) -> str:
    unmarked = sorted(name for name in specs if callable(getattr(plugin, name, None)))
    if unmarked:
        return f"{', '.join(unmarked)} lacks the mark @hookimpl (from mlhooks.plugin import hookimpl)"
    own = vars(plugin).values() if isinstance(plugin, types.ModuleType) else ()
    for thing in own:
        names = sorted(name for name in specs if callable(getattr(thing, name, None)))
        if names and isinstance(thing, type) and thing.__module__ == getattr(plugin, "__name__", ""):
            name = thing.__name__
            return (
                f"its class {name} has {', '.join(names)}, and nobody registers an object of it: mark its methods by "
                f"@hookimpl, and call pluginmanager.register({name}(...)) in the hook configure"
            )
    kind = "module" if isinstance(plugin, types.ModuleType) else f"object of type {type(plugin).__name__}"
    return f"a plugin is a module or an object with functions marked @hookimpl, and this {kind} has none"
