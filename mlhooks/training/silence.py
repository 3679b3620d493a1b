"""Environments in which nobody asks for a decision any more: said, and after long enough the end of a run."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from mlhooks.errors import EnvironmentFailure
from mlhooks.training.teams import Teams

logger = logging.getLogger("mlhooks")

SOON, LATE = 1_000, 100_000
"""Steps of environments without a decision of those that a run waits for: until that is said, and until the run ends.
Agents may pause, as while a scene is loaded, but not for longer than most episodes last."""


class Silence:
    """Counts steps of environments in which none of the behaviors that are not done decides anything.

    Args:
        env_name: what the environment is called in messages.
        workers: the number of workers, which share the steps that are counted.
    """

    def __init__(self, env_name: str, workers: int = 1) -> None:
        self._env_name = env_name
        self._turn = min(workers * SOON, LATE // 2)  # Each environment gets time to begin before a team is passed over.
        self._steps = self._looked = 0
        self._heard: dict[str, int] = {}  # This is the step at which agents that learn decided last.
        self._passed = 0  # This is the step at which a team was passed over last.

    def note_decision(self, name: str) -> None:
        """Note that agents of a behavior ask for decisions."""
        self._heard[name] = self._steps

    def count_steps(self, steps: int) -> bool:
        """Count steps of environments, and return whether it is time to ask `check`."""
        self._steps += steps
        return self._steps - self._looked >= SOON

    def check(self, busy: Sequence[str], teams: Teams) -> bool:
        """Say that nobody decides, or end the run; where it is the team that learns, let another one learn.

        Args:
            busy: the behaviors that are not done.
            teams: those of the run.

        Returns:
            Whether another team learns from now on.

        Raises:
            EnvironmentFailure: there was no decision of theirs for too long.
        """
        before, self._looked = self._looked, self._steps
        silent = self._steps - max([self._passed, *(self._heard.get(name, 0) for name in busy)])
        if silent < SOON:
            return False
        who = (
            f"no agent of {', '.join(map(repr, busy))} has asked for a decision" if busy else "it has shown no behavior"
        )
        if teams.learning is not None:
            who += f" in team {teams.learning}"
        said = f"{self._env_name}: in the last {silent:,} steps {who}"
        if silent >= LATE:
            raise EnvironmentFailure(
                f"{said}. The run ends, which would wait for ever: agents must ask for decisions until they end, and "
                "others must come after them."
            )
        if silent >= self._turn and teams.pass_over():
            self._passed = self._steps
            logger.warning("%s. Team %d learns in its place, until its agents decide.", said, teams.learning)
            return True
        if silent - (self._steps - before) < SOON:  # It is said once.
            logger.warning("%s. The run waits for that.", said)
        return False
