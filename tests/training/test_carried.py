"""Memories where there is no store: in evaluations, with inference, and in policies that were loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mlhooks
from mlhooks import hookimpl
from mlhooks.errors import UsageError
from mlhooks.training.run import Run
from tests.scripted import QUIET, config, train

RECALL = config(
    "Recall",
    "sim:Recall",
    max_steps=400,
    network_settings={"hidden_units": 8, "num_layers": 1, "memory": {"memory_size": 8, "sequence_length": 16}},
    evaluation={"interval": 200, "episodes": 6},
)
RECALL["env_settings"]["num_areas"] = 3


class Watch:
    """Takes note of what the policy is shown and of the memories that it gets and gives."""

    def __init__(self) -> None:
        self.steps: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    @hookimpl
    def behavior_added(self, trainer: Any) -> None:
        policy, act = trainer.policy, trainer.policy.act

        def watched(obs: Any, mask: Any, rng: Any, memory: np.ndarray) -> Any:
            before = memory.copy()
            actions = act(obs, mask, rng, memory)
            self.steps.append((obs[0].copy(), before, actions.memory))
            return actions

        policy.act = watched

    def check(self) -> None:
        """Demand that every agent goes on with what it remembered, and begins with zeros where it sees a sign."""
        assert len(self.steps) > 10
        kept = np.zeros_like(self.steps[0][1])
        for obs, before, after in self.steps:
            begins = obs[:, :2].any(axis=1)
            staying = begins & np.isclose(before, kept).all(axis=1)  # An agent may stay in the first cell.
            wanted = np.where((begins & ~staying)[:, None], 0.0, kept)
            np.testing.assert_array_equal(before, wanted)
            assert after.any(axis=1).all()
            kept = after


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(RECALL, tmp_path_factory.mktemp("recall"))


def test_evaluations_carry_memories_of_their_own(tmp_path: Path) -> None:
    watch, training, evaluating = Watch(), Watch(), Watch()

    class Apart(Watch):
        @hookimpl
        def behavior_added(self, trainer: Any) -> None:
            super().behavior_added(trainer)
            act = trainer.act

            def in_training() -> Any:
                self.steps = []
                yield from act()
                training.steps += self.steps
                self.steps = []

            trainer.act = in_training

        @hookimpl
        def evaluation_finished(self) -> None:
            if not evaluating.steps:
                evaluating.steps = self.steps

    watch = Apart()
    train(RECALL, tmp_path, watch)
    training.check()
    evaluating.check()


def test_inference_carries_memories(run: Run) -> None:
    watch = Watch()
    mlhooks.train(
        run.path / "configuration.yaml",
        run_id=run.path.name,
        results_dir=run.path.parent,
        flags={"checkpoint_settings.inference": True},
        episodes=4,
        plugins=[watch],
        plugin_names=QUIET,
    )
    watch.check()


def test_loaded_policy_remembers_until_it_is_told_to_start(run: Run) -> None:
    policy, trained = mlhooks.load(run.path), run.trainers["Recall"].policy
    trained.deterministic = True
    assert policy.memory_size == trained.memory_size == 8
    seen = np.random.default_rng(0).normal(size=(30, 2, 4)).astype(np.float32)
    memory, wanted = np.zeros((2, 8), np.float32), []
    for tick, observations in enumerate(seen):
        if tick == 10:
            memory[:] = 0.0
            policy.start()
        if tick == 20:
            memory[1] = 0.0
            policy.start(np.array([False, True]))
        actions = trained.act([observations], None, np.random.default_rng(0), memory)
        memory = actions.memory
        wanted.append(actions.discrete[:, 0].tolist())
        assert policy.predict(observations).ravel().tolist() == wanted[-1]
        np.testing.assert_array_equal(policy._memory, memory)
    with pytest.raises(UsageError, match=r"remembers what 2 agents saw, and is shown 1 now. Call start\(\) first"):
        policy.predict(seen[0, 0])
    for wrong in (np.zeros(3, np.bool_), [0, 1]):
        with pytest.raises(UsageError, match="must be 2 truth values"):
            policy.start(wrong)
    policy.start()
    assert isinstance(policy.predict(seen[0, 0]), int)
    policy.start(True)
    assert not policy._memory.any()


def test_policy_without_a_memory_has_nothing_to_start(tmp_path: Path) -> None:
    run = train(config("Basic", "sim:Basic", max_steps=100), tmp_path)
    policy = mlhooks.load(run.path)
    assert policy.memory_size == 0
    before = policy.predict(np.eye(20, dtype=np.float32))
    policy.start(np.ones(20, np.bool_))
    policy.start()
    assert np.array_equal(policy.predict(np.eye(20, dtype=np.float32)), before)
