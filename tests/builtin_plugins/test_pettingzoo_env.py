"""Environments of PettingZoo as behaviors: who waits, who ended, with which rewards, observations and masks."""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium import spaces
from mlagents_envs.base_env import ActionTuple
from pettingzoo import ParallelEnv
from pettingzoo.utils import aec_to_parallel, parallel_to_aec

from builtin_plugins.pettingzoo_samples import Hunt, Nim
from mlhooks.errors import UsageError
from tests.builtin_plugins.zoo_envs import Told, Turns, shown, zoo

ON = (1.0, None)


def act(env, behavior_id, *indices):
    env.set_actions(behavior_id, ActionTuple(discrete=np.array(indices, np.int32)[:, None]))


def test_agents_that_die_come_and_end_are_told_in_steps():
    script = [
        ({"a_0": (1, None), "a_1": (2.5, "terminated")}, ["a_2", "a_0"]),  # One dies, and one comes late.
        ({"a_0": (np.float32(3), None), "a_2": (np.int64(4), None)}, ["a_0", "a_2"]),
        ({"a_0": (5, "truncated"), "a_2": (6, "terminated")}, []),
    ]
    env = zoo(lambda: Told(script, possible=["a_0", "a_1", "a_2"]))
    env.reset()
    assert list(env.behavior_specs) == ["told"]
    assert shown(env, "told") == ([(0, [0, 0], 0), (1, [1, 0], 0)], [])
    env.step()
    assert shown(env, "told") == ([(0, [0, 1], 1), (2, [2, 1], 0)], [(1, [1, 1], 2.5, False)])
    env.step()
    assert shown(env, "told") == ([(0, [0, 2], 3), (2, [2, 2], 4)], [])
    env.step()
    assert shown(env, "told") == (
        [(0, [0, 0], 0), (1, [1, 0], 0)],
        [(0, [0, 3], 5, True), (2, [2, 3], 6, False)],
    )


def test_final_observation_is_not_overwritten_by_the_next_episode():
    env = zoo(lambda: Told([({"a_0": (0, "terminated")}, [])], first=["a_0"], view=True))
    env.reset()
    env.step()
    assert shown(env, "told") == ([(0, [0, 0], 0)], [(0, [0, 1], 0, False)])


def test_agents_that_stay_listed_when_all_are_done_begin_again():
    done = {"a_0": (1, "terminated"), "a_1": (1, "terminated")}
    env = zoo(lambda: Told([(done, ["a_0", "a_1"])]))
    env.reset()
    env.step()
    waits, ends = shown(env, "told")
    assert (len(waits), len(ends)) == (2, 2)


def test_action_of_each_agent_is_its_own_in_whatever_order_agents_are_listed():
    env = zoo(lambda: Told([({"a_1": ON, "a_0": ON}, ["a_1", "a_0"])] * 3))
    env.reset()
    env.step()
    assert env.get_steps("told")[0].agent_id.tolist() == [0, 1]
    act(env, "told", 1, 2)
    env.step()
    assert env._copies[0].env.given[-1] == {"a_0": 6, "a_1": 7}  # Its actions begin at 5.


def test_agents_nobody_knew_of_before_get_a_behavior_by_their_spaces():
    class Late(Told):
        def observation_space(self, agent):
            return spaces.Discrete(9) if agent == "b_0" else super().observation_space(agent)

        def see(self, agent):
            return self.time if agent == "b_0" else super().see(agent)

    script = [({"a_0": ON}, ["a_0", "b_0"]), ({"a_0": ON, "b_0": ON}, ["a_0", "b_0"])]
    env = zoo(lambda: Late(script, first=["a_0"], possible=False))
    assert not env.behavior_specs
    env.reset()
    assert list(env.behavior_specs) == ["told"]
    env.step()
    assert list(env.behavior_specs) == ["told", "b"]
    assert env.get_steps("b")[0].obs[0].tolist() == [[0, 1, *[0] * 7]]
    env.step()
    assert env.get_steps("b")[0].agent_id.tolist() == [1]


def test_agents_whose_names_never_return_share_what_their_behavior_sees():
    class Traffic(Told):
        """Cars drive for a step each, under ever new names."""

        def see(self, agent):
            return np.zeros(2, np.float32)

    script = [({f"car_{n}": (n, "terminated")}, [f"car_{n + 1}"]) for n in range(50)]
    env = zoo(lambda: Traffic(script, first=["car_0"], possible=False))
    env.reset()
    for number in range(49):
        env.step()
        assert env.get_steps("told")[1].reward.tolist() == [number]
    agents = {id(env._roles[f"car_{number}"].agent) for number in range(50)}
    assert agents == {id(env._behaviors["told"].agent)}  # Each is compared with one, not with all before it.


