"""Stopping on Ctrl-C and termination signals, at a moment at which everything can be saved."""

from __future__ import annotations

import contextlib
import logging
import signal
from collections.abc import Iterator
from typing import Any

from mlhooks import stop_signals

logger = logging.getLogger("mlhooks")

IMPATIENT = ("SIGINT", "SIGBREAK")
"""What a person sends by hand. Other signals come twice by themselves: a terminal that closes and the shell in it both
send SIGHUP, and SIGTERM follows SIGUSR1 at Slurm's time limit; saving goes on then."""


class StopRequest:
    """While entered, the first signal sets `requested`, and a second Ctrl-C interrupts at once.

    Outside the main thread, where Python delivers no signals, entering changes nothing.

    Attributes:
        requested: whether the run is to stop.
        ending: set when the run stops by itself: a signal changes nothing more.
        saves: whether there will be anything to save.
    """

    def __init__(self, *, saves: bool = True) -> None:
        self.requested = self.ending = self._at_once = False
        self.saves = saves
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> None:
        self._previous = stop_signals.install_handler(self._handle)

    def __exit__(self, *exc_info: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    @contextlib.contextmanager
    def ending_at_once(self) -> Iterator[None]:
        """Let the first signal interrupt while the body runs: nothing can be lost, and it may wait for ever."""
        self._at_once = True
        try:
            yield
        finally:
            self._at_once = False

    def _handle(self, number: int, _: object) -> None:
        name = signal.Signals(number).name
        again, self.requested = self.requested, True
        if self._at_once or (again and name in IMPATIENT):
            raise KeyboardInterrupt
        if again:
            return
        if self.ending:
            what = "The run is about to end, with all its results."
        else:
            why = "" if name == "SIGINT" else f" because of {name}"
            what = f"Stopping{why}: saving a checkpoint first." if self.saves else f"Stopping{why}."
        logger.warning("%s %s stops at once.", what, "Once more" if name in IMPATIENT else "Ctrl-C")
