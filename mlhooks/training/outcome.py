"""The outcome of a run, for people and plugins."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from mlhooks.envs.manager import WorkerLost


@dataclass
class RunOutcome:
    """The outcome of a run.

    Attributes:
        status: finished, interrupted (by Ctrl-C or a signal) or failed.
        error: what it failed with.
        elapsed: seconds.
        files: what -> files, for people; plugins may add theirs in `run_finished`.
        restarts: the failures after which a worker was started again, in order.
    """

    status: Literal["finished", "interrupted", "failed"] = "finished"
    error: BaseException | None = None
    elapsed: float = 0.0
    files: dict[str, list[Path]] = field(default_factory=dict)
    restarts: list[WorkerLost] = field(default_factory=list)

    def fail(self, error: BaseException) -> None:
        """Note that the run failed; the first error is the one that it failed with."""
        self.status, self.error = "failed", self.error or error
