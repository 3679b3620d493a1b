"""Stopping on Ctrl-C and termination signals, at a moment at which everything can be saved."""

from __future__ import annotations

import logging
import signal
import threading
from typing import Any

logger = logging.getLogger("mlhooks")

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGBREAK") if hasattr(signal, name)]


class StopRequest:
    """While entered, the first signal sets `requested`, and a second one interrupts at once.

    While `at_once` is set, the first one does: nothing can be lost, and what is waited for may never come.

    Outside the main thread, where Python delivers no signals, entering changes nothing.
    """

    def __init__(self) -> None:
        self.requested = self.at_once = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._handle) for number in SIGNALS}

    def __exit__(self, *exc_info: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, *_: object) -> None:
        if self.requested or self.at_once:
            self.requested = True
            raise KeyboardInterrupt
        self.requested = True
        logger.warning("Stopping: saving a checkpoint first. Once more stops at once.")