@pytest.mark.parametrize("kind", ["dicts", "mappings"])
def test_spaces_may_be_dicts_of_the_older_interface(kind):
    class Old(Told):
        observation_space = action_space = None

        def __init__(self):
            super().__init__([({"a_0": ON, "a_1": ON}, ["a_0", "a_1"])] * 2)
            numbers, choices = spaces.Box(-100, 100, (2,), np.float32), spaces.Discrete(3)
            seen, taken = dict.fromkeys(self.possible_agents, numbers), dict.fromkeys(self.possible_agents, choices)
            if kind == "dicts":
                self.observation_spaces, self.action_spaces = seen, taken
            else:
                self.observation_space, self.action_space = seen, taken

    env = zoo(Old)
    env.reset()
    assert env.behavior_specs["told"].action_spec.discrete_branches == (3,)


def test_spaces_by_the_base_class_s_own_method_warn_nobody():
    class Base(Told):
        observation_space, action_space = ParallelEnv.observation_space, ParallelEnv.action_space

        def __init__(self):
            super().__init__([])
            self.observation_spaces = {agent: spaces.Discrete(2) for agent in self.possible_agents}
            self.action_spaces = {agent: spaces.Discrete(2) for agent in self.possible_agents}

    assert list(zoo(Base).behavior_specs) == ["told"]


def test_hybrid_sets_of_agents_have_behaviors_named_after_them():
    env = zoo(Hunt)
    env.reset()
    assert list(env.behavior_specs) == ["hound", "hare"]
    assert env.behavior_specs["hare"].action_spec.continuous_size == 1
    assert [len(env.get_steps(name)[0]) for name in ("hound", "hare")] == [2, 1]
    assert env.behavior_spaces["hound"].action.start == -1


def test_copies_go_on_by_themselves_with_seeds_and_ids_of_their_own():
    done = [({"a_0": ON, "a_1": ON}, ["a_0", "a_1"]), ({"a_0": (1, "terminated"), "a_1": (1, "terminated")}, [])]
    env = zoo(lambda: Told(done), num_areas=3)
    env.reset()
    assert env.get_steps("told")[0].agent_id.tolist() == [0, 1, 2, 3, 4, 5]
    assert len(set(env.get_steps("told")[0].agent_id.tolist())) == 6
    env.step()
    env.step()
    env.reset()
    seeds = [copy.env.seeds for copy in env._copies]
    assert all(len(each) == 3 and each[1:] == [None, None] for each in seeds)
    assert len({each[0] for each in seeds}) == 3
    assert zoo(lambda: Told(done), worker_id=1)._seeds != zoo(lambda: Told(done))._seeds


def test_reward_of_a_turn_is_what_came_since_the_agent_s_last_turn():
    script = [
        ({"p_0": 1, "p_1": 10}, {}),
        ({"p_0": 2, "p_1": 20}, {}),
        ({"p_0": 3, "p_1": 30}, {}),
        ({"p_0": 4, "p_1": 40}, {"p_0": "terminated", "p_1": "truncated"}),
    ]
    env = zoo(lambda: Turns(script))
    env.reset()
    assert shown(env, "turns") == ([(0, [0, 0], 0)], [])
    env.step()
    assert shown(env, "turns") == ([(1, [1, 1], 0)], [])  # The 10 are for nothing that it did.
    env.step()
    assert shown(env, "turns") == ([(0, [0, 2], 1 + 2)], [])
    env.step()
    assert shown(env, "turns") == ([(1, [1, 3], 20 + 30)], [])
    env.step()
    assert shown(env, "turns") == ([(0, [0, 0], 0)], [(0, [0, 4], 3 + 4, False), (1, [1, 4], 40, True)])


@pytest.mark.parametrize("quits", [False, True])
def test_turns_may_end_in_the_midst_of_a_cycle(quits):
    script = [({"p_0": 1}, {}), ({"p_0": 2, "p_1": 5}, dict.fromkeys(("p_0", "p_1", "p_2"), "terminated"))]
    env = zoo(lambda: Turns(script, ("p_0", "p_1", "p_2"), quits=quits))
    env.reset()
    env.step()
    env.step()
    waits, ends = shown(env, "turns")
    assert waits == [(0, [0, 0], 0)]
    assert sorted(ends) == [(0, [0, 2], 3, False), (1, [1, 2], 5, False)]  # The third one never decided.


def test_agent_that_dies_alone_leaves_the_others_their_turns():
    script = [({}, {}), ({"p_0": -1}, {"p_0": "terminated"}), ({"p_1": 7}, {}), ({}, {"p_1": "truncated"})]
    env = zoo(lambda: Turns(script))
    env.reset()
    env.step()
    env.step()
    assert shown(env, "turns") == ([(1, [1, 2], 0)], [(0, [0, 2], -1, False)])
    env.step()
    assert shown(env, "turns") == ([(1, [1, 3], 7)], [])


