"""The root command: its subcommands are imported when they are used, so that help answers at once."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Sequence
from importlib import import_module
from itertools import pairwise
from typing import Any, NamedTuple

import click

from mlhooks import __version__
from mlhooks.errors import MlhooksError

logger = logging.getLogger("mlhooks")

VARIABLE = "_MLHOOKS_COMPLETE"
"""The variable by which a shell's script asks for completions; click expects this name."""


class LazyCommand(NamedTuple):
    """A command that lives in `module` under its own name, - as _, with the line that `mlhooks --help` shows for it."""

    module: str
    help: str


COMMANDS = {
    "run": LazyCommand("mlhooks.cli.run", "Train agents, or watch trained ones."),
    "examples": LazyCommand("mlhooks.cli.examples", "List the example configurations and what they reach."),
    "config": LazyCommand("mlhooks.cli.config", "Check, show and describe configuration files."),
    "zoo": LazyCommand("mlhooks.cli.zoo", "Convert settings of RL Baselines3 Zoo into a configuration."),
    "demo": LazyCommand("mlhooks.cli.demo", "Look at demonstrations of experts, and record new ones."),
    "plugins": LazyCommand("mlhooks.cli.plugins", "List plugins and the hooks they can implement."),
    "export": LazyCommand("mlhooks.cli.export", "Write the models of a run again, such as ONNX for Unity."),
    "doctor": LazyCommand("mlhooks.cli.doctor", "Tell whether this machine can run, and what to do if not."),
    "sim-player": LazyCommand("mlhooks.cli.sim_player", "Play a simulation as a Unity player would."),
    "completion": LazyCommand("mlhooks.cli.completion", "Complete words of the command line in your shell."),
}


def build_cli(arguments: Sequence[str]) -> RootGroup:
    """Return the command line for `arguments`, which say which plugins are blocked."""
    blocked = _blocked_plugins(arguments)
    return RootGroup(
        "mlhooks",
        params=[
            click.Option(["--debug"], is_flag=True, expose_value=False, help="Show a traceback with every error."),
            click.Option(
                ["--version"],
                is_flag=True,
                is_eager=True,
                expose_value=False,
                callback=_print_version,
                help="Print the version and exit.",
            ),
        ],
        help="Train reinforcement-learning agents; everything that runs is a plugin.",
        epilog="Example: mlhooks run config.yaml --env sim:3DBall --run-id first",
        result_callback=lambda _result: None,
        add_plugin_commands=lambda cli, quiet: add_plugin_commands(cli, blocked, quiet),
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def _print_version(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    if wanted:
        click.echo(f"mlhooks {__version__}")
        ctx.exit()


class RootGroup(click.Group):
    """A group whose own commands are lazy, and which asks the plugins for theirs only when it has to."""

    def __init__(self, name: str, *, add_plugin_commands: Callable[[click.Group, bool], None], **attrs: Any) -> None:
        super().__init__(name, **attrs)
        self._add_plugin_commands: Callable[[click.Group, bool], None] | None = add_plugin_commands

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return names of mlhooks' own commands, then of the plugins'."""
        self._ask_plugins(ctx, quiet=False)
        return [*COMMANDS, *sorted(self.commands.keys() - COMMANDS.keys())]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command of that name, imported now; plugins may have added options to `run`."""
        if cmd_name not in COMMANDS or cmd_name == "run":
            # A run loads all plugins itself, and reports those that are broken.
            self._ask_plugins(ctx, quiet=cmd_name == "run")
        if cmd_name in COMMANDS and cmd_name not in self.commands:
            self.commands[cmd_name] = _import_command(cmd_name)
        return super().get_command(ctx, cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Resolve a command as click does, and name the nearest one where it does not exist."""
        if not ctx.resilient_parsing and self.get_command(ctx, args[0]) is None:
            ctx.fail(_no_command(args[0], self.list_commands(ctx)))
        return super().resolve_command(ctx, args)

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        """Add a plugin's command; a name that is taken is an error."""
        name = name or cmd.name
        if name in COMMANDS or name in self.commands:
            raise ValueError(f"there is a command {name!r} already")
        super().add_command(cmd, name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing those of mlhooks."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, self._short_help(name)) for name in self.list_commands(ctx)])

    def _short_help(self, name: str) -> str:
        return COMMANDS[name].help if name in COMMANDS else self.commands[name].get_short_help_str(limit=80)

    def _ask_plugins(self, ctx: click.Context | None, quiet: bool) -> None:
        if ctx is not None and ctx.resilient_parsing:  # A plugin that adds an option to a command has no context.
            return  # A shell that completes a word does not wait for plugins to be imported.
        # Taken away first: a plugin may look commands up while it adds its own.
        ask, self._add_plugin_commands = self._add_plugin_commands, None
        if ask is not None:
            ask(self, quiet)


def _no_command(word: str, known: list[str]) -> str:
    from mlhooks.cli import guesses
    from mlhooks.example_configs import example_names
    from mlhooks.plugin_sources import nearest

    text = f"There is no command {word!r}"
    if word.removesuffix(".yaml") in example_names() or word.endswith((".yaml", ".yml")):
        return f"{text}; a configuration is run by mlhooks run {word}"
    if meant := guesses.command(word):
        return f"{text}; did you mean {meant}?"
    return f"{text}{nearest(word, known)}"


def _import_command(name: str) -> click.Command:
    command: click.Command = copy.copy(getattr(import_module(COMMANDS[name].module), name.replace("-", "_")))
    command.params = list(command.params)  # What a plugin adds belongs to this command line, not to the module.
    return command


def add_plugin_commands(cli: click.Group, blocked: set[str], quiet: bool) -> None:
    """Call `register_commands` of installed plugins; a broken one costs a warning, not the command line."""
    from mlhooks.plugin_sources import autoload_enabled, from_entry_points
    from mlhooks.plugins import PluginManager

    for candidate in from_entry_points() if autoload_enabled() else []:
        manager = PluginManager(blocked=blocked)
        try:
            manager.add(candidate)
            manager.hook.register_commands(cli=cli)
        except MlhooksError as error:
            if not quiet:
                logger.warning("%s", error)


def _blocked_plugins(arguments: Sequence[str]) -> set[str]:
    # Looked up before click parses, because which options exist depends on the plugins.
    values = [value for option, value in pairwise(arguments) if option == "-p"]
    values += [argument[2:] for argument in arguments if argument.startswith("-pno:")]
    return {value.removeprefix("no:") for value in values if value.startswith("no:")}
