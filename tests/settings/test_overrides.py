from __future__ import annotations

from typing import Any

import pytest

from tests.settings.conftest import Load, Refuse

FILE = """\
behaviors:
  A: {max_steps: 1}
  My.Agent: {max_steps: 2}
environment_parameters:
  wall:
    curriculum:
      - {name: a, value: 1}
engine_settings:
"""


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("behaviors.A.max_steps=5e3", ("behaviors", "A", "max_steps"), 5000),
        ('behaviors."My.Agent".max_steps=3', ("behaviors", "My.Agent", "max_steps"), 3),
        ("behaviors.'My.Agent'.max_steps=3", ("behaviors", "My.Agent", "max_steps"), 3),
        ("behaviors.A.network_settings.hidden_units=7", ("behaviors", "A", "network_settings", "hidden_units"), 7),
        ("behaviors.A.network_settings={hidden_units: 7}", ("behaviors", "A", "network_settings", "hidden_units"), 7),
        ("behaviors.A.init_path=C:\\runs\\a=b.pt", ("behaviors", "A", "init_path"), "C:\\runs\\a=b.pt"),
        ("env_settings.env_path=gymnasium:CartPole-v1", ("env_settings", "env_path"), "gymnasium:CartPole-v1"),
        ("env_settings.env_kwargs.size=4", ("env_settings", "env_kwargs", "size"), 4),
        ("engine_settings.width=100", ("engine_settings", "width"), 100),
        ("torch_settings.device=", ("torch_settings", "device"), None),
        (
            "environment_parameters.wall.curriculum.0.name=b",
            ("environment_parameters", "wall", "curriculum", 0, "name"),
            "b",
        ),
        ("debug=true", ("debug",), True),
    ],
)
def test_a_setting_is_changed(load: Load, text: str, path: tuple[str | int, ...], value: Any) -> None:
    loaded = load(FILE, overrides=[text])
    assert loaded.warnings == []
    result: Any = loaded.options.as_dict()
    for part in path:
        result = result[part]
    assert result == value


def test_a_star_means_every_behavior_and_the_defaults(load: Load) -> None:
    text = FILE + "default_settings: {max_steps: 3}\n"
    options = load(text, overrides=["behaviors.*.max_steps=9"]).options
    assert [options.settings_for(name).max_steps for name in ("A", "My.Agent", "unlisted")] == [9, 9, 9]


def test_a_star_without_any_behavior_means_those_of_the_environment(load: Load) -> None:
    options = load("debug: true\n", flags={"behaviors.*.network_settings.deterministic": True}).options
    assert options.settings_for("Any").network_settings.deterministic


def test_later_overrides_win_over_earlier_ones_and_over_flags_and_those_over_the_file(load: Load) -> None:
    settings = {"flags": {"env_settings.seed": 1, "env_settings.base_port": 6000}}
    options = load("env_settings: {seed: 0, base_port: 7000, num_areas: 3}", **settings).options
    assert (options.env_settings.seed, options.env_settings.base_port, options.env_settings.num_areas) == (1, 6000, 3)
    changed = load("debug: false", overrides=["env_settings.seed=2", "env_settings.seed=3"], **settings).options
    assert changed.env_settings.seed == 3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("behaviors.A.max_steps", "KEY.PATH=VALUE"),
        ("=3", "KEY.PATH=VALUE"),
        ("behaviors..x=3", "KEY.PATH=VALUE"),
        ("behaviors.A.max_steps=[1", "not valid YAML"),
        ("behaviors.A.max_steps=-1", "at least 0"),
        ("behaviors.A.max_step=1", "did you mean max_steps?"),
        ("behaviors.A.network_settings={hidden_units: 0}", "hidden_units: not a valid value"),
        ("behaviors.A.max_steps.x=1", "behaviors.A.max_steps has no keys below it"),
        ("environment_parameters.wall.curriculum.1.name=b", "is a list of 1"),
        ("environment_parameters.wall.curriculum.first.name=b", "is a list of 1"),
        ("a.b.c=1", "unknown key"),
        ("engine_settings={width: 1, width: 2}", "twice"),
    ],
)
def test_errors_name_the_option(refuse: Refuse, text: str, words: str) -> None:
    (finding,) = refuse(FILE, overrides=[text])
    assert finding.option == f"--set {text}"
    assert finding.line is None or "YAML" in finding.message or "twice" in finding.message
    assert str(finding).startswith(f"--set {text}: ")
    assert words in str(finding)


@pytest.mark.parametrize(
    ("key", "value", "flag"),
    [
        ("env_settings.num_envs", 0, "--num-envs"),
        ("env_settings.env_path", 3.5j, "--env"),
        ("torch_settings.device", True, "--torch-device"),
        ("behaviors.*.network_settings.deterministic", "maybe", "--deterministic"),
    ],
)
def test_errors_name_the_flag(refuse: Refuse, key: str, value: Any, flag: str) -> None:
    findings = refuse(FILE, flags={key: value})
    assert {finding.option for finding in findings} == {flag}


@pytest.mark.parametrize("name", ["a", "Quite another"])
def test_a_behavior_that_the_file_lacks_is_an_error(refuse: Refuse, name: str) -> None:
    (finding,) = refuse(FILE, overrides=[f'behaviors."{name}".max_steps=4'])
    assert (finding.found, finding.allowed) == (name, "A, My.Agent, * for all")
    assert finding.nearest == ("A" if name == "a" else None)


