"""`mlhooks.plugin`, from which plugins import."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import mlhooks
from mlhooks import plugin
from mlhooks.training.batch import Batch

ROOT = Path(__file__).parents[1]
ALGORITHMS = [f"builtin_plugins/{name}.py" for name in ("ppo", "a2c", "dqn", "sac", "poca")]
PACKAGES = [path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "examples").glob("*/src/**/*.py"))]
TEMPLATES = [
    path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "mlhooks" / "templates").glob("*/src/**/*.py.tmpl"))
]


def imports(source: str) -> list[ast.ImportFrom]:
    return [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)]


def test_every_name_is_that_of_its_home() -> None:
    assert plugin.Batch is Batch
    assert plugin.hookimpl is mlhooks.hookimpl
    for name in plugin.__all__:
        found = getattr(plugin, name)
        assert getattr(importlib.import_module(plugin._HOMES.get(name, "mlhooks")), name) is found
        assert getattr(found, "__doc__", None), f"{name} says nothing about itself"
    assert dir(plugin) == sorted(plugin.__all__)
    assert len(plugin.__all__) == len(set(plugin.__all__))


def test_type_checkers_see_the_same_names_as_the_program() -> None:
    tree = ast.parse(Path(str(plugin.__file__)).read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    seen = {}
    for node in block.body:
        assert isinstance(node, ast.ImportFrom)
        for alias in node.names:
            assert alias.asname == alias.name  # That makes it public to them.
            seen[alias.name] = node.module
    assert seen == plugin._HOMES


def test_name_that_is_not_there_is_an_error() -> None:
    with pytest.raises(AttributeError, match=r"'mlhooks\.plugin' has no attribute 'Batsch'"):
        _ = plugin.Batsch
    with pytest.raises(ImportError, match="Batsch"):
        exec("from mlhooks.plugin import Batsch")


def test_importing_what_needs_no_torch_does_not_import_it() -> None:
    code = (
        "import sys; from mlhooks.plugin import hookimpl; print({'numpy', 'pydantic', 'torch'} & {*sys.modules}); "
        "from mlhooks.plugin import EnvironmentKind, Field, RunOptions, Spaces, StatsSummary, UsageError"
        "; print('torch' in sys.modules); from mlhooks.plugin import Batch; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["set()", "False", "True"]


@pytest.mark.parametrize("path", [*ALGORITHMS, *PACKAGES, *TEMPLATES])
def test_algorithms_packages_and_templates_import_from_it_alone(path: str) -> None:
    found = imports((ROOT / path).read_text(encoding="utf-8"))
    modules = {str(node.module) for node in found if str(node.module).partition(".")[0] in {"mlhooks", "pydantic"}}
    assert modules <= {"mlhooks.plugin"}


def test_documents_import_from_it_alone() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").glob("*/README.md")]
    lines = [line for page in pages for line in re.findall(r"from (mlhooks\S*|pydantic\S*) import", page.read_text())]
    assert lines
    assert set(lines) == {"mlhooks.plugin"}


def test_page_for_authors_names_all_of_it() -> None:
    page = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
    (section,) = re.findall(r"^## The names of mlhooks\.plugin\n(.*?)^## ", page, re.DOTALL | re.MULTILINE)
    named = re.findall(r"`(\w+)`", "".join(re.findall(r"^\| [^|]+ \| (.*) \|$", section, re.MULTILINE)))
    assert sorted(named) == sorted(plugin.__all__)
