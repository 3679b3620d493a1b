"""Checks for a Unity player or the Editor: a build that runs here, a display, free ports."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from mlhooks.doctor.check import Check, Questions

BASE_PORT = 5005
DISPLAYS = ("DISPLAY", "WAYLAND_DISPLAY")


def checks(questions: Questions) -> Iterator[Check]:
    """Check players of Unity, its Editor, and their ports."""
    from mlhooks.training.environment_scheme import scheme_and_name

    scheme, name = scheme_and_name(questions.env)
    if scheme != "unity":
        yield _other_environment(questions)
        return
    if name is not None:
        yield from build(name)
    yield from ports(questions, editor=name is None)
    yield from display()


def _other_environment(questions: Questions) -> Check:
    from mlhooks.errors import MlhooksError
    from mlhooks.plugins import load_plugins
    from mlhooks.settings import SettingsRegistry, load_run_options
    from mlhooks.training.environment_scheme import make_factory
    from mlhooks.training.untrusted import around_import

    flags = {"env_settings.env_path": questions.env, "env_settings.num_envs": questions.num_envs}
    try:
        plugins = load_plugins(names=questions.plugin_names, plugins_dir=questions.plugins_dir, around=around_import)
        options = load_run_options(None, SettingsRegistry.from_plugins(plugins), flags=flags).options
        make_factory(options, plugins).check()
    except MlhooksError as error:
        return Check("environment", "problem", str(error))
    return Check("environment", "ok", str(questions.env))


def build(path: str) -> Iterator[Check]:
    """Check the player that --env names."""
    from mlhooks.unity.builds import find_player
    from mlhooks.unity.errors import PlayerNotFound
    from mlhooks.unity.programs import foreign_processor, lacks_data, platform_of

    try:
        found = Path(find_player(path))
    except PlayerNotFound as error:
        yield Check("player", "problem", error.what, error.advice)
        return
    kind = "a script" if platform_of(found) is None else "a program for this platform"
    yield Check("player", "ok", f"{found}, {kind}")
    processor, data = foreign_processor(found), lacks_data(found)
    if processor:
        text = f"It was built for {processor}, which this machine is not; it runs only where that is emulated"
        yield Check("player's processor", "warning", text, "Use a machine or a container of that kind.")
    if data:
        text = f"There is no {data}, which a player of Unity cannot do without"
        yield Check("player's data", "warning", text, "Copy the whole folder of the build, not the program alone.")


def ports(questions: Questions, *, editor: bool) -> Iterator[Check]:
    """Check the ports on which players or the Editor connect.

    Those of players are needed for sure only where something was said about players.
    """
    from mlhooks.unity.ports import EDITOR_PORT, LOOPBACK, complaint, taken

    first = BASE_PORT if questions.base_port is None else questions.base_port
    players = [(first + index, f"port {first + index}") for index in range(questions.num_envs)]
    sure = not editor or questions.base_port is not None or questions.num_envs > 1
    for port, name in [*([(EDITOR_PORT, f"port {EDITOR_PORT} (Editor)")] if editor else []), *players]:
        if not 0 < port < 2**16:
            yield Check(name, "problem", "There is no such port", "Choose a --base-port from 1024 to 65000.")
        elif any(taken(address, port) for address in LOOPBACK):
            what, _, advice = complaint(port).partition(". ")
            yield Check(name, "problem" if sure or port == EDITOR_PORT else "warning", what, advice)
        else:
            yield Check(name, "ok", "free")


def display() -> Iterator[Check]:
    """Check the display that players draw on."""
    if sys.platform != "linux":
        return
    shown = next((f"{name}={os.environ[name]}" for name in DISPLAYS if os.environ.get(name)), None)
    if shown:
        yield Check("display", "ok", shown)
    else:
        text = "There is none (DISPLAY is not set), and a player that opens a window would not start"
        advice = "Say --no-graphics. For agents with cameras, start a virtual display: xvfb-run mlhooks run ..."
        yield Check("display", "warning", text, advice)
