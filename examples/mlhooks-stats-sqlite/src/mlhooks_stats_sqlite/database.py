"""The database: one table, one row for each behavior, summary period and key."""

from __future__ import annotations

import math
import sqlite3
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlhooks.plugin import UsageError

if TYPE_CHECKING:
    from mlhooks.plugin import StatsSummary

SCHEMA = """
create table if not exists summaries (
    behavior text, step integer, key text,
    value real, mean real, std real, sum real, count integer,
    aggregation text, emitted integer, time real,
    primary key (behavior, step, key)
) without rowid
"""
NEWEST = """
select * from summaries as row
where behavior glob :behavior and key glob :key and step in (
    select distinct step from summaries where behavior = row.behavior order by step desc limit :periods
)
order by behavior, step, key
"""


class Database:
    """The summaries of one run, open for writing.

    Args:
        path: the file; it is made where there is none.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection = sqlite3.connect(path)
        self._connection.execute(SCHEMA)

    def write(
        self, behavior: str, step: int, summaries: Mapping[str, StatsSummary], emitted: Mapping[str, int]
    ) -> None:
        """Write the summaries of one period in one transaction, in place of older ones of the same step."""
        now = time.time()
        rows = [
            (behavior, step, key, *_numbers(summary), summary.aggregation_method.name.lower(), emitted[key], now)
            for key, summary in summaries.items()
        ]
        with self._connection:
            self._connection.executemany("insert or replace into summaries values (?,?,?,?,?,?,?,?,?,?,?)", rows)

    def remove_after(self, behavior: str, step: int) -> None:
        """Remove the behavior's summaries of later steps."""
        with self._connection:
            self._connection.execute("delete from summaries where behavior = ? and step > ?", (behavior, step))

    def close(self) -> None:
        """Close the file; further calls do nothing."""
        self._connection.close()


def read(path: Path, *, behavior: str = "*", key: str = "*", periods: int | None = None) -> list[dict[str, Any]]:
    """Return rows of a database, by behavior, step and key.

    Args:
        path: the file.
        behavior: glob pattern of behavior names.
        key: glob pattern of keys.
        periods: how many of each behavior's last summary periods to read; None reads all.

    Raises:
        UsageError: there is no such file, or it is no database of this package.
    """
    if not path.is_file():
        raise UsageError(f"There is no {path}. Train with the plugin stats-sqlite installed and not blocked.")
    connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
    connection.row_factory = sqlite3.Row
    try:
        limits = {"behavior": behavior, "key": key, "periods": -1 if periods is None else periods}
        return [dict(row) for row in connection.execute(NEWEST, limits)]
    except sqlite3.DatabaseError as error:
        raise UsageError(f"{path} does not hold statistics of stats-sqlite: {error}.") from error
    finally:
        connection.close()


def _numbers(summary: StatsSummary) -> tuple[float | None, ...]:
    """Return value, mean, std, sum and count; others than finite ones become null, as SQLite knows no NaN."""
    numbers = (summary.aggregated_value, summary.mean, summary.std, summary.sum, summary.num)
    return tuple(number if math.isfinite(number) else None for number in numbers)
