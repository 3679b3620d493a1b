from __future__ import annotations

import json

import pytest

from mlhooks import timers as module
from mlhooks.timers import Timers


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 100.0

        def __call__(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(module, "perf_counter", clock)
    return clock


def test_tree_follows_the_nesting_and_self_is_what_children_leave(clock):
    timers = Timers()
    for _ in range(3):
        with timers("update"):
            clock.now += 2
            with timers("loss"):
                clock.now += 5
    with timers("loss"):
        clock.now += 1
    clock.now += 10

    tree = timers.as_dict()
    assert tree["name"] == "root"
    assert (tree["total"], tree["count"], tree["self"]) == (32.0, 1, 10.0)
    assert tree["children"] == {
        "update": {
            "total": 21.0,
            "count": 3,
            "self": 6.0,
            "children": {"loss": {"total": 15.0, "count": 3, "self": 15.0}},
        },
        "loss": {"total": 1.0, "count": 1, "self": 1.0},
    }


def test_name_inside_itself_is_another_node(clock):
    timers = Timers()
    with timers("a"):
        clock.now += 1
        with timers("a"):
            clock.now += 2
    outer = timers.as_dict()["children"]["a"]
    assert (outer["total"], outer["count"], outer["self"]) == (3.0, 1, 1.0)
    assert outer["children"]["a"]["total"] == 2.0


def test_exception_ends_the_timers_it_leaves(clock):
    timers = Timers()
    with pytest.raises(ZeroDivisionError), timers("update"), timers("loss"):
        clock.now /= 0
    with timers("act"):
        clock.now += 1
    assert list(timers.as_dict()["children"]) == ["update", "act"]


def test_written_file_has_tree_metadata_and_gauges(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["mlhooks", "run", "ball.yaml"])
    timers = Timers()
    with timers("env_step"):
        pass
    for value in (3.0, 1.0, 2.0):
        timers.set_gauge("3DBall.Entropy.mean", value)
    path = tmp_path / "run_logs" / "timers.json"
    timers.write(path)
    timers.write(path)

    tree = json.loads(path.read_text(encoding="utf-8"))
    assert tree["children"]["env_step"]["count"] == 1
    assert tree["gauges"] == {"3DBall.Entropy.mean": {"value": 2.0, "min": 1.0, "max": 3.0, "count": 3}}
    assert tree["metadata"]["command_line_arguments"] == "mlhooks run ball.yaml"
    assert tree["metadata"]["timer_format_version"] == "0.1.0"
    assert {"python_version", "mlhooks_version", "numpy_version", "start_time_seconds"} <= tree["metadata"].keys()
    assert [entry.name for entry in path.parent.iterdir()] == ["timers.json"]
