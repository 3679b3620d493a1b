"""Hand the statistics of the package's reporter to mlhooks' own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from mlagents.trainers.stats import StatsReporter as WheelReporter
from mlagents.trainers.stats import TensorboardWriter

from mlhooks.stats import StatsAggregationMethod, StatsReporter, StatsSummary

if TYPE_CHECKING:
    from pathlib import Path

    from mlhooks.plugins import PluginManager

HIDDEN = frozenset({"Is Training", "Step"})
"""What a run reports itself, and what no writer of ML-Agents shows."""


class _SummaryWriters(dict[str, Any]):
    """The `SummaryWriter` of a category, made when code of a package asks for it to write more than numbers."""

    def __init__(self, bridge: Bridge) -> None:
        super().__init__()
        self._bridge = bridge

    def __missing__(self, category: str) -> Any:
        self._bridge._maybe_create_summary_writer(category)
        return self[category]


class Bridge(TensorboardWriter):  # type: ignore[misc]
    """A writer of the package that passes on what it gets; some packages look for a `TensorboardWriter` there.

    The package's list of writers is state of a class, so that all runs of a process share it: `open` and `close` it.

    Args:
        plugins: of the run, which get what is reported outside of behaviors.
        folder: of the run.
    """

    def __init__(self, plugins: PluginManager, folder: Path) -> None:
        super().__init__(str(folder))
        self.summary_writers = _SummaryWriters(self)
        self._plugins = plugins
        self._reporters: dict[str, StatsReporter] = {}
        self.losses: dict[str, dict[str, list[float]]] = {}
        """The losses that each behavior has reported since somebody cleared them."""

    def open(self) -> None:
        """Begin to take in statistics."""
        WheelReporter.writers.append(self)

    def close(self) -> None:
        """Take in no more, and forget what the package still keeps of these behaviors."""
        if self in WheelReporter.writers:
            WheelReporter.writers.remove(self)
        for category in self._reporters:
            WheelReporter.stats_dict.pop(category, None)
        for writer in self.summary_writers.values():
            writer.close()

    def watch(self, reporter: StatsReporter) -> dict[str, list[float]]:
        """Hand the statistics of a behavior to its reporter, and return where its losses will be."""
        self._reporters[reporter.category] = reporter
        return self.losses.setdefault(reporter.category, {})

    def on_add_stat(self, category: str, key: str, value: Any, aggregation: Any = None) -> None:
        """Emit a value, at once."""
        reporter = self._reporters.get(category)
        if reporter is None or key in HIDDEN:
            return
        number = float(np.mean(value))
        method = StatsAggregationMethod.AVERAGE if aggregation is None else StatsAggregationMethod[aggregation.name]
        reporter.add_stat(key, number, method)
        if key.startswith("Losses/"):
            self.losses[category].setdefault(key, []).append(number)

    def write_stats(self, category: str, values: Any, step: int) -> None:
        """Write statistics that belong to no behavior; the run writes the summaries of behaviors."""
        if category in self._reporters:
            return
        summaries = {
            key: StatsSummary(map(float, summary.full_dist), StatsAggregationMethod[summary.aggregation_method.name])
            for key, summary in values.items()
        }
        self._plugins.hook.write_stats(category=category, values=summaries, step=step)

    def add_property(self, category: str, property_type: Any, value: Any) -> None:
        """Leave it to the run, which tells the plugins the hyperparameters."""
