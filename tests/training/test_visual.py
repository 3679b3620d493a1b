"""Runs that see images: they learn from them, go on exactly, and their policies load."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mlagents_envs.base_env import ActionTuple

import mlhooks
from mlhooks import hookimpl
from mlhooks.errors import UsageError
from mlhooks.testing.scripted import BEHAVIOR, TERMINAL, Outcome, ScriptedEnv
from mlhooks.testing.specs import make_behavior_spec
from mlhooks.training import batch as batch_module
from mlhooks.training.batch import Batch
from tests.scripted import train

SIZE = 20
ON_POLICY = {"batch_size": 64, "learning_rate": 0.002, "learning_rate_schedule": "constant"}
HYPERPARAMETERS: dict[str, dict[str, Any]] = {
    "ppo": {**ON_POLICY, "buffer_size": 256, "learning_rate": 0.001},
    "a2c": {**ON_POLICY, "buffer_size": 64},
    "dqn": {
        "batch_size": 32,
        "buffer_size": 1000,
        "buffer_init_steps": 100,
        "steps_per_update": 4,
        "tau": 0.02,
        "learning_rate": 0.002,
        "exploration_initial_eps": 0.5,
        "exploration_steps": 1000,
    },
}


def draw(third: int) -> np.ndarray:
    """A [1, SIZE, SIZE] image with a bright bar in one of its thirds."""
    image = np.zeros((1, SIZE, SIZE))
    image[:, 6 * third + 2 : 6 * third + 6, 5:15] = 0.5
    return image


class Picture(ScriptedEnv):
    """One decision: the action of the third that has the bar, amid noise, is right. A vector tells nothing."""

    spec = make_behavior_spec((2, (1, SIZE, SIZE)), branches=(3,))
    BARS = np.stack([draw(third) for third in range(3)])

    def begin(self, rows: np.ndarray) -> None:
        noise = self.rng.uniform(0.0, 0.5, (len(rows), 1, SIZE, SIZE))
        third = self.rng.integers(0, 3, len(rows))
        self.state.setdefault("third", np.zeros(self.agents, np.int64))[rows] = third
        self.state.setdefault("seen", np.zeros((self.agents, 1, SIZE, SIZE)))[rows] = noise + self.BARS[third]

    def observe(self, rows: np.ndarray) -> list[np.ndarray]:
        return [np.ones((len(rows), 2)), self.state["seen"][rows]]

    def play(self, rows: np.ndarray, action: ActionTuple) -> Outcome:
        right = action.discrete[:, 0] == self.state["third"][rows]
        return Outcome(right.astype(np.float32), np.full(len(rows), TERMINAL))


class Pictures:
    """Offers `pictures:ANY`."""

    @hookimpl
    def get_env_types(self) -> dict[str, Any]:
        return {"pictures": lambda name, *, seed, **_: Picture(seed=seed)}


def settings(trainer_type: str, max_steps: int, **network: Any) -> dict[str, Any]:
    behavior = {
        "trainer_type": trainer_type,
        "hyperparameters": HYPERPARAMETERS[trainer_type],
        "network_settings": {"hidden_units": 32, "num_layers": 1, "initialization": "orthogonal", **network},
        "max_steps": max_steps,
        "summary_freq": 1000,
        "checkpoint_interval": 10_000,
    }
    return {"behaviors": {BEHAVIOR: behavior}, "env_settings": {"env_path": "pictures:x", "seed": 2}}


@pytest.mark.parametrize(("trainer_type", "steps"), [("ppo", 2560), ("a2c", 2560), ("dqn", 1500)])
def test_what_only_the_image_tells_is_learned_and_loads_again(tmp_path: Path, trainer_type: str, steps: int) -> None:
    run = train(settings(trainer_type, steps, normalize=True), tmp_path, Pictures())
    assert run.trainers[BEHAVIOR].mean_reward > 0.8  # blindly, it is a third
    policy = mlhooks.load(run.path)
    images = Picture.BARS + 0.25
    assert policy.predict([np.ones((3, 2)), images])[:, 0].tolist() == [0, 1, 2]
    pixels = np.round(images * 255).astype(np.uint8)
    assert policy.predict([np.ones((3, 2)), pixels])[:, 0].tolist() == [0, 1, 2]
    assert policy.predict([np.ones((3, 2)), np.moveaxis(pixels, 1, -1)])[:, 0].tolist() == [0, 1, 2]
    assert [policy.predict([np.ones(2), image]) for image in pixels] == [0, 1, 2]
    with pytest.raises(UsageError, match=r"shapes \[\(2,\), \(1, 20, 20\)\].*got \[\(2,\), \(3, 20, 20\)\]"):
        policy.predict([np.ones(2), np.zeros((3, 20, 20), np.uint8)])


@pytest.mark.parametrize(("normalize", "encoded"), [(False, 256), (True, 0)])
def test_values_of_a_shared_critic_are_those_of_what_is_learned_from(
    tmp_path: Path, normalize: bool, encoded: int
) -> None:
    seen = []

    class Compare:
        @hookimpl
        def behavior_added(self, trainer: Any) -> None:
            rollout = trainer.rollout

            def compared() -> Batch:
                batch: Batch = rollout()
                torch.testing.assert_close(batch.values, trainer.optimizer.values(batch.features))
                seen.append(trainer.store.waiting - trainer.store.encoded_from)
                return batch

            trainer.rollout = compared

    config = settings("ppo", 512, normalize=normalize)
    config["behaviors"][BEHAVIOR]["hyperparameters"] = {**HYPERPARAMETERS["ppo"], "shared_critic": True}
    train(config, tmp_path, Pictures(), Compare())
    assert seen == [encoded] * 2  # acting encoded them; where a normalizer has changed since, that is of no use


@pytest.mark.parametrize("trainer_type", ["ppo", "dqn"])
def test_run_with_images_goes_on_exactly(tmp_path: Path, trainer_type: str) -> None:
    def digest(folder: Path) -> str:
        return hashlib.sha256((folder / "run" / BEHAVIOR / f"{BEHAVIOR}-512.pt").read_bytes()).hexdigest()

    class StopAfterUpdate:
        @hookimpl
        def run_started(self, run: Any) -> None:
            self.run = run

        @hookimpl
        def update_finished(self, step: int) -> None:
            self.run.stop.requested = step > 200

    changes = ["behaviors.*.hyperparameters.save_replay_buffer=true"] if trainer_type == "dqn" else []
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    train(settings(trainer_type, 512), whole, Pictures(), overrides=changes)
    run = train(settings(trainer_type, 512), stopped, Pictures(), StopAfterUpdate(), overrides=changes)
    assert 200 < run.trainers[BEHAVIOR].step < 512
    train(settings(trainer_type, 512), stopped, Pictures(), resume=True, overrides=changes)
    assert digest(stopped) == digest(whole)


def test_large_features_give_the_same_minibatches_without_a_second_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = Batch(features=torch.rand(100, 6), continuous=torch.rand(100, 1), discrete=torch.zeros(100, 0))
    small = list(batch.minibatches(30, np.random.default_rng(4)))
    monkeypatch.setattr(batch_module, "LARGE", 100)
    large = list(batch.minibatches(30, np.random.default_rng(4)))
    assert [len(part) for part in large] == [33, 33, 34]
    for ours, theirs in zip(large, small, strict=True):
        assert ours.features.equal(theirs.features)
        assert ours.continuous.equal(theirs.continuous)
    storages = {part.features.untyped_storage().data_ptr() for part in large}
    assert len(storages) == 3  # each a tensor of its own
