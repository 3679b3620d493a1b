"""Start a player's executable, and tell why it ended."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from mlhooks.envs import players
from mlhooks.unity.builds import find_player
from mlhooks.unity.errors import PlayerExited, PlayerNotFound

logger = logging.getLogger("mlhooks")

_END = 10.0  # A process that was killed is gone in so many seconds.
_TAIL_LINES, _TAIL_BYTES = 15, 16_384


class PlayerProcess:
    """A running player; what it prints is kept for messages.

    Args:
        path: of the player.
        args: its arguments.
        log: the log file that the arguments ask the player to write, if they do.

    Raises:
        PlayerNotFound: there is no player at the path, or this system cannot execute it.
    """

    def __init__(self, path: str, args: Sequence[str], log: Path | None = None) -> None:
        executable = find_player(path)
        self._log = log
        self._output: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - Lives as long as the process.
        try:
            self._process = subprocess.Popen(
                [executable, *args],
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the trainer, which then ends the player
            )
        except OSError as error:
            self._output.close()
            raise PlayerNotFound(
                f"The player {executable} cannot be executed here: {error.strerror}", "Was it built for this platform?"
            ) from error
        self.pid = self._process.pid
        self._known = players.find(self.pid)
        players.announce(self.pid)

    def check(self) -> None:
        """Look whether the player still runs.

        Raises:
            PlayerExited: it does not; the message has its exit code and the end of its log.
        """
        code = self._process.poll()
        if code is not None:
            raise PlayerExited(f"The player exited with {_describe(code)}.{self.last_words()}")

    def wait(self, timeout: float) -> bool:
        """Return whether the player ends by itself within a time in seconds."""
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return False
        return True

    def close(self, timeout: float) -> None:
        """Give the player `timeout` seconds to end, then end it."""
        if not self.wait(timeout):
            if timeout:
                logger.warning("The player (pid %d) did not quit within %g seconds and was ended.", self.pid, timeout)
            players.kill(self._known)
            if not self.wait(_END):
                logger.warning("The player (pid %d) could not be ended.", self.pid)
        self._output.close()

    def last_words(self) -> str:
        """Return the end of the player's log, or of what it printed, as the end of a message."""
        for source, text in ((f"its log, {self._log}", _tail_of(self._log)), ("its output", self._printed())):
            lines = [line for line in text.splitlines() if line.strip()][-_TAIL_LINES:]
            if lines:
                return "\n".join([f" The end of {source}:", *(f"    {line}" for line in lines)])
        return " It left no log."

    def _printed(self) -> str:
        size = self._output.seek(0, os.SEEK_END)
        self._output.seek(max(0, size - _TAIL_BYTES))
        return self._output.read().decode(errors="replace")


def _tail_of(log: Path | None) -> str:
    if log is None:
        return ""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def _describe(code: int) -> str:
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"signal {signal.Signals(-code).name}"
    return f"code {code}" if 0 <= code < 256 else f"code {code} (0x{code & 0xFFFFFFFF:08X})"
