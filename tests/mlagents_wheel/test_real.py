"""The unmodified package `mlagents` 1.1.0, where it is: `nox -s mlagents` installs it and runs these tests."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import mlhooks
from tests.mlagents_wheel.real import (
    MARKS,
    OFF_POLICY,
    QUIET,
    SMALL,
    _nothing_stays,
    entry,
    learned,
    statistics,
    teams,
    train,
)
from tests.mlagents_wheel.teams import Teams

__all__ = ["_nothing_stays"]
pytestmark = MARKS


def as_mlagents_learns(env, settings, seed):
    """Train by the package's own controller, in process, and return its trainer."""
    from mlagents.plugins.trainer_type import get_default_trainer_types
    from mlagents.trainers.environment_parameter_manager import EnvironmentParameterManager
    from mlagents.trainers.settings import RunOptions, TrainerSettings
    from mlagents.trainers.simple_env_manager import SimpleEnvManager
    from mlagents.trainers.stats import StatsReporter
    from mlagents.trainers.trainer import TrainerFactory
    from mlagents.trainers.trainer_controller import TrainerController
    from mlagents_envs.side_channel.environment_parameters_channel import EnvironmentParametersChannel

    get_default_trainer_types()
    TrainerSettings.default_override = None
    options = RunOptions.from_dict({"behaviors": {"Soccer": settings}})
    parameters = EnvironmentParameterManager(None, seed, restore=False)
    factory = TrainerFactory(options.behaviors, "reference", True, False, seed, parameters)
    controller = TrainerController(factory, "reference", "run", parameters, True, seed)
    controller.start_learning(SimpleEnvManager(env, EnvironmentParametersChannel()))
    StatsReporter.stats_dict.clear()
    return controller.trainers["Soccer"]


@pytest.mark.parametrize("kind", ["ppo", "sac", "poca"])
def test_learns_bit_for_bit_as_mlagents_learn_does(kind):
    wanted = as_mlagents_learns(Teams(), entry(kind), 5)
    run = train(entry(f"mlagents:{kind}"), teams())
    got = learned(run).inner
    assert got.get_step == wanted.get_step > 405
    weights, expected = got.policy.actor.state_dict(), wanted.policy.actor.state_dict()
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[key], expected[key]) for key in expected)


@pytest.mark.parametrize("kind", ["ppo", "sac", "poca"])
def test_writes_what_a_run_writes(kind):
    run = train(entry(f"mlagents:{kind}", checkpoint_interval=200), teams())
    assert run.outcome.status == "finished"
    step = run.trainers["Soccer"].step
    files = {path.relative_to(run.path).as_posix() for path in run.path.rglob("*")}
    assert {f"Soccer/Soccer-{step}.pt", f"Soccer/Soccer-{step}.onnx", "Soccer.onnx", "Soccer.policy.pt"} <= files
    onnx = pytest.importorskip("onnx").load(run.path / "Soccer.onnx")
    assert onnx.opset_import[0].version == 9
    assert [node.name for node in onnx.graph.input] == ["obs_0", "action_masks"]
    found = statistics(run)
    assert {"Environment/Cumulative Reward", "Environment/Episode Length", "Losses/Policy Loss"} <= found.keys()
    assert "Step" not in found
    assert {stat["mean"] for stat in found["Environment/Episode Length"]} == {9.0}  # ML-Agents counts ten decisions so.
    manifest = json.loads((run.path / "run_logs" / "training_status.json").read_text(encoding="utf-8"))
    assert manifest["Soccer"]["final_checkpoint"]["steps"] == step


