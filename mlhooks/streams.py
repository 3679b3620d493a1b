"""Send log messages on their way: progress and results to standard output, all else to standard error."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys

GONE = (OSError, ValueError)
"""What writing to a stream raises whose reader is gone, or which other people's code has closed."""


class StreamsHandler(logging.Handler):
    """Writes what is of level INFO to standard output, and warnings, errors and debugging to standard error.

    It asks for the streams each time, so that whoever replaces them sees the messages, too. What a stream cannot
    encode is escaped, and a stream that is closed, or whose reader is gone, costs the message alone: nothing of that
    is worth ending a run.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Write one message as a line, at once."""
        stream = sys.stdout if record.levelno == logging.INFO else sys.stderr
        encoding = getattr(stream, "encoding", None) or "utf-8"
        line = self.format(record).encode(encoding, "backslashreplace").decode(encoding)
        if stream is not None:
            with contextlib.suppress(*GONE):
                print(line, file=stream, flush=True)


def escape_what_cannot_be_encoded() -> None:
    """Let standard output and standard error escape what their encoding lacks, as that of a pipe on Windows may."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def release_streams() -> None:
    """Write what standard output and standard error still hold; one whose reader is gone loses it without a word.

    Python writes it once more when it exits, and would complain, and exit with 120, about a pipe or a terminal that is
    closed by then.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        except ValueError:  # It is closed, and holds nothing.
            continue
