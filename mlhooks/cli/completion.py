"""`mlhooks completion`: the script with which a shell completes words of the command line."""

from __future__ import annotations

import os
from pathlib import Path

import click

from mlhooks.cli.options import Command

SHELLS = ("bash", "zsh", "fish")


def _completion(shell: str, install: bool) -> None:
    from mlhooks.cli.shells import script

    if not install:
        click.echo(f"# To install it, run: mlhooks completion {shell} --install")
        click.echo(script(shell))
        return
    file, start = _files(shell)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{script(shell)}\n", encoding="utf-8")
    click.echo(f"Written: {file}")
    if start is not None and str(file) not in (start.read_text(encoding="utf-8") if start.exists() else ""):
        with start.open("a", encoding="utf-8") as lines:
            lines.write(f'\n[ -f "{file}" ] && . "{file}"  # completion of mlhooks\n')
        click.echo(f"{start} reads it from now on.")
    click.echo(f'Open another terminal, or run here: . "{file}"')


def _files(shell: str) -> tuple[Path, Path | None]:
    """Return the file for the script, and the start-up file that must read it if the shell does not find it itself."""
    home = Path.home()
    settings = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
    if shell == "fish":
        return settings / "fish" / "completions" / "mlhooks.fish", None
    start = home / ".bashrc" if shell == "bash" else Path(os.environ.get("ZDOTDIR") or home) / ".zshrc"
    return settings / "mlhooks" / f"completion.{shell}", start


completion = Command(
    "completion",
    callback=_completion,
    params=[
        click.Argument(["shell"], type=click.Choice(SHELLS)),
        click.Option(["--install"], is_flag=True, help="Write it to a file that the shell reads when it starts."),
    ],
    help=(
        "Print the script by which a shell completes commands, flags, examples, run ids, environments, trainer types "
        "and settings; --install installs it."
    ),
)
