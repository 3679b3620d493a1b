"""Transitions through the adapter against environments stepped by hand, and the factory."""

from __future__ import annotations

import logging
import re
import sys
import tomllib
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode
from mlagents_envs.base_env import ActionTuple
from mlagents_envs.exception import UnityActionException

from builtin_plugins import gymnasium_env
from builtin_plugins.gymnasium_extras import EXTRAS, by_our_extras
from mlhooks.errors import EnvironmentFailure, UsageError
from tests.builtin_plugins.gymnasium_envs import Walk, make, options_of

WALKS = ["mlhooks-tests/Walk-v2", *(f"mlhooks-tests/Walk{mode.value}-v0" for mode in AutoresetMode)]


def action_of(decisions, spec, ticks, agent):
    """Return the action that an agent takes in its n-th decision, the same however agents are batched."""
    rng = np.random.default_rng([agent, ticks[agent]])
    if spec.is_discrete():
        return rng.integers(spec.discrete_branches)
    return rng.uniform(-1, 1, spec.continuous_size)


def transitions(env, steps):
    """Return each agent's transitions (obs, action, reward, next obs, end or None), as a learner notes them."""
    (name,) = env.behavior_specs
    spec = env.behavior_specs[name].action_spec
    noted = [[] for _ in range(env.num_agents)]
    ticks = [0] * env.num_agents
    env.reset()
    decisions, ended = env.get_steps(name)
    open_rows = {}
    for _ in range(steps):
        actions = [action_of(decisions, spec, ticks, agent) for agent in decisions.agent_id]
        for agent, obs, action in zip(decisions.agent_id, decisions.obs[0], actions, strict=True):
            ticks[agent] += 1
            open_rows[agent] = (obs, action)
        kind = "discrete" if spec.is_discrete() else "continuous"
        env.set_actions(name, ActionTuple(**{kind: np.array(actions).reshape(len(actions), -1)}))
        env.step()
        decisions, ended = env.get_steps(name)
        for row, agent in enumerate(ended.agent_id):
            how = "truncated" if ended.interrupted[row] else "terminated"
            noted[agent].append((*open_rows.pop(agent), ended.reward[row], ended.obs[0][row], how))
        for row, agent in enumerate(decisions.agent_id):
            if agent in open_rows:
                noted[agent].append((*open_rows.pop(agent), decisions.reward[row], decisions.obs[0][row], None))
            else:
                assert decisions.reward[row] == 0
    return noted


def by_hand(name, seed, agent, count, decode):
    """Return the same transitions from one environment of `gymnasium.make`."""
    env = gymnasium.make(name, disable_env_checker=True)
    spec = decode.spec
    noted, obs = [], np.array(env.reset(seed=seed)[0])
    for tick in range(count):
        action = action_of(None, spec, {agent: tick}, agent)
        there, reward, terminated, truncated, _ = env.step(decode(action))
        there = np.array(there)
        how = "terminated" if terminated else "truncated" if truncated else None
        noted.append((obs, action, reward, there, how))
        obs = np.array(env.reset()[0]) if how else there
    env.close()
    return noted


def assert_same(left, right):
    for mine, yours in zip(left, right, strict=True):
        assert mine[-1] == yours[-1]
        for a, b in zip(mine[:-1], yours[:-1], strict=True):
            np.testing.assert_allclose(a, np.asarray(b, np.float32), rtol=1e-6, atol=1e-6)


def widen(action):
    """Widen [-1, 1] to Walk's [-1, 3]."""
    return (2 * action + 1).astype(np.float32)


@pytest.mark.parametrize("name", WALKS)
def test_transitions_equal_those_of_single_environments(name):
    Walk.seeds.clear()
    env = make(name, num_areas=4, seed=5)
    noted = transitions(env, 120)
    seeds = [seed for seed in Walk.seeds if seed is not None]
    assert len(set(seeds)) == 4
    widen.spec = env.behavior_specs[env.behavior_name].action_spec
    for agent in range(4):
        assert len(noted[agent]) >= 90
        assert {how for *_, how in noted[agent]} == {None, "terminated", "truncated"}
        hand = by_hand("mlhooks-tests/Walk-v2", seeds[agent], agent, len(noted[agent]), widen)
        assert_same(noted[agent], hand)


def test_all_modes_but_next_step_let_every_agent_decide_at_every_step():
    for name in WALKS:
        env = make(name, num_areas=4, seed=5)
        env.reset()
        counts = set()
        for _ in range(60):
            env.step()
            decisions, ended = env.get_steps(env.behavior_name)
            counts.add(len(decisions))
            if len(decisions) < 4:
                # Who lacks a decision has ended now.
                assert set(range(4)) - set(decisions.agent_id.tolist()) == set(ended.agent_id.tolist())
        assert (counts == {4}) == ("NextStep" not in name)


