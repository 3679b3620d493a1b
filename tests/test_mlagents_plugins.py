from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from mlhooks import plugin_sources
from mlhooks.errors import PluginError
from mlhooks.mlagents_wheel import entry_points, offers
from mlhooks.plugins import load_plugins
from mlhooks.stats import StatsAggregationMethod as Method
from mlhooks.stats import StatsPropertyType, StatsSummary

GROUP = "mlagents.stats_writer"
WRITERS = """
    class Full:
        def __init__(self, options):
            self.options = options
            self.calls = []

        def write_stats(self, category, values, step):
            self.calls.append(("write_stats", category, values, step))

        def on_add_stat(self, category, key, value, aggregation):
            self.calls.append(("on_add_stat", category, key, value, aggregation))

        def add_property(self, category, property_type, value):
            self.calls.append(("add_property", category, property_type, value))

    class Minimal:
        def write_stats(self, category, values, step):
            made.append(step)

    made = []

    def full(options):
        made.append(Full(options))
        return made[:]

    def minimal(options):
        return [Minimal(), Minimal()]
"""


@pytest.fixture(autouse=True)
def _no_builtins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugin_sources, "BUILTIN_PLUGINS", ())
    monkeypatch.delenv("MLHOOKS_DISABLE_PLUGIN_AUTOLOAD", raising=False)


def configured(options=None, **arguments):
    manager = load_plugins(**arguments)
    manager.configure(options)
    return manager


def test_writer_gets_the_options_and_every_stat_hook(install):
    install("old-writers", {"old": "old_writers:full"}, group=GROUP, old_writers=WRITERS)
    manager = configured("the options")
    manager.hook.write_stats(category="ball", values={"a": 1}, step=5)
    manager.hook.on_add_stat(category="ball", key="a", value=1.0, aggregation="mean")
    manager.hook.add_property(category="ball", property_type="hyper", value={})
    (writer,) = sys.modules["old_writers"].made
    assert writer.options == "the options"
    assert writer.calls == [
        ("write_stats", "ball", {"a": 1}, 5),
        ("on_add_stat", "ball", "a", 1.0, "mean"),
        ("add_property", "ball", "hyper", {}),
    ]


def test_writers_are_plugins_of_their_distribution(install):
    install("old-writers", {"old": "old_writers:minimal"}, group=GROUP, old_writers=WRITERS)
    rows = configured().describe()
    assert [(row.name, row.distribution, row.version) for row in rows] == [
        ("old", "old-writers", "1.2"),
        ("old[0]", "old-writers", "1.2"),
        ("old[1]", "old-writers", "1.2"),
    ]
    assert rows[1].hooks == ("write_stats",)


def test_hook_that_no_writer_has_stays_unimplemented(install):
    install("old-writers", {"old": "old_writers:minimal"}, group=GROUP, old_writers=WRITERS)
    manager = configured()
    assert manager.implemented("write_stats")
    assert not manager.implemented("on_add_stat")
    assert not manager.implemented("add_property")


def test_failing_writer_is_contained_by_itself(install, caplog):
    source = WRITERS.replace("made.append(step)", "raise OSError('disk is full')")
    install("old-writers", {"old": "old_writers:minimal"}, group=GROUP, old_writers=source)
    manager = configured()
    for step in range(3):
        manager.hook.write_stats(category="ball", values={}, step=step)
    assert [disabled.origin.name for disabled in manager.disabled] == ["old[1]", "old[0]"]
    assert "'old[0]' (old-writers 1.2)" in caplog.text


@pytest.mark.parametrize(
    "source",
    [
        "from mlagents.trainers.stats import StatsWriter",
        "import mlagents",
        "def writers(options):\n    import mlagents.trainers",
    ],
)
def test_writer_that_only_lacks_mlagents_costs_a_warning(install, caplog, monkeypatch, source):
    for name in [name for name in sys.modules if name.startswith("mlagents.")]:  # Other tests leave stand-ins.
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "mlagents", None)
    install("old-writers", {"old": "old_writers:writers"}, group=GROUP, old_writers=source)
    manager = configured()
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "'old' (old-writers 1.2) is left out" in record.getMessage()
    assert "mlagents, which is not installed" in record.getMessage()
    assert not manager.implemented("write_stats")


