from __future__ import annotations

import json
import math
import statistics
from typing import Any

import numpy as np
import pytest

from mlhooks import hookimpl
from mlhooks.plugins import PluginManager
from mlhooks.stats import StatsAggregationMethod as Method
from mlhooks.stats import StatsPropertyType, StatsReporter, StatsSummary


class Recorder:
    def __init__(self):
        self.written, self.properties = [], []

    @hookimpl
    def write_stats(self, category, values, step):
        self.written.append((category, values, step))

    @hookimpl
    def add_property(self, category, property_type, value):
        self.properties.append((category, property_type, value))


class Listener:
    def __init__(self):
        self.heard = []

    @hookimpl
    def on_add_stat(self, category, key, value, aggregation):
        self.heard.append((category, key, value, aggregation))


def reporter_with(*plugins):
    manager = PluginManager(strict=True)
    for plugin in plugins:
        manager.register(plugin)
    return StatsReporter("3DBall", manager)


def test_enum_values_are_those_that_players_send():
    assert [method.value for method in (Method.AVERAGE, Method.HISTOGRAM, Method.MOST_RECENT, Method.SUM)] == [
        0,
        1,
        2,
        3,
    ]
    assert StatsPropertyType("hyperparameters") is StatsPropertyType.HYPERPARAMETERS
    assert StatsPropertyType("selfplay") is StatsPropertyType.SELF_PLAY


def test_summary_describes_its_values():
    values = [1.0, 2.0, 4.0, 9.0]
    summary = StatsSummary(values, Method.AVERAGE)
    assert summary.full_dist == values
    assert (summary.num, summary.sum, summary.mean) == (4, 16.0, 4.0)
    assert summary.std == pytest.approx(statistics.pstdev(values))


@pytest.mark.parametrize(
    ("method", "expected"),
    [(Method.AVERAGE, 4.0), (Method.HISTOGRAM, 4.0), (Method.MOST_RECENT, 9.0), (Method.SUM, 16.0)],
)
def test_aggregated_value_follows_the_method(method, expected):
    assert StatsSummary([1.0, 2.0, 4.0, 9.0], method).aggregated_value == expected


@pytest.mark.parametrize("method", list(Method))
def test_empty_summary_is_safe(method):
    summary = StatsSummary([], method)
    assert (summary.full_dist, summary.num, summary.sum) == ([], 0, 0.0)
    assert math.isnan(summary.mean)
    assert math.isnan(summary.std)
    assert summary.aggregated_value == 0.0 if method is Method.SUM else math.isnan(summary.aggregated_value)


def test_summary_of_values_that_are_not_finite_warns_of_nothing():
    summary = StatsSummary([math.inf, -math.inf, math.nan])
    assert math.isnan(summary.mean)
    assert math.isnan(summary.std)
    assert StatsSummary([math.inf, 1.0]).mean == math.inf


def test_numbers_of_a_summary_are_plain_floats():
    summary = StatsSummary(np.float32([1, 2]))
    assert {
        type(n) for n in (summary.mean, summary.std, summary.sum, summary.aggregated_value, *summary.full_dist)
    } == {float}


def test_million_values_are_summed_up_exactly():
    reporter = StatsReporter("3DBall")
    reporter.add_stats("k", np.arange(1_000_000), Method.HISTOGRAM)
    summary = reporter.get_stats_summaries("k")
    assert (summary.num, summary.sum) == (1_000_000, 499_999_500_000.0)
    assert summary.std == pytest.approx(math.sqrt((1_000_000**2 - 1) / 12))


def test_values_add_up_until_they_are_written():
    recorder = Recorder()
    reporter = reporter_with(recorder)
    reporter.add_stat("Losses/Policy Loss", 1.0)
    reporter.add_stat("Losses/Policy Loss", 3.0)
    reporter.add_stats("Environment/Cumulative Reward", np.array([[5.0], [7.0]], np.float32), Method.HISTOGRAM)
    reporter.write_stats(1000)
    reporter.write_stats(2000)

    (category, values, step), (_, nothing, second_step) = recorder.written
    assert (category, step, second_step) == ("3DBall", 1000, 2000)
    assert values["Losses/Policy Loss"].full_dist == [1.0, 3.0]
    assert values["Environment/Cumulative Reward"].full_dist == [5.0, 7.0]
    assert values["Environment/Cumulative Reward"].aggregation_method is Method.HISTOGRAM
    assert nothing == {}


