from __future__ import annotations

import gc
import json
import math
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mlhooks
from mlhooks import hookimpl
from mlhooks.cli import main
from mlhooks.stats import StatsAggregationMethod, StatsSummary
from mlhooks.training.run import Run
from mlhooks_stats_sqlite.database import Database, read
from mlhooks_stats_sqlite.plugin import SqliteWriter

PLUGINS = ["stats-sqlite", "no:console", "no:tensorboard", "no:curve"]
REWARD = "Environment/Cumulative Reward"


def train(folder: Path, max_steps: int = 600, *plugins: object, **arguments: Any) -> Run:
    """Return a run of seconds with a summary every 200 steps; the database is `folder/run/stats.sqlite`."""
    entry = {
        "trainer_type": "ppo",
        "hyperparameters": {"batch_size": 20, "buffer_size": 100},
        "network_settings": {"hidden_units": 8, "num_layers": 1},
        "max_steps": max_steps,
        "summary_freq": 200,
        "checkpoint_interval": 400,
    }
    config = {"behaviors": {"Basic": entry}, "env_settings": {"env_path": "sim:Basic", "seed": 5, "num_areas": 4}}
    arguments = {"plugin_names": PLUGINS, "results_dir": folder, "run_id": "run", "strict_plugins": True, **arguments}
    return mlhooks.train(config, plugins=plugins, **arguments)


def rows_of(folder: Path, **limits: Any) -> list[dict[str, Any]]:
    return read(folder / "run" / "stats.sqlite", **limits)


class Recorder:
    """The values that the hooks handed out."""

    def __init__(self) -> None:
        self.summaries: dict[tuple[str, int, str], StatsSummary] = {}
        self.emitted: dict[str, int] = {}

    @hookimpl
    def on_add_stat(self, key: str) -> None:
        self.emitted[key] = self.emitted.get(key, 0) + 1

    @hookimpl
    def write_stats(self, category: str, values: dict[str, StatsSummary], step: int) -> None:
        self.summaries |= {(category, step, key): summary for key, summary in values.items()}


@pytest.fixture
def database(tmp_path: Path) -> Any:
    database = Database(tmp_path / "stats.sqlite")
    yield database
    database.close()


def test_run_writes_every_summary_once(tmp_path: Path) -> None:
    recorder = Recorder()
    run = train(tmp_path, 600, recorder)
    rows = rows_of(tmp_path)
    assert {row["step"] for row in rows} == {200, 400, 600}
    written = {(row["behavior"], row["step"], row["key"]): row for row in rows}
    assert written.keys() == recorder.summaries.keys()
    for place, summary in recorder.summaries.items():
        row = written[place]
        assert (row["mean"], row["std"], row["sum"]) == (summary.mean, summary.std, summary.sum)
        assert (row["value"], row["count"]) == (summary.aggregated_value, summary.num)
        assert row["aggregation"] == summary.aggregation_method.name.lower()
    assert run.outcome.files["database"] == [run.path / "stats.sqlite"]


def test_emissions_are_counted(tmp_path: Path) -> None:
    recorder = Recorder()
    train(tmp_path, 600, recorder)
    counted: dict[str, int] = {}
    for row in rows_of(tmp_path):
        counted[row["key"]] = counted.get(row["key"], 0) + row["emitted"]
    assert recorder.emitted.keys() <= counted.keys()
    assert {key: count for key, count in counted.items() if count} == recorder.emitted
    assert counted["Policy/Learning Rate"] == 0  # It is a value of summary_stats, and never emitted.


def test_resumed_run_has_each_step_once_and_forgets_what_followed_the_checkpoint(tmp_path: Path) -> None:
    train(tmp_path, 400)
    first = rows_of(tmp_path)
    with closing(Database(tmp_path / "run" / "stats.sqlite")) as lost:
        lost.write("Basic", 500, {REWARD: StatsSummary([7.0])}, {REWARD: 1})
    train(tmp_path, 800, resume=True)
    rows = rows_of(tmp_path)
    assert rows[: len(first)] == first
    assert sorted({row["step"] for row in rows}) == [200, 400, 600, 800]


def test_forced_run_begins_a_new_file(tmp_path: Path) -> None:
    train(tmp_path, 600)
    train(tmp_path, 200, force=True)
    assert {row["step"] for row in rows_of(tmp_path)} == {200}


def test_inference_writes_nothing(tmp_path: Path) -> None:
    train(tmp_path, 200)
    (tmp_path / "run" / "stats.sqlite").unlink()
    run = train(tmp_path, 200, resume=True, flags={"checkpoint_settings.inference": True}, episodes=4)
    assert run.inference
    assert not (tmp_path / "run" / "stats.sqlite").exists()


def test_runs_of_one_process_have_a_writer_each(tmp_path: Path) -> None:
    train(tmp_path, 200, run_id="run")
    train(tmp_path, 400, run_id="other")
    assert {row["step"] for row in rows_of(tmp_path)} == {200}


