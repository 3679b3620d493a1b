"""The sources of plugins: built-in modules, entry points of packages, modules by name, files of a folder."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import EntryPoint, PackageNotFoundError, distribution, entry_points
from pathlib import Path
from traceback import walk_tb
from types import ModuleType

from mlhooks import __version__
from mlhooks.describing import named
from mlhooks.errors import MlhooksError, PluginError, UsageError

GROUP = "mlhooks"
BUILTIN = "built-in"
"""The source of plugins that came with mlhooks."""
FILES = "mlhooks_plugin_files"
"""The package that modules of plugin files seem to be in."""
BUILTIN_PLUGINS = (
    "builtin_plugins.extrinsic",
    "builtin_plugins.curiosity",
    "builtin_plugins.rnd",
    "builtin_plugins.gail",
    "builtin_plugins.ppo",
    "builtin_plugins.a2c",
    "builtin_plugins.dqn",
    "builtin_plugins.sac",
    "builtin_plugins.poca",
    "builtin_plugins.processes",
    "builtin_plugins.inprocess",
    "builtin_plugins.sim_env",
    "builtin_plugins.pettingzoo_env",
    "builtin_plugins.gymnasium_env",
    "builtin_plugins.unity_env",
    "builtin_plugins.console",
    "builtin_plugins.tensorboard",
    "builtin_plugins.jsonl",
    "builtin_plugins.curve",
    "builtin_plugins.onnx_export",
    "builtin_plugins.policy_file",
    "builtin_plugins.mlagents_wheel",
)
"""Modules of the plugins that come with mlhooks, in the order of their registration: the last is called first."""


# An error happens in a plugin, not in the machinery that imports and calls it.
_MACHINERY = (str(Path(__file__).parent) + os.sep, str(Path(importlib.__file__).parent) + os.sep, "<")


@dataclass(frozen=True, slots=True)
class Origin:
    """Whose plugin this is: what every message about it names."""

    name: str
    distribution: str = ""
    version: str = ""
    source: str = ""

    def __str__(self) -> str:
        return f"plugin {self.name!r} ({f'{self.distribution} {self.version}' if self.distribution else self.source})"

    @property
    def advice(self) -> str:
        """What the person who runs mlhooks can do about a plugin that fails."""
        return f"Fix or update it, or run without it: -p no:{self.name}"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A plugin that is known and not yet imported; it can be pickled, to be imported by another process.

    Attributes:
        origin: whose it is.
        importer: imports it.
        asked: what `-p` may say from any folder to load it, where it was asked for: a name, or an absolute path.
        module: the module that is imported, unless it is a file.
        in_workers: whether the processes of environments import it, too.
    """

    origin: Origin
    importer: Callable[[], object]
    asked: str = ""
    module: str = ""
    in_workers: bool = True

    def load(self) -> object:
        """Import the plugin; an exception becomes a PluginError that names the culprit."""
        try:
            return self.importer()
        except (MlhooksError, KeyboardInterrupt):
            raise
        except BaseException as error:  # A script that was taken for a plugin may call sys.exit().
            raise PluginError(f"{self.origin} does not load: {describe(error)}. {self.origin.advice}") from error


def describe(error: BaseException, module: str = "") -> str:
    """Return an exception's type and text, and the line of the plugin that it came through.

    Args:
        error: what was raised.
        module: the plugin's, where other packages call it: a line of its top-level package is preferred to theirs.
    """
    text, package = named(error), module.partition(".")[0]
    steps = [step for step in walk_tb(error.__traceback__) if not step[0].f_code.co_filename.startswith(_MACHINERY)]
    own = [step for step in steps if step[0].f_globals.get("__name__", "").partition(".")[0] == package]
    return next((f"{text} ({frame.f_code.co_filename}:{line})" for frame, line in own or steps), text)


def autoload_enabled() -> bool:
    """Return whether entry points are loaded unasked: not when MLHOOKS_DISABLE_PLUGIN_AUTOLOAD is set."""
    return os.environ.get("MLHOOKS_DISABLE_PLUGIN_AUTOLOAD", "0") in {"", "0"}


def builtins() -> list[Candidate]:
    """Return the plugins that come with mlhooks, under the last part of their module names."""
    return [
        Candidate(Origin(short_name(module), "mlhooks", __version__, BUILTIN), partial(importlib.import_module, module))
        for module in BUILTIN_PLUGINS
    ]


