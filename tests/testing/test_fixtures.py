from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from mlhooks import hookimpl
from mlhooks.errors import PluginError
from mlhooks.testing.recorder import StatsRecorder
from mlhooks.testing.scripted import ScriptedEnv

SETTINGS = {
    "trainer_type": "ppo",
    "hyperparameters": {"batch_size": 32, "buffer_size": 128, "learning_rate": 0.01},
    "network_settings": {"hidden_units": 16, "num_layers": 1},
    "max_steps": 1600,
    "summary_freq": 400,
}


class Broken:
    @hookimpl
    def update_finished(self) -> None:
        raise ValueError("no")


def test_run_training_trains_and_stats_recorder_remembers(
    run_training: Callable[..., Any], stats_recorder: StatsRecorder, tmp_path: Path
) -> None:
    run = run_training(SETTINGS, stats_recorder)
    assert run.path == tmp_path / "run"
    assert [step for _, _, step in stats_recorder.summaries] == [400, 800, 1200, 1600]
    assert len(stats_recorder.updates) == 12
    assert len(stats_recorder.values("Environment/Cumulative Reward")) == 1600
    assert stats_recorder.outcome == run.outcome
    assert stats_recorder.properties[0][0] == "Scripted"
    assert [checkpoint.step for checkpoint in stats_recorder.checkpoints] == [1600]


def test_run_training_takes_an_environment_of_ones_own(
    run_training: Callable[..., Any], scripted_environments: Mapping[str, type[ScriptedEnv]]
) -> None:
    made: list[ScriptedEnv] = []

    def make() -> ScriptedEnv:
        made.append(scripted_environments["delayed"](agents=4, seed=2))
        return made[-1]

    assert run_training({**SETTINGS, "max_steps": 200}, env=make).trainers["Scripted"].step == 200
    assert made[-1].audit.transitions == 200


def test_failing_hook_fails_the_run_unless_it_is_not_strict(run_training: Callable[..., Any]) -> None:
    with pytest.raises(PluginError, match="update_finished"):
        run_training({**SETTINGS, "max_steps": 400}, Broken())
    force = {"checkpoint_settings.force": True}
    run = run_training({**SETTINGS, "max_steps": 400}, Broken(), strict=False, flags=force)
    assert run.outcome.status == "finished"


def test_plugin_manager_is_strict_and_quiet(plugin_manager: Callable[..., Any]) -> None:
    manager = plugin_manager(Broken())
    assert {"ppo", "a2c", "dqn", "sac"} <= manager.collect_mapping("get_trainer_types").keys()
    assert not manager.implemented("write_stats")
    with pytest.raises(PluginError, match="no"):
        manager.hook.update_finished(trainer=None, step=1, losses={})


def test_make_behavior_spec(make_behavior_spec: Callable[..., Any]) -> None:
    spec = make_behavior_spec((3, (4, 4)), continuous=1, branches=(2,), goals=(5,))
    assert [tuple(observation.shape) for observation in spec.observation_specs] == [(3,), (4, 4), (5,)]
    assert spec.observation_specs[2].observation_type.name == "GOAL_SIGNAL"
    assert (spec.action_spec.continuous_size, spec.action_spec.discrete_branches) == (1, (2,))
