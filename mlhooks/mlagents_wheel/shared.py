"""The objects that the package's trainers of one run share: options, the ghost controller, and statistics."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlhooks import hookimpl
from mlhooks.errors import UsageError
from mlhooks.names import file_name

if TYPE_CHECKING:
    import torch

    from mlhooks.mlagents_wheel.statistics import Bridge
    from mlhooks.plugins import PluginManager
    from mlhooks.settings import RunOptions
    from mlhooks.training.run import Run

BUILTIN = "mlagents_wheel"
"""The built-in plugin that makes it."""
logger = logging.getLogger("mlhooks")


class Shared:
    """The state of a run that its trainers of ML-Agents' kind share.

    Args:
        plugins: of the run.
        options: of the run; None where a policy is only loaded.

    Attributes:
        folder: the working directory in which relative paths of the settings count.
    """

    def __init__(self, plugins: PluginManager, options: RunOptions | None = None) -> None:
        self.options = options
        self.folder = Path.cwd()
        self._plugins = plugins
        self._run: Run | None = None
        self._controller: Any = None
        self._bridge: Bridge | None = None
        self._warned = False

    @classmethod
    def of(cls, plugins: PluginManager) -> Shared:
        """Return that of a run.

        Raises:
            UsageError: the built-in plugin that makes it is blocked.
        """
        if plugins.is_blocked(BUILTIN):
            raise UsageError(
                f"Trainers of ML-Agents need the built-in plugin {BUILTIN}, which is blocked: remove -p no:{BUILTIN}."
            )
        for plugin in plugins.get_plugins():
            if isinstance(plugin, cls):
                return plugin
        return cls(plugins)

    @property
    def training(self) -> bool:
        """Whether the run learns."""
        return self.options is not None and not self.options.checkpoint_settings.inference

    def artifact_path(self, behavior_name: str) -> Path:
        """Return the folder of a behavior's results."""
        folder = Path() if self.options is None else Path(self.options.checkpoint_settings.write_path)
        return folder / file_name(behavior_name)

    def controller(self) -> Any:
        """Return the run's ghost controller."""
        if self._controller is None:
            from mlagents.trainers.ghost.controller import GhostController
            from mlagents.trainers.training_status import GlobalTrainingStatus

            GlobalTrainingStatus.saved_state.clear()  # It is state of a class, and may be an earlier run's.
            self._controller = GhostController()
        return self._controller

    def bridge(self) -> Bridge:
        """Return where the package's statistics go."""
        if self._bridge is None:
            from mlhooks.mlagents_wheel.statistics import Bridge

            self._bridge = Bridge(self._plugins, self.artifact_path("any").parent)
            if self.options is not None:  # A policy that is only loaded reports nothing.
                self._bridge.open()
        return self._bridge

    def use(self, device: torch.device) -> None:
        """Let the package make its networks on a device, without changing torch's default for everybody else."""
        import sys

        from mlagents.torch_utils import torch as module  # noqa: F401

        sys.modules["mlagents.torch_utils.torch"]._device = device  # type: ignore[attr-defined]

    def reset_if_teams_changed(self) -> None:
        """Let all environments begin new episodes where another team learns from now on, as ML-Agents does."""
        if self._controller is None or not self._controller.should_reset() or self._run is None:
            return
        run, manager = self._run, self._run.manager
        if manager is None:
            return
        try:
            manager.set_parameters(run.curriculum.values, reset=True)
        except NotImplementedError:
            if not self._warned:
                logger.warning(
                    "Another team learns from now on, and %s cannot let the environments begin new episodes, as they "
                    "do with ML-Agents: what teams did before is in the trajectories of the next ones.",
                    type(manager).__name__,
                )
            self._warned = True
            return
        for trainer in run.trainers.values():
            trainer.environments_restarted()

    @hookimpl
    def run_started(self, run: Run) -> None:
        """Take note of the run."""
        self._run = run

    @hookimpl
    def run_finished(self, run: Run) -> None:
        """Call the package's `save_model`, as ML-Agents does in the end, and let go of what runs share in it."""
        sharing: list[Any] = [each for each in run.trainers.values() if getattr(each, "shared", None) is self]
        if sharing and self.training:
            from mlhooks.mlagents_wheel.files import save_model  # A run without such trainers needs no import.

            for path in [path for trainer in sharing for path in save_model(trainer)]:
                run.note_file(path)
        if self._bridge is not None:
            self._bridge.close()
        self._run, self._bridge, self._controller = None, None, None
