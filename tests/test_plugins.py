from __future__ import annotations

import sys

import pytest

from mlhooks import hookimpl, plugin_sources
from mlhooks.errors import PluginError, UsageError
from mlhooks.plugins import Origin, PluginManager, find_plugins, load_plugins
from tests.parts import AnyChannel

SCHEME = """
    from mlhooks import hookimpl

    @hookimpl
    def get_env_types():
        return {"grid": print}
"""


@pytest.fixture(autouse=True)
def _no_builtins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugin_sources, "BUILTIN_PLUGINS", ())
    monkeypatch.delenv("MLHOOKS_DISABLE_PLUGIN_AUTOLOAD", raising=False)


def names(manager: PluginManager) -> list[str]:
    return [row.name for row in manager.describe() if not row.blocked]


def test_installed_package_is_found_and_attributed(install):
    install("mlhooks-grid", {"grid": "grid_plugin"}, grid_plugin=SCHEME)
    manager = load_plugins()
    (row,) = manager.describe()
    assert (row.name, row.distribution, row.version) == ("grid", "mlhooks-grid", "1.2")
    assert row.hooks == ("get_env_types",)
    assert row.order == 1
    assert not row.blocked
    assert "grid_plugin" in row.source
    assert manager.collect_mapping("get_env_types") == {"grid": print}


def test_later_sources_are_called_first(install, tmp_path, monkeypatch):
    answer = (
        "from mlhooks import hookimpl\n@hookimpl\ndef get_env_types():\n    return {__name__.split('.')[-1]: print}\n"
    )
    folder = tmp_path / "plugins"
    folder.mkdir()
    (folder / "in_folder.py").write_text(answer)
    install("b-dist", {"b": "b_plugin"}, b_plugin=answer, builtin_one=answer, asked_for=answer)
    install("a-dist", {"z": "z_plugin"}, z_plugin=answer)
    monkeypatch.setattr(plugin_sources, "BUILTIN_PLUGINS", ("builtin_one",))
    manager = load_plugins(names=["asked_for"], plugins_dir=folder)
    assert names(manager) == ["builtin_one", "z", "b", "asked_for", "in_folder"]
    assert list(manager.collect_mapping("get_env_types")) == [
        "in_folder",
        "asked_for",
        "b_plugin",
        "z_plugin",
        "builtin_one",
    ]


def test_autoload_is_off_by_environment_variable_and_by_argument(install, monkeypatch):
    install("mlhooks-grid", {"grid": "grid_plugin"}, grid_plugin=SCHEME)
    assert names(load_plugins(autoload=False)) == []
    monkeypatch.setenv("MLHOOKS_DISABLE_PLUGIN_AUTOLOAD", "1")
    assert names(load_plugins()) == []
    assert names(load_plugins(autoload=True)) == ["grid"]


def test_entry_point_is_loaded_by_name_although_autoload_is_off(install):
    install("mlhooks-grid", {"grid": "grid_plugin"}, grid_plugin=SCHEME)
    (row,) = load_plugins(names=["grid"], autoload=False).describe()
    assert (row.name, row.distribution) == ("grid", "mlhooks-grid")


def test_same_module_by_entry_point_and_by_name_is_registered_once(install):
    install("mlhooks-grid", {"grid": "grid_plugin"}, grid_plugin=SCHEME)
    assert names(load_plugins(names=["grid", "grid_plugin"])) == ["grid"]


def test_blocked_entry_point_is_not_even_imported(install):
    install("mlhooks-bomb", {"bomb": "bomb_plugin"}, bomb_plugin="raise RuntimeError('imported')")
    manager = load_plugins(names=["no:bomb"])
    assert "bomb_plugin" not in sys.modules
    (row,) = manager.describe()
    assert (row.name, row.distribution, row.blocked, row.order, row.hooks) == ("bomb", "mlhooks-bomb", True, 0, ())


def test_last_word_about_a_name_counts(install):
    install("mlhooks-grid", {"grid": "grid_plugin"}, grid_plugin=SCHEME)
    assert names(load_plugins(names=["no:grid", "grid"])) == ["grid"]
    assert names(load_plugins(names=["grid", "no:grid"])) == []


@pytest.mark.parametrize("spelling", ["no:plugged_in", "no:fake_builtins.plugged_in"])
def test_builtin_is_blocked_by_short_and_by_full_name(install, monkeypatch, spelling):
    site = install("unrelated", {})
    (site / "fake_builtins").mkdir()
    (site / "fake_builtins" / "plugged_in.py").write_text("raise RuntimeError('imported')")
    monkeypatch.setattr(plugin_sources, "BUILTIN_PLUGINS", ("fake_builtins.plugged_in",))
    assert names(load_plugins(names=[spelling])) == []
    with pytest.raises(PluginError, match=r"'plugged_in'"):
        load_plugins()


