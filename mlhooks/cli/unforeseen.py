"""Messages about errors that nobody foresaw: the system's refusals, and defects, with a file for a report."""

from __future__ import annotations

import errno
import os
import platform
import re
import tempfile
import traceback
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

from mlhooks import __version__
from mlhooks.describing import is_shortage, named, text_of
from mlhooks.places import classes_with, in_brackets, raised_at, raised_by

_PACKAGES = ("torch", "numpy", "pluggy", "pydantic", "gymnasium", "mlagents-envs", "protobuf")
_REFUSALS = (
    "ENOSPC",
    "EDQUOT",
    "EROFS",
    "EACCES",
    "EPERM",
    "ENAMETOOLONG",
    "EMFILE",
    "ENFILE",
    "EFBIG",
    "EIO",
    "ESTALE",
)
_SECRET = re.compile("key|token|secret|passw|credential|auth", re.IGNORECASE)
_LONGEST = 100_000


def explained(error: BaseException, *, shown: bool = False) -> str:
    """Describe an error; a defect is written to a file, unless its traceback was shown."""
    words = _of_the_system(error)
    if words:
        return words
    words = f"{named(error)}{in_brackets(raised_at(error))}"
    return words if shown else f"{words}\n{_defect(error)}"


def _of_the_system(error: BaseException) -> str:
    """Describe what the system refuses; empty for all other errors."""
    if isinstance(error, OSError) and errno.errorcode.get(error.errno or 0) in _REFUSALS:
        files = [os.fsdecode(file) for file in (error.filename, error.filename2) if isinstance(file, (str, bytes))]
        return (
            f"The system refuses: {error.strerror}{f': {files[-1]}' if files else ''}{in_brackets(raised_at(error))}."
        )
    if is_shortage(error):
        words = next(iter(text_of(error).splitlines()), type(error).__name__)
        return (
            f"There is not enough memory: {words}{in_brackets(raised_at(error))}. Lower the large "
            "settings, such as buffer_size, hidden_units or num_areas."
        )
    return ""


def _defect(error: BaseException) -> str:
    try:
        handle, file = tempfile.mkstemp(prefix="mlhooks-defect-", suffix=".txt", text=True)
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as report:
            report.write(_report(error, os.environ))
        where = f"{file} holds what a report needs; --debug shows the traceback here"
    except OSError:
        where = "Use --debug to see where it comes from"
    return f"{_whose(error)} {where}."


def _whose(error: BaseException) -> str:
    """Say where to look first: at a defect of mlhooks, or at other people's code, which the error came through."""
    if raised_by(error).partition(".")[0] in ("", "builtin_plugins"):
        if classes := classes_with(error):
            return f"A plugin takes part in it by {classes}: look first at what that returns and changes."
        return "This is a defect of mlhooks."
    return "It came out of a plugin or an environment, so look at that line first."


def _report(error: BaseException, environment: Mapping[str, str]) -> str:
    """Return the traceback and what is installed, without the command line and with possible secrets blotted out."""
    lines = [f"mlhooks {__version__}, Python {platform.python_version()}, {platform.platform()}"]
    for package in _PACKAGES:
        try:
            lines.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            lines.append(f"{package} is not installed")
    text = "\n".join([*lines, "", *traceback.format_exception(error)])
    for name, value in environment.items():
        if len(value) >= 6 and _SECRET.search(name):
            text = text.replace(value, "***")
    text = text.replace(os.path.expanduser("~"), "~")  # noqa: PTH111 - Path.home() fails where there is none
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]}\n...\n{text[-_LONGEST // 2 :]}"
