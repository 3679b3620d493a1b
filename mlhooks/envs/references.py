"""Find the class or function that makes an environment by its reference: `file.py:Class` or `module:Class`."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from mlhooks.describing import named, with_article
from mlhooks.errors import MlhooksError, UsageError
from mlhooks.places import in_brackets, raised_at
from mlhooks.plugin_sources import nearest

SCHEME = "python"
"""The scheme of a reference that could be mistaken for something else, as in `python:corridor:Corridor`."""
FILES = "mlhooks_environment_files"
"""The package name of environment files, so that a file `random.py` does not replace the standard library's module."""
_FILE = re.compile(r"((?:[A-Za-z]:[\\/])?[^:]*\.py):([^:]*)")


def is_file_reference(text: str) -> bool:
    """Return whether a text names a class in a Python file, as `envs/corridor.py:Corridor` does."""
    return _FILE.fullmatch(text) is not None


def is_module(name: str) -> bool:
    """Return whether there is a module of this name, in the current folder or installed; its packages are imported."""
    _let_modules_of_the_folder_be_found()
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError, AttributeError):
        return False


def find(reference: str) -> Callable[..., Any]:
    """Return the class or function that a reference names.

    Args:
        reference: `FILE.py:NAME` or `MODULE:NAME`, where NAME may have dots, for what is inside a class.

    Raises:
        UsageError: there is no such file, module or name, the file or module does not import, or the name is not that
            of a class or function.
    """
    match = _FILE.fullmatch(reference)
    place, _, name = reference.partition(":") if match is None else (match[1], "", match[2])
    module = load(place)
    if "<" in name:
        raise UsageError(
            f"The environment {reference} was handed to mlhooks.train and has no name by which it could be made again. "
            "Run the script that does so again, or define it at the top of a module."
        )
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part, None) if part else None
        if found is None:
            raise UsageError(_not_there(place, name, module))
    if isinstance(found, ModuleType) or not callable(found):
        raise UsageError(
            f"{reference} is {with_article(found)}; name a class, or a function that makes an environment."
        )
    return found  # type: ignore[no-any-return]


def reference_to(maker: Callable[..., Any]) -> str:
    """Return the reference to a class or function for configuration files: with its file in a script, or its module."""
    name = getattr(maker, "__qualname__", f"<{type(maker).__name__}>")
    module = getattr(maker, "__module__", None) or type(maker).__module__
    file = getattr(sys.modules.get(module), "__file__", None)
    if file and str(file).endswith(".py") and (module == "__main__" or module.startswith(f"{FILES}.")):
        path = Path(file).resolve()
        place = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
        return f"{place}:{name}"
    return f"{SCHEME}:{module}:{name}"


def classes_of(path: Path) -> list[str]:
    """Return the names of the classes in a Python file, without importing it; none where it cannot be read."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, SyntaxError):
        return []
    return [node.name for node in tree.body if isinstance(node, ast.ClassDef)]


def load(place: str) -> ModuleType:
    """Import what stands in front of a name: `FILE.py` or `MODULE`.

    Raises:
        UsageError: there is no such file or module, or it does not import.
    """
    return load_file(Path(place)) if place.endswith(".py") else load_module(place)


def load_file(path: Path) -> ModuleType:
    """Import a Python file, once as long as it does not change; modules beside it can be imported by it.

    Raises:
        UsageError: there is no such file, or it does not import.
    """
    path = path.absolute()
    if not path.is_file():
        folder = path.parent
        near = nearest(path.name, (file.name for file in folder.glob("*.py"))) if folder.is_dir() else ""
        missing = "" if folder.is_dir() else f", nor a folder {folder}"
        raise UsageError(f"There is no file {_shown(path)}{missing}{near or '.'}")
    name, changed = f"{FILES}.{path.stem}", path.stat().st_mtime_ns
    known = sys.modules.get(name)
    if known is not None and known.__dict__.get("__mlhooks_loaded__") == (str(path), changed):
        return known
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))  # Python does so for a script, too.
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    module.__dict__["__mlhooks_loaded__"] = str(path), changed
    sys.modules[name] = module  # Dataclasses and pickle look their classes up here.
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        _refuse_broken(_shown(path), error)
    return module


def load_module(name: str) -> ModuleType:
    """Import a module, which may lie in the current folder.

    Raises:
        UsageError: there is none, or it does not import.
    """
    _let_modules_of_the_folder_be_found()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            _refuse_broken(name, error)
        near = nearest(f"{name}.py", (file.name for file in Path().glob("*.py")))
        raise UsageError(f"There is no module {name!r}, here or installed{near or '.'}") from error
    except BaseException as error:
        _refuse_broken(name, error)
        raise


def _let_modules_of_the_folder_be_found() -> None:
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))  # Worker processes inherit it.


def _refuse_broken(place: str, error: BaseException) -> None:
    """Raise a UsageError that names the line of the user's file in which an import failed."""
    if isinstance(error, MlhooksError | KeyboardInterrupt):
        raise error
    where = raised_at(error)
    if isinstance(error, SyntaxError) and error.filename:
        where = f"{_shown(Path(error.filename))}:{error.lineno}"
    hint = ""
    if isinstance(error, ModuleNotFoundError) and error.name == "pettingzoo":
        hint = " Install PettingZoo: pip install 'mlhooks[pettingzoo]'"
    if isinstance(error, ModuleNotFoundError) and error.name in {"gymnasium", "gym"}:
        hint = " Install Gymnasium: pip install 'mlhooks[gymnasium]'"
        if error.name == "gym":
            hint = " gym has become gymnasium: write import gymnasium as gym."
    elif isinstance(error, ImportError) and (error.name or "").startswith(FILES):  # The file imports relatively.
        hint = " A file of a package is named as its module is, such as package.module:Class."
    text = error.msg if isinstance(error, SyntaxError) else None
    said = f"{type(error).__name__}: {text}" if text else named(error)
    raise UsageError(f"{place} does not import: {said}{in_brackets(where)}.{hint}") from error


def _not_there(place: str, name: str, module: ModuleType) -> str:
    own = [
        key
        for key, value in vars(module).items()
        if isinstance(value, type) and value.__module__ == module.__name__ and not key.startswith("_")
    ]
    functions = [
        key
        for key, value in vars(module).items()
        if callable(value) and not isinstance(value, type) and getattr(value, "__module__", "") == module.__name__
    ]
    if not name:
        listed = f" It has {', '.join([*own, *functions])}." if own or functions else ""
        return f"No class is named behind {place}: say which, as in {place}:{own[0] if own else 'Corridor'}.{listed}"
    near = nearest(name, [*own, *functions])
    listed = f" Its classes are {', '.join(own)}." if own else ""
    return f"{place} has no class or function {name!r}{near or '.'}{listed}"


def _shown(path: Path) -> str:
    try:
        return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
    except (OSError, ValueError):
        return str(path)
