"""Statistics of a behavior: collected as they are emitted, handed to the writers once a summary period."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping
from enum import Enum
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from mlhooks.plugins import PluginManager


class StatsAggregationMethod(Enum):
    """The way in which a key's values in a summary period become one number; the members equal ML-Agents'."""

    AVERAGE = 0
    HISTOGRAM = 1
    MOST_RECENT = 2
    SUM = 3


class StatsPropertyType(Enum):
    """The kind of a behavior's property; the members equal ML-Agents'."""

    HYPERPARAMETERS = "hyperparameters"
    SELF_PLAY = "selfplay"


class StatsSummary:
    """The values that one key got in a summary period, and what they come to; it cannot be changed.

    Args:
        full_dist: The values, in the order in which they were emitted.
        aggregation_method: What `aggregated_value` means.

    Attributes:
        values: The same values as an array of float64: [values].
    """

    values: NDArray[np.float64]
    aggregation_method: StatsAggregationMethod

    def __init__(
        self,
        full_dist: Iterable[float] = (),
        aggregation_method: StatsAggregationMethod = StatsAggregationMethod.AVERAGE,
    ) -> None:
        if not isinstance(full_dist, (np.ndarray, array)):
            full_dist = list(full_dist)
        values = np.array(full_dist, dtype=np.float64).reshape(-1)
        values.setflags(write=False)
        vars(self).update(values=values, aggregation_method=aggregation_method)

    def __setattr__(self, name: str, value: object) -> None:
        """Refuse: all writers get the same summary."""
        raise AttributeError(f"A StatsSummary cannot be changed, so there is no setting its {name}.")

    def __repr__(self) -> str:
        return f"StatsSummary({self.aggregation_method.name}, num={self.num}, mean={self.mean:g}, std={self.std:g})"

    @property
    def full_dist(self) -> list[float]:
        """The values as a new list."""
        values: list[float] = self.values.tolist()
        return values

    @property
    def aggregated_value(self) -> float:
        """The one number that stands for the values: their sum, the last of them, or their mean."""
        if self.aggregation_method is StatsAggregationMethod.SUM:
            return self.sum
        if self.aggregation_method is StatsAggregationMethod.MOST_RECENT and self.num:
            return float(self.values[-1])
        return self.mean

    @cached_property
    def mean(self) -> float:
        """Mean of the values, NaN when there is none."""
        return self.sum / self.num if self.num else float("nan")

    @cached_property
    def std(self) -> float:
        """Standard deviation of the values as a population, NaN when there is none."""
        with np.errstate(all="ignore"):
            return float(self.values.std()) if self.num else float("nan")

    @property
    def num(self) -> int:
        """Number of values."""
        return self.values.size

    @cached_property
    def sum(self) -> float:
        """Sum of the values."""
        with np.errstate(all="ignore"):
            return float(self.values.sum())


class StatsReporter:
    """Collects the statistics of one category and reports them to the plugins.

    A value that is emitted goes to `on_add_stat` at once where a plugin implements it, and into the summary of its key.

    Args:
        category: The behavior name.
        plugins: Who is told; None collects only.
    """

    def __init__(self, category: str, plugins: PluginManager | None = None) -> None:
        self.category = category
        self._plugins = plugins
        self._values: dict[str, array[float]] = {}
        self._methods: dict[str, StatsAggregationMethod] = {}

    def add_stat(
        self, key: str, value: float, aggregation: StatsAggregationMethod = StatsAggregationMethod.AVERAGE
    ) -> None:
        """Emit one value; under `MOST_RECENT` it takes the place of the earlier ones.

        Raises:
            TypeError: the key is no text, or the aggregation no `StatsAggregationMethod`.
        """
        values = self._values.get(key)
        if values is None and not (isinstance(key, str) and isinstance(aggregation, StatsAggregationMethod)):
            raise TypeError(
                f"a statistic has a text as its key and a StatsAggregationMethod; these are {key!r} and {aggregation!r}"
            )
        if values is None or aggregation is StatsAggregationMethod.MOST_RECENT:
            self._values[key] = array("d", (value,))
        else:
            values.append(value)
        self._methods[key] = aggregation
        plugins = self._plugins
        if plugins is not None and plugins.implemented("on_add_stat"):
            plugins.hook.on_add_stat(category=self.category, key=key, value=float(value), aggregation=aggregation)

    def add_stats(
        self,
        key: str,
        values: NDArray[Any],
        aggregation: StatsAggregationMethod = StatsAggregationMethod.AVERAGE,
    ) -> None:
        """Emit an array of values of any shape, as one call of `add_stat` for each would."""
        emitted = array("d", np.asarray(values, np.float64).tobytes())
        if not emitted:
            return
        if aggregation is StatsAggregationMethod.MOST_RECENT:
            self._values[key] = emitted[-1:]
        else:
            self._values.setdefault(key, array("d")).extend(emitted)
        self._methods[key] = aggregation
        if self._plugins is not None and self._plugins.implemented("on_add_stat"):
            for value in emitted:
                self._plugins.hook.on_add_stat(category=self.category, key=key, value=value, aggregation=aggregation)

    def set_stat(self, key: str, value: float) -> None:
        """Emit a value that takes the place of the earlier ones of this summary period."""
        self.add_stat(key, value, StatsAggregationMethod.MOST_RECENT)

    def add_property(self, property_type: StatsPropertyType, value: Any) -> None:
        """Tell the plugins a property of this behavior."""
        if self._plugins is not None:
            self._plugins.hook.add_property(category=self.category, property_type=property_type, value=value)

    def get_stats_summaries(self, key: str) -> StatsSummary:
        """Return the summary of the values that `key` got since the last `write_stats`; an empty one if none."""
        method = self._methods.get(key, StatsAggregationMethod.AVERAGE)
        return StatsSummary(self._values.get(key, ()), method)

    def write_stats(self, step: int, extra: Mapping[str, float] | None = None) -> None:
        """Hand the summaries of all keys to the writers and start the next summary period.

        Args:
            step: Agent steps of the behavior so far.
            extra: More values for this summary, each as if it had been emitted by `set_stat` last.
        """
        summaries = {key: self.get_stats_summaries(key) for key in self._values}
        for key, value in (extra or {}).items():
            summaries[key] = StatsSummary((float(value),), StatsAggregationMethod.MOST_RECENT)
        self._values, self._methods = {}, {}
        if self._plugins is not None:
            self._plugins.hook.write_stats(category=self.category, values=summaries, step=step)

    def state_dict(self) -> dict[str, Any]:
        """Return what has been emitted and not written: lists and dicts of floats and strings."""
        return {
            key: {"aggregation": self._methods[key].name, "values": values.tolist()}
            for key, values in self._values.items()
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned; no hook is called for it again."""
        self._values = {key: array("d", stat["values"]) for key, stat in state.items()}
        self._methods = {key: StatsAggregationMethod[stat["aggregation"]] for key, stat in state.items()}