def test_blocking_a_misspelt_name_says_the_nearest(install, caplog):
    install("mlhooks-grid", {"grid": "grid_plugin"}, grid_plugin=SCHEME)
    load_plugins(names=["no:gird"])
    assert "did you mean grid?" in caplog.text


def test_object_registered_in_configure_can_be_blocked():
    class Writer:
        @hookimpl
        def write_stats(self): ...

    class Maker:
        @hookimpl
        def configure(self, pluginmanager):
            pluginmanager.register(Writer(), "writer")

    manager = PluginManager(blocked=["writer"])
    manager.register(Maker(), "maker")
    manager.configure(None)
    assert not manager.implemented("write_stats")
    assert names(manager) == ["maker"]


def test_folder_loads_py_files_in_order_but_no_underscores(tmp_path):
    for name in ("b.py", "a.py"):
        (tmp_path / name).write_text("from mlhooks import hookimpl\n@hookimpl\ndef run_started(run): ...\n")
    (tmp_path / "_helper.py").write_text("raise RuntimeError")
    (tmp_path / "notes.txt").write_text("no plugin")
    rows = load_plugins(plugins_dir=tmp_path, autoload=False).describe()
    assert [row.name for row in rows] == ["a", "b"]
    assert rows[0].source == f"file {tmp_path / 'a.py'}"


def test_plugin_file_does_not_shadow_a_module_and_is_read_again_by_each_manager(tmp_path):
    import json

    file = tmp_path / "json.py"
    source = "from mlhooks import hookimpl\n@hookimpl\ndef get_env_types():\n    return {NAME: print}\n"
    for name in ("one", "another"):
        file.write_text(source.replace("NAME", repr(name)))
        manager = load_plugins(names=[str(file)], autoload=False)
        assert manager.collect_mapping("get_env_types") == {name: print}
    assert sys.modules["json"] is json


def test_missing_folder_is_bad_usage(tmp_path):
    with pytest.raises(UsageError, match="no such folder"):
        load_plugins(plugins_dir=tmp_path / "nowhere")


def test_unknown_name_is_bad_usage_with_the_nearest_plugin(install):
    install("mlhooks-grid", {"grid": "grid_plugin"}, grid_plugin=SCHEME)
    with pytest.raises(UsageError, match=r"no plugin or module.*did you mean grid\?"):
        load_plugins(names=["gridd"])


def test_unknown_name_points_to_the_file_in_this_folder(tmp_path, monkeypatch):
    (tmp_path / "my_little_plugin.py").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"-p my_little_plugin\.py"):
        load_plugins(names=["my_little_plugin"])


def test_file_that_is_not_there_is_bad_usage_with_the_nearest(tmp_path):
    (tmp_path / "cem.py").touch()
    with pytest.raises(UsageError, match=r"-p cemm\.py: there is no file .*cemm\.py; did you mean cem\.py\?") as caught:
        load_plugins(names=[str(tmp_path / "cemm.py")])
    assert "no:" not in str(caught.value)
    with pytest.raises(UsageError, match=r"there is no file .*cem\.py$"):
        load_plugins(names=[str(tmp_path / "nowhere" / "cem.py")])


def test_module_that_misses_an_import_of_its_own_is_a_broken_plugin(install):
    install("unrelated", {}, needs_more="import a_module_that_nobody_has")
    with pytest.raises(PluginError, match=r"'needs_more'.*a_module_that_nobody_has"):
        load_plugins(names=["needs_more"])


def test_finding_plugins_imports_none(install, tmp_path):
    install("mlhooks-bomb", {"bomb": "bomb_plugin"}, bomb_plugin="raise RuntimeError('imported')")
    candidates, blocked = find_plugins(names=["bomb_plugin", "no:x"])
    assert [candidate.origin.name for candidate in candidates] == ["bomb", "bomb_plugin"]
    assert blocked == ["x"]
    assert "bomb_plugin" not in sys.modules


def test_two_distributions_with_one_plugin_name_are_both_named(install):
    install("grid-one", {"grid": "one_plugin"}, one_plugin=SCHEME)
    install("grid-two", {"grid": "two_plugin"}, two_plugin=SCHEME)
    with pytest.raises(PluginError, match=r"name 'grid'.*grid-one 1\.2.*grid-two 1\.2"):
        load_plugins()


@pytest.mark.parametrize("hook", ["get_env_types", "get_trainer_types", "get_reward_signals"])
def test_two_claims_to_one_name_name_both_distributions(install, hook):
    source = f"""
        from mlhooks import hookimpl
        from tests.parts import ANSWERS

        @hookimpl
        def {hook}():
            return {{"grid": next(iter(ANSWERS["{hook}"][0].values()))}}
    """
    install("grid-one", {"one": "one_plugin"}, one_plugin=source)
    install("grid-two", {"two": "two_plugin"}, two_plugin=source)
    manager = load_plugins()
    with pytest.raises(PluginError) as caught:
        manager.collect_mapping(hook)
    for word in ("'grid'", hook, "'one' (grid-one 1.2)", "'two' (grid-two 1.2)"):
        assert word in str(caught.value)


