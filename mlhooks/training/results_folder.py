"""Check that a run may use its results folder."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path

from mlhooks.errors import CheckpointError, SettingsError, UsageError
from mlhooks.places import shown_path
from mlhooks.settings import CheckpointSettings, RunOptions
from mlhooks.training.checkpoints import CheckpointFolder, NoCheckpoint, read_state
from mlhooks.training.durable import writing
from mlhooks.training.manifest import check_entries, check_files
from mlhooks.training.name_limits import refuse_long_names
from mlhooks.training.run_files import Contents, is_run
from mlhooks.training.run_folder import RunFolder
from mlhooks.training.which_run import no_run, who_trains, without_results_folder

logger = logging.getLogger("mlhooks")


@contextlib.contextmanager
def claimed_folder(options: RunOptions) -> Iterator[RunFolder]:
    """Hold the results folder while a run goes on, so that no other one changes it; `check_folder` then looks into it.

    A run with `--inference` reads only, and so does not hold it.

    Raises:
        UsageError: another run holds it, there is none to go on with, or none can be stored under that name.
        ResultsError: the system does not let a run write there.
    """
    checkpoint = options.checkpoint_settings
    folder = RunFolder(Path(checkpoint.write_path).absolute(), checkpoint.run_id)
    if checkpoint.resume and checkpoint.force:
        raise UsageError("--resume and --force exclude each other: one goes on with a run, the other overwrites it.")
    refuse_long_names(folder.path, options)
    if checkpoint.resume or checkpoint.inference:
        _refuse_missing("--resume" if checkpoint.resume else "--inference", checkpoint, checkpoint.run_id)
    else:
        _warn_of_folder_in_name(checkpoint, folder.path)
        if checkpoint.initialize_from:
            _refuse_missing("--initialize-from", checkpoint, checkpoint.initialize_from)
    if checkpoint.inference and not folder.is_left_amid():
        yield folder
        return
    with contextlib.ExitStack() as held:
        held.enter_context(folder.hold())
        folder.recover()
        if checkpoint.inference:
            held.close()
        yield folder


def check_folder(options: RunOptions, folder: RunFolder) -> None:
    """Check the results folder against `--resume`, `--force`, `--inference` and `--initialize-from`.

    Raises:
        UsageError: there is something to go on from and no word what to do with it, or nothing where there must be; or
            the folder holds what no run wrote.
        CheckpointError: what is there to go on from is damaged.
    """
    check_files(folder.path)
    _check_source(options, folder)
    if options.checkpoint_settings.resume and not options.checkpoint_settings.inference:
        folder.remove_parts()
    if not (options.checkpoint_settings.resume or options.checkpoint_settings.inference):
        _check_start(options, folder)


def _check_source(options: RunOptions, folder: RunFolder) -> None:
    """Refuse to go on from, or to begin with, what is not there."""
    checkpoint = options.checkpoint_settings
    if checkpoint.resume or checkpoint.inference:
        _check_resumed(options, folder)
    elif checkpoint.initialize_from:
        source = Path(checkpoint.results_dir, checkpoint.initialize_from)
        if source.samefile(folder.path):
            raise UsageError(
                f"--initialize-from {checkpoint.initialize_from}: this is the run that begins, and it overwrites what "
                "it would begin with. Choose another --run-id, or go on with the run by --resume."
            )
        try:
            CheckpointFolder(source).newest()
        except CheckpointError as error:
            raise UsageError(f"--initialize-from {checkpoint.initialize_from}: {error}") from error


def _check_resumed(options: RunOptions, folder: RunFolder) -> None:
    inference = options.checkpoint_settings.inference
    flag = "--resume" if options.checkpoint_settings.resume else "--inference"
    check_entries(folder.path)
    found = folder.list_contents()
    if not found.is_run:
        runs = f", and holds other runs: {found.runs_in_words}" if found.runs else ""
        raise UsageError(f"{flag}: {shown_path(folder.path)} is not the folder of a run{runs}.")
    try:
        saved = CheckpointFolder(folder.path).newest()["behaviors"]
    except CheckpointError as error:
        if inference:  # Somebody who only reads is not told to remove anything.
            advice = who_trains(folder.path) if isinstance(error, NoCheckpoint) else ""
        elif isinstance(error, NoCheckpoint) and error.usable:
            advice = "To begin with that, choose another --run-id."
        else:
            advice = "Start over with --force, or with another --run-id."
        raise CheckpointError(f"{error} {advice}".rstrip()) from error
    for name, path in saved.items():
        try:
            options.settings_for(name)
        except SettingsError as error:
            if read_state(path)["mlhooks"].get("behavior") != name:
                continue  # The manifest is wrong, which is told when the behavior is restored.
            raise UsageError(
                f"{flag}: the run {folder.run_id!r} was trained on other behaviors: its checkpoint has "
                f"{_quoted(saved)}, and the configuration has {_quoted(options.behaviors)}. Leave the configuration "
                f"out, and the run's own counts ({shown_path(folder.path / 'configuration.yaml')}), or choose another "
                "--run-id."
            ) from error


def _quoted(names: Iterable[str]) -> str:
    return " and ".join(map(repr, names)) or "none"


def _refuse_missing(flag: str, checkpoint: CheckpointSettings, run_id: str) -> None:
    if not Path(checkpoint.results_dir, run_id).is_dir():
        raise UsageError(f"{flag}: {no_run(Path(checkpoint.results_dir), run_id)}")


def _warn_of_folder_in_name(checkpoint: CheckpointSettings, path: Path) -> None:
    """Warn of a run id that begins with the results folder, by which a folder of that name is made in it."""
    name = without_results_folder(Path(checkpoint.results_dir), checkpoint.run_id)
    if name is not None:
        logger.warning(
            "The results go to %s, because a run id is a name in the results folder. If that is not meant, say "
            "--run-id %s.",
            shown_path(path),
            name,
        )


def _check_start(options: RunOptions, folder: RunFolder) -> None:
    """Refuse to begin a run where another one was, or anything else, unless it is to be overwritten and may be."""
    checkpoint, path = options.checkpoint_settings, folder.path
    _refuse_run_around(path)
    with writing(path):
        found = folder.list_contents()
    _refuse_foreign(shown_path(path), found)
    if checkpoint.force:
        _refuse_used_inputs(options, path)
    elif found.is_run and _has_begun(path):
        raise UsageError(
            f"{shown_path(path)} holds the results of an earlier run. Go on with it by --resume (in Python: "
            "resume=True), overwrite it by --force (force=True), or choose another --run-id (run_id=...)."
        )
    elif left := [name for name in found.own if name != "configuration.yaml" and not name.startswith("run_logs/")]:
        # A run that did not start leaves its configuration and logs only.
        raise UsageError(
            f"{shown_path(path)} holds what an earlier run wrote that ended before its first checkpoint, such as "
            f"{left[0]}. There is nothing to resume; overwrite it by --force, or choose another --run-id."
        )


def _has_begun(path: Path) -> bool:
    """Return whether a run has saved something that another one is not to begin over.

    Raises:
        UsageError: its manifest cannot be read, or is that of another tool.
    """
    try:
        return bool(CheckpointFolder(path).manifest["mlhooks"])
    except CheckpointError as error:
        raise UsageError(f"{error} Choose another --run-id, or overwrite that folder by --force.") from error


def _refuse_run_around(path: Path) -> None:
    """Refuse a run inside the folder of another one, because that one could no longer tell its files from others."""
    for folder in path.parents:
        if is_run(folder):
            raise UsageError(
                f"{shown_path(folder)} is the folder of a run, which holds no other runs. Choose another --run-id "
                "or --results-dir, which does not lead into it."
            )


def _refuse_foreign(shown: str, found: Contents) -> None:
    if found.runs:
        raise UsageError(
            f"{shown} holds other runs, and so cannot be one: {found.runs_in_words}. Choose another --run-id."
        )
    if found.foreign and found.is_run:
        raise UsageError(
            f"{shown} is the folder of a run, and holds what that run did not write: {found.foreign_in_words}. Nothing "
            "but what a run wrote is ever overwritten: move the rest elsewhere, choose another --run-id, or go on with "
            "the run by --resume."
        )
    if found.foreign:
        raise UsageError(
            f"{shown} is not empty, and is not the folder of a run: it holds {found.foreign_in_words}. Choose another "
            "--run-id, or move all of that elsewhere."
        )


def _refuse_used_inputs(options: RunOptions, path: Path) -> None:
    """Refuse to begin with weights that lie among what the run overwrites."""
    entries = {**options.behaviors, "default_settings": options.default_settings}
    for name, settings in entries.items():
        if settings is None or not settings.init_path:
            continue
        source = Path(settings.init_path.replace("\\", "/")).resolve()
        if source.is_relative_to(path.resolve()):
            raise UsageError(
                f"init_path of {name} is {settings.init_path}, in the run that --force overwrites. Choose another "
                "--run-id."
            )
