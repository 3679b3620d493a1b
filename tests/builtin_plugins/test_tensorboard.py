from __future__ import annotations

import math
import os
import re
import struct
import threading

import numpy as np
import pytest

from builtin_plugins import tensorboard
from mlhooks.stats import StatsAggregationMethod as Method
from mlhooks.stats import StatsPropertyType


def events(path):
    """Read the records of an event file: length, its checksum, the message, its checksum."""
    from tensorboardX.proto.event_pb2 import Event

    data, found = path.read_bytes(), []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        found.append(Event.FromString(data[12 : 12 + length]))
        data = data[16 + length :]
    return found


def event_files(folder):
    return sorted(folder.glob("events.out.tfevents.*"))


def summary_values(path):
    return {value.tag: (event.step, value) for event in events(path) for value in event.summary.value}


def test_keys_stay_as_they_are_and_scalars_are_aggregated(start_run):
    run = start_run(tensorboard)
    trainer = run.add_behavior("3DBall")
    for value in (1.0, 4.0):
        trainer.stats.add_stat("Environment/Episode Length", value)
        trainer.stats.add_stat("Custom/Läufer: a=b", value, Method.SUM)
    trainer.stats.set_stat("Policy/Learning Rate", 0.25)
    trainer.stats.write_stats(12000)

    (path,) = event_files(run.path / "3DBall")  # It is written through before the run ends.
    assert events(path)[0].file_version == "brain.Event:2"
    scalars = {tag: (step, value.simple_value) for tag, (step, value) in summary_values(path).items()}
    assert scalars == {
        "Environment/Episode Length": (12000, 2.5),
        "Custom/Läufer: a=b": (12000, 5.0),
        "Policy/Learning Rate": (12000, 0.25),
    }
    assert run.finish().files == {"events": [path]}


def test_histogram_has_its_mean_as_scalar_and_its_distribution(start_run):
    run = start_run(tensorboard)
    trainer = run.add_behavior("3DBall")
    trainer.stats.add_stats("Environment/Cumulative Reward", np.array([1.0, 2.0, 2.0, 7.0]), Method.HISTOGRAM)
    trainer.stats.write_stats(5)

    values = summary_values(event_files(run.path / "3DBall")[0])
    assert values["Environment/Cumulative Reward"][1].simple_value == 3.0
    histogram = values["Environment/Cumulative Reward_hist"][1].histo
    assert (histogram.min, histogram.max, histogram.num) == (1.0, 7.0, 4.0)
    assert (histogram.sum, histogram.sum_squares) == (12.0, 1 + 4 + 4 + 49)
    assert sum(histogram.bucket) == 4
    assert sum(n for limit, n in zip(histogram.bucket_limit, histogram.bucket, strict=True) if limit < 3) == 3


@pytest.mark.parametrize(
    ("given", "counted"),
    [([math.nan, 1.0, math.inf, 2.0], 2), ([5.0, 5.0], 2), ([1e308, 1.0], 1), (range(10**6), 10**6)],
)
def test_histogram_counts_the_finite_values(start_run, given, counted):
    run = start_run(tensorboard)
    trainer = run.add_behavior("3DBall")
    trainer.stats.add_stats("k", np.array(given), Method.HISTOGRAM)
    trainer.stats.write_stats(5)
    histogram = summary_values(event_files(run.path / "3DBall")[0])["k_hist"][1].histo
    assert histogram.num == sum(histogram.bucket) == counted


def test_values_that_are_not_finite_show_as_such(start_run):
    run = start_run(tensorboard)
    trainer = run.add_behavior("3DBall")
    trainer.stats.add_stat("Losses/Policy Loss", math.nan)
    trainer.stats.add_stat("Environment/Cumulative Reward", math.nan, Method.HISTOGRAM)
    trainer.stats.write_stats(5)
    values = summary_values(event_files(run.path / "3DBall")[0])
    assert math.isnan(values["Losses/Policy Loss"][1].simple_value)
    assert "Environment/Cumulative Reward_hist" not in values


def test_hyperparameters_are_written_as_text(start_run):
    run = start_run(tensorboard)
    trainer = run.add_behavior("3DBall")
    trainer.stats.add_property(StatsPropertyType.SELF_PLAY, True)
    trainer.stats.add_property(StatsPropertyType.HYPERPARAMETERS, {"batch_size": 64, "activation": Method.SUM})
    values = summary_values(event_files(run.path / "3DBall")[0])
    assert list(values) == ["Hyperparameters/text_summary"]
    value = values["Hyperparameters/text_summary"][1]
    assert value.metadata.plugin_data.plugin_name == "text"
    assert '    "batch_size": 64' in value.tensor.string_val[0].decode()


def test_resume_adds_a_file_that_hides_what_came_after_the_checkpoint(start_run):
    from tensorboardX.proto.event_pb2 import SessionLog

    first = start_run(tensorboard)
    first.add_behavior("3DBall").stats.write_stats(10, {"k": 1.0})
    first.finish()
    old = event_files(first.path / "3DBall")
    content = old[0].read_bytes()

    second = start_run(tensorboard, resumed=True)
    stats = second.add_behavior("3DBall", step=10).stats
    stats.add_property(StatsPropertyType.HYPERPARAMETERS, {"batch_size": 64})
    stats.write_stats(20, {"k": 2.0})
    second.finish()
    files = event_files(second.path / "3DBall")
    assert len(files) == 2
    assert old[0].read_bytes() == content
    (new,) = set(files) - set(old)
    restart = events(new)[1]
    assert (restart.session_log.status, restart.step) == (SessionLog.START, 11)
    assert list(summary_values(new)) == ["Hyperparameters/text_summary", "k"]
    assert summary_values(new)["k"][0] == 20