def test_a_behavior_unlike_those_of_the_file_may_start_from_its_default_settings(load: Load) -> None:
    text = FILE + "default_settings: {max_steps: 3, summary_freq: 2}\n"
    loaded = load(text, overrides=["behaviors.Third.max_steps=4"])
    settings = loaded.options.behaviors["Third"]
    assert (settings.max_steps, settings.summary_freq) == (4, 2)
    (warning,) = loaded.warnings
    assert (warning.found, warning.allowed, warning.nearest) == ("Third", "A, My.Agent", None)


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("hyperparameters.gamma", "behaviors.*.reward_signals.extrinsic.gamma"),
        ("hyperparameters.lr", "behaviors.*.hyperparameters.learning_rate"),
        ("lr", "behaviors.*.hyperparameters.learning_rate"),
        ("total-timesteps", "behaviors.*.max_steps"),
        ("max_steps", "behaviors.*.max_steps"),
        ("network_settings.hidden_units", "behaviors.*.network_settings.hidden_units"),
        ("n_envs", "env_settings.num_areas"),
        ("A.max_steps", "behaviors.A.max_steps"),
        ("env_setings.size", "env_settings.size"),
        ("nothing.at.all", None),
    ],
)
def test_a_path_that_begins_with_no_section_gets_the_one_that_was_meant(
    refuse: Refuse, path: str, meant: str | None
) -> None:
    (finding,) = refuse(FILE, overrides=[f"{path}=1"])
    assert (finding.key, finding.nearest) == (path, meant)


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("hyperparameters.lr", "behaviors.A.hyperparameters.learning_rate"),
        ("hyperparameters.gamma", "behaviors.A.reward_signals.extrinsic.gamma"),
        ("n_epochs", "behaviors.A.hyperparameters.num_epoch"),
        ("gamma", "behaviors.A.reward_signals.extrinsic.gamma"),
        ("network_settings.lr", "behaviors.A.hyperparameters.learning_rate"),
    ],
)
def test_a_key_of_another_tool_gets_its_name_here(load: Load, refuse: Refuse, path: str, meant: str) -> None:
    text = "behaviors: {A: {trainer_type: ppo}}"
    override = f"behaviors.A.{path}=1"
    findings = load(text, overrides=[override]).warnings if "network" in path else refuse(text, overrides=[override])
    assert [finding.nearest for finding in findings] == [meant]


DEFAULTS = """\
default_settings: {max_steps: 5, network_settings: {num_layers: 3}}
behaviors:
  A: {max_steps: 7, network_settings: {num_layers: 1}}
  B: {trainer_type: ppo}
"""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "default_settings.max_steps=50",
            "A has its own max_steps, which counts there; write behaviors.A.max_steps=... to change that",
        ),
        ("default_settings={max_steps: 50, time_horizon: 9}", "A has its own max_steps"),
        ("default_settings.network_settings.num_layers=4", "A has its own num_layers"),
        ("default_settings.network_settings.hidden_layers=[4]", "A has its own num_layers"),
        ("default_settings.network_settings.hidden_units=4", ""),
        ("behaviors.*.max_steps=50", ""),
    ],
)
def test_default_that_a_behavior_does_not_take_is_said(load: Load, text: str, said: str) -> None:
    warnings = load(DEFAULTS, overrides=[text]).warnings
    assert [(each.option, said in each.message) for each in warnings] == ([(f"--set {text}", True)] if said else [])


def test_widths_that_are_null_leave_a_default_number_of_layers_in_force(load: Load) -> None:
    text = "default_settings: {max_steps: 5}\nbehaviors: {A: {network_settings: {hidden_layers: null}}}\n"
    loaded = load(text, overrides=["default_settings.network_settings.num_layers=4"])
    assert not loaded.warnings
    assert loaded.options.behaviors["A"].network_settings.layers == [128] * 4


def test_all_behaviors_that_do_not_take_a_default_are_said(load: Load) -> None:
    text = DEFAULTS.replace("{trainer_type: ppo}", "{max_steps: 9}")
    (warning,) = load(text, overrides=["default_settings.max_steps=50"]).warnings
    assert warning.message == (
        "A and B have their own max_steps, which count there; write behaviors.*.max_steps=... to change that"
    )


@pytest.mark.parametrize(
    ("texts", "layers"),
    [
        (["behaviors.A.network_settings.hidden_layers=[4, 5]"], [4, 5]),
        (["behaviors.B.network_settings.hidden_layers=[4, 5]"], [4, 5]),
        (["behaviors.*.network_settings.hidden_layers=[4, 5]"], [4, 5]),
        (["default_settings.network_settings.hidden_layers=[4, 5]"], [4, 5]),
        (["behaviors.B.network_settings.hidden_layers=[4]", "behaviors.*.network_settings.num_layers=2"], [128, 128]),
        (["behaviors.*.network_settings.hidden_layers=null"], [128, 128, 128]),
    ],
)
def test_widths_and_the_number_of_layers_replace_each_other(load: Load, texts: list[str], layers: list[int]) -> None:
    options = load(DEFAULTS, overrides=texts).options
    chosen = "A" if ".A." in texts[0] else "B"
    assert options.behaviors[chosen].network_settings.layers == layers


def test_number_of_layers_replaces_the_widths_of_the_file_and_of_its_defaults(load: Load) -> None:
    text = "default_settings: {network_settings: {hidden_layers: [4, 5]}}\nbehaviors: {A: {}, B: {}}\n"
    text = text.replace("B: {}", "B: {network_settings: {num_layers: 1}}")
    options = load(text, overrides=["behaviors.A.network_settings.num_layers=3"]).options
    widths = {name: each.network_settings.layers for name, each in options.behaviors.items()}
    assert widths == {"A": [128] * 3, "B": [128]}
