"""Changes of named functions and classes, which are carried out while their module is imported.

A place is written `module:Class.method`, `module:function`, `module:Class` or `module`. What stands there is compared
as a syntax tree, so that neither lines nor spaces nor comments matter, and must be there once.
"""

from __future__ import annotations

import ast
import functools
import pkgutil
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from types import ModuleType
from typing import Any

ROOT = Path(__file__).parents[3]
Scope = ast.Module | ast.ClassDef | ast.FunctionDef
Changed = Callable[..., Any]


class MisfitError(AssertionError):
    """What a patch changes is not there, or not once."""


class Patch:
    """What one mutant changes."""

    def __init__(self) -> None:
        self.rewritings: dict[str, list[Callable[[ast.Module], None]]] = defaultdict(list)
        self.surroundings: dict[str, list[tuple[str, Changed]]] = defaultdict(list)

    @property
    def modules(self) -> set[str]:
        """The modules that it changes."""
        return self.rewritings.keys() | self.surroundings.keys()

    def replace(self, place: str, old: str, new: str) -> None:
        """Put an expression in place of another, or statements in place of statements that stand together."""

        def change(scope: Scope) -> int:
            old_statements, new_statements = _parsed(old), _parsed(new)
            old_expression, new_expression = _expression(old_statements), _expression(new_statements)
            if old_expression is None or new_expression is None:
                return _replace_statements(scope, old_statements, new_statements)
            replacing = _Replacing(old_expression, new_expression)
            replacing.generic_visit(scope)
            return replacing.count

        self._rewrite(place, old, change)

    def drop(self, place: str, old: str) -> None:
        """Leave statements out."""
        self.replace(place, old, "pass")

    def insert(self, place: str, new: str) -> None:
        """Add statements: at the beginning of a function, or at the end of a class or module."""

        def change(scope: Scope) -> int:
            if isinstance(scope, ast.FunctionDef):
                scope.body[bool(ast.get_docstring(scope)) : 0] = _parsed(new)
            else:
                scope.body += _parsed(new)
            return 1

        self._rewrite(place, new, change)

    def rename(self, place: str, old: str, new: str) -> None:
        """Give a function, an argument or a variable another name, there alone."""

        def change(scope: Scope) -> int:
            renaming = _Renaming(old, new)
            renaming.visit(scope)
            return min(renaming.count, 1)

        self._rewrite(place, old, change)

    def around(self, place: str) -> Callable[[Changed], Changed]:
        """Have the decorated function called in place of another one, which is its first argument."""

        def decorate(changed: Changed) -> Changed:
            module, _, name = place.partition(":")
            self.surroundings[module].append((name, changed))
            return changed

        return decorate

    def check(self) -> None:
        """See whether everything that is to be changed is there.

        Raises:
            MisfitError: it is not.
        """
        for module in self.rewritings:
            self.rewritten(module, _source(module))
        for module, surrounded in self.surroundings.items():
            for name, _ in surrounded:
                try:
                    pkgutil.resolve_name(f"{module}:{name}")
                except (ImportError, AttributeError) as error:
                    raise MisfitError(f"There is no {module}:{name} to change: adapt the mutant.") from error

    def rewritten(self, module: str, source: str | bytes) -> ast.Module:
        """Return the changed syntax tree of a module with this source.

        Raises:
            MisfitError: the change does not fit.
        """
        tree = ast.parse(source)
        for rewrite in self.rewritings.get(module, []):
            rewrite(tree)
        return ast.fix_missing_locations(tree)

    def surround(self, module: ModuleType) -> None:
        """Change the functions of a module that was imported."""
        for name, changed in self.surroundings.get(module.__name__, []):
            path, _, attribute = name.rpartition(".")
            owner = functools.reduce(getattr, filter(None, path.split(".")), module)
            setattr(owner, attribute, _calling(changed, getattr(owner, attribute)))

    def _rewrite(self, place: str, what: str, change: Callable[[Scope], int]) -> None:
        module, _, name = place.partition(":")

        def rewrite(tree: ast.Module) -> None:
            count = change(_scope(tree, name, place))
            if count != 1:
                raise MisfitError(f"{dedent(what).strip()!r} stands {count} times in {place}: adapt the mutant.")

        self.rewritings[module].append(rewrite)


class _Replacing(ast.NodeTransformer):
    """Replaces an expression wherever it stands."""

    def __init__(self, old: ast.expr, new: ast.expr) -> None:
        self.old, self.new, self.count = ast.dump(old), new, 0
        self.kind = type(old)

    def visit(self, node: ast.AST) -> ast.AST:
        if type(node) is self.kind and ast.dump(node) == self.old:
            self.count += 1
            return self.new
        return self.generic_visit(node)


class _Renaming(ast.NodeTransformer):
    """Renames whatever has a name."""

    NAMES = ("id", "arg", "name")

    def __init__(self, old: str, new: str) -> None:
        self.old, self.new, self.count = old, new, 0

    def visit(self, node: ast.AST) -> ast.AST:
        for field in self.NAMES:
            if isinstance(node, ast.Name | ast.arg | ast.FunctionDef) and getattr(node, field, None) == self.old:
                setattr(node, field, self.new)
                self.count += 1
        return self.generic_visit(node)


def _parsed(source: str) -> list[ast.stmt]:
    return ast.parse(dedent(source)).body


def _expression(statements: list[ast.stmt]) -> ast.expr | None:
    """Return the expression that is all there is, or None."""
    match statements:
        case [ast.Expr(value=expression)]:
            return expression
    return None


def _replace_statements(scope: Scope, old: list[ast.stmt], new: list[ast.stmt]) -> int:
    """Replace statements wherever they stand together; gives how often they did."""
    count, wanted = 0, [*map(ast.dump, old)]
    for node in list(ast.walk(scope)):
        for field in ("body", "orelse", "finalbody"):
            body = getattr(node, field, None)
            if not isinstance(body, list):
                continue
            for start in range(len(body) - len(old), -1, -1):
                if [*map(ast.dump, body[start : start + len(old)])] == wanted:
                    body[start : start + len(old)] = new
                    count += 1
    return count


def _scope(tree: ast.Module, name: str, place: str) -> Scope:
    scope: Scope = tree
    for part in filter(None, name.split(".")):
        found = [node for node in scope.body if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == part]
        if len(found) != 1:
            raise MisfitError(f"{place} stands {len(found)} times in its module: adapt the mutant.")
        (scope,) = found
    return scope


def _calling(changed: Changed, original: Changed) -> Changed:
    @functools.wraps(original)
    def call(*arguments: Any, **options: Any) -> Any:
        return changed(original, *arguments, **options)

    return call


def _source(module: str) -> bytes:
    path = module.replace(".", "/")
    for folder in (ROOT, *ROOT.glob("examples/*/src")):
        for file in (folder / f"{path}.py", folder / path / "__init__.py"):
            if file.is_file():
                return file.read_bytes()
    raise MisfitError(f"There is no module {module}: adapt the mutant.")
