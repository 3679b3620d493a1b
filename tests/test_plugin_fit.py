from __future__ import annotations

import functools
import types

import pytest

from mlhooks import hookimpl, plugin_sources
from mlhooks.errors import PluginError
from mlhooks.plugins import PluginManager, load_plugins


@pytest.fixture(autouse=True)
def _no_builtins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugin_sources, "BUILTIN_PLUGINS", ())
    monkeypatch.delenv("MLHOOKS_DISABLE_PLUGIN_AUTOLOAD", raising=False)


HOOK = "from mlhooks import hookimpl\n@hookimpl\n"
BROKEN = {
    "import error": ("broken_plugin", "import no_such_module_at_all", "no_such_module_at_all"),
    "syntax error": ("broken_plugin", "def broken(:", "SyntaxError"),
    "raises at import": ("broken_plugin", "raise ValueError('bad start')", r"ValueError: bad start \(.*plugin\.py:1\)"),
    "missing module": ("missing_plugin", "", "missing_plugin"),
    "missing attribute": ("broken_plugin:plugin", "x = 1", "no attribute 'plugin'"),
    "unreadable reference": ("broken_plugin:", "x = 1", "does not load"),
    "number": ("broken_plugin:plugin", "plugin = 3", "object of type int has none"),
    "none": ("broken_plugin:plugin", "plugin = None", "is None"),
    "string": ("broken_plugin:plugin", "plugin = 'text'", "object of type str has none"),
    "module without hooks": ("broken_plugin", "x = 1", "this module has none"),
    "class": (
        "broken_plugin:Plugin",
        "from mlhooks import hookimpl\nclass Plugin:\n    @hookimpl\n    def run_started(self): ...",
        "the class Plugin; register an instance",
    ),
    "class that nobody registers": (
        "broken_plugin",
        "class Old:\n    def write_stats(self, category, values, step): ...",
        r"its class Old has write_stats, and nobody registers an object of it: .*register\(Old",
    ),
    "mark forgotten": ("broken_plugin", "def write_stats(values): ...", "write_stats lacks the mark @hookimpl"),
    "misspelt hook": ("broken_plugin", f"{HOOK}def write_stat(values): ...", r"no hook; did you mean write_stats\?"),
    "unknown hook": ("broken_plugin", f"{HOOK}def qqqq(): ...", "no hook; `mlhooks plugins hooks` lists them"),
    "misspelt by specname": (
        "broken_plugin",
        "from mlhooks import hookimpl\n@hookimpl(specname='run_start')\ndef begin(): ...",
        r"did you mean run_started\?",
    ),
    "unknown argument": (
        "broken_plugin",
        f"{HOOK}def write_stats(values, steps): ...",
        r"'steps' in write_stats.*did you mean step\? It has: category, values, step",
    ),
    "argument of a hook without any": (
        "broken_plugin",
        f"{HOOK}def get_env_types(options): ...",
        "'options' in get_env_types.*It has: no arguments",
    ),
    "coroutine": ("broken_plugin", f"{HOOK}async def run_started(run): ...", "run_started as an async"),
    "generator": (
        "broken_plugin",
        f"{HOOK}def write_stats(values):\n    yield",
        "yields in write_stats, of",
    ),
    "generator of a policy": (
        "broken_plugin",
        f"{HOOK}def create_policy(trainer):\n    yield",
        r"return them",
    ),
    "wrapper that does not yield": (
        "broken_plugin",
        "from mlhooks import hookimpl\n@hookimpl(wrapper=True)\ndef write_stats(): ...",
        "does not yield",
    ),
    "wrapper of a historic hook": (
        "broken_plugin",
        "from mlhooks import hookimpl\n@hookimpl(wrapper=True)\ndef configure():\n    yield",
        "cannot be wrapped",
    ),
}


@pytest.mark.parametrize(("value", "source", "complaint"), BROKEN.values(), ids=BROKEN.keys())
def test_broken_entry_point_names_its_culprit_and_can_be_blocked(install, value, source, complaint):
    install("acme-plugins", {"acme": value}, broken_plugin=source)
    with pytest.raises(PluginError, match=complaint) as caught:
        load_plugins()
    assert "plugin 'acme' (acme-plugins 1.2)" in str(caught.value)
    assert "-p no:acme" in str(caught.value)
    assert [row.blocked for row in load_plugins(names=["no:acme"]).describe()] == [True]


