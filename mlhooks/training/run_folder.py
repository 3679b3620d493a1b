"""The folder of a run: held by one run at a time, and emptied of nothing but what a run wrote."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from mlhooks.errors import ResultsError, UsageError
from mlhooks.places import path_below, shown_path
from mlhooks.training.durable import cannot_write, writing
from mlhooks.training.folder_lock import LOCK, FolderLock
from mlhooks.training.run_files import ASIDE, Contents, contents

logger = logging.getLogger("mlhooks")

_ATTEMPTS = 10


class RunFolder:
    """The folder of a run, and the earlier results in it that a run with `--force` replaces.

    Earlier results are put aside when the new run starts, and are gone once it has saved a checkpoint; until then they
    are brought back when it ends. A kill at any moment leaves one of three folders that says how far it was: in
    `.mlhooks-replacing` earlier results are on their way, and nothing else is there; in `.mlhooks-replaced` they are
    complete, beside what the new run wrote; `.mlhooks-removing` is waste.

    Args:
        path: the folder, absolute.
        run_id: the name of the run.
    """

    def __init__(self, path: Path, run_id: str) -> None:
        self.path, self.run_id = path, run_id
        self._replacing, self._replaced, self._removing = (path / name for name in ASIDE)

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Keep all other runs out while the body runs; a folder that is made for that and stays empty is removed.

        Raises:
            UsageError: another run holds it, or something that is no folder has its name.
            ResultsError: it cannot be made.
        """
        lock = FolderLock(self.path)
        with writing(self.path):
            made = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
        try:
            self._acquire(lock)
            try:
                yield
            finally:
                lock.release()
        finally:
            for folder in made:
                with contextlib.suppress(OSError):  # It is in use.
                    folder.rmdir()

    def _acquire(self, lock: FolderLock) -> None:
        for folder in (self.path, *self.path.parents):
            if os.path.lexists(folder) and not folder.is_dir():
                raise UsageError(
                    f"{shown_path(folder)} is no folder, and the results of the run need a folder of this name. "
                    "Move it away, or choose another --run-id or --results-dir."
                )
        for name in (LOCK, *ASIDE):
            if (self.path / name).is_symlink():  # A link would let files elsewhere be emptied, or moved here.
                raise UsageError(f"{shown_path(self.path / name)} is a link, which no run makes. Remove it.")
        for _ in range(_ATTEMPTS):
            with writing(self.path):
                self.path.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):  # A run that was refused removed the folder that it had made.
                return lock.acquire()
        raise cannot_write(self.path, FileNotFoundError("it is removed again and again"))

    def list_contents(self) -> Contents:
        """Look at what is in the folder, which need not exist."""
        return contents(self.path, self.run_id)

    @property
    def _waits(self) -> bool:
        return self._replaced.is_dir() or self._replacing.is_dir()

    def is_left_amid(self) -> bool:
        """Return whether a run was killed that was about to put aside, to bring back or to remove earlier results."""
        return self._waits or self._removing.is_dir()

    def recover(self) -> None:
        """Finish what a killed run began: earlier results are removed or brought back as if it had ended.

        Raises:
            ResultsError: they cannot be moved.
        """
        if self.restore_earlier_results():
            logger.info(
                "%s holds its earlier results again: the run that was to replace them was killed before it had saved "
                "anything.",
                shown_path(self.path),
            )
        if self._removing.is_dir():
            self._remove_waste()

    def remove_parts(self) -> None:
        """Remove the files that a killed run had not written to their ends."""
        for name in self.list_contents().own:
            if name.endswith(".part"):
                with contextlib.suppress(OSError):  # It is in nobody's way.
                    (self.path / name).unlink()

    def name_inside(self, path: str | os.PathLike[str]) -> str:
        """Return the name of a file in the folder, relative to it and with slashes.

        Raises:
            UsageError: the path leads out of the folder.
        """
        absolute = Path(os.path.abspath(self.path / path))  # noqa: PTH100 - A link that has the name stays one.
        below = path_below(self.path, absolute.parent)
        if below is None:
            raise UsageError(f"{absolute} does not lie in {self.path}: only files there can be those of the run.")
        return (below / absolute.name).as_posix()

    def set_earlier_results_aside(self) -> None:
        """Move what an earlier run wrote out of the way.

        Raises:
            ResultsError: it cannot be moved, and is where it was.
        """
        try:
            with writing(self.path):
                self._move(self.list_contents().own, self.path, self._replacing)
                if self._replacing.is_dir():
                    self._replacing.rename(self._replaced)
        except ResultsError:
            with contextlib.suppress(ResultsError):
                self.restore_earlier_results()
            raise

    def discard_earlier_results(self) -> None:
        """Remove what was put aside: the new run has saved a checkpoint.

        Raises:
            ResultsError: it is still there, to be brought back.
        """
        if self._replaced.is_dir():
            with writing(self._replaced):
                self._replaced.rename(self._removing)
            self._remove_waste()

    def restore_earlier_results(self) -> bool:
        """Put back earlier results in place of the new run's files but its logs, and return whether there were any.

        Raises:
            ResultsError: it cannot be moved; the next run in this folder tries again.
        """
        if not self._waits:
            return False
        with writing(self.path):
            if self._replaced.is_dir():
                written = [name for name in self.list_contents().own if not name.endswith(".log")]
                for name in written:
                    (self.path / name).unlink()
                self._remove_empty(self.path, written)
                self._replaced.rename(self._replacing)
            names = [path.relative_to(self._replacing).as_posix() for path in _files(self._replacing)]
            self._move([name for name in names if not self._is_newer_log(name)], self._replacing, self.path)
            shutil.rmtree(self._replacing)
        return True

    def put_back(self, seen_from: Path) -> None:
        """Restore earlier results where the run that was to replace them has saved nothing, and say so.

        Args:
            seen_from: the folder from which people read paths.
        """
        try:
            if self.restore_earlier_results():
                logger.info("%s holds the earlier results, as before.", shown_path(self.path, seen_from))
        except ResultsError as error:
            logger.warning(
                "The earlier results could not be put back yet; the next run in this folder tries again. %s", error
            )

    def _is_newer_log(self, name: str) -> bool:
        return name.endswith(".log") and (self.path / name).exists()

    def _move(self, names: Iterable[str], source: Path, target: Path) -> None:
        for name in names:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).replace(target / name)
        self._remove_empty(source, names)

    def _remove_empty(self, folder: Path, names: Iterable[str]) -> None:
        """Remove the folders that these files leave empty."""
        parents = {parent for name in names for parent in Path(name).parents if parent != Path()}
        for parent in sorted(parents, key=lambda path: len(path.parts), reverse=True):
            with contextlib.suppress(OSError):  # Somebody has put something else there.
                (folder / parent).rmdir()

    def _remove_waste(self) -> None:
        try:
            shutil.rmtree(self._removing)
        except OSError as error:  # A program that shows them may hold on to them.
            logger.warning(
                "Earlier results in %s could not be removed yet; the next run in this folder tries again: %s.",
                shown_path(self._removing),
                error.strerror,
            )


def _files(folder: Path) -> Iterator[Path]:
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            yield from _files(Path(entry.path))
        else:
            yield Path(entry.path)
