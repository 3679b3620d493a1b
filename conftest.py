"""The surroundings of all tests: one thread, fixed seeds, no settings of mlhooks from outside, no deadlines."""

from __future__ import annotations

import os
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
    """Add `--share`."""
    parser.addoption(
        "--share",
        type=int,
        default=1,
        metavar="N",
        help="Of the tests that are chosen, run the first and every N-th one after it: of each file, and of each "
        "subject that a mark names.",
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


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Initial weights that a test does not choose are the same each time."""
    import torch

    torch.manual_seed(0)
