"""How many random cases there are, and which: `--share` and `--reliability-seed`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def cases(request: pytest.FixtureRequest) -> Callable[[int], list[int]]:
    """Numbers of the cases to try: so many of them in all, or their share; each is the seed of its case.

    `--reliability-seed 5` tries 5, 6, 7 and so on: a case that fails is the first one of its own number.
    """
    share = request.config.getoption("share")
    first = request.config.getoption("reliability_seed")

    def numbers(count: int) -> list[int]:
        return [first + index for index in range(max(1, round(count * share)))]

    return numbers


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.reliability)
            item.add_marker(pytest.mark.timeout(7200))
