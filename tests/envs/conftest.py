"""Managers of worker processes that are closed after each test."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import cloudpickle
import pytest

from mlhooks.envs.processes import ProcessManager
from mlhooks.envs.restarts import RestartPolicy
from mlhooks.envs.worker import Recipe
from tests.envs.managed import UNHURRIED, Manage


@pytest.fixture
def manage() -> Iterator[Manage]:
    with contextlib.ExitStack() as stack:

        def make(factory: Any, count: int, lifetime: int = -1) -> ProcessManager:
            pickled = cloudpickle.dumps(factory)
            recipes = [Recipe(pickled, index, 1, 30) for index in range(count)]
            manager = ProcessManager(recipes, timeout=UNHURRIED, restarts=RestartPolicy(lifetime, -1, 60))
            stack.callback(manager.close)
            return manager

        yield make