@pytest.mark.parametrize("kind", ["ppo", "sac"])
def test_resumes_with_all_that_mlagents_keeps(kind):
    hyperparameters = {**OFF_POLICY, "save_replay_buffer": True} if kind == "sac" else SMALL
    settings = entry(f"mlagents:{kind}", hyperparameters=hyperparameters)
    before = learned(train(settings, "sim:3DBall")).inner
    run = train({**settings, "max_steps": 406}, "sim:3DBall", resume=True)  # That is reached already.
    after = learned(run).inner
    for key, value in before.policy.actor.state_dict().items():
        assert torch.equal(after.policy.actor.state_dict()[key], value)
    assert after.get_step == before.get_step
    optimizer = next(name for name in learned(run).parts() if "optimizer" in name)
    saved, loaded = (each.model_saver.modules[optimizer].state_dict()["state"] for each in (before, after))
    assert all(torch.equal(saved[key]["exp_avg"], loaded[key]["exp_avg"]) for key in saved)
    if kind == "sac":
        assert after.update_buffer.num_experiences == before.update_buffer.num_experiences > 50
        assert after.update_steps == before.update_steps
    more = train({**settings, "max_steps": 700}, "sim:3DBall", resume=True)
    assert more.trainers["3DBall"].step > 700


def test_episodes_that_a_resume_goes_on_with_keep_their_returns():
    run = train(entry("mlagents:ppo", time_horizon=500), "sim:3DBall", plugins=())
    trainer = run.trainers["3DBall"]
    state = trainer.state_dict()["wheel"]
    gone = run.resumed
    kept = state["rewards"]["environment"]
    running = {agent: trainer.episodes._return[slot] for agent, slot in _agents(trainer)}
    assert gone is False
    # The reward that came with the decision that waits is in no trajectory yet.
    assert kept.keys() >= {agent for agent, value in running.items() if value}
    assert all(kept[agent] == pytest.approx(value, abs=1e-4) for agent, value in running.items() if value)


def _agents(trainer):
    for (worker, _), slots in trainer._known.items():
        for agent, slot in slots._slot_of.items():
            yield f"agent_{worker}-{agent}", slot


def test_self_play_swaps_policies_and_goes_on_where_it_was():
    play = {"save_steps": 60, "team_change": 150, "swap_steps": 40, "window": 3}
    settings = entry("mlagents:poca", self_play=play)
    run = train(settings, teams(2))
    ghost = learned(run).ghost
    assert len(ghost.policy_snapshots) == 3
    assert {f"Soccer?team={team}" for team in (0, 1)} == set(ghost.policies)
    assert ghost.last_team_change > 0  # Another team has learned.
    assert len(statistics(run)["Self-play/ELO"]) >= 1
    again = learned(train({**settings, "max_steps": 406}, teams(2), resume=True)).ghost
    assert again.policy_elos == ghost.policy_elos
    assert again.ghost_step == ghost.ghost_step
    assert again.controller.get_learning_team == ghost.controller.get_learning_team
    for name, policy in ghost.policies.items():
        for key, value in policy.actor.state_dict().items():
            assert torch.equal(again.policies[name].actor.state_dict()[key], value)


def test_without_self_play_all_teams_are_one_policys():
    run = train(entry("mlagents:ppo"), teams(2))
    first, second = learned(run).sides.values()
    assert first.manager.policy is second.manager.policy
    assert first.offset != second.offset  # Agents with the same numbers stay apart by this.


def test_memory_and_intrinsic_rewards_and_lessons():
    network = {"hidden_units": 8, "num_layers": 1, "memory": {"sequence_length": 4, "memory_size": 8}}
    signals = {"extrinsic": {}, "curiosity": {"encoding_size": 8}, "rnd": {"strength": 0.1}}
    run = train(entry("mlagents:ppo", network_settings=network, reward_signals=signals), teams())
    found = statistics(run)
    assert {"Losses/Curiosity Forward Loss", "Losses/RND Loss", "Policy/Curiosity Reward"} <= found.keys()
    assert learned(run).inner.trainer_settings.reward_signals
    watched = train(entry("mlagents:ppo", network_settings=network), teams(), run_id="w")
    again = mlhooks.train(
        watched.path / "configuration.yaml",
        env=teams(),
        run_id="w",
        flags={"checkpoint_settings.inference": True},
        episodes=6,
        plugin_names=QUIET,
    )
    assert len(again.evaluation.returns["Soccer"]) >= 6
    assert learned(again).inner.get_step == 0  # Nothing was learned.


