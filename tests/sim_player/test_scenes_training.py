"""Training in scenes of teams and groups over the protocol: POCA, and self-play of their teams."""

from __future__ import annotations

import json
import math
import sys

import pytest

import mlhooks
from mlhooks.plugin import hookimpl
from mlhooks.sim_player.command import write_executable
from mlhooks.sim_player.options import SCENES, scripted_behaviors
from mlhooks.testing.environments import free_port

QUIET = ("no:tensorboard", "no:curve", "no:onnx_export", "no:console")
TEAMS = ("SoccerTwos", "StrikersVsGoalie")
UPDATES = 3


class Beginnings:
    """Keeps the parameters with which trainers begin."""

    def __init__(self):
        self.kept = {}

    @hookimpl
    def behavior_added(self, behavior_name, trainer):
        self.kept[behavior_name] = {
            f"{name}.{key}": value.detach().clone()
            for name, module in trainer.modules().items()
            for key, value in module.named_parameters()
        }


def settings(name):
    trainer = {
        "trainer_type": "poca",
        "hyperparameters": {"batch_size": 64, "buffer_size": 192, "num_epoch": 1},
        "network_settings": {"hidden_units": 32, "num_layers": 1, "vis_encode_type": "simple"},
        "max_steps": 192 * (UPDATES + 1),
        "summary_freq": 96,
    }
    if name in TEAMS:
        trainer["self_play"] = {"save_steps": 96, "swap_steps": 48, "team_change": 192}
    names = {part.name.partition("?")[0] for part in scripted_behaviors(SCENES[name])}
    return {"behaviors": dict.fromkeys(sorted(names), trainer)}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="which starts no scripts as programs")
@pytest.mark.parametrize("name", SCENES)
def test_every_behavior_of_a_scene_learns_with_every_parameter(name, tmp_path):
    player = write_executable(tmp_path / "Player", [name, "--areas", "2"])
    beginnings = Beginnings()
    run = mlhooks.train(
        settings(name),
        env=str(player),
        run_id="scene",
        results_dir=tmp_path,
        seed=1,
        plugins=[beginnings],
        plugin_names=QUIET,
        overrides=[f"env_settings.base_port={free_port()}"],
    )
    assert set(run.trainers) == set(settings(name)["behaviors"])
    for behavior, trainer in run.trainers.items():
        assert trainer.updates >= UPDATES
        still = [
            f"{part}.{key}"
            for part, module in trainer.modules().items()
            for key, value in module.named_parameters()
            if value.requires_grad and value.equal(beginnings.kept[behavior][f"{part}.{key}"])
        ]
        # The goalie is alone in its group: there is nobody to attend to, nor whose actions would count.
        compared = ("critic.acting.", ".query.", ".key.") if behavior == "Goalie" else ()
        assert [key for key in still if not any(part in key for part in compared)] == []
    rows = [json.loads(line) for line in (tmp_path / "scene" / "stats.jsonl").read_text().splitlines()]
    losses = {key: value["mean"] for row in rows for key, value in row["values"].items() if key.startswith("Losses/")}
    assert "Losses/Baseline Loss" in losses
    assert all(math.isfinite(loss) for loss in losses.values())
    keys = {key for row in rows for key in row["values"]}
    assert "Environment/Group Cumulative Reward" in keys
    assert ("Self-play/ELO" in keys) == (name in TEAMS)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="which starts no scripts as programs")
def test_sign_of_recall_is_remembered_over_the_wire(tmp_path):
    """Whoever does not remember it gets 0.45 at most."""
    player = write_executable(tmp_path / "Player", ["Recall"])
    run = mlhooks.train(
        "recall_ppo",
        env=str(player),
        run_id="recall",
        results_dir=tmp_path,
        seed=1,
        plugin_names=QUIET,
        overrides=[f"env_settings.base_port={free_port()}"],
    )
    assert run.trainers["Recall"].mean_reward > 0.8
