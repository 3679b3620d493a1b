from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mlhooks.errors import SettingsError
from mlhooks.settings import (
    EncoderType,
    OnPolicyHyperparameters,
    ScheduleType,
    SettingsRegistry,
    TrainerSettings,
    load_run_options,
)
from tests.settings.conftest import Load, PPOModel

NETWORK = {
    "normalize": False,
    "hidden_units": 128,
    "num_layers": 2,
    "vis_encode_type": "simple",
    "memory": None,
    "goal_conditioning_type": "hyper",
    "deterministic": False,
}


def test_a_minimal_file_resolves_to_mlagents_defaults(load: Load) -> None:
    loaded = load("behaviors:\n  Walker: {}\n")
    assert loaded.warnings == []
    assert loaded.options.as_dict() == {
        "default_settings": None,
        "behaviors": {
            "Walker": {
                "trainer_type": "ppo",
                "hyperparameters": {
                    "batch_size": 1024,
                    "buffer_size": 10240,
                    "learning_rate": 0.0003,
                    "learning_rate_schedule": "linear",
                    "beta": 0.005,
                    "epsilon": 0.2,
                    "lambd": 0.95,
                    "num_epoch": 3,
                    "shared_critic": False,
                    "beta_schedule": "linear",
                    "epsilon_schedule": "linear",
                },
                "checkpoint_interval": 500000,
                "network_settings": NETWORK,
                "reward_signals": {"extrinsic": {"gamma": 0.99, "strength": 1.0, "network_settings": NETWORK}},
                "init_path": None,
                "keep_checkpoints": 5,
                "even_checkpoints": False,
                "max_steps": 500000,
                "time_horizon": 64,
                "summary_freq": 50000,
                "threaded": False,
                "self_play": None,
                "behavioral_cloning": None,
            }
        },
        "env_settings": {
            "env_path": None,
            "env_args": None,
            "base_port": 5005,
            "num_envs": 1,
            "num_areas": 1,
            "timeout_wait": 60,
            "seed": -1,
            "max_lifetime_restarts": 10,
            "restarts_rate_limit_n": 1,
            "restarts_rate_limit_period_s": 60,
        },
        "engine_settings": {
            "width": 84,
            "height": 84,
            "quality_level": 5,
            "time_scale": 20,
            "target_frame_rate": -1,
            "capture_frame_rate": 60,
            "no_graphics": False,
            "no_graphics_monitor": False,
        },
        "environment_parameters": None,
        "checkpoint_settings": {
            "run_id": "ppo",
            "initialize_from": None,
            "load_model": False,
            "resume": False,
            "force": False,
            "train_model": False,
            "inference": False,
            "results_dir": "results",
        },
        "torch_settings": {"device": None},
        "debug": False,
    }


def test_attributes_are_those_of_mlagents_run_options(load: Load) -> None:
    options = load(
        """
        behaviors:
          A:
            trainer_type: ppo
            hyperparameters: {learning_rate_schedule: constant}
            network_settings: {vis_encode_type: nature_cnn, memory: {sequence_length: 32}}
        checkpoint_settings: {run_id: first, initialize_from: zeroth, results_dir: out}
        """
    ).options
    behavior = options.behaviors["A"]
    assert behavior.hyperparameters.learning_rate_schedule is ScheduleType.CONSTANT
    assert behavior.network_settings.vis_encode_type is EncoderType.NATURE_CNN
    assert behavior.network_settings.memory is not None
    assert (behavior.network_settings.memory.sequence_length, behavior.network_settings.memory.memory_size) == (32, 128)
    assert Path(options.checkpoint_settings.write_path) == Path("out/first")
    assert Path(options.checkpoint_settings.run_logs_dir) == Path("out/first/run_logs")
    assert Path(options.checkpoint_settings.maybe_init_path or "") == Path("out/zeroth")