def test_lone_copy_decides_at_every_step_under_next_step_too():
    env = make("mlhooks-tests/WalkNextStep-v0", seed=5)
    env.reset()
    for _ in range(30):
        env.step()
        assert len(env.get_steps("WalkNextStep")[0]) == 1


def test_native_cartpole_gives_the_transitions_of_its_vector_environment():
    env = make("CartPole-v1", {"vectorization_mode": "vector_entry_point"}, num_areas=4, seed=2)
    noted = transitions(env, 150)
    ends = 0
    single = gymnasium.make("CartPole-v1").unwrapped
    for agent in range(4):
        obs = None
        for before, action, reward, after, how in noted[agent]:
            # The next observation follows from this one by CartPole's own dynamics: no reset in between.
            single.reset()
            single.state = before.astype(float)
            there, _, terminated, _, _ = single.step(int(action[0]))
            np.testing.assert_allclose(after, there, atol=1e-5)
            assert reward == 1
            assert (how == "terminated") == terminated
            if obs is not None:
                np.testing.assert_array_equal(before, obs)
            obs = after if how is None else None
            ends += how is not None
    assert ends > 10


def test_single_and_native_cartpole_episodes_have_their_registered_limit():
    def lean(obs):
        return (obs[:, 2] + 0.3 * obs[:, 3] + 0.02 * obs[:, 0] + 0.05 * obs[:, 1] > 0).astype(np.int32)[:, None]

    for mode in ("vector_entry_point", "sync"):
        for limit, env_kwargs in ((500, {}), (20, {"max_episode_steps": 20})):
            env = make("CartPole-v1", {"vectorization_mode": mode, **env_kwargs}, num_areas=2, seed=1)
            env.reset()
            for step in range(1, limit + 1):
                obs = env.get_steps("CartPole")[0].obs[0]
                env.set_actions("CartPole", ActionTuple(discrete=lean(obs)))
                env.step()
                _, ended = env.get_steps("CartPole")
                assert len(ended) == (2 if step == limit else 0)
            assert ended.interrupted.all()
            assert (ended.reward == 1).all()


def test_episode_that_ends_both_ways_is_terminated():
    # With a limit of one step, each end coincides with it.
    env = make("mlhooks-tests/Walk-v2", {"far": 0.0, "max_episode_steps": 1}, num_areas=2)
    env.reset()
    env.step()
    assert env.get_steps("Walk")[1].interrupted.tolist() == [False, False]


def test_keyword_arguments_reach_the_environment():
    env = make("mlhooks-tests/Walk-v2", {"far": 1e9}, num_areas=2)
    ends = {how for *_, how in transitions(env, 30)[0]}
    assert ends == {None, "truncated"}


def test_seeds_repeat_and_workers_differ():
    def start(**kwargs):
        env = make("Pendulum-v1", num_areas=3, **kwargs)
        env.reset()
        return env.get_steps("Pendulum")[0].obs[0]

    assert np.array_equal(start(seed=1), start(seed=1))
    others = np.concatenate([start(seed=1), start(seed=1, worker_id=1), start(seed=2)])
    assert len(np.unique(others, axis=0)) == 9


@pytest.mark.parametrize("mode", ["vector_entry_point", "sync"])
def test_second_reset_goes_on_with_the_random_stream(mode):
    env = make("CartPole-v1", {"vectorization_mode": mode}, num_areas=2)
    env.reset()
    first = env.get_steps("CartPole")[0].obs[0]
    env.reset()
    assert not np.array_equal(first, env.get_steps("CartPole")[0].obs[0])


def test_returned_arrays_never_change_afterwards():
    for name in WALKS:
        env = make(name, num_areas=3)
        env.reset()
        kept = []
        for _ in range(30):
            steps, ended = env.get_steps(env.behavior_name)
            arrays = [*steps.obs, steps.reward, steps.agent_id, *ended.obs, ended.reward, ended.interrupted]
            kept.append((arrays, [array.copy() for array in arrays]))
            env.step()
        for arrays, copies in kept:
            for array, copy in zip(arrays, copies, strict=True):
                np.testing.assert_array_equal(array, copy)


