from __future__ import annotations

import json
import logging
import math
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from builtin_plugins import curve, jsonl
from mlhooks.stats import StatsAggregationMethod as Method


@pytest.fixture
def drawn(monkeypatch):
    """Collect what would be drawn, without the child process."""
    jobs = []

    def draw(curves, title, path):
        jobs.append((curves, title))
        path.write_bytes(b"png")
        return True

    monkeypatch.setattr(curve, "draw", draw)
    return jobs


def write(trainer, step, rewards):
    trainer.stats.add_stats("Environment/Cumulative Reward", np.array(rewards), Method.HISTOGRAM)
    trainer.stats.write_stats(step)


def test_picture_is_drawn_by_a_child_and_named_in_the_outcome(start_run):
    run = start_run(curve, run_id="Läufer $x$")
    for name in ("3DBall", "$\\frac$ 日本_{"):
        trainer = run.add_behavior(name)
        write(trainer, 10_000, [1.0, 3.0])
        write(trainer, 20_000, [5.0, 5.0])
    assert run.finish(status="interrupted").files == {"curve": [run.path / "curve.png"]}

    data = (run.path / "curve.png").read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", data[16:24]) == (1200, 675)
    assert [entry.name for entry in run.path.iterdir()] == ["curve.png"]


def test_points_are_mean_and_deviation_of_each_period_with_an_episode(start_run, drawn):
    run = start_run(curve)
    trainer = run.add_behavior("3DBall")
    write(trainer, 10, [1.0, 3.0])
    write(trainer, 20, [])
    write(trainer, 30, [math.nan])
    write(trainer, 40, [6.0])
    run.finish()
    assert drawn == [({"3DBall": [(10, 2.0, 1.0), (40, 6.0, 0.0)]}, "first")]


def test_evaluations_have_a_curve_of_their_own_also_after_a_resume(start_run, drawn):
    run = start_run(curve, jsonl)
    trainer = run.add_behavior("3DBall")
    write(trainer, 10, [1.0, 3.0])
    for step in (10, 20):
        trainer.stats.add_stats("Evaluation/Cumulative Reward", np.array([step, step + 2.0]), Method.HISTOGRAM)
        trainer.stats.write_stats(step)
    run.finish()
    resumed = start_run(curve, jsonl, resumed=True)
    write(resumed.add_behavior("3DBall", step=20), 30, [4.0])
    resumed.finish()
    evaluated = [(10, 11.0, 1.0), (20, 21.0, 1.0)]
    assert drawn[0] == ({"3DBall, evaluated": evaluated}, "first")
    assert drawn[1] == ({"3DBall": [(10, 2.0, 1.0), (30, 4.0, 0.0)], "3DBall, evaluated": evaluated}, "first")


@pytest.mark.parametrize("summaries", [0, 1])
def test_fewer_than_two_points_make_no_picture(start_run, drawn, summaries):
    run = start_run(curve)
    trainer = run.add_behavior("3DBall")
    for step in range(summaries):
        write(trainer, step, [1.0])
    assert run.finish(status="failed").files == {}
    assert drawn == []


def test_resumed_run_shows_the_whole_history(start_run, drawn):
    first = start_run(jsonl, curve)
    ball, wall = first.add_behavior("3DBall"), first.add_behavior("Wall")
    for step in (10, 20, 30):
        write(ball, step, [float(step)])
        write(wall, step, [-1.0])
    first.finish()

    second = start_run(jsonl, curve, resumed=True)
    write(second.add_behavior("3DBall", step=20), 30, [99.0])
    second.finish()
    assert drawn[1][0] == {"3DBall": [(10, 10.0, 0.0), (20, 20.0, 0.0), (30, 99.0, 0.0)]}


def test_new_run_does_not_keep_the_picture_of_an_older_one(start_run, drawn):
    (start_run().path / "curve.png").touch()
    start_run(curve, resumed=True).finish()
    assert (start_run().path / "curve.png").exists()
    start_run(curve).finish()
    assert not (start_run().path / "curve.png").exists()


def test_inference_draws_nothing_and_keeps_the_picture(start_run, drawn):
    (start_run().path / "curve.png").touch()
    run = start_run(curve, inference=True)
    trainer = run.add_behavior("3DBall")
    write(trainer, 10, [1.0])
    write(trainer, 20, [1.0])
    assert run.finish().files == {}
    assert drawn == []
    assert (run.path / "curve.png").exists()


def test_child_that_fails_is_a_warning_and_keeps_the_old_picture(tmp_path, caplog):
    old = tmp_path / "curve.png"
    old.write_bytes(b"old")
    with caplog.at_level(logging.WARNING, "mlhooks"):
        assert curve.draw({"3DBall": [(1, 2.0)]}, "title", old) is False  # type: ignore[list-item]
    assert "The learning curve was not drawn: ValueError" in caplog.text
    assert old.read_bytes() == b"old"


def test_child_that_hangs_is_given_up(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(curve, "TIMEOUT_SECONDS", 0.0)
    with caplog.at_level(logging.WARNING, "mlhooks"):
        assert curve.draw({}, "title", tmp_path / "curve.png") is False
    assert "timed out after 0.0 seconds" in caplog.text


@pytest.mark.skipif(os.name != "posix", reason="sends POSIX signals")
def test_child_draws_on_when_a_terminal_interrupts_all_processes(tmp_path, monkeypatch):
    """The child interrupts itself in place of a terminal, and only then reads what to draw."""
    plot = tmp_path / "curve_plot.py"
    original = Path(curve.__file__).with_name("curve_plot.py").read_text()
    interrupted = "import os, signal\nfor number in (signal.SIGINT, signal.SIGHUP): os.kill(os.getpid(), number)\n"
    plot.write_text(original.replace("import json\n", interrupted + "import json\n", 1))
    monkeypatch.setattr(curve, "__file__", str(tmp_path / "curve.py"))
    picture = tmp_path / "curve.png"
    assert curve.draw({"3DBall": [(1, 2.0, 0.5), (2, 3.0, 0.5)]}, "title", picture)
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_writers_import_nothing_heavy_until_they_are_used():
    script = (
        "import sys, json\n"
        "from builtin_plugins import console, curve, jsonl, tensorboard\n"
        "print(json.dumps(sorted({'torch', 'numpy', 'matplotlib', 'tensorboardX', 'rich'} & set(sys.modules))))"
    )
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout
    assert json.loads(output) == []