def short_name(name: str) -> str:
    """Return the name of a built-in plugin without its package; any other name as it is."""
    return name.rpartition(".")[2] if name in BUILTIN_PLUGINS else name


def is_file(text: str) -> bool:
    """Return whether what `-p` or a configuration names is a .py file, not a plugin or a module."""
    return text.endswith(".py")


def name_of(text: str) -> str:
    """Return the name that a plugin has which `-p` or a configuration names so."""
    return Path(text.replace("\\", "/")).stem if is_file(text) else short_name(text)


def from_entry_points(group: str = GROUP) -> list[Candidate]:
    """Return the plugins of installed packages, ordered by distribution and name, which is the same everywhere."""
    found = [
        Candidate(
            _entry_point_origin(point),
            partial(_import_entry_point, point.name, point.value, group),
            module=point.value.partition(":")[0].strip(),
        )
        for point in entry_points(group=group)
    ]
    return sorted(found, key=lambda candidate: (candidate.origin.distribution, candidate.origin.name))


def _import_entry_point(name: str, value: str, group: str) -> object:
    return EntryPoint(name, value, group).load()  # Another process need not get its distribution.


def _entry_point_origin(point: EntryPoint) -> Origin:
    source = f"entry point {point.name} = {point.value}"
    if point.dist is None:
        return Origin(point.name, source=source)
    return Origin(point.name, point.dist.name, point.dist.version, source)


def from_folder(folder: Path) -> list[Candidate]:
    """Return one plugin per .py file of a folder, named as the file; those with an underscore in front are left out."""
    if not folder.is_dir():
        raise UsageError(f"--plugins-dir {folder}: there is no such folder")
    return [from_file(path) for path in sorted(folder.glob("*.py")) if not path.name.startswith("_")]


def from_file(path: Path, option: str = "-p") -> Candidate:
    """Return the plugin in one .py file; `option` says in errors how it was asked for."""
    asked = os.path.abspath(path)  # noqa: PTH100 - A link stays one.
    return Candidate(Origin(path.stem, source=f"file {path}"), partial(_import_file, path.resolve(), option), asked)


def _import_file(path: Path, option: str) -> object:
    if not path.is_file():
        near = nearest(path.name, (file.name for file in path.parent.glob("*.py")))
        raise UsageError(f"{_said(option, path.name)}there is no file {path}{near}")
    # The prefix keeps a plugin file called json.py from taking the place of the module json.
    name = f"{FILES}.{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # Dataclasses and pickle look their classes up here.
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _said(option: str, name: str) -> str:
    return f"{option} {name}: " if option else ""


def from_name(name: str, known: Iterable[str], option: str = "-p") -> Candidate:
    """Return the plugin that `-p NAME` asks for, where NAME is a module or a .py file; `option` says so in errors."""
    if is_file(name):
        return from_file(Path(name), option)
    top = name.partition(".")[0]
    try:
        found = distribution(top)
        origin = Origin(name, found.name, found.version, f"module {name}")
    except (PackageNotFoundError, ValueError):
        origin = Origin(name, source=f"module {name}")
    return Candidate(origin, partial(_import_module, name, tuple(known), option), name, name)


def _import_module(name: str, known: tuple[str, ...], option: str) -> object:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise
        if option and Path(f"{name}.py").is_file():
            hint = f"no such module; to load the file of this folder say {option} {name}.py"
            raise UsageError(f"{_said(option, name)}{hint}") from error
        which = "of that name" if option else repr(name)
        raise UsageError(f"{_said(option, name)}there is no plugin or module {which}{nearest(name, known)}") from error


def defining(plugin: object, origin: Origin) -> Candidate | None:
    """Return what another process imports for a plugin that was registered in Python: the module that defines it.

    None where no other process can import one: the script that runs, or a module that was made in memory.
    """
    name = plugin.__name__ if isinstance(plugin, ModuleType) else type(plugin).__module__
    ours = name.partition(".")[0] in {"mlhooks", *(module.partition(".")[0] for module in BUILTIN_PLUGINS)}
    spec = getattr(sys.modules.get(name), "__spec__", None)
    if ours or name == "__main__" or spec is None or name.startswith(f"{FILES}."):
        return None
    return Candidate(origin, partial(importlib.import_module, name))


def nearest(name: str, known: Iterable[str]) -> str:
    """Return `; did you mean X?` for the known name that is most like a misspelt one, or nothing."""
    from difflib import get_close_matches

    matches = get_close_matches(name, list(known), n=1)
    return f"; did you mean {matches[0]}?" if matches else ""
