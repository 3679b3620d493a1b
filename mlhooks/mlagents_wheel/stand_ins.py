"""The few modules of `mlagents` that statistics writers import, for where the package is not installed.

They hold what a writer needs: its base, the types of its arguments, and a writer of TensorBoard's files to derive from.
Everything else of `mlagents` is missing still, and what imports it is left out.
"""

from __future__ import annotations

import abc
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from mlhooks.unity import schema

schema.install()  # The next import fails without it.

from mlagents_envs.side_channel.stats_side_channel import StatsAggregationMethod  # noqa: E402


class StatsSummary(NamedTuple):
    """The values that one key got in a summary period; as in `mlagents.trainers.stats`."""

    full_dist: list[float]
    aggregation_method: Any

    @staticmethod
    def empty() -> StatsSummary:
        """Return a summary of no values."""
        return StatsSummary([], StatsAggregationMethod.AVERAGE)

    @property
    def aggregated_value(self) -> float:
        """The one number that stands for the values."""
        return self.sum if self.aggregation_method == StatsAggregationMethod.SUM else self.mean

    @property
    def mean(self) -> float:
        """Mean of the values, NaN when there is none."""
        return float(np.mean(self.full_dist)) if self.full_dist else float("nan")

    @property
    def std(self) -> float:
        """Standard deviation of the values, NaN when there is none."""
        return float(np.std(self.full_dist)) if self.full_dist else float("nan")

    @property
    def num(self) -> int:
        """Number of values."""
        return len(self.full_dist)

    @property
    def sum(self) -> float:
        """Sum of the values."""
        return float(np.sum(self.full_dist))


class StatsPropertyType(Enum):
    """The kind of a behavior's property."""

    HYPERPARAMETERS = "hyperparameters"
    SELF_PLAY = "selfplay"


class StatsWriter(abc.ABC):
    """The base of statistics writers."""

    def on_add_stat(self, category: str, key: str, value: float, aggregation: Any = None) -> None:
        """Take in one value at once."""

    @abc.abstractmethod
    def write_stats(self, category: str, values: dict[str, StatsSummary], step: int) -> None:
        """Write the statistics of a summary period."""

    def add_property(self, category: str, property_type: StatsPropertyType, value: Any) -> None:
        """Take in a property of a behavior."""


class TensorboardWriter(StatsWriter):
    """Writes TensorBoard's event files, by tensorboardX; a base of writers that add to them."""

    def __init__(self, base_dir: str, clear_past_data: bool = False, hidden_keys: list[str] | None = None) -> None:
        self.summary_writers: dict[str, Any] = {}
        self.base_dir, self._clear_past_data = base_dir, clear_past_data
        self.hidden_keys = hidden_keys or []

    def write_stats(self, category: str, values: dict[str, StatsSummary], step: int) -> None:
        """Write each value as a scalar, and the values of a histogram as one."""
        self._maybe_create_summary_writer(category)
        writer = self.summary_writers[category]
        for key, value in values.items():
            if key not in self.hidden_keys:
                writer.add_scalar(key, value.aggregated_value, step)
                if value.aggregation_method == StatsAggregationMethod.HISTOGRAM:
                    writer.add_histogram(f"{key}_hist", np.array(value.full_dist), step)
        writer.flush()

    def _maybe_create_summary_writer(self, category: str) -> None:
        if category in self.summary_writers:
            return
        folder = os.path.join(self.base_dir, category)  # noqa: PTH118 - It is text, as in ML-Agents.
        os.makedirs(folder, exist_ok=True)  # noqa: PTH103
        if self._clear_past_data:
            self._delete_all_events_files(folder)
        self.summary_writers[category] = summary_writer()(folder)

    def _delete_all_events_files(self, directory_name: str) -> None:
        for name in os.listdir(directory_name):  # noqa: PTH208
            if name.startswith("events.out"):
                os.remove(os.path.join(directory_name, name))  # noqa: PTH107, PTH118

    def add_property(self, category: str, property_type: StatsPropertyType, value: Any) -> None:
        """Write the hyperparameters as a text."""
        if property_type.value == StatsPropertyType.HYPERPARAMETERS.value:
            self._maybe_create_summary_writer(category)
            self.summary_writers[category].add_text("Hyperparameters", str(value))


def summary_writer() -> type:
    """Return the class of tensorboardX that stands in for torch's `SummaryWriter`, and writes at once."""
    from tensorboardX import SummaryWriter

    class AtOnce(SummaryWriter):  # type: ignore[misc]
        def __init__(self, log_dir: str | None = None, *args: Any, **kwargs: Any) -> None:
            super().__init__(log_dir, *args, **kwargs)
            self.file_writer.event_writer = _AtOnce(self.file_writer.event_writer)

    return AtOnce


def install_summary_writer() -> None:
    """Stand in for `torch.utils.tensorboard`, which would need the package tensorboard."""
    module = ModuleType("torch.utils.tensorboard")
    module.__dict__["SummaryWriter"] = summary_writer()
    sys.modules["torch.utils.tensorboard"] = module


class _AtOnce:
    """Writes events at once; tensorboardX leaves them to a thread, whose last ones a run would lose at its end."""

    def __init__(self, writer: Any) -> None:
        writer._worker.stop()
        writer._event_queue.close()
        self._folder, self._file = writer.get_logdir(), writer._ev_writer
        self.add_event, self.flush, self.close = self._file.write_event, self._file.flush, self._file.close

    def get_logdir(self) -> str:
        """Return the folder of the file."""
        return str(self._folder)


def _settings() -> Mapping[str, Any]:
    from mlhooks.settings import CheckpointSettings, EngineSettings, EnvironmentSettings, RunOptions, TrainerSettings

    named = (CheckpointSettings, EngineSettings, EnvironmentSettings, RunOptions, TrainerSettings)
    return {kind.__name__: kind for kind in named}


def _stats() -> Mapping[str, Any]:
    named = (StatsAggregationMethod, StatsPropertyType, StatsSummary, StatsWriter, TensorboardWriter)
    return {kind.__name__: kind for kind in named}


def _no_writers(run_options: Any) -> list[Any]:  # noqa: ARG001
    return []  # mlhooks' own writers do what ML-Agents' do.


MODULES: Mapping[str, Callable[[], Mapping[str, Any]]] = {
    "mlagents": dict,
    "mlagents.plugins": lambda: {"ML_AGENTS_STATS_WRITER": "mlagents.stats_writer"},
    "mlagents.plugins.stats_writer": lambda: {"get_default_stats_writers": _no_writers},
    "mlagents.trainers": dict,
    "mlagents.trainers.settings": _settings,
    "mlagents.trainers.stats": _stats,
}
"""The modules that stand in, and what each holds."""


def install() -> None:
    """Let the modules stand in from now on, behind a package that is installed; may be called more than once."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())


class _Finder(MetaPathFinder, Loader):
    """Finds the modules that stand in, after every other finder has found nothing."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        if fullname not in MODULES:
            return None
        return ModuleSpec(fullname, self, origin=__name__, is_package=f"{fullname}." in " ".join(MODULES) + ".")

    def exec_module(self, module: ModuleType) -> None:
        module.__dict__.update(MODULES[module.__name__]())
