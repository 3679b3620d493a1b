"""What every simulation promises, whatever it simulates, and the factory of the environment kind `sim`."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from mlagents_envs.base_env import ActionTuple
from mlagents_envs.exception import UnityActionException, UnityEnvironmentException

from builtin_plugins import sim_env
from mlhooks.envs.parameters import Sampler
from mlhooks.errors import UsageError
from mlhooks.settings.environment_parameters import GaussianSettings, UniformSettings
from mlhooks.sims import SIMULATIONS, Ball3D, Basic, Simulation
from mlhooks.sims.groups import GroupSimulation
from tests.sims.sim_play import act, random_actions


def make(name, env_kwargs=None, num_areas=1, parameters=None):
    settings = SimpleNamespace(env_kwargs=env_kwargs or {})
    options = SimpleNamespace(env_settings=settings, environment_parameters=parameters)
    (factory,) = sim_env.get_env_types().values()
    return factory(name, worker_id=0, seed=0, num_areas=num_areas, options=options, side_channels=())


KINDS = {
    name: kind
    for name, kind in SIMULATIONS.items()
    if issubclass(kind, Simulation) and not issubclass(kind, GroupSimulation)
}


@pytest.fixture(params=sorted(KINDS))
def sim(request):
    return SIMULATIONS[request.param]


def same_steps(left, right):
    for mine, yours in zip(left, right, strict=True):
        for field in ("reward", "agent_id", "group_id", "group_reward", "interrupted"):
            if hasattr(mine, field):
                np.testing.assert_array_equal(getattr(mine, field), getattr(yours, field))
        for a, b in zip(mine.obs, yours.obs, strict=True):
            np.testing.assert_array_equal(a, b)
        if getattr(mine, "action_mask", None) is not None:
            np.testing.assert_array_equal(mine.action_mask[0], yours.action_mask[0])
    return True


def play(env, decisions, rng):
    return [act(env, random_actions(env, rng)) for _ in range(decisions)]


def test_default_agents_and_areas_multiply(sim):
    agents = {"3DBall": 12, "Basic": 1, "GridWorld": 9, "Recall": 1, "Sorter": 16}
    assert agents[sim.NAME] == make(sim.NAME).num_agents
    env = make(sim.NAME, {"num_agents": 4}, num_areas=3)
    env.reset()
    steps, _ = env.get_steps(sim.NAME)
    assert sorted(steps.agent_id) == list(range(12))
    assert list(env.behavior_specs) == [sim.NAME]


def test_observations_match_their_specs(sim):
    env = sim(num_agents=5)
    env.reset()
    for steps, _ in play(env, 3, np.random.default_rng(0)):
        for array, spec in zip(steps.obs, sim.SPEC.observation_specs, strict=True):
            assert array.shape == (5, *spec.shape)
            assert array.dtype == np.float32
        assert steps.reward.dtype == np.float32


def test_terminal_step_and_next_episode_arrive_together_under_the_same_id(sim):
    env = sim(num_agents=6, seed=1)
    env.reset()
    ends = 0
    for steps, ended in play(env, 150, np.random.default_rng(5)):
        assert steps.agent_id.tolist() == list(range(6))
        assert set(ended.agent_id.tolist()) <= set(range(6))
        assert (steps.reward[ended.agent_id] == 0).all()
        ends += len(ended)
    assert ends > 0


def test_returned_arrays_never_change_afterwards(sim):
    env = sim(num_agents=6, seed=1)
    env.reset()
    kept = []
    rng = np.random.default_rng(5)
    for _ in range(60):
        steps, ended = env.get_steps(sim.NAME)
        arrays = [*steps.obs, steps.reward, steps.agent_id, *(steps.action_mask or []), *ended.obs, ended.reward]
        kept.append((arrays, [array.copy() for array in arrays]))
        play(env, 1, rng)
    for arrays, copies in kept:
        for array, copy in zip(arrays, copies, strict=True):
            np.testing.assert_array_equal(array, copy)


def test_same_seed_repeats_and_another_worker_differs():
    def course(**seeds):
        env = Ball3D(**seeds)
        env.reset()
        return play(env, 40, np.random.default_rng(0))

    assert all(map(same_steps, course(seed=4), course(seed=4)))
    first = {
        name: course(**seeds)[0][0].obs[0]
        for name, seeds in {"base": {"seed": 4}, "worker": {"seed": 4, "worker_id": 1}, "seed": {"seed": 5}}.items()
    }
    assert not np.array_equal(first["base"], first["worker"])
    # A worker's stream is not that of the next seed.
    assert not np.array_equal(first["worker"], first["seed"])


def test_reset_starts_new_episodes(sim):
    env = sim(num_agents=50, seed=0)
    env.reset()
    play(env, 5, np.random.default_rng(0))
    env.reset()
    steps, ended = env.get_steps(sim.NAME)
    assert len(ended) == 0
    assert (steps.reward == 0).all()
    lengths = [len(e) for _, e in (act(env, np.zeros((50, 1 + (sim is Ball3D)))) for _ in range(sim.MAX_STEPS))]
    assert sum(lengths) >= 50


def plain(value):
    if isinstance(value, dict):
        return all(isinstance(key, str) and plain(part) for key, part in value.items())
    if isinstance(value, list):
        return all(map(plain, value))
    return value is None or isinstance(value, (np.ndarray, int, float, str))


@pytest.mark.parametrize("decisions", [0, 1, 37])
def test_restored_state_continues_bit_for_bit(sim, decisions):
    env = sim(num_agents=7, seed=3)
    env.reset()
    play(env, decisions, np.random.default_rng(1))
    state = env.state_dict()
    assert plain(state)
    expected = [env.get_steps(sim.NAME), *play(env, 200, np.random.default_rng(2))]
    other = sim(num_agents=7, seed=99)
    other.load_state_dict(state)
    restored = [other.get_steps(sim.NAME), *play(other, 200, np.random.default_rng(2))]
    assert all(map(same_steps, expected, restored))
    assert any(len(ended) for _, ended in expected)


def test_saved_state_does_not_follow_the_simulation(sim):
    env = sim(num_agents=3, seed=3)
    env.reset()
    state = env.state_dict()
    expected = play(env, 30, np.random.default_rng(2))
    env.load_state_dict(state)
    assert all(map(same_steps, expected, play(env, 30, np.random.default_rng(2))))
    env.load_state_dict(state)
    assert all(map(same_steps, expected, play(env, 30, np.random.default_rng(2))))


def test_state_of_another_fleet_is_refused(sim):
    env = sim(num_agents=3)
    env.reset()
    with pytest.raises(UnityEnvironmentException, match=r"3 agents.*has 4"):
        sim(num_agents=4).load_state_dict(env.state_dict())


def test_state_before_the_first_reset_is_restored_too(sim):
    env, other = sim(seed=1), sim(seed=2)
    other.load_state_dict(env.state_dict())
    env.reset()
    other.reset()
    assert same_steps(env.get_steps(sim.NAME), other.get_steps(sim.NAME))


def test_first_step_resets_and_unset_actions_are_zero():
    env = Basic()
    with pytest.raises(UnityEnvironmentException, match="before its first reset"):
        env.get_steps("Basic")
    env.step()
    assert np.argmax(env.get_steps("Basic")[0].obs[0]) == 10
    env.step()
    assert np.argmax(env.get_steps("Basic")[0].obs[0]) == 10
    act(env, [2])
    env.step()
    assert np.argmax(env.get_steps("Basic")[0].obs[0]) == 11


def test_close_may_be_repeated_and_ends_use(sim):
    env = sim()
    env.reset()
    env.close()
    env.close()
    for use in (env.reset, env.step):
        with pytest.raises(UnityEnvironmentException, match="closed"):
            use()


def test_actions_can_be_set_agent_by_agent():
    env = Basic(num_agents=3)
    env.reset()
    all_stay = np.zeros((3, 1), dtype=np.int32)
    env.set_actions("Basic", ActionTuple(discrete=all_stay))
    env.set_action_for_agent("Basic", 2, ActionTuple(discrete=np.array([[2]], dtype=np.int32)))
    env.set_action_for_agent("Basic", 1, ActionTuple(discrete=np.array([[1]], dtype=np.int32)))
    assert (all_stay == 0).all()
    env.step()
    assert env.get_steps("Basic")[0].obs[0].argmax(axis=1).tolist() == [10, 9, 11]
    with pytest.raises(UnityActionException, match="Agent 3"):
        env.set_action_for_agent("Basic", 3, ActionTuple(discrete=np.zeros((1, 1), dtype=np.int32)))


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (ActionTuple(continuous=np.zeros((11, 2))), r"shape \(12, 2\).*\(11, 2\)"),
        (ActionTuple(continuous=np.zeros((12, 3))), r"shape \(12, 2\).*\(12, 3\)"),
        (ActionTuple(discrete=np.zeros((12, 1))), "continuous actions"),
        (ActionTuple(continuous=np.zeros((12, 2)), discrete=np.zeros((12, 1))), "discrete actions"),
        (ActionTuple(), "there are none"),
        (ActionTuple(continuous=np.array([[0, 0]] * 4 + [[0, np.nan]] + [[0, 0]] * 7)), "agent 4.*not finite"),
        (ActionTuple(continuous=np.full((12, 2), np.inf)), "agent 0.*not finite"),
    ],
)
def test_unfit_continuous_actions_are_refused(action, message):
    env = Ball3D()
    env.reset()
    with pytest.raises(UnityActionException, match=message):
        env.set_actions("3DBall", action)


@pytest.mark.parametrize("index", [-1, 3])
def test_actions_outside_their_branch_are_refused(index):
    env = Basic(num_agents=2)
    env.reset()
    with pytest.raises(UnityActionException, match="agent 1"):
        env.set_actions("Basic", ActionTuple(discrete=np.array([[0], [index]])))


def test_unknown_behavior_is_refused():
    env = Basic()
    env.reset()
    for use in (env.get_steps, lambda name: env.set_actions(name, ActionTuple(discrete=np.zeros((1, 1))))):
        with pytest.raises(UnityActionException, match=r'no behavior "Base".*"Basic"'):
            use("Base")


# The factory


def test_unknown_simulation_names_the_nearest_and_all():
    with pytest.raises(UsageError, match=r'sim:3dbal".*did you mean "3DBall".*3DBall, Basic, GridWorld'):
        make("3dbal")


@pytest.mark.parametrize(
    ("env_kwargs", "message"),
    [
        ({"num_agent": 3}, '"num_agent".*did you mean "num_agents"'),
        ({"seed": 3}, 'does not take the argument "seed"'),
        ({"num_agents": 0}, "above 0, not 0"),
        ({"num_agents": 2.5}, "above 0, not 2.5"),
        ({"num_agents": True}, "above 0, not True"),
    ],
)
def test_unfit_arguments_are_refused_by_name(env_kwargs, message):
    with pytest.raises(UsageError, match=message):
        make("Basic", env_kwargs)


def test_unknown_environment_parameters_are_refused_by_name():
    with pytest.raises(UsageError, match=r'"sim:3DBall" has no environment parameter "mas".*did you mean "mass"'):
        make("3DBall", parameters={"scale": None, "mas": None})
    with pytest.raises(UsageError, match=r'"sim:Basic" has no environment parameter "mass".*There are: none\.'):
        make("Basic", parameters={"mass": None})


def test_restored_simulation_draws_parameters_as_the_saved_one():
    envs = [Ball3D(num_agents=6, seed=seed) for seed in (1, 2)]
    for env in envs:
        env.set_parameters({"mass": Sampler(UniformSettings(seed=4)), "scale": Sampler(GaussianSettings(seed=5))})
        env.reset()
    envs[0].reset()
    act(envs[0], np.ones((6, 2)))
    envs[1].load_state_dict(envs[0].state_dict())
    for _ in range(40):
        for name in ("mass", "scale", "gravity"):
            np.testing.assert_array_equal(*(env.parameters[name] for env in envs))
        for env in envs:
            act(env, np.ones((6, 2)))
    assert len(set(envs[0].parameters["mass"])) == 6


def test_simulations_import_neither_torch_nor_settings():
    code = """if True:
        import sys, mlhooks.sims
        others = {"torch", "pydantic", "click", "gymnasium", "builtin_plugins"}
        print([name for name in sys.modules if name.split(".")[0] in others])
    """
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
