from __future__ import annotations

from dataclasses import dataclass

import pytest

from mlhooks.errors import PluginError, SettingsError
from mlhooks.settings import Finding, OnPolicyHyperparameters, SettingsRegistry, load_run_options
from mlhooks.settings.findings import dotted, error_from, nearest
from tests.settings.conftest import Refuse


@dataclass(frozen=True)
class Case:
    """YAML with one mistake, and what must be said of it; None where nothing may be said."""

    text: str
    place: tuple[int, int]
    key: str
    found: str | None = None
    allowed: str | None = None
    nearest: str | None = None
    words: str = ""


CASES = {
    "misspelt key": Case(
        "behaviors:\n  A:\n    trainer_type: ppo\n    hyperparameters:\n      batch_sise: 3\n",
        (5, 7),
        "behaviors.A.hyperparameters.batch_sise",
        allowed="batch_size",
        nearest="batch_size",
        words="unknown key",
    ),
    "type that networks cannot be computed in": Case(
        "torch_settings: {autocast: float16}\n",
        (1, 28),
        "torch_settings.autocast",
        found="'float16'",
        allowed="bfloat16 or null",
        nearest="bfloat16",
        words="not a valid value",
    ),
    "misspelt section": Case("behavior: {}\n", (1, 1), "behavior", allowed="env_settings", nearest="behaviors"),
    "key in the wrong section": Case(
        "behaviors:\n  A:\n    hidden_units: 3\n",
        (3, 5),
        "behaviors.A.hidden_units",
        allowed="max_steps",
        nearest="behaviors.A.network_settings.hidden_units",
    ),
    "behavior's key at the top": Case(
        "behaviors: {A: {}}\nmax_steps: 3\n", (2, 1), "max_steps", allowed="debug", nearest="behaviors.<name>.max_steps"
    ),
    "key of another trainer type": Case(
        "behaviors: {A: {trainer_type: dqn, hyperparameters: {beta: 1}}}\n",
        (1, 54),
        "behaviors.A.hyperparameters.beta",
        allowed="tau",
    ),
    "missing trainer type": Case(
        "behaviors:\n  A:\n    trainer_type: sac\n",
        (3, 19),
        "behaviors.A.trainer_type",
        found="'sac'",
        allowed="dqn, ppo",
        words="the trainer type sac is one of ML-Agents' own package, which is not installed: pip install",
    ),
    "trainer type of a package for ML-Agents": Case(
        "behaviors: {A: {trainer_type: 'mlagents:a2c'}}",
        (1, 31),
        "behaviors.A.trainer_type",
        found="'mlagents:a2c'",
        allowed="dqn, ppo",
        words="mlagents:a2c is one for ML-Agents, whose package mlagents is not installed: pip install",
    ),
    "trainer type of a package that is not installed": Case(
        "behaviors: {A: {trainer_type: reinforce}}",
        (1, 31),
        "behaviors.A.trainer_type",
        "'reinforce'",
        "dqn, ppo",
        words="(pip install the package that does, or load its module or file by -p)",
    ),
    "misspelt trainer type": Case(
        "behaviors: {A: {trainer_type: PPO}}", (1, 31), "behaviors.A.trainer_type", "'PPO'", "dqn, ppo", "ppo"
    ),
    "trainer type that is no text": Case(
        "behaviors: {A: {trainer_type: [ppo]}}", (1, 31), "behaviors.A.trainer_type", "['ppo']", "dqn, ppo", "ppo"
    ),
    "number that is no number": Case(
        "behaviors: {A: {max_steps: many}}", (1, 28), "behaviors.A.max_steps", "'many'", "a whole number, at least 0"
    ),
    "fraction": Case(
        "behaviors: {A: {time_horizon: 1.5}}", (1, 31), "behaviors.A.time_horizon", "1.5", "a whole number, at least 1"
    ),
    "truth instead of a number": Case(
        "behaviors: {A: {time_horizon: yes}}", (1, 31), "behaviors.A.time_horizon", "true", "a whole number, at least 1"
    ),
    "null instead of a number": Case(
        "behaviors:\n  A:\n    max_steps:\n", (3, 5), "behaviors.A.max_steps", "null", "a whole number, at least 0"
    ),
    "text instead of truth": Case(
        "behaviors: {A: {threaded: 'false'}}", (1, 27), "behaviors.A.threaded", "'false'", "true or false"
    ),
    "infinite number": Case(
        "behaviors: {A: {reward_signals: {extrinsic: {strength: .inf}}}}",
        (1, 56),
        "behaviors.A.reward_signals.extrinsic.strength",
        ".inf",
        "a number",
        words="not a finite number",
    ),
    "number out of range": Case(
        "behaviors: {A: {reward_signals: {extrinsic: {gamma: 1.01}}}}",
        (1, 53),
        "behaviors.A.reward_signals.extrinsic.gamma",
        "1.01",
        "a number, at least 0, at most 1",
    ),
    "misspelt choice": Case(
        "behaviors: {A: {network_settings: {vis_encode_type: nature}}}",
        (1, 53),
        "behaviors.A.network_settings.vis_encode_type",
        "'nature'",
        "fully_connected, match3, simple, nature_cnn, resnet",
        "nature_cnn",
    ),
    "misspelt reward signal": Case(
        "behaviors:\n  A:\n    reward_signals:\n      curiousity: {}\n",
        (4, 7),
        "behaviors.A.reward_signals.curiousity",
        "curiousity",
        "extrinsic, gail, curiosity, rnd, wonder",
        "curiosity",
    ),
    "no reward signal": Case(
        "behaviors: {A: {reward_signals: {}}}", (1, 33), "behaviors.A.reward_signals", "an empty mapping", "extrinsic"
    ),
    "required key left out": Case(
        "behaviors:\n  A:\n    behavioral_cloning:\n      steps: 3\n",
        (3, 5),
        "behaviors.A.behavioral_cloning.demo_path",
        allowed="text",
        words="required",
    ),
    "section that is a list": Case(
        "behaviors:\n  A:\n    network_settings: [1]\n", (3, 23), "behaviors.A.network_settings", "[1]", "normalize"
    ),
    "section that is empty": Case(
        "behaviors:\n  A:\n    network_settings:\n",
        (3, 5),
        "behaviors.A.network_settings",
        "null",
        "normalize",
        words="write {} for its defaults",
    ),
    "behavior that is empty": Case("behaviors:\n  A:\n", (2, 3), "behaviors.A", "null", "max_steps", words="is empty"),
    "behaviors that are a list": Case("behaviors:\n  - A\n", (2, 3), "behaviors", "['A']", words="must be a section"),
    "memory of odd size": Case(
        "behaviors: {A: {network_settings: {memory: {memory_size: 7}}}}",
        (1, 58),
        "behaviors.A.network_settings.memory.memory_size",
        words="even number",
    ),
    "sequences longer than a minibatch": Case(
        "behaviors:\n  A:\n    trainer_type: ppo\n    hyperparameters: {batch_size: 8}\n"
        "    network_settings:\n      memory: {sequence_length: 9}\n",
        (6, 33),
        "behaviors.A.network_settings.memory.sequence_length",
        words="larger than batch_size 8",
    ),
    "even checkpoints without a number of them": Case(
        "behaviors: {A: {even_checkpoints: true, keep_checkpoints: 0}}",
        (1, 59),
        "behaviors.A.keep_checkpoints",
        words="at least 1",
    ),
    "backslash in double quotes": Case(
        'behaviors: {A: {init_path: "results\\run"}}',
        (1, 28),
        "behaviors.A.init_path",
        "'results\\run'",
        words="control character",
    ),
    "path that is a mapping": Case(
        "behaviors: {A: {init_path: {a: b}}}", (1, 28), "behaviors.A.init_path", "a mapping", "text or null"
    ),
    "arguments that are text": Case(
        "env_settings: {env_args: --level}", (1, 26), "env_settings.env_args", "'--level'", "a list [text, ...] or null"
    ),
    "many workers of the editor": Case(
        "env_settings: {num_envs: 2}", (1, 26), "env_settings.num_envs", words="without env_path"
    ),
    "no areas": Case("env_settings: {num_areas: 0}", (1, 27), "env_settings.num_areas", "0", "at least 1"),
    "error in default_settings": Case(
        "default_settings: {max_step: 3}\nbehaviors: {A: {}, B: {}}\n",
        (1, 20),
        "default_settings.max_step",
        allowed="max_steps",
        nearest="max_steps",
    ),
    "conflict with default_settings": Case(
        "default_settings:\n  network_settings:\n    memory: {sequence_length: 9}\n"
        "behaviors: {A: {hyperparameters: {batch_size: 8}}}\n",
        (3, 31),
        "default_settings.network_settings.memory.sequence_length",
        words="larger than batch_size 8",
    ),
    "repeated key": Case("behaviors: {A: {}}\nbehaviors: {B: {}}\n", (2, 1), "behaviors", words="twice"),
    "layout of old": Case(
        "default:\n  trainer: ppo\n  max_steps: 5.0e4\nWalker:\n  normalize: true\n",
        (1, 1),
        "default",
        words="before ML-Agents 0.16",
    ),
    "layout of old without defaults": Case("Walker:\n  batch_size: 3\n", (1, 1), "Walker", words="under behaviors:"),
    "list": Case("- behaviors\n", (1, 1), "", "['behaviors']", "behaviors", words="must be a section"),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_a_mistake_is_named_with_all_that_helps(refuse: Refuse, case: Case) -> None:
    (finding,) = refuse(case.text)
    assert (finding.line, finding.column) == case.place
    assert finding.key == case.key
    assert finding.found == case.found
    assert (finding.allowed is None) == (case.allowed is None)
    assert (case.allowed or "") in (finding.allowed or "")
    assert finding.nearest == case.nearest
    assert case.words in finding.message
    assert str(finding.file).endswith("config.yaml")


def test_an_empty_file_is_refused(refuse: Refuse) -> None:
    (finding,) = refuse("# nothing\n")
    assert "empty" in finding.message


def test_all_errors_are_reported_at_once_in_the_order_of_lines(refuse: Refuse) -> None:
    findings = refuse(
        """\
        behaviors:
          A:
            trainer_type: mlagents:poca
            hyperparameters: {anything: 1}
            max_steps: -1
            max_steps: -2
          B:
            network_settings: {num_layers: 0, hidden_units: 0}
        engine_settings: {width: wide}
        environment_parameters: {mass: heavy}
        colour: red
        """,
        overrides=["debug=maybe"],
    )
    assert [finding.line for finding in findings] == [3, 6, 6, 8, 8, 9, 10, 11, None]
    assert findings[-1].option == "--set debug=maybe"


def test_entry_with_a_misspelt_trainer_type_is_checked_as_the_type_that_is_meant(refuse: Refuse) -> None:
    hyperparameters = "{batch_sise: 3, buffer_size: -1}"
    findings = refuse(
        f"default_settings: {{trainer_type: dqnn, hyperparameters: {hyperparameters}}}\n"
        f"behaviors:\n  A:\n    trainer_type: pppo\n    hyperparameters: {hyperparameters}\n"
    )
    assert [(finding.line, finding.key.rpartition(".")[2], finding.nearest) for finding in findings] == [
        (1, "trainer_type", "dqn"),
        (1, "batch_sise", "batch_size"),
        (1, "buffer_size", None),
        (4, "trainer_type", "ppo"),
        (5, "batch_sise", "batch_size"),
        (5, "buffer_size", None),
    ]


def test_behavior_inherits_from_defaults_with_a_misspelt_trainer_type_without_findings_of_its_own(
    refuse: Refuse,
) -> None:
    (finding,) = refuse("default_settings: {trainer_type: dqnn}\nbehaviors: {A: {hyperparameters: {tau: 0.1}}}\n")
    assert (finding.key, finding.nearest) == ("default_settings.trainer_type", "dqn")


def test_a_finding_reads_as_one_line() -> None:
    finding = Finding(
        severity="warning",
        file="a.yaml",
        line=3,
        column=5,
        key="x.y",
        message="unknown key",
        found="1",
        allowed="z",
        nearest="z",
    )
    assert str(finding) == "a.yaml:3:5: x.y: unknown key; found 1; allowed: z; did you mean z?"
    assert finding.as_line() == "a.yaml:3:5: warning: x.y: unknown key; found 1; allowed: z; did you mean z?"
    assert str(Finding(severity="error", message="it broke")) == "it broke"


def test_an_error_counts_its_findings_and_keeps_warnings_apart() -> None:
    findings = [Finding(severity="error", message=text, line=line) for text, line in [("two", 2), ("one", 1)]]
    error = error_from(SettingsError, [*findings, *findings, Finding(severity="warning", message="hm", line=3)])
    assert str(error) == "2 errors in the configuration:\n  1: one\n  2: two"
    assert [finding.message for finding in error.findings] == ["one", "two", "hm"]


@pytest.mark.parametrize(
    ("found", "expected"),
    [("Batch-Size", "batch_size"), ("bacth_size", "batch_size"), ("zzz", None), (7, None)],
)
def test_nearest_spelling(found: object, expected: str | None) -> None:
    assert nearest(found, ["batch_size", "buffer_size"]) == expected


def test_key_paths_quote_names_that_need_it() -> None:
    assert dotted(("behaviors", "My Agent", "curriculum", 0, "a.b")) == 'behaviors."My Agent".curriculum.0."a.b"'


def test_a_mapping_is_refused_by_key_path_alone(registry: SettingsRegistry) -> None:
    with pytest.raises(SettingsError, match=r"^behaviors\.A\.max_steps: not a valid value; found 'x'"):
        load_run_options({"behaviors": {"A": {"max_steps": "x"}}}, registry)


def test_a_trainer_class_without_a_settings_model_is_the_plugins_fault() -> None:
    class Odd:
        hyperparameters_type = dict

    with pytest.raises(PluginError, match=r"Odd.*subclass of mlhooks\.plugin\.HyperparameterSettings"):
        load_run_options({"behaviors": {"A": {"trainer_type": "odd"}}}, SettingsRegistry({"odd": Odd}))


def test_validators_of_a_plugins_model_speak_for_themselves() -> None:
    from pydantic import field_validator

    class Model(OnPolicyHyperparameters):
        rollouts: int = 2

        @field_validator("rollouts")
        @classmethod
        def _even(cls, value: int) -> int:
            if value % 2:
                raise ValueError("rollouts come in pairs")
            return value

    trainer = type("T", (), {"hyperparameters_type": Model})
    source = {"behaviors": {"A": {"trainer_type": "t", "hyperparameters": {"rollouts": 3}}}}
    with pytest.raises(
        SettingsError, match=r"behaviors\.A\.hyperparameters\.rollouts: rollouts come in pairs; found 3"
    ):
        load_run_options(source, SettingsRegistry({"t": trainer}))


def test_control_characters_of_a_file_do_not_reach_the_terminal() -> None:
    finding = Finding(severity="error", message="unknown key", key="a\nb\x1b[31m\u2028.é", file="a.yaml", line=2)
    assert str(finding) == "a.yaml:2: a\\nb\\x1b[31m\\u2028.é: unknown key"


def test_path_with_the_escape_of_the_null_character_gets_the_hint(refuse: Refuse) -> None:
    (finding,) = refuse('env_settings:\n  env_path: "C:\\0games\\\\a.exe"\n')
    assert "use single quotes" in finding.message


@pytest.mark.parametrize("key", ["run_id", "results_dir"])
def test_empty_name_is_answered_with_what_a_name_is(refuse: Refuse, key: str) -> None:
    (finding,) = refuse(f"checkpoint_settings: {{{key}: ''}}")
    assert (finding.found, finding.allowed) == ("''", "text that is not empty")
