"""The section `plugins` of a configuration: what it may say, and what plugins' own settings become."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, Field

from mlhooks.settings import SettingsModel, SettingsRegistry, load_run_options
from mlhooks.settings.schema import configuration_schema
from tests.settings.conftest import Load, Refuse
from tests.settings.test_schema import accepts


class Inner(SettingsModel):
    depth: int = 1


class BestSettings(SettingsModel):
    file: Path = Path("best.json")
    digits: int = Field(default=2, ge=0, description="Decimals.")
    inner: Inner = Field(default_factory=Inner)


class PlainSettings(BaseModel):
    word: str = "hello"


class NeedySettings(SettingsModel):
    key: str


@pytest.fixture
def registry(registry: SettingsRegistry) -> SettingsRegistry:
    return replace(
        registry, plugin_settings={"best": BestSettings, "plain": PlainSettings}, blocked=frozenset({"kept_out"})
    )


def test_settings_are_the_models_of_their_plugins(load: Load) -> None:
    loaded = load("""
        behaviors: {}
        plugins:
          settings:
            best: {digits: 3.0, inner: {depth: 1e1}}
            plain: {word: 007}
    """)
    best = loaded.options.plugins.settings["best"]
    assert isinstance(best, BestSettings)
    assert (best.digits, best.inner.depth, best.file) == (3, 10, Path("best.json"))
    assert loaded.options.plugins.settings["plain"] == PlainSettings(word="007")
    assert loaded.warnings == []


@pytest.mark.parametrize("text", ["behaviors: {}", "behaviors: {}\nplugins:", "behaviors: {}\nplugins: {}"])
def test_settings_that_are_not_there_have_their_defaults(load: Load, text: str) -> None:
    assert load(text).options.plugins.settings == {"best": BestSettings(), "plain": PlainSettings()}


def test_run_without_a_configuration_has_them_too(registry: SettingsRegistry) -> None:
    assert load_run_options(None, registry).options.plugins.settings["best"] == BestSettings()


def test_options_are_stored_with_all_settings_and_read_back_equal(load: Load) -> None:
    options = load("behaviors: {}\nplugins: {settings: {best: {digits: 4}}}").options
    assert options.as_dict()["plugins"] == {
        "load": [],
        "block": [],
        "settings": {
            "best": {"file": "best.json", "digits": 4, "inner": {"depth": 1}},
            "plain": {"word": "hello"},
        },
    }
    assert load(options.to_yaml()).options == options


def test_section_appears_only_where_there_is_something_to_say(load: Load, registry: SettingsRegistry) -> None:
    without = load_run_options({"behaviors": {}}, SettingsRegistry({})).options
    assert "plugins" not in without.as_dict()
    assert (without.plugins.load, without.plugins.block, without.plugins.settings) == ([], [], {})
    assert "plugins" in load("behaviors: {}").options.as_dict()


@pytest.mark.parametrize(
    ("section", "line", "column", "key", "message"),
    [
        ("[a.py]", 2, 10, "plugins", "must be a section, with keys below it"),
        ("{loads: [a.py]}", 2, 11, "plugins.loads", "did you mean load?"),
        ("{load: a.py}", 2, 17, "plugins.load", "not a valid value; found 'a.py'; allowed: a list [text"),
        ("{load: [a.py, {b: 1}]}", 2, 24, "plugins.load.1", "not a valid value; found a mapping"),
        ("{load: [a.py, [b]]}", 2, 24, "plugins.load.1", "not a valid value; found ['b']"),
        ("{load: ['']}", 2, 18, "plugins.load.0", "not a valid value; found ''"),
        ('{load: ["a\\tb.py"]}', 2, 18, "plugins.load.0", "holds a control character"),
        ("{load: ['no:b']}", 2, 18, "plugins.load.0", "no: belongs to -p"),
        ("{block: ['no:b']}", 2, 19, "plugins.block.0", "no: belongs to -p"),
        ("{load: [x/a.py], block: [c, a]}", 2, 38, "plugins.block.1", "a is also under load; remove one of the two"),
        ("{settings: [best]}", 2, 21, "plugins.settings", "must be a section"),
        ("{settings: {best: }}", 2, 22, "plugins.settings.best", "is empty; remove it, or write {}"),
        ("{settings: {best: {digit: 1}}}", 2, 29, "plugins.settings.best.digit", "did you mean digits?"),
        ("{settings: {best: {digits: -1}}}", 2, 37, "plugins.settings.best.digits", "a whole number, at least 0"),
        ("{settings: {best: {inner: {deep: 1}}}}", 2, 37, "plugins.settings.best.inner.deep", "did you mean"),
        ("{settings: {plain: {wort: a}}}", 2, 30, "plugins.settings.plain.wort", "did you mean word?"),
        ("{settings: {plain: {word: [a]}}}", 2, 36, "plugins.settings.plain.word", "not a valid value"),
        ("{settings: {bset: {}}}", 2, 22, "plugins.settings.bset", "allowed: best, plain; did you mean best?"),
        ("{settings: {kept_out: 3}}", 2, 32, "plugins.settings.kept_out", "must be a section"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(
    refuse: Refuse, section: str, line: int, column: int, key: str, message: str
) -> None:
    (error,) = refuse(f"behaviors: {{}}\nplugins: {section}\n")
    assert (error.line, error.column, error.key) == (line, column, key)
    assert message in str(error)


def test_settings_of_a_blocked_plugin_are_kept_as_they_are(load: Load) -> None:
    options = load("behaviors: {}\nplugins: {settings: {kept_out: {anything: [1, {a: b}]}}}").options
    assert options.as_dict()["plugins"]["settings"]["kept_out"] == {"anything": [1, {"a": "b"}]}
    assert load(options.to_yaml()).options == options


def test_missing_setting_without_default_is_an_error_also_without_the_section(
    load: Load, refuse: Refuse, registry: SettingsRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(registry.plugin_settings, "needy", NeedySettings)  # type: ignore[arg-type]
    for text in ("behaviors: {}", "behaviors: {}\nplugins: {settings: {needy: {}}}"):
        (error,) = refuse(text)
        assert error.key == "plugins.settings.needy.key"
        assert "a required key is missing" in error.message
    assert load("behaviors: {}\nplugins: {settings: {needy: {key: x}}}").options.plugins.settings["needy"]


def test_override_changes_a_setting_of_a_plugin(load: Load, refuse: Refuse) -> None:
    options = load("behaviors: {}", overrides=["plugins.settings.best.digits=7"]).options
    assert options.plugins.settings["best"].digits == 7  # type: ignore[attr-defined]
    (error,) = refuse("behaviors: {}", overrides=["plugins.settings.bets.digits=7"])
    assert error.option == "--set plugins.settings.bets.digits=7"
    assert error.nearest == "best"


def test_paths_belong_to_the_folder_of_the_file_and_those_of_an_override_to_the_working_directory(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    text = "behaviors: {}\nplugins: {load: [a.py, sub/b.py, '..\\c.py', pkg.d, 12]}"
    expected = [tmp_path / "a.py", tmp_path / "sub" / "b.py", tmp_path.parent / "c.py"]
    assert load(text).options.plugins.load == [*map(str, expected), "pkg.d", "12"]
    assert load(text, overrides=["plugins.load=[a.py]"]).options.plugins.load == [str(elsewhere / "a.py")]
    one = load(text, overrides=["plugins.load.1=b.py"]).options.plugins.load
    assert one[:2] == [str(tmp_path / "a.py"), str(elsewhere / "b.py")]


@pytest.mark.parametrize("name", ["plugins", "${HOME}"])
def test_files_from_before_with_a_behavior_of_that_name_are_told_how_to_convert(refuse: Refuse, name: str) -> None:
    (error,) = refuse(f"{name}:\n  trainer: ppo\n  batch_size: 10\n")
    assert "the layout from before ML-Agents 0.16" in error.message


def test_behavior_may_be_called_plugins(load: Load) -> None:
    options = load("default_settings: {max_steps: 7}\nbehaviors: {plugins: {}}").options
    assert options.settings_for("plugins").max_steps == 7
    assert options.plugins.load == []


@pytest.mark.parametrize(
    ("section", "valid"),
    [
        ({"load": ["a.py"], "block": ["b"], "settings": {"best": {"digits": 1}, "plain": {"word": "x"}}}, True),
        (None, True),
        ({"load": "a.py"}, False),
        ({"loads": []}, False),
        ({"settings": {"bset": {}}}, False),
        ({"settings": {"best": {"digit": 1}}}, False),
        ({"settings": {"best": {"digits": -1}}}, False),
        ({"settings": {"plain": {"wort": "x"}}}, False),
    ],
)
def test_schema_knows_the_section(registry: SettingsRegistry, section: Any, valid: bool) -> None:
    assert accepts(configuration_schema(registry), {"behaviors": {}, "plugins": section}) == valid
