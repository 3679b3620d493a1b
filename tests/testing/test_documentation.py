from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlhooks.testing import documentation_links
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


def anchor(heading: str) -> str:
    """Return the name of a heading in links: as GitHub makes it, without punctuation and with hyphens for spaces."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def sections() -> dict[str, str]:
    """Return the text below each heading by its anchor, up to the next heading of any level."""
    parts = re.split(r"^#+ (.+)\n", DOCS, flags=re.MULTILINE)
    return {anchor(heading): text for heading, text in zip(parts[1::2], parts[2::2], strict=True)}


def test_links_lead_to_headings() -> None:
    assert [link for link in re.findall(r"\]\(#([^)]+)\)", DOCS) if link not in sections()] == []
    assert set(OF_TRAINERS) < set(CHECKS)


@pytest.mark.parametrize("module", CHECKS)
def test_failure_links_to_a_section_with_a_cure_for_each_check(module: str) -> None:
    path, _, section = documentation_links.link(module).partition("#")
    assert Path(path).read_text(encoding="utf-8") == DOCS
    cured = re.findall(r"^- (`test_\w+`(?:,\s+`test_\w+`)*):", sections()[section], flags=re.MULTILINE)
    named = re.findall(r"test_\w+", " ".join(cured))
    assert named == [name for name, _ in re.findall(r"^\| `(test_\w+)` (\|)", sections()[section], flags=re.MULTILINE)]
    assert sorted(named) == sorted(name for name, _ in checks_of(module))


def test_every_module_of_checks_has_a_section() -> None:
    assert documentation_links.SECTIONS.keys() == set(CHECKS)
