"""Self-play learns: it beats where it began, and comes near an equilibrium in which nothing is to be gained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import mlhooks
from mlhooks import hookimpl
from mlhooks.training.match import Match
from mlhooks.training.trainer import Trainer
from tests.scripted import QUIET, train
from tests.training.duels import Games

pytestmark = pytest.mark.slow
SEEDS = [1, 2, 3, 4, 5]


@pytest.mark.parametrize("seed", SEEDS)
def test_policy_of_tag_beats_the_initial_one_and_has_a_higher_rating(tmp_path: Path, seed: int) -> None:
    arguments: dict[str, Any] = {"plugin_names": QUIET, "results_dir": tmp_path, "seed": seed}
    begun = mlhooks.train("tag_ppo", run_id="initial", overrides=["behaviors.Tag.max_steps=1"], **arguments)
    assert begun.trainers["Tag"].updates == 0
    run = mlhooks.train("tag_ppo", run_id="learned", **arguments)
    play = run.trainers["Tag"].self_play
    assert play is not None
    assert play.rating > 1200.0
    flags = {"checkpoint_settings.inference": True}
    match = mlhooks.train("tag_ppo", run_id="learned", flags=flags, episodes=200, opponent="initial", **arguments)
    assert isinstance(match.evaluation, Match)
    assert len(match.evaluation.scores) == 200
    assert match.evaluation.scores.count(1.0) > 160


class Begun:
    """Lets the first move have a share of 0.8 at the start, and notes the policy after each update."""

    def __init__(self) -> None:
        self.policies: list[np.ndarray] = []

    @hookimpl
    def behavior_added(self, trainer: Trainer) -> None:
        actor: Any = trainer.policy.modules()["actor"]
        with torch.no_grad():
            for head in actor.linear_heads():
                head.weight.zero_()
                head.bias[:] = torch.tensor([0.8, 0.1, 0.1]).log()
        trainer.weights_changed()
        self.note(trainer)
        assert self.policies[0] == pytest.approx([0.8, 0.1, 0.1], abs=1e-5)

    @hookimpl
    def update_finished(self, trainer: Trainer) -> None:
        self.note(trainer)

    def note(self, trainer: Trainer) -> None:
        actor: Any = trainer.policy.modules()["actor"]
        with torch.no_grad():
            self.policies.append(torch.softmax(actor(torch.ones(1, 1)).logits, 1)[0].numpy())


@pytest.mark.parametrize("seed", SEEDS)
def test_matrix_game_comes_near_its_equilibrium_against_earlier_selves(tmp_path: Path, seed: int) -> None:
    begun = Begun()
    settings = {
        "behaviors": {
            "Matrix": {
                "trainer_type": "ppo",
                "hyperparameters": {
                    "batch_size": 2048,
                    "buffer_size": 2048,
                    "learning_rate": 0.02,
                    "beta": 0.3,  # Best answers alone would go round the equilibrium in ever longer circles.
                    "beta_schedule": "constant",
                    "epsilon": 0.5,
                    "num_epoch": 5,
                    "normalize_advantages": "none",  # They are to vanish where nothing is to be gained.
                },
                "network_settings": {"hidden_units": 16, "num_layers": 1},
                "max_steps": 150_000,
                "summary_freq": 50_000,
                "self_play": {
                    "save_steps": 256,
                    "team_change": 5000,
                    "swap_steps": 1,
                    "window": 1000,  # All that was ever played counts, as in fictitious play.
                    "play_against_latest_model_ratio": 0.0,
                },
            }
        },
        "env_settings": {"env_path": "game:Matrix", "num_areas": 8, "seed": seed},
    }
    train(settings, tmp_path, begun, Games())
    half = begun.policies[len(begun.policies) // 2 :]
    assert np.mean(half, axis=0) == pytest.approx([0.25, 0.5, 0.25], abs=0.1)
