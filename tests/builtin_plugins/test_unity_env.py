import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from builtin_plugins import unity_env
from mlhooks import hookimpl
from mlhooks.envs.factory import EnvironmentKind
from mlhooks.envs.parameters import set_parameters
from mlhooks.errors import UsageError
from mlhooks.settings import RunOptions
from mlhooks.settings.environment_parameters import ConstantSettings
from mlhooks.unity.environment import UnityPlayer
from mlhooks.unity.errors import PlayerNotFound
from tests.scripted import config, train
from tests.unity.client import ScriptedPlayer, empty, free_port, hello, output
from tests.unity.messages import agent, brain, observation

BALL = "3DBall?team=0"


def options(tmp_path: Path, **sections: Any) -> RunOptions:
    return RunOptions(checkpoint_settings={"results_dir": str(tmp_path)}, **sections)


def test_scheme_is_unity() -> None:
    (kind,) = unity_env.get_env_types().items()
    assert kind == ("unity", EnvironmentKind(unity_env.make, unity_env.check))


def test_importing_the_plugin_needs_no_grpc() -> None:
    code = "import sys, builtin_plugins.unity_env; print('grpc' in sys.modules, 'google.protobuf' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False False"


def test_settings_reach_the_player(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    monkeypatch.setattr("mlhooks.unity.environment.PlayerProcess", Launched)
    agents = [agent(1, [observation(np.zeros(2))])]
    player = ScriptedPlayer(port, [hello(), empty(), output({BALL: agents}, [brain(BALL, continuous=1)])])
    env = unity_env.make(
        "Build/Game",
        worker_id=2,
        seed=40,
        num_areas=5,
        options=options(
            tmp_path,
            env_settings={"base_port": port - 2, "env_args": ["--x", "1"], "timeout_wait": 5},
            engine_settings={"time_scale": 7, "no_graphics_monitor": True},
        ),
    )
    set_parameters(env, {"gravity": ConstantSettings(value=9.5)}, 2)
    env.reset()
    env.close()
    player.finish()
    log = tmp_path / "ppo" / "run_logs" / "Player-2.log"
    expected = ["-logFile", str(log), "-nographics", "-batchmode", "--mlagents-port", str(port), "--x", "1"]
    assert Launched.last == ("Build/Game", expected, log)
    told = player.answers[0].unity_input.rl_initialization_input
    assert (told.seed, told.num_areas) == (42, 5)
    side_channel = player.answers[1].unity_input.rl_input.side_channel
    assert struct.pack("<if", 2, 7.0) in side_channel
    assert b"gravity" + struct.pack("<if", 0, 9.5) in side_channel


class Launched:
    """Takes the place of a process."""

    last: tuple[Any, ...] = ()

    def __init__(self, *arguments: Any) -> None:
        type(self).last = arguments

    def check(self) -> None: ...

    def close(self, timeout: float) -> None: ...


def test_without_a_name_the_editor_is_awaited_on_its_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: dict[str, Any] = {}
    monkeypatch.setattr("mlhooks.unity.environment.UnityPlayer", lambda name, **arguments: made.update(arguments))
    unity_env.make(None, worker_id=0, seed=1, num_areas=1, options=options(tmp_path))
    assert (made["port"], made["bind"]) == (5004, None)


def test_address_to_listen_on_is_taken_from_the_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: dict[str, Any] = {}
    monkeypatch.setattr("mlhooks.unity.environment.UnityPlayer", lambda name, **arguments: made.update(arguments))
    settings = options(tmp_path, env_settings={"bind": "0.0.0.0"})
    unity_env.make(None, worker_id=0, seed=1, num_areas=1, options=settings)
    assert made["bind"] == "0.0.0.0"


@pytest.mark.parametrize("arguments", [{"port": 3}, {"bind": "0.0.0.0"}])
def test_other_arguments_are_refused(tmp_path: Path, arguments: dict[str, Any]) -> None:
    settings = options(tmp_path, env_settings={"env_kwargs": arguments})
    with pytest.raises(UsageError, match=r"takes no env_settings.env_kwargs.*env_args"):
        unity_env.check("x", settings)


def test_player_that_is_not_there_leaves_its_port_free(tmp_path: Path) -> None:
    port = free_port()
    settings = options(tmp_path, env_settings={"base_port": port})
    for _ in range(2):
        with pytest.raises(PlayerNotFound, match="no Unity player for this platform at Build/Gane"):
            unity_env.make("Build/Gane", worker_id=0, seed=1, num_areas=1, options=settings)


@pytest.mark.skipif(sys.platform == "win32", reason="the player stand-in is a shell script")
def test_every_kind_of_sensor_and_action_arrives_as_in_the_reference_client(tmp_path: Path) -> None:
    from mlagents_envs.environment import UnityEnvironment

    from mlhooks.sim_player.command import write_executable

    traits = "buffer+goal+gray+png+stack+tensor+mask+group+skip"
    arguments = [
        *("scripted", "--agents", "3", "--episode-length", "6", "--package-version", "2.3.0"),
        *("--behavior", f"Walker:hybrid+{traits}", "--behavior", f"Late?team=1:branches+{traits}@4"),
    ]
    game = str(write_executable(tmp_path / "Game", arguments))
    port = free_port()
    settings = options(tmp_path, env_settings={"base_port": port})
    with ThreadPoolExecutor() as threads:  # Two players start no slower than one.
        opening = threads.submit(UnityEnvironment, game, base_port=free_port(), seed=3)
        ours: UnityPlayer = unity_env.make(game, worker_id=0, seed=3, num_areas=1, options=settings)
        theirs = opening.result()
    try:
        compared = 0
        for _ in range(25):
            ours.step()
            theirs.step()
            compared += compare(ours, theirs)
        assert set(ours.behavior_specs) == {"Walker?team=0", "Late?team=1"}
        assert compared > 500
    finally:
        ours.close()
        theirs.close()


def compare(ours: Any, theirs: Any) -> int:
    """Compare what two environments show, and give both the same actions, and return how many arrays were compared."""
    count = 0
    assert list(ours.behavior_specs) == list(theirs.behavior_specs)
    rng = np.random.default_rng(0)
    for name, spec in theirs.behavior_specs.items():
        assert ours.behavior_specs[name].action_spec == spec.action_spec
        for a, e in zip(ours.get_steps(name), theirs.get_steps(name), strict=True):
            for key in ("agent_id", "reward", "group_id", "group_reward"):
                np.testing.assert_array_equal(getattr(a, key), getattr(e, key))
            for obs, expected in zip(a.obs, e.obs, strict=True):
                channels_first = np.moveaxis(expected, 3, 1) if expected.ndim == 4 else expected
                seen = obs / 255 if obs.dtype == np.uint8 else obs
                np.testing.assert_allclose(seen, channels_first, atol=1e-6)
                count += 1
        decisions, terminals = theirs.get_steps(name)
        np.testing.assert_array_equal(ours.get_steps(name)[1].interrupted, terminals.interrupted)
        if len(decisions):
            mask = ours.get_steps(name)[0].action_mask
            np.testing.assert_array_equal(np.concatenate(mask, 1), np.concatenate(decisions.action_mask, 1))
        action = spec.action_spec.empty_action(len(decisions))
        action.continuous[:] = rng.uniform(-1, 1, action.continuous.shape)
        for env in (ours, theirs):
            env.set_actions(name, action)
    return count


@pytest.mark.skipif(sys.platform == "win32", reason="the player stand-in is a shell script")
def test_evaluations_have_a_player_of_their_own_which_is_kept(tmp_path: Path) -> None:
    from mlhooks.sim_player.command import write_executable

    game = str(write_executable(tmp_path / "Game", ["3DBall"]))
    settings = config("3DBall", game, max_steps=600, evaluation={"interval": 300, "episodes": 5})
    settings["env_settings"] |= {"base_port": free_port(), "timeout_wait": 20}
    seen: list[tuple[int, int]] = []

    class Note:
        @hookimpl
        def evaluation_finished(self, step: int, returns: tuple[float, ...]) -> None:
            seen.append((step, len(returns)))

    run = train(settings, tmp_path, Note())
    assert seen == [(300, 5), (600, 5)]
    logs = {number: (run.path / "run_logs" / f"Player-{number}.log").read_text() for number in (0, 1)}
    port = settings["env_settings"]["base_port"]
    for number, text in logs.items():
        assert text.count(f"port {port + number}") == 1, text


@pytest.mark.skipif(sys.platform == "win32", reason="the player stand-in is a shell script")
@pytest.mark.parametrize("require_reset", [True, False])
def test_lessons_reach_the_player_while_it_plays(tmp_path: Path, require_reset: bool) -> None:
    from mlhooks.sim_player.command import write_executable

    game = str(write_executable(tmp_path / "Game", ["scripted", "--behavior", "Walker:discrete", "--stats"]))
    criteria = {"behavior": "Walker", "min_lesson_length": 4, "threshold": 1, "require_reset": require_reset}
    sampler = {"sampler_type": "multirangeuniform", "sampler_parameters": {"intervals": [[2, 3], [8, 9]]}}
    lessons = [{"name": "short", "value": 2, "completion_criteria": criteria}, {"name": "long", "value": 40}]
    settings = config("Walker", game, max_steps=400, hyperparameters={"buffer_size": 4000})
    settings["behaviors"]["Walker"]["summary_freq"] = 400
    settings["env_settings"] |= {"base_port": free_port(), "timeout_wait": 20}
    settings["environment_parameters"] = {"episode_length": {"curriculum": lessons}, "width": sampler}
    stats: dict[str, list[float]] = {}

    class Note:
        @hookimpl
        def on_add_stat(self, key: str, value: float) -> None:
            stats.setdefault(key, []).append(value)

    run = train(settings, tmp_path, Note())
    assert run.curriculum.lessons == {"episode_length": 1, "width": 0}
    # 2 and up to 1 more at first, 40 and up to 20 more in the end
    lengths = stats["Environment/Episode Length"]
    assert set(lengths) <= {2, 3, *range(40, 61)}
    assert 2 in lengths
    assert max(lengths) >= 40
    told = stats["Parameter/episode_length"]
    assert (told[0], told[-1], set(told)) == (2, 40, {2, 40})
    assert {round(value - 0.5) for value in stats["Parameter/width"]} == {2, 8}


@pytest.mark.skipif(sys.platform == "win32", reason="the player stand-in is a shell script")
def test_buffer_sensor_beside_goal_and_camera_is_learned_from(tmp_path: Path) -> None:
    from mlhooks.sim_player.command import write_executable

    behavior = ["--behavior", "Sorter:branches+mask+buffer+goal+png", "--image-size", "20"]
    game = str(write_executable(tmp_path / "Game", ["scripted", *behavior]))
    settings = config("Sorter", game, max_steps=200)
    settings["env_settings"] |= {"base_port": free_port(), "timeout_wait": 20}
    found: list[float] = []

    class Note:
        @hookimpl
        def update_finished(self, losses: dict[str, float]) -> None:
            found.extend(losses.values())

    run = train(settings, tmp_path, Note())
    assert run.outcome.status == "finished"
    layout = run.trainers["Sorter"].policy.layout
    assert [(kind.most, kind.size) for kind in layout.entities] == [(4, 3)]
    assert (len(layout.images), len(layout.goal)) == (1, 3)
    assert found
    assert np.isfinite(found).all()
