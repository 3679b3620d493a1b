"""`mlhooks plugins`: what is installed, and the contract that plugins implement."""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FunctionType
from typing import Any

import click
from pluggy import HookCaller

from mlhooks.cli.check import check
from mlhooks.cli.new import new
from mlhooks.cli.options import Command, Group, plugin_options
from mlhooks.example_configs import find_config
from mlhooks.plugin_sources import Candidate
from mlhooks.plugins import PluginInfo, PluginManager, find_plugins, load_plugins


def _list(
    plugin_names: tuple[str, ...], plugins_dir: Path | None, config: Path | None, as_json: bool, names_only: bool
) -> None:
    if click.get_current_context().invoked_subcommand is not None:
        return
    find, load = _ways(plugin_names, plugins_dir, config)
    if names_only:
        candidates, blocked = find()
        names = [candidate.origin.name for candidate in candidates]
        click.echo("\n".join(name for name in names if name not in blocked))
        return
    rows = load().describe()
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(row) for row in rows], indent=2))
    else:
        _print_table(rows)


def _ways(
    plugin_names: tuple[str, ...], plugins_dir: Path | None, config: Path | None
) -> tuple[Callable[[], tuple[list[Candidate], list[str]]], Callable[[], PluginManager]]:
    """Return what finds the plugins of a run, and what loads them."""
    if config is None:
        asked: dict[str, Any] = {"names": plugin_names, "plugins_dir": plugins_dir}
        return partial(find_plugins, **asked), partial(_load, **asked)
    # Here, because whoever only asks for names need not wait for what reads a configuration.
    from mlhooks.settings import read_configuration
    from mlhooks.training.named_plugins import name_all_plugins

    named = name_all_plugins(read_configuration(config), names=plugin_names, plugins_dir=plugins_dir)
    return named.find, named.load


def _load(**asked: Any) -> PluginManager:
    from mlhooks.training.untrusted import around_import

    return load_plugins(**asked, around=around_import)


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
        click.echo(f"{name}({arguments})  [{kind_of(callers[name])}]\n{indented}\n{_deprecations(callers[name])}")


def _deprecations(caller: HookCaller) -> str:
    """Return a paragraph on those parts of a hook that a later version will not have."""
    assert caller.spec is not None
    whole = [f"Deprecated: {caller.spec.warn_on_impl}"] if caller.spec.warn_on_impl else []
    parts = [f"Deprecated argument {name}: {text}" for name, text in (caller.spec.warn_on_impl_args or {}).items()]
    return "".join(f"    {line}\n" for line in [*whole, *parts])


def _line(spec: FunctionType) -> int:
    return spec.__code__.co_firstlineno


plugins = Group(
    "plugins",
    callback=_list,
    invoke_without_command=True,
    params=[
        *plugin_options(),
        click.Option(
            ["--config"],
            type=find_config,
            metavar="CONFIG",
            help="List those that a run of this configuration would load.",
        ),
        click.Option(["--json", "as_json"], is_flag=True, help="Print a list of objects instead of a table."),
        click.Option(["--names", "names_only"], is_flag=True, help="Print names only, without importing any plugin."),
    ],
    commands=[Command("hooks", callback=_hooks, help=_hooks.__doc__), new, check],
    help="List the plugins that a run would load.",
)
