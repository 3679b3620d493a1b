from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlhooks.testing.collection import CHECKS, OF_TRAINERS, check_module

DOCS = (Path(__file__).parents[2] / "docs" / "testing.md").read_text(encoding="utf-8")


def checks_of(name: str) -> Iterator[tuple[str, str]]:
    """Name and first line of the docstring of each check of a module."""
    module = check_module(name)
    for function, member in inspect.getmembers(module, inspect.isfunction):
        if function.startswith("test_") and member.__module__ == module.__name__:
            yield function, (inspect.getdoc(member) or "").partition("\n")[0]


@pytest.mark.parametrize("module", CHECKS)
def test_every_check_says_what_it_demands_and_stands_in_the_documentation(module: str) -> None:
    rows = {f"| `{name}` | {demand.rstrip('.')} |" for name, demand in checks_of(module)}
    assert rows
    assert [row for row in rows if row not in DOCS] == []


def test_documentation_names_no_check_that_does_not_exist() -> None:
    named = re.findall(r"^\| `(test_\w+)` \|", DOCS, flags=re.MULTILINE)
    known = [name for module in CHECKS for name, _ in checks_of(module)]
    assert sorted(named) == sorted(known)


def test_links_lead_to_headings() -> None:
    headings = {heading.lower().replace(" ", "-") for heading in re.findall(r"^#+ (.+)$", DOCS, flags=re.MULTILINE)}
    assert [link for link in re.findall(r"\]\(#([^)]+)\)", DOCS) if link not in headings] == []
    assert set(OF_TRAINERS) < set(CHECKS)
