"""What environments of PettingZoo answer that cannot be used, and names of environments that are none."""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium import spaces

from builtin_plugins import pettingzoo_env
from builtin_plugins.pettingzoo_finding import find_maker, missing_package, names
from builtin_plugins.pettingzoo_samples import Hunt
from mlhooks.errors import ContractBroken, EnvironmentFailure, UnsupportedError, UsageError
from mlhooks.settings import RunOptions
from tests.builtin_plugins.zoo_envs import NUMBERS, Told, Turns, zoo

ON = ({"a_0": (1, None), "a_1": (1, None)}, ["a_0", "a_1"])
DEAD = ({"a_0": (1, None), "a_1": (1, "terminated")}, ["a_0"])


def said_of(make, steps=3, **settings):
    env = zoo(make, **settings)
    with pytest.raises(EnvironmentFailure) as caught:
        play(env, steps)
    assert ".py:" in str(caught.value)  # It says where.
    return str(caught.value)


def play(env, steps):
    env.reset()
    for _ in range(steps):
        env.step()


def without(agent):
    return lambda part: {key: value for key, value in part.items() if key != agent}


def with_value(agent, value):
    return lambda part: {**part, agent: value}


WRONG = {
    "no pair": ({"reset": {"a_0": 1}}, "reset() must return the pair (observations, infos), two dicts by agent, and"),
    "four dicts": ({"whole": lambda five: tuple(five[:4])}, "and returned 4 values: dict, dict, dict, dict; with four"),
    "nothing": ({"whole": lambda five: None}, "returned None (NoneType)"),
    "no observation": ({"step": {0: without("a_1")}}, "agent 'a_1' is missing from the observations, which have 'a_0'"),
    "no reward": ({"step": {1: without("a_0")}}, "agent 'a_0' is missing from the rewards, which have 'a_1'"),
    "no termination": ({"step": {2: without("a_0")}}, "agent 'a_0' is missing from the terminations"),
    "no truncation": ({"step": {3: without("a_1")}}, "agent 'a_1' is missing from the truncations"),
    "odd reward": ({"step": {1: with_value("a_1", [1, 2])}}, "agent 'a_1' got the reward int64 of shape (2,), [1, 2]"),
    "no number": ({"step": {1: with_value("a_1", None)}}, "agent 'a_1' got the reward None (NoneType); a reward must"),
    "odd flag": ({"step": {2: with_value("a_0", "no")}}, "agent 'a_0' cannot go on: step() returned 'no' (str) as"),
    "odd observation": (
        {"step": {0: with_value("a_1", np.zeros(3))}},
        "agent 'a_1': the observation is not in its space. Found: float64 of shape (3,)",
    ),
    "out of bounds": (
        {"step": {0: with_value("a_1", np.array([0, 500]))}},
        "or turn this check off by --set env_settings.check=never",
    ),
}


@pytest.mark.parametrize(("answers", "message"), WRONG.values(), ids=WRONG)
def test_wrong_answer_names_the_environment_the_copy_and_the_agent(answers, message):
    said = said_of(lambda: Told([ON] * 3, answers=answers), num_areas=2)
    assert said.startswith("pettingzoo:tried failed in ")
    assert ("() of copy 0: ") in said
    assert message in said


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ([({"a_0": (1, None), "a_1": (1, None)}, ["a_0"])], "agent 'a_1' is gone from its list of agents, and was nei"),
        ([(DEAD[0], ["a_0", "a_1"])], "agent 'a_1' was terminated or truncated, and is still in its list of agents"),
        ([(ON[0], ["a_0", "a_1", "a_1"])], "agent 'a_1' is twice in its list of agents"),
    ],
)
def test_list_of_agents_must_fit_the_flags(script, message):
    assert message in said_of(lambda: Told(script * 2))


@pytest.mark.parametrize("agents", [3, "abc", [["a"], ["b"]], len, {"a_0", "a_1"}])
def test_possible_agents_that_are_no_list_of_names_are_refused(agents):
    class Odd(Told):
        possible_agents = agents

    with pytest.raises(ContractBroken, match=r"its possible_agents are .*must be a list of names \(.*zoo_envs.py:\d+"):
        zoo(lambda: Odd([ON], possible=False))


def test_agents_may_be_listed_in_an_array_and_environments_called_anything():
    class Numbered(Told):
        possible_agents = np.arange(2)
        metadata = {"name": "what?_v1"}  # noqa: RUF012

    assert list(zoo(lambda: Numbered([ON], possible=False)).behavior_specs) == ["what_"]
    Numbered.metadata = {"name": "_v1"}
    assert list(zoo(lambda: Numbered([ON], possible=False)).behavior_specs) == ["_"]