@pytest.mark.parametrize("text", ["5e6", "5.0e6", "'5e6'", "5_000_000", "5000000.0", "0.5e7"])
def test_whole_numbers_are_read_in_the_spellings_people_use(load: Load, text: str) -> None:
    max_steps = load(f"behaviors: {{A: {{max_steps: {text}}}}}").options.behaviors["A"].max_steps
    assert max_steps == 5_000_000
    assert isinstance(max_steps, int)


def test_text_settings_keep_the_spelling_of_numbers_and_dates(load: Load) -> None:
    options = load(
        """
        checkpoint_settings: {run_id: 1e5, initialize_from: 2025-01-31}
        env_settings: {env_args: [--level, 3, 1e3]}
        """
    ).options
    assert options.checkpoint_settings.run_id == "1e5"
    assert options.checkpoint_settings.initialize_from == "2025-01-31"
    assert options.env_settings.env_args == ["--level", "3", "1e3"]


@pytest.mark.parametrize(
    ("text", "path"),
    [
        (r"results\old\A.pt", r"results\old\A.pt"),
        (r"'results\new\A.pt'", r"results\new\A.pt"),
        ("{A-500.pt}", "A-500.pt"),
        ("~", None),
    ],
)
def test_forms_of_init_path(load: Load, text: str, path: str | None) -> None:
    assert load(f"behaviors: {{A: {{init_path: {text}}}}}").options.behaviors["A"].init_path == path


def test_empty_top_level_sections_mean_their_defaults(load: Load) -> None:
    text = "behaviors: {A: {}}\ndefault_settings:\nenv_settings: ~\nengine_settings:\nenvironment_parameters: null\n"
    assert load(text).options == load("behaviors: {A: {}}").options


def test_default_and_names_with_spaces_are_ordinary_behaviors(load: Load) -> None:
    options = load("behaviors:\n  default: {max_steps: 1}\n  My Big Agent: {max_steps: 2}\n").options
    assert options.settings_for("default").max_steps == 1
    assert options.settings_for("My Big Agent").max_steps == 2
    assert options.default_settings is None


def test_schedules_follow_that_of_the_learning_rate_unless_given(load: Load) -> None:
    text = "behaviors: {A: {trainer_type: ppo, hyperparameters: {learning_rate_schedule: constant, %s}}}"
    (followed,) = load(text % "").options.behaviors.values()
    (given,) = load(text % "beta_schedule: linear").options.behaviors.values()
    assert isinstance(followed.hyperparameters, PPOModel)
    assert isinstance(given.hyperparameters, PPOModel)
    assert (followed.hyperparameters.beta_schedule, followed.hyperparameters.epsilon_schedule) == ("constant",) * 2
    assert (given.hyperparameters.beta_schedule, given.hyperparameters.epsilon_schedule) == ("linear", "constant")


def test_off_policy_and_self_play_defaults_follow_their_siblings(load: Load) -> None:
    (behavior,) = load(
        "behaviors: {A: {trainer_type: dqn, hyperparameters: {steps_per_update: 10}, self_play: {save_steps: 50}}}"
    ).options.behaviors.values()
    values = behavior.hyperparameters.as_dict()
    assert (values["batch_size"], values["buffer_size"], values["learning_rate_schedule"]) == (128, 50000, "constant")
    assert values["reward_signal_steps_per_update"] == 10
    assert behavior.self_play is not None
    assert behavior.self_play.team_change == 250


def test_even_checkpoints_set_the_interval(load: Load) -> None:
    text = "behaviors: {A: {even_checkpoints: true, max_steps: 1000, keep_checkpoints: 3, checkpoint_interval: 7}}"
    assert load(text).options.behaviors["A"].checkpoint_interval == 333