def test_most_recent_value_replaces_the_earlier_ones():
    reporter = StatsReporter("3DBall")
    reporter.set_stat("a", 1.0)
    reporter.set_stat("a", 2.0)
    reporter.add_stat("b", 1.0)
    reporter.add_stats("b", np.array([5.0, 6.0]), Method.MOST_RECENT)
    assert reporter.get_stats_summaries("a").full_dist == [2.0]
    assert reporter.get_stats_summaries("b").full_dist == [6.0]
    assert reporter.get_stats_summaries("a").aggregation_method is Method.MOST_RECENT


def test_empty_array_adds_no_key():
    reporter = StatsReporter("3DBall")
    for method in Method:
        reporter.add_stats("k", np.zeros(0), method)
    assert reporter.state_dict() == {}


def test_key_that_never_got_a_value_has_an_empty_summary():
    assert StatsReporter("3DBall").get_stats_summaries("k").num == 0


def test_extra_values_are_single_most_recent_ones():
    recorder = Recorder()
    reporter = reporter_with(recorder)
    reporter.add_stat("a", 1.0)
    reporter.write_stats(10, {"Policy/KL": np.float32(0.5), "a": 7})
    values = recorder.written[0][1]
    assert values["Policy/KL"].full_dist == [0.5]
    assert values["Policy/KL"].aggregation_method is Method.MOST_RECENT
    assert values["a"].aggregated_value == 7.0


def test_every_emitted_value_is_heard_at_once():
    listener = Listener()
    reporter = reporter_with(listener)
    reporter.add_stat("a", np.float32(1.5), Method.SUM)
    reporter.add_stats("b", np.array([2.0, 3.0]), Method.HISTOGRAM)
    reporter.set_stat("c", 4)
    assert listener.heard == [
        ("3DBall", "a", 1.5, Method.SUM),
        ("3DBall", "b", 2.0, Method.HISTOGRAM),
        ("3DBall", "b", 3.0, Method.HISTOGRAM),
        ("3DBall", "c", 4.0, Method.MOST_RECENT),
    ]


def test_listener_that_comes_later_hears_later_values():
    reporter = reporter_with()
    reporter.add_stat("a", 1.0)
    listener = Listener()
    reporter._plugins.register(listener)
    reporter.add_stat("a", 2.0)
    assert [value for _, _, value, _ in listener.heard] == [2.0]


def test_value_that_is_no_number_is_refused_where_it_is_emitted():
    with pytest.raises(TypeError):
        StatsReporter("3DBall").add_stat("a", "high")


def test_property_reaches_the_plugins():
    recorder = Recorder()
    reporter_with(recorder).add_property(StatsPropertyType.HYPERPARAMETERS, {"batch_size": 64})
    assert recorder.properties == [("3DBall", StatsPropertyType.HYPERPARAMETERS, {"batch_size": 64})]


def test_reporter_without_plugins_collects_only():
    reporter = StatsReporter("3DBall")
    reporter.add_stat("a", 1.0)
    reporter.add_property(StatsPropertyType.SELF_PLAY, True)
    reporter.write_stats(1)
    assert reporter.get_stats_summaries("a").num == 0


def test_unwritten_values_survive_a_resume_through_json():
    listener, recorder = Listener(), Recorder()
    before, after = StatsReporter("3DBall"), reporter_with(listener, recorder)
    before.add_stat("Läufer/日本", 0.1, Method.SUM)
    before.add_stats("Losses/Value Loss", np.array([1.0, 2.0]))
    after.load_state_dict(json.loads(json.dumps(before.state_dict())))
    assert listener.heard == []

    after.add_stat("Losses/Value Loss", 3.0)
    after.write_stats(1)
    values = recorder.written[0][1]
    assert values["Läufer/日本"].full_dist == [0.1]
    assert values["Läufer/日本"].aggregation_method is Method.SUM
    assert values["Losses/Value Loss"].full_dist == [1.0, 2.0, 3.0]


def test_summary_cannot_be_changed() -> None:
    summary = StatsSummary([1.0, 2.0])
    summary.full_dist.clear()
    with pytest.raises(ValueError, match="read-only"):
        summary.values[0] = 9.0
    for name in ("mean", "sum", "values", "aggregation_method", "own"):
        with pytest.raises(AttributeError, match=name):
            setattr(summary, name, 9.0)
    assert (summary.full_dist, summary.mean, summary.sum) == ([1.0, 2.0], 1.5, 3.0)


@pytest.mark.parametrize(("key", "aggregation"), [(("X",), Method.SUM), (None, Method.AVERAGE), ("X", "sum")])
def test_statistic_without_a_text_or_a_method_is_refused(key: Any, aggregation: Any) -> None:
    reporter = StatsReporter("3DBall")
    with pytest.raises(TypeError, match="a text as its key and a StatsAggregationMethod"):
        reporter.add_stat(key, 1.0, aggregation)
    assert reporter.state_dict() == {}
