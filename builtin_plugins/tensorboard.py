"""Writes TensorBoard event files, with the keys and in the folders of ML-Agents."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlhooks.plugin import file_name, hookimpl

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.proto.summary_pb2 import HistogramProto

    from mlhooks.plugin import PluginManager, Run, RunOutcome, StatsPropertyType, StatsSummary, Trainer

HISTOGRAM_BINS = 30
FLOAT32_MAX = 3.4028234e38
MOST_KEPT = 2000
"""The most events of a behavior that are kept, to be written again where another plugin removes their file."""
FILES = "events.out.tfevents.*"

logger = logging.getLogger("mlhooks")
_file_numbers = count()


@hookimpl
def configure(pluginmanager: PluginManager) -> None:
    """Register the writer of this run."""
    pluginmanager.register(TensorBoardWriter())


class TensorBoardWriter:
    """Writes an event file in `results/<run_id>/<Behavior>/`; a resumed run adds another one.

    It does so with its first summary, so that a run that has nothing left to train adds none.
    It uses the synchronous event writer of tensorboardX: the package's `SummaryWriter` turns the spaces of
    `Environment/Cumulative Reward` into underscores, flushes before its queue is empty and leaves a thread behind.
    tensorboardX is imported with the first event, because that takes longer than the rest of a start.

    Writers of ML-Agents' kind remove the event files that they find in a behavior's folder when a run begins. Files
    of this run that they remove are written again, under another name; a warning names those of earlier runs.
    """

    def __init__(self) -> None:
        self._run: Run | None = None
        self._files: dict[str, tuple[Path, EventsWriter]] = {}
        self._waiting: dict[str, list[Event]] = {}  # They wait for the first summary of the category in a resumed run.
        self._kept: dict[str, list[Event]] = {}
        self._earlier: set[Path] = set()  # It holds the files of earlier runs in this folder.

    @hookimpl
    def run_started(self, run: Run) -> None:
        """Note where to write; an inference run writes nothing."""
        self._run = None if run.inference else run
        self._earlier = set() if run.inference else set(run.path.glob(f"*/{FILES}"))

    @hookimpl
    def behavior_added(self, run: Run, behavior_name: str, trainer: Trainer) -> None:
        """Let TensorBoard hide what was written after the checkpoint from which a resumed run goes on."""
        if run.resumed and not run.inference:
            from tensorboardX.proto.event_pb2 import SessionLog

            self._waiting[behavior_name] = []
            self._add_event(behavior_name, trainer.step + 1, session_log=SessionLog(status=SessionLog.START))

    @hookimpl
    def write_stats(self, category: str, values: Mapping[str, StatsSummary], step: int) -> None:
        """Write each key's aggregated value as a scalar; a histogram's values also as `<key>_hist`."""
        if self._run is None:
            return
        from tensorboardX.proto.summary_pb2 import Summary

        items = []
        for key, summary in values.items():
            items.append(Summary.Value(tag=key, simple_value=summary.aggregated_value))
            histogram = _histogram(summary.values) if summary.aggregation_method.name == "HISTOGRAM" else None
            if histogram is not None:
                items.append(Summary.Value(tag=f"{key}_hist", histo=histogram))
        if items:
            for event in self._waiting.pop(category, ()):
                self._write(category, event)
            self._add_event(category, step, summary=Summary(value=items))

    @hookimpl
    def add_property(self, category: str, property_type: StatsPropertyType, value: Any) -> None:
        """Write the hyperparameters as a text."""
        if self._run is None or property_type.name != "HYPERPARAMETERS":
            return
        from tensorboardX.summary import text

        plain = value.model_dump(mode="json") if hasattr(value, "model_dump") else value
        lines = json.dumps(plain, indent=2, default=str, ensure_ascii=False).splitlines()
        # Markdown shows lines that are indented by four as they stand.
        markdown = "\n".join(f"    {line}" for line in lines)
        self._add_event(category, 0, summary=text("Hyperparameters", markdown))

    @hookimpl
    def run_finished(self, outcome: RunOutcome) -> None:
        """Close the files and name them in the outcome."""
        for path, writer in self._files.values():
            writer.close()
            outcome.files.setdefault("events", []).append(path)
        self._files.clear()

    def _add_event(self, category: str, step: int, **content: Any) -> None:
        from tensorboardX.proto.event_pb2 import Event

        event = Event(wall_time=time.time(), step=step, **content)
        if category in self._waiting:
            self._waiting[category].append(event)
        else:
            self._write(category, event)

    def _write(self, category: str, event: Event) -> None:
        kept = self._kept.setdefault(category, [])
        events = [event]
        if category in self._files and not self._files[category][0].exists():
            events = [*kept, event]
            self._tell_removed(category, len(kept))
        writer = self._writer(category)
        for each in events:
            writer.write_event(each)
        writer.flush()
        kept += [event][: MOST_KEPT - len(kept)]

    def _tell_removed(self, category: str, kept: int) -> None:
        path, writer = self._files.pop(category)
        writer.close()
        again = f"its first {kept:,} events are" if kept == MOST_KEPT else "what was in it is"
        logger.warning(
            "Something removed the event file %s while the run was writing it, as statistics writers of other packages "
            "do that clear a behavior's folder: %s written again, into another file.",
            path,
            again,
        )
        if gone := sorted(
            path.name for path in self._earlier if path.parent.name == file_name(category) and not path.exists()
        ):
            logger.warning(
                "It removed the event files of earlier runs, too, whose statistics are in stats.jsonl: %s.",
                ", ".join(gone),
            )

    def _writer(self, category: str) -> EventsWriter:
        if category not in self._files:
            from tensorboardX.event_file_writer import EventsWriter

            assert self._run is not None
            folder = self._run.path / file_name(category)
            folder.mkdir(parents=True, exist_ok=True)
            if not self._run.resumed:
                for old in [path for path in self._earlier if path.parent == folder]:
                    old.unlink(missing_ok=True)
            # Two files of one second would have the same name, and the second one would empty the first. The last part
            # tells them from those of torch and TensorFlow, which are numbered alike.
            writer = EventsWriter(str(folder / "events"), f".{os.getpid()}.{next(_file_numbers)}.mlhooks")
            self._files[category] = Path(writer._file_name), writer
        return self._files[category][1]


def _histogram(values: NDArray[np.float64]) -> HistogramProto | None:
    """Return equal bins over the range of the finite values, None when there is none."""
    import numpy as np
    from tensorboardX.proto.summary_pb2 import HistogramProto

    values = values[np.abs(values) < FLOAT32_MAX]
    if not values.size:
        return None
    counts, edges = np.histogram(values, HISTOGRAM_BINS)
    return HistogramProto(
        min=values.min(),
        max=values.max(),
        num=values.size,
        sum=values.sum(),
        sum_squares=values @ values,
        bucket_limit=edges[1:],
        bucket=counts,
    )
