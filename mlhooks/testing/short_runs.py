"""The shortest runs in which every hook of a training run is called."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from mlhooks.plugins import PluginManager
from mlhooks.testing.managers import ScriptedEnvs, train_in
from mlhooks.testing.target import Target
from mlhooks.testing.trainer_obstacles import class_fault
from mlhooks.testing.trainer_trial import Trial
from mlhooks.testing.trainer_types import trainer_types

STEPS = 640
OFTEN: Mapping[str, Any] = {"summary_freq": 200, "checkpoint_interval": 300}
PPO: Mapping[str, Any] = {
    "trainer_type": "ppo",
    "hyperparameters": {"batch_size": 32, "buffer_size": 128},
    "network_settings": {"hidden_units": 16, "num_layers": 1},
}


def short_run(
    target: Target,
    folder: Path,
    manager: PluginManager | None = None,
    *,
    seed: int = 1,
    max_steps: int = STEPS,
    **arguments: Any,
) -> PluginManager:
    """Train with each of the target's trainer types, or with PPO where it has none, and return the last manager.

    Skips the check where nothing can be made of a trainer class.

    Args:
        target: the plugin.
        folder: where the results go, in a folder for each trainer type.
        manager: the plugins of the first run.
        seed: of the runs.
        max_steps: length of the runs.
        arguments: others of `train_in`.
    """
    types = trainer_types(target)
    used = manager
    for name in sorted(types) or ["ppo"]:
        used, manager = manager or target.manager(ScriptedEnvs()), None
        settings, env = PPO, "one_step"
        if name in types:
            trial = Trial(target, name)
            if fault := class_fault(trial.kind):
                pytest.skip(fault)
            settings, env = trial.settings(), "one_step" if trial.kind.supports.discrete else "aim"
        settings = {**settings, **OFTEN, "max_steps": max_steps}
        train_in(folder / name, used, settings, env=f"scripted:{env}", seed=seed, **arguments)
    assert used is not None
    return used
