from __future__ import annotations

from pathlib import Path

import pytest

from mlhooks.cli import main
from mlhooks.testing.checks import every_plugin
from mlhooks.testing.trainer_obstacles import obstacle
from mlhooks.testing.trainer_trial import Trial
from tests.testing.plugins import TRAINER, target_of

SETTINGS = '    conformance_settings = {"hyperparameters": {"batch_size": 64, "buffer_size": 64}, "max_steps": 500}\n'


def trial_of(folder: Path, old: str = "", new: str = "") -> Trial:
    return Trial(target_of(folder, TRAINER, old, new), "mine")


def test_right_trainer_has_no_obstacle(tmp_path: Path) -> None:
    assert obstacle(trial_of(tmp_path)) is None


def test_trainer_that_names_no_settings_is_tried_with_those_that_suit_most(tmp_path: Path) -> None:
    trial = trial_of(tmp_path, SETTINGS, "")
    assert obstacle(trial) is None
    assert trial.settings()["hyperparameters"] == {
        "batch_size": 64,
        "buffer_size": 256,
        "learning_rate": 0.003,
        "learning_rate_schedule": "constant",
        "max_grad_norm": 0.5,
        "beta": 0.001,
    }  # PPO's value_clipping is not among them.
    assert trial.settings()["network_settings"]["hidden_units"] == 32


def test_settings_that_a_trainer_names_come_first_key_by_key(tmp_path: Path) -> None:
    asked = trial_of(tmp_path).settings(network_settings={"num_layers": 2})
    assert {name: asked["hyperparameters"][name] for name in ("buffer_size", "learning_rate")} == {
        "buffer_size": 64,
        "learning_rate": 0.003,
    }
    assert asked["max_steps"] == 500
    assert asked["network_settings"]["num_layers"] == 2


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            SETTINGS,
            "    ready_to_update = lambda self: False\n",
            "with buffer_size 256. These settings suit most trainers, and there is no MyTrainer.conformance_settings:",
        ),
        (
            "    conformance_settings",
            "    ready_to_update = lambda self: False\n    conformance_setings",
            "there is no MyTrainer.conformance_settings (did you mean conformance_settings by conformance_setings?)",
        ),
        (
            '"buffer_size": 64',
            '"buffer_size": 3100',
            "buffer_size 3,100. What MyTrainer.conformance_settings sets is too large",
        ),
        (SETTINGS, "    conformance_settings = []\n", "conformance_settings must be a mapping"),
    ],
)
def test_obstacle_is_said(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert said in (obstacle(trial_of(tmp_path, old, new)) or "")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "    hyperparameters_type",
            "    hyperparameter_type",
            r"has no hyperparameters_type \(did you mean that by hyperparameter_type\?\)",
        ),
        ("hyperparameters_type = A2CSettings", "hyperparameters_type = dict", "hyperparameters_type is <class 'dict'>"),
        ('"mine": MyTrainer', '"mine": object', "'mine' is <class 'object'>, and must be a subclass of mlhooks.pl"),
    ],
)
def test_wrong_offer_is_named_as_in_a_run(tmp_path: Path, old: str, new: str, said: str) -> None:
    with pytest.raises(pytest.fail.Exception, match=rf"'mine' \(file .*mine.py\).* get_trainer_types: .*{said}"):
        every_plugin.test_offers_are_what_hooks_must_return(target_of(tmp_path, TRAINER, old, new))


def test_buffer_that_an_update_empties_in_time_is_no_obstacle(tmp_path: Path) -> None:
    assert obstacle(trial_of(tmp_path, '"buffer_size": 64', '"buffer_size": 2900')) is None


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "    conformance_settings",
            "    conformance_setings",
            r"MyTrainer.conformance_setings \(did you mean conformance_settings\?\)",
        ),
        ("@hookimpl\n", "conformance_exemptions = {}\n\n\n@hookimpl\n", r"conformance_exempt\?"),
    ],
)
def test_misspelt_attribute_is_named(tmp_path: Path, old: str, new: str, said: str) -> None:
    target = target_of(tmp_path, TRAINER, old, new)
    with pytest.raises(pytest.fail.Exception, match=said):
        every_plugin.test_attributes_are_spelt_right(target)


@pytest.mark.parametrize("name", ["hyperparameters", "sampled", "epoch"])
def test_other_attributes_are_left_alone(tmp_path: Path, name: str) -> None:
    target = target_of(tmp_path, TRAINER, "    hyperparameters_type", f"    {name} = 1\n    hyperparameters_type")
    every_plugin.test_attributes_are_spelt_right(target)
    assert name in vars(Trial(target, "mine").kind)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "    conformance_settings",
            '    conformance_exempt = {"test_learns_one_stp": "slow"}\n    conformance_settings',
            r"of MyTrainer names 'test_learns_one_stp', which is no .* test; did you mean test_learns_one_step\?$",
        ),
        ("class MyT", 'conformance_exempt = {"learning": "slow"}\n\n\nclass MyT', "names 'learning', which is no"),
        ("class MyT", 'conformance_exempt = {"test_it_imports": ""}\n\n\nclass MyT', "needs a reason for test_it_imp"),
        ("class MyT", 'conformance_exempt = ["test_it_imports"]\n\n\nclass MyT', "must be a mapping"),
    ],
)
def test_wrong_exemption_is_named(tmp_path: Path, old: str, new: str, said: str) -> None:
    with pytest.raises(pytest.fail.Exception, match=said):
        every_plugin.test_exemptions_name_tests(target_of(tmp_path, TRAINER, old, new))


def test_right_exemption_is_accepted(tmp_path: Path) -> None:
    exempt = 'conformance_exempt = {"test_learns_one_step": "slow"}\n\n\nclass MyT'
    target = target_of(tmp_path, TRAINER, "class MyT", exempt)
    every_plugin.test_exemptions_name_tests(target)
    assert list(vars(target.plugin)["conformance_exempt"]) == ["test_learns_one_step"]


def test_trainer_class_without_settings_is_a_failing_test_and_the_others_are_skipped(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    target_of(tmp_path, TRAINER, "    hyperparameters_type", "    hyperparameter_type")
    path = str(tmp_path / "mine.py")
    chosen = "must_return or can_be_tried or values_are_the_true"
    assert main(["plugins", "check", path, "-k", chosen]) == 1
    out = capfd.readouterr().out
    assert "its MyTrainer has no hyperparameters_type" in " ".join(out.split())
    assert "1 failed, 2 skipped" in out
    assert "ERROR" not in out
