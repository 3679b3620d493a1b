"""What another process loads before it makes an environment. It is played by this one, where that is enough."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from mlhooks import hookimpl, plugin_sources
from mlhooks.envs import plugin_loading
from mlhooks.envs.pickling import pickled
from mlhooks.errors import PluginError
from mlhooks.plugins import PluginManager, load_plugins
from mlhooks.settings import RunOptions, SettingsRegistry, load_run_options, read_configuration
from mlhooks.training.environment_scheme import make_factory
from mlhooks.training.named_plugins import name_all_plugins
from tests import parts

NOTES = """
    import sys
    from mlhooks import hookimpl

    sys.notes = [*getattr(sys, "notes", []), __name__.rpartition(".")[2]]

    @hookimpl
    def configure():
        sys.notes.append("configured")

    @hookimpl
    def get_env_types():
        return {}
"""
OFFER = NOTES.replace("return {}", "return {'noted': lambda name, **_: Env()}") + (
    "\n"
    "    class Env:\n"
    "        behavior_specs = reset = step = get_steps = set_actions = close = None\n"
    "        notes = property(lambda self: sys.notes)\n"
)


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugin_sources, "BUILTIN_PLUGINS", ())
    monkeypatch.delenv("MLHOOKS_DISABLE_PLUGIN_AUTOLOAD", raising=False)
    monkeypatch.setattr(sys, "notes", [], raising=False)


def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process be another one from here on."""
    monkeypatch.setattr(plugin_loading, "_HERE", "another process")


def factory_of(manager: PluginManager) -> Any:
    return make_factory(RunOptions.model_validate({"env_settings": {"env_path": "noted:x"}}), manager)


@pytest.fixture
def manager(install: Any, tmp_path: Path) -> PluginManager:
    """Plugins from everywhere."""
    folder = tmp_path / "folder"
    for path in (folder / "in_folder.py", folder / "blocked_too.py", tmp_path / "alone.py"):
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n".join(line[4:] for line in NOTES.splitlines()))
    install("b-dist", {"b": "b_plugin"}, b_plugin=NOTES, asked_for=OFFER, c_blocked=NOTES)
    install("a-dist", {"z": "z_plugin", "c": "c_blocked"}, z_plugin=NOTES)
    asked = ["no:c", "no:blocked_too", "asked_for", str(tmp_path / "alone.py")]
    return load_plugins(names=asked, plugins_dir=folder)


ORDER = ["z_plugin", "b_plugin", "asked_for", "alone", "in_folder"]


def test_other_process_loads_the_plugins_of_the_run_in_its_order(
    manager: PluginManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sys.notes == ORDER  # type: ignore[attr-defined]
    data = pickled(factory_of(manager))
    for name in [*ORDER, "asked_for"]:
        sys.modules.pop(name, None)
    monkeypatch.setattr(sys, "notes", [])
    elsewhere(monkeypatch)
    assert pickle.loads(data)(0).notes == ORDER


SETTINGS = """
from mlhooks.plugin import SettingsModel, hookimpl

class Settings(SettingsModel):
    word: str = "hello"

class Env:
    behavior_specs = reset = step = get_steps = set_actions = close = None

    def __init__(self, options):
        self.word = options.plugins.settings["mine"].word

@hookimpl
def get_plugin_settings():
    return {"mine": Settings}

@hookimpl
def get_env_types():
    return {"noted": lambda name, *, options, **_: Env(options)}
"""


def test_other_process_loads_what_the_configuration_names_and_has_its_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(SETTINGS)
    path = tmp_path / "config.yaml"
    path.write_text("env_settings: {env_path: 'noted:x'}\nplugins: {load: [mine.py], settings: {mine: {word: hi}}}\n")
    named = name_all_plugins(read_configuration(path))
    manager = named.load()
    options = load_run_options(named.configuration, SettingsRegistry.from_plugins(manager)).options
    data = pickled(make_factory(options, manager))
    del sys.modules["mlhooks_plugin_files.mine"]
    elsewhere(monkeypatch)
    assert pickle.loads(data)(0).word == "hi"


def test_process_that_has_them_loads_nothing_again(manager: PluginManager) -> None:
    assert pickle.loads(pickled(factory_of(manager)))(0).notes == ORDER


def test_new_interpreter_finds_them_without_torch(manager: PluginManager, tmp_path: Path) -> None:
    (tmp_path / "factory").write_bytes(pickled(factory_of(manager)))
    code = (
        f"import sys, pickle; sys.path[:] = {sys.path}; make = pickle.load(open({str(tmp_path / 'factory')!r}, 'rb'));"
        "print(make(0).notes, 'torch' in sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == f"{ORDER} False"


def test_plugin_that_does_not_load_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mine.py"
    path.write_text("\n".join(line[4:] for line in OFFER.splitlines()))
    data = pickled(factory_of(load_plugins(names=[str(path)])))
    path.write_text("raise SystemExit(0)")
    elsewhere(monkeypatch)
    with pytest.raises(PluginError, match=r"worker process.*'mine' \(file .*mine\.py\) does not load: SystemExit: 0"):
        pickle.loads(data)
    path.unlink()
    with pytest.raises(PluginError, match=r"worker process.*there is no file .*mine\.py"):
        pickle.loads(data)


class Plugin:
    @hookimpl
    def run_started(self) -> None: ...


def sources(*plugins: object) -> list[str]:
    manager = PluginManager()
    for plugin in plugins:
        manager.register(plugin)
    return [candidate.load().__name__ for candidate in manager.loaded]  # type: ignore[attr-defined]


def test_module_of_an_object_that_was_registered_in_python_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    assert sources(Plugin()) == [__name__]
    made = ModuleType("made_on_the_way")
    made.run_started = hookimpl(lambda: None)  # type: ignore[attr-defined]
    scripted = type("OfAScript", (Plugin,), {"__module__": "__main__"})()
    assert sources(made, scripted) == []
    elsewhere(monkeypatch)


def test_what_a_plugin_registers_is_no_plugin_to_load() -> None:
    class Registers:
        @hookimpl
        def configure(self, pluginmanager: PluginManager) -> None:
            pluginmanager.register(Plugin())

    manager = PluginManager()
    manager.register(Registers(), "registers")
    manager.configure(None)
    assert [candidate.origin.name for candidate in manager.loaded] == ["registers"]


class Channels:
    def __init__(self, answer: Any) -> None:
        self.answer = answer

    @hookimpl
    def register_side_channels(self) -> Any:
        return self.answer

    @hookimpl
    def get_env_types(self) -> Any:
        return {"noted": lambda name, *, side_channels, **_: pytest.fail("it was made")}


@pytest.mark.parametrize("where", ["here", "there"])
def test_side_channels_are_checked_wherever_they_are_made(where: str) -> None:
    manager = PluginManager()
    manager.register(Channels([parts.AnyChannel(1), 2]), "culprit")
    factory = factory_of(manager)
    if where == "there":
        factory = pickle.loads(pickled(factory))
    with pytest.raises(PluginError, match=r"'culprit'.*register_side_channels: it returned 2 among its side channels"):
        factory(0)
