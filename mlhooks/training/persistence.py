"""Save a run so that it can go on, and restore it."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from mlagents_envs.base_env import BehaviorSpec

from mlhooks.describing import described
from mlhooks.envs.manager import Worker
from mlhooks.errors import CheckpointError, UsageError
from mlhooks.names import MANIFEST, best_stem, file_name
from mlhooks.places import shown_path
from mlhooks.state_checks import whole
from mlhooks.training.behavior_file import as_behavior_file, spec_from_dict
from mlhooks.training.checkpoints import Checkpoint, CheckpointFolder, pack, read_state
from mlhooks.training.descent import check_finite
from mlhooks.training.durable import cannot_write, writing
from mlhooks.training.provenance import loading_from
from mlhooks.training.run_folder import RunFolder
from mlhooks.training.spaces import spaces_of_file
from mlhooks.training.trainer import Trainer

if TYPE_CHECKING:
    from mlhooks.training.run import Run

logger = logging.getLogger("mlhooks")

NO_TEAMS: dict[str, Any] = {"learning": None, "queue": [], "owners": {}}
"""The state of teams in checkpoints that know nothing of them."""


class Persistence:
    """Saves a run's checkpoints when they are due, and restores a run from the newest one."""

    def __init__(self, run: Run, folder: RunFolder) -> None:
        self.run, self._run_folder = run, folder
        self._plugins = run.plugins.others  # Those that will be taken out are among them.
        self._saved_at: dict[str, int] = {}
        self._warned = False  # The warning is that environments cannot tell their state.
        self._teams_changed = False  # It becomes true where self-play was switched on or off since the checkpoint.

    @cached_property
    def folder(self) -> CheckpointFolder:
        """The run's checkpoints, as they were when they were first asked for."""
        return CheckpointFolder(self.run.path)

    @cached_property
    def _newest(self) -> dict[str, Any]:
        """Where the run goes on."""
        return self.folder.newest()

    def save_if_due(self) -> None:
        """Save everything when any behavior has passed a multiple of its `checkpoint_interval`."""
        for name, trainer in self.run.trainers.items():
            interval = trainer.settings.checkpoint_interval
            if trainer.training and trainer.step // interval > self._saved_at.setdefault(name, 0) // interval:
                self.save()
                return

    def save(self) -> None:
        """Write a checkpoint of everything, at a moment at which every action is still to be made.

        Raises:
            NonFiniteError: weights are NaN or infinite; the checkpoint before stays the newest.
        """
        run = self.run
        trainers, files = run.trainers, run.outcome.files
        states = {name: as_behavior_file(trainer, trainer.state_dict()) for name, trainer in trainers.items()}
        for name, trainer in trainers.items():
            check_finite(trainer.modules(), name, trainer.step)
        self.folder.note_lessons(run.curriculum.lessons)
        self.folder.note_ratings({name: play.rating for name, play in run.teams.players.items()})
        self.folder.note_plugins(self._plugins)
        with run.timers("checkpoint"):
            write = partial(
                self.folder.save,
                states,
                self._run_state(),
                {name: trainer.mean_reward for name, trainer in trainers.items()},
                max(trainer.settings.keep_checkpoints for trainer in trainers.values()),
            )
            saved = write()
            self._run_folder.discard_earlier_results()  # Now there is something in their place.
            files["checkpoint"] = [checkpoint.path for checkpoint in saved.values()]
            self._saved_at |= {name: checkpoint.step for name, checkpoint in saved.items()}
            self._export_beside(saved, write)
            run.evaluations.export_best()
            for name, checkpoint in saved.items():
                run.plugins.hook.checkpoint_saved(trainer=trainers[name], checkpoint=checkpoint)
        timers = run.path / "run_logs" / "timers.json"
        try:
            run.timers.write(timers)
        except OSError as error:  # Everything that matters is saved.
            logger.warning("%s", cannot_write(timers, error))

    def save_last(self) -> None:
        """Write the last checkpoint and the models to use, and note all files for people."""
        self.save()
        self.write_models()

    def write_models(self) -> None:
        """Write the models to use, and note where people find them, the settings and the status."""
        run = self.run
        files: list[Path] = []
        models: dict[str, list[Path]] = {}
        run.outcome.files["model"] = files
        run.outcome.files["settings"] = [run.path / "configuration.yaml"]
        run.outcome.files["status"] = [run.path / MANIFEST]
        self.folder.begin_export(run.path / file_name(name) for name in run.trainers)
        for name, trainer in run.trainers.items():
            models[name] = self._export(trainer, run.path / file_name(name))
            files += models[name]
        for path in files:
            run.note_file(path)
        self.folder.note_models(models)
        run.evaluations.export_best()
        if best := [path for policy in run.evaluations.best.values() for path in policy.files]:
            run.outcome.files["best model"] = best

    def write_best(self, trainer: Trainer) -> list[Path]:
        """Write the models of a trainer's best policy, in place of those of the best one before."""
        stem = best_stem(self.run.path, trainer.behavior_name)
        if self.folder.manifest["mlhooks"]:  # A manifest says that there is a checkpoint.
            self.folder.begin_export([stem])
        paths = self._export(trainer, stem)
        for path in paths:
            self.run.note_file(path)
        if self.folder.manifest["mlhooks"]:
            self.folder.end_export()
        return paths

    def _export_beside(self, saved: Mapping[str, Checkpoint], write_again: Callable[[], object]) -> None:
        """Ask for models of what was saved, and name them in the manifest also if an exporter ends the run."""
        exported: dict[str, list[Path]] = {}
        stamps = [_stamp(checkpoint.path) for checkpoint in saved.values()]
        try:
            for name, checkpoint in saved.items():
                exported[name] = self._export(self.run.trainers[name], checkpoint.path.with_suffix(""))
        finally:
            if [_stamp(checkpoint.path) for checkpoint in saved.values()] != stamps:
                logger.error("An exporter wrote over a checkpoint, which is saved again: export under another suffix.")
                write_again()
            self.folder.note_exported(exported)

    def _export(self, trainer: Trainer, stem: Path) -> list[Path]:
        with writing(stem.parent):
            stem.parent.mkdir(parents=True, exist_ok=True)
        with self.run.timers("export"):
            answers: list[Any] = self.run.plugins.hook.export_model(trainer=trainer, path=stem)
        return [path for files in answers for path in files]

    def _run_state(self) -> dict[str, Any]:
        return {
            "mlhooks": {"kind": "run"},
            "step": sum(trainer.step for trainer in self.run.trainers.values()),
            "curriculum": self.run.curriculum.state_dict(),
            "evaluations": self.run.evaluations.state_dict(),
            "teams": self.run.teams.state_dict(),
            "environments": self._environments(),
            "random": {
                "python": random.getstate(),
                "numpy": np.random.get_state(legacy=True),  # noqa: NPY002
                "torch": torch.get_rng_state().numpy(),
            },
        }

    def _environments(self) -> Any:
        """Return what environments need to go on where they are; one that cannot tell it costs no checkpoint."""
        try:
            return None if self.run.manager is None else pack(self.run.manager.state_dict())
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            if not self._warned:
                logger.warning(
                    "The state of the environment cannot be saved, and a run that is resumed will begin new episodes: "
                    "%s",
                    described(error),
                )
            self._warned = True
            return None

    def restore_trainers(self) -> None:
        """Make the trainers of the newest checkpoint; with inference, only with what acting needs."""
        self._restore_evaluations()
        newest: dict[str, Path] = self._newest["behaviors"]
        for name, path in (self._best(newest) if self.run.policy == "best" else newest).items():
            state, spec = self._of_behavior(name, path)
            trainer = self.run.behaviors.make_trainer(name, spec)
            try:
                with loading_from(path, self.run.plugins):
                    trainer.spaces = spaces_of_file(state["mlhooks"], spec)
                    if self.run.inference:
                        trainer.load_modules(state["modules"])
                        trainer.step = whole(state["step"], "step")
                    else:
                        trainer.load_state_dict(state)
                        self._teams_changed |= (trainer.self_play is None) != ("self_play" not in state)
            except CheckpointError as error:
                if not hasattr(error, "__notes__"):  # No plugin is missing.
                    own = self.run.path / "configuration.yaml"
                    error.add_note(f"The run's own configuration is {own}; it counts where no other one is named.")
                raise
            self._saved_at[name] = trainer.step
            self.run.behaviors.add(trainer)
        if not (self.run.inference or self._teams_changed):
            with loading_from(self._newest["run"], self.run.plugins):
                self.run.teams.load_state_dict(read_state(self._newest["run"]).get("teams", NO_TEAMS))

    def _best(self, newest: Mapping[str, Path]) -> dict[str, Path]:
        """Return the best policies, and the newest checkpoints of behaviors that were not evaluated.

        Raises:
            UsageError: no behavior was.
        """
        stems = {name: best_stem(self.run.path, name) for name in newest}
        best = {name: stem.with_name(f"{stem.name}.policy.pt") for name, stem in stems.items()}
        found = {name: path if path.is_file() else newest[name] for name, path in best.items()}
        if not any(path.is_file() for path in best.values()):
            raise UsageError(
                f"--policy best: {shown_path(self.run.path)} holds no best policy, because no evaluation kept one. "
                "Train with --eval-every N, or let the last policy act (--policy last)."
            )
        for name in newest:
            if found[name] == newest[name]:
                logger.warning("Behavior %r was not evaluated while it was trained: its last policy acts.", name)
        return found

    def _of_behavior(self, name: str, path: Path) -> tuple[dict[str, Any], BehaviorSpec]:
        """Read the state and spec of a behavior, whose file must be of the behavior that the manifest names."""
        state = read_state(path)
        with loading_from(path, self.run.plugins):
            if state["mlhooks"]["behavior"] != name:
                raise CheckpointError(
                    f"it is of behavior {state['mlhooks']['behavior']!r}, and the manifest names it for {name!r}."
                )
            return state, spec_from_dict(state["mlhooks"]["spec"])

    def _restore_evaluations(self) -> None:
        path = self._newest["run"]
        with loading_from(path, self.run.plugins):
            self.run.evaluations.load_state_dict(read_state(path).get("evaluations", {}))  # Older ones have none.

    def restore_curriculum(self) -> None:
        """Put the environment parameters into their lessons."""
        path = self._newest["run"]
        with loading_from(path, self.run.plugins):
            self.run.curriculum.load_state_dict(read_state(path)["curriculum"])

    def restore_environments(self) -> None:
        """Put environments and random states where they were; environments without a state begin new episodes."""
        path = self._newest["run"]
        with loading_from(path, self.run.plugins):
            state = read_state(path)
            self._restore_manager(state["environments"])
            version, internal, gauss = state["random"]["python"]
            random.setstate((version, tuple(internal), gauss))
            np.random.set_state(tuple(state["random"]["numpy"]))  # noqa: NPY002
            torch.set_rng_state(torch.from_numpy(state["random"]["torch"]))

    def _restore_manager(self, saved: dict[str, Any] | None) -> None:
        manager = self.run.manager
        why = "The environment offers no saved state"
        if self._teams_changed:
            why = "Self-play was switched on or off"
        elif saved is not None and manager is not None and self._environments() is not None:
            try:
                manager.load_state_dict(saved)
            except Exception as error:  # It may be of another number of areas.
                why = f"The environment does not take its saved state ({described(error)})"
                for index in range(self.run.options.env_settings.num_envs):
                    manager.reset(Worker(index))
            else:
                return
        logger.warning(
            "%s: its episodes begin again, so the resumed run will differ from one that was never stopped.", why
        )
        for trainer in self.run.trainers.values():
            trainer.environments_restarted()

    def initialize(self, trainer: Trainer) -> bool:
        """Begin with the weights of `init_path` or `--initialize-from`, and return whether one was given."""
        checkpoint, name = self.run.options.checkpoint_settings, trainer.behavior_name
        if trainer.settings.init_path:
            path = self.run.started_in / trainer.settings.init_path.replace("\\", "/")
            if path.is_dir():
                path = _newest_of_behavior(path, name)
        elif checkpoint.initialize_from and not self.run.resumed:
            source = CheckpointFolder(self.run.started_in / checkpoint.results_dir / checkpoint.initialize_from)
            behaviors = source.newest()["behaviors"]
            if name not in behaviors:
                raise UsageError(
                    f"--initialize-from {checkpoint.initialize_from}: that run has no behavior {name!r}, only "
                    f"{', '.join(behaviors)}."
                )
            path = behaviors[name]
        else:
            return False
        with loading_from(path, self.run.plugins):
            trainer.load_modules(read_state(path)["modules"])
        logger.info("Behavior %r begins with the weights of %s.", name, path)
        return True


def _newest_of_behavior(folder: Path, name: str) -> Path:
    """Return the newest checkpoint of the behavior that has this folder, in the folder of its run.

    Raises:
        UsageError: it is not the folder of a behavior.
        CheckpointError: there is no checkpoint that can be used.
    """
    checkpoints = CheckpointFolder(folder.parent)
    behaviors: dict[str, Path] = checkpoints.newest()["behaviors"] if checkpoints.exists() else {}
    for known, path in behaviors.items():
        if file_name(known) == folder.name:
            return path
    raise UsageError(
        f"init_path of {name} is {shown_path(folder)}, which is not the folder of a behavior in that of a run. Name "
        f"such a folder, as results/RUN_ID/{file_name(name)}, or a .pt file."
    )


def _stamp(path: Path) -> tuple[int, int] | None:
    """Return what changes when somebody writes a file; None where it is gone."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size