def test_entry_point_that_raises_in_configure_names_its_culprit(install):
    install(
        "acme-plugins", {"acme": "acme_plugin"}, acme_plugin=f"{HOOK}def configure():\n    raise OSError('no disk')"
    )
    manager = load_plugins()
    with pytest.raises(PluginError, match=r"'acme' \(acme-plugins 1\.2\).*configure.*OSError: no disk.*-p no:acme"):
        manager.configure(None)


BODIES = pytest.mark.parametrize("body", ["{0}", HOOK + "def configure():\n    {0}"], ids=["import", "configure"])


@BODIES
def test_interrupt_passes_through_an_entry_point(install, body):
    install("acme-plugins", {"acme": "acme_plugin"}, acme_plugin=body.format("raise KeyboardInterrupt"))
    with pytest.raises(KeyboardInterrupt):
        load_plugins().configure(None)


@BODIES
@pytest.mark.parametrize("code", ["0", "3", "'stop'"])
def test_entry_point_that_exits_names_its_culprit(install, body, code):
    install("acme-plugins", {"acme": "acme_plugin"}, acme_plugin=body.format(f"raise SystemExit({code})"))
    with pytest.raises(PluginError, match=rf"'acme' \(acme-plugins 1\.2\).*SystemExit: {code.strip(chr(39))}"):
        load_plugins().configure(None)


def test_arguments_may_be_left_out_defaulted_or_collected():
    class Plugin:
        @hookimpl
        def run_started(self): ...

        @hookimpl
        def write_stats(self, values, own=3): ...

        @hookimpl
        def update_finished(self, *args, **kwargs): ...

    manager = PluginManager()
    manager.register(Plugin())
    manager.hook.run_started(run=None)
    manager.hook.write_stats(category="a", values={}, step=1)
    manager.hook.update_finished(trainer=None, step=1, losses={})
    assert not manager.disabled


def test_optional_hook_may_be_unknown():
    class Plugin:
        @hookimpl(optionalhook=True)
        def hook_of_a_later_version(self, anything): ...

    manager = PluginManager()
    manager.register(Plugin(), "ahead")
    manager.check_pending()


def test_attribute_that_raises_is_no_obstacle_or_is_named():
    class Plugin:
        @property
        def broken(self):
            raise ValueError("not now")

        @hookimpl
        def run_started(self): ...

    manager = PluginManager()
    try:
        manager.register(Plugin(), "odd")
    except PluginError as error:
        assert "'odd'" in str(error)  # noqa: PT017 - It depends on the version of pluggy.
        assert "broken" in str(error)  # noqa: PT017
    else:
        assert manager.implemented("run_started")


def test_static_and_class_methods_fit():
    seen = []

    class Plugin:
        @staticmethod
        @hookimpl
        def run_started(run):
            seen.append(run)

        @classmethod
        @hookimpl
        def behavior_added(cls, behavior_name):
            seen.append(behavior_name)

    manager = PluginManager()
    manager.register(Plugin())
    manager.hook.run_started(run="run")
    manager.hook.behavior_added(run=None, behavior_name="ball", behavior_spec=None, trainer=None)
    assert seen == ["run", "ball"]


def test_decorated_function_is_checked_by_the_arguments_it_takes():
    def decorated(function):
        @functools.wraps(function)
        def inner(*args):
            return function(*args)

        return inner

    module = types.ModuleType("decorated_plugin")
    seen = []

    @hookimpl
    @decorated
    def run_finished(outcome):
        seen.append(outcome)

    module.run_finished = run_finished
    manager = PluginManager()
    manager.register(module)
    manager.hook.run_finished(run=None, outcome="done")
    assert seen == ["done"]


def test_refused_plugin_leaves_no_trace():
    class Plugin:
        @hookimpl
        def run_started(self): ...

        @hookimpl
        def write_stats(self, wrong): ...

    manager = PluginManager()
    with pytest.raises(PluginError):
        manager.register(Plugin(), "half")
    assert manager.describe() == []
    assert not manager.implemented("run_started")


def test_misspelt_hook_of_an_object_registered_in_configure_is_found():
    class Writer:
        @hookimpl
        def wriet_stats(self): ...

    class Maker:
        @hookimpl
        def configure(self, pluginmanager):
            pluginmanager.register(Writer(), "writer")

    manager = PluginManager()
    manager.register(Maker(), "maker")
    with pytest.raises(PluginError, match=r"'writer'.*wriet_stats.*did you mean write_stats\?"):
        manager.configure(None)
