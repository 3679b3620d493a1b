"""Trainers and policies of checkpoints, to act and to be exported without the run that wrote them."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from mlhooks.errors import CheckpointError, UsageError
from mlhooks.plugins import PluginManager
from mlhooks.settings import RunOptions, SettingsRegistry, load_run_options
from mlhooks.settings.support import refuse_unsupported
from mlhooks.state_checks import whole
from mlhooks.training.behavior_file import spec_from_dict
from mlhooks.training.checkpoints import read_state
from mlhooks.training.making import make_trainer
from mlhooks.training.policy import Policy
from mlhooks.training.provenance import loading_from
from mlhooks.training.saved_policies import files_of
from mlhooks.training.spaces import spaces_of_file
from mlhooks.training.trainer import Trainer
from mlhooks.training.which_run import no_run

logger = logging.getLogger("mlhooks")


def policies_of(opponent: str | Path, options: RunOptions, plugins: PluginManager) -> dict[str, Policy]:
    """Return the policies of another run, by their behaviors.

    Args:
        opponent: a run's folder, a `.pt` file that a run wrote, or the name of a run beside this one.
        options: of this run.
        plugins: those of this run.

    Raises:
        UsageError: neither a file nor a run is there.
        CheckpointError: there is no checkpoint there, or it is damaged.
    """
    path, beside = Path(opponent), Path(options.checkpoint_settings.results_dir, opponent)
    if not path.exists():
        if not beside.exists():
            raise UsageError(f"--opponent: {no_run(beside.parent, beside.name)}")
        path = beside
    policies = {}
    for file in files_of(path, best=False).values():
        with loading_from(file, plugins):
            trainer = restored(read_state(file), plugins)
        policies[trainer.behavior_name] = trainer.policy
    return policies


def restored(state: Mapping[str, Any], manager: PluginManager) -> Trainer:
    """Return a trainer with the weights of a checkpoint, on the CPU.

    Raises:
        CheckpointError: the checkpoint is damaged.
        SettingsError, UnsupportedError: its settings do not fit the plugins that are installed.
    """
    header = state["mlhooks"]
    if not isinstance(header["behavior"], str):
        raise CheckpointError("the name of its behavior is no text.")
    spec = spec_from_dict(header["spec"])
    spaces = spaces_of_file(header, spec)
    if "spaces" not in header:
        logger.warning(
            "The file of behavior %r does not know the spaces of its environment, because an older mlhooks wrote it. "
            "`predict` takes and gives what ML-Agents does: discrete actions from 0 on, continuous ones in [-1, 1].",
            header["behavior"],
        )
    settings = {"behaviors": {header["behavior"]: json.loads(header["settings"])}}
    # A policy file holds no settings of plugins, and no run begins that needs them.
    registry = replace(SettingsRegistry.from_plugins(manager), plugin_settings={})
    loaded = load_run_options(settings, registry, flags={"torch_settings.device": "cpu"})
    refuse_unsupported(loaded, registry)
    options = loaded.options  # The warnings are about training, and its run gave them.
    trainer_type: type[Trainer] = manager.collect_mapping("get_trainer_types")[
        options.settings_for(header["behavior"]).trainer_type
    ]
    trainer = make_trainer(
        trainer_type,
        behavior_name=header["behavior"],
        behavior_spec=spec,
        settings=options.settings_for(header["behavior"]),
        plugins=manager,
        device=torch.device("cpu"),
        seed=0,
    )
    trainer.load_modules(state["modules"])
    trainer.spaces, trainer.step = spaces, whole(state["step"], "step")
    # Nobody waits, but before they act trainers tell policies what follows from the step, as DQN its epsilon.
    for _ in trainer.act():
        pass
    return trainer
