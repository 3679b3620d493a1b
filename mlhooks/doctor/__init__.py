"""Whether this machine can run what it is asked to: checks, each with what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mlhooks.describing import named

State = Literal["ok", "warning", "problem"]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: what it is.
        state: `problem` is what keeps a run from starting, `warning` what may.
        text: what was found.
        advice: what to do about it.
    """

    name: str
    state: State
    text: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Questions:
    """What a run would be asked for.

    Attributes:
        env: as `--env` of `mlhooks run`.
        base_port: as `--base-port`; None where it was not said, and nothing is known of players.
        num_envs: as `--num-envs`.
        plugin_names: as `-p`.
        plugins_dir: as `--plugins-dir`.
    """

    env: str | None = None
    base_port: int | None = None
    num_envs: int = 1
    plugin_names: tuple[str, ...] = ()
    plugins_dir: Path | None = None


def examine(questions: Questions) -> Iterator[Check]:
    """All checks, one after another, those first that answer at once."""
    from mlhooks.doctor import machine, plugins, software, unity

    groups: dict[str, Callable[[], Iterable[Check]]] = {
        "versions": software.versions,
        "requirements": software.requirements,
        "extras": software.extras,
        "the Unity protocol": software.protocol,
        "the environment": lambda: unity.checks(questions),
        "workers": machine.workers,
        "the device": machine.device,
        "plugins": lambda: plugins.checks(questions),
    }
    for what, group in groups.items():
        try:
            yield from group()
        except Exception as error:  # is a finding, too, and the other checks are still made
            yield Check("doctor", "problem", f"Stumbled over {what}: {named(error)}")
