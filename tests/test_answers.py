"""What plugins may return from hooks, and what is said where they return something else."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import BaseModel, Field, RootModel

from mlhooks import hookimpl
from mlhooks.errors import PluginError
from mlhooks.plugins import Origin, PluginManager
from mlhooks.settings import RewardSignalSettings, SettingsModel
from mlhooks.training.reward_signals import RewardSignal
from mlhooks.training.trainer import Trainer
from tests.parts import ANSWERS, AnyChannel, AnyManager, AnyPolicy, AnySignal, AnyTrainer
from tests.test_hookspecs import call, plugin_with

ORIGIN = Origin("culprit", "mlhooks-culprit", "4.2", "entry point")


class Half(AnyTrainer):
    hyperparameters_type = dict


class Slip(Trainer):
    hyperparameter_type = RewardSignalSettings
    store_rows = ready_to_update = update = None


class Unfinished(Trainer):
    hyperparameters_type = AnyTrainer.hyperparameters_type


class Abstract(RewardSignal): ...


class Forgot(AnyPolicy):
    inputs = property()


class Endless(dict):
    def __iter__(self):
        raise ValueError("no keys today")

    def __repr__(self):
        raise ValueError("no text either")


class Aliased(BaseModel):
    key: int = Field(1, validation_alias="other")


class Listed(RootModel[list[int]]): ...


SIGNAL = (AnySignal, RewardSignalSettings)
WRONG = [
    ("register_commands", "command", "must add its commands to `cli`"),
    ("get_env_types", "maze", "returned 'maze', and must return a mapping of schemes"),
    ("get_env_types", [("maze", print)], "and must return a mapping of schemes"),
    ("get_env_types", {"maze": "make_maze"}, "factory of 'maze' is 'make_maze', which cannot be called"),
    ("get_env_types", {3: print}, "the key 3, an int"),
    ("get_env_types", {"": print}, "the key ''"),
    ("get_env_types", {"m": print}, "the scheme 'm', which --env cannot reach"),
    ("get_env_types", {"my maze": print}, "the scheme 'my maze', which --env cannot reach"),
    ("get_env_types", {"my:maze": print}, "the scheme 'my:maze', which --env cannot reach"),
    ("get_env_types", Endless(), "no keys today"),
    ("get_trainer_types", AnyTrainer, "and must return a mapping of trainer types"),
    ("get_trainer_types", {"mine": int}, "'mine' is <class 'int'>"),
    ("get_trainer_types", {"mine": "AnyTrainer"}, "'mine' is 'AnyTrainer', and must be a subclass"),
    (
        "get_trainer_types",
        {"mine": Half},
        "Half.hyperparameters_type is <class 'dict'>",
    ),
    ("get_trainer_types", {"mine": Slip}, "has no hyperparameters_type (did you mean that by hyperparameter_type?)"),
    ("get_trainer_types", {"mine": Unfinished}, "which lacks store_rows"),
    ("get_reward_signals", {"mine": AnySignal}, "must be a pair"),
    ("get_reward_signals", {"mine": (AnySignal,)}, "must be a pair"),
    ("get_reward_signals", {"mine": (AnySignal, RewardSignalSettings, 1)}, "must be a pair"),
    ("get_reward_signals", {"mine": SIGNAL[::-1]}, "the first of its 'mine' is <class"),
    ("get_reward_signals", {"mine": (AnySignal, dict)}, "the second of its 'mine' is <class 'dict'>"),
    ("get_reward_signals", {"mine": (Abstract, RewardSignalSettings)}, "which lacks evaluate"),
    ("get_plugin_settings", SettingsModel, "and must return a mapping of names to pydantic models"),
    ("get_plugin_settings", {3: SettingsModel}, "the key 3, an int"),
    ("get_plugin_settings", {"mine": dict}, "its 'mine' is <class 'dict'>, and must be a subclass of mlhooks.plugin"),
    ("get_plugin_settings", {"mine": Listed}, "its 'mine' is <class 'tests.test_answers.Listed'>"),
    ("get_plugin_settings", {"mine": Aliased()}, "a section of settings; return the class Aliased"),
    ("get_plugin_settings", {"mine": Aliased}, "its 'mine' has an alias for 'key'"),
    ("create_env_manager", 3, "returned an int, which is no mlhooks.plugin.EnvManager, and has no ready"),
    ("create_env_manager", AnyManager, "returned the class AnyManager, which is no"),
    ("create_policy", 3, "returned 3, an int, and must return a mlhooks.plugin.Policy"),
    ("create_policy", AnyPolicy, "the class AnyPolicy, and must return a mlhooks.plugin.Policy"),
    ("create_policy", Forgot(), "__init__ of its Forgot does not call super().__init__"),
    ("create_optimizer", torch.optim.SGD([torch.zeros(1)]), "a SGD, and must return a mlhooks.plugin.Optimizer"),
    ("register_side_channels", "channel", "returned 'channel', and must return a list of side channels"),
    ("register_side_channels", AnyChannel(1), "and must return a list of side channels"),
    ("register_side_channels", [AnyChannel(1), "two"], "returned 'two' among its side channels"),
    ("register_side_channels", [AnyChannel], "among its side channels"),
    ("summary_stats", [("a", 1.0)], "and must return a mapping of statistics keys to numbers"),
    ("summary_stats", {"a": "high"}, "its 'a' is 'high', a str, and must be a number"),
    ("summary_stats", {"a": None}, "its 'a' is None, and must be a number"),
    ("summary_stats", {"a": torch.ones(())}, "a Tensor, and must be a number; a number comes from it by .item()"),
    ("summary_stats", {"a": np.ones(1)}, "a ndarray, and must be a number; a number comes from it by .item()"),
    ("summary_stats", {"a": 1j}, "a complex, and must be a number"),
    ("summary_stats", {"a": 10**400}, "too large for a float"),
    ("summary_stats", {7: 1.0}, "the key 7, an int"),
]


def manager_with(hook, answer, **options):
    manager = PluginManager(**options)
    manager.register(plugin_with(hook, lambda _: ANSWERS[hook][0] if hook in ANSWERS else None), "right")
    manager.register(plugin_with(hook, lambda _: answer), "culprit", origin=ORIGIN)
    return manager


def complaint(hook, answer, caplog, **options):
    """Return what is said about an answer: an error, or a failure that is contained while others' answers count."""
    manager = manager_with(hook, answer, **options)
    if hook in ("summary_stats", "export_model") and not options:
        caplog.clear()
        _, result = call(manager, hook)
        assert result == [ANSWERS[hook][0]]
        return caplog.text
    with pytest.raises(PluginError) as caught:
        call(manager, hook)
    return str(caught.value)


