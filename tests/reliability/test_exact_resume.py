"""Resume is exact, bit for bit, wherever the docs say so: one worker, a simulation, and DQN with its replay buffer."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlhooks import hookimpl
from mlhooks.training.run import Run
from tests.reliability.test_kills import DQN, weights_of
from tests.scripted import config, train

ROLLOUTS = {"batch_size": 60, "buffer_size": 300}
MEMORY = {"hidden_units": 8, "num_layers": 1, "memory": {"memory_size": 8, "sequence_length": 16}}
LESSONS = {
    "mass": {
        "curriculum": [
            {
                "name": str(value),
                "value": value,
                "completion_criteria": {"behavior": "3DBall", "min_lesson_length": 2, "measure": "progress"}
                | {"threshold": 0.2 * value, "require_reset": value == 2},
            }
            for value in (1, 2)
        ]
        + [
            {
                "name": "last",
                "value": {"sampler_type": "uniform", "sampler_parameters": {"min_value": 1, "max_value": 9}},
            }
        ]
    }
}


def of(trainer: str, env: str, **settings: Any) -> dict[str, Any]:
    if trainer == "dqn":
        settings["hyperparameters"] = DQN["behaviors"]["Basic"]["hyperparameters"]
    return config(env, f"sim:{env}", max_steps=1200, trainer_type=trainer, **{"hyperparameters": ROLLOUTS, **settings})


COMBINATIONS = {
    "PPO, continuous": of("ppo", "3DBall"),
    "PPO, discrete": of("ppo", "Basic"),
    "PPO, masks": of("ppo", "GridWorld"),
    "PPO, entities": of("ppo", "Sorter"),
    "PPO, three areas": {**of("ppo", "3DBall"), "env_settings": {"env_path": "sim:3DBall", "seed": 5, "num_areas": 3}},
    "PPO, lessons": {**of("ppo", "3DBall"), "environment_parameters": LESSONS},
    "PPO, rollouts cut at the horizon": of("ppo", "3DBall", time_horizon=7),
    "A2C, continuous": of("a2c", "3DBall"),
    "A2C, discrete": of("a2c", "Basic"),
    "PPO, memory": of("ppo", "3DBall", time_horizon=7, network_settings=MEMORY),
    "A2C, memory, one encoder": of(
        "a2c", "Basic", hyperparameters={**ROLLOUTS, "shared_critic": True}, network_settings=MEMORY
    ),
    "POCA": of("poca", "Sacrifice", time_horizon=7),
    "POCA, memory": of("poca", "Sacrifice", time_horizon=7, network_settings=MEMORY),
    "PPO, evaluated": of("ppo", "3DBall", evaluation={"interval": 170, "episodes": 5, "patience": 50}),
    "DQN": of("dqn", "Basic"),
    "DQN, masks": of("dqn", "GridWorld"),
}


class Interrupt:
    """At some statistic that is emitted: stop the run as Ctrl-C does, or copy its folder as a kill would leave it."""

    def __init__(self, at: int, copy_to: Path | None = None) -> None:
        self.at, self.copy_to, self.count = at, copy_to, 0

    @hookimpl
    def run_started(self, run: Run) -> None:
        self.run = run

    @hookimpl
    def on_add_stat(self) -> None:
        self.count += 1
        if self.count == self.at and self.copy_to is None:
            self.run.stop.requested = True

    @hookimpl
    def checkpoint_saved(self) -> None:
        if self.copy_to is not None and self.count >= self.at and not self.copy_to.exists():
            shutil.copytree(self.run.path, self.copy_to / "run")


def evaluations_of(folder: Path) -> list[Any]:
    """Return the statistics of evaluations, and the best policies."""
    rows = [json.loads(line) for line in (folder / "run" / "stats.jsonl").read_text().splitlines()]
    found = [[row["step"], row["values"]] for row in rows if "Evaluation/Cumulative Reward" in row["values"]]
    return [*found, *(path.read_bytes() for path in (folder / "run").glob("*.best.policy.pt"))]


@pytest.mark.parametrize("combination", COMBINATIONS)
def test_resumed_run_equals_one_that_was_never_stopped(
    tmp_path: Path, combination: str, cases: Callable[[int], list[int]], caplog: pytest.LogCaptureFixture
) -> None:
    settings = json.loads(json.dumps(COMBINATIONS[combination]))
    (behavior,) = settings["behaviors"]
    whole = Interrupt(10**9)
    train(settings, tmp_path / "whole", whole)
    expected = weights_of(tmp_path / "whole", behavior)
    for case in cases(20):
        rng = random.Random(f"{combination} {case}")
        folder, killed = tmp_path / str(case), rng.random() < 0.5
        at = rng.randint(1, max(1, whole.count * 4 // 5))
        train(settings, tmp_path / f"first-{case}" if killed else folder, Interrupt(at, folder if killed else None))
        caplog.clear()
        resumed = train(settings, folder, resume=True)
        told = f"{combination}: {'killed' if killed else 'stopped'} at {at}: --reliability-seed {case}"
        assert resumed.outcome.status == "finished", told
        assert "differ" not in caplog.text, told
        assert weights_of(folder, behavior) == expected, told
        assert evaluations_of(folder) == evaluations_of(tmp_path / "whole"), told
