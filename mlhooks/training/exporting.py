"""Asking exporters for the models of policies that were trained before."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path

from mlhooks.errors import PluginError
from mlhooks.names import MANIFEST, file_name
from mlhooks.plugins import PluginManager
from mlhooks.training.checkpoints import CheckpointFolder
from mlhooks.training.durable import writing
from mlhooks.training.run_files import known
from mlhooks.training.run_folder import RunFolder
from mlhooks.training.trainer import Trainer


def export_models(manager: PluginManager, trainers: Mapping[Path, Trainer], *, only: str | None = None) -> list[Path]:
    """Let exporters write the policies of trainers, and return the files; those in a run's folder become the run's.

    Args:
        manager: the plugins, of which every failure counts.
        trainers: by the paths of their models without suffix.
        only: the name of the exporter to ask; all by default.

    Raises:
        UsageError: a run goes on in a folder that is written to.
        PluginError: an exporter fails, or there is none.
    """
    manager.strict = True
    exporters = [row.name for row in manager.describe() if "export_model" in row.hooks]
    for name in exporters:
        if only not in (None, name):
            manager.unregister(name=name)
    if only is not None and only not in exporters:
        raise PluginError(f"There is no exporter {only!r} among the plugins; it is blocked.")
    behaviors = {file_name(trainer.behavior_name) for trainer in trainers.values()}
    written: list[Path] = []
    with contextlib.ExitStack() as held:
        runs = {folder for stem in trainers if (folder := _run_of(stem)) is not None}
        for folder in sorted(runs):
            held.enter_context(RunFolder(folder.absolute(), folder.absolute().name).hold())
        for stem, trainer in trainers.items():
            with writing(stem.parent):
                stem.parent.mkdir(parents=True, exist_ok=True)
            files = [path for answer in manager.hook.export_model(trainer=trainer, path=stem) for path in answer]
            written += files
            if (run := _run_of(stem)) is not None:
                _note(run, files, behaviors)
    return written


def _run_of(stem: Path) -> Path | None:
    """Return the folder of the run in which a model is written, as checkpoints and last models are."""
    return next((folder for folder in stem.parents[:2] if (folder / MANIFEST).is_file()), None)


def _note(folder: Path, files: list[Path], behaviors: set[str]) -> None:
    """Name files of other kinds than runs are known to have, so that they count as the run's."""
    checkpoints = CheckpointFolder(folder)
    for name in (path.absolute().relative_to(folder.absolute()).as_posix() for path in files):
        if not known(name, behaviors):
            checkpoints.note_file(name)
