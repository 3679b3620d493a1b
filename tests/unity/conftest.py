from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mlhooks.unity.environment import UnityPlayer
from tests.unity.client import ScriptedPlayer, empty, free_port, hello


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
