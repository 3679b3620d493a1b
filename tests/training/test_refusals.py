"""What is refused before a run makes, changes or removes any file."""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from mlhooks.cli import main
from mlhooks.errors import MlhooksError, UsageError
from mlhooks.unity import ports
from mlhooks.unity.errors import PlayerNotFound, PortTaken
from tests.scripted import config, train


@pytest.fixture
def player(tmp_path: Path) -> str:
    path = tmp_path / "Game"
    path.write_text("#!/bin/sh\nexit 3\n")
    path.chmod(0o755)
    return str(path)


def refused(folder: Path, error: type[MlhooksError], message: str, env: str | None, **arguments: Any) -> None:
    """Demand that a run is refused where there are results and where there are none, and leaves both as they are."""
    settings = config("3DBall", "sim:3DBall")
    del settings["env_settings"]["env_path"]
    old = folder / "old" / "notes.txt"
    old.parent.mkdir()
    old.write_text("kept")
    for run_id in ("old", "new"):
        with pytest.raises(error, match=message):
            train(settings, folder, env=env, run_id=run_id, force=True, **arguments)
    assert old.read_text() == "kept"
    assert not (folder / "new").exists()


@pytest.mark.parametrize(
    ("env", "error", "message"),
    [
        ("Build/Gane", PlayerNotFound, "no Unity player for this platform at Build/Gane"),
        ("sim:3DBal", UsageError, 'did you mean "3DBall"'),
        ("gymnasium:CartPol-v1", UsageError, "Did you mean CartPole-v1"),
        ("simm:3DBall", UsageError, "Did you mean sim:3DBall"),
    ],
)
def test_wrong_environment(tmp_path: Path, env: str, error: type[MlhooksError], message: str) -> None:
    refused(tmp_path, error, message, env)


@pytest.mark.skipif(sys.platform == "win32", reason="the player is a shell script")
def test_player_without_permission(tmp_path: Path, player: str) -> None:
    Path(player).chmod(0o644)
    refused(tmp_path, PlayerNotFound, r"not executable. Allow it with: chmod \+x", player)


def listener(port: int = 0) -> socket.socket:
    return socket.create_server(("127.0.0.1", port))


@pytest.mark.skipif(sys.platform == "win32", reason="the player is a shell script")
@pytest.mark.parametrize("worker", [0, 2])
def test_port_of_any_worker_that_is_taken(tmp_path: Path, player: str, worker: int) -> None:
    with listener() as taken:
        port = taken.getsockname()[1]
        flags = {"env_settings.base_port": port - worker, "env_settings.num_envs": 3}
        refused(
            tmp_path,
            PortTaken,
            rf"Port {port} is taken by .*, or choose other ports with --base-port",
            player,
            flags=flags,
        )


def test_port_of_the_editor_that_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with listener() as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr(ports, "EDITOR_PORT", port)
        refused(tmp_path, PortTaken, f"Port {port} is taken by .* Editor connects to this port alone", None)


def test_command_line_says_it_without_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["run", "3dball_ppo", "--env", "Build/Game"]) == 2
    said = capsys.readouterr().err
    assert "Error: There is no Unity player for this platform at Build/Game. There is no folder Build.\n" in said
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == []
