"""A plugin that remembers what it was told, for tests of what is emitted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from mlhooks import hookimpl

if TYPE_CHECKING:
    from mlhooks.stats import StatsAggregationMethod, StatsPropertyType, StatsSummary
    from mlhooks.training.checkpoints import Checkpoint
    from mlhooks.training.outcome import RunOutcome
    from mlhooks.training.run import Run
    from mlhooks.training.trainer import Trainer


class Stat(NamedTuple):
    """One call of `on_add_stat`."""

    category: str
    key: str
    value: float
    aggregation: StatsAggregationMethod


class Summary(NamedTuple):
    """One call of `write_stats`."""

    category: str
    values: Mapping[str, StatsSummary]
    step: int


class StatsRecorder:
    """Register it, or hand it to `run_training`, and look at its lists afterwards.

    Attributes:
        stats: every emitted value, in order; summaries: every summary period.
        properties: (category, type, value); updates: (step, losses); checkpoints: of all behaviors.
        outcome: how the run ended.
    """

    def __init__(self) -> None:
        self.stats: list[Stat] = []
        self.summaries: list[Summary] = []
        self.properties: list[tuple[str, StatsPropertyType, Any]] = []
        self.updates: list[tuple[int, Mapping[str, float]]] = []
        self.checkpoints: list[Checkpoint] = []
        self.outcome: RunOutcome | None = None

    def values(self, key: str) -> list[float]:
        """Return the values that one key was given, of all categories, in order."""
        return [stat.value for stat in self.stats if stat.key == key]

    @hookimpl
    def on_add_stat(self, category: str, key: str, value: float, aggregation: StatsAggregationMethod) -> None:
        """Note a value."""
        self.stats.append(Stat(category, key, value, aggregation))

    @hookimpl
    def write_stats(self, category: str, values: Mapping[str, StatsSummary], step: int) -> None:
        """Note a summary."""
        self.summaries.append(Summary(category, values, step))

    @hookimpl
    def add_property(self, category: str, property_type: StatsPropertyType, value: Any) -> None:
        """Note a property."""
        self.properties.append((category, property_type, value))

    @hookimpl
    def update_finished(self, trainer: Trainer, step: int, losses: Mapping[str, float]) -> None:  # noqa: ARG002
        """Note an update."""
        self.updates.append((step, dict(losses)))

    @hookimpl
    def checkpoint_saved(self, checkpoint: Checkpoint) -> None:
        """Note a checkpoint."""
        self.checkpoints.append(checkpoint)

    @hookimpl
    def run_finished(self, run: Run, outcome: RunOutcome) -> None:  # noqa: ARG002
        """Note the end."""
        self.outcome = outcome
