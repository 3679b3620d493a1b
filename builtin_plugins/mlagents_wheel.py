"""Trainers of ML-Agents' own package `mlagents`, where it is installed; it is imported when one is asked for."""

from __future__ import annotations

from pathlib import Path

from mlhooks.mlagents_wheel.shared import Shared
from mlhooks.plugin import PluginManager, RunOptions, Trainer, hookimpl

conformance_exempt = {"test_it_exports": "It exports policies of the package's trainers alone."}


@hookimpl
def configure(pluginmanager: PluginManager, options: RunOptions) -> None:
    """Register what the package's trainers of this run share."""
    pluginmanager.register(Shared(pluginmanager, options))


@hookimpl
def export_model(trainer: Trainer, path: Path) -> list[Path]:
    """Write the model of one of the package's trainers for Unity, by its own exporter."""
    from mlhooks.mlagents_wheel import files
    from mlhooks.mlagents_wheel.trainer import WheelTrainer

    return files.export(trainer, path) if isinstance(trainer, WheelTrainer) else []
