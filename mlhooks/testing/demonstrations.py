"""Demonstrations of experts who see and do anything, for what needs one to learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from mlagents_envs.base_env import BehaviorSpec

from mlhooks.demos.records import Records
from mlhooks.demos.writing import write_demo


def write_any_demonstration(path: Path, spec: BehaviorSpec, steps: int = 12, *, shift: float = 0.5) -> Path:
    """Write two episodes with random numbers from `shift` to `shift + 1` and random actions, and return the path."""
    rng, done = np.random.default_rng(3), np.isin(np.arange(steps + 1), (steps // 2, steps))
    shapes = [tuple(obs.shape) for obs in spec.observation_specs]
    choices = [rng.integers(0, size, steps + 1) for size in spec.action_spec.discrete_branches]
    records = Records(
        behavior_name="Expert",
        spec=spec,
        obs=[rng.random((steps + 1, *shape), np.float32) + np.float32(shift) for shape in shapes],
        reward=np.zeros(steps + 1, np.float32),
        done=done,
        interrupted=np.zeros(steps + 1, np.bool_),
        acts=~done,
        continuous=rng.uniform(-1, 1, (steps + 1, spec.action_spec.continuous_size)).astype(np.float32),
        discrete=np.array(choices, np.int64).T.reshape(steps + 1, -1),
    )
    write_demo(path, records)
    return path
