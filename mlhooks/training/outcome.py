"""The outcome of a run, for people and plugins, and what is said of one that was complete before."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mlhooks.envs.manager import WorkerLost

if TYPE_CHECKING:
    from mlhooks.training.trainer import Trainer


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


def nothing_left(trainers: Mapping[str, Trainer], why_over: Callable[[str], str]) -> str:
    """Return what to say of a run that is resumed and complete: how far its behaviors are, and how to go on.

    Args:
        trainers: behavior name -> trainer.
        why_over: returns why an evaluation ended a behavior's training, or nothing.
    """
    steps = [f"{name!r} is at step {t.step:,} of {t.settings.max_steps:,}" for name, t in trainers.items()]
    reasons = [why for name in trainers if (why := why_over(name))]
    ended, key = ("what ended it", "evaluation.stop_at") if reasons else ("max_steps", "max_steps")
    why = f" ({'; '.join(reasons)})" if reasons else ""
    return (
        f"There is nothing left to train: {', '.join(steps)}{why}. To go on, raise {ended}, as by "
        f"--set behaviors.{next(iter(trainers))}.{key}=N."
    )
