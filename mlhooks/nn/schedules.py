"""Values that change with the training step."""

from __future__ import annotations

from mlhooks.settings import ScheduleType


class Schedule:
    """A value that stays constant, or falls linearly from `initial` to `minimum` over `max_steps` and stays there.

    Args:
        kind: constant or linear.
        initial: the value at step 0.
        minimum: the value at `max_steps` and after, where linear.
        max_steps: agent steps over which a linear schedule runs.
    """

    def __init__(self, kind: ScheduleType, initial: float, minimum: float, max_steps: int) -> None:
        self.kind, self.initial, self.minimum, self.max_steps = kind, initial, minimum, max_steps

    def __call__(self, step: int) -> float:
        """Return the value at a step."""
        if self.kind is ScheduleType.CONSTANT:
            return self.initial
        remaining = 1.0 - min(step, self.max_steps) / self.max_steps
        return (self.initial - self.minimum) * remaining + self.minimum
