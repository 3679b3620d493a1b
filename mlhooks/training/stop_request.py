"""Stopping on Ctrl-C and termination signals, at a moment at which everything can be saved."""

from __future__ import annotations

import logging
import signal
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
        at_once: while set, the first signal interrupts: nothing can be lost, and what is waited for may never come.
        ending: set when the run stops by itself: a signal changes nothing more.
        saves: whether there will be anything to save.
    """

    def __init__(self, *, saves: bool = True) -> None:
        self.requested = self.at_once = self.ending = False
        self.saves = saves
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> None:
        self._previous = stop_signals.take(self._handle)

    def __exit__(self, *exc_info: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _: object) -> None:
        name = signal.Signals(number).name
        again, self.requested = self.requested, True
        if self.at_once or (again and name in IMPATIENT):
            raise KeyboardInterrupt
        if again:
            return
        if self.ending:
            what = "The run is about to end, with all its results."
        else:
            why = "" if name == "SIGINT" else f" because of {name}"
            what = f"Stopping{why}: saving a checkpoint first." if self.saves else f"Stopping{why}."
        logger.warning("%s %s stops at once.", what, "Once more" if name in IMPATIENT else "Ctrl-C")
