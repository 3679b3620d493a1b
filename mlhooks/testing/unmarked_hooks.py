"""Functions that a plugin calls as a hook, and that mlhooks never calls, because they lack the mark `@hookimpl`."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from types import FunctionType, ModuleType

from mlhooks.plugin_fit import known_hooks
from mlhooks.plugins import PluginManager


def unmarked(plugin: object) -> list[str]:
    """Return `NAME (FILE:LINE)` for each function of a plugin that has a hook's name and no mark.

    Looked at are the plugin itself, and where it is a module, its classes that have a marked method.
    """
    manager = PluginManager()
    hooks = known_hooks(manager)
    found = []
    for owner in _owners(plugin, manager):
        for name in hooks:
            function = inspect.unwrap(getattr(owner, name, None))  # type: ignore[arg-type]
            is_its_own = isinstance(function, FunctionType) and _package(function) == _package(owner)
            if is_its_own and manager.parse_hookimpl_opts(owner, name) is None:
                code = function.__code__
                found.append(f"{function.__qualname__} ({code.co_filename}:{code.co_firstlineno})")
    return found


def _owners(plugin: object, manager: PluginManager) -> Iterator[object]:
    if not isinstance(plugin, ModuleType):
        yield type(plugin)
        return
    yield plugin
    for member in vars(plugin).values():
        is_its_own = inspect.isclass(member) and member.__module__ == plugin.__name__
        if is_its_own and any(manager.parse_hookimpl_opts(member, name) is not None for name in vars(member)):
            yield member


def _package(owner: object) -> str:
    module = owner.__name__ if isinstance(owner, ModuleType) else str(getattr(owner, "__module__", ""))
    return module.partition(".")[0]
