"""Read what a stats writer has written, whatever its format: numbers by record, from files and from its output."""

from __future__ import annotations

import csv
import json
import re
import sqlite3
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_NUMBER = re.compile(r"[-+]?(?:\d+\.\d*|\.\d+|\d+)(?:[eE][-+]?\d+)?")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?:\D|$))")
_ENCODINGS = ("<d", "<f", ">d", ">f")
LEFT_OUT = (".pt", ".yaml", ".part", "-journal", "-wal", "-shm")
"""Ends of the names of files that the run itself writes, or that hold what SQLite has not committed."""
SQLITE = b"SQLite format 3\0"
PRINTED = Path("<standard output>")


@dataclass(frozen=True)
class Record:
    """One line of text, row of a table, event or binary file.

    Attributes:
        path: the file.
        numbers: those that it holds, each as often as it stands there.
        blob: bytes among which other numbers are, in binary.
        text: what it says beside numbers.
        names: the numbers that have a name, in each of its objects: a row's columns, the members of a JSON object.
        session: of a TensorBoard event that begins a session, its step: what came after that step is void.
    """

    path: Path
    numbers: tuple[float, ...] = ()
    blob: bytes = b""
    text: str = ""
    names: tuple[Mapping[str, Any], ...] = ()
    session: int | None = None

    def holds(self, value: float) -> bool:
        """Return whether a number is among those of the record."""
        return self.count(value) > 0 or any(struct.pack(encoding, value) in self.blob for encoding in _ENCODINGS)

    def count(self, value: float) -> int:
        """Return how often a number stands in the record, apart from binary ones."""
        return sum(abs(number - value) <= 1e-6 * abs(value) for number in self.numbers)


class Sink:
    """The records of all files below some folders, in the order in which they stand in each file.

    Args:
        folders: where the files are.
        printed: what was printed; looked at only where there are no files.
    """

    def __init__(self, *folders: Path, printed: str = "") -> None:
        found = {path for folder in folders for path in folder.rglob("*") if path.is_file()}
        self.files = sorted((path for path in found if not path.name.endswith(LEFT_OUT)), key=_natural)
        self.records: list[Record] = []
        for path in self.files:
            for record in _records(path):
                if record.session is not None:
                    self._void(path, record.session)
                self.records.append(record)
        if not self.files:
            self.records = [_line(PRINTED, _THOUSANDS.sub("", line)) for line in printed.splitlines()]

    def _void(self, path: Path, step: int) -> None:
        """Forget events of earlier files that a new session replaces, as TensorBoard does."""
        earlier = {file for file in self.files if file.parent == path.parent and "tfevents" in file.name} - {path}
        self.records = [r for r in self.records if r.path not in earlier or not r.numbers or r.numbers[0] < step]

    def places(self, value: float) -> list[int]:
        """Return which records hold a number, by their place."""
        return [place for place, record in enumerate(self.records) if record.holds(value)]

    def named(self, key: str) -> list[Mapping[str, Any]]:
        """Return what is stored of a key by names, such as `{"mean": 1.0, "count": 3}`, in the order of the records."""
        found = []
        for record in self.records:
            for item in record.names:
                if isinstance(item.get(key), Mapping):
                    found.append(item[key])
                elif key in item.values():
                    found.append(item)
        return found


def _natural(path: Path) -> list[Any]:
    """Order by the numbers in names, so that 10 comes after 9."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", str(path)) if part]


def _records(path: Path) -> Iterator[Record]:
    data = path.read_bytes()
    if data.startswith(SQLITE):
        yield from _rows(path)
        return
    if "tfevents" in path.name:
        yield from _events(path, data)
        return
    try:
        text = data.decode()
    except UnicodeDecodeError:
        yield Record(path, blob=data)
        return
    if path.suffix in {".csv", ".tsv"}:
        yield from _table(path, text)
    else:
        yield from (_line(path, line) for line in text.splitlines())


def _line(path: Path, line: str) -> Record:
    try:
        names = tuple(_objects(json.loads(line)))
    except ValueError:
        names = ()
    return Record(path, _numbers(line), text=line, names=names)


def _objects(value: object) -> Iterator[Mapping[str, Any]]:
    """Yield all JSON objects in one."""
    if isinstance(value, dict):
        yield value
    if isinstance(value, (dict, list)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _objects(part)


def _table(path: Path, text: str) -> Iterator[Record]:
    separator = "\t" if path.suffix == ".tsv" else ","
    rows = csv.reader(text.splitlines(keepends=True), delimiter=separator)
    header = next(rows, [])
    yield Record(path, _numbers(*header), text=separator.join(header))
    for row in rows:
        names = dict(zip(header, map(_number_or_text, row), strict=False))
        yield Record(path, _numbers(*row), text=separator.join(row), names=(names,))


def _number_or_text(cell: str) -> float | str:
    try:
        return float(cell)
    except ValueError:
        return cell


def _numbers(*texts: str) -> tuple[float, ...]:
    return tuple(float(number) for text in texts for number in _NUMBER.findall(text))


def _rows(path: Path) -> Iterator[Record]:
    connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
    try:
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for name in names:
            quoted = name.replace('"', '""')
            cursor = connection.execute(f'SELECT * FROM "{quoted}"')
            columns = [column[0] for column in cursor.description]
            for row in cursor:
                blob = b"".join(cell for cell in row if isinstance(cell, bytes))
                numbers = tuple(number for cell in row for number in _numbers_of(cell))
                text = "\t".join(cell for cell in row if isinstance(cell, str))
                yield Record(path, numbers, blob, text, (dict(zip(columns, row, strict=True)),))
    finally:
        connection.close()


def _numbers_of(cell: object) -> tuple[float, ...]:
    if isinstance(cell, (int, float)):
        return (float(cell),)
    return _numbers(cell) if isinstance(cell, str) else ()


def _events(path: Path, data: bytes) -> Iterator[Record]:
    """Yield the records of a TensorBoard file: length (8 bytes), its checksum (4), data, checksum (4).

    The step comes first among the numbers of an event.
    """
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    at = 0
    while at + 12 <= len(data):
        (length,) = struct.unpack_from("<Q", data, at)
        part = data[at + 12 : at + 12 + length]
        at += 16 + length
        try:
            event = Event.FromString(part)
        except DecodeError:
            yield Record(path, blob=part)
            continue
        begins = event.HasField("session_log") and event.session_log.status == SessionLog.START
        tags = "\n".join(value.tag for value in event.summary.value)
        yield Record(path, (float(event.step),), part, tags, session=event.step if begins else None)
