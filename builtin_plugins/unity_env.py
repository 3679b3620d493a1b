"""The environment kind `unity`: a Unity player, named by its path, or the Unity Editor where none is named."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mlhooks.plugin import EnvironmentKind, UsageError, hookimpl

if TYPE_CHECKING:
    from mlagents_envs.base_env import BaseEnv
    from mlagents_envs.side_channel.side_channel import SideChannel

    from mlhooks.plugin import EnvironmentSettings, RunOptions
    from mlhooks.unity.environment import UnityPlayer


def conformance_environments(folder: Path) -> Sequence[str]:
    """Return the players with which `mlhooks plugins check` tries this plugin: stand-ins, where scripts can play."""
    if sys.platform == "win32":
        return ()
    from mlhooks.sim_player.command import write_executable

    return [str(write_executable(folder / name, [name])) for name in ("3DBall", "GridWorld")]


LAST_PORT = 2**16 - 1


@hookimpl
def get_env_types() -> Mapping[str, Callable[..., BaseEnv]]:
    """Return the scheme `unity`."""
    return {"unity": EnvironmentKind(make, check)}


def check(name: str | None, options: RunOptions) -> None:
    """Refuse a player that is not there or that this machine cannot run, and ports that are taken.

    Raises:
        UsageError: there are `env_kwargs`, or too many players for the ports from `base_port` on.
        PlayerNotFound: there is no player at the path, or none that can be executed here.
        PortTaken: another process listens on a port of the run.
    """
    # Here, so that mlagents_envs is imported by who uses Unity only.
    from mlhooks.unity.builds import find_player
    from mlhooks.unity.ports import refuse_taken

    env = options.env_settings
    if env.env_kwargs:
        raise UsageError(
            f"A Unity player takes no env_settings.env_kwargs; found {env.env_kwargs}. Arguments for it go to env_args."
        )
    if name is not None:
        try:
            find_player(name)
        except OSError as error:  # The name is too long, or a folder may not be entered.
            raise UsageError(f"There can be no player at {name:.300}: {error.strerror}.") from error
        if env.base_port + env.num_envs > LAST_PORT + 1:
            raise UsageError(
                f"{env.num_envs} players need the ports from {env.base_port} (--base-port) on, and the last port is "
                f"{LAST_PORT}. Choose a lower --base-port."
            )
    refuse_taken([_port(name, env, worker_id) for worker_id in range(env.num_envs)], env.bind)


def _port(name: str | None, env: EnvironmentSettings, worker_id: int) -> int:
    from mlhooks.unity import ports

    return ports.EDITOR_PORT if name is None else env.base_port + worker_id


def make(
    name: str | None,
    *,
    worker_id: int,
    seed: int,
    num_areas: int,
    options: RunOptions,
    side_channels: Sequence[SideChannel] = (),
) -> UnityPlayer:
    """Start the player at the path `name` and wait for it to connect; without a name, wait for the Editor.

    A player gets the port `env_settings.base_port` + `worker_id`, the Editor 5004. The player's log is
    `run_logs/Player-<worker_id>.log` in the folder of the run.

    Raises:
        UsageError: `bind` is no address of this machine.
        EnvironmentFailure: the player does not start, or does not connect.
    """
    # Here, so that grpc and protobuf are imported by who uses Unity only.
    from mlhooks.unity.environment import UnityPlayer
    from mlhooks.unity.side_channels import INT32, PlayerChannels

    env, engine = options.env_settings, options.engine_settings
    channels = PlayerChannels(side_channels)
    channels.configure_engine(engine)
    return UnityPlayer(
        name,
        port=_port(name, env, worker_id),
        seed=(seed + worker_id) % INT32,
        num_areas=num_areas,
        timeout_wait=env.timeout_wait,
        args=env.env_args or (),
        no_graphics=engine.no_graphics or (engine.no_graphics_monitor and worker_id > 0),
        log=Path(options.checkpoint_settings.run_logs_dir, f"Player-{worker_id}.log"),
        channels=channels,
        bind=env.bind,
    )
