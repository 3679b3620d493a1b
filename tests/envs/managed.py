"""What tests of worker processes do with a manager."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from mlagents_envs.base_env import ActionTuple

from mlhooks.envs.manager import WorkerLost, WorkerStep
from mlhooks.envs.processes import ProcessManager

Manage = Callable[..., ProcessManager]
UNHURRIED = 60  # in seconds, for waits that end when it works


def act(manager: ProcessManager, step: WorkerStep) -> None:
    for behavior_id, (decisions, _) in step.steps.items():
        n = len(decisions)
        action = ActionTuple(decisions.obs[0].reshape(n, -1)[:, 1:2] * 0.5, np.ones((n, 2), np.int32))
        manager.send(step.worker, behavior_id, action)


def play(
    manager: ProcessManager, steps: int, take: Callable[[WorkerStep], Any] = lambda step: None
) -> list[WorkerLost]:
    """Let the workers make so many steps together, and return which were lost."""
    lost = []
    while steps > 0:
        for event in manager.ready():
            if isinstance(event, WorkerLost):
                lost.append(event)
            else:
                take(event)
                act(manager, event)
                steps -= 1
    return lost


def wait_until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + UNHURRIED
    while not condition():
        assert time.monotonic() < until, "it never came about"
        time.sleep(0.02)