MASKED = spaces.Dict(observation=spaces.Box(-9, 9, (2,), np.float32), action_mask=spaces.Box(0, 1, (3,), np.int8))


def test_mask_lies_in_the_observation_and_is_none_of_it():
    env = zoo(lambda: Turns([({}, {})] * 5, observed=MASKED))
    env.reset()
    decisions, _ = env.get_steps("turns")
    assert [spec.name for spec in env.behavior_specs["turns"].observation_specs] == ["observation"]
    assert decisions.obs[0].tolist() == [[0, 0]]
    assert [part.tolist() for part in decisions.action_mask] == [[[False, True, False]]]


def test_masks_lie_in_infos_of_those_that_have_one():
    def infos(time, agents):
        return {"a_0": {"action_mask": [0, 1, 1]}, "a_1": {}} if time < 2 else None

    env = zoo(lambda: Told([({"a_0": ON, "a_1": ON}, ["a_0", "a_1"])] * 3, infos=infos))
    env.reset()
    for _ in range(2):
        (mask,) = env.get_steps("told")[0].action_mask
        assert mask.tolist() == [[True, False, False], [False, False, False]]
        env.step()
    assert env.get_steps("told")[0].action_mask is None


@pytest.mark.parametrize("mask", [np.array([1, 0, 0, 1, 1]), (np.array([1, 0]), np.array([0, 1, 1]))])
def test_masks_of_several_branches_stand_side_by_side_or_in_a_tuple(mask):
    class Branches(Told):
        def action_space(self, agent):
            return spaces.MultiDiscrete([2, 3])

    env = zoo(lambda: Branches([], first=["a_0"], infos=lambda time, agents: {"a_0": {"action_mask": mask}}))
    env.reset()
    decisions, _ = env.get_steps("told")
    assert [part.tolist() for part in decisions.action_mask] == [[[False, True]], [[True, False, False]]]


def test_allowed_moves_win_and_lose_a_game_of_nim():
    env = zoo(Nim, num_areas=4)
    env.reset()
    rng = np.random.default_rng(0)
    results = []
    for _ in range(200):
        decisions, terminals = env.get_steps("nim")
        results += terminals.reward.tolist()
        assert sum(terminals.reward) == 0
        act(env, "nim", *[rng.choice(np.flatnonzero(~row)) for row in decisions.action_mask[0]])
        env.step()
    assert len(results) > 100
    assert set(results) == {-1.0, 1.0}


def test_both_interfaces_of_an_environment_show_the_same():
    """PettingZoo's own conversion of a parallel environment gives the decisions one after the other."""
    parallel, turns = zoo(Hunt, seed=5), zoo(lambda: parallel_to_aec(Hunt()), seed=5)
    assert isinstance(aec_to_parallel(turns._copies[0].env), Hunt)
    seen = []
    for env in (parallel, turns):
        env.reset()
        rewards, observations, ends = {}, {}, []
        rng = {agent: np.random.default_rng(agent) for agent in range(3)}
        for _ in range(60 if env is parallel else 180):
            for name in env.behavior_specs:
                decisions, terminals = env.get_steps(name)
                for row, agent in enumerate(decisions.agent_id.tolist()):
                    rewards.setdefault(agent, []).append(float(decisions.reward[row]))
                    observations.setdefault(agent, []).append(decisions.obs[0][row].tolist())
                ends += zip(terminals.agent_id.tolist(), terminals.reward.tolist(), strict=True)
                if len(decisions):
                    agents = decisions.agent_id.tolist()
                    if name == "hare":
                        moves = [[rng[agent].uniform(-1, 1)] for agent in agents]
                        env.set_actions(name, ActionTuple(continuous=np.array(moves, np.float32)))
                    else:
                        act(env, name, *[rng[agent].integers(3) for agent in agents])
            env.step()
        seen.append(
            (
                {agent: each[:15] for agent, each in rewards.items()},
                {a: o[:15] for a, o in observations.items()},
                ends[:10],
            )
        )
    assert seen[0] == seen[1]


def test_parameters_of_the_environment_are_the_constructor_s():
    assert len(zoo(Hunt, env_kwargs={"hounds": 4})._copies[0].env.possible_agents) == 5
    with pytest.raises(UsageError, match=r"does not take the env_settings.env_kwargs \{'wolves': 2\}.*wolves"):
        zoo(Hunt, env_kwargs={"wolves": 2})


def test_all_copies_are_closed_and_once():
    closed = []

    class Closes(Told):
        def close(self):
            closed.append(self)
            if len(closed) == 1:
                raise OSError("gone")

    env = zoo(lambda: Closes([]), num_areas=3)
    with pytest.raises(OSError, match="gone"):
        env.close()
    env.close()
    assert len(closed) == 3
