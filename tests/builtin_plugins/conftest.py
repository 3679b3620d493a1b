"""A run without training: the objects that writers get, and the hook calls that a run makes."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from mlhooks.plugins import PluginManager
from mlhooks.stats import StatsReporter
from mlhooks.training.evaluation import Evaluation


class FakeRun(SimpleNamespace):
    """Calls the hooks of a run in their order; `plugins` is strict, so a failing writer fails the test."""

    def add_behavior(self, name: str, step: int = 0, max_steps: int = 50_000) -> Any:
        trainer = SimpleNamespace(
            behavior_name=name,
            step=step,
            settings=SimpleNamespace(trainer_type="ppo", max_steps=max_steps),
            stats=StatsReporter(name, self.plugins),
            mean_reward=None,
            self_play=None,
            episodes=0,
        )
        self.trainers[name] = trainer
        spec = SimpleNamespace(
            observation_specs=[SimpleNamespace(shape=(8,)), SimpleNamespace(shape=(3, 84, 84))],
            action_spec=SimpleNamespace(continuous_size=2, discrete_branches=(3, 2)),
        )
        self.plugins.hook.behavior_added(run=self, behavior_name=name, behavior_spec=spec, trainer=trainer)
        return trainer

    def finish(self, status: str = "finished", files: dict[str, Any] | None = None, error: Any = None) -> Any:
        self.finished = True
        outcome = SimpleNamespace(status=status, error=error, elapsed=83.0, files=dict(files or {}))
        self.plugins.hook.run_finished(run=self, outcome=outcome)
        return outcome


@pytest.fixture
def start_run(tmp_path):
    runs = []

    def start(*modules: ModuleType, resumed: bool = False, inference: bool = False, run_id: str = "first") -> FakeRun:
        plugins = PluginManager(strict=True)
        for module in modules:
            plugins.register(module)
        plugins.configure(SimpleNamespace())
        path = tmp_path / "results" / run_id
        path.mkdir(parents=True, exist_ok=True)
        run = FakeRun(
            options=None,
            run_id=run_id,
            path=path,
            started_in=Path.cwd(),
            trainers={},
            plugins=plugins,
            resumed=resumed,
            inference=inference,
            evaluation=Evaluation(None) if inference else None,
            evaluations=SimpleNamespace(best={}),
            env_name="sim:3DBall",
            configuration="those of the example 3dball_ppo",
            finished=False,
        )
        runs.append(run)
        plugins.hook.run_started(run=run)
        return run

    yield start
    for run in runs:
        if not run.finished:
            run.finish()
