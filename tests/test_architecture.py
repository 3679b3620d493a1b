"""What docs/architecture.md says of the tree."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
HIDDEN = {"__pycache__", "dist", "results", "shared"}


def rooms(folder: Path) -> set[str]:
    """Return the folders of a folder that hold something of the project."""
    return {
        room.name
        for room in folder.iterdir()
        if room.is_dir() and room.name not in HIDDEN and not room.name.startswith(".") and any(room.glob("**/*.*"))
    }


def test_tree_names_all_rooms_and_no_others() -> None:
    (tree,) = re.findall(r"^## The rooms\n\n```\n(.*?)```", PAGE, re.DOTALL | re.MULTILINE)
    named: dict[str, set[str]] = {"": set()}
    outer = ""
    for indent, room in re.findall(r"^( *)(\w+)/ ", tree, re.MULTILINE):
        if indent:
            named[outer].add(room)
        else:
            outer = room
            named[""].add(room)
            named[room] = set()
    assert named[""] == rooms(ROOT) - {"runs"}
    assert named["mlhooks"] == rooms(ROOT / "mlhooks")
    assert named["builtin_plugins"] == rooms(ROOT / "builtin_plugins")


def test_files_that_it_names_are_there() -> None:
    places = [ROOT, *(ROOT / name for name in ("mlhooks", "mlhooks/training", "mlhooks/settings", "mlhooks/cli"))]
    files = set(re.findall(r"`((?:\w+/)*\w+\.(?:py|md))`", PAGE)) | set(re.findall(r"\]\((\w+\.md)\)", PAGE))
    assert len(files) > 15
    missing = [name for name in files if not any((place / name).exists() for place in [*places, ROOT / "docs"])]
    assert missing == []


LAZY = {
    "mlhooks": "its names are imported when they are asked for",
    "mlhooks.mlagents_wheel.offers": "trainers of ML-Agents' own package are imported only where a behavior has one",
}
"""Modules that import something inside a function that itself imports them, each with its reason."""

STOREYS = (
    {"cli"},
    {"doctor", "testing"},
    {"training"},
    {"nn", "envs", "fast"},
    {"settings", "stats"},
    {"errors"},
)
"""Rooms of mlhooks from top to bottom, as docs/architecture.md orders them; imports go down or stay on a storey."""


@cache
def modules() -> dict[str, ast.Module]:
    """Return all modules of mlhooks and the built-in plugins by name, parsed."""
    files = [file for top in ("mlhooks", "builtin_plugins") for file in (ROOT / top).rglob("*.py")]
    names = {file: ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for file in files}
    return {name: ast.parse(file.read_text(encoding="utf-8")) for file, name in names.items()}


def imported(tree: ast.AST, *, later: bool) -> Iterator[str]:
    """Yield the dotted names that a tree imports, without those for type checkers.

    Args:
        tree: A parsed module, or a part of it.
        later: Whether imports inside functions count, too.
    """
    for node in ast.iter_child_nodes(tree):
        match node:
            case ast.Import():
                yield from (alias.name for alias in node.names)
            case ast.ImportFrom():
                yield from (f"{node.module}.{alias.name}" for alias in node.names)
            case ast.If(test=ast.Name("TYPE_CHECKING")):
                yield from imported(ast.Module(node.orelse, []), later=later)
            case ast.expr():
                pass
            case ast.FunctionDef() | ast.AsyncFunctionDef() if not later:
                pass
            case _:
                yield from imported(node, later=later)


def module_of(dotted: str) -> str:
    """Return the module of the project in which a dotted name is, "" for other people's."""
    while dotted and dotted not in modules():
        dotted = dotted.rpartition(".")[0]
    return dotted


@cache
def imports(*, later: bool) -> dict[str, set[str]]:
    """Return what each module imports of the project, and the packages that are imported on the way there."""
    graph: dict[str, set[str]] = {}
    for name, tree in modules().items():
        found = {module_of(dotted) for dotted in imported(tree, later=later and name not in LAZY)}
        packages = {package for target in found for package in parents(target) if not f"{name}.".startswith(package)}
        graph[name] = (found | {package.rstrip(".") for package in packages}) - {"", name}
    return graph


def parents(name: str) -> list[str]:
    """Return the packages around a module, each with a dot at its end."""
    return [name[: dot.end()] for dot in re.finditer(r"\.", name)]


def test_imports_are_read_from_the_modules() -> None:
    assert "mlhooks.cli.group" in imports(later=False)["mlhooks.cli"]
    assert "mlhooks.sim_player.command" not in imports(later=False)["mlhooks.cli.sim_player"]
    assert "mlhooks.sim_player.command" in imports(later=True)["mlhooks.cli.sim_player"]
    assert "mlhooks.training" in imports(later=False)["mlhooks.api"]
    assert not any(target.startswith("mlhooks.training") for target in imports(later=True)["mlhooks.hookspecs"])


@pytest.mark.parametrize("later", [False, True], ids=["at-start", "later"])
def test_no_module_imports_itself_in_a_circle(later: bool) -> None:
    try:
        TopologicalSorter(imports(later=later)).prepare()
    except CycleError as error:
        pytest.fail(f"These import each other: {' <- '.join(error.args[1])}")


def test_exceptions_for_lazy_imports_are_needed() -> None:
    for name in LAZY:
        lazily = {module_of(dotted) for dotted in imported(modules()[name], later=True)} - {"", name}
        graph = imports(later=True) | {name: lazily}
        with pytest.raises(CycleError):
            TopologicalSorter(graph).prepare()


def test_mlhooks_imports_no_built_in_plugin() -> None:
    assert [
        (name, target)
        for name, targets in imports(later=True).items()
        for target in targets
        if name.startswith("mlhooks") and target.startswith("builtin_plugins")
    ] == []


def test_nothing_imports_the_command_line() -> None:
    importing = {name for name, targets in imports(later=True).items() if any(map(in_cli, targets))}
    assert {name for name in importing if not in_cli(name)} == {"mlhooks.__main__"}


def in_cli(name: str) -> bool:
    return f"{name}.".startswith("mlhooks.cli.")


def test_imports_go_down_the_storeys() -> None:
    storey = {room: number for number, rooms in enumerate(STOREYS) for room in rooms}
    named = re.findall(r"`(\w+)`", re.findall(r"^Imports run one way:(.*?)\.", PAGE, re.DOTALL | re.MULTILINE)[0])
    assert [storey[room] for room in named] == sorted(storey[room] for room in named)
    assert set(storey) - set(named) == {"doctor", "testing"}
    upwards = [
        (name, target)
        for name, targets in imports(later=True).items()
        for target in targets
        if storey.get(room_of(target), len(STOREYS)) < storey.get(room_of(name), -1)
    ]
    assert upwards == []


def room_of(name: str) -> str:
    """Return the folder or single module of mlhooks in which a module is, "" for built-in plugins."""
    return name.split(".")[1] if name.startswith("mlhooks.") else ""
