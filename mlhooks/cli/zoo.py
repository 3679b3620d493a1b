"""`mlhooks zoo`: settings of RL Baselines3 Zoo as configurations."""

from __future__ import annotations

import logging
from pathlib import Path

import click

from mlhooks.cli.options import Command
from mlhooks.errors import UsageError

logger = logging.getLogger("mlhooks")


def _zoo(file: Path, name: str | None, algo: str | None, output: Path | None, force: bool) -> None:
    from mlhooks.zoo.converting import ALGORITHMS, OTHERS, convert
    from mlhooks.zoo.entry import entries_of, find_entry
    from mlhooks.zoo.environments import is_atari

    if name is None:
        click.echo("\n".join(entries_of(file)))
        return
    entry = find_entry(file, name, is_atari=is_atari(name))
    of_file = file.stem.lower()
    trainer_type = of_file if algo is None else algo.lower()
    if trainer_type not in ALGORITHMS:
        known = ", ".join(ALGORITHMS)
        if algo is not None:
            raise UsageError(f"--algo {algo}: settings of {known} can be converted.")
        if of_file in OTHERS:
            raise UsageError(f"{file} has settings of {of_file}, and only those of {known} can be converted.")
        raise UsageError(
            f"The name of {file} does not say whose settings these are, as ppo.yml does: add --algo, one of {known}."
        )
    if trainer_type != of_file and of_file in (*ALGORITHMS, *OTHERS):
        entry.assumes(f"settings of {of_file} suit {trainer_type}, whose defaults are taken for what they leave out")
    converted = convert(entry, trainer_type, name)
    for what in converted.missing:
        logger.warning("%s: not expressed: %s", converted.title, what)
    for what in converted.assumed:
        logger.warning("%s: assumed: %s", converted.title, what)
    text = converted.as_text()
    if output is None:
        click.echo(text, nl=False)
        return
    if output.exists() and not force:
        raise UsageError(f"{output} is there already; --force replaces it.")
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{output} cannot be written: {error.strerror}.") from error
    click.echo(f"Wrote {output}. Train with it: mlhooks run {output}")


zoo = Command(
    "zoo",
    callback=_zoo,
    params=[
        click.Argument(["file"], type=click.Path(path_type=Path)),
        click.Argument(["name"], required=False),
        click.Option(["--algo"], metavar="TYPE", help="Whose settings these are. [the name of FILE, as in ppo.yml]"),
        click.Option(["-o", "--output"], type=click.Path(path_type=Path), help="Write the configuration there."),
        click.Option(["--force"], is_flag=True, help="Replace a file that is there."),
    ],
    help=(
        "Convert settings of RL Baselines3 Zoo.\n\nFILE is one of its files, such as hyperparams/ppo.yml, and NAME an "
        "entry in it, such as CartPole-v1; without NAME, list the entries. What the configuration cannot express is "
        "said on standard error and at its top."
    ),
)
