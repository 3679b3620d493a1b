"""What plugins change in the arguments of their hooks, and in the outcome of a run."""

from __future__ import annotations

import copy
import inspect
from pathlib import Path

import pytest

from mlhooks.plugins import PluginManager
from tests.test_hookspecs import SPECS, plugin_with


@pytest.mark.parametrize(
    ("hook", "argument", "value"),
    [
        ("write_stats", "values", {"a": 1}),
        ("update_finished", "losses", {"a": 1}),
        ("add_property", "value", {"a": {"b": 1}}),
        ("configure", "options", {"a": {"b": 1}}),
        ("create_env_manager", "options", {"a": {"b": 1}}),
        ("register_side_channels", "options", {"a": {"b": 1}}),
        ("create_policy", "behavior_spec", {"a": {"b": 1}}),
        ("behavior_added", "behavior_spec", {"a": {"b": 1}}),
    ],
)
def test_what_a_plugin_changes_in_its_arguments_reaches_no_other(hook, argument, value):
    seen, kept = [], copy.deepcopy(value)

    def empties(given):
        for inner in given[argument].values():
            if isinstance(inner, dict):
                inner.clear()
        given[argument].clear()

    manager = PluginManager(strict=True)
    manager.register(plugin_with(hook, lambda given: seen.append(given[argument])), "last")
    manager.register(plugin_with(hook, empties), "middle")
    manager.register(plugin_with(hook, empties), "first")
    given = {name: value if name == argument else name for name in inspect.signature(SPECS[hook]).parameters}
    caller = getattr(manager.hook, hook)
    caller.call_historic(kwargs=given) if caller.is_historic() else caller(**given)
    assert seen == [kept]
    assert value == kept


class Outcome:
    """As RunOutcome."""

    def __init__(self):
        self.status, self.error = "finished", None
        self.files = {"model": ["a.pt"]}


def finish(change):
    """Return the outcome that one plugin changes, and what the next plugin sees of it."""
    seen, outcome, manager = {}, Outcome(), PluginManager()
    manager.register(plugin_with("run_finished", lambda given: seen.update(copy.deepcopy(vars(given["outcome"])))))
    # It is called first.
    manager.register(plugin_with("run_finished", lambda given: change(given["outcome"])), "changes")
    manager.hook.run_finished(run=None, outcome=outcome)
    return outcome, seen


def fail(outcome):
    outcome.status, outcome.error = "failed", "no exception"


def test_plugin_does_not_change_for_others_how_a_run_ended():
    outcome, seen = finish(fail)
    assert seen == {"status": "finished", "error": None, "files": {"model": ["a.pt"]}}
    assert (outcome.status, outcome.error) == ("finished", None)


@pytest.mark.parametrize(
    "add",
    [
        lambda outcome: outcome.files.setdefault("video", []).append(Path("b.mp4")),
        lambda outcome: setattr(outcome, "files", {**outcome.files, "video": [Path("b.mp4")]}),
    ],
    ids=["in place", "by another dictionary"],
)
def test_plugin_adds_files_to_the_outcome(add):
    outcome, seen = finish(add)
    assert outcome.files == seen["files"] == {"model": ["a.pt"], "video": [Path("b.mp4")]}


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda outcome: outcome.files.update(video=[3, None]), "made 'video' of the outcome's files [3, None]"),
        (lambda outcome: outcome.files.update(video="b.mp4"), "made 'video' of the outcome's files 'b.mp4'"),
        (lambda outcome: outcome.files.update({3: ["b.mp4"]}), "made 3 of the outcome's files ['b.mp4']"),
        (lambda outcome: outcome.files["model"].append(None), "made 'model' of the outcome's files ['a.pt', None]"),
        (lambda outcome: setattr(outcome, "files", None), "made the files of the outcome None"),
    ],
)
def test_wrong_files_of_an_outcome_are_named_and_left_out(spoil, words, caplog):
    outcome, seen = finish(spoil)
    assert outcome.files == seen["files"] == {"model": ["a.pt"]}
    (record,) = caplog.records
    assert "plugin 'changes'" in record.getMessage()
    assert words in record.getMessage()