def test_actions_are_for_the_agents_that_decide():
    env = make("mlhooks-tests/WalkNextStep-v0", num_areas=4, seed=5)
    env.reset()
    while len(env.get_steps("WalkNextStep")[0]) == 4:
        env.step()
    waiting = env.get_steps("WalkNextStep")[0].agent_id
    with pytest.raises(UnityActionException, match="shape"):
        env.set_actions("WalkNextStep", ActionTuple(continuous=np.zeros((4, 1))))
    env.set_action_for_agent("WalkNextStep", waiting[0], ActionTuple(continuous=np.zeros((1, 1))))
    (absent,) = set(range(4)) - set(waiting.tolist())
    with pytest.raises(UnityActionException, match=f"Agent {absent}"):
        env.set_action_for_agent("WalkNextStep", absent, ActionTuple(continuous=np.zeros((1, 1))))


def test_all_copies_are_closed_once(monkeypatch):
    closed = []
    monkeypatch.setattr(Walk, "close", lambda copy: closed.append(copy))
    env = make("mlhooks-tests/Walk-v2", num_areas=2)
    env.close()
    env.close()
    assert closed == [copy.unwrapped for copy in env._opened]


# The factory


@pytest.mark.parametrize(
    ("name", "behavior"),
    [("CartPole-v1", "CartPole"), ("mlhooks-tests/Walk-v2", "Walk"), ("CartPole", "CartPole")],
)
def test_behavior_is_the_id_without_namespace_and_version(name, behavior):
    assert list(make(name).behavior_specs) == [behavior]


def test_id_may_name_the_package_that_registers_it():
    assert list(make("tests.builtin_plugins.gymnasium_envs:mlhooks-tests/Walk-v2").behavior_specs) == ["Walk"]
    with pytest.raises(UsageError, match=r'package "no_such_package"'):
        make("no_such_package:Walk-v0")


def test_name_without_version_is_the_newest_and_an_old_version_is_said(caplog):
    caplog.set_level(logging.WARNING)
    assert make("mlhooks-tests/Walk")._opened[0].spec.id == "mlhooks-tests/Walk-v2"
    assert caplog.messages == []
    assert make("mlhooks-tests/Walk-v1")._opened[0].spec.id == "mlhooks-tests/Walk-v1"
    assert caplog.messages == ["mlhooks-tests/Walk-v1 is out of date: there is mlhooks-tests/Walk-v2."]


@pytest.mark.parametrize(
    ("name", "env_kwargs", "message"),
    [
        ("cartpole-v1", {}, r'no environment "cartpole-v1".*CartPole-v1'),
        ("CartPole-v9", {}, r"CartPole-v1"),
        ("maze/Pong-v5", {}, r'current folder, registers it, name that, too: "gymnasium:MODULE:maze/Pong'),
        ("ALE/Pong-v5", {}, r"package ale_py, which is not installed: pip install 'mlhooks\[atari\]'"),
        ("mlhooks-tests/Broken-v0", {"how": "dependency"}, r"needs a package.*pip install 'mlhooks\[box2d\]'"),
        ("mlhooks-tests/Walk-v2", {"fra": 1}, r"\{'fra': 1\}.*unexpected keyword argument 'fra'"),
        ("mlhooks-tests/Silent-v0", {"gravity": 1}, r"'gravity'.*vectorization_mode: sync"),
        ("CartPole-v1", {"max_episode_steps": 0}, r"above 0, not 0"),
        ("CartPole-v1", {"max_episode_steps": "10"}, r"above 0, not '10'"),
        ("CartPole-v1", {"num_envs": 3}, r"num_areas"),
        ("CartPole-v1", {"vectorization_mode": "async"}, r"env_settings.num_envs"),
    ],
)
def test_unfit_requests_say_what_to_do(name, env_kwargs, message, monkeypatch):
    monkeypatch.setitem(sys.modules, "ale_py", None)
    with pytest.raises(UsageError, match=message):
        make(name, env_kwargs, num_areas=16)


@pytest.mark.parametrize(
    ("env_id", "hint"), [("Therm-v0", " Did you mean gymnasium:json:mine/Therm-v0?"), ("Xyzzyqq", "")]
)
def test_unknown_id_of_a_module_is_answered_by_the_whole_name_or_by_what_the_module_lacks(monkeypatch, env_id, hint):
    monkeypatch.setattr(gymnasium, "registry", {"mine/Therm-v0": EnvSpec("mine/Therm-v0", "json:loads")})
    with pytest.raises(UsageError) as caught:
        make(f"json:{env_id}")
    told = f'Gymnasium knows no environment "{env_id}", and importing "json" did not register it.'
    assert str(caught.value) == told + hint


