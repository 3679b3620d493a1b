"""Checks of packages that bring trainers to ML-Agents: only what their users would miss.

How they store experience, compute losses and draw random numbers is ML-Agents' affair.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml

from mlhooks.errors import MlhooksError
from mlhooks.mlagents_wheel.offers import HOW_TO_GET, is_installed
from mlhooks.settings import SettingsRegistry, load_run_options
from mlhooks.testing.assertions import demand, fail
from mlhooks.testing.managers import WRITERS
from mlhooks.testing.target import Target

ENVIRONMENTS = {"continuous": "sim:3DBall", "discrete": "sim:Basic"}
STEPS = 600


def test_settings_of_mlagents_are_valid_and_survive_yaml(mlhooks_target: Target) -> None:
    """`trainer_type` alone is a valid configuration, and what it resolves to reads back equal from YAML."""
    registry = SettingsRegistry(_types(mlhooks_target))
    for name in registry.trainer_types:
        try:
            options = load_run_options({"behaviors": {"A": {"trainer_type": name}}}, registry).options
            again = load_run_options(yaml.safe_load(options.to_yaml()), registry).options
        except MlhooksError as error:
            fail(f"{name}: the configuration with its defaults is refused: {error}")
        demand(again == options, f"{name}: its settings are others after configuration.yaml was read back.")


def test_trainers_of_mlagents_train_and_resume(mlhooks_target: Target, tmp_path: Path) -> None:
    """Each trains on continuous or on discrete actions to the end, and a resumed run begins with the saved weights."""
    for name in _types(mlhooks_target):
        refused: dict[str, Exception] = {}
        for kind, env in ENVIRONMENTS.items():
            try:
                _train_and_resume(name, env, tmp_path / kind / name.replace(":", "_"))
            except MlhooksError as error:
                refused[kind] = error
        if len(refused) == len(ENVIRONMENTS):
            fail("\n".join(f"{name} on {kind} actions: {error}" for kind, error in refused.items()))


def _types(target: Target) -> Mapping[str, type]:
    plugin: Any = target.plugin
    types: Mapping[str, type] = plugin.get_trainer_types()
    demand(types or is_installed(), f"Its trainers need the package mlagents, which is not installed: {HOW_TO_GET}")
    demand(types, "Its function names no trainer type.")
    return types


def _train_and_resume(name: str, env: str, results: Path) -> None:
    from mlhooks.api import train

    behavior = env.partition(":")[2]
    network = {"hidden_units": 8, "num_layers": 1}
    settings: dict[str, Any] = {"trainer_type": name, "max_steps": STEPS, "summary_freq": STEPS, "time_horizon": 16}
    settings |= {"network_settings": network, "hyperparameters": {"batch_size": 16, "buffer_size": 128}}
    quiet = [f"no:{writer}" for writer in WRITERS]
    config = {"behaviors": {behavior: settings}}
    common: dict[str, Any] = {"env": env, "results_dir": results, "seed": 1, "plugin_names": quiet}
    before = train(config, **common).trainers[behavior]
    demand(before.step >= STEPS, f"{name}: the run ended at step {before.step:,} of {STEPS:,}.")
    after = train(config, resume=True, **common).trainers[behavior]
    for module, state in before.modules().items():
        for key, value in state.state_dict().items():
            if isinstance(value, torch.Tensor):
                loaded = after.modules()[module].state_dict()[key]
                demand(torch.equal(loaded, value.to(loaded.dtype)), f"{name}: {module}.{key} changed by a resume.")
