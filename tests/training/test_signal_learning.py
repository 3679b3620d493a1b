"""What is learned by reward signals alone, without the environment's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mlhooks import hookimpl
from mlhooks.demos.writing import write_demo
from mlhooks.settings import RewardSignalSettings
from mlhooks.sims.basic import Basic
from mlhooks.training.batch import Batch
from mlhooks.training.recording import Recorder, Scripted
from mlhooks.training.reward_signals import RewardSignal
from tests.scripted import config, train

pytestmark = pytest.mark.slow
NETWORK = {"hidden_units": 32, "num_layers": 1}


class Constant(RewardSignal):
    """Pays for staying."""

    def evaluate(self, batch: Batch) -> torch.Tensor:
        return torch.ones(len(batch))


class Offer:
    @hookimpl
    def get_reward_signals(self) -> Any:
        return {"constant": (Constant, RewardSignalSettings)}


def alone(signal: dict[str, Any], folder: Path, seed: int) -> float:
    """Train Basic by one signal, which is not the environment's, and return what the environment paid at the end."""
    settings = {
        "hyperparameters": {"batch_size": 32, "buffer_size": 256, "learning_rate": 0.003},
        "network_settings": {"hidden_units": 20, "num_layers": 1},
        "reward_signals": signal,
    }
    basic = config("Basic", "sim:Basic", max_steps=8000, **settings)
    basic["env_settings"]["num_areas"] = 4
    reward = train(basic, folder, Offer(), seed=seed).trainers["Basic"].mean_reward
    assert reward is not None
    return reward


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_demonstration_alone_teaches_basic_and_a_constant_reward_does_not(tmp_path: Path, seed: int) -> None:
    def right(*_: Any) -> Scripted:
        return Scripted(lambda seen: 2, "right", Basic.SPEC, None)

    write_demo(tmp_path / "right.demo", Recorder(Basic(), right).record(10))
    demo = {"demo_path": str(tmp_path / "right.demo"), "use_actions": True}
    gail = {"gamma": 0.5, "learning_rate": 0.003, "network_settings": NETWORK, **demo}
    assert alone({"gail": gail}, tmp_path / "imitated", seed) > 0.8
    assert alone({"constant": {"gamma": 0.5}}, tmp_path / "constant", seed) < 0.5
