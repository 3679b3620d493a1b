"""A run as a stats writer sees it, without training: its hooks are called with values that can be found again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from mlhooks.plugins import PluginManager
from mlhooks.stats import StatsAggregationMethod, StatsReporter
from mlhooks.testing.managers import ScriptedEnvs, load_options
from mlhooks.testing.short_runs import PPO
from mlhooks.testing.sinks import Sink
from mlhooks.testing.target import Target

HOOKS = ("write_stats", "on_add_stat", "add_property")
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
        strict: whether a hook that raises fails.

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
        strict: bool = True,
    ) -> None:
        from mlhooks.testing.playing import make_trainer
        from mlhooks.testing.tasks import OneStep
        from mlhooks.training.run import Run

        self.manager: PluginManager = target.manager(ScriptedEnvs(), strict=strict)
        flags = {
            "env_settings.env_path": "scripted:one_step",
            "env_settings.seed": 1,
            "checkpoint_settings.run_id": "run",
            "checkpoint_settings.results_dir": str(folder),
            "checkpoint_settings.resume": resumed,
        }
        options = load_options(self.manager, {"behaviors": {behavior: PPO}}, flags)
        self.path = folder / "run"
        self.path.mkdir(parents=True, exist_ok=True)
        self.manager.configure(options)
        self.writes = any(self.manager.implemented(hook) for hook in HOOKS)
        self.run = Run(options, self.manager)
        self.manager.hook.run_started(run=self.run)
        self.trainer = make_trainer(target.manager(), OneStep.spec, PPO)
        self.trainer.behavior_name, self.trainer.step = behavior, step
        self.trainer.stats = StatsReporter(behavior, self.manager)
        self.run.trainers[behavior] = self.trainer
        self.manager.hook.behavior_added(
            run=self.run, behavior_name=behavior, behavior_spec=OneStep.spec, trainer=self.trainer
        )
        self.trainer.report_properties()

    def summary(self, step: int, values: Values, aggregation: StatsAggregationMethod | None = None) -> None:
        """Emit values and write them as the summary of a step; by default, averages."""
        for key, numbers in values.items():
            for number in numbers:
                self.trainer.stats.add_stat(key, number, aggregation or StatsAggregationMethod.AVERAGE)
        self.trainer.step = step
        self.trainer.stats.write_stats(step)

    def finish(self) -> None:
        """End the run."""
        self.manager.hook.run_finished(run=self.run, outcome=self.run.outcome)

    def sink(self) -> Sink:
        """What is written by now, in the results folder and in the current one."""
        return Sink(self.path, Path.cwd())


def number_for(step: int, key: int) -> float:
    """A number that stands for one key in one summary, exact in 32 bits and with few digits."""
    return 1024.0 * step + 8.0 * key + 0.5
