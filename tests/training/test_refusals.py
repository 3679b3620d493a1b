"""What is refused before a run makes, changes or removes any file."""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlhooks.cli import main
from mlhooks.errors import MlhooksError, UsageError
from mlhooks.training.device import device_named
from mlhooks.unity import ports
from mlhooks.unity.errors import PlayerNotFound, PortTaken
from tests.scripted import QUIET, Env, config, train


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
    assert "Error: There is no Unity player for this platform at Build/Game: there is no folder Build. Correct" in said
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == []


def test_settings_that_cannot_be_honoured_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    settings = config("Corridor", "test:x", trainer_type="dqn", hyperparameters={"buffer_size": 100})
    settings["behaviors"]["Corridor"]["behavioral_cloning"] = {"demo_path": "walks.demo"}
    with pytest.raises(UsageError, match="does not support behavioral_cloning") as caught:
        train(settings, tmp_path, Env())
    assert caught.value.exit_code == 2
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ("tset:x", r"no environment kind 'tset'.*Did you mean test:x"),
        (
            "Builds/Game.x86_64",
            r"is a Unity player, and no installed plugin brings .*'unity'; installed are .*test\. Name another kind",
        ),
        ("C:\\Games\\Game.exe", "is a Unity player"),
    ],
)
def test_environment_that_no_plugin_brings_is_refused(tmp_path: Path, env: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        train(config("Corridor", env), tmp_path, Env(), plugin_names=(*QUIET, "no:unity_env"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("device", ["cuda:99", "tpu9", "cpuu"])
def test_device_that_is_not_there_is_refused(tmp_path: Path, device: str) -> None:
    with pytest.raises(UsageError, match=f"The device '{device}' cannot be used") as caught:
        train(config("Corridor", "test:x"), tmp_path, Env(), flags={"torch_settings.device": device})
    assert "Choose another one, such as --torch-device cpu" in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("built", [True, False])
def test_gpu_that_this_torch_is_not_built_for_is_answered_by_both_ways_out(
    monkeypatch: pytest.MonkeyPatch, built: bool
) -> None:
    monkeypatch.setattr("torch.backends.cuda.is_built", lambda: built)
    with pytest.raises(UsageError, match=r"such as --torch-device cpu(, or|\.)") as caught:
        device_named("cuda:99")
    assert ("install a torch that is built for CUDA" in str(caught.value)) is not built


def test_the_processor_is_one_device_also_with_a_number(tmp_path: Path) -> None:
    run = train(config("Corridor", "test:x", max_steps=200), tmp_path, Env(), flags={"torch_settings.device": "cpu:0"})
    trainer = run.trainers["Corridor"]
    array = np.zeros(3, np.float32)
    tensor = trainer.tensor(array)
    array[0] = 1.0
    assert tensor[0] == 1.0  # It is the same memory.
