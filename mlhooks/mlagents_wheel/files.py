"""The files that the package itself writes for a trainer: models for Unity, and what a trainer saves in the end."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakSet

from mlhooks.describing import named
from mlhooks.errors import PluginError

if TYPE_CHECKING:
    from mlhooks.mlagents_wheel.trainer import WheelTrainer

logger = logging.getLogger("mlhooks")

_without_models: WeakSet[WheelTrainer] = WeakSet()


def export(trainer: WheelTrainer, path: Path) -> list[Path]:
    """Write the model as the package does, for Unity; warn once of a trainer that cannot.

    Args:
        trainer: whose model it is.
        path: of the file, without a suffix.
    """
    exporter = getattr(getattr(trainer.learner.inner, "model_saver", None), "exporter", None)
    if exporter is None or trainer in _without_models:
        return []
    file = path.with_name(f"{path.name}.onnx")
    try:
        with trainer.package("exported"):
            exporter.export_policy_model(str(path))
    except PluginError as error:
        file.unlink(missing_ok=True)
        _without_models.add(trainer)
        logger.warning("There will be no %s: %s", file.name, named(error.__cause__ or error))
        return []
    return [file]


def save_model(trainer: WheelTrainer) -> list[Path]:
    """Call the package's `save_model`, which some override, and return the files that it writes for its behavior.

    A failure is logged, and costs nothing that mlhooks has saved.
    """
    folder = trainer.shared.artifact_path(trainer.behavior_name)
    before = set(folder.glob("*"))
    try:
        with trainer.package("saved"):
            trainer.learner.outer.save_model()
    except PluginError as error:
        logger.warning("%s", error)
    return sorted(path for path in set(folder.glob("*")) - before if path.is_file())
