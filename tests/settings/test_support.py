from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest

from mlhooks.errors import UnsupportedError
from mlhooks.settings import Finding, LoadedOptions, SettingsRegistry
from mlhooks.settings.support import refuse_unsupported, unsupported_settings
from tests.settings.conftest import PPO, Load


@dataclass(frozen=True)
class Abilities:
    memory: bool = True
    self_play: bool = True
    behavioral_cloning: bool = True


class AblePPO(PPO):
    supports: ClassVar[Abilities] = Abilities()


ALL = """\
behaviors:
  A:
    network_settings:
      memory: {memory_size: 64}
    reward_signals:
      extrinsic: {}
      gail: {demo_path: d}
    self_play: {}
    behavioral_cloning: {demo_path: d}
    threaded: true
    keep_checkpoints: 3
    even_checkpoints: true
    init_path: a.pt
"""


def unsupported(loaded: LoadedOptions, registry: SettingsRegistry) -> list[Finding]:
    return unsupported_settings(loaded.options, registry.trainer_types, registry.reward_signals)


def test_all_that_cannot_be_done_is_named_with_its_place(load: Load, registry: SettingsRegistry) -> None:
    findings = unsupported(load(ALL), registry)
    assert [(finding.severity, finding.line, finding.key) for finding in findings] == [
        ("error", 4, "behaviors.A.network_settings.memory"),
        ("error", 7, "behaviors.A.reward_signals.gail"),
        ("error", 8, "behaviors.A.self_play"),
        ("error", 9, "behaviors.A.behavioral_cloning"),
        ("warning", 10, "behaviors.A.threaded"),
    ]


def test_a_run_refuses_all_of_it_at_once(load: Load, registry: SettingsRegistry) -> None:
    with pytest.raises(UnsupportedError, match="4 errors") as caught:
        refuse_unsupported(load(ALL), registry)
    text = str(caught.value)
    assert "config.yaml:4:7: behaviors.A.network_settings.memory: the trainer type ppo does not support memory" in text
    assert "no installed plugin provides the reward signal gail (installed: extrinsic, wonder)" in text
    assert "threaded" not in text


def test_what_trainer_type_and_plugins_support_passes(load: Load, registry: SettingsRegistry) -> None:
    able = SettingsRegistry({"ppo": AblePPO}, {**registry.reward_signals, "gail": registry.reward_signals["extrinsic"]})
    findings = refuse_unsupported(load(ALL), able)
    assert [finding.key for finding in findings] == ["behaviors.A.threaded"]


def test_plain_settings_raise_no_complaint(load: Load, registry: SettingsRegistry) -> None:
    assert (
        refuse_unsupported(load("behaviors: {A: {self_play: null, network_settings: {memory: null}}}"), registry) == []
    )


@pytest.mark.parametrize(("behaviors", "count"), [("{A: {max_steps: 9e5}}", 0), ("{A: {}}", 1), ("{}", 1)])
def test_default_settings_are_looked_at_through_the_behaviors_that_are_listed(
    load: Load, registry: SettingsRegistry, behaviors: str, count: int
) -> None:
    findings = unsupported(load(f"default_settings: {{max_steps: 50}}\nbehaviors: {behaviors}\n"), registry)
    assert [str(finding).count("the run ends at max_steps 50") for finding in findings] == [1] * count


@pytest.mark.parametrize(
    ("trainer", "settings", "line", "message"),
    [
        ("ppo", "{buffer_size: 1001}", 5, "buffer_size: nothing will be learned: the run ends at max_steps 1000, and"),
        (
            "ppo",
            "{buffer_size: 1000}",
            5,
            "buffer_size: hardly anything will be learned: the run ends at max_steps 1000, a",
        ),
        ("ppo", "{buffer_size: 251}", 5, "after 3 updates"),
        ("ppo", "{buffer_size: 250}", 0, ""),
        ("ppo", "{}", 5, "the first update needs 10240 steps"),
        ("dqn", "{buffer_init_steps: 1000}", 5, "buffer_init_steps: nothing will be learned"),
        ("dqn", "{buffer_init_steps: 999}", 5, "steps_per_update: hardly anything will be learned"),
        ("dqn", "{steps_per_update: 9}", 5, "after 96 updates"),  # (1000 - 128) / 9
        ("dqn", "{steps_per_update: 8}", 0, ""),
        ("dqn", "{batch_size: 1001}", 5, "batch_size: nothing will be learned"),
        ("dqn", "{batch_size: 500}", 0, ""),
        ("dqn", "{batch_size: 400, buffer_size: 399, steps_per_update: 9}", 0, ""),  # The settings' own check names it.
    ],
)
def test_run_that_ends_before_its_first_updates_is_named(
    load: Load, registry: SettingsRegistry, trainer: str, settings: str, line: int, message: str
) -> None:
    text = f"behaviors:\n  A:\n    trainer_type: {trainer}\n    max_steps: 1000\n    hyperparameters: {settings}\n"
    findings = unsupported(load(text), registry)
    assert [(finding.severity, finding.line) for finding in findings] == ([("warning", line)] if line else [])
    assert message in "".join(map(str, findings))


@pytest.mark.parametrize(
    ("trainer", "message"),
    [
        ("ppo", "batch_size 32 is larger than buffer_size 31: all that is collected for an update is one minibatch"),
        ("dqn", "batch_size 32 is larger than buffer_size 31: no minibatch fills"),
    ],
)
def test_minibatch_larger_than_the_buffer_is_told_with_what_follows(load: Load, trainer: str, message: str) -> None:
    given = f"{{trainer_type: {trainer}, hyperparameters: {{batch_size: 32, buffer_size: 31}}}}"
    assert [message in str(finding) for finding in load(f"behaviors: {{A: {given}}}").warnings] == [True]


def test_watching_needs_no_update(load: Load, registry: SettingsRegistry) -> None:
    loaded = load("behaviors: {A: {max_steps: 1}}", flags={"checkpoint_settings.inference": True})
    assert unsupported(loaded, registry) == []


def test_what_behaviors_inherit_is_named_once_where_it_stands(load: Load, registry: SettingsRegistry) -> None:
    loaded = load("behaviors: {A: {}, B: {}}\ndefault_settings:\n  network_settings:\n    memory: {}\n")
    (finding,) = unsupported(loaded, registry)
    assert (finding.line, finding.key) == (4, "default_settings.network_settings.memory")


def test_a_setting_from_an_option_is_named_by_the_option(load: Load, registry: SettingsRegistry) -> None:
    loaded = load("behaviors: {A: {}}", overrides=["behaviors.A.self_play={}"])
    (finding,) = unsupported(loaded, registry)
    assert finding.place == "--set behaviors.A.self_play={}"
