"""Whether a run may use its results folder."""

from __future__ import annotations

from pathlib import Path

from mlhooks.errors import CheckpointError, UsageError
from mlhooks.settings import RunOptions
from mlhooks.training.checkpoints import CheckpointFolder
from mlhooks.training.manifest import check_entries
from mlhooks.training.replaced import ReplacedResults


def check_folder(options: RunOptions) -> None:
    """Check the results folder against `--resume`, `--force`, `--inference` and `--initialize-from`.

    Raises:
        UsageError: there is something to go on from and no word what to do with it, or nothing where there must be.
    """
    checkpoint = options.checkpoint_settings
    path = Path(checkpoint.results_dir, checkpoint.run_id)
    aside = ReplacedResults(path).aside
    if checkpoint.resume and checkpoint.force:
        raise UsageError("--resume and --force exclude each other: one goes on with a run, the other overwrites it.")
    if aside.exists() and not checkpoint.force:
        raise UsageError(
            f"{path} was about to be overwritten when that run was killed, and {aside} holds the earlier results. Move "
            f"them back to {path}, overwrite them by --force, or choose another --run-id."
        )
    if checkpoint.resume or checkpoint.inference:
        flag = "--resume" if checkpoint.resume else "--inference"
        if not path.is_dir():
            raise UsageError(f"{flag}: there is no run {checkpoint.run_id!r} in {checkpoint.results_dir}{_runs(path)}")
        check_entries(path)
        CheckpointFolder(path).newest()
    elif not checkpoint.force and CheckpointFolder(path).exists():
        raise UsageError(
            f"{path} holds the results of an earlier run. Go on with it by --resume, overwrite it by --force, or "
            "choose another --run-id."
        )
    elif not checkpoint.force and (left := _left_in(path)):
        raise UsageError(
            f"{path} holds what an earlier run wrote that ended before its first checkpoint, such as {left}. There is "
            "nothing to resume; overwrite it by --force, or choose another --run-id."
        )
    if checkpoint.initialize_from and not checkpoint.resume:
        source = Path(checkpoint.results_dir, checkpoint.initialize_from)
        if not source.is_dir():
            raise UsageError(f"--initialize-from: there is no run {source.name!r} in {source.parent}{_runs(source)}")
        try:
            CheckpointFolder(source).newest()
        except CheckpointError as error:
            raise UsageError(f"--initialize-from {checkpoint.initialize_from}: {error}") from error


def _left_in(path: Path) -> Path | None:
    """A file of statistics or the like; a run that did not start leaves its configuration and logs only."""
    started = (file for file in sorted(path.rglob("*")) if file.is_file() and file.parent != path / "run_logs")
    return next((file for file in started if file != path / "configuration.yaml"), None)


def _runs(path: Path) -> str:
    runs = sorted(entry.name for entry in path.parent.iterdir() if entry.is_dir()) if path.parent.is_dir() else []
    return f"; there are {', '.join(runs[:10])}." if runs else "; it holds no runs yet."
