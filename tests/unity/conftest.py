from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mlhooks.unity.environment import UnityPlayer
from mlhooks.unity.http2 import Connection
from tests.unity.client import ScriptedPlayer, empty, free_port, hello
from tests.unity.test_http2 import greeted


@pytest.fixture
def play() -> Iterator[Callable[..., tuple[UnityPlayer, ScriptedPlayer]]]:
    """Start an environment, and a scripted player that shakes hands and then sends the messages given."""
    open_things: list[Any] = []

    def start(*script: Any, greeting: Any = None, **arguments: Any) -> tuple[UnityPlayer, ScriptedPlayer]:
        port = free_port()
        player = ScriptedPlayer(port, [greeting or hello(), empty(), *script])
        open_things.append(player.finish)
        env = UnityPlayer(None, port=port, **{"timeout_wait": 5, **arguments})
        open_things.append(env.close)
        return env, player

    yield start
    for close in reversed(open_things):
        close()


@pytest.fixture
def script(tmp_path: Path) -> Callable[..., Path]:
    """Write a shell script that stands for a player."""

    def write(commands: str, name: str = "Game.x86_64", mode: int = 0o755) -> Path:
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{commands}\n")
        path.chmod(mode)
        return path

    return write


@pytest.fixture
def connection() -> Connection:
    return greeted()