OF_MLAGENTS = """
    from mlagents.trainers.settings import RunOptions
    from mlagents.trainers.stats import StatsPropertyType, StatsSummary, StatsWriter
    from mlagents_envs.side_channel.stats_side_channel import StatsAggregationMethod

    calls = []

    class Histograms(StatsWriter):
        def write_stats(self, category, values, step):
            for key, summary in values.items():
                assert isinstance(summary, StatsSummary)
                if summary.aggregation_method == StatsAggregationMethod.HISTOGRAM:
                    calls.append((key, summary.full_dist, summary.mean, summary.num))
                    summary.full_dist.clear()

        def add_property(self, category, property_type, value):
            calls.append((property_type == StatsPropertyType.HYPERPARAMETERS, value))

    def writers(options: RunOptions):
        return [Histograms(), Histograms()]
"""


@pytest.fixture
def no_mlagents(monkeypatch):
    """Hide the package, where it is installed, and forget what stood in for it afterwards."""
    before = list(sys.meta_path)
    monkeypatch.setattr(offers, "is_installed", lambda: False)
    monkeypatch.setattr(entry_points, "is_installed", lambda: False)
    names = [name for name in sys.modules if name.partition(".")[0] == "mlagents"]
    for name in names:
        monkeypatch.delitem(sys.modules, name)
    path = [entry for entry in sys.path if not Path(entry, "mlagents").exists()]
    monkeypatch.setattr(sys, "path", path)
    yield
    sys.meta_path[:] = before
    for name in [name for name in sys.modules if name.partition(".")[0] == "mlagents"]:
        del sys.modules[name]


def test_writers_made_of_classes_of_mlagents_write_without_it(install, no_mlagents):
    install("old-writers", {"old": "old_writers:writers"}, group=GROUP, old_writers=OF_MLAGENTS)
    manager = configured()
    assert not manager.implemented("on_add_stat")  # Only the base has it, and does nothing.
    values = {"reward": StatsSummary([1.0, 3.0], Method.HISTOGRAM), "length": StatsSummary([2.0], Method.AVERAGE)}
    manager.hook.write_stats(category="ball", values=values, step=5)
    manager.hook.add_property(category="ball", property_type=StatsPropertyType.HYPERPARAMETERS, value={"beta": 1})
    histogram, hyperparameters = ("reward", [], 2.0, 2), (True, {"beta": 1})
    assert sys.modules["old_writers"].calls == [histogram, histogram, hyperparameters, hyperparameters]
    assert values["reward"].full_dist == [1.0, 3.0]
    assert manager.disabled == []


def test_writer_that_needs_more_of_mlagents_is_left_out(install, no_mlagents, caplog):
    source = "from mlagents.trainers.settings import TrainerSettings, NetworkSettingsThatNobodyStandsInFor"
    install("old-writers", {"old": "old_writers:writers"}, group=GROUP, old_writers=source)
    manager = configured()
    (line,) = caplog.messages
    assert "'old' (old-writers 1.2) is left out" in line
    assert "--ignore-requires-python mlagents==1.1.0" in line
    assert not manager.implemented("write_stats")


