"""Mutants: functions that say what is wrong, what it is tried on, and which conformance test must catch it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.testing.mutants.patch import Patch

Change = Callable[[Patch], None]


@dataclass(frozen=True)
class Mutant:
    """A plugin that is wrong on purpose.

    Attributes:
        target: the plugin with which the conformance tests are run.
        tests: each of them must fail.
        plain: whether it is tried in plain torch and numpy, because it changes what is replaced otherwise.
        change: says what is wrong with it.
    """

    target: str
    tests: tuple[str, ...]
    plain: bool
    change: Change

    @property
    def name(self) -> str:
        """The name by which it is chosen."""
        return self.change.__name__

    @property
    def subject(self) -> str:
        """The module in which it stands."""
        return self.change.__module__.rpartition(".")[2]

    def patch(self) -> Patch:
        """Return what it changes."""
        patch = Patch()
        self.change(patch)
        return patch


MUTANTS: list[Mutant] = []
"""Those of all modules that were imported."""


def mutant(target: str, *, caught_by: str | tuple[str, ...], plain: bool = False) -> Callable[[Change], Change]:
    """Make the decorated function a mutant of `target`, which the named tests catch."""

    def decorate(change: Change) -> Change:
        tests = (caught_by,) if isinstance(caught_by, str) else caught_by
        MUTANTS.append(Mutant(target, tests, plain, change))
        return change

    return decorate
