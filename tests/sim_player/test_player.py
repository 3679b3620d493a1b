"""The player's side of the exchange over the simulations, held to the reference client."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest
from mlagents_envs.base_env import ActionTuple
from mlagents_envs.communicator_objects.command_pb2 import QUIT
from mlagents_envs.communicator_objects.unity_input_pb2 import UnityInputProto
from mlagents_envs.exception import UnityEnvironmentException
from mlagents_envs.side_channel.engine_configuration_channel import EngineConfigurationChannel
from mlagents_envs.side_channel.environment_parameters_channel import EnvironmentParametersChannel
from mlagents_envs.side_channel.raw_bytes_channel import RawBytesChannel
from mlagents_envs.side_channel.stats_side_channel import StatsAggregationMethod, StatsSideChannel

from mlhooks.sim_player.command import write_executable
from mlhooks.sims import SIMULATIONS
from tests.sim_player.recording import connected, free_port

ECHO = UUID("12345678-0000-4000-8000-1234567890ab")


@pytest.mark.parametrize("name", ["3DBall", "Basic", "GridWorld", "Sorter"])
def test_player_shows_what_the_simulation_shows_in_process(tmp_path, name):
    """Same seed and actions: the same steps, over several episodes; sensors sorted by name."""
    source = np.random.default_rng(1)
    simulation = SIMULATIONS[name](num_agents=3, num_areas=2, seed=5)
    spec = simulation.behavior_specs[name]
    order = sorted(range(len(spec.observation_specs)), key=lambda i: spec.observation_specs[i].name)
    ended = 0
    with connected(tmp_path, name, "--agents", "3", seed=5, num_areas=2) as env:
        env.reset()
        simulation.reset()
        key = f"{name}?team=0"
        assert env.behavior_specs[key].action_spec == spec.action_spec
        assert list(env.behavior_specs[key].observation_specs) == [spec.observation_specs[i] for i in order]
        for _ in range(60):
            decisions, terminals = env.get_steps(key)
            wanted, over = simulation.get_steps(name)
            for got, want in ((decisions, wanted), (terminals, over)):
                np.testing.assert_array_equal(got.agent_id, want.agent_id)
                np.testing.assert_array_equal(got.reward, want.reward)
                for place, i in enumerate(order):
                    np.testing.assert_array_equal(got.obs[place], want.obs[i])
            np.testing.assert_array_equal(terminals.interrupted, over.interrupted)
            if wanted.action_mask is not None:
                np.testing.assert_array_equal(decisions.action_mask[0], wanted.action_mask[0])
            ended += len(over)
            continuous = source.uniform(-1, 1, (6, spec.action_spec.continuous_size)).astype(np.float32)
            discrete = source.integers(0, spec.action_spec.discrete_branches, (6, spec.action_spec.discrete_size))
            action = ActionTuple(continuous, discrete.astype(np.int32))
            for target, behavior in ((env, key), (simulation, name)):
                target.set_actions(behavior, action)
                target.step()
    assert ended > 3


def test_handshake_tells_versions_and_capabilities(tmp_path):
    with connected(tmp_path, "Basic", "--package-version", "2.3.0") as env:
        capabilities = env.academy_capabilities
        assert [value for _, value in capabilities.ListFields()] == [True] * 7
    with connected(tmp_path, "Basic", "--communication-version", "1.2.0") as env:
        names = {field.name for field, _ in env.academy_capabilities.ListFields()}
    assert names == {"baseRLCapabilities", "concatenatedPngObservations", "compressedChannelMapping"}


def test_player_leaves_when_the_trainer_closes(tmp_path):
    with connected(tmp_path, "Basic", "-force-glcore", additional_args=["--some-argument", "of the game"]) as env:
        env.reset()
        assert env.player.poll() is None
        env.close()
        assert env.player.returncode == 0
        env._loaded = True  # The fixture closes it once more.
    log = (tmp_path / "Player-0.log").read_text()
    assert "-nographics -batchmode" in log
    assert "of the game" in log
    assert log.endswith("The trainer says that it is done.\n")


def test_player_obeys_the_command_to_quit(tmp_path):
    with connected(tmp_path, "Basic") as env:
        env.reset()
        quit_input = UnityInputProto()
        quit_input.rl_input.command = QUIT
        with pytest.raises(UnityEnvironmentException, match="return code 0"):
            env._communicator.exchange(quit_input, env._poll_process)
        assert env.player.wait() == 0


def test_behavior_name_and_changing_ids(tmp_path):
    with connected(tmp_path, "Basic", "--behavior", "Runner?team=1", "--agents", "2", "--agent-ids", "change") as env:
        env.reset()
        assert list(env.behavior_specs) == ["Runner?team=1"]
        first, ended = set(env.get_steps("Runner?team=1")[0].agent_id), set()
        for _ in range(8):
            # All go to the right.
            env.set_actions("Runner?team=1", ActionTuple(discrete=np.full((2, 1), 2, dtype=np.int32)))
            env.step()
            decisions, terminals = env.get_steps("Runner?team=1")
            ended |= set(terminals.agent_id)
        assert ended == first
        assert len(first | set(decisions.agent_id)) == 4


def test_side_channels_both_ways(tmp_path):
    engine, parameters, stats, raw = (
        EngineConfigurationChannel(),
        EnvironmentParametersChannel(),
        StatsSideChannel(),
        RawBytesChannel(ECHO),
    )
    engine.set_configuration_parameters(width=84, height=80, quality_level=3, time_scale=20.0)
    parameters.set_float_parameter("episode_length", 2.0)
    parameters.set_uniform_sampler_parameters("uniform", 1.0, 2.0, 11)
    parameters.set_gaussian_sampler_parameters("gaussian", 5.0, 0.0, 12)
    parameters.set_multirangeuniform_sampler_parameters("ranges", [(10.0, 10.5), (20.0, 20.5)], 13)
    raw.send_raw_data(bytearray(b"\x00early"))
    arguments = ("scripted", "--behavior", "Walker:discrete+mask", "--stats", "--echo-channel", str(ECHO))
    with connected(tmp_path, *arguments, side_channels=[engine, parameters, stats, raw]) as env:
        env.reset()
        assert raw.get_and_clear_received_messages() == [b"\x00early"]
        raw.send_raw_data(bytearray(b"later"))
        env.step()
        assert raw.get_and_clear_received_messages() == [b"later"]
        parameters.set_float_parameter("episode_length", 4.0)
        for _ in range(12):
            env.step()
    log = (tmp_path / "Player-0.log").read_text()
    assert "Engine configuration: resolution 84 x 80" in log
    assert "Engine configuration: quality level 3" in log
    assert "Engine configuration: time scale 20" in log
    assert "Unknown side channel" not in log
    seen = stats.get_and_reset_stats()
    assert seen["Player/Episodes Ended"][0][1] == StatsAggregationMethod.SUM
    assert sum(value for value, _ in seen["Player/Episodes Ended"]) > 8
    lengths = [value for value, _ in seen["Player/Episode Lengths"]]
    assert min(lengths) in {2.0, 3.0}  # 2 + 0 or 1
    assert max(lengths) in {5.0, 6.0}  # 4 + 0, 1 or 2
    assert [value for value, _ in seen["Parameter/episode_length"]][:1] == [2.0]
    assert [value for value, _ in seen["Parameter/episode_length"]][-1:] == [4.0]
    assert all(1 <= value <= 2 for value, _ in seen["Parameter/uniform"])
    assert len({value for value, _ in seen["Parameter/uniform"]}) > 1
    assert {value for value, _ in seen["Parameter/gaussian"]} == {5.0}
    assert {value // 10 for value, _ in seen["Parameter/ranges"]} == {1.0, 2.0}
    # The client's empty actions are zeros, which the masks forbid at times.
    assert seen["Player/Forbidden Actions"][0][1] == StatsAggregationMethod.SUM


def test_prepared_messages_come_in_turn_whatever_the_actions(tmp_path):
    with connected(tmp_path, "3DBall", "--agents", "2", "--prepared", "4") as env:
        env.reset()
        seen = [env.get_steps("3DBall?team=0")[0].obs[0]]
        for _ in range(6):
            env.step()
            seen.append(env.get_steps("3DBall?team=0")[0].obs[0])
    assert len({part.tobytes() for part in seen[:4]}) == 4
    np.testing.assert_array_equal(seen[4:], seen[1:4])


def test_without_a_trainer_the_player_says_so_and_exits(tmp_path):
    for arguments, text in (
        ([], "nothing to do"),
        (["--mlagents-port"], "nothing to do"),
        (["--mlagents-port", "5005", "--mlagents-port", "none"], "nothing to do"),
        (["--mlagents-port", "none", "--mlagents-port", str(free_port())], "No trainer answers"),
    ):
        command = [sys.executable, "-m", "mlhooks.sim_player", "Basic", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, text in done.stdout, done.stderr) == (0, True, "")


def test_start_imports_nothing_of_training(tmp_path):
    script = (
        "import sys; import mlhooks.sim_player.player, mlhooks.sim_player.simulated, mlhooks.sim_player.scripted;"
        "heavy = {'torch', 'pydantic', 'rich', 'matplotlib', 'yaml', 'click', 'mlhooks.training', 'mlhooks.settings',"
        " 'mlagents_envs.environment'} & set(sys.modules); sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_player_of_a_trainer_that_breaks_the_side_channel_fails_and_says_why(tmp_path):
    class Broken(RawBytesChannel):
        """Says that its message is longer than it is."""

    raw = Broken(ECHO)
    with connected(tmp_path, "Basic", side_channels=[raw]) as env:
        env.reset()
        manager = env._side_channel_manager
        manager.generate_side_channel_messages = lambda: bytearray(ECHO.bytes_le + struct.pack("<i", 99) + b"short")
        with pytest.raises(UnityEnvironmentException):
            env.step()
        assert env.player.wait() == 1
    assert "a message of 99 bytes is cut short" in (tmp_path / "Player-0.log").read_text()


def test_executable_starts_where_paths_have_spaces(tmp_path):
    arguments = ["Basic", "--behavior", "It's one", "--write-executable", "ignored", "--agents", "2"]
    path = write_executable(tmp_path / "My Game" / "Player", arguments)
    assert os.access(path, os.X_OK)
    assert "ignored" not in path.read_text()
    log = tmp_path / "a log.txt"
    done = subprocess.run([path, "-logFile", log], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert "Basic, port None" in log.read_text()


def test_application_folder_holds_the_program_where_macos_looks(tmp_path):
    path = write_executable(tmp_path / "Game.app", ["Basic"])
    assert path == Path(tmp_path, "Game.app", "Contents", "MacOS", "Game")