@pytest.mark.parametrize(
    ("name", "told", "message"),
    [
        ("agents", None, "it has no agents, which reset() and step() must set (AttributeError: "),
        ("agents", [["p_0"]], "of shape (1, 1), given as a list, which must be a list of names"),
        ("agent_selection", None, "it has no agent_selection, which"),
        ("rewards", None, "it has no rewards, which"),
        ("rewards", [1, 2], "its rewards are int64 of shape (2,), [1, 2], given as a list, which must be a dict by ag"),
        ("terminations", {}, "agent 'p_1' is missing from the terminations"),
        ("truncations", [False], "its truncations are bool of shape (1,), [False], given as a list, which must be a d"),
    ],
)
def test_wrong_attributes_of_those_that_take_turns_are_named(name, told, message):
    class Odd(Turns):
        def step(self, action):
            super().step(action)
            if told is None:
                delattr(self, name)
            else:
                setattr(self, name, told)

    assert message in said_of(lambda: Odd([({}, {})] * 3))


def test_nobody_after_a_reset_is_refused():
    assert "its list of agents is empty after reset()" in said_of(lambda: Told([ON], first=[], possible=["a_0"]))


def test_reset_without_a_seed_is_told_what_it_must_take():
    class Seedless(Told):
        def reset(self):
            return super().reset()

    with pytest.raises(EnvironmentFailure, match="must take the keyword arguments seed and options"):
        zoo(lambda: Seedless([ON])).reset()


def test_error_of_the_environment_is_told_with_its_line():
    said = said_of(lambda: Told([]))  # The script has no step.
    assert "failed in step(): IndexError: list index out of range (" in said


MASKED = spaces.Dict(observation=NUMBERS, action_mask=spaces.Box(0, 1, (3,), np.int8))


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.zeros(3, np.int8), "allows no action where it has to act"),
        (np.ones(4, np.int8), "must be 3 zeros and ones"),
        (np.array([0, 2, 1]), "its action mask is int64 of shape (3,), [0, 2, 1], and"),
        ("all", "its action mask is 'all' (str), and"),
    ],
)
def test_wrong_masks_name_the_agent(mask, message):
    said = said_of(lambda: Turns([({}, {})] * 3, observed=MASKED, mask=mask), check="never")
    assert "agent 'p_0' cannot act: " in said
    assert message in said


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"selection": "p_9"}, "its agent_selection is 'p_9', which is not in its list of agents ['p_0', 'p_1']"),
        ({"forgetful": True}, "agent 'p_0' got 3 by last(), and its rewards since it last acted add up to 1"),
    ],
)
def test_wrong_turns_are_refused(wrong, message):
    script = [({"p_0": 1}, {}), ({"p_0": 1}, {}), ({"p_0": 1}, {}), ({}, {})]
    said = said_of(lambda: Turns(script, **wrong), steps=4)
    assert message in said


def test_mask_that_the_space_has_and_an_observation_lacks_is_named():
    class Unmasked(Turns):
        def observe(self, agent):
            return {"observation": super().observe(agent)["observation"]}

    said = said_of(lambda: Unmasked([({}, {})] * 3, observed=MASKED, mask=np.ones(3, np.int8)))
    assert "an observation lacks 'action_mask', which its observation_space has: a dict with the keys 'obs" in said


def test_reward_that_is_nan_where_agents_take_turns_is_no_fault_of_the_sums():
    env = zoo(lambda: Turns([({"p_0": float("nan")}, {}), ({}, {}), ({}, {})]))
    env.reset()
    (name,) = env.behavior_specs
    for _ in range(2):
        decisions, _ = env.get_steps(name)
        env.set_actions(name, env.behavior_specs[name].action_spec.empty_action(len(decisions)))
        env.step()
    assert np.isnan(env.get_steps(name)[0].reward).all()


def test_observations_beyond_bounds_at_the_ends_of_episodes_are_warned_of_once(caplog):
    beyond = np.array([0, 500])
    for check, warnings in (("never", 0), ("first", 1)):
        env = zoo(lambda: Told([ON] * 3), check=check)
        env.reset()
        for agent in ("a_0", "a_1"):
            env._look_at("end", 0, agent, beyond)
        assert len(caplog.messages) == warnings
    assert "at the end of an episode of agent 'a_0' the observation is not in its space" in caplog.text
    always = zoo(lambda: Told([ON] * 3), check="always")
    always.reset()
    with pytest.raises(EnvironmentFailure, match="agent 'a_0': the observation is not in its space"):
        always._look_at("end", 0, "a_0", beyond)


def test_turns_that_never_begin_are_refused():
    class Over(Turns):
        def reset(self, seed=None, options=None):
            super().reset(seed)
            self.agents = []

    assert "100 episodes in a row ended before any agent could act" in said_of(lambda: Over([]))


