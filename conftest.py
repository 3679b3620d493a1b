"""The surroundings of all tests: one thread, fixed seeds, no settings of mlhooks but MLHOOKS_PLAIN, no deadlines."""

from __future__ import annotations

import math
import os
import random
from collections import Counter

import pytest
from hypothesis import settings

# Before anything imports torch or numpy: tests compare weights bit for bit, and small networks are faster so.
os.environ["OMP_NUM_THREADS"] = "1"
for name in [name for name in os.environ if name.startswith("MLHOOKS_") and name != "MLHOOKS_PLAIN"]:
    del os.environ[name]

settings.register_profile("mlhooks", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "mlhooks")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--share`, and what tests/reliability is told."""
    parser.addoption(
        "--share",
        type=float,
        default=1.0,
        help="The share to try of all mutants of each subject, of the slow tests in each file, or of all cases of "
        "tests/reliability: 0.1 is a tenth.",
    )
    group = parser.getgroup("reliability", "tests/reliability (pytest -m reliability)")
    group.addoption(
        "--reliability-seed",
        type=int,
        default=1 if os.environ.get("CI") else random.SystemRandom().randrange(10**6),
        help="The number of the first case; the others count on from it. Not given: a random one, and 1 in CI.",
    )


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the mutants and slow tests that `--share` does not ask for.

    Of each subject of mutants, and of each file of slow tests, the first stays, and others evenly.
    """
    share, places, left_out = config.getoption("--share"), Counter[object](), []
    for item in items:
        kinds: list[object] = [mark.args for mark in item.iter_markers("mutants")]
        if any(item.iter_markers("slow")):
            kinds.append(item.path)
        for kind in kinds:
            place = places[kind]
            places[kind] += 1
            if math.floor(place * share) == math.floor((place - 1) * share):
                left_out.append(item)
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)


def pytest_report_header(config: pytest.Config) -> str:
    """Say by which option random cases are repeated."""
    return f"reliability: --reliability-seed {config.getoption('reliability_seed')}"


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Initial weights that a test does not choose are the same each time."""
    import torch

    torch.manual_seed(0)
