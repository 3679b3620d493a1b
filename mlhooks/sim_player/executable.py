"""A file that a trainer can start as if it were a Unity build."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from mlhooks.errors import UsageError

OPTION = "--write-executable"


def write_executable(path: Path, arguments: Sequence[str]) -> Path:
    """Write a script that starts the player stand-in with these arguments, and those that it gets; return its path.

    Args:
        path: The script. One that ends in .app is a folder, with the script where macOS keeps an application's program.
        arguments: Of the stand-in; the option that asks for the script may be among them and is left out.

    Raises:
        UsageError: On Windows, which starts no scripts as programs, or if the file cannot be written.
    """
    if sys.platform == "win32":
        raise UsageError(
            f"{OPTION} writes a shell script, which Windows does not start as a program. Start the player by hand: "
            "python -m mlhooks.sim_player NAME --mlagents-port 5004, and the trainer without --env."
        )
    script = path / "Contents" / "MacOS" / path.stem if path.suffix == ".app" else path
    # A shell's `exec`, not an interpreter after #!, where neither long paths nor spaces would do.
    command = shlex.join([sys.executable, "-P", "-m", "mlhooks.sim_player", *_without_option(arguments)])
    try:
        script.parent.mkdir(parents=True, exist_ok=True)
        script.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        script.chmod(0o755)
    except OSError as error:
        raise UsageError(f"{script} cannot be written: {error.strerror}.") from error
    return script


def _without_option(arguments: Sequence[str]) -> list[str]:
    left, rest = [], iter(arguments)
    for argument in rest:
        if argument == OPTION:
            next(rest, None)
        elif not argument.startswith(f"{OPTION}="):
            left.append(argument)
    return left
