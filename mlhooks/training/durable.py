"""Writing files wholly or not at all, with an error that says what to do where the system refuses."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from mlhooks.errors import ResultsError

PART = ".{}.part"
"""What a file is called while it is written."""

_ADVICE = {
    "ENOSPC": "Free some space on that disk",
    "EDQUOT": "Your quota there is used up: remove something, or have it raised",
    "EROFS": "That file system is read-only",
    "EACCES": "Allow writing there",
    "EPERM": "Allow writing there",
    "EFBIG": "That is larger than a file may be there",
    "ENAMETOOLONG": "Choose a shorter --run-id or --results-dir",
    "ENOTDIR": "A part of that path is a file, and no folder",
    "EISDIR": "Move the folder that has this name away",
    "EEXIST": "Move what has this name away",
    "ENOENT": "Its folder was removed while the run went on",
    "EIO": "Look after the disk or the connection to it",
}
_IN_USE = 32  # of Windows, which does not let a file be moved or removed that is open


def cannot_write(path: Path, error: OSError) -> ResultsError:
    """Return the error that says what could not be written, why, and what to do about it."""
    reason = error.strerror or str(error) or type(error).__name__
    advice = _ADVICE.get(errno.errorcode.get(error.errno or 0, ""), "See what is wrong with that place")
    if getattr(error, "winerror", None) == _IN_USE:
        advice = "Close the program that has it open"
    return ResultsError(f"{path} cannot be written: {reason}. {advice}, or choose another --results-dir.")


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Run the body, which writes `path`, or into it where it is a folder.

    Raises:
        ResultsError: the system refuses, such as for a full disk.
    """
    try:
        yield
    except ResultsError:
        raise
    except OSError as error:
        inside = isinstance(error.filename, str) and path in Path(error.filename).parents
        raise cannot_write(Path(error.filename) if inside else path, error) from error


def write_durably(path: Path, data: bytes) -> None:
    """Write a file so that a crash leaves the old content or the new, never a part.

    Raises:
        ResultsError: the system refuses; the old content stays, and nothing else is left.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(PART.format(path.name))
        try:
            temporary.unlink(missing_ok=True)  # whatever it is, such as a link to another file
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        if os.name == "posix":  # make the rename itself durable
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
