from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from builtin_plugins.dqn import DQNOptimizer, DQNTrainer, QPolicy
from mlhooks import hookimpl
from mlhooks.errors import NonFiniteError
from mlhooks.training.batch import Batch
from mlhooks.training.policy import Policy
from mlhooks.training.run import Run
from mlhooks.training.trainer import Trainer
from tests.scripted import Corridor, Env, config, train

DQN = {
    "trainer_type": "dqn",
    "hyperparameters": {"batch_size": 20, "buffer_size": 400, "buffer_init_steps": 40, "steps_per_update": 8},
}


def settings(max_steps: int = 400, **more: Any) -> dict[str, Any]:
    return config("Corridor", "test:x", max_steps=max_steps, **({"threaded": True} | DQN | more))


class Optimizers:
    """Puts an optimizer in place of DQN's."""

    def __init__(self, kind: type[DQNOptimizer]) -> None:
        self.kind = kind

    @hookimpl
    def create_optimizer(self, trainer: Trainer, policy: Policy) -> DQNOptimizer:
        assert isinstance(policy, QPolicy)
        return self.kind(policy, trainer.settings)


def test_environments_step_while_the_learner_updates(tmp_path: Path) -> None:
    stepped = threading.Event()
    waited: list[bool] = []

    class Noticed(Corridor):
        def step(self) -> None:
            super().step()
            stepped.set()

    class Patient(DQNOptimizer):
        def update(self, batch: Batch) -> dict[str, Tensor]:
            if not waited:
                stepped.clear()
                waited.append(stepped.wait(30))  # It would wait for ever, were the environment waiting for the update.
            return super().update(batch)

    run = train(settings(), tmp_path, Env(Noticed), Optimizers(Patient))
    assert run.outcome.status == "finished"
    assert waited == [True]


def test_as_many_updates_are_made_and_all_are_in_the_checkpoint(tmp_path: Path) -> None:
    class Counting(DQNOptimizer):
        made = 0

        def update(self, batch: Batch) -> dict[str, Tensor]:
            Counting.made += 1
            return super().update(batch)

    reports: list[int] = []

    class Observer:
        @hookimpl
        def update_finished(self, step: int, losses: dict[str, float]) -> None:
            assert np.isfinite(losses["Losses/Value Loss"])
            reports.append(step)

    beside = train(settings(), tmp_path / "beside", Env(), Optimizers(Counting), Observer())
    made, Counting.made = Counting.made, 0
    alone = train(settings(threaded=False), tmp_path / "alone", Env(), Optimizers(Counting))
    assert made == Counting.made == beside.trainers["Corridor"].updates == alone.trainers["Corridor"].updates > 30
    assert len(reports) == made  # Each round has one update.
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("learner")]
    resumed = train(settings(max_steps=600), tmp_path / "beside", Env(), resume=True)
    assert resumed.trainers["Corridor"].updates > made


def test_learns_as_well(tmp_path: Path) -> None:
    torch.manual_seed(0)
    fast = {"learning_rate": 0.01, "gamma": 0.5, "tau": 0.1, "exploration_final_eps": 0.0}
    run: Run = train(settings(3000, hyperparameters=DQN["hyperparameters"] | fast), tmp_path, Env())  # type: ignore[operator]
    trainer = run.trainers["Corridor"]
    assert isinstance(trainer, DQNTrainer)
    assert trainer.mean_reward is not None
    assert trainer.mean_reward > 4.5  # The most is 5.


def test_error_of_an_update_ends_the_run_with_its_message(tmp_path: Path) -> None:
    class Broken(DQNOptimizer):
        def loss(self, batch: Batch) -> dict[str, Tensor]:
            losses = super().loss(batch)
            return losses | {"loss": losses["loss"] * float("nan")}

    with pytest.raises(NonFiniteError, match="the loss became NaN or infinite"):
        train(settings(), tmp_path, Env(), Optimizers(Broken))
