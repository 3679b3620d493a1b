"""What a stats writer has written, whatever its format: numbers by record, read back from files."""

from __future__ import annotations

import re
import sqlite3
import struct
from collections.abc import Iterator
from pathlib import Path

_NUMBER = re.compile(r"[-+]?(?:\d+\.\d*|\.\d+|\d+)(?:[eE][-+]?\d+)?")
_ENCODINGS = ("<d", "<f", ">d", ">f")
LEFT_OUT = (".pt", ".yaml", ".part", "-journal", "-wal", "-shm")
"""Ends of the names of files that the run itself writes, or that hold what SQLite has not committed."""
SQLITE = b"SQLite format 3\0"

Record = frozenset[float]
"""The numbers that one line, row or event holds; numbers in another encoding are looked for in `holds`."""


class Sink:
    """The records of all files below some folders, in the order in which they stand in each file.

    Lines of text, rows of SQLite databases and TensorBoard events are one record each; any other file is one in all.
    """

    def __init__(self, *folders: Path) -> None:
        self.records: list[tuple[Path, object]] = []
        found = {path for folder in folders for path in folder.rglob("*") if path.is_file()}
        self.files = sorted(path for path in found if not path.name.endswith(LEFT_OUT))
        for path in self.files:
            self.records += [(path, record) for record in _records(path)]

    def places(self, value: float) -> list[int]:
        """Which records hold a number, by their place."""
        return [place for place, (_, record) in enumerate(self.records) if _holds(record, value)]


def _holds(record: object, value: float) -> bool:
    if isinstance(record, bytes):
        return any(struct.pack(encoding, value) in record for encoding in _ENCODINGS)
    assert isinstance(record, frozenset)
    return any(abs(number - value) <= 1e-6 * abs(value) for number in record)


def _records(path: Path) -> Iterator[object]:
    data = path.read_bytes()
    if data.startswith(SQLITE):
        yield from _rows(path)
    elif "tfevents" in path.name:
        yield from _events(data)
    else:
        try:
            lines = data.decode().splitlines()
        except UnicodeDecodeError:
            yield data
            return
        for line in lines:
            yield frozenset(float(number) for number in _NUMBER.findall(line))


def _rows(path: Path) -> Iterator[Record | bytes]:
    connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
    try:
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for name in names:
            quoted = name.replace('"', '""')
            for row in connection.execute(f'SELECT * FROM "{quoted}"'):
                blobs = b"".join(cell for cell in row if isinstance(cell, bytes))
                if blobs:
                    yield blobs
                yield frozenset(number for cell in row for number in _numbers_of(cell))
    finally:
        connection.close()


def _numbers_of(cell: object) -> list[float]:
    if isinstance(cell, (int, float)):
        return [float(cell)]
    return [float(number) for number in _NUMBER.findall(cell)] if isinstance(cell, str) else []


def _events(data: bytes) -> Iterator[bytes]:
    """The records of a TensorBoard file: length (8 bytes), its checksum (4), data, checksum (4)."""
    at = 0
    while at + 12 <= len(data):
        (length,) = struct.unpack_from("<Q", data, at)
        yield data[at + 12 : at + 12 + length]
        at += 16 + length
