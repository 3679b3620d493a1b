"""What losses on arrays leave to torch: nothing, where they are mlhooks' own and small, and else it is told."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import mlhooks
from builtin_plugins.ppo import PPOOptimizer
from mlhooks.fast.networks import LossScope
from mlhooks.plugins import load_plugins
from mlhooks.testing.tasks import Aim, Branches, Masked, Mixed
from mlhooks.testing.trainer_loop import Play, make_trainer
from mlhooks.training.optimizer import TorchOptimizer
from mlhooks.training.trainer import Trainer
from tests.fast.recording import needs_native
from tests.fast.test_networks import Networks
from tests.fast.test_opting_in import DQN, PPO, Parts, updated

REPLAY = {"batch_size": 64, "buffer_size": 500, "buffer_init_steps": 64, "steps_per_update": 64}
SAC = {**PPO, "trainer_type": "sac", "hyperparameters": REPLAY}

pytestmark = needs_native
A2C = {**PPO, "trainer_type": "a2c"}
SDE = {"use_sde": True, "log_std_init": -1.0}
CASES: list[Any] = [
    *((kind, extra, task) for kind in (PPO, A2C) for extra in ({}, {"joint_actions": True}) for task in (Aim, Mixed)),
    *((kind, {}, task) for kind in (PPO, A2C) for task in (Branches, Masked)),
    *((PPO, {name: True}, Mixed) for name in ("value_clipping", "shared_critic")),
    *(({**kind, "network_settings": {**kind["network_settings"], **SDE}}, {}, Aim) for kind in (PPO, A2C)),
    *((DQN, extra, task) for extra in ({}, {"double_q": True, "dueling": True}) for task in (Branches, Masked)),
    (DQN, {"n_step": 3}, Masked),
    *((SAC, {"twin_targets": twin}, task) for twin in (False, True) for task in (Aim, Branches, Masked, Mixed)),
]


def fallbacks(trainer: Trainer) -> dict[str, int]:
    assert isinstance(trainer.optimizer, TorchOptimizer)
    assert trainer.optimizer._scope.arrays
    return dict(trainer.optimizer._scope.fallbacks)


@pytest.mark.parametrize(("settings", "extra", "task"), CASES)
def test_losses_of_small_networks_leave_nothing_to_torch(settings: Any, extra: dict[str, Any], task: Any) -> None:
    settings = {**settings, "hyperparameters": {**settings["hyperparameters"], **extra}}
    trainer = make_trainer(load_plugins(), task.spec, settings, seed=3)
    play = Play(trainer, task(seed=3))
    for _ in range(2):
        play.until_ready()
        trainer.update()
    assert fallbacks(trainer) == {}


@pytest.mark.parametrize("name", ["cartpole_ppo", "3dball_ppo", "cartpole_a2c", "cartpole_dqn"])
def test_whole_runs_leave_nothing_to_torch(name: str, tmp_path: Path) -> None:
    behavior = "3DBall" if name.startswith("3d") else "CartPole"
    overrides = [f"behaviors.{behavior}.max_steps=3000", f"behaviors.{behavior}.summary_freq=1000"]
    if name == "3dball_ppo":
        overrides.append(f"behaviors.{behavior}.hyperparameters.buffer_size=1024")
    run = mlhooks.train(
        name, run_id="run", results_dir=tmp_path, seed=1, plugin_names=["no:console", "no:curve"], overrides=overrides
    )
    (trainer,) = run.trainers.values()
    assert trainer.updates > 1
    assert fallbacks(trainer) == {}


class Unusual(PPOOptimizer):
    """A loss with a function that arrays do not compute."""

    array_arithmetic = True

    def loss(self, batch: Any) -> dict[str, Tensor]:
        losses = super().loss(batch)
        return {**losses, "loss": losses["loss"] + torch.nn.functional.softplus(self.values(batch)).mean()}


def test_what_is_left_to_torch_is_told_once_for_a_behavior(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "mlhooks"):
        trainer = updated(Parts(Unusual), rounds=2)
    assert fallbacks(trainer)["softplus"] > 1
    told = [record.getMessage() for record in caplog.records if "softplus" in record.getMessage()]
    (message,) = told
    assert message.startswith(f"The loss of behavior {trainer.behavior_name!r} leaves softplus to torch")


def test_networks_that_torch_computes_or_that_give_tensors_are_counted() -> None:
    networks, scope = Networks("gelu"), LossScope(arrays=True)
    with scope:
        networks.critic(torch.ones(3, 6))
    assert scope.fallbacks == {"computing Critic": 1}
    networks, scope = Networks("tanh"), LossScope(arrays=True)
    networks.frozen.requires_grad_(True)
    networks.frozen.register_hook(lambda gradient: gradient)
    with scope:
        networks.critic(torch.ones(3, 6))
    assert scope.fallbacks == {"the gradient of Critic": 1}
    tensors = LossScope()
    with tensors:
        networks.critic(torch.ones(3, 6))
    assert not tensors.fallbacks
