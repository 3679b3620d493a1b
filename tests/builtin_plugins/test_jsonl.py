from __future__ import annotations

import json
import math
import sys

import numpy as np
import pytest

from builtin_plugins import jsonl
from mlhooks.errors import PluginError
from mlhooks.stats import StatsAggregationMethod as Method


def strict_rows(path):
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    text = path.read_text(encoding="utf-8")
    assert text == "" or text.endswith("\n")
    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


def write(trainer, step, reward):
    trainer.step = step
    trainer.stats.add_stat("Environment/Cumulative Reward", reward, Method.HISTOGRAM)
    trainer.stats.write_stats(step)


def steps(path):
    return [(row["category"], row["step"]) for row in strict_rows(path)]


def test_line_holds_every_key_with_its_five_numbers(start_run):
    run = start_run(jsonl)
    trainer = run.add_behavior("3DBall")
    trainer.stats.add_stats("Environment/Cumulative Reward", np.array([1.0, 3.0]), Method.HISTOGRAM)
    trainer.stats.set_stat("Policy/Learning Rate", 3e-4)
    trainer.stats.write_stats(12000)

    (row,) = strict_rows(run.path / "stats.jsonl")
    assert list(row) == ["category", "step", "time", "values"]
    assert (row["category"], row["step"]) == ("3DBall", 12000)
    assert row["time"] > 1.7e9
    assert row["values"] == {
        "Environment/Cumulative Reward": {
            "mean": 2.0,
            "std": 1.0,
            "sum": 4.0,
            "count": 2,
            "aggregation": "histogram",
        },
        "Policy/Learning Rate": {"mean": 3e-4, "std": 0.0, "sum": 3e-4, "count": 1, "aggregation": "most_recent"},
    }
    assert run.finish().files == {"stats": [run.path / "stats.jsonl"]}


def test_values_that_are_not_finite_become_null(start_run):
    run = start_run(jsonl)
    trainer = run.add_behavior("3DBall")
    trainer.stats.add_stat("Losses/Policy Loss", math.nan)
    trainer.stats.add_stat("Losses/Value Loss", math.inf)
    trainer.stats.write_stats(1)
    (row,) = strict_rows(run.path / "stats.jsonl")
    assert row["values"]["Losses/Policy Loss"]["mean"] is None
    assert row["values"]["Losses/Value Loss"] == {
        "mean": None,
        "std": None,
        "sum": None,
        "count": 1,
        "aggregation": "average",
    }


def test_any_name_and_a_summary_without_values_are_written(start_run):
    run = start_run(jsonl)
    name = 'Läufer/日本\n"\ud800'
    trainer = run.add_behavior(name)
    trainer.stats.write_stats(5)
    assert strict_rows(run.path / "stats.jsonl")[0]["category"] == name
    assert strict_rows(run.path / "stats.jsonl")[0]["values"] == {}


def test_new_run_begins_a_new_file(start_run):
    write(start_run(jsonl).add_behavior("3DBall"), 10, 1.0)
    run = start_run(jsonl)
    write(run.add_behavior("3DBall"), 20, 1.0)
    assert steps(run.path / "stats.jsonl") == [("3DBall", 20)]


def test_resume_keeps_what_led_to_the_checkpoint_and_drops_what_came_after(start_run):
    first = start_run(jsonl)
    ball, wall = first.add_behavior("3DBall"), first.add_behavior("Wall")
    for step in (10, 20, 30):
        write(ball, step, 1.0)
        write(wall, step, 1.0)

    second = start_run(jsonl, resumed=True)
    resumed = second.add_behavior("3DBall", step=20)
    write(resumed, 30, 2.0)
    path = second.path / "stats.jsonl"
    assert steps(path) == [("3DBall", 10), ("Wall", 10), ("3DBall", 20), ("Wall", 20), ("Wall", 30), ("3DBall", 30)]
    assert strict_rows(path)[-1]["values"]["Environment/Cumulative Reward"]["mean"] == 2.0


@pytest.mark.parametrize("rest", [b'{"category": "3DBall", "step": 2', b"\x00\x00\x00", b"\xff\xfe\n", b"[1]\n"])
def test_resume_repairs_the_line_that_a_killed_run_left(start_run, rest):
    run = start_run(jsonl)
    write(run.add_behavior("3DBall"), 10, 1.0)
    path = run.path / "stats.jsonl"
    path.write_bytes(path.read_bytes() + rest)

    write(start_run(jsonl, resumed=True).add_behavior("3DBall", step=10), 20, 1.0)
    assert steps(path) == [("3DBall", 10), ("3DBall", 20)]
    assert [entry.name for entry in run.path.iterdir()] == ["stats.jsonl"]


def test_resume_leaves_a_whole_file_alone(start_run):
    run = start_run(jsonl)
    write(run.add_behavior("3DBall"), 10, 1.0)
    inode = (run.path / "stats.jsonl").stat().st_ino
    start_run(jsonl, resumed=True).add_behavior("3DBall", step=10)
    assert (run.path / "stats.jsonl").stat().st_ino == inode


def test_resume_without_a_file_writes_one(start_run):
    run = start_run(jsonl, resumed=True)
    write(run.add_behavior("3DBall", step=10), 20, 1.0)
    assert steps(run.path / "stats.jsonl") == [("3DBall", 20)]


def test_inference_leaves_the_file_of_the_training_alone(start_run):
    run = start_run(jsonl)
    write(run.add_behavior("3DBall"), 10, 1.0)
    before = (run.path / "stats.jsonl").read_bytes()
    inference = start_run(jsonl, inference=True)
    write(inference.add_behavior("3DBall", step=5), 10, 1.0)
    assert inference.finish().files == {}
    assert (run.path / "stats.jsonl").read_bytes() == before


def test_run_without_a_summary_has_no_file(start_run):
    assert start_run(jsonl).finish(status="failed").files == {}


@pytest.mark.skipif(sys.platform == "win32", reason="a limit on the size of files is POSIX")
def test_line_that_does_not_fit_on_the_disk_leaves_no_half(start_run):
    import resource

    run = start_run(jsonl)
    trainer, path = run.add_behavior("3DBall"), run.path / "stats.jsonl"
    write(trainer, 100, 1.0)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 20, before[1]))
    try:
        with pytest.raises(PluginError, match="No space left"):
            run.plugins.hook.write_stats(category="3DBall", values={}, step=200)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    write(trainer, 300, 1.0)
    assert steps(path) == [("3DBall", 100), ("3DBall", 300)]