def test_resumed_run_that_has_nothing_to_write_adds_no_file(start_run):
    run = start_run(tensorboard, resumed=True)
    stats = run.add_behavior("3DBall", step=10).stats
    stats.add_property(StatsPropertyType.HYPERPARAMETERS, {"batch_size": 64})
    assert run.finish().files == {}
    assert list(run.path.iterdir()) == []


def test_new_run_replaces_the_files_of_an_older_one(start_run):
    first = start_run(tensorboard)
    first.add_behavior("3DBall").stats.write_stats(10, {"k": 1.0})
    first.finish()
    other = first.path / "3DBall" / "3DBall-10.pt"
    other.touch()
    second = start_run(tensorboard)
    second.add_behavior("3DBall").stats.write_stats(20, {"k": 2.0})
    (path,) = event_files(second.path / "3DBall")
    assert summary_values(path)["k"][0] == 20
    assert other.exists()


def test_behavior_name_that_is_no_folder_name_stays_below_the_run(start_run):
    run = start_run(tensorboard)
    for name in ("Team/Blue", "..", "Läufer 日本"):
        run.add_behavior(name).stats.write_stats(1, {"k": 1.0})
    assert sorted(entry.name for entry in run.path.iterdir()) == [".%2E", "Läufer 日本", "Team%2FBlue"]


def test_no_thread_outlives_the_run(start_run):
    before = set(threading.enumerate())
    run = start_run(tensorboard)
    run.add_behavior("3DBall").stats.write_stats(1, {"k": 1.0})
    run.finish()
    assert set(threading.enumerate()) == before


@pytest.mark.parametrize("inference", [True, False])
def test_nothing_is_written_for_an_empty_summary_or_in_inference(start_run, inference):
    run = start_run(tensorboard, inference=inference)
    trainer = run.add_behavior("3DBall")
    trainer.stats.write_stats(1, {"k": 1.0} if inference else None)
    if inference:
        trainer.stats.add_property(StatsPropertyType.HYPERPARAMETERS, {"batch_size": 64})
    assert run.finish().files == {}
    assert list(run.path.iterdir()) == []


def test_what_another_writer_removes_is_written_again(start_run, caplog):
    run = start_run(tensorboard)
    trainer = run.add_behavior("3DBall")
    trainer.stats.add_property(StatsPropertyType.HYPERPARAMETERS, {"beta": 0.5})
    trainer.stats.set_stat("Custom/Value", 1.0)
    trainer.stats.write_stats(100)
    (removed,) = event_files(run.path / "3DBall")
    removed.unlink()
    trainer.stats.set_stat("Custom/Value", 2.0)
    trainer.stats.write_stats(200)

    (path,) = event_files(run.path / "3DBall")
    values = [(e.step, v.tag, v.simple_value) for e in events(path) for v in e.summary.value if "Value" in v.tag]
    assert values == [(100, "Custom/Value", 1.0), (200, "Custom/Value", 2.0)]
    assert any("Hyperparameters" in value.tag for event in events(path) for value in event.summary.value)
    (record,) = caplog.records
    assert str(removed) in record.getMessage()
    assert run.finish().files == {"events": [path]}


def test_removed_files_of_earlier_runs_are_said(start_run, caplog):
    first = start_run(tensorboard)
    first.add_behavior("3DBall").stats.set_stat("Custom/Value", 1.0)
    first.trainers["3DBall"].stats.write_stats(100)
    first.finish()
    (earlier,) = event_files(first.path / "3DBall")
    run = start_run(tensorboard, resumed=True)
    trainer = run.add_behavior("3DBall", step=100)
    for step in (200, 300):
        trainer.stats.set_stat("Custom/Value", 2.0)
        trainer.stats.write_stats(step)
        for path in event_files(run.path / "3DBall"):
            path.unlink()
    trainer.stats.set_stat("Custom/Value", 3.0)
    trainer.stats.write_stats(400)
    assert any(
        f"earlier runs, too, whose statistics are in stats.jsonl: {earlier.name}" in line for line in caplog.messages
    )


def test_a_new_run_leaves_event_files_that_others_write_meanwhile(start_run):
    run = start_run(tensorboard)
    others = run.path / "3DBall" / "events.out.tfevents.1.other"
    others.parent.mkdir(parents=True)
    others.write_bytes(b"")
    trainer = run.add_behavior("3DBall")
    trainer.stats.set_stat("Custom/Value", 1.0)
    trainer.stats.write_stats(100)
    assert others in event_files(run.path / "3DBall")


def test_a_file_of_another_writer_never_takes_the_name_of_one_that_it_removed(start_run, caplog):
    run = start_run(tensorboard)
    trainer = run.add_behavior("3DBall")
    trainer.stats.set_stat("Custom/Value", 1.0)
    trainer.stats.write_stats(100)
    (ours,) = event_files(run.path / "3DBall")
    # The writers of torch and TensorFlow name files by the second, the host, the process and a number from 0 on.
    others = [ours.with_name(re.sub(rf"\.{os.getpid()}\..*", f".{os.getpid()}.{n}", ours.name)) for n in range(1000)]
    ours.unlink()
    for other in others:
        other.write_bytes(b"")
    trainer.stats.set_stat("Custom/Value", 2.0)
    trainer.stats.write_stats(200)
    (again,) = set(event_files(run.path / "3DBall")) - set(others)
    assert [event.step for event in events(again) if event.summary.value] == [100, 200]
    assert any(f"removed the event file {ours}" in line for line in caplog.messages)
