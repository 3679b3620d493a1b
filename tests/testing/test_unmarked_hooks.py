from __future__ import annotations

from pathlib import Path

import pytest

from mlhooks import plugin_sources
from mlhooks.plugin_sources import Candidate
from mlhooks.testing.checks import every_plugin
from mlhooks.testing.unmarked_hooks import unmarked
from tests.testing.plugins import TRAINER, WRITER, target_of

CLASS = """
from mlhooks import hookimpl


class Writer:
    @hookimpl
    def run_started(self, run): ...

    def write_stats(self, category, values, step): ...


class Helper:
    def configure(self): ...


@hookimpl
def configure(pluginmanager):
    pluginmanager.register(Writer())
"""


def test_unmarked_function_is_named_with_its_line(tmp_path: Path) -> None:
    target = target_of(tmp_path, TRAINER, "@hookimpl\ndef get", "def get")
    line = TRAINER.partition("def get")[0].count("\n")  # It has one line less, as the mark is gone.
    said = rf"get_trainer_types \(.*mine.py:{line}\): mlhooks never calls.* Add @hookimpl"
    with pytest.raises(pytest.fail.Exception, match=said):
        every_plugin.test_hooks_are_marked(target)


def test_unmarked_method_of_a_class_with_hooks_is_named(tmp_path: Path) -> None:
    (found,) = unmarked(target_of(tmp_path, CLASS).plugin)
    assert found.startswith("Writer.write_stats (")


@pytest.mark.parametrize("source", [TRAINER, WRITER, f"{WRITER}\nfrom os.path import exists as run_started\n"])
def test_right_plugin_and_functions_of_others_are_left_alone(tmp_path: Path, source: str) -> None:
    assert unmarked(target_of(tmp_path, source).plugin) == []


@pytest.mark.parametrize("candidate", plugin_sources.builtins(), ids=lambda candidate: candidate.origin.name)
def test_built_in_plugins_are_marked(candidate: Candidate) -> None:
    assert unmarked(candidate.load()) == []
