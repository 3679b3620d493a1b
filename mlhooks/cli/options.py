"""Options that stand in sections of a command's help, and the ones that choose plugins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click


class SectionOption(click.Option):
    """An option with a heading in the help and, where it stands for a setting, that setting's dotted key."""

    def __init__(self, declarations: list[str], *, section: str, key: str | None = None, **attrs: Any) -> None:
        super().__init__(declarations, **attrs)
        self.section = section
        self.key = key


class SectionedCommand(click.Command):
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
    """The options of every command that loads plugins; `load_plugins` explains their values."""
    return [
        SectionOption(
            ["-p", "plugin_names"],
            section="Plugins",
            metavar="NAME",
            multiple=True,
            help="Load a plugin, module or .py file; no:NAME keeps a plugin out. May be given many times.",
        ),
        SectionOption(
            ["--plugins-dir"],
            section="Plugins",
            type=click.Path(file_okay=False, path_type=Path),
            metavar="DIR",
            help="Load every .py file of this folder as a plugin.",
        ),
    ]
