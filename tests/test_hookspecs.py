"""Every hook of the contract is documented, and behaves as its kind says. A new hook fails here until it does."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from mlhooks import answers, hookimpl, hookspecs
from mlhooks.containment import kind_of
from mlhooks.errors import PluginError
from mlhooks.plugin_fit import known_hooks
from mlhooks.plugins import Origin, PluginManager
from tests import parts

DOCUMENT = Path(__file__).parents[1] / "docs" / "hooks.md"
SPECS = {
    name: spec for name, spec in inspect.getmembers(hookspecs, inspect.isfunction) if hasattr(spec, "mlhooks_spec")
}
ORIGIN = Origin("culprit", "mlhooks-culprit", "4.2", "entry point")

# What two plugins answer to one call of each hook; None where the answer does not count.
ANSWERS = {
    **dict.fromkeys(SPECS, (None, None)),
    **parts.ANSWERS,
    "export_model": ([Path("one")], [Path("two")]),
}
HOOKS = sorted(SPECS)
FATAL = {
    "configure",
    "register_commands",
    "get_env_types",
    "get_trainer_types",
    "get_reward_signals",
    "get_plugin_settings",
    "create_env_manager",
    "create_policy",
    "create_optimizer",
    "register_side_channels",
}


def plugin_with(hook, behave):
    """Return an object whose implementation of `hook` hands all its arguments to `behave` as a mapping."""
    arguments = ", ".join(inspect.signature(SPECS[hook]).parameters)
    pairs = ", ".join(f"{name}={name}" for name in inspect.signature(SPECS[hook]).parameters)
    namespace = {"behave": behave}
    exec(f"def {hook}(self, {arguments}):\n    return behave(dict({pairs}))", namespace)
    return type("Plugin", (), {hook: hookimpl(namespace[hook])})()


def call(manager, hook):
    """Call a hook with one marker object per argument, and return the arguments and the result."""
    arguments = {name: f"the {name}" for name in inspect.signature(SPECS[hook]).parameters}
    caller = getattr(manager.hook, hook)
    if caller.is_historic():
        return arguments, caller.call_historic(kwargs=arguments)
    return arguments, caller(**arguments)


def test_every_hook_is_specified_and_what_returns_something_is_checked():
    assert set(ANSWERS) == set(known_hooks(PluginManager())) == set(SPECS)
    returning = {name for name, spec in SPECS.items() if spec.__annotations__["return"] != "None"}
    assert returning | {"register_commands"} == set(answers.CHECKS)


@pytest.mark.parametrize("hook", HOOKS)
def test_docstring_says_when_and_what_a_failure_does(hook):
    text = inspect.getdoc(SPECS[hook]) or ""
    assert re.search(r"\b(called|collected|when|once|observe|replayed)\b", text, re.IGNORECASE), "says not when"
    assert re.search(r"\bfailure\b", text), "says not what a failure does"
    assert ("contained" in text) == (hook not in FATAL)


@pytest.mark.parametrize("hook", HOOKS)
def test_arguments_and_result_are_annotated(hook):
    assert set(SPECS[hook].__annotations__) == {*inspect.signature(SPECS[hook]).parameters, "return"}


@pytest.mark.parametrize("hook", HOOKS)
def test_document_has_a_row_with_arguments_and_kind(hook):
    arguments = ", ".join(inspect.signature(SPECS[hook]).parameters)
    kind = kind_of(known_hooks(PluginManager())[hook])
    row = rf"^\| `{re.escape(f'{hook}({arguments})')}` \| {kind} \| .+ \|$"
    assert re.search(row, DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("hook", HOOKS)
def test_call_reaches_every_plugin_with_its_arguments_and_returns_by_kind(hook, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for file in ("one", "two"):
        (tmp_path / file).touch()
    manager, seen = PluginManager(), []
    one, two = ANSWERS[hook]
    manager.register(plugin_with(hook, lambda arguments: (seen.append(("one", arguments)), one)[1]))
    manager.register(plugin_with(hook, lambda arguments: (seen.append(("two", arguments)), two)[1]))
    arguments, result = call(manager, hook)
    kind = kind_of(getattr(manager.hook, hook))
    if kind == "firstresult":
        assert seen == [("two", arguments)]
        assert result == two
    else:
        assert seen == [("two", arguments), ("one", arguments)]
        assert not result or result == [two, one]


@pytest.mark.parametrize("hook", HOOKS)
def test_failure_is_contained_or_stops_with_the_culprits_name(hook, caplog):
    def fail(arguments):
        raise ValueError("boom")

    manager, seen = PluginManager(), []
    manager.register(plugin_with(hook, lambda arguments: seen.append(arguments)))
    manager.register(plugin_with(hook, fail), origin=ORIGIN, name="culprit")
    words = ("'culprit'", "mlhooks-culprit 4.2", hook, "ValueError: boom")
    if hook in FATAL:
        with pytest.raises(PluginError) as caught:
            call(manager, hook)
        assert all(word in str(caught.value) for word in words)
    else:
        call(manager, hook)
        assert len(seen) == 1
        assert all(word in caplog.text for word in words)
