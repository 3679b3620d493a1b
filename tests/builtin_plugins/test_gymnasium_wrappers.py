"""Wrappers of `env_settings.wrappers`: what agents see, whose returns are told, and what is said about wrong ones."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.wrappers import ClipReward, FrameStackObservation, RepeatAction, TimeAwareObservation
from mlagents_envs.base_env import ActionTuple

from builtin_plugins import gymnasium_env
from builtin_plugins.gymnasium_atari import EpisodicLife, FireReset
from builtin_plugins.gymnasium_wrapping import ATARI_WRAPPERS
from mlhooks.cli import main
from mlhooks.envs.shared_arrays import ArrayReader, ArrayWriter
from mlhooks.envs.shared_steps import read_steps, write_steps
from mlhooks.errors import EnvironmentFailure, UnsupportedError, UsageError
from tests.builtin_plugins import gymnasium_wrappers as own
from tests.builtin_plugins.gymnasium_envs import make, options_of
from tests.scripted import config, train

HERE = "tests.builtin_plugins.gymnasium_wrappers"
GAME = "mlhooks-tests/Game-v0"
STACKED = [
    {"TimeAwareObservation": {"normalize_time": True}},
    {"RepeatAction": {"num_repeats": 2}},
    {"FrameStackObservation": {"stack_size": 3}},
    {"ClipReward": {"min_reward": 0, "max_reward": 1.5}},
]


def wrapped(seed):
    env = gymnasium.make("CartPole-v1", disable_env_checker=True, max_episode_steps=30)
    env = FrameStackObservation(RepeatAction(TimeAwareObservation(env, normalize_time=True), 2), 3)
    env = ClipReward(env, 0, 1.5)
    return env, env.reset(seed=seed)[0]


def played(env, steps):
    """Play action 1 and 0 in turn, and return what each step shows."""
    (name,) = env.behavior_specs
    env.reset()
    for tick in range(steps):
        decisions, _ = env.get_steps(name)
        env.set_actions(name, ActionTuple(discrete=np.full((len(decisions), 1), tick % 2, np.int32)))
        env.step()
        yield env.get_steps(name)


def test_agents_see_what_gymnasiums_wrappers_show_and_their_episodes_end_with_these():
    env = make("CartPole-v1", {"max_episode_steps": 30}, num_areas=2, seed=3, wrappers=STACKED)
    assert env.behavior_specs["CartPole"].observation_specs[0].shape == (15,)
    by_hand = [wrapped(seed) for seed in env._first_seeds]
    ends = 0
    for tick, (decisions, terminals) in enumerate(played(env, 60)):
        for agent, (other, _) in enumerate(by_hand):
            seen, reward, over, cut, _ = other.step(tick % 2)
            if over or cut:
                ends += 1
                row = terminals.agent_id.tolist().index(agent)
                np.testing.assert_array_equal(terminals.obs[0][row], seen.ravel().astype(np.float32))
                assert terminals.reward[row] == reward
                seen = other.reset()[0]
            else:
                assert decisions.reward[agent] == reward
            np.testing.assert_array_equal(decisions.obs[0][agent], seen.ravel().astype(np.float32))
    assert ends > 4


@pytest.mark.parametrize(
    ("wrapper", "factor"),
    [
        ({f"{HERE}:Weighted": {"weight": 3.0}}, 3),
        ({f"{inspect.getsourcefile(own)}:Weighted": {"weight": 3.0}}, 3),
        ({f"{HERE}:doubled": None}, 2),
        (f"{HERE}:doubled", 2),
    ],
)
def test_wrappers_of_users_are_named_by_module_or_file(wrapper, factor):
    seen = [decisions.obs[0][0, 0] for decisions, _ in played(make(GAME, wrappers=[wrapper]), 4)]
    assert seen == [factor * step for step in (1, 2, 3, 4)]


def test_lists_become_the_tuples_that_wrappers_want():
    env = make(GAME, wrappers=[{"FrameStackObservation": {"stack_size": 4}}, {"ReshapeObservation": {"shape": [2, 2]}}])
    assert env.behavior_specs["Game"].observation_specs[0].shape == (4,)
    env = make(GAME, wrappers=[{"RescaleObservation": {"min_obs": [0.0], "max_obs": [1.0]}}])
    assert [round(float(decisions.obs[0][0, 0]), 3) for decisions, _ in played(env, 2)] == [0.01, 0.02]


@pytest.mark.parametrize(
    ("wrapper", "message"),
    [
        ("FrameStack", r"wrappers\[1\]: there is no wrapper \"FrameStack\"\. Did you mean FrameStackObservation"),
        ("gymnasium.wrappers.ClipReward", r"\. Did you mean ClipReward\?$"),
        ("Xyzzy", r"no wrapper \"Xyzzy\"\. Gymnasium's are AddRenderObservation, .*FILE\.py:CLASS"),
        ("DictInfoToList", r"one for vector environments"),
        ("NormalizeObservation", r"NormalizeObservation is refused.*network_settings\.normalize"),
        ({"ClipReward": {"min": 0}}, r"does not take the arguments \{'min': 0\}.*mean min_reward\?.*max_reward"),
        ("FrameStackObservation", r"needs arguments: .*'stack_size'.*takes stack_size, padding_type"),
        ({"FrameStackObservation": {"stack_size": 0}}, r"Observation \(env_settings\.wrappers\[1\]\) cannot be"),
        ("TransformReward", r"takes a function as func, which a configuration cannot hold.*FILE\.py:CLASS"),
        ({"TransformObservation": {"func": "x"}}, r"takes a function as func"),
        ("no_such_module:X", r"wrappers\[1\]: There is no module 'no_such_module'"),
        (f"{HERE}:Weihgted", r"wrappers\[1\]: .*no class or function 'Weihgted'; did you mean Weighted"),
        ({f"{HERE}:Weighted": {"wait": 1}}, r"'wait'.*gymnasium_wrappers\.py:\d+\)\. Did you mean weight\?"),
        (f"{HERE}:nothing", r"must make a gymnasium\.Env, and made None \(.*gymnasium_wrappers\.py:"),
        (f"{HERE}:Unmakeable", r"cannot be put around gymnasium:mlhooks-tests/Game-v0 .*no licence.*wrappers\.py:"),
        ("GrayscaleObservation", r"GrayscaleObservation \(env_settings\.wrappers\[1\]\) cannot be put around"),
    ],
)
def test_wrong_wrappers_are_told_by_name_and_key(wrapper, message):
    with pytest.raises(UsageError, match=message):
        make(GAME, wrappers=[{"ClipReward": {"max_reward": 1}}, wrapper])


def test_spaces_that_a_wrapper_makes_unfit_name_it_and_those_of_the_environment_do_not():
    with pytest.raises(UnsupportedError, match=r"Text.*wrapper .*:Named \(env_settings\.wrappers\[1\]\) makes it so"):
        make(GAME, wrappers=[f"{HERE}:Weighted", f"{HERE}:Named"])
    with pytest.raises(UnsupportedError) as caught:
        make("mlhooks-tests/Spaces-v0", {"observation_space": gymnasium.spaces.Text(3)}, wrappers=[f"{HERE}:Weighted"])
    assert "wrapper" not in str(caught.value)


LIMITED = {"TimeLimit": {"max_episode_steps": 9}}


@pytest.mark.parametrize(
    ("wrapper", "message"),
    [
        ("Fragile", r"The wrapper .*:Fragile \(env_settings\.wrappers\[1\]\) of gymnasium:.* failed in step\(\).*torn"),
        ("Wide", r"not in its space.*The wrapper .*:Wide \(env_settings\.wrappers\[1\]\) makes it so"),
        ("NoReward", r"the reward None.*The wrapper .*:NoReward \(env_settings\.wrappers\[1\]\) makes it so"),
    ],
)
def test_failures_of_a_wrapper_while_running_name_it(wrapper, message):
    with pytest.raises(EnvironmentFailure, match=message):
        list(played(make(GAME, wrappers=[LIMITED, f"{HERE}:{wrapper}", LIMITED]), 2))


def test_failures_of_the_environment_beneath_wrappers_are_its_own():
    env = make("mlhooks-tests/Broken-v0", {"how": "step"}, wrappers=[LIMITED])
    with pytest.raises(EnvironmentFailure, match=r"^gymnasium:mlhooks-tests/Broken-v0 failed in .*motor is off"):
        list(played(env, 2))


def test_wrong_answers_of_the_environment_beneath_wrappers_are_its_own(monkeypatch):
    monkeypatch.setattr(own.Game, "step", lambda self, action: (self._show(), "5", False, False, {}))
    env = make(GAME, wrappers=[{"ClipReward": {"max_reward": 1}}])
    with pytest.raises(EnvironmentFailure, match=r"^gymnasium:mlhooks-tests/Game-v0 failed in step\(\).*rew") as caught:
        list(played(env, 2))
    assert "The wrapper" not in str(caught.value)


@pytest.mark.parametrize("key", [{"wrappers": ["EpisodicLife"]}, {"atari": True}])
@pytest.mark.parametrize("env", ["sim:Basic", "tests.scripted:Corridor", "Builds/Game.x86_64"])
def test_environments_of_other_kinds_refuse_wrappers(tmp_path, env, key):
    with pytest.raises(UsageError, match=rf"env_settings\.{next(iter(key))} is for single Gymnasium env.* is none"):
        train({"env_settings": {"env_path": env, **key}}, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("CartPole-v1", {"vectorization_mode": "vector_entry_point"}, "remove vectorization_mode"),
        ("mlhooks-tests/WalkNextStep-v0", {}, "it has no single ones"),
    ],
)
def test_vector_environments_of_their_own_refuse_wrappers(name, arguments, said):
    message = rf"wrappers of env_settings are put around single copies.*{said}"
    with pytest.raises(UsageError, match=message):
        make(name, arguments, wrappers=["RecordEpisodeStatistics"])
    with pytest.raises(UsageError, match=message):
        gymnasium_env.check(name, options_of(arguments, wrappers=["RecordEpisodeStatistics"]))


def test_many_copies_are_single_ones_where_there_are_wrappers():
    env = make("CartPole-v1", num_areas=16, wrappers=[{"FrameStackObservation": {"stack_size": 2}}])
    assert (type(env).__name__, env.num_agents) == ("GymnasiumCopies", 16)


def test_atari_is_refused_for_what_is_none():
    pytest.importorskip("cv2")
    with pytest.raises(UsageError, match=r"env_settings\.atari is for Atari games, and gymnasium:CartPole-v1 is none"):
        gymnasium_env.check("CartPole-v1", options_of(atari=True))
    with pytest.raises(UsageError, match=r"env_settings\.atari is for Atari games.*CartPole-v1 is none"):
        make("CartPole-v1", atari=True)


def test_episodes_are_told_in_the_environments_own_terms():
    """A game is 9 steps that pay 5 each; lives end after 3, 6 and 9, and go on with a step that nobody decides."""
    wrappers = [{"EpisodicLife": {}}, {"ClipReward": {"max_reward": 1}}]
    env = make(GAME, num_areas=2, wrappers=wrappers)
    ends = [terminals for _, terminals in played(env, 14) if len(terminals)]
    assert [terminals.agent_id.tolist() for terminals in ends] == [[0, 1]] * 6
    assert [terminals.reward.tolist() for terminals in ends] == [[1.0, 1.0]] * 6
    assert [bool(np.isnan(terminals.own_returns).all()) for terminals in ends] == [True, True, False] * 2
    assert [ends[2].own_returns.tolist(), ends[5].own_returns.tolist()] == [[45.0, 45.0]] * 2
    assert [ends[2].own_lengths.tolist(), ends[5].own_lengths.tolist()] == [[7, 7]] * 2  # 2 of 9 are none.


def test_episode_that_a_wrapper_cuts_counts_with_what_it_had():
    env = make(GAME, wrappers=[{"TimeLimit": {"max_episode_steps": 4}}, {"ClipReward": {"max_reward": 1}}])
    ends = [terminals for _, terminals in played(env, 8) if len(terminals)]
    assert [(end.own_returns.tolist(), end.own_lengths.tolist()) for end in ends] == [([20.0], [4])] * 2
    assert all(end.interrupted.all() for end in ends)


def test_own_terms_reach_another_process():
    env = make(GAME, num_areas=2, wrappers=["EpisodicLife"])
    steps = [(decisions, terminals) for decisions, terminals in played(env, 14) if len(terminals)]
    writer, reader = ArrayWriter(), ArrayReader()
    for decisions, terminals in steps:
        message = write_steps(writer, env.behavior_specs, {"Game": (decisions, terminals)})
        _, read = read_steps(reader, env.behavior_specs, message)["Game"]
        np.testing.assert_array_equal(read.own_returns, terminals.own_returns)
        np.testing.assert_array_equal(read.own_lengths, terminals.own_lengths)
    reader.close()
    writer.close()


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_training_evaluation_and_inference_tell_whole_games_in_their_own_points(tmp_path, workers, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))
    settings = config("Game", f"gymnasium:{HERE}:{GAME}", max_steps=400, evaluation={"interval": 400, "episodes": 3})
    settings["env_settings"] |= {
        "num_envs": workers,
        "num_areas": 2,
        "wrappers": ["EpisodicLife", {"ClipReward": {"max_reward": 1}}],
    }
    settings["behaviors"]["Game"]["network_settings"]["normalize"] = False
    run = train(settings, tmp_path)
    assert run.trainers["Game"].mean_reward == 45.0
    lines = [json.loads(line) for line in (tmp_path / "run" / "stats.jsonl").read_text().splitlines()]
    values = {key: value["mean"] for line in lines for key, value in line["values"].items()}
    assert values["Environment/Cumulative Reward"] == 45.0
    assert values["Environment/Episode Length"] == 7.0
    assert values["Evaluation/Cumulative Reward"] == 45.0
    assert values["Evaluation/Episode Length"] == 7.0
    assert 2.0 <= values["Policy/Extrinsic Reward"] <= 3.0  # A life pays one point for each of its 2 or 3 decisions.
    if workers == 2:
        return
    watched = train(settings, tmp_path, flags={"checkpoint_settings.inference": True}, episodes=3)
    assert watched.evaluation.returns["Game"] == [45.0] * 3


def test_inference_plays_whole_games_with_gymnasiums_preprocessing_too():
    pytest.importorskip("cv2")

    def arguments(**settings):
        made = gymnasium_env.wrappers_of(gymnasium, options_of(wrappers=wrappers).env_settings, **settings)
        return [dict(wrapper.arguments) for wrapper in made]

    wrappers = [{"AtariPreprocessing": {"terminal_on_life_loss": True, "noop_max": 3}}]
    assert arguments(whole_episodes=False) == [{"terminal_on_life_loss": True, "noop_max": 3}]
    assert arguments(whole_episodes=True) == [{"terminal_on_life_loss": False, "noop_max": 3}]


def test_episodic_life_goes_on_with_the_game_and_begins_another_when_that_is_over():
    env = EpisodicLife(own.Game())
    env.reset(seed=1)
    ends = []
    for _ in range(20):
        *_, terminated, _, _ = env.step(1)
        ends.append(terminated)
        if terminated:
            env.reset()
    noop, play = [0], [1, 1, 1]
    assert env.unwrapped.taken[:14] == ["reset", *play, *noop, *play[:2], *noop, *play[:2], "reset", *play]
    assert ends[:7] == [False, False, True, False, True, False, True]


def test_reset_in_the_middle_of_a_life_begins_another_game():
    env = EpisodicLife(own.Game())
    env.reset()
    env.step(1)
    env.reset()
    assert env.unwrapped.taken == ["reset", 1, "reset"]


@pytest.mark.parametrize(("button", "pressed"), [(True, [1, 2]), (False, [])])
def test_fire_reset_presses_the_button_of_games_that_have_one(button, pressed):
    env = FireReset(own.Game(button))
    assert env.reset()[0] == len(pressed)
    assert env.unwrapped.taken == ["reset", *pressed]
    with pytest.raises(TypeError, match="it is for Atari games, and CartPoleEnv is none"):
        FireReset(gymnasium.make("CartPole-v1"))


@pytest.mark.parametrize(
    ("env_id", "wrapper", "hidden"),
    [
        ("CartPole-v1", "MaskVelocity", [1, 3]),
        ("Pendulum-v1", {"MaskVelocity": {}}, [2]),
        ("Acrobot-v1", "MaskVelocity", [4, 5]),
        ("CartPole-v1", {"MaskVelocity": {"indices": [2]}}, [2]),
    ],
)
def test_velocities_are_masked_and_the_rest_is_shown(env_id, wrapper, hidden):
    masked, plain = (
        make(env_id, {"vectorization_mode": "sync"}, num_areas=2, seed=3, wrappers=w) for w in ([wrapper], None)
    )
    (name,) = masked.behavior_specs
    shows = []
    for env in (masked, plain):
        env.reset()
        for _ in range(4):
            decisions, _ = env.get_steps(name)
            env.set_actions(name, env.behavior_specs[name].action_spec.empty_action(len(decisions)))
            env.step()
        shows.append(env.get_steps(name)[0].obs[0])
    seen, whole = shows
    assert np.all(seen[:, hidden] == 0)
    assert np.all(whole[:, hidden] != 0)
    others = np.setdiff1d(np.arange(whole.shape[1]), hidden)
    np.testing.assert_array_equal(seen[:, others], whole[:, others])


@pytest.mark.parametrize(
    ("env_id", "wrapper", "message"),
    [
        ("FrozenLake-v1", "MaskVelocity", "it hides parts of a vector, and observations are Discrete"),
        ("CartPole-v1", {"MaskVelocity": {"indices": [4]}}, r"list of whole numbers from 0 to 3, and are \[4\]"),
        ("CartPole-v1", {"MaskVelocity": {"indices": 3}}, r"list of whole numbers from 0 to 3, and are 3"),
        ("CartPole-v1", {"MaskVelocity": {"indices": [1.0]}}, r"list of whole numbers from 0 to 3, and are \[1.0\]"),
        (GAME, {"MaskVelocity": {}}, "it is not known where Game shows velocities: give indices"),
    ],
)
def test_velocities_that_are_not_there_are_refused(env_id, wrapper, message):
    with pytest.raises(UsageError, match=rf"MaskVelocity \(env_settings\.wrappers\[0\]\) cannot .*{message}"):
        make(env_id, wrappers=[wrapper])


def test_the_page_has_the_wrappers_that_atari_stands_for():
    text = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text(encoding="utf-8")
    for entry in ATARI_WRAPPERS:
        for name, arguments in entry.items():
            said = ", ".join(
                f"{key}: {str(value).lower() if isinstance(value, bool) else f'{value:g}'}"
                for key, value in arguments.items()
            )
            assert f"    - {name}: {{{said}}}\n" in text or (not said and f"    - {name}\n" in text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[{FrameStackObservation: , stack_size: 4}]", "indent the arguments of FrameStackObservation deeper"),
        ("[{FrameStackObservation: 4}]", "has no names: write FrameStackObservation: {argument: value}"),
        ("[{A: {}, B: {}}]", "names A, B at once"),
        ("[3]", "names no wrapper"),
        ("ClipReward", "not a valid value"),
    ],
)
def test_entries_that_are_none_are_told_with_their_place(tmp_path, capsys, text, message):
    file = tmp_path / "a.yaml"
    file.write_text(f"env_settings:\n  env_path: gymnasium:CartPole-v1\n  wrappers: {text}\n", encoding="utf-8")
    assert main(["config", "check", str(file)]) == 2
    said = capsys.readouterr()
    assert message in said.out + said.err
    assert "a.yaml:3:" in said.out + said.err


def test_wrapper_in_the_folder_of_a_run_is_not_imported(tmp_path):
    folder = tmp_path / "results" / "old"
    (folder / "run_logs").mkdir(parents=True)
    (folder / "run_logs" / "training_status.json").write_text("{}", encoding="utf-8")
    (folder / "configuration.yaml").touch()
    (folder / "mine.py").write_text("raise SystemExit('imported')", encoding="utf-8")
    settings = config("CartPole", "gymnasium:CartPole-v1")
    settings["env_settings"]["wrappers"] = [f"{folder / 'mine.py'}:X"]
    with pytest.raises(UsageError, match=r"The wrapper .*mine\.py:X lies in .*the folder of a run"):
        train(settings, tmp_path)


def test_time_limit_of_wrappers_counts_decisions_and_that_of_arguments_steps():
    for wrappers, arguments, decisions in (
        ([{"RepeatAction": {"num_repeats": 2}}], {"max_episode_steps": 8}, 4),
        ([{"RepeatAction": {"num_repeats": 2}}, {"TimeLimit": {"max_episode_steps": 3}}], {"max_episode_steps": 8}, 3),
    ):
        env = make("CartPole-v1", arguments, seed=1, wrappers=wrappers)
        ends = [tick for tick, (_, terminals) in enumerate(played(env, 12), 1) if len(terminals)]
        assert ends[0] == decisions
