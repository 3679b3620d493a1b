"""What is computed without the compiled part."""

from __future__ import annotations

from collections.abc import Iterator
from contextvars import ContextVar

import pytest

from mlhooks.nn import recorded


@pytest.fixture
def in_numpy() -> Iterator[None]:
    """What is compiled leaves everything to numpy."""
    recorded.connect(ContextVar("nothing is entered", default=None))
    yield
    recorded.connect()
