"""The Unity Editor, whose Play mode ends and begins again."""

import logging
import struct
from typing import Any

import numpy as np
import pytest
from mlagents_envs.base_env import ActionTuple

from mlhooks.errors import EnvironmentPaused
from mlhooks.settings.environment_parameters import ConstantSettings
from mlhooks.settings.run_options import EngineSettings
from mlhooks.unity.environment import UnityPlayer
from mlhooks.unity.errors import BehaviorChanged, PlayerSilent, PlayerStopped, PlayModeEnded
from mlhooks.unity.side_channels import PlayerChannels
from tests.unity.client import ScriptedPlayer, empty, free_port, hello, output
from tests.unity.messages import agent, brain, observation

BALL, LATE = "Ball?team=0", "Late?team=0"
GOODBYE = empty(status=400)


def ball(value: float = 0.0) -> Any:
    return agent(1, [observation(np.array([value, 1], np.float32))])


def shown(value: float = 0.0) -> Any:
    return output({BALL: [ball(value)]}, [brain(BALL, continuous=2)])


@pytest.fixture
def editor():
    """Starts an environment and an Editor; `editor.play(...)` presses Play again."""

    class Editor:
        def __init__(self) -> None:
            self.port, self.plays, self.env = free_port(), [], None

        def play(self, *script: Any) -> ScriptedPlayer:
            self.plays.append(ScriptedPlayer(self.port, [hello(), empty(), *script]))
            return self.plays[-1]

        def listen(self, **arguments: Any) -> UnityPlayer:
            self.env = UnityPlayer(None, port=self.port, **{"timeout_wait": 5, **arguments})
            return self.env

        def stopped(self) -> UnityPlayer:
            self.play(shown(), GOODBYE)
            env = self.listen()
            env.reset()
            with pytest.raises(PlayModeEnded):
                env.step()
            return env

    made = Editor()
    yield made
    if made.env is not None:
        made.env.close()
    for play in made.plays:
        play.finish()


def test_reset_waits_until_it_is_played_again(editor, caplog: pytest.LogCaptureFixture) -> None:
    editor.play(shown(1), GOODBYE)
    env = editor.listen()
    env.reset()
    with pytest.raises(PlayModeEnded, match="left Play mode") as caught:
        env.step()
    assert isinstance(caught.value, EnvironmentPaused)
    again = editor.play(shown(7), output({BALL: [ball(8)]}))
    with caplog.at_level(logging.INFO, "mlhooks"):
        env.reset()
    assert f"Listening on port {editor.port}. Start training by pressing the Play button" in caplog.text
    assert env.get_steps(BALL)[0].obs[0].tolist() == [[7, 1]]
    env.set_actions(BALL, ActionTuple(np.array([[0.5, -0.5]], np.float32)))
    env.step()
    assert env.get_steps(BALL)[0].obs[0].tolist() == [[8, 1]]
    sent = again.answers[2].unity_input.rl_input.agent_actions[BALL].value[0].continuous_actions
    assert list(sent) == [0.5, -0.5]


def test_wait_has_no_limit(editor) -> None:
    env = editor.stopped()
    env._timeout_wait = env._communicator.timeout_wait = 0.01
    tried: list[None] = []
    exchange = env._communicator.initialize

    def initialize(*arguments: Any) -> Any:
        tried.append(None)
        if len(tried) == 3:
            env._communicator.timeout_wait = 5
            editor.play(shown(3))
        return exchange(*arguments)

    env._communicator.initialize = initialize
    env.reset()
    assert len(tried) == 3
    assert env.get_steps(BALL)[0].obs[0].tolist() == [[3, 1]]


def test_editor_that_connects_and_then_hangs_is_not_waited_for(editor) -> None:
    env = editor.stopped()
    env._timeout_wait = env._communicator.timeout_wait = 0.5
    editor.play()  # It says hello, and nothing more.
    with pytest.raises(PlayerSilent, match="no agent requested a decision"):
        env.reset()


def test_what_the_editor_must_know_is_told_again(editor) -> None:
    channels = PlayerChannels()
    channels.configure_engine(EngineSettings(time_scale=7))
    channels.set_parameters({"gravity": ConstantSettings(value=1.0)})
    editor.play(shown(), GOODBYE)
    env = editor.listen(channels=channels, seed=9)
    env.reset()
    channels.set_parameters({"gravity": ConstantSettings(value=2.5)})
    with pytest.raises(PlayModeEnded):
        env.step()
    again = editor.play(shown())
    env.reset()
    assert again.answers[0].unity_input.rl_initialization_input.seed == 9
    told = again.answers[1].unity_input.rl_input.side_channel
    assert struct.pack("<if", 2, 7.0) in told
    assert told.count(b"gravity") == 1
    assert b"gravity" + struct.pack("<if", 0, 2.5) in told


def test_behaviors_that_have_not_come_back_yet_show_nothing(editor) -> None:
    late = agent(5, [observation(np.zeros(3, np.float32))])
    editor.play(
        output({BALL: [ball()], LATE: [late]}, [brain(BALL, continuous=2), brain(LATE, branches=(3,))]), GOODBYE
    )
    env = editor.listen()
    env.reset()
    with pytest.raises(PlayModeEnded):
        env.step()
    editor.play(shown(4), output({BALL: [ball()], LATE: [late]}, [brain(LATE, branches=(3,))]))
    env.reset()
    assert list(env.behavior_specs) == [BALL, LATE]
    assert [len(steps) for steps in env.get_steps(LATE)] == [0, 0]
    env.step()
    assert env.get_steps(LATE)[0].agent_id.tolist() == [5]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (output({BALL: [ball()]}, [brain(BALL, continuous=3)]), "It has the observations .*, 3 continuous actions"),
        (
            output({BALL: [agent(1, [observation(np.zeros(5, np.float32))])]}, [brain(BALL, continuous=2)]),
            r"It has the observations \w+ \(5,\), 2 continuous",
        ),
    ],
)
def test_changed_behavior_is_refused_for_good(editor, changed: Any, said: str) -> None:
    env = editor.stopped()
    editor.play(changed)
    with pytest.raises(BehaviorChanged, match=rf"(?s)'Ball\?team=0' has changed.*{said}.*--run-id") as caught:
        env.reset()
    assert caught.value.exit_code == 2


def test_player_with_a_process_is_not_waited_for(editor) -> None:
    editor.play(shown(), GOODBYE)
    env = editor.listen()
    env._path = "Build/Game"
    env.reset()
    with pytest.raises(PlayerStopped, match="ended the connection") as caught:
        env.step()
    assert not isinstance(caught.value, EnvironmentPaused)
