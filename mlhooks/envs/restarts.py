"""Restarts of failed environments within ML-Agents' limits, the same wherever environments run."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from mlhooks.describing import described
from mlhooks.envs.manager import Worker, WorkerFailure, WorkerLost
from mlhooks.envs.mistakes import is_mistake, is_raised
from mlhooks.errors import EnvironmentPaused, MlhooksError, UsageError

if TYPE_CHECKING:
    from mlhooks.settings.run_options import EnvironmentSettings

UNLIMITED = -1


class RestartPolicy:
    """Counts the restarts of each worker against their limits, of which -1 is none.

    Args:
        lifetime: restarts of one worker in all.
        rate: restarts of one worker within any period.
        period: the length of that period in seconds.
        clock: the time in seconds.
    """

    def __init__(self, lifetime: int, rate: int, period: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.lifetime, self.rate, self.period, self._clock = lifetime, rate, period, clock
        self._restarts: dict[int, list[float]] = defaultdict(list)
        self._failures: dict[int, str] = {}  # These are the last failures, by worker.

    @classmethod
    def from_settings(cls, settings: EnvironmentSettings) -> RestartPolicy:
        """Return the policy of `max_lifetime_restarts`, `restarts_rate_limit_n` and `restarts_rate_limit_period_s`."""
        return cls(
            settings.max_lifetime_restarts, settings.restarts_rate_limit_n, settings.restarts_rate_limit_period_s
        )

    def restart(self, worker: Worker, error: Exception, *, steps: int = 1, begun: bool = True) -> WorkerLost:
        """Count a restart after a failure; that of an environment that a person stopped is none.

        Args:
            worker: the worker that failed.
            error: how it failed.
            steps: how many steps its environment made since it was started last.
            begun: whether any environment of the run ever made a step.

        Raises:
            WorkerFailure: a restart would pass a limit, or would not help.
            MlhooksError: the failure itself, where what was asked for cannot be done, however often it is tried.
        """
        if isinstance(error, EnvironmentPaused):
            return WorkerLost(worker, error)
        if isinstance(error, MlhooksError) and error.exit_code == UsageError.exit_code:
            raise error
        final = self._why_useless(worker, error, steps, begun) or self._limit_reached(worker, error)
        if final:
            raise WorkerFailure(worker, error, final) from error
        self._restarts[worker.index].append(self._clock())
        self._failures[worker.index] = described(error)
        return WorkerLost(worker, error)

    def _why_useless(self, worker: Worker, error: Exception, steps: int, begun: bool) -> str:
        """Say why an environment that is started again would fail in the same way; empty where it may not."""
        if is_mistake(error):
            return "It is not started again, since it would fail in the same way."
        accident = isinstance(error, OSError) or not is_raised(error)  # A server may not be up yet, for example.
        if not steps and not accident and self._failures.get(worker.index) == described(error):
            return "It had been started again after the same failure, and made no step since."
        if not begun and is_raised(error):
            return "It is not started again, since no environment of this run has made a step yet."
        return ""

    def _limit_reached(self, worker: Worker, error: Exception) -> str:
        now, restarts = self._clock(), self._restarts[worker.index]
        recent = sum(now - at < self.period for at in restarts)
        again = is_raised(error) and self._failures.get(worker.index) == described(error)
        mend = " It failed in the same way before: mend that error, rather than raise the limit." if again else ""
        if UNLIMITED < self.lifetime <= len(restarts):
            limit = f"--max-lifetime-restarts is {self.lifetime} (-1: no limit)"
            return f"It was {restarted(len(restarts))} before, and {limit}.{mend}"
        if UNLIMITED < self.rate <= recent:
            limit = f"--restarts-rate-limit-n is {self.rate} (-1: no limit)"
            return f"It was {restarted(recent)} in the last {self.period:g} seconds, and {limit}.{mend}"
        return ""


def restarted(count: int) -> str:
    """Return how often something was restarted, in words."""
    return f"restarted {times(count)}" if count else "not restarted"


def times(count: int) -> str:
    """Return how often something happened, in words."""
    return "once" if count == 1 else f"{count} times"


def restart_report(restarts: Sequence[WorkerLost]) -> str:
    """Describe, for the end of a run, which workers were started again, and why."""
    workers: dict[int, list[WorkerLost]] = defaultdict(list)
    for lost in restarts:
        workers[lost.worker.index].append(lost)
    lines = [
        f"    worker {index}, {times(len(losses))}, at last because: {_first_line(losses[-1].error)}"
        for index, losses in sorted(workers.items())
    ]
    return "\n".join([f"Environments were started again {times(len(restarts))}:", *lines])


def _first_line(error: Exception) -> str:
    line = described(error).partition("\n")[0]
    return line.rpartition(". ")[0] + "." if line.endswith(":") else line  # What comes below the colon is said already.
