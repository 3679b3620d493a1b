"""The finding of a check, and the questions that checks are asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

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
    """The request of a run that the checks are about.

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
