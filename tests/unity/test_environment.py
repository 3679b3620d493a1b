import logging
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from mlagents_envs.base_env import ActionTuple
from mlagents_envs.exception import UnityActionException, UnityCommunicatorStoppedException, UnityTimeOutException

from mlhooks.errors import EnvironmentFailure, NonFiniteError
from mlhooks.unity.environment import EDITOR_PORT, UnityPlayer
from mlhooks.unity.errors import PlayerSilent, PlayerStopped, ProtocolBroken
from tests.unity.client import ScriptedPlayer, empty, free_port, hello, output
from tests.unity.messages import BrainParametersProto, agent, brain, observation

BALL = "Ball?team=0"
Play = Callable[..., tuple[UnityPlayer, ScriptedPlayer]]


def ball(agent_id: int, value: float = 0.0, **changes: Any) -> Any:
    return agent(agent_id, [observation(np.array([value, agent_id], np.float32))], **changes)


def first(*agents: Any) -> Any:
    return output({BALL: agents}, [brain(BALL, continuous=2)])


def lose_patience(env: UnityPlayer) -> None:
    env._timeout_wait = env._communicator.timeout_wait = 0.2


def test_handshake_tells_the_player_its_seed_and_areas(play: Play) -> None:
    env, player = play(first(ball(1)), seed=17, num_areas=3)
    env.reset()
    parameters = player.answers[0].unity_input.rl_initialization_input
    assert (parameters.seed, parameters.num_areas, parameters.communication_version) == (17, 3, "1.5.0")
    assert parameters.capabilities.hybridActions
    assert parameters.capabilities.variableLengthObservation
    assert player.answers[1].unity_input.rl_input.command == 1


def test_actions_reach_the_agents_that_asked_in_their_order(play: Play) -> None:
    env, player = play(first(ball(1), ball(5, done=True), ball(5)), output({BALL: [ball(5)]}), output({}))
    env.reset()
    decisions, terminals = env.get_steps(BALL)
    assert decisions.agent_id.tolist() == [1, 5]
    assert terminals.agent_id.tolist() == [5]
    env.set_actions(BALL, ActionTuple(np.array([[1, 2], [3, 4]], np.float32)))
    env.step()
    assert env.get_steps(BALL)[0].agent_id.tolist() == [5]
    env.step()
    assert [len(steps) for steps in env.get_steps(BALL)] == [0, 0]
    with_actions, without = (
        [list(a.continuous_actions) for a in answer.unity_input.rl_input.agent_actions[BALL].value]
        for answer in player.answers[2:4]
    )
    assert with_actions == [[1, 2], [3, 4]]
    assert without == [[0, 0]]  # This is so where none is set.


def test_first_step_is_a_reset_and_a_later_reset_asks_for_new_episodes(play: Play) -> None:
    env, player = play(first(ball(1)), output({BALL: [ball(1)]}), output({BALL: [ball(1)]}))
    env.step()
    env.step()
    env.reset()
    env.close()
    commands = [answer.unity_input.rl_input.command for answer in player.answers[1:4]]
    assert commands == [1, 0, 1]


def test_behavior_that_appears_late_joins(play: Play) -> None:
    late = output(
        {BALL: [ball(1)], "Late?team=1": [agent(9, [observation(np.zeros(3))])]},
        [brain("Late?team=1", branches=(3, 2))],
    )
    env, _ = play(first(ball(1)), late, output({"Late?team=1": [], BALL: [ball(1)]}))
    env.reset()
    assert list(env.behavior_specs) == [BALL]
    env.step()
    assert list(env.behavior_specs) == [BALL, "Late?team=1"]
    assert env.behavior_specs["Late?team=1"].action_spec.discrete_branches == (3, 2)
    assert env.get_steps("Late?team=1")[0].agent_id.tolist() == [9]
    env.step()
    assert len(env.get_steps("Late?team=1")[0]) == 0


def test_behavior_announced_before_its_first_agent_is_remembered(play: Play) -> None:
    env, _ = play(output({BALL: []}, [brain(BALL, continuous=2)]), output({BALL: [ball(3)]}))
    env.reset()
    assert len(env.behavior_specs) == 0
    env.step()
    assert env.get_steps(BALL)[0].agent_id.tolist() == [3]


def test_agents_of_a_behavior_that_was_never_announced_are_left_alone(play: Play) -> None:
    env, _ = play(output({"Human": [ball(1)], BALL: [ball(2)]}, [brain(BALL, continuous=2)]))
    env.reset()
    assert list(env.behavior_specs) == [BALL]


def test_behavior_announced_again_must_not_change(play: Play) -> None:
    env, _ = play(first(ball(1)), first(ball(1)), output({BALL: [ball(1)]}, [brain(BALL, continuous=3)]))
    env.reset()
    env.step()
    with pytest.raises(ProtocolBroken, match=r"'Ball\?team=0' again, with another shape"):
        env.step()


@pytest.mark.parametrize(
    ("sizes", "kind", "continuous", "branches"), [([3], 1, 3, ()), ([3, 2], 0, 0, (3, 2)), ([], 0, 0, ())]
)
def test_players_older_than_protocol_1_3_announce_actions_in_other_fields(
    play: Play, sizes: list[int], kind: int, continuous: int, branches: tuple[int, ...]
) -> None:
    old = BrainParametersProto(
        brain_name=BALL, vector_action_size_deprecated=sizes, vector_action_space_type_deprecated=kind
    )
    env, player = play(output({BALL: [ball(1)]}, [old]), output({}), greeting=hello("1.0.0", "1.0.8"))
    env.reset()
    spec = env.behavior_specs[BALL].action_spec
    assert (spec.continuous_size, spec.discrete_branches) == (continuous, branches)
    action = spec.random_action(1)
    env.set_actions(BALL, action)
    env.step()
    env.close()
    sent = player.answers[2].unity_input.rl_input.agent_actions[BALL].value[0].vector_actions_deprecated
    np.testing.assert_array_equal(sent, np.concatenate([action.continuous[0], action.discrete[0]]))


