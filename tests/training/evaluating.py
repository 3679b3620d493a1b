"""Runs that are evaluated while they train, for tests."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mlagents_envs.base_env import ActionTuple

from mlhooks import hookimpl
from mlhooks.envs.factory import EnvironmentKind
from mlhooks.envs.single_behavior import SingleBehaviorEnv
from mlhooks.training.run import Run
from tests.scripted import Corridor, config

REWARD, LENGTH = "Evaluation/Cumulative Reward", "Evaluation/Episode Length"


EVALUATION = {"interval": 500, "episodes": 7}


def balls(max_steps: int = 3000, evaluation: Mapping[str, Any] | None = EVALUATION, **settings: Any) -> dict[str, Any]:
    hyperparameters = {"batch_size": 60, "buffer_size": 300}
    extra = {} if evaluation is None else {"evaluation": dict(evaluation)}
    return config("3DBall", "sim:3DBall", max_steps=max_steps, hyperparameters=hyperparameters, **extra, **settings)


def corridor(max_steps: int = 600, **evaluation: Any) -> dict[str, Any]:
    return config("Corridor", "test:x", max_steps=max_steps, evaluation={"interval": 200, "episodes": 6, **evaluation})


def lines(folder: Path) -> list[dict[str, Any]]:
    """Return the statistics of a run, without the times."""
    rows = [json.loads(line) for line in (folder / "run" / "stats.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "time"} for row in rows]


def evaluated(folder: Path) -> list[tuple[int, dict[str, Any]]]:
    return [(row["step"], row["values"]) for row in lines(folder) if REWARD in row["values"]]


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


class Notes:
    """Takes note of evaluations, and may do something at one of them."""

    def __init__(self, at: int = -1, act: Callable[[Run], None] = lambda run: None) -> None:
        self.at, self.act = at, act
        self.seen: list[tuple[str, int, tuple[float, ...]]] = []

    @hookimpl
    def evaluation_finished(self, run: Run, behavior_name: str, step: int, returns: tuple[float, ...]) -> None:
        self.seen.append((behavior_name, step, returns))
        if len(self.seen) == self.at:
            self.act(run)


class Spoiled(Corridor):
    """A corridor that may do something else at a step."""

    def __init__(self, spoil: Callable[[int], None] | None = None) -> None:
        super().__init__()
        self.spoil = spoil

    def _advance(self, action: ActionTuple) -> None:
        if self.spoil is not None:
            self.spoil(self.steps)
        super()._advance(action)


class Two:
    """Offers `test:ANY`: the first environment is that of training, and all others do what they are told."""

    def __init__(self, spoil: Callable[[int], None] | None = None, *, quick: bool = False) -> None:
        self.spoil, self.quick, self.made = spoil, quick, 0

    def make(self, name: str | None, **_: Any) -> SingleBehaviorEnv:
        self.made += 1
        return Spoiled(self.spoil if self.made > 1 else None)

    @hookimpl
    def get_env_types(self) -> Mapping[str, Any]:
        return {"test": EnvironmentKind(self.make, lambda *_: None, quick=self.quick)}