def test_collect_says_who_answered_through_a_wrapper():
    class Answers:
        @hookimpl
        def register_side_channels(self):
            return [AnyChannel(1)]

    class Passes:
        @hookimpl(wrapper=True)
        def register_side_channels(self):
            return (yield)

    class Adds:
        @hookimpl(wrapper=True)
        def register_side_channels(self):
            return [*(yield), [AnyChannel(2)]]

    manager = PluginManager()
    for plugin in (Answers(), Passes(), Adds()):
        manager.register(plugin, type(plugin).__name__)
    answers = manager.collect("register_side_channels", options=None)
    found = [(origin.name, [channel.channel_id.int for channel in answer]) for origin, answer in answers]
    assert found == [("Answers", [1]), ("Adds", [2])]


def test_implemented_follows_registration():
    class Plugin:
        @hookimpl
        def on_add_stat(self): ...

    manager, plugin = PluginManager(), Plugin()
    assert not manager.implemented("on_add_stat")
    manager.register(plugin)
    assert manager.implemented("on_add_stat")
    assert not manager.implemented("write_stats")
    manager.unregister(plugin)
    assert not manager.implemented("on_add_stat")


def test_what_configure_registers_belongs_to_the_distribution_that_registered_it(install):
    install(
        "mlhooks-writer",
        {"writer": "writer_plugin"},
        writer_plugin="""
            from mlhooks import hookimpl

            class Writer:
                @hookimpl
                def write_stats(self): ...

            @hookimpl
            def configure(pluginmanager):
                pluginmanager.register(Writer())
                pluginmanager.register(Writer())
        """,
    )
    manager = load_plugins()
    manager.configure(None)
    _, row, other = manager.describe()
    assert (row.name, row.distribution, row.version) == ("writer.Writer", "mlhooks-writer", "1.2")
    assert row.source == "registered by writer"
    assert other.name == "writer.Writer-2"


def test_late_plugin_gets_configure_and_may_register_more_from_it():
    seen = []

    class Late:
        def __init__(self, depth):
            self.depth = depth

        @hookimpl
        def configure(self, pluginmanager, options):
            seen.append((self.depth, options))
            if self.depth < 2:
                pluginmanager.register(Late(self.depth + 1), f"late{self.depth + 1}")

    manager = PluginManager()
    manager.configure("options")
    manager.register(Late(0), "late0")
    assert seen == [(0, "options"), (1, "options"), (2, "options")]
    assert names(manager) == ["late0", "late1", "late2"]


def test_plugin_whose_late_configure_fails_leaves_no_trace():
    class Late:
        @hookimpl
        def configure(self, options):
            raise ValueError("too late")

        @hookimpl
        def write_stats(self): ...

    manager = PluginManager()
    manager.configure(None)
    with pytest.raises(PluginError, match=r"'late'.*configure.*ValueError: too late"):
        manager.register(Late(), "late")
    assert names(manager) == []
    assert not manager.implemented("write_stats")


def test_registering_one_object_twice_says_so():
    class Plugin:
        @hookimpl
        def run_started(self): ...

    manager, plugin = PluginManager(), Plugin()
    manager.register(plugin, "first")
    with pytest.raises(PluginError, match=r"'second'.*already.*'first'"):
        manager.register(plugin, "second")


def test_managers_share_nothing():
    class Fails:
        @hookimpl
        def run_started(self):
            raise ValueError

    plugin = Fails()
    one, other = PluginManager(), PluginManager()
    one.register(plugin, "fails")
    other.register(plugin, "fails")
    for _ in range(3):
        one.hook.run_started(run=None)
    assert one.disabled
    assert other.disabled == []
    assert names(other) == ["fails"]


def test_origin_names_distribution_and_version_or_else_the_source():
    assert str(Origin("x", "mlhooks-x", "2.0", "entry point")) == "plugin 'x' (mlhooks-x 2.0)"
    assert str(Origin("x", source="file /x.py")) == "plugin 'x' (file /x.py)"


def test_trace_writes_every_call_to_stderr(capsys):
    manager = load_plugins(autoload=False, trace=True)
    manager.hook.run_started(run="the run")
    assert "run_started" in capsys.readouterr().err


def test_error_names_the_line_of_the_plugin(tmp_path):
    (tmp_path / "broken.py").write_text("import json\n\njson.loads('{')\n")
    with pytest.raises(PluginError, match=r"JSONDecodeError: .*broken\.py:3\)"):
        load_plugins(plugins_dir=tmp_path, autoload=False)
