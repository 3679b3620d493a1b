"""The surroundings of all tests: one thread, fixed seeds, no settings of mlhooks from outside, no deadlines."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

# Before anything imports torch or numpy: tests compare weights bit for bit, and small networks are faster so.
os.environ["OMP_NUM_THREADS"] = "1"
for name in [name for name in os.environ if name.startswith("MLHOOKS_")]:
    del os.environ[name]

settings.register_profile("mlhooks", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "mlhooks")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Initial weights that a test does not choose are the same each time."""
    import torch

    torch.manual_seed(0)
