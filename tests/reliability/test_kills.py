"""Runs that are killed at any moment leave something to go on from, and end where they would have ended."""

from __future__ import annotations

import json
import random
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

import mlhooks
from mlhooks.training.checkpoints import CheckpointFolder, read_state
from tests.reliability.children import run_and_die
from tests.scripted import config, train

PPO = config("3DBall", "sim:3DBall", max_steps=1200, hyperparameters={"batch_size": 60, "buffer_size": 300})
DQN = config(
    "Basic",
    "sim:Basic",
    max_steps=900,
    trainer_type="dqn",
    checkpoint_interval=150,
    hyperparameters={
        "batch_size": 16,
        "buffer_size": 400,
        "steps_per_update": 4,
        "save_replay_buffer": True,
        "n_step": 3,
    },
)


def workers(settings: Mapping[str, Any], count: int) -> dict[str, Any]:
    return {**settings, "env_settings": {**settings["env_settings"], "num_envs": count}}


SCENARIOS = {  # Each has its share of 200 kills.
    "PPO": (PPO, 70),
    "DQN": (DQN, 70),
    "PPO with two workers": (workers(PPO, 2), 20),
    "DQN with two workers": (workers(DQN, 2), 20),
    "PPO over the protocol": (PPO, 20),
}
EXACT = ("PPO", "DQN")
KILLED = 15 if sys.platform == "win32" else -9


def over_the_protocol(settings: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    from mlhooks.sim_player.command import write_executable
    from tests.unity.client import free_port

    game = str(write_executable(folder / "Game", ["3DBall"]))
    return {**settings, "env_settings": {**settings["env_settings"], "env_path": game, "base_port": free_port()}}


def weights_of(folder: Path, behavior: str) -> dict[str, Any]:
    modules = read_state(folder / "run" / f"{behavior}.policy.pt")["modules"]
    return {f"{name}.{key}": t.numpy().tobytes() for name, state in modules.items() for key, t in state.items()}


def has_checkpoint(run: Path) -> bool:
    """Return whether the manifest names a checkpoint; the newest one must verify, and none before be damaged."""
    folder = CheckpointFolder(run)
    if not folder.manifest["mlhooks"]:
        return False
    newest = folder.manifest["mlhooks"][-1]
    assert folder.newest()["run"] == run / newest["run"]["path"], "the newest checkpoint is damaged"
    return True


def again(run: Path) -> dict[str, bool]:
    """Return how to go on after a kill."""
    return {"resume": True} if has_checkpoint(run) else {"force": True}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_killed_run_goes_on_and_ends(
    tmp_path: Path, scenario: str, cases: Callable[[int], list[int]], request: pytest.FixtureRequest
) -> None:
    settings, count = SCENARIOS[scenario]
    if scenario == "PPO over the protocol":
        if sys.platform == "win32":
            pytest.skip("the player stand-in is a shell script")
        settings = over_the_protocol(settings, tmp_path)
    (behavior,) = settings["behaviors"]
    whole = tmp_path / "whole"
    assert run_and_die(settings, whole) == 0
    changes = json.loads((whole / "changes.json").read_text())
    expected = weights_of(whole, behavior)
    numbers, kills = iter(range(10**9)), 0
    wanted = len(cases(count))
    first = request.config.getoption("reliability_seed")
    while kills < wanted:
        case = first + next(numbers)
        rng = random.Random(f"{scenario} {case}")
        folder = tmp_path / "killed"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        told = f"{scenario}: --reliability-seed {case}"
        how: dict[str, bool] = {}
        for _ in range(rng.choice([1, 1, 2, 3])):  # The first kill is of the run, the next ones are of resumed ones.
            code = run_and_die(settings, folder, **when(rng, changes), **how)
            assert code in (0, KILLED), told
            kills += code == KILLED
            how = again(folder / "run")
        run = train(settings, folder, **how)
        assert run.outcome.status == "finished", told
        assert run.trainers[behavior].step >= settings["behaviors"][behavior]["max_steps"], told
        assert has_checkpoint(run.path), told
        assert mlhooks.load(run.path).behavior_name == behavior, told
        assert not [path for path in run.path.rglob("*") if path.name.endswith(".part")], told
        if scenario in EXACT:
            assert weights_of(folder, behavior) == expected, told
    print(f"{scenario}: {kills} kills")  # noqa: T201


def when(rng: random.Random, changes: int) -> dict[str, Any]:
    """Right before some change of the folder, as saving and exporting make them, or at any moment."""
    if rng.random() < 0.7:
        return {"change": rng.randint(1, changes)}
    return {"seconds": rng.uniform(0.0, 0.6)}
