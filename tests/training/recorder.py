"""A plugin that notes what a run calls."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from mlhooks import hookimpl
from mlhooks.training.run import Run


class Recorder:
    """Notes which hooks were called, in order."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.outcome: Any = None
        self.failures: list[tuple[int, str, bool]] = []

    @hookimpl
    def configure(self) -> None:
        self.calls.append("configure")

    @hookimpl
    def run_started(self, run: Run) -> None:
        assert (run.path / "configuration.yaml").exists()
        self.calls.append("run_started")

    @hookimpl
    def behavior_added(self, behavior_name: str, trainer: Any) -> None:
        assert trainer.optimizer is not None
        self.calls.append(f"behavior_added {behavior_name}")

    @hookimpl
    def add_property(self, value: Mapping[str, Any]) -> None:
        assert value["buffer_size"] == 100
        self.calls.append("add_property")

    @hookimpl
    def update_finished(self, step: int, losses: Mapping[str, float]) -> None:
        assert all(math.isfinite(loss) for loss in losses.values())
        self.calls.append(f"update_finished {step}")

    @hookimpl
    def write_stats(self, values: Mapping[str, Any], step: int) -> None:
        assert values["Policy/Learning Rate"].mean > 0
        assert values["Environment/Cumulative Reward"].num > 0
        self.calls.append(f"write_stats {step}")

    @hookimpl
    def checkpoint_saved(self, checkpoint: Any) -> None:
        assert checkpoint.path.exists()
        self.calls.append(f"checkpoint_saved {checkpoint.step}")

    @hookimpl
    def env_failed(self, worker: Any, error: BaseException, will_restart: bool) -> None:
        self.failures.append((worker.index, str(error), will_restart))

    @hookimpl
    def run_finished(self, outcome: Any) -> None:
        self.outcome = outcome
        self.calls.append(f"run_finished {outcome.status}")
