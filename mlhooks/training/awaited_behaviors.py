"""Waiting for behaviors of the checkpoint that the environment has not shown, and giving up on them."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable

from mlhooks.errors import EnvironmentFailure, UsageError

logger = logging.getLogger("mlhooks")

PATIENCE = 1_000
"""Steps of environments in which a behavior of the checkpoint may appear, before a run that has only it to wait for
ends: enough for scenes in which agents come late, whatever time a step takes."""


class Awaited:
    """The behaviors of a run's checkpoint that its environment has not shown yet.

    Args:
        env_name: what the environment is called in messages.

    Attributes:
        names: the behaviors that are awaited.
        shown: the behaviors that the environment has shown, in their order.
        begun: whether the environment has shown any behavior of the checkpoint, or there is none.
    """

    def __init__(self, env_name: str) -> None:
        self.env_name = env_name
        self.names: list[str] = []
        self.shown: list[str] = []
        self.begun = True
        self._steps = 0

    def await_behaviors(self, names: Iterable[str]) -> None:
        """Await the behaviors of a checkpoint."""
        self.names = list(names)
        self.begun = not self.names

    def refuse_elsewhere(self, known: Collection[str] | None, busy: Collection[str]) -> None:
        """Refuse an environment that will not show what is to go on, where it tells its behaviors in advance.

        Args:
            known: the names of all behaviors that the environment will show; None where that is not known.
            busy: the behaviors that are not done.

        Raises:
            UsageError: a behavior that is not done is none of them.
        """
        missing = [name for name in self.names if name in busy and known is not None and name not in known]
        if missing:
            raise UsageError(
                f"{self._shows(known or ())}, and the checkpoint of this run has {_listed(missing)}. Go on with the "
                "environment that it was trained in, or name another --run-id."
            )

    def note_behavior(self, name: str) -> None:
        """Note that the environment shows a behavior."""
        if name not in self.shown:
            self.shown.append(name)
        if name in self.names:
            self.names.remove(name)
            self.begun = True

    def refuse_untrained(self, name: str, shown: Collection[str]) -> None:
        """Say that a behavior that is only to act was never trained.

        Args:
            name: the behavior.
            shown: all behaviors that the environment shows in this step.

        Raises:
            UsageError: the checkpoint has none of what the environment shows.
        """
        if not self.begun and not set(shown) & set(self.names):
            raise UsageError(
                f"{self._shows(shown)}, and the checkpoint of this run has {_listed(self.names)}: there is nothing "
                "that it could act by. Name the environment that the run was trained in, or its --run-id."
            )
        logger.warning(
            "Behavior %r is not in the checkpoint of this run: it acts by an UNTRAINED policy, and its rewards tell "
            "nothing. Train it, or give its settings an init_path.",
            name,
        )

    def name_missing(self, expected: Iterable[str]) -> None:
        """Warn of behaviors that were expected at the first step and that the environment has not shown."""
        missing = [name for name in dict.fromkeys(expected) if name not in self.shown]
        if missing:
            logger.warning(
                "The environment has not shown %s of the configuration or the checkpoint; it shows %s. Behavior names "
                "must be equal.",
                _listed(missing),
                _listed(self.shown) or "none",
            )

    def count_steps(self, steps: int, busy: Collection[str]) -> None:
        """Count steps of environments, and end a run that waits in vain.

        Args:
            steps: how many there were since the last call.
            busy: the behaviors that are not done.

        Raises:
            UsageError: the environment shows other behaviors only; nothing of theirs is saved.
            EnvironmentFailure: all behaviors but the awaited ones are done.
        """
        self._steps += steps
        if self._steps < PATIENCE or not self.shown:
            return
        if not self.begun:
            raise UsageError(
                f"{self._shows(self.shown)}, and in {self._steps:,} steps none of {_listed(self.names)}, which the "
                "checkpoint of this run has. Resume it with the environment that it was trained in, or begin another "
                "run with another --run-id. The checkpoint stays as it was."
            )
        missing = [name for name in self.names if name in busy]
        if missing and len(missing) == len(busy):
            raise EnvironmentFailure(
                f"All that {self.env_name} shows is done, but it has not shown {_listed(missing)} of the checkpoint in "
                f"{self._steps:,} steps, so that is where the run ends. Behavior names must be equal. To go on with "
                f"{_listed(missing)}, resume with an environment that has it."
            )

    def _shows(self, shown: Collection[str]) -> str:
        return f"{self.env_name} shows {_listed(shown)}"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names))
