"""`mlhooks doctor`: whether this machine can run, check by check."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from mlhooks import __version__
from mlhooks.cli import completing
from mlhooks.cli.options import SectionedCommand, SectionOption, plugin_options
from mlhooks.doctor import Check, Questions, examine

COLORS = {"ok": "green", "warning": "yellow", "problem": "red"}
WIDTH = 18


def _run(*, as_json: bool, plugin_names: tuple[str, ...], plugins_dir: Path | None, **values: Any) -> None:
    questions = Questions(plugin_names=plugin_names, plugins_dir=plugins_dir, **values)
    counts = _print_json(examine(questions)) if as_json else _print_lines(examine(questions))
    click.get_current_context().exit(1 if counts["problem"] else 0)


def _print_json(checks: Iterable[Check]) -> Counter[str]:
    found = list(checks)
    counts = Counter(check.state for check in found)
    report = {
        "mlhooks": __version__,
        "ok": not counts["problem"],
        "checks": [dataclasses.asdict(check) for check in found],
    }
    click.echo(json.dumps(report, indent=2))
    return Counter(counts)


def _print_lines(checks: Iterable[Check]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for check in checks:
        counts[check.state] += 1
        state = click.style(f"{check.state:<8}", fg=COLORS[check.state])
        first, *lines = check.text.splitlines()
        click.echo(f"{state} {check.name:<{WIDTH}} {first}")
        for line in [*lines, *([f"-> {check.advice}"] if check.advice else [])]:
            click.echo(f"{'':{8 + 1 + WIDTH}} {line}")
    click.echo(_verdict(counts))
    return counts


def _verdict(counts: Counter[str]) -> str:
    said = [
        f"{counts[state]} {state}{'s' if counts[state] > 1 else ''}"
        for state in ("problem", "warning")
        if counts[state]
    ]
    if counts["problem"]:
        return f"{' and '.join(said)}: what is asked for cannot run here before the problems are solved."
    return f"No problem{f', {said[0]}' if said else ''}: this machine can run it."


def _option(name: str, text: str, **attrs: Any) -> SectionOption:
    return SectionOption([name], section="What to look at", help=text, **attrs)


doctor = SectionedCommand(
    "doctor",
    callback=_run,
    params=[
        _option(
            "--env",
            "The environment of the run, as `mlhooks run --env`. Without it, the Unity Editor.",
            metavar="PATH",
            shell_complete=completing.environments,
        ),
        _option("--base-port", "First port of the connection to Unity players. [5005]", type=int, metavar="N"),
        _option(
            "--num-envs",
            "How many environments; each player has a port.",
            type=click.IntRange(min=1),
            default=1,
            metavar="N",
        ),
        *plugin_options(),
        click.Option(["--json", "as_json"], is_flag=True, help="Print one JSON object instead of lines."),
    ],
    help=(
        "Tell whether this machine can run: what is installed and fits, the device, plugins, worker processes and, for "
        "Unity, the protocol, the build, its ports and the display. Every check is ok, a warning, or a problem with "
        "what to do."
    ),
    epilog="Example: mlhooks doctor --env Build/3DBall --num-envs 4. Exit codes: 0 no problem, 1 a problem.",
)
