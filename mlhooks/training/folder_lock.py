"""The lock on a run's folder: the operating system's, so that any death of its holder releases it."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
from pathlib import Path

from filelock import FileLock, Timeout

from mlhooks.errors import UsageError
from mlhooks.places import shown_path
from mlhooks.training.durable import cannot_write

logger = logging.getLogger("mlhooks")

LOCK = ".mlhooks-lock"
"""The lock's file, in the folder of the run, while the run goes on."""
_NO_LOCKS = {getattr(errno, name) for name in ("ENOSYS", "ENOTSUP", "EOPNOTSUPP", "ENOLCK", "EINVAL")}


class FolderLock:
    """Keeps all others, of this process too, from holding the same folder.

    The file says who holds it, from its second byte on: on Windows nobody else can read the first one, which is locked.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self.path = folder, folder / LOCK
        self._lock = FileLock(self.path, timeout=0, thread_local=False, fallback_to_soft=False)

    def acquire(self) -> None:
        """Take the lock or fail at once; the folder must exist.

        Raises:
            UsageError: another run holds the folder; says which process on which machine.
            ResultsError: the file cannot be made.
            FileNotFoundError: the folder is gone again.
        """
        try:
            self._lock.acquire()
        except Timeout:
            raise UsageError(
                f"{shown_path(self._folder)} is held by a run that goes on: {self._holder()}. Wait until it ends, end "
                "it (Ctrl-C there saves first), or choose another --run-id."
            ) from None
        except FileNotFoundError:
            raise
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise cannot_write(self.path, error) from error
            logger.warning(
                "The file system of %s has no locks (%s), so nothing keeps a second run from writing there: do not "
                "start one under the same --run-id.",
                shown_path(self._folder),
                error.strerror,
            )
            return
        with contextlib.suppress(OSError), self.path.open("r+b", buffering=0) as file:
            file.truncate(1)
            file.seek(1)
            file.write(f"{os.getpid()} {socket.gethostname()}\n".encode())

    def release(self) -> None:
        """Release the lock, and remove its file."""
        if self._lock.is_locked:
            with contextlib.suppress(OSError):  # On Windows the library removes it.
                self.path.unlink()
            self._lock.release()

    def held_by(self) -> str | None:
        """Say which process holds the folder, as far as that can be told; None where none does."""
        if not self.path.exists():
            return None
        try:
            self._lock.acquire()
        except Timeout:
            return self._holder()
        except OSError:
            return None
        self.release()
        return None

    def _holder(self) -> str:
        with contextlib.suppress(OSError, ValueError), self.path.open("rb", buffering=0) as file:
            file.seek(1)
            pid, host = file.read(1024).decode().split()
            here = " (this one)" if int(pid) == os.getpid() and host == socket.gethostname() else ""
            return f"process {int(pid)}{here} on {host}"
        return "another process"
