"""The files of trained policies: in the folder of a run, or one that is named."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mlhooks.errors import CheckpointError, UsageError
from mlhooks.names import BEST_POLICIES
from mlhooks.places import shown_path
from mlhooks.settings import CheckpointSettings
from mlhooks.training.checkpoints import CheckpointFolder, NoCheckpoint, read_state
from mlhooks.training.run_files import runs_below
from mlhooks.training.which_run import listed, no_run, who_trains


def files_of(path: Path, best: bool) -> dict[str, Path]:
    """Return the files of the behaviors in a run's folder by their names, or the one that the path names.

    Args:
        path: the folder, or a `.pt` file that a run wrote.
        best: whether the best policies of evaluations are asked for, in place of the newest checkpoints.

    Raises:
        UsageError: `best` is said of a file.
        CheckpointError: there is nothing, or nothing that can be used.
    """
    if best and path.is_file():
        raise UsageError(f"{path} is a file, and best=True chooses among those of a run's folder: leave it out.")
    if path.is_dir():
        return _best(path) if best else _newest(path)
    if not path.exists():
        raise CheckpointError(_not_there(path))
    return {"": path}


def file_of_behavior(files: Mapping[str, Path], behavior: str | None, folder: Path) -> Path:
    """Return the file of a behavior among those of a run's folder.

    Raises:
        UsageError: it is none of them, or there are several and none is named.
    """
    if behavior is None or behavior not in files:
        raise UsageError(f"{folder} holds the behaviors {', '.join(files)}: name one of them as `behavior`.")
    return files[behavior]


def _not_there(path: Path) -> str:
    """Say that nothing is at this path, and which run was probably meant."""
    text = f"There is no checkpoint at {shown_path(path)}"
    usual = Path(CheckpointSettings().results_dir, path)
    if usual.exists():
        return f"{text}. Did you mean {shown_path(usual)}?"
    if path.suffix != ".pt" and path.parent != Path() and path.parent.is_dir():
        return f"{text}: {no_run(path.parent, path.name)}"
    return f"{text}."


def _best(folder: Path) -> dict[str, Path]:
    """Return the best policies of a run's behaviors, also of a run that was killed before its first checkpoint."""
    found = {str(read_state(path)["mlhooks"].get("behavior")): path for path in sorted(folder.glob(BEST_POLICIES))}
    if not found:
        raise CheckpointError(
            f"{folder} holds no best policy, because no evaluation of a run kept one there: train with --eval-every N "
            "(eval_every=N), or take the last policy (best=False)."
        )
    return found


def _newest(folder: Path) -> dict[str, Path]:
    """Return the checkpoints of a run's behaviors, or say what is there in their place."""
    checkpoints = CheckpointFolder(folder)
    if not checkpoints.exists() and (runs := list(runs_below(folder))):
        raise CheckpointError(
            f"{folder} is no run, and holds runs: {listed(runs)}. Load one of them, as mlhooks.load("
            f"{(folder / runs[0]).as_posix()!r})."
        )
    if not checkpoints.exists() and CheckpointFolder(folder.parent).exists():
        raise CheckpointError(f"{folder} is a folder of the run {folder.parent}: name the run, or a file in it.")
    try:
        behaviors: dict[str, Path] = checkpoints.newest()["behaviors"]
    except NoCheckpoint as error:
        raise CheckpointError(f"{error} {who_trains(folder)}".rstrip()) from error
    return behaviors
