"""One update from the same rollout and weights: fast and plain, on arrays and on tensors."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import pytest
import torch

from mlhooks.fast.switch import plain
from mlhooks.plugins import load_plugins
from mlhooks.testing.scripted import ScriptedEnv
from mlhooks.testing.tasks import Aim, Branches, Masked, Mixed, TimeLimit
from mlhooks.testing.trainer_loop import Play, make_trainer
from mlhooks.training.optimizer import TorchOptimizer
from mlhooks.training.trainer import Trainer
from tests.fast.recording import needs_native

pytestmark = needs_native
SMALL = {"hidden_units": 48, "num_layers": 2}
ROLLOUT = {"batch_size": 256, "buffer_size": 256, "num_epoch": 1}
REPLAY = {"batch_size": 64, "buffer_size": 1000, "buffer_init_steps": 128, "steps_per_update": 64}
PPO = {"trainer_type": "ppo", "hyperparameters": ROLLOUT}
A2C = {"trainer_type": "a2c", "hyperparameters": ROLLOUT}
DQN = {"trainer_type": "dqn", "hyperparameters": REPLAY}
SAC = {"trainer_type": "sac", "hyperparameters": REPLAY}
TWIN = {"trainer_type": "sac", "hyperparameters": {**REPLAY, "twin_targets": True}}
SDE = {"use_sde": True, "log_std_init": -1.0, "sde_sample_freq": 4}
MEMORY = {"memory_size": 16, "sequence_length": 8}
ACTIVATIONS = ("tanh", "relu", "leaky_relu", "elu", "swish")
CASES: dict[str, tuple[type[ScriptedEnv], Mapping[str, Any]]] = {
    **{f"PPO, {name}": (Aim, {**PPO, "network_settings": {**SMALL, "activation": name}}) for name in ACTIVATIONS},
    "PPO, masks": (Masked, PPO),
    "PPO, branches": (Branches, PPO),
    "PPO, both kinds of actions": (Mixed, PPO),
    "PPO, interruptions": (TimeLimit, PPO),
    "PPO, shared critic": (Mixed, {**PPO, "hyperparameters": {**ROLLOUT, "shared_critic": True}}),
    "PPO, gradient clipped": (Aim, {**PPO, "hyperparameters": {**ROLLOUT, "max_grad_norm": 0.01}}),
    "PPO, wide layers": (Aim, {**PPO, "network_settings": {"hidden_units": 600, "num_layers": 1}}),
    "PPO, widths of layers": (Aim, {**PPO, "network_settings": {"hidden_layers": [70, 33, 8], "activation": "swish"}}),
    "PPO, deviations of the state": (Aim, {**PPO, "network_settings": {**SMALL, "state_dependent_std": True}}),
    "PPO, state-dependent noise": (Aim, {**PPO, "network_settings": {**SMALL, **SDE}}),
    "PPO, state-dependent noise, hybrid": (Mixed, {**PPO, "network_settings": {**SMALL, **SDE, "full_std": False}}),
    "PPO, noise of the memory": (Aim, {**PPO, "network_settings": {**SMALL, **SDE, "memory": MEMORY}}),
    "SAC, state-dependent noise": (Aim, {**SAC, "network_settings": {**SMALL, **SDE}}),
    "SAC, state-dependent noise, twin targets": (Mixed, {**TWIN, "network_settings": {**SMALL, **SDE}}),
    "A2C, state-dependent noise": (Aim, {**A2C, "network_settings": {**SMALL, **SDE}}),
    "A2C": (Aim, A2C),
    "A2C, masks": (Masked, A2C),
    "A2C, branches": (Branches, A2C),
    "DQN": (TimeLimit, DQN),
    "DQN, masks": (Masked, DQN),
    "DQN, dueling double": (Branches, {**DQN, "hyperparameters": {**REPLAY, "dueling": True, "double_q": True}}),
    "DQN, three steps": (TimeLimit, {**DQN, "hyperparameters": {**REPLAY, "n_step": 3}}),
    **{f"SAC, {task.__name__}": (task, SAC) for task in (Aim, Branches, Masked, Mixed)},
    **{f"SAC, {task.__name__}, twin targets": (task, TWIN) for task in (Aim, Masked, Mixed)},
}


def trainer_before_update(env: type[ScriptedEnv], settings: Mapping[str, Any]) -> Trainer:
    filled = {"network_settings": SMALL, "max_steps": 10_000, **settings}
    trainer = make_trainer(load_plugins(), env.spec, filled, seed=3)
    Play(trainer, env(seed=3)).until_ready()
    return trainer


@pytest.mark.parametrize("way", ["plain", "tensors"])
@pytest.mark.parametrize(("env", "settings"), CASES.values(), ids=CASES)
def test_one_update_is_equal_to_rounding(env: type[ScriptedEnv], settings: Mapping[str, Any], way: str) -> None:
    found = []
    for other in (True, False):
        trainer = trainer_before_update(env, settings)
        optimizer = trainer.optimizer
        assert isinstance(optimizer, TorchOptimizer)
        assert optimizer._scope.arrays
        optimizer._scope.arrays = not (other and way == "tensors")
        with plain() if other and way == "plain" else nullcontext():
            losses = trainer.update()
        assert losses is not None
        found.append((losses, optimizer.flat.grad.clone(), optimizer.flat.data.clone()))
    (their_losses, *theirs), (losses, *ours) = found
    assert losses == pytest.approx(their_losses, rel=1e-5, abs=1e-6)
    for mine, other_one in zip(ours, theirs, strict=True):
        assert torch.linalg.vector_norm(mine - other_one) <= 1e-5 * torch.linalg.vector_norm(other_one)
    assert ours[0].any()
