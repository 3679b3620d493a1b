"""`mlhooks stats-sqlite show`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click


@click.group("stats-sqlite")
def stats_sqlite() -> None:
    """Read statistics that the plugin stats-sqlite wrote."""


@stats_sqlite.command()
@click.argument("run")
@click.option("--results-dir", type=click.Path(path_type=Path), default=Path("results"), help="Folder of all runs.")
@click.option("--behavior", default="*", metavar="PATTERN", help="Behaviors to show, such as 'Walker*'.")
@click.option("--key", default="*", metavar="PATTERN", help="Statistics to show, such as 'Environment/*'.")
@click.option("--last", type=click.IntRange(1), default=1, metavar="N", help="Summary periods to show. Default: 1.")
@click.option("--all", "everything", is_flag=True, help="Show all summary periods.")
@click.option("--json", "as_json", is_flag=True, help="Print a list of objects instead of a table.")
def show(run: str, results_dir: Path, behavior: str, key: str, last: int, everything: bool, as_json: bool) -> None:
    """Show the statistics of RUN: a run id, or the path of a run's folder or database."""
    from mlhooks_stats_sqlite.database import read

    rows = read(_database(run, results_dir), behavior=behavior, key=key, periods=None if everything else last)
    if as_json:
        import json

        click.echo(json.dumps(rows, indent=2, ensure_ascii=False))
    elif rows:
        _print_table(rows)
    else:
        click.echo("No statistics fit.")


def _database(run: str, results_dir: Path) -> Path:
    from mlhooks_stats_sqlite.plugin import FILE_NAME

    path = Path(run)
    if path.is_file():
        return path
    return (path if path.is_dir() and (path / FILE_NAME).exists() else results_dir / run) / FILE_NAME


def _print_table(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for title in ("behavior", "step", "key"):
        table.add_column(title, overflow="fold")
    for title in ("value", "std", "count", "emitted"):
        table.add_column(title, justify="right")
    for row in rows:
        numbers = ("-" if row[name] is None else f"{row[name]:.4g}" for name in ("value", "std", "count", "emitted"))
        table.add_row(row["behavior"], f"{row['step']:,}", row["key"], *numbers)
    Console().print(table, markup=False)