class TestDefaultSettings:
    def test_are_merged_deeply_into_every_behavior(self, load: Load) -> None:
        options = load(
            """
            default_settings:
              trainer_type: ppo
              hyperparameters: {batch_size: 16, buffer_size: 120}
              network_settings: {hidden_units: 256, memory: {memory_size: 64, sequence_length: 8}}
              max_steps: 9
            behaviors:
              A:
                hyperparameters: {batch_size: 32}
                network_settings: {memory: {sequence_length: 4}}
              B:
                network_settings: {memory: null}
            """
        ).options
        a, b = options.behaviors["A"], options.behaviors["B"]
        assert (a.hyperparameters.batch_size, a.hyperparameters.buffer_size, a.max_steps) == (32, 120, 9)
        assert a.network_settings.hidden_units == 256
        assert a.network_settings.memory is not None
        assert a.network_settings.memory.as_dict() == {"memory_size": 64, "sequence_length": 4}
        assert b.network_settings.memory is None

    def test_are_resolved_before_they_are_merged(self, load: Load) -> None:
        # As ML-Agents does: what the section leaves out counts as said.
        options = load(
            """
            default_settings: {trainer_type: ppo, hyperparameters: {learning_rate_schedule: constant}}
            behaviors:
              A:
                hyperparameters: {learning_rate_schedule: linear}
                reward_signals: {curiosity: {}}
            """
        ).options
        a = options.behaviors["A"]
        assert isinstance(a.hyperparameters, PPOModel)
        assert a.hyperparameters.beta_schedule is ScheduleType.CONSTANT
        assert list(a.reward_signals) == ["extrinsic", "curiosity"]

    def test_lend_another_trainer_type_the_hyperparameters_that_it_has(self, load: Load) -> None:
        options = load(
            """
            default_settings: {trainer_type: ppo, hyperparameters: {batch_size: 16, beta: 0.1}}
            behaviors:
              A: {trainer_type: dqn}
            """
        ).options
        values = options.behaviors["A"].hyperparameters.as_dict()
        assert (values["batch_size"], values["buffer_size"], "beta" in values) == (16, 50000, False)

    def test_serve_behaviors_that_are_not_listed(self, load: Load) -> None:
        options = load("default_settings: {max_steps: 3}\nbehaviors: {A: {max_steps: 4}}").options
        unlisted = options.settings_for("B")
        assert unlisted.max_steps == 3
        unlisted.max_steps = 5
        assert options.settings_for("C").max_steps == 3


def test_an_unlisted_behavior_is_refused_with_those_that_are_listed(load: Load) -> None:
    options = load("behaviors: {Walker: {}, Crawler: {}}").options
    with pytest.raises(
        SettingsError, match=r"config\.yaml.*'Walkr', .*'Walker' and 'Crawler'\..*write 'Walkr' in place of 'Walker'"
    ):
        options.settings_for("Walkr")


def test_without_a_configuration_every_behavior_gets_the_defaults(registry: SettingsRegistry, load: Load) -> None:
    options = load_run_options(None, registry).options
    assert options.settings_for("Anything") == load("behaviors: {A: {}}").options.behaviors["A"]
    assert options.as_dict()["behaviors"] == {}


def test_a_mapping_is_read_like_a_file_and_left_alone(registry: SettingsRegistry) -> None:
    source: dict[str, Any] = {"behaviors": {"A": {"max_steps": "5e3"}}, "env_settings": {"env_kwargs": {"x": (1, 2)}}}
    before = json.dumps(source)
    options = load_run_options(source, registry, flags={"env_settings.seed": 3}).options
    assert options.behaviors["A"].max_steps == 5000
    assert options.env_settings.env_kwargs == {"x": [1, 2]}
    assert json.dumps(source) == before