@pytest.mark.parametrize(("hook", "answer", "words"), WRONG, ids=[f"{hook}-{words}" for hook, _, words in WRONG])
def test_wrong_answer_is_named_with_its_plugin_and_what_is_wanted(hook, answer, words, caplog):
    said = complaint(hook, answer, caplog)
    assert f"plugin 'culprit' (mlhooks-culprit 4.2) failed in its hook {hook}: " in said
    assert words in said


def test_wrong_answer_of_a_contained_hook_is_fatal_in_strict_mode(caplog):
    assert "must be a number" in complaint("summary_stats", {"a": "high"}, caplog, strict=True)


def test_place_of_the_function_that_answered_is_named(caplog):
    class Plugin:
        @hookimpl
        def create_policy(self):
            return 3

    manager = PluginManager()
    manager.register(Plugin(), "culprit")
    with pytest.raises(PluginError, match=r"create_policy: it returned 3.*\(.*test_answers\.py:\d+\)"):
        manager.hook.create_policy(trainer=None, behavior_spec=None)


def test_any_real_number_is_a_statistic_and_becomes_a_float():
    manager, given = PluginManager(), {"a": True, "b": np.float32(0.5), "c": np.int64(3), "d": 2, "e": np.True_}
    manager.register(plugin_with("summary_stats", lambda _: {**given, "f": float("nan")}))
    numbers = manager.collect_mapping("summary_stats", trainer=None, step=1)
    assert np.isnan(numbers.pop("f"))
    assert numbers == {"a": 1.0, "b": 0.5, "c": 3.0, "d": 2.0, "e": 1.0}
    assert {type(number) for number in numbers.values()} == {float}


