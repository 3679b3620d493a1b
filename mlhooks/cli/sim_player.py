"""`mlhooks sim-player`: the player stand-in, whose arguments are a Unity player's and so not click's to judge."""

from __future__ import annotations

import click


def _run(arguments: tuple[str, ...]) -> None:
    from mlhooks.sim_player.command import main

    click.get_current_context().exit(main(arguments))


sim_player = click.Command(
    "sim-player",
    callback=_run,
    params=[click.Argument(["arguments"], nargs=-1, type=click.UNPROCESSED)],
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False, "help_option_names": []},
    help="Play a simulation as a Unity player would.",
)