def test_failed_write_leaves_the_rest_and_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write, failures = Database.write, [sqlite3.OperationalError("database or disk is full")]

    def fail_at_400(self: Database, behavior: str, step: int, summaries: Any, emitted: Any) -> None:
        write(self, behavior, step, summaries, emitted)
        if step == 400:
            raise failures.pop()

    monkeypatch.setattr(Database, "write", fail_at_400)
    run = train(tmp_path, 600, strict_plugins=False)
    assert run.outcome.status == "finished"
    assert failures == []
    assert "stats-sqlite" in caplog.text
    assert "disk is full" in caplog.text
    assert {row["step"] for row in rows_of(tmp_path)} == {200, 400, 600}


def test_summary_is_written_whole_or_not_at_all(database: Database) -> None:
    good = {f"key {index}": StatsSummary([1.0]) for index in range(3)}
    emitted: dict[str, Any] = {**dict.fromkeys(good, 1), "broken": object()}  # SQLite knows no such type.
    with pytest.raises(sqlite3.Error):
        database.write("A", 1, {**good, "broken": StatsSummary([1.0])}, emitted)
    assert read(database.path) == []


def test_odd_values_and_names_survive(database: Database) -> None:
    values = {
        "empty": StatsSummary([]),
        "no number": StatsSummary([math.nan, 1.0]),
        "infinite": StatsSummary([math.inf, 1.0]),
        "größe/日本 'x' \"y\"; drop table summaries": StatsSummary([1.5]),
        "many": StatsSummary(np.ones(1_000_000), StatsAggregationMethod.HISTOGRAM),
        "sum": StatsSummary([1.0, 2.0], StatsAggregationMethod.SUM),
    }
    database.write("A/ö", 1, values, dict.fromkeys(values, 0))
    database.write("A/ö", 2, {}, {})
    rows = {row["key"]: row for row in read(database.path)}
    assert rows.keys() == values.keys()
    assert (rows["empty"]["value"], rows["empty"]["count"]) == (None, 0)
    assert (rows["no number"]["mean"], rows["no number"]["count"]) == (None, 2)
    assert (rows["infinite"]["sum"], rows["infinite"]["count"]) == (None, 2)
    assert (rows["many"]["sum"], rows["many"]["aggregation"]) == (1e6, "histogram")
    assert (rows["sum"]["value"], rows["sum"]["mean"]) == (3.0, 1.5)


def test_last_periods_are_those_of_each_behavior(database: Database) -> None:
    for behavior, steps in {"A": (1, 2, 3), "B": (10,)}.items():
        for step in steps:
            database.write(behavior, step, {"x": StatsSummary([1.0]), "y": StatsSummary([2.0])}, {"x": 1, "y": 1})
    places = [(row["behavior"], row["step"]) for row in read(database.path, key="x", periods=2)]
    assert places == [("A", 2), ("A", 3), ("B", 10)]
    assert [row["key"] for row in read(database.path, behavior="B*")] == ["x", "y"]


def test_writer_that_is_taken_out_closes_its_file(tmp_path: Path) -> None:
    writer = SqliteWriter()
    noted = {"note_file": lambda self, path: path}
    writer.run_started(type("Started", (), {"inference": False, "resumed": False, "path": tmp_path, **noted})())
    connection = writer.database._connection
    del writer
    gc.collect()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        connection.execute("select 1")


def test_command_shows_the_last_summary(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    run = train(tmp_path, 400)
    capsys.readouterr()
    for name in (["run", "--results-dir", str(tmp_path)], [str(run.path)], [str(run.path / "stats.sqlite")]):
        assert main(["stats-sqlite", "show", *name, "--key", "Environment/*"]) == 0
        out = capsys.readouterr().out
        assert REWARD in out
        assert "400" in out
        assert "200" not in out
        assert "Policy/" not in out


def test_command_prints_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(tmp_path, 400)
    capsys.readouterr()
    assert main(["stats-sqlite", "show", str(tmp_path / "run"), "--all", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == rows_of(tmp_path)


def test_command_says_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stats-sqlite", "show", "nothing", "--results-dir", str(tmp_path)]) == 2
    assert "Train with the plugin stats-sqlite" in capsys.readouterr().err
    (tmp_path / "notes.txt").write_text("This is no database, though it is long enough to be one." * 10)
    assert main(["stats-sqlite", "show", str(tmp_path / "notes.txt")]) == 2
    assert "does not hold statistics" in capsys.readouterr().err


def test_database_and_its_journal_are_the_runs(tmp_path: Path) -> None:
    """So `--force` may remove them, also where the run was killed amid a transaction."""
    run = train(tmp_path, 200)
    (run.path / "stats.sqlite-journal").write_bytes(b"left by a kill")
    train(tmp_path, 200, force=True, plugin_names=["no:stats-sqlite", *PLUGINS[1:]])
    assert not list(run.path.glob("stats.sqlite*"))