def test_a_writer_of_event_files_that_clears_its_folder_writes_without_mlagents(install, no_mlagents, tmp_path):
    source = """
        from mlagents.trainers.stats import TensorboardWriter
        def writers(options):
            return [TensorboardWriter(options, clear_past_data=True, hidden_keys=["Is Training"])]
    """
    old = tmp_path / "ball" / "events.out.tfevents.1.old"
    old.parent.mkdir()
    old.touch()
    install("old-writers", {"old": "old_writers:writers"}, group=GROUP, old_writers=source)
    manager = configured(str(tmp_path))
    values = {"reward": StatsSummary([1.0, 3.0], Method.HISTOGRAM), "Is Training": StatsSummary([1.0])}
    manager.hook.write_stats(category="ball", values=values, step=5)
    (written,) = old.parent.glob("events.out.tfevents.*")
    assert written != old
    data = written.read_bytes()
    assert b"reward_hist" in data
    assert b"Is Training" not in data


def test_a_writer_that_uses_the_summary_writer_of_torch_writes_without_tensorboard(install, no_mlagents, tmp_path):
    if importlib.util.find_spec("tensorboard") is not None:
        pytest.skip("the package tensorboard is installed here")
    source = """
        from mlagents.trainers.stats import StatsWriter
        from torch.utils.tensorboard import SummaryWriter
        class Mine(StatsWriter):
            def __init__(self, folder):
                self.writer = SummaryWriter(folder)
            def write_stats(self, category, values, step):
                for key, summary in values.items():
                    self.writer.add_scalar(f"mine/{key}", summary.mean, step)
                self.writer.flush()
        def writers(options):
            return [Mine(options)]
    """
    install("old-writers", {"old": "old_writers:writers"}, group=GROUP, old_writers=source)
    try:
        manager = configured(str(tmp_path / "events"))
        manager.hook.write_stats(category="ball", values={"reward": StatsSummary([1.0, 3.0])}, step=5)
    finally:
        sys.modules.pop("torch.utils.tensorboard", None)
    (written,) = (tmp_path / "events").glob("events.out.tfevents.*")
    assert b"mine/reward" in written.read_bytes()
    assert manager.disabled == []


def test_writer_that_lacks_another_module_is_broken(install):
    install("old-writers", {"old": "old_writers:w"}, group=GROUP, old_writers="import mlagents_envs_that_nobody_has")
    with pytest.raises(PluginError, match=r"'old' \(old-writers 1\.2\).*mlagents_envs_that_nobody_has"):
        load_plugins()


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("writers = 3", "wants a function"),
        ("def writers(): ...", "TypeError"),
        ("def writers(options):\n    raise ValueError('bad')", "ValueError: bad"),
        ("def writers(options): ...", "returned None, not a list"),
        ("def writers(options):\n    return 'text'", "returned 'text', not a list"),
        ("def writers(options):\n    return [object()]", "no method write_stats"),
    ],
)
def test_function_that_does_not_return_writers_names_its_culprit(install, source, complaint):
    install("old-writers", {"old": "old_writers:writers"}, group=GROUP, old_writers=source)
    with pytest.raises(PluginError, match=rf"'old' \(old-writers 1\.2\).*{complaint}"):
        configured()
    assert configured(names=["no:old"]).describe()[0].blocked


def test_mlagents_own_writers_are_left_out(install):
    install("mlagents", {"default": "mlagents_writers:full"}, group=GROUP, mlagents_writers=WRITERS)
    assert configured().describe() == []


def test_taken_name_gets_its_distribution_in_front(install):
    install("one-writers", {"default": "one_writers:minimal"}, group=GROUP, one_writers=WRITERS)
    install("two-writers", {"default": "two_writers:minimal"}, group=GROUP, two_writers=WRITERS)
    assert [row.name for row in load_plugins().describe()] == ["default", "two-writers.default"]


def test_package_that_offers_a_plugin_too_is_loaded_once(install):
    plugin = "\nfrom mlhooks import hookimpl\n@hookimpl\ndef run_started(): ...\n"
    install("both", {"stats": "both_plugin"}, both_plugin=plugin)
    install("both", {"stats": "both_writers:full"}, group=GROUP, both_writers=WRITERS)
    (row,) = load_plugins().describe()
    assert row.hooks == ("run_started",)