class TestExportedFiles:
    """Of a checkpoint of behavior B, in the folder of a run."""

    @pytest.fixture
    def stem(self, tmp_path):
        folder = tmp_path / "run"
        for file in ("run_logs/training_status.json", "B/B-200.pt", "B/B-200.onnx", "B/sub/more.bin", "top.onnx"):
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).touch()
        (tmp_path / "outside.onnx").touch()
        return folder / "B" / "B-200"

    def exported(self, stem, answer, **options):
        manager = PluginManager(**options)
        manager.register(plugin_with("export_model", lambda _: answer), "culprit", origin=ORIGIN)
        return manager.hook.export_model(trainer=None, path=stem)

    def test_files_in_the_run_count_once_as_paths_below_it(self, stem, monkeypatch):
        run = stem.parent.parent
        monkeypatch.chdir(run)
        answer = [
            stem.with_suffix(".onnx"),
            "B/B-200.onnx",
            str(run / "B" / "sub" / ".." / "sub" / "more.bin"),
            "top.onnx",
        ]
        wanted = [run / "B" / "B-200.onnx", run / "B" / "sub" / "more.bin", run / "top.onnx"]
        assert self.exported(stem, iter(answer)) == [wanted]

    @pytest.mark.parametrize(
        ("answer", "words"),
        [
            ([None], "returned None among the files that it wrote"),
            ([3], "returned 3 among the files"),
            ([b"B/B-200.onnx"], "returned b'B/B-200.onnx' among the files"),
            (["B\0"], r"returned 'B\x00' among the files"),
            ("B/B-200.onnx", "returned 'B/B-200.onnx', and must return a list of the paths"),
            (Path("B/B-200.onnx"), "and must return a list of the paths"),
            ({"onnx": "B/B-200.onnx"}, "and must return a list of the paths"),
            (["../outside.onnx"], "names ../outside.onnx, which is not in the run's folder"),
            (["link.onnx"], "names link.onnx, which is not in the run's folder"),
            (["/"], "which is not in the run's folder"),
            ([""], "which is a folder"),
            (["B/sub"], "which is a folder: name the files in it"),
            (["B/none.onnx"], "which is not there"),
            (["B/B-200.onnx/below"], "which is not there"),
            (["x" * 300], "which is not there"),
            (["B/B-200.pt"], "which is the checkpoint: export under another suffix"),
        ],
    )
    def test_what_is_no_file_in_the_run_is_refused_and_named(self, stem, answer, words, monkeypatch, caplog):
        monkeypatch.chdir(stem.parent.parent)
        Path("link.onnx").symlink_to("../outside.onnx")
        assert self.exported(stem, answer) == []
        assert "plugin 'culprit' (mlhooks-culprit 4.2) failed in its hook export_model: it " in caplog.text
        assert words in caplog.text
        with pytest.raises(PluginError, match="'culprit'"):
            self.exported(stem, answer, strict=True)


def wrapper(hook, change, **options):
    """Return a wrapper that returns what `change` makes of the result, or changes it itself."""
    if options.get("hookwrapper"):

        def wrapping(self):
            outcome = yield
            outcome.force_result(change(outcome.get_result()))

    else:

        def wrapping(self):
            return change((yield))

    return type("Wrapper", (), {hook: hookimpl(**options)(wrapping)})()


@pytest.mark.parametrize("options", [{"wrapper": True}, {"hookwrapper": True}], ids=["new", "old"])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda results: [*results, {"b": "text"}], "its 'b' is 'text'"),
        (lambda results: results[0].update(a="text") or results, "its 'a' is 'text'"),
        (lambda results: results.clear(), "returned None, and must return the list of the plugins' answers"),
    ],
    ids=["adds", "changes", "forgets"],
)
def test_wrapper_that_spoils_the_answers_is_named_and_stands_aside(options, change, words, caplog):
    manager = PluginManager()
    manager.register(plugin_with("summary_stats", lambda _: {"a": 1.0}), "right")
    manager.register(wrapper("summary_stats", change, **options), "culprit", origin=ORIGIN)
    assert manager.collect_mapping("summary_stats", trainer=None, step=1) == {"a": 1.0}
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "plugin 'culprit' (mlhooks-culprit 4.2) failed in its hook summary_stats" in record.getMessage()
    assert words in record.getMessage()


@pytest.mark.filterwarnings("ignore::pluggy.PluggyTeardownRaisedWarning")
@pytest.mark.parametrize("options", [{"wrapper": True}, {"hookwrapper": True}], ids=["new", "old"])
def test_wrapper_that_puts_something_else_in_the_place_of_a_policy_is_named(options):
    manager = PluginManager()
    manager.register(plugin_with("create_policy", lambda _: AnyPolicy()), "right")
    manager.register(wrapper("create_policy", lambda policy: 3, **options), "culprit", origin=ORIGIN)
    with pytest.raises(PluginError, match=r"'culprit' \(mlhooks-culprit 4\.2\) failed in its hook create_policy: it"):
        manager.hook.create_policy(trainer=None, behavior_spec=None)


@pytest.mark.filterwarnings("ignore::pluggy.PluggyTeardownRaisedWarning")
@pytest.mark.parametrize("hook", ["create_policy", "create_optimizer", "create_env_manager"])
@pytest.mark.parametrize("options", [{"wrapper": True}, {"hookwrapper": True}], ids=["new", "old"])
def test_wrapper_that_takes_an_answer_away_is_named(hook, options):
    manager = PluginManager()
    manager.register(plugin_with(hook, lambda _: ANSWERS[hook][0]), "right")
    manager.register(wrapper(hook, lambda answer: None, **options), "culprit", origin=ORIGIN)
    with pytest.raises(PluginError, match=rf"'culprit' .* failed in its hook {hook}: it returned None in place of"):
        call(manager, hook)


def test_wrapper_that_changes_an_answer_rightly_changes_it():
    manager = PluginManager()
    manager.register(plugin_with("summary_stats", lambda _: {"a": 1.0}), "right")
    manager.register(wrapper("summary_stats", lambda found: [{**found[0], "b": 2}], wrapper=True), "other")
    assert manager.collect_mapping("summary_stats", trainer=None, step=1) == {"a": 1.0, "b": 2.0}
