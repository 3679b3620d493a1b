"""`mlhooks plugins`: what is installed, and the contract that plugins implement."""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Callable
from pathlib import Path
from types import FunctionType
from typing import Any

import click

from mlhooks.cli.check import check
from mlhooks.cli.new import new
from mlhooks.cli.options import Command, Group, plugin_options
from mlhooks.plugins import PluginInfo, PluginManager, find_plugins, load_plugins


def _list(plugin_names: tuple[str, ...], plugins_dir: Path | None, as_json: bool, names_only: bool) -> None:
    if click.get_current_context().invoked_subcommand is not None:
        return
    if names_only:
        candidates, blocked = find_plugins(names=plugin_names, plugins_dir=plugins_dir)
        names = [candidate.origin.name for candidate in candidates]
        click.echo("\n".join(name for name in names if name not in blocked))
        return
    rows = load_plugins(names=plugin_names, plugins_dir=plugins_dir).describe()
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(row) for row in rows], indent=2))
    else:
        _print_table(rows)


def _print_table(rows: list[PluginInfo]) -> None:
    from rich.console import Console
    from rich.table import Column, Table

    columns = [Column(title, overflow="fold") for title in ("order", "name", "distribution", "hooks")]
    table = Table(*columns, box=None, padding=(0, 1, 0, 0), pad_edge=False)
    table.caption = "The last plugin is called first."
    for row in rows:
        distribution = f"{row.distribution} {row.version}" if row.distribution else row.source
        table.add_row("blocked" if row.blocked else str(row.order), row.name, distribution, ", ".join(row.hooks))
    Console().print(table)


def _hooks() -> None:
    """Print every hook: its arguments, its kind, when it is called and what a failure does."""
    from mlhooks import hookspecs
    from mlhooks.containment import kind_of
    from mlhooks.plugin_fit import known_hooks

    click.echo(f"{inspect.getdoc(hookspecs)}\n")
    callers = known_hooks(PluginManager())
    for name in sorted(callers, key=lambda name: _line(getattr(hookspecs, name))):
        spec: Callable[..., Any] = getattr(hookspecs, name)
        arguments = ", ".join(inspect.signature(spec).parameters)
        text = inspect.getdoc(spec) or ""
        indented = "\n".join(f"    {line}".rstrip() for line in text.splitlines())
        click.echo(f"{name}({arguments})  [{kind_of(callers[name])}]\n{indented}\n")


def _line(spec: FunctionType) -> int:
    return spec.__code__.co_firstlineno


plugins = Group(
    "plugins",
    callback=_list,
    invoke_without_command=True,
    params=[
        *plugin_options(),
        click.Option(["--json", "as_json"], is_flag=True, help="Print a list of objects instead of a table."),
        click.Option(["--names", "names_only"], is_flag=True, help="Print names only, without importing any plugin."),
    ],
    commands=[Command("hooks", callback=_hooks, help=_hooks.__doc__), new, check],
    help="List the plugins that a run would load.",
)