class TestExtensions:
    def test_appear_only_where_they_were_set(self, load: Load) -> None:
        options = load(
            """
            behaviors:
              A:
                trainer_type: ppo
                network_settings: {activation: tanh}
                hyperparameters: {max_grad_norm: 0.5}
            torch_settings: {threads: 2, autocast: bfloat16}
            env_settings: {env_kwargs: {gravity: 1e1, name: "1e1", size: [1, 2.5], deep: {on: true}}}
            """
        ).options
        values = options.as_dict()
        assert values["behaviors"]["A"]["network_settings"] == {**NETWORK, "activation": "tanh"}
        assert values["behaviors"]["A"]["hyperparameters"]["max_grad_norm"] == 0.5
        assert values["torch_settings"] == {"device": None, "threads": 2, "autocast": "bfloat16"}
        assert values["env_settings"]["env_kwargs"] == {
            "gravity": 10.0,
            "name": "1e1",
            "size": [1, 2.5],
            "deep": {"on": True},
        }

    def test_survive_default_settings(self, load: Load) -> None:
        options = load("default_settings: {network_settings: {activation: relu}}\nbehaviors: {A: {}, B: {}}").options
        assert options.behaviors["B"].as_dict()["network_settings"]["activation"] == "relu"


class TestRewardSignals:
    def test_have_their_own_settings_and_defaults(self, load: Load) -> None:
        (behavior,) = load(
            """
            behaviors:
              A:
                reward_signals:
                  extrinsic: {gamma: 0.9}
                  curiosity: {strength: 0.1}
                  rnd: {}
                  gail: {demo_path: demos/}
                  wonder: {curiosity: 2}
            """
        ).options.behaviors.values()
        values = {name: signal.as_dict() for name, signal in behavior.reward_signals.items()}
        assert values["extrinsic"] == {"gamma": 0.9, "strength": 1.0, "network_settings": NETWORK}
        assert values["curiosity"]["learning_rate"] == 0.0003
        assert values["rnd"]["learning_rate"] == 0.0001
        assert values["gail"]["demo_path"] == "demos/"
        assert (values["gail"]["use_actions"], values["gail"]["encoding_size"]) == (False, None)
        assert values["wonder"]["curiosity"] == 2.0

    @pytest.mark.parametrize(
        "section", ["reward_signals: {gail: {demo_path: ''}}", "behavioral_cloning: {demo_path: ''}"]
    )
    def test_demonstration_without_a_path_is_not_the_folder_of_the_shell(self, load: Load, section: str) -> None:
        with pytest.raises(SettingsError, match=r"demo_path.*allowed: text that is not empty"):
            load(f"behaviors:\n  A:\n    {section}\n")

    def test_encoding_size_stands_in_for_hidden_units_with_a_warning(self, load: Load) -> None:
        loaded = load("behaviors:\n  A:\n    reward_signals:\n      curiosity:\n        encoding_size: 64\n")
        signal = loaded.options.behaviors["A"].reward_signals["curiosity"]
        assert signal.network_settings.hidden_units == 64
        (warning,) = loaded.warnings
        assert (warning.line, warning.column) == (5, 9)
        assert "network_settings.hidden_units" in warning.message

    def test_encoding_size_beside_network_settings_is_ignored_with_a_warning(self, load: Load) -> None:
        loaded = load("behaviors: {A: {reward_signals: {rnd: {encoding_size: 64, network_settings: {}}}}}")
        assert loaded.options.behaviors["A"].reward_signals["rnd"].network_settings.hidden_units == 128
        assert "is ignored" in loaded.warnings[0].message

    def test_null_encoding_size_is_what_mlagents_itself_writes(self, load: Load) -> None:
        assert load("behaviors: {A: {reward_signals: {rnd: {encoding_size: ~}}}}").warnings == []


def test_settings_built_in_python_are_checked_like_those_of_files() -> None:
    with pytest.raises(ValueError, match="sequence_length"):
        TrainerSettings(
            hyperparameters=OnPolicyHyperparameters(batch_size=8),
            network_settings={"memory": {"sequence_length": 9}},  # type: ignore[arg-type]
        )
    with pytest.raises(ValueError, match="Extra inputs"):
        OnPolicyHyperparameters(batch_sise=3)  # type: ignore[call-arg]
