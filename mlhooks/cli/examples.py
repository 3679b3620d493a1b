"""`mlhooks examples`: the configurations that come with mlhooks, and the returns that they reach."""

from __future__ import annotations

import dataclasses
import json
import shutil
import textwrap

import click

from mlhooks.cli.options import Command

INDENT = "    "


def _list(as_json: bool, names_only: bool) -> None:
    from mlhooks.example_configs import Example, example_names, examples  # Importing YAML takes a while.

    if names_only:
        click.echo("\n".join(example_names()))
        return
    found = examples()
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(example) for example in found], indent=1))
        return
    width = max(40, shutil.get_terminal_size().columns)

    def say(text: str) -> None:
        click.echo(textwrap.fill(text, width, initial_indent=INDENT, subsequent_indent=INDENT, break_long_words=False))

    def reaches(example: Example) -> str:
        if example.measured is None:
            return "what it reaches is not measured"
        m = example.measured
        return (
            f"{'wins' if m.measure == 'won' else 'reaches'} {m.median:.3g}"
            f"{' % of games against the policy that it began with' if m.measure == 'won' else ''} "
            f"(median of {m.seeds} seeds, the worst {m.worst:.3g}) in {m.steps:,} steps, {m.seconds:.0f} s"
        )

    for example in found:
        click.echo(click.style(example.name, bold=True))
        needs = f" Needs pip install 'mlhooks[{example.extra}]'." if example.extra else ""
        say(f"{example.text}{needs}")
        say(f"{example.trainer_type} in {example.env_path}; {reaches(example)}.")
    click.echo("\nTrain one by its name, as in: mlhooks run cartpole_ppo")


examples = Command(
    "examples",
    callback=_list,
    params=[
        click.Option(["--json", "as_json"], is_flag=True, help="Print a list of objects."),
        click.Option(["--names", "names_only"], is_flag=True, help="Print names only."),
    ],
    help=(
        "List the example configurations with what they reach: the mean return of 100 episodes of the final policy, as "
        "measured for docs/results.md. `mlhooks run NAME` trains one."
    ),
)
