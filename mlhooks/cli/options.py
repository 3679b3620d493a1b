"""Options that stand in sections of a command's help, and the ones that choose plugins."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click

from mlhooks.cli import completing

_FLAG = re.compile("--?[A-Za-z]|--$")  # A number such as -1 is no flag.


class SectionOption(click.Option):
    """An option with a heading in the help and, where it stands for a setting, that setting's dotted key."""

    def __init__(self, declarations: list[str], *, section: str, key: str | None = None, **attrs: Any) -> None:
        super().__init__(declarations, **attrs)
        self.section = section
        self.key = key


class Command(click.Command):
    """A command of mlhooks, which takes no flag for the value of the option in front of it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Refuse `--run-id --force`, of which click would make a run called --force."""
        take_values = {
            name
            for param in self.get_params(ctx)
            if isinstance(param, click.Option) and not param.is_flag and not param.count
            for name in param.opts
        }
        waiting: str | None = None
        for word in args:
            if waiting is not None and _FLAG.match(word):
                instead = f" If it is the value, say {waiting}={word}" if waiting.startswith("--") else ""
                raise click.BadOptionUsage(waiting, f"{waiting} needs a value, and {word} is a flag.{instead}", ctx)
            if word == "--" and waiting is None:
                break
            waiting = word if waiting is None and word in take_values else None
        return self._parse(ctx, args)

    def _parse(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse as click does, and name the flag that a word too many was probably meant to be."""
        may_be_more, ctx.allow_extra_args = ctx.allow_extra_args, True
        given = list(args)
        try:
            rest = super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            from difflib import get_close_matches

            near = list(error.possibilities or ())
            misspelt = get_close_matches(error.option_name, near, n=1, cutoff=0.9)
            if (
                ctx.resilient_parsing
                or misspelt  # This needs no plugins' settings.
                or (meant := self.guess(error.option_name, _value_of(error.option_name, given))) is None
            ):
                nearest = get_close_matches(error.option_name, near, n=1)
                raise click.NoSuchOption(error.option_name, possibilities=nearest, ctx=error.ctx) from error
            raise click.UsageError(f"There is no flag {error.option_name}. {meant}", ctx) from error
        ctx.allow_extra_args = may_be_more
        if rest and not (may_be_more or ctx.resilient_parsing):
            from difflib import get_close_matches

            flags = [name for param in self.get_params(ctx) for name in param.opts if name.startswith("--")]
            near = [flag for word in rest for flag in get_close_matches(f"--{word}", flags, n=1, cutoff=0.8)]
            hint = f"; did you mean {' '.join(near)}?" if len(near) == len(rest) else ""
            meant = None if hint else self.guess(rest[0], None)
            hint = f". {meant}" if meant else hint
            ctx.fail(f"Got unexpected extra argument{'s' if rest[1:] else ''} ({' '.join(rest)}){hint}")
        return rest

    def guess(self, word: str, value: str | None) -> str | None:  # noqa: ARG002  (commands know different words)
        """Return a sentence about what a word is called here, of which other tools make a flag or an argument.

        Args:
            word: the flag with its dashes, or the argument.
            value: what may be the flag's value.
        """
        return None


def _value_of(flag: str, args: list[str]) -> str | None:
    """Return what was probably meant as the value of a flag that nobody knows."""
    for index, word in enumerate(args):
        if word.startswith(f"{flag}="):
            return word.partition("=")[2]
        if word == flag and index + 1 < len(args) and not _FLAG.match(args[index + 1]):
            return args[index + 1]
    return None


class Group(Command, click.Group):
    """A group of commands that has options of its own."""


class SectionedCommand(Command):
    """A command whose help lists its options under headings, in the order of their declaration."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one list of options per section."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None and isinstance(param, click.Option):
                sections.setdefault(getattr(param, "section", "Other options"), []).append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)


def plugin_options() -> list[SectionOption]:
    """Return the options of every command that loads plugins; `load_plugins` explains their values."""
    return [
        SectionOption(
            ["-p", "plugin_names"],
            section="Plugins",
            metavar="NAME",
            multiple=True,
            help="Load a plugin, module or .py file; no:NAME keeps a plugin out. May be given many times.",
            shell_complete=completing.plugins,
        ),
        SectionOption(
            ["--plugins-dir"],
            section="Plugins",
            type=click.Path(file_okay=False, path_type=Path),
            metavar="DIR",
            help="Load every .py file of this folder as a plugin.",
        ),
    ]
