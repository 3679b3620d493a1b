"""The names that plugins offer, read from their source: completion must not import them, because most import torch."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path

from mlhooks.plugin_sources import BUILTIN_PLUGINS, GROUP, autoload_enabled

TRAINER_TYPES, ENVIRONMENT_KINDS = "get_trainer_types", "get_env_types"


def claimed(hook: str, more: Iterable[Path] = ()) -> list[str]:
    """Return the names that plugins return from a hook, as far as their source shows them.

    Args:
        hook: the name of the hook.
        more: files of plugins besides the installed ones.
    """
    return sorted({name for tree in _sources(tuple(more)) for name, _ in _answers(tree, hook)})


def hyperparameters(more: Iterable[Path] = ()) -> dict[str, tuple[list[str], list[str]]]:
    """Return for each trainer type the keys that its settings model adds, and the names of that model's bases."""
    found = {}
    for tree in _sources(tuple(more)):
        classes = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
        for name, trainer in _answers(tree, TRAINER_TYPES):
            model = _assigned(classes, trainer, "hyperparameters_type")
            found[name] = _fields(classes, model) if model else ([], [])
    return found


@cache
def _sources(more: tuple[Path, ...]) -> list[ast.Module]:
    modules = [*BUILTIN_PLUGINS]
    if autoload_enabled():
        modules += [point.value.partition(":")[0] for point in entry_points(group=GROUP)]
    return list(_parsed([*filter(None, map(_file_of, modules)), *more]))


def _parsed(files: Iterable[Path]) -> Iterator[ast.Module]:
    for file in files:
        try:
            yield ast.parse(file.read_text(encoding="utf-8"))
        except (OSError, ValueError, SyntaxError):
            continue


def _file_of(module: str) -> Path | None:
    """Return the file of a module, without importing its packages."""
    top, *parts = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None or spec.origin is None:
        return None
    if not parts:
        return Path(spec.origin)
    place = Path(spec.origin).parent.joinpath(*parts)
    return next((file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file()), None)


def _answers(tree: ast.Module, hook: str) -> Iterator[tuple[str, str]]:
    """Yield the keys of the mappings that a hook returns, with the names of their values."""
    for function in ast.walk(tree):
        if not (isinstance(function, ast.FunctionDef) and function.name == hook):
            continue
        for node in ast.walk(function):
            if isinstance(node, ast.Return) and isinstance(node.value, ast.Dict):
                for key, value in zip(node.value.keys, node.value.values, strict=True):
                    if isinstance(key, ast.Constant) and isinstance(key.value, str):
                        yield key.value, value.id if isinstance(value, ast.Name) else ""


def _assigned(classes: dict[str, ast.ClassDef], name: str, attribute: str) -> str | None:
    """Return the name that a class, or one that it derives from in the same file, assigns to an attribute."""
    node = classes.get(name)
    if node is None:
        return None
    for statement in node.body:
        if not (isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Name)):
            continue
        if any(isinstance(target, ast.Name) and target.id == attribute for target in statement.targets):
            return statement.value.id
    bases = [base.id for base in node.bases if isinstance(base, ast.Name) and base.id != name]
    return next((found for base in bases if (found := _assigned(classes, base, attribute))), None)


def _fields(classes: dict[str, ast.ClassDef], name: str) -> tuple[list[str], list[str]]:
    """Return the annotated names of a class and of its bases in the same file, and the names of the other bases."""
    node = classes.get(name)
    if node is None:
        return [], [name]
    fields = [
        statement.target.id
        for statement in node.body
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)
    ]
    others: list[str] = []
    for base in (base.id for base in node.bases if isinstance(base, ast.Name)):
        more, further = _fields(classes, base)
        fields, others = [*more, *fields], [*others, *further]
    return fields, others
