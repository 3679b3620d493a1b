from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from mlhooks.testing.collection import names_of_tests
from tests.testing.mutants import MUTANTS, Mutant, applying
from tests.testing.mutants.patch import MisfitError, Patch

SOURCE = '''
import math

class Shape:
    """What has an area."""

    sides = 4

    @staticmethod
    def area(width, height):
        """The product."""
        assert width >= 0  # a comment
        assert height >= 0
        return (
            width
            * height
        )

    def corners(self, factor):
        return self.sides * factor

def double(x):
    return 2 * x
'''


def run(patch: Patch) -> dict[str, object]:
    """Return what the patched source defines."""
    defined: dict[str, object] = {}
    exec(compile(patch.rewritten("shapes", SOURCE), "shapes", "exec"), defined)
    return defined


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_mutant_fits_the_source_and_names_tests(mutant: Mutant) -> None:
    mutant.patch().check()
    assert mutant.patch().modules
    assert set(mutant.tests) <= names_of_tests()


def test_mutants_have_names_of_their_own() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)


def test_expression_is_replaced_however_it_is_written(patch: Patch) -> None:
    patch.replace("shapes:Shape.area", "width*height", "width + height")
    assert run(patch)["Shape"].area(3, 5) == 8


def test_statements_that_stand_together_are_replaced(patch: Patch) -> None:
    patch.replace("shapes:Shape.area", "assert width >= 0; assert height >= 0", "if width < 0: return 0")
    assert run(patch)["Shape"].area(-3, 5) == 0
    assert run(patch)["Shape"].area(3, -5) == -15


def test_decorator_is_an_expression_of_its_function(patch: Patch) -> None:
    patch.replace("shapes:Shape.area", "staticmethod", "lambda function: 'no function'")
    assert run(patch)["Shape"].area == "no function"


def test_statement_is_dropped(patch: Patch) -> None:
    patch.drop("shapes:Shape.area", "assert width >= 0")
    assert run(patch)["Shape"].area(-3, 5) == -15


def test_statements_are_inserted_first_in_a_function_and_last_in_a_class(patch: Patch) -> None:
    patch.insert("shapes:Shape.area", "width = 1")
    patch.insert("shapes:Shape", "sides = 5")
    patch.insert("shapes", "double = None")
    defined = run(patch)
    assert defined["Shape"].area(3, 5) == 5
    assert defined["Shape"].area.__doc__ == "The product."
    assert defined["Shape"].sides == 5
    assert defined["double"] is None


def test_functions_arguments_and_variables_are_renamed(patch: Patch) -> None:
    patch.rename("shapes", "double", "duble")
    patch.rename("shapes:Shape", "sides", "edges")
    patch.rename("shapes:Shape.area", "width", "breadth")
    defined = run(patch)
    assert "double" not in defined
    assert defined["duble"](2) == 4
    assert defined["Shape"].edges == 4
    assert defined["Shape"].area(breadth=3, height=5) == 15


@pytest.mark.parametrize(
    ("verb", "arguments", "message"),
    [
        ("replace", ("shapes:double", "3 * x", "x"), r"'3 \* x' stands 0 times in shapes:double: adapt the mutant"),
        ("replace", ("shapes:Shape.area", "0", "1"), "'0' stands 2 times"),
        ("drop", ("shapes:double", "return 3"), "'return 3' stands 0 times"),
        ("rename", ("shapes:double", "y", "z"), "'y' stands 0 times"),
        ("insert", ("shapes:Shape.volume", "pass"), "shapes:Shape.volume stands 0 times in its module"),
    ],
)
def test_what_does_not_fit_is_reported(patch: Patch, verb: str, arguments: tuple[str, ...], message: str) -> None:
    getattr(patch, verb)(*arguments)
    with pytest.raises(MisfitError, match=message):
        patch.rewritten("shapes", SOURCE)


@pytest.mark.parametrize("place", ["builtin_plugins.ppo:PPOTrainer.learn", "builtin_plugins.ppa:loss"])
def test_function_that_is_not_there_is_reported(patch: Patch, place: str) -> None:
    patch.around(place)(lambda original: original())
    with pytest.raises(MisfitError, match=f"There is no {place} to change: adapt the mutant"):
        patch.check()


def test_imported_module_is_changed_and_others_are_not(
    patch: Patch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("shapes", "others"):
        (tmp_path / f"{name}.py").write_text(SOURCE)
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", [applying.PatchingFinder(patch), *sys.meta_path])
    patch.replace("shapes:double", "2", "3")
    patch.around("shapes:Shape.corners")(lambda original, self, factor: original(self, factor) + 1)
    shapes, others = map(importlib.import_module, ("shapes", "others"))
    assert shapes.double(2) == 6
    assert others.double(2) == 4
    assert shapes.Shape().corners(2) == 9
    assert others.Shape().corners(2) == 8


def test_mutant_that_comes_too_late_is_refused() -> None:
    importlib.import_module("builtin_plugins.ppo")
    with pytest.raises(RuntimeError, match=r"builtin_plugins\.ppo should not have been imported before ppo_sum_over"):
        applying.apply("ppo_sum_over_rows")


@pytest.fixture
def patch() -> Patch:
    return Patch()