def test_policies_act_apart_from_training():
    settings = entry("mlagents:ppo", evaluation={"interval": 150, "episodes": 2})
    run = train(settings, "sim:3DBall")
    assert "Evaluation/Cumulative Reward" in statistics(run)
    policy = mlhooks.load(run.path)
    one = policy.predict(np.zeros(8, np.float32))
    assert one.shape == (2,)
    assert np.array_equal(one, policy.predict(np.zeros(8, np.float32)))
    assert np.abs(one).max() <= 1.0


def test_several_workers_and_one_that_is_lost():
    run = train(entry("mlagents:ppo"), "sim:Basic", flags={"env_settings.num_areas": 4})
    trainer = run.trainers["Basic"]
    (side,) = trainer.learner.sides.values()
    assert side.manager._last_step_result
    trainer.worker_failed(0)
    assert side.manager._last_step_result == {}
    assert side.manager._experience_buffers == {}
    assert side.waiting == {}
    assert list(trainer.act()) == []


def test_the_state_of_the_package_that_runs_share_is_let_go():
    from mlagents.trainers.stats import StatsReporter

    train(entry("mlagents:ppo"))
    assert StatsReporter.writers == []
    assert "Basic" not in StatsReporter.stats_dict
    assert torch.zeros(1).device.type == "cpu"


def test_settings_resolve_to_those_of_mlagents_itself(tmp_path):
    from mlagents.trainers.settings import RunOptions, TrainerSettings

    from mlhooks.mlagents_wheel.settings import wheel_settings
    from mlhooks.plugins import load_plugins
    from mlhooks.settings import SettingsRegistry, load_run_options

    written = {
        "hyperparameters": {"batch_size": 64, "learning_rate_schedule": "constant", "beta": 0.01},
        "network_settings": {"vis_encode_type": "nature_cnn", "memory": {"memory_size": 16}},
        "reward_signals": {"extrinsic": {"gamma": 0.9}, "curiosity": {"encoding_size": 16, "strength": 0.02}},
        "self_play": {"save_steps": 100},
        "max_steps": "5e4",
        "even_checkpoints": True,
    }
    registry = SettingsRegistry.from_plugins(load_plugins())
    options = load_run_options({"behaviors": {"A": {"trainer_type": "mlagents:ppo", **written}}}, registry).options
    got = wheel_settings(options.behaviors["A"], registry.trainer_types["mlagents:ppo"].offer, Path()).as_dict()
    TrainerSettings.default_override = None
    wanted = RunOptions.from_dict({"behaviors": {"A": {"trainer_type": "ppo", **written}}}).behaviors["A"].as_dict()
    del wanted["reward_signals"]["curiosity"]["encoding_size"], got["reward_signals"]["curiosity"]["encoding_size"]
    assert got | {"even_checkpoints": True} == wanted


def test_behaviors_of_two_teams_learn_in_turns():
    play = {"save_steps": 60, "team_change": 100, "swap_steps": 40, "window": 3}
    settings = {name: entry("mlagents:ppo", self_play=play, max_steps=250) for name in ("Goalie", "Striker")}
    env = lambda seed=0: Teams(("Goalie?team=0", "Striker?team=1"))  # noqa: E731
    run = mlhooks.train({"behaviors": settings}, env=env, run_id="run", seed=5, plugin_names=QUIET)
    assert all(trainer.step >= 250 for trainer in run.trainers.values())
    controllers = {id(trainer.learner.ghost.controller) for trainer in run.trainers.values()}
    assert len(controllers) == 1
    again = mlhooks.train({"behaviors": settings}, env=env, run_id="run", seed=5, plugin_names=QUIET, resume=True)
    assert {name: t.step for name, t in again.trainers.items()} == {name: t.step for name, t in run.trainers.items()}
