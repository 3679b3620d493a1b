"""Fail a check with a sentence for the author of the plugin instead of a traceback through the kit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import pytest


def fail(message: str) -> NoReturn:
    """Fail the check with `message`."""
    raise pytest.fail.Exception(message, pytrace=False) from None


def demand(condition: object, message: str) -> None:
    """Fail the check with `message` unless `condition` holds."""
    if not condition:
        fail(message)


@contextmanager
def works(doing: str) -> Iterator[None]:
    """Fail the check where the plugin raises; `doing` ends the sentence "The plugin failed while ...".

    The traceback follows the sentence, so that the author sees the line.
    """
    try:
        yield
    except Exception as error:
        error.add_note(f"The plugin failed while {doing}; it must not raise there.")
        raise
