"""Writing the statistics of a run's behaviors, period by period."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlhooks.stat_keys import LENGTH_KEY, REWARD_KEY
from mlhooks.training.trainer import Trainer

if TYPE_CHECKING:
    from mlhooks.training.run import Run


class Summaries:
    """Writes a summary of each behavior every `summary_freq` steps, and what is left when the run ends.

    Args:
        run: the run, whose plugins get the summaries.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self._written_at: dict[str, int] = {}

    def watch(self, trainer: Trainer) -> None:
        """Begin with a behavior, whose steps so far were summarized before, but for those of a period that goes on."""
        begun = trainer.step % trainer.settings.summary_freq if trainer.stats.state_dict() else 0
        self._written_at[trainer.behavior_name] = trainer.step - begun

    def write_if_due(self, trainer: Trainer) -> None:
        """Write a summary when a behavior has passed a multiple of its `summary_freq`."""
        frequency = trainer.settings.summary_freq
        if trainer.step // frequency > self._written_at[trainer.behavior_name] // frequency:
            self._write(trainer)

    def write_last(self) -> None:
        """Write what is left of all summary periods."""
        for name, trainer in self.run.trainers.items():
            if trainer.step > self._written_at[name]:
                self._write(trainer)

    def _write(self, trainer: Trainer) -> None:
        run = self.run
        with run.timers("summary"):
            self._written_at[trainer.behavior_name] = trainer.step
            lessons = {f"Environment/Lesson Number/{name}": n for name, n in run.curriculum.lessons.items()}
            own = {"Is Training": 1.0, **lessons}
            taken = {*own, REWARD_KEY, LENGTH_KEY}
            extra = run.plugins.collect_mapping("summary_stats", taken=taken, trainer=trainer, step=trainer.step)
            trainer.stats.write_stats(trainer.step, {**own, **extra})
