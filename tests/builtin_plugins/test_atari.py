"""Atari games by `env_settings.atari`; they need the extra `atari`."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
import yaml
from gymnasium.wrappers import AtariPreprocessing, ClipReward, FrameStackObservation
from mlagents_envs.base_env import ActionTuple

from builtin_plugins import gymnasium_env
from builtin_plugins.gymnasium_atari import EpisodicLife
from mlhooks.errors import UsageError
from mlhooks.example_configs import find_config
from tests.builtin_plugins.gymnasium_envs import make, options_of
from tests.scripted import train
from tests.test_general_settings import chosen

pytest.importorskip("ale_py")
pytest.importorskip("cv2")

STEPS = 1000


def by_hand(game, seed, **arguments):
    """Return a game with Gymnasium's own preprocessing, and its first stack."""
    env = gymnasium.make(f"ALE/{game}-v5", frameskip=1, disable_env_checker=True, **arguments)
    env = AtariPreprocessing(env, noop_max=30, frame_skip=4, screen_size=84, grayscale_obs=True)
    env = ClipReward(FrameStackObservation(EpisodicLife(env), 4), -1, 1)
    return env, env.reset(seed=seed)[0]


@pytest.mark.parametrize(("game", "steps"), [("Pong", STEPS), pytest.param("Breakout", 300, marks=pytest.mark.slow)])
def test_frames_are_those_of_gymnasiums_preprocessing_and_stack_bit_for_bit(game, steps):
    arguments = {"repeat_action_probability": 0.25 if game == "Breakout" else 0.0}
    env = make(f"ALE/{game}-v5", arguments, num_areas=2, seed=4, atari=True)
    (observation,) = env.behavior_specs[game].observation_specs
    assert observation.shape == (4, 84, 84)
    hands = [by_hand(game, seed, **arguments) for seed in env._first_seeds]
    (choices,) = env.behavior_specs[game].action_spec.discrete_branches
    actions = np.random.default_rng(0).integers(0, choices, (steps, 2))
    env.reset()
    decisions, _ = env.get_steps(game)
    for agent, (_, first) in enumerate(hands):
        np.testing.assert_array_equal(decisions.obs[0][agent], first)
    ends = 0
    for taken in actions.astype(np.int32):
        env.set_actions(game, ActionTuple(discrete=taken[:, None]))
        env.step()
        decisions, terminals = env.get_steps(game)
        assert decisions.obs[0].dtype == np.uint8
        for agent, (hand, _) in enumerate(hands):
            seen, reward, over, cut, _ = hand.step(int(taken[agent]))
            if over or cut:
                ends += 1
                row = terminals.agent_id.tolist().index(agent)
                np.testing.assert_array_equal(terminals.obs[0][row], seen)
                assert (terminals.reward[row], terminals.interrupted[row]) == (reward, not over)
                seen = hand.reset()[0]
            else:
                assert decisions.reward[agent] == reward
            np.testing.assert_array_equal(decisions.obs[0][agent], seen)
    env.close()
    assert ends > 0


def test_observations_are_those_of_gymnasium_alone_where_no_life_is_lost():
    """Pong has no lives: here even the wrapper for them is left out."""
    env = make("ALE/Pong-v5", {"repeat_action_probability": 0.0}, seed=4, atari=True)
    plain = gymnasium.make("ALE/Pong-v5", frameskip=1, repeat_action_probability=0.0)
    plain = FrameStackObservation(AtariPreprocessing(plain, terminal_on_life_loss=True), 4)
    first, _ = plain.reset(seed=env._first_seeds[0])
    env.reset()
    np.testing.assert_array_equal(env.get_steps("Pong")[0].obs[0][0], first)
    for action in np.random.default_rng(1).integers(0, 6, 100).tolist():
        env.set_actions("Pong", ActionTuple(discrete=np.array([[action]], np.int32)))
        env.step()
        np.testing.assert_array_equal(env.get_steps("Pong")[0].obs[0][0], plain.step(action)[0])


@pytest.mark.parametrize("name", ["ALE/Pong-v5", "ALE/Pong", "PongNoFrameskip-v4", "Pong-v4"])
def test_games_are_found_by_new_and_old_ids_and_are_suggested_the_preprocessing(name):
    assert gymnasium_env.suggests(name, options_of()) == {"atari": True}
    assert gymnasium_env.suggests(name, options_of({"obs_type": "ram"})) == {}
    assert gymnasium_env.suggests(name, options_of(wrappers=["RecordEpisodeStatistics"])) == {}
    assert gymnasium_env.suggests("CartPole-v1", options_of()) == {}


@pytest.mark.parametrize(("algo", "areas"), [("ppo", 8), ("a2c", 16), ("dqn", 1)])
def test_run_without_a_file_has_the_preprocessing_and_settings_for_atari(algo, areas):
    options, text = chosen("gymnasium:ALE/Breakout-v5", algo)
    assert text == f"general ones for {algo}, discrete actions and images and Atari games"
    assert options.env_settings.atari
    assert options.env_settings.num_areas == areas
    settings = options.behaviors["Breakout"]
    assert settings.max_steps == 10_000_000
    assert settings.network_settings.vis_encode_type == "nature_cnn"
    assert settings.network_settings.hidden_layers == []
    assert settings.hyperparameters.as_dict().get("normalize_rewards", "none") == "none"


def test_flags_and_own_wrappers_outrank_the_preprocessing():
    options, _ = chosen("gymnasium:ALE/Breakout-v5", "ppo", **{"env_settings.atari": False})
    assert not options.env_settings.atari


@pytest.mark.parametrize("algo", ["ppo", "dqn"])
def test_pong_has_an_example_for_each(algo):
    options, text = chosen("gymnasium:ALE/Pong-v5", algo)
    assert text == f"those of the example pong_{algo}, tuned for it"
    assert options.env_settings.atari


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"frameskip": 4}, r"AtariPreprocessing \(env_settings\.atari\) cannot be put.*\{frameskip: 1\}")],
)
def test_frames_that_the_game_skips_itself_are_refused_with_what_to_do(arguments, message):
    with pytest.raises(UsageError, match=message):
        make("ALE/Pong-v5", arguments, atari=True)


def test_preprocessing_among_the_wrappers_takes_every_frame_of_the_game():
    env = make("ALE/Pong-v5", wrappers=[{"AtariPreprocessing": {"screen_size": [42, 84]}}, "FireReset"])
    assert env.behavior_specs["Pong"].observation_specs[0].shape == (1, 84, 42)
    assert env._opened[0].unwrapped._frameskip == 1
    env.close()


@pytest.mark.slow
def test_many_copies_of_a_game_show_what_one_shows():
    env = make("ALE/Pong-v5", num_areas=10)
    assert env.behavior_specs["Pong"].observation_specs[0].shape == (3, 210, 160)


@pytest.mark.slow
@pytest.mark.parametrize("algo", ["ppo", "dqn"])
def test_example_trains(algo, tmp_path):
    settings = yaml.safe_load(find_config(f"pong_{algo}").read_text(encoding="utf-8"))
    short = {"max_steps": 64, "summary_freq": 32}
    learned = {"buffer_size": 32, "batch_size": 16} if algo == "ppo" else {"buffer_size": 64, "buffer_init_steps": 32}
    settings["behaviors"]["Pong"] |= short
    settings["behaviors"]["Pong"]["hyperparameters"] |= learned
    settings["env_settings"]["num_areas"] = 2
    run = train(settings, tmp_path, seed=1)
    assert run.trainers["Pong"].updates > 0
    assert run.trainers["Pong"].store.obs[0].dtype == np.uint8