def test_close_tells_the_player_to_quit_and_frees_the_port(play: Play) -> None:
    env, player = play(first(ball(1)))
    env.reset()
    port = env._port
    env.close()
    env.close()
    player.finish()
    assert player.answers[-1].header.status == 400
    second = ScriptedPlayer(port, [hello(), empty()])
    UnityPlayer(None, port=port, timeout_wait=5).close()
    second.finish()
    with pytest.raises(PlayerStopped, match="closed"):
        env.step()


def test_player_that_says_goodbye_stops_the_environment(play: Play) -> None:
    env, _ = play(first(ball(1)), empty(status=400))
    env.reset()
    with pytest.raises(PlayerStopped, match="The Unity Editor left Play mode") as caught:
        env.step()
    assert isinstance(caught.value, EnvironmentFailure | UnityCommunicatorStoppedException)


def test_player_that_left_while_it_waited_for_actions_is_noticed_at_the_next_step(play: Play) -> None:
    env, player = play(first(ball(1)), b"")
    env.reset()
    player.cancel()
    while env._communicator._server._call is not None:
        time.sleep(0.001)
    with pytest.raises(PlayerStopped, match="The Unity Editor left Play mode") as caught:
        env.step()
    assert "closed the connection while it waited" in str(caught.value.__cause__)


def test_editor_that_does_not_come_is_asked_for_by_its_play_button(caplog: pytest.LogCaptureFixture) -> None:
    port = free_port()
    with (
        caplog.at_level(logging.INFO, "mlhooks"),
        pytest.raises(PlayerSilent, match=rf"Editor did not connect to port {port} within 0.2 seconds") as caught,
    ):
        UnityPlayer(None, port=port, timeout_wait=0.2)
    assert isinstance(caught.value, UnityTimeOutException)
    assert "Press its Play button earlier, or raise --timeout-wait." in str(caught.value)
    assert f"Listening on port {port}. Start training by pressing the Play button in the Unity Editor." in caplog.text
    assert EDITOR_PORT == 5004


def test_player_whose_agents_request_no_decision_is_asked_for_a_decision_requester(play: Play) -> None:
    env, _ = play()
    lose_patience(env)
    with pytest.raises(PlayerSilent, match=r"connected, but no agent requested a decision .* Decision Requester"):
        env.reset()


def test_player_that_falls_silent_is_told_from_one_that_never_spoke(play: Play) -> None:
    env, _ = play(first(ball(1)))
    env.reset()
    lose_patience(env)
    with pytest.raises(PlayerSilent, match=r"stopped answering: it sent nothing within 0.2 seconds"):
        env.step()


@pytest.mark.parametrize("version", ["2.0.0", "0.15.0", "new", ""])
def test_other_protocol_versions_are_refused_with_both_versions(play: Play, version: str) -> None:
    with pytest.raises(ProtocolBroken, match=rf"version {version or 'unknown'} .* mlhooks 1\.5\.0.*package.* 9\.9\.9"):
        play(greeting=hello(version, "9.9.9"))


@pytest.mark.parametrize("version", ["1.0.0", "1.4", "1.5.0-preview.2", "1.99.0"])
def test_all_versions_with_the_same_major_number_are_accepted(play: Play, version: str) -> None:
    env, _ = play(first(ball(1)), greeting=hello(version))
    env.reset()
    assert list(env.behavior_specs) == [BALL]


@pytest.mark.parametrize(
    "message", [b"\xff\xff\xff", b"\x12\x7f\x00", b"\x0a\x03\x08\xc8\x01\x12\x05\x0a\x03\x12\x01\x00"]
)
def test_bytes_that_are_no_message_are_refused(play: Play, message: bytes) -> None:
    env, _ = play(first(ball(1)), message)
    env.reset()
    with pytest.raises(ProtocolBroken, match="no message of the protocol"):
        env.step()


def test_nan_reaches_the_caller_with_its_place(play: Play) -> None:
    env, _ = play(first(ball(4, float("nan"))))
    with pytest.raises(NonFiniteError, match=r"agent 4, sensor 'sensor'"):
        env.reset()


def test_wrong_actions_are_the_callers_error(play: Play) -> None:
    env, _ = play(first(ball(1)))
    env.reset()
    with pytest.raises(UnityActionException, match="dimension"):
        env.set_actions(BALL, ActionTuple(np.zeros((2, 2), np.float32)))


def test_large_messages_pass(play: Play) -> None:
    wide = [agent(i, [observation(np.full((3, 300, 300), i, np.float32), properties=(1, 2, 2))]) for i in range(5)]
    env, _ = play(output({BALL: wide}, [brain(BALL, continuous=1)]))
    env.reset()
    decisions, _ = env.get_steps(BALL)
    assert decisions.obs[0].shape == (5, 3, 300, 300)
    np.testing.assert_array_equal(decisions.obs[0][:, 2, 299, 299], range(5))


def test_second_player_on_a_port_is_sent_away(play: Play) -> None:
    env, _ = play(first(ball(1)), output({BALL: [ball(1, 7.0)]}))
    env.reset()
    stranger = ScriptedPlayer(env._port, [hello()])
    stranger.join(10)
    assert stranger.error is not None
    assert "another player is connected" in str(stranger.error.details())
    env.step()
    assert env.get_steps(BALL)[0].obs[0][0, 0] == 7