@pytest.mark.parametrize(
    ("kind", "space", "message"),
    [
        ("action", spaces.Tuple([spaces.Discrete(2), spaces.Discrete(2)]), "The action space of agent 'a_0' of"),
        ("action", spaces.Dict(move=spaces.Discrete(2)), "The action space of agent 'a_0' of pettingzoo:tried is Dict"),
        ("observation", spaces.Text(5), "of agent 'a_0' of pettingzoo:tried has the space Text"),
    ],
)
def test_spaces_that_cannot_be_used_name_the_agent(kind, space, message):
    class Odd(Told):
        pass

    setattr(Odd, f"{kind}_space", lambda self, agent: space)
    with pytest.raises(UnsupportedError, match=message):
        zoo(lambda: Odd([ON]))


def test_tuples_are_observed_part_by_part():
    class Parts(Told):
        def observation_space(self, agent):
            return spaces.Tuple([spaces.Discrete(5), spaces.Dict(near=NUMBERS)])

        def see(self, agent):
            return self.time, {"near": super().see(agent)}

    env = zoo(lambda: Parts([ON]))
    env.reset()
    assert [spec.name for spec in env.behavior_specs["told"].observation_specs] == ["0", "1/near"]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda self, agent: {}[agent], r"has no observation_space for agent 'a_0' \(KeyError: 'a_0'\)"),
        (lambda self, agent: (2,), r"observation_space\('a_0'\) is int64 of shape \(1,\).* must be a space of Gymnas"),
    ],
)
def test_missing_spaces_name_the_agent(answer, message):
    class Spaceless(Told):
        observation_space = answer

    with pytest.raises(ContractBroken, match=message):
        zoo(lambda: Spaceless([ON]))


def test_environment_of_another_kind_is_refused():
    with pytest.raises(ContractBroken, match="makes a dict, which is neither a pettingzoo"):
        zoo(dict)
    with pytest.raises(EnvironmentFailure, match=r"does not start: ValueError: no map \(.*test_pettingzoo_answers.py"):
        zoo(lambda: int("no map") if False else (_ for _ in ()).throw(ValueError("no map")))


@pytest.mark.parametrize(
    "name",
    [
        "builtin_plugins.pettingzoo_samples:Hunt",
        "tests.builtin_plugins.zoo_module",
        "tests/builtin_plugins/zoo_module.py:Own",
    ],
)
def test_environments_are_found_by_module_class_and_file(name):
    assert callable(find_maker(name))


def test_registered_ids_are_found_with_and_without_version_and_namespace():
    import pettingzoo

    pettingzoo.register("parallel", "tried/hunt_v3", entry_point="builtin_plugins.pettingzoo_samples:Hunt")
    try:
        for name in ("tried/hunt-v3", "tried/hunt_v3", "hunt_v3", "tried/hunt", "hunt"):
            env = find_maker(name)(hounds=3)
            assert (type(env), len(env.possible_agents)) == (Hunt, 4)
    finally:
        del pettingzoo.parallel_registry["tried/hunt-v3"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("conect_four", r'knows no environment "conect_four".*Did you mean classic/connect_four_v3\?'),
        (
            "tests.builtin_plugins.zoo_envs",
            r"has no parallel_env or env.* Name one of: pettingzoo:tests.*:Told, .*:Turns",
        ),
        ("builtin_plugins.pettingzoo_samples:Hund", 'has no class or function "Hund".*It has: Hunt, Nim'),
        ("nosuch.py:Hunt", "There is no file nosuch.py"),
    ],
)
def test_names_of_nothing_are_refused_with_what_is_near(name, message):
    with pytest.raises(UsageError, match=message):
        pettingzoo_env.check(name, RunOptions())


def test_names_are_those_of_the_newest_versions():
    assert "classic/connect_four_v3" in names()
    assert len({name.rpartition("_v")[0] for name in names()}) == len(names())


def test_missing_package_is_named_with_what_brings_it():
    error = ImportError("no")
    error.__cause__ = ModuleNotFoundError("No module named 'pygame'", name="pygame.gfxdraw")
    assert 'needs pygame, which is not installed: pip install "mlhooks[pettingzoo]"' in str(missing_package("x", error))
    other = ModuleNotFoundError("No module named 'chess'", name="chess")
    assert "needs the package chess, which is not installed: pip install chess" in str(missing_package("x", other))


def test_environment_parameters_are_refused():
    options = RunOptions.model_validate({"environment_parameters": {}})
    options.environment_parameters = {"mass": None}
    with pytest.raises(UsageError, match="takes no environment parameters"):
        pettingzoo_env.check("builtin_plugins.pettingzoo_samples:Hunt", options)