@pytest.mark.parametrize("place", ["entry_point", "vector_entry_point"])
@pytest.mark.parametrize("module", ["mlhooks_tests_no_such_module", "mlhooks_tests_needs_box2d"])
def test_missing_package_is_told_before_a_run_begins(tmp_path, monkeypatch, place, module):
    needs = "raise __import__('gymnasium').error.DependencyNotInstalled('no Box2D')"
    (tmp_path / "mlhooks_tests_needs_box2d.py").write_text(needs)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(gymnasium.registry, "Needy-v0", EnvSpec("Needy-v0", **{place: f"{module}:Env"}))
    settings = options_of()
    with pytest.raises(UsageError, match=r'"gymnasium:Needy-v0" needs a package that is not installed: [nN]o '):
        gymnasium_env.check("Needy-v0", settings)


@pytest.mark.parametrize(
    ("copies", "kinds"), [(1, ["CartPoleEnv"]), (8, ["CartPoleEnv"] * 8), (16, ["CartPoleVectorEnv"])]
)
def test_few_copies_are_stepped_one_by_one_where_that_is_faster(copies, kinds):
    opened = make("CartPole-v1", num_areas=copies)._opened
    assert [type(env.unwrapped).__name__ for env in opened] == kinds


def test_missing_gymnasium_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(UsageError, match=r'pip install "mlhooks\[gymnasium\]"'):
        make("CartPole-v1")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('Box2D is not installed, run `pip install "gymnasium[box2d]"`', "pip install 'mlhooks[box2d]'"),
        ('pygame is not installed, run `pip install "gymnasium[classic-control]"`', "pip install 'mlhooks[classic]'"),
        ("run `pip install 'gymnasium[toy-text]'`", "pip install 'mlhooks[classic]'"),
        ("MuJoCo is not installed, run `pip install gymnasium[mujoco]`", "pip install 'mlhooks[mujoco]'"),
    ],
)
def test_advice_to_install_names_an_extra_that_mlhooks_has(text, said):
    assert by_our_extras(text).endswith(said)
    extras = tomllib.loads(Path(__file__).parents[2].joinpath("pyproject.toml").read_text(encoding="utf-8"))["project"][
        "optional-dependencies"
    ]
    assert {*EXTRAS.values(), re.search(r"\[(\w+)\]", said)[1]} <= extras.keys()


def test_package_that_is_missing_is_named_with_the_extra_that_doctor_names(monkeypatch):
    monkeypatch.setitem(sys.modules, "Box2D", None)
    for name in [name for name in sys.modules if name.startswith("gymnasium.envs.box2d")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(
        UsageError, match=r"needs the package Box2D, which is not installed: pip install 'mlhooks\[box2d\]'"
    ):
        make("LunarLander-v3")


def test_failures_of_the_environment_name_it():
    with pytest.raises(
        EnvironmentFailure, match=r"Broken-v0.*does not start: RuntimeError: no display \(.*envs\.py:\d+"
    ):
        make("mlhooks-tests/Broken-v0", {"how": "start"})
    env = make("mlhooks-tests/Broken-v0", {"how": "step"})
    env.reset()
    with pytest.raises(EnvironmentFailure, match=r"Broken-v0 failed in step.*the motor is off"):
        env.step()


def test_observations_of_another_shape_are_a_failure_of_the_environment():
    env = make("mlhooks-tests/Spaces-v0", {"observation_space": spaces.Box(0, 1, (4,))}, num_areas=4)
    env.reset()
    for copy in env._opened:
        copy.unwrapped.observation_space = spaces.Box(0, 1, (5,))
    with pytest.raises(EnvironmentFailure, match=r"Spaces-v0 failed in step"):
        env.step()
    with pytest.raises(EnvironmentFailure, match=r"Spaces-v0 failed in reset"):
        env.reset()


def test_copies_that_differ_in_their_spaces_are_refused_and_closed(monkeypatch):
    closed = []
    monkeypatch.setattr(Walk, "close", lambda copy: closed.append(copy))
    with pytest.raises(EnvironmentFailure, match=r"Unlike-v0 differ.*Discrete\(3\).*Discrete\(2\)"):
        make("mlhooks-tests/Unlike-v0", num_areas=2)
    assert len(closed) == 2


def test_vector_environment_that_hides_when_it_resets_is_refused():
    with pytest.raises(EnvironmentFailure, match=r"vectorization_mode: sync"):
        make("mlhooks-tests/Silent-v0", num_areas=16)
    make("mlhooks-tests/Silent-v0", {"vectorization_mode": "sync"})
