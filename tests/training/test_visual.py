"""Runs that see images: they learn from them, go on exactly, and their policies load."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mlagents_envs.base_env import ActionTuple, BehaviorSpec

import mlhooks
from builtin_plugins.ppo import PPOOptimizer
from mlhooks import hookimpl
from mlhooks.errors import UsageError
from mlhooks.nn.features import FeatureLayout
from mlhooks.nn.networks import Actor
from mlhooks.settings import RewardSignalSettings
from mlhooks.testing.scripted import BEHAVIOR, TERMINAL, Outcome, ScriptedEnv
from mlhooks.testing.specs import make_behavior_spec
from mlhooks.testing.trainer_loop import weights
from mlhooks.training import batch as batch_module
from mlhooks.training.batch import Batch
from mlhooks.training.policy import ActorPolicy
from mlhooks.training.reward_signals import RewardSignal
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
    """Return a [1, SIZE, SIZE] image with a bright bar in one of its thirds."""
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


class Photo(Picture):
    """The picture alone, as bytes."""

    spec = make_behavior_spec(((1, SIZE, SIZE),), branches=(3,))

    def observe(self, rows: np.ndarray) -> list[np.ndarray]:
        return [np.round(255 * self.state["seen"][rows]).astype(np.uint8)]


class FloatPhoto(Photo):
    """The numbers that the bytes stand for."""

    def observe(self, rows: np.ndarray) -> list[np.ndarray]:
        return [part / 255 for part in super().observe(rows)]


class Pictures:
    """Offers `pictures:ANY`."""

    def __init__(self, kind: type[ScriptedEnv] = Picture) -> None:
        self.kind = kind

    @hookimpl
    def get_env_types(self) -> dict[str, Any]:
        return {"pictures": lambda name, *, seed, **_: self.kind(seed=seed)}


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
    assert run.trainers[BEHAVIOR].mean_reward > 0.8  # A blind policy reaches a third.
    policy = mlhooks.load(run.path)
    images = Picture.BARS + 0.25
    assert policy.predict([np.ones((3, 2)), images])[:, 0].tolist() == [0, 1, 2]
    pixels = np.round(images * 255).astype(np.uint8)
    assert policy.predict([np.ones((3, 2)), pixels])[:, 0].tolist() == [0, 1, 2]
    assert policy.predict([np.ones((3, 2)), np.moveaxis(pixels, 1, -1)])[:, 0].tolist() == [0, 1, 2]
    assert [policy.predict([np.ones(2), image]) for image in pixels] == [0, 1, 2]
    with pytest.raises(UsageError, match=r"shapes \[\(2,\), \(1, 20, 20\)\].*got \[\(2,\), \(3, 20, 20\)\]"):
        policy.predict([np.ones(2), np.zeros((3, 20, 20), np.uint8)])


@pytest.mark.parametrize(("trainer_type", "steps"), [("ppo", 2560), ("a2c", 2560), ("dqn", 1500)])
def test_bytes_are_learned_from_as_they_are_and_policies_take_both(
    tmp_path: Path, trainer_type: str, steps: int
) -> None:
    seen = Seen()
    run = train(settings(trainer_type, steps), tmp_path, Pictures(Photo), seen)
    assert run.trainers[BEHAVIOR].mean_reward > 0.8
    assert {part.dtype for part in seen.learned} == {torch.uint8}
    store = run.trainers[BEHAVIOR].store
    assert {column.dtype for column in (*store.obs, *store.final_obs)} == {np.dtype(np.uint8)}
    policy = mlhooks.load(run.path)
    pixels = np.round(255 * (Picture.BARS + 0.25)).astype(np.uint8)
    pixels.flags.writeable = False  # PIL makes them so.
    for images in (pixels, pixels / 255, np.moveaxis(pixels, 1, -1)):
        assert policy.predict(images)[:, 0].tolist() == [0, 1, 2]
        assert [policy.predict(image) for image in images] == [0, 1, 2]


@pytest.mark.parametrize("trainer_type", ["ppo", "dqn"])
def test_bytes_and_the_floats_that_they_stand_for_give_the_same_weights(tmp_path: Path, trainer_type: str) -> None:
    steps = 256 if trainer_type == "ppo" else 150
    first, second = (
        weights(train(settings(trainer_type, steps), tmp_path / kind.__name__, Pictures(kind)).trainers[BEHAVIOR])
        for kind in (Photo, FloatPhoto)
    )
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        torch.testing.assert_close(tensor, second[name], rtol=1e-3, atol=1e-4)


class Seen:
    """Notes what is acted on and learned from."""

    def __init__(self) -> None:
        self.acted: list[np.ndarray] = []
        self.learned: list[torch.Tensor] = []

    @hookimpl
    def behavior_added(self, trainer: Any) -> None:
        act, update = trainer.policy.act, trainer.optimizer.update
        trainer.policy.act = lambda obs, *rest: (self.acted.extend(obs), act(obs, *rest))[1]
        trainer.optimizer.update = lambda batch: (self.learned.append(batch.features), update(batch))[1]


class OwnNetwork:
    """A policy with a network that a plugin made."""

    @hookimpl
    def create_policy(self, trainer: Any, behavior_spec: BehaviorSpec) -> ActorPolicy:
        given = trainer.behavior_name, behavior_spec, trainer.settings, trainer.device
        own = Actor(FeatureLayout("", behavior_spec), behavior_spec.action_spec, trainer.settings.network_settings)
        return ActorPolicy(*given, torch.nn.Sequential(own))


class FloatOptimizer(PPOOptimizer):
    reads_bytes = False


class OwnLoss:
    """An optimizer with something in it that reads floats."""

    @hookimpl
    def create_optimizer(self, trainer: Any, policy: ActorPolicy) -> FloatOptimizer:
        return FloatOptimizer(policy, trainer.settings)


class Brightness(RewardSignal):
    """A reward signal that looks at the features."""

    def evaluate(self, batch: Batch) -> torch.Tensor:
        return batch.features.mean(1)


class OwnSignal:
    @hookimpl
    def get_reward_signals(self) -> dict[str, Any]:
        return {"brightness": (Brightness, RewardSignalSettings)}


@pytest.mark.parametrize("plugin", [OwnNetwork, OwnLoss, OwnSignal])
def test_plugins_get_floats_unless_they_say_that_they_read_bytes(tmp_path: Path, plugin: type) -> None:
    config, seen = settings("ppo", 512), Seen()
    if plugin is OwnSignal:
        config["behaviors"][BEHAVIOR]["reward_signals"] = {"extrinsic": {}, "brightness": {}}
    run = train(config, tmp_path, Pictures(Photo), plugin(), seen)
    assert run.trainers[BEHAVIOR].store.obs[0].dtype == np.uint8
    assert {obs.dtype.name for obs in seen.acted} == {"float32" if plugin is OwnNetwork else "uint8"}
    assert {part.dtype for part in seen.learned} == {torch.float32}
    assert all(0 <= float(part.min()) < float(part.max()) <= 1 for part in seen.learned)


@pytest.mark.parametrize(("normalize", "encoded"), [(False, 256), (True, 0)])
def test_values_of_a_shared_critic_are_those_of_what_is_learned_from(
    tmp_path: Path, normalize: bool, encoded: int
) -> None:
    seen = []

    class Compare:
        @hookimpl
        def behavior_added(self, trainer: Any) -> None:
            rollout = trainer.learning.rollout

            def compared(store: Any) -> Batch:
                batch: Batch = rollout(store)
                torch.testing.assert_close(batch.values, trainer.optimizer.estimate(batch.features))
                seen.append(trainer.store.waiting - trainer.store.encoded_from)
                return batch

            trainer.learning.rollout = compared

    config = settings("ppo", 512, normalize=normalize)
    config["behaviors"][BEHAVIOR]["hyperparameters"] = {**HYPERPARAMETERS["ppo"], "shared_critic": True}
    train(config, tmp_path, Pictures(), Compare())
    assert seen == [encoded] * 2  # Acting encoded them, which is of no use where a normalizer has changed since.


@pytest.mark.parametrize("kind", [Picture, Photo])
@pytest.mark.parametrize("trainer_type", ["ppo", "dqn"])
def test_run_with_images_goes_on_exactly(tmp_path: Path, trainer_type: str, kind: type[ScriptedEnv]) -> None:
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
    train(settings(trainer_type, 512), whole, Pictures(kind), overrides=changes)
    run = train(settings(trainer_type, 512), stopped, Pictures(kind), StopAfterUpdate(), overrides=changes)
    assert 200 < run.trainers[BEHAVIOR].step < 512
    train(settings(trainer_type, 512), stopped, Pictures(kind), resume=True, overrides=changes)
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
    assert len(storages) == 3  # Each is a tensor of its own.
