"""Hooks and arguments that a later version will not have: who uses them is told, and they work as before."""

from __future__ import annotations

import logging
import warnings

import pluggy
import pytest

from mlhooks import hookimpl, hookspecs
from mlhooks.cli import main
from mlhooks.plugins import Origin, PluginManager

hookspec = pluggy.HookspecMarker("mlhooks")
ORIGIN = Origin("late", "mlhooks-late", "4.2", "entry point")
OLD_HOOK = "use write_stats; it goes in version 0.4."
OLD_ARGUMENT = "use category; it goes in version 0.4."


@hookspec(firstresult=True, warn_on_impl=DeprecationWarning(OLD_HOOK))
def choose_color(behavior_name: str) -> str | None:
    """Return a color."""


@hookspec(warn_on_impl_args={"behavior_name": DeprecationWarning(OLD_ARGUMENT)})
def write_note(category: str, behavior_name: str) -> None:
    """Write a note."""


@pytest.fixture
def specified(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if these hooks were among those of mlhooks."""
    for spec in (choose_color, write_note):
        monkeypatch.setattr(hookspecs, spec.__name__, spec, raising=False)


class OldPlugin:
    def __init__(self) -> None:
        self.notes: list[tuple[str, str]] = []

    @hookimpl
    def choose_color(self, behavior_name: str) -> str:
        return f"red {behavior_name}"

    @hookimpl
    def write_note(self, category: str, behavior_name: str) -> None:
        self.notes.append((category, behavior_name))


class NewPlugin:
    @hookimpl
    def write_note(self, category: str) -> None: ...


def registered(plugin: object) -> PluginManager:
    manager = PluginManager()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Another test is about pluggy's own.
        manager.register(plugin, "late", origin=ORIGIN)
    return manager


@pytest.mark.usefixtures("specified")
def test_plugin_that_uses_what_is_deprecated_is_named_with_the_cure(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        registered(OldPlugin()).check_pending()
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    hook, argument = sorted(said)
    assert hook.startswith("plugin 'late' (mlhooks-late 4.2) implements the hook choose_color (")
    assert "test_deprecation.py:" in hook
    assert hook.endswith(f"which is deprecated: {OLD_HOOK}")
    assert "takes the argument 'behavior_name' of the hook write_note (" in argument
    assert argument.endswith(f"which is deprecated: {OLD_ARGUMENT}")


@pytest.mark.usefixtures("specified")
def test_plugin_that_does_not_use_it_hears_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        registered(NewPlugin())
    assert caplog.records == []


@pytest.mark.usefixtures("specified")
def test_what_is_deprecated_works_as_before() -> None:
    plugin = OldPlugin()
    manager = registered(plugin)
    assert manager.hook.choose_color(behavior_name="Ball") == "red Ball"
    manager.hook.write_note(category="Ball", behavior_name="ball")
    assert plugin.notes == [("Ball", "ball")]


@pytest.mark.usefixtures("specified")
def test_tests_of_the_plugin_see_warnings_of_python_at_its_lines() -> None:
    with pytest.warns(DeprecationWarning, match="it goes in version") as caught:
        PluginManager().register(OldPlugin(), "late", origin=ORIGIN)
    assert sorted(str(warning.message) for warning in caught) == sorted([OLD_HOOK, OLD_ARGUMENT])
    assert {warning.filename for warning in caught} == {__file__}


@pytest.mark.usefixtures("specified")
def test_warning_that_was_made_an_error_leaves_no_trace_of_the_plugin() -> None:
    manager = PluginManager()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DeprecationWarning, match="goes in version"):
            manager.register(OldPlugin(), "late", origin=ORIGIN)
    assert manager.get_plugin("late") is None
    assert not manager.implemented("choose_color")
    assert not manager.implemented("write_note")


@pytest.mark.usefixtures("specified")
def test_hooks_are_printed_with_what_is_deprecated(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "hooks"]) == 0
    printed = capsys.readouterr().out
    assert f"    Return a color.\n    Deprecated: {OLD_HOOK}\n" in printed
    assert f"    Write a note.\n    Deprecated argument behavior_name: {OLD_ARGUMENT}\n" in printed
