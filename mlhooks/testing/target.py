"""The target of `--mlhooks-plugin TARGET`: an installed plugin, a module, a .py file or a folder."""

from __future__ import annotations

import importlib.util
import os
import sys
import tomllib
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

from mlhooks import mlagents_plugins, plugin_sources
from mlhooks.containment import OFFERING
from mlhooks.errors import UsageError
from mlhooks.plugin_sources import BUILTIN_PLUGINS, Candidate, Origin
from mlhooks.plugins import PluginManager

WRITER_HOOKS = ("write_stats", "on_add_stat", "add_property")
MARK = b"hookimpl"  # Every plugin has this in it, and no script beside one has.


@dataclass(eq=False)
class Target:
    """One plugin to be checked.

    Attributes:
        candidate: how it is imported, and whose it is.
        importing: for a fresh process: `module` or `file`, and its name or path.
        paths: folders that must be on `sys.path` to import it.
    """

    candidate: Candidate
    importing: tuple[str, str]
    paths: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The name under which it is registered."""
        return self.candidate.origin.name

    @cached_property
    def plugin(self) -> object:
        """The plugin itself, imported when it is first asked for.

        Raises:
            PluginError: it does not import.
        """
        for path in reversed(self.paths):
            if path not in sys.path:
                sys.path.insert(0, path)
        return self.candidate.load()

    @cached_property
    def replaces(self) -> tuple[str, ...]:
        """Built-in plugins in whose place it stands, because it has their name or offers what they offer."""
        manager = PluginManager()
        for candidate in plugin_sources.builtins():
            if candidate.origin.name == self.name or candidate.load() is self.plugin:
                continue
            manager.add(candidate)
        from mlhooks.testing.managers import offered

        claimed = {(hook, key) for hook in OFFERING for key in offered(self.plugin, hook)}
        replaced = {
            origin.name
            for hook in OFFERING
            for origin, answer in manager.collect(hook)
            for key in answer
            if (hook, key) in claimed
        }
        own = {name for module in BUILTIN_PLUGINS if (name := plugin_sources.short_name(module)) == self.name}
        is_built_in = any(sys.modules.get(module) is self.plugin for module in BUILTIN_PLUGINS)
        return tuple(sorted(replaced | (set() if is_built_in else own)))

    def manager(self, *plugins: object, strict: bool = True, without: Collection[str] = ()) -> PluginManager:
        """Return a manager with the built-in plugins except those that write, the target, and `plugins`."""
        from mlhooks.testing.managers import WRITERS

        blocked = {*WRITERS, *self.replaces, *without} - {self.name}
        manager = PluginManager(strict=strict, blocked=blocked)
        for candidate in plugin_sources.builtins():
            if plugin_sources.short_name(candidate.origin.name) not in self.replaces:
                manager.add(candidate)
        for plugin in plugins:
            manager.register(plugin)
        if not manager.is_registered(self.plugin):
            manager.register(self.plugin, self.name, origin=self.candidate.origin)
        manager.check_pending()
        return manager

    def implements(self, *hooks: str) -> bool:
        """Return whether it implements one of these hooks itself; objects that it registers do not count."""
        manager = PluginManager()
        found = set()
        for attribute in dir(self.plugin):
            options = manager.parse_hookimpl_opts(self.plugin, attribute)
            if options is not None:
                found.add(options.get("specname") or attribute)
        return not found.isdisjoint(hooks)


def resolve(text: str) -> list[Target]:
    """Return the plugins that TARGET names.

    Raises:
        UsageError: there is nothing of that name; says what was looked for.
    """
    path = Path(text)
    if text.endswith(".py") or os.sep in text or "/" in text or text in {".", ".."}:
        return _of_path(path)
    return _installed(text) or (_of_path(path) if path.is_dir() else _module(text))


def _installed(text: str) -> list[Target]:
    name = plugin_sources.short_name(text)
    builtins = dict(zip((plugin_sources.short_name(m) for m in BUILTIN_PLUGINS), BUILTIN_PLUGINS, strict=True))
    if name in builtins:
        (candidate,) = [c for c in plugin_sources.builtins() if c.origin.name == name]
        return [Target(candidate, ("module", builtins[name]))]
    installed = [*plugin_sources.from_entry_points(), *mlagents_plugins.from_entry_points()]
    by_name = [c for c in installed if c.origin.name == name]
    found = by_name or [c for c in installed if _same(c.origin.distribution, name)]
    return [Target(c, ("module", _value(c.origin).partition(":")[0].strip())) for c in found]


def _same(distribution: str, name: str) -> bool:
    return bool(distribution) and distribution.lower().replace("_", "-") == name.lower().replace("_", "-")


def _value(origin: Origin) -> str:
    return origin.source.partition(" = ")[2]


def _module(text: str) -> list[Target]:
    here = str(Path.cwd())
    try:
        found = importlib.util.find_spec(text)
        paths: list[str] = []
        if found is None:
            sys.path.insert(0, here)
            found, paths = importlib.util.find_spec(text), [here]
    except (ImportError, ValueError):
        found = None
    if found is None:
        known = [
            candidate.origin.name for candidate in [*plugin_sources.builtins(), *plugin_sources.from_entry_points()]
        ]
        raise UsageError(
            f"{text}: there is no installed plugin, no module, no .py file and no folder of that name"
            f"{plugin_sources.nearest(text, known)}"
        )
    return [Target(plugin_sources.from_name(text, ()), ("module", text), paths)]


def _of_path(path: Path) -> list[Target]:
    path = path.resolve()
    if path.is_file():
        return [Target(plugin_sources.from_file(path), ("file", str(path)))]
    if not path.is_dir():
        raise UsageError(f"{path}: there is no such file or folder")
    if (path / "pyproject.toml").is_file():
        found = list(_of_project(path))
    elif (path / "__init__.py").is_file():
        found = [Target(plugin_sources.from_name(path.name, ()), ("module", path.name), [str(path.parent)])]
    else:
        files = [(c, path / f"{c.origin.name}.py") for c in plugin_sources.from_folder(path)]
        found = [Target(c, ("file", str(file))) for c, file in files if MARK in file.read_bytes()]
    if not found:
        raise UsageError(
            f"{path} holds no plugin: no pyproject.toml with entry points of the group mlhooks, no package, and no .py "
            "file that mentions hookimpl and whose name does not begin with an underscore"
        )
    return found


def _of_project(folder: Path) -> Iterator[Target]:
    project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8")).get("project", {})
    paths = [str(path) for path in (folder / "src", folder) if path.is_dir()]
    for name, value in project.get("entry-points", {}).get(plugin_sources.GROUP, {}).items():
        origin = Origin(name, project.get("name", ""), str(project.get("version", "")), f"entry point {name} = {value}")
        module, _, attribute = value.partition(":")
        yield Target(Candidate(origin, partial(_import, module, attribute)), ("module", module), paths)


def _import(module: str, attribute: str) -> object:
    found: object = importlib.import_module(module)
    for part in filter(None, attribute.split(".")):
        found = getattr(found, part)
    return found
