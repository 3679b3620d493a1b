"""The surroundings of all tests: one thread, fixed seeds, no settings of mlhooks from outside, no deadlines."""

from __future__ import annotations

import os
import random
from collections import Counter

import pytest
from hypothesis import settings

# Before anything imports torch or numpy: tests compare weights bit for bit, and small networks are faster so.
os.environ["OMP_NUM_THREADS"] = "1"
for name in [name for name in os.environ if name.startswith("MLHOOKS_")]:
    del os.environ[name]

settings.register_profile("mlhooks", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "mlhooks")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--share`, and what tests/reliability is told."""
    parser.addoption(
        "--share",
        type=int,
        default=1,
        metavar="N",
        help="Of the tests that are chosen, run the first and every N-th one after it: of each file, and of each "
        "subject that a mark names.",
    )
    group = parser.getgroup("reliability", "tests/reliability (pytest -m reliability)")
    group.addoption("--reliability-share", type=float, default=1.0, help="The share of all random cases to try.")
    group.addoption(
        "--reliability-seed",
        type=int,
        default=random.SystemRandom().randrange(10**6),
        help="The number of the first case; the others count on from it. A random one where it is not given.",
    )


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what `--share` does not ask for; nothing is drawn, so that a failure stays where it was."""
    share, places, kept, left_out = config.getoption("--share"), Counter[object](), [], []
    for item in items:
        subject = item.path, *(mark.args for mark in item.iter_markers("mutants"))
        (left_out if places[subject] % share else kept).append(item)
        places[subject] += 1
    items[:] = kept
    config.hook.pytest_deselected(items=left_out)


def pytest_report_header(config: pytest.Config) -> str:
    """Say by which option random cases are repeated."""
    return f"reliability: --reliability-seed {config.getoption('reliability_seed')}"


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Initial weights that a test does not choose are the same each time."""
    import torch

    torch.manual_seed(0)
