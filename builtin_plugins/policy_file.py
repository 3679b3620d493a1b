"""Exports a policy as a `.pt` file that `mlhooks.load` takes, without what only training needs."""

from __future__ import annotations

from pathlib import Path

from mlhooks.plugin import Trainer, hookimpl
from mlhooks.training.behavior_file import as_behavior_file
from mlhooks.training.checkpoints import write_state


@hookimpl
def export_model(trainer: Trainer, path: Path) -> list[Path]:
    """Write weights, normalizer, spec and settings."""
    file = path.with_name(f"{path.name}.policy.pt")
    states = {name: module.state_dict() for name, module in trainer.modules().items()}
    write_state(file, as_behavior_file(trainer, {"step": trainer.step, "modules": states}))
    return [file]
