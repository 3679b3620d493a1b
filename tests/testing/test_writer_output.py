from __future__ import annotations

import json
import sqlite3
import struct
from pathlib import Path

from mlhooks.testing.writer_output import Sink
from mlhooks.testing.writer_run import number_for


def test_numbers_are_found_in_lines_of_text(tmp_path: Path) -> None:
    rows = [{"step": 1, "value": 2056.5}, {"step": 2, "value": -1.5e-3}]
    (tmp_path / "stats.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "stats.csv").write_text("B,1,2056.5000\n")
    sink = Sink(tmp_path)
    assert [sink.records[place].path.name for place in sink.places(2056.5)] == ["stats.csv", "stats.jsonl"]
    assert sink.places(-0.0015) == [2]
    assert sink.places(56.5) == []


def test_rows_of_sqlite_are_records_of_committed_values(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "any.db")
    connection.execute('create table "odd ""name""" (key text, value real)')
    connection.execute('insert into "odd ""name""" values (?, ?)', ("a", 3080.5))
    connection.commit()
    connection.execute('insert into "odd ""name""" values (?, ?)', ("b", 4104.5))
    sink = Sink(tmp_path)
    assert len(sink.places(3080.5)) == 1
    assert sink.places(4104.5) == []
    connection.rollback()
    connection.close()


def test_tensorboard_events_and_binary_files_hold_numbers_in_any_encoding(tmp_path: Path) -> None:
    def event(data: bytes) -> bytes:
        return struct.pack("<Q", len(data)) + b"0000" + data + b"0000"

    content = event(b"tag" + struct.pack("<f", 2056.5)) + event(b"tag" + struct.pack("<f", 3080.5))
    (tmp_path / "events.out.tfevents.1").write_bytes(content)
    (tmp_path / "raw.bin").write_bytes(b"\xff\xfe" + struct.pack(">d", 3080.5))
    sink = Sink(tmp_path)
    assert sink.places(2056.5) == [0]
    assert sink.places(3080.5) == [1, 2]


def test_files_of_the_run_itself_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "configuration.yaml").write_text("value: 2056.5")
    assert Sink(tmp_path).files == []


def test_numbers_for_steps_and_keys_are_distinct_and_exact_in_32_bits() -> None:
    numbers = [number_for(step, key) for step in range(30) for key in range(20)]
    assert len(set(numbers)) == len(numbers)
    assert all(struct.unpack("<f", struct.pack("<f", number))[0] == number for number in numbers)


def test_numbers_are_found_by_their_names_in_json_tables_and_databases(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"step": 5, "values": {"A/B": {"mean": 2.0}}}\n')
    (tmp_path / "b.csv").write_text('key,value\n"A/B",3.5\n')
    with sqlite3.connect(tmp_path / "c.db") as connection:
        connection.execute("create table t (key text, count integer)")
        connection.execute("insert into t values ('A/B', 4)")
    connection.close()
    assert Sink(tmp_path).named("A/B") == [{"mean": 2.0}, {"key": "A/B", "value": 3.5}, {"key": "A/B", "count": 4}]


def test_events_that_a_later_session_replaces_are_void(tmp_path: Path) -> None:
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto.event_pb2 import Event, SessionLog
    from tensorboardX.proto.summary_pb2 import Summary

    def write(suffix: str, *events: Event) -> None:
        writer = EventsWriter(str(tmp_path / "events"), suffix)
        for event in events:
            writer.write_event(event)
        writer.close()

    def scalar(step: int, value: float) -> Event:
        return Event(step=step, summary=Summary(value=[Summary.Value(tag="Key", simple_value=value)]))

    write(".9", scalar(1000, 1032.5), scalar(2000, 2056.5))
    write(".10", Event(step=1001, session_log=SessionLog(status=SessionLog.START)), scalar(2000, 3080.5))
    sink = Sink(tmp_path)
    assert [len(sink.places(value)) for value in (1032.5, 2056.5, 3080.5)] == [1, 0, 1]
    assert sink.records[sink.places(3080.5)[0]].count(2000) == 1


def test_what_is_printed_counts_where_there_are_no_files(tmp_path: Path) -> None:
    assert len(Sink(tmp_path, printed="step 1,000: 2056.50\n").places(1000)) == 1
    (tmp_path / "a.txt").write_text("1032.5")
    assert Sink(tmp_path, printed="step 1,000: 2056.50\n").places(1000) == []
