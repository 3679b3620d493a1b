"""The hooks: a writer for each run, and a command that reads what it wrote.

The command line imports this module every time it lists its commands, so what takes long is imported where it is used.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

from mlhooks.plugin import hookimpl

if TYPE_CHECKING:
    import click

    from mlhooks.plugin import PluginManager, Run, RunOutcome, StatsSummary, Trainer
    from mlhooks_stats_sqlite.database import Database

FILE_NAME = "stats.sqlite"
SIDE_FILES = ("-journal", "-wal", "-shm")
"""What SQLite keeps beside it while it writes, and what stays when the run is killed then."""


@hookimpl
def configure(pluginmanager: PluginManager) -> None:
    """Register a writer: an object has state of its own, which a module would share between runs of one process."""
    pluginmanager.register(SqliteWriter())


@hookimpl
def register_commands(cli: click.Group) -> None:
    """Add `mlhooks stats-sqlite`."""
    from mlhooks_stats_sqlite.command import stats_sqlite

    cli.add_command(stats_sqlite)


class SqliteWriter:
    """Writes one run's statistics to `results/<run_id>/stats.sqlite`.

    Attributes:
        emitted: (behavior, key) -> how many values were emitted in this summary period.
    """

    def __init__(self) -> None:
        self.database: Database | None = None
        self.emitted: Counter[tuple[str, str]] = Counter()

    @hookimpl
    def run_started(self, run: Run) -> None:
        """Open the file, a new one unless the run is resumed; inference has nothing to write."""
        if run.inference:
            return
        from mlhooks_stats_sqlite.database import Database

        path = run.path / FILE_NAME
        for name in (FILE_NAME, *(FILE_NAME + ending for ending in SIDE_FILES)):
            run.note_file(run.path / name)
        if not run.resumed:
            path.unlink(missing_ok=True)
        self.database = Database(path)
        # A writer that failed too often is taken out and does not see the end of the run.
        weakref.finalize(self, self.database.close)

    @hookimpl
    def behavior_added(self, run: Run, behavior_name: str, trainer: Trainer) -> None:
        """Remove what a run wrote after the checkpoint from which it is resumed: it will be written again."""
        if self.database is not None and run.resumed:
            self.database.remove_after(behavior_name, trainer.step)

    @hookimpl
    def on_add_stat(self, category: str, key: str) -> None:
        """Count."""
        if self.database is not None:
            self.emitted[category, key] += 1

    @hookimpl
    def write_stats(self, category: str, values: Mapping[str, StatsSummary], step: int) -> None:
        """Write a summary, all of it or, should that fail, nothing."""
        if self.database is not None:
            emitted = {key: self.emitted.pop((category, key), 0) for key in values}
            self.database.write(category, step, values, emitted)

    @hookimpl
    def run_finished(self, outcome: RunOutcome) -> None:
        """Close the file, and name it in what the run says at its end."""
        if self.database is not None:
            self.database.close()
            outcome.files.setdefault("database", []).append(self.database.path)
            self.database = None
