"""The player stand-in as a process: its log, its exit code, and a file that a trainer starts as if it were a build."""

from __future__ import annotations

import contextlib
import logging
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from mlhooks import __version__
from mlhooks.errors import MlhooksError, UsageError
from mlhooks.sim_player.options import log_path, parse, port_of
from mlhooks.stop_signals import INTERRUPTED
from mlhooks.streams import StreamsHandler

logger = logging.getLogger("mlhooks.sim_player")

WRITE_EXECUTABLE = "--write-executable"


def main(arguments: Sequence[str]) -> int:
    """Play until the trainer says to leave, and return the exit code.

    0: played to the end, or there is no trainer. 1: failed. 2: bad usage. 130: interrupted.
    """
    with _log_to(log_path(arguments)):
        try:
            _run(arguments)
        except MlhooksError as error:
            logger.error("%s", error)  # noqa: TRY400  # It is a sentence for the user, who needs no traceback.
            return error.exit_code
        except KeyboardInterrupt:
            logger.info("Interrupted.")
            return INTERRUPTED
        except SystemExit as stop:
            return stop.code if isinstance(stop.code, int) else 0
        except Exception:
            logger.exception("The player stand-in failed.")
            return 1
    return 0


def _run(arguments: Sequence[str]) -> None:
    options, unknown = parse(arguments)
    if options.write_executable is not None:
        path = write_executable(options.write_executable, arguments)
        logger.info("Wrote %s; a trainer starts it as a player: --env %s", path, options.write_executable)
        return
    port = port_of(options)
    logger.info("Player stand-in of mlhooks %s: %s, port %s", __version__, options.world, port)
    if unknown:
        logger.info("Arguments that mean nothing to it: %s", " ".join(unknown))
    if port is None:
        logger.info("Without --mlagents-port there is no trainer to play for: nothing to do.")
        return
    # After the arguments are known to be right: grpc and numpy take most of the start.
    from mlhooks.sim_player.player import play

    play(options, port)


@contextlib.contextmanager
def _log_to(path: str | None) -> Iterator[None]:
    handler: logging.Handler
    if path is None:
        handler = StreamsHandler()
    elif path == "-":
        handler = logging.StreamHandler(sys.stdout)
    else:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(path, mode="w", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(message)s"))
    level, propagate = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate
        handler.close()


def write_executable(path: Path, arguments: Sequence[str]) -> Path:
    """Write a script that starts the stand-in with these arguments and those that it gets, and return its path.

    Args:
        path: The script. One that ends in .app is a folder, with the script where macOS keeps an application's program.
        arguments: Of the stand-in; the option that asks for the script may be among them and is left out.

    Raises:
        UsageError: On Windows, which starts no scripts as programs, or if the file cannot be written.
    """
    if sys.platform == "win32":
        raise UsageError(
            f"{WRITE_EXECUTABLE} writes a shell script, which Windows does not start as a program. Start the player by "
            "hand: python -m mlhooks.sim_player NAME --mlagents-port 5004, and the trainer without --env."
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
        if argument == WRITE_EXECUTABLE:
            next(rest, None)
        elif not argument.startswith(f"{WRITE_EXECUTABLE}="):
            left.append(argument)
    return left
