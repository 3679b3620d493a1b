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

_ELSEWHERE = ", or choose another --results-dir."
_ADVICE = {
    "ENOSPC": f"Free some space on that disk{_ELSEWHERE}",
    "EDQUOT": f"Your quota there is used up: remove something, have it raised{_ELSEWHERE}",
    "EROFS": "Choose a --results-dir on a file system that is not read-only.",
    "EACCES": f"Allow writing there{_ELSEWHERE}",
    "EPERM": f"Allow writing there{_ELSEWHERE}",
    "EFBIG": f"Raise the limit on the size of files (ulimit -f){_ELSEWHERE}",
    "ENAMETOOLONG": "Choose a shorter --run-id or --results-dir.",
    "ENOTDIR": f"A part of that path is a file, and no folder: move it away{_ELSEWHERE}",
    "EISDIR": f"Move the folder that has this name away{_ELSEWHERE}",
    "EEXIST": f"Move what has this name away{_ELSEWHERE}",
    "ENOENT": "Its folder was removed meanwhile, or none can be made there: choose another --results-dir.",
    "EIO": f"Check the disk, or the connection to it{_ELSEWHERE}",
}
_OTHERWISE = f"Check that place{_ELSEWHERE}"
_IN_USE = 32  # Windows does not let an open file be moved or removed


def cannot_write(path: Path, error: OSError) -> ResultsError:
    """Return the error that says what could not be written, why, and what to do about it."""
    reason = error.strerror or str(error) or type(error).__name__
    advice = _ADVICE.get(errno.errorcode.get(error.errno or 0, ""), _OTHERWISE)
    if getattr(error, "winerror", None) == _IN_USE:
        advice = f"Close the program that has it open{_ELSEWHERE}"
    return ResultsError(f"{path} cannot be written: {reason}. {advice}")


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
            temporary.unlink(missing_ok=True)  # It may be anything, such as a link to another file.
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        if os.name == "posix":  # This makes the rename itself durable.
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
