"""A run as a stats writer sees it, without training: its hooks are called with values that can be found again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mlhooks.plugins import PluginManager
from mlhooks.stat_keys import REWARD_KEY
from mlhooks.stats import StatsAggregationMethod, StatsReporter
from mlhooks.testing.managers import ScriptedEnvs, load_options
from mlhooks.testing.short_runs import PPO
from mlhooks.testing.target import WRITER_HOOKS, Target
from mlhooks.testing.writer_output import Sink

if TYPE_CHECKING:
    from mlhooks.training.trainer import Trainer

KEYS = (REWARD_KEY, "Losses/Policy Loss", "Policy/Entropy")
STEP = 1000
Values = Mapping[str, Sequence[float]]
HISTOGRAM, MOST_RECENT, SUM = (
    StatsAggregationMethod.HISTOGRAM,
    StatsAggregationMethod.MOST_RECENT,
    StatsAggregationMethod.SUM,
)


class WriterRun:
    """Calls the hooks of a run, in their order, for the target and no other writer.

    Args:
        target: the plugin.
        folder: the folder of all results.
        behavior: the category of all statistics.
        resumed: whether the run goes on from `step`.
        step: agent steps that are behind it.
        inference: whether the run only acts.
        strict: whether a hook that raises fails.
        printed: gives what was printed by now.

    Attributes:
        path: the results folder of the run.
        writes: whether the plugin implements any of a writer's hooks, once it is configured.
    """

    def __init__(
        self,
        target: Target,
        folder: Path,
        *,
        behavior: str = "Behavior",
        resumed: bool = False,
        step: int = 0,
        inference: bool = False,
        strict: bool = True,
        printed: Callable[[], str] = str,
    ) -> None:
        from mlhooks.training.run import Run

        self.target, self.printed = target, printed
        self.manager: PluginManager = target.manager(ScriptedEnvs(), strict=strict)
        flags = {
            "env_settings.env_path": "scripted:one_step",
            "env_settings.seed": 1,
            "checkpoint_settings.run_id": "run",
            "checkpoint_settings.results_dir": str(folder),
            "checkpoint_settings.resume": resumed,
            "checkpoint_settings.force": not resumed and not inference,
            "checkpoint_settings.inference": inference,
        }
        options = load_options(self.manager, {"behaviors": {behavior: PPO}}, flags)
        self.path = folder / "run"
        self.path.mkdir(parents=True, exist_ok=True)
        self.manager.configure(options)
        self.writes = any(self.manager.implemented(hook) for hook in WRITER_HOOKS)
        self.run = Run(options, self.manager)
        self.manager.hook.run_started(run=self.run)
        self.trainer = self.add(behavior, step)

    def add(self, behavior: str, step: int = 0) -> Trainer:
        """Let the run find a behavior, and return its trainer, which has `step` agent steps behind it."""
        from mlhooks.testing.tasks import OneStep
        from mlhooks.testing.trainer_loop import make_trainer

        trainer = make_trainer(self.target.manager(), OneStep.spec, PPO)
        trainer.behavior_name, trainer.step = behavior, step
        trainer.stats = StatsReporter(behavior, self.manager)
        self.run.trainers[behavior] = trainer
        self.manager.hook.behavior_added(
            run=self.run, behavior_name=behavior, behavior_spec=OneStep.spec, trainer=trainer
        )
        trainer.report_properties()
        return trainer

    def summary(
        self,
        step: int,
        values: Values,
        aggregation: StatsAggregationMethod = StatsAggregationMethod.AVERAGE,
        trainer: Trainer | None = None,
    ) -> None:
        """Emit values and write them as the summary of a step, of the first behavior unless `trainer` is another's."""
        trainer = trainer or self.trainer
        for key, numbers in values.items():
            for number in numbers:
                trainer.stats.add_stat(key, number, aggregation)
        trainer.step = step
        trainer.stats.write_stats(step)

    def finish(self) -> None:
        """End the run."""
        self.manager.hook.run_finished(run=self.run, outcome=self.run.outcome)

    def sink(self) -> Sink:
        """Return what is written by now, in the results folder and the current one; without files, what was printed."""
        return Sink(self.path, Path.cwd(), printed=self.printed())


def number_for(step: int, key: int) -> float:
    """Return a number that stands for one key in one summary, exact in 32 bits and with few digits."""
    return 1024.0 * step + 8.0 * key + 0.5


Start = Callable[..., WriterRun]
"""What the fixture `start` gives: starts a run, with the arguments of `WriterRun` after the target."""


def write(run: WriterRun, steps: range, trainer: Trainer | None = None, numbers: int = 0) -> None:
    """Write summaries at some steps, with numbers that stand for step and key.

    Args:
        run: the run.
        steps: of the summaries, in units of `STEP`.
        trainer: of another behavior than the first one.
        numbers: use the numbers of so many steps later.
    """
    for step in steps:
        values = {}
        for index, key in enumerate(KEYS):
            middle = number_for(step + numbers, index)
            values[key] = [middle - 1.0, middle, middle + 1.0]
        run.summary(step * STEP, values, trainer=trainer)


Places = dict[tuple[int, int], list[int]]
"""Step and place in `KEYS` -> the records that hold its number."""


def places_of(sink: Sink, steps: range) -> Places:
    """Return where the numbers of `write` are, of all keys; of what was printed, of the keys that are shown at all."""
    places = {(step, key): sink.places(number_for(step, key)) for step in steps for key in range(len(KEYS))}
    shown = {key for (_, key), at in places.items() if at or sink.files}
    return {(step, key): at for (step, key), at in places.items() if key in shown}
