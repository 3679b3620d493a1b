"""`env_settings.teams`: behaviors, teams and groups of a PettingZoo environment's agents."""

from __future__ import annotations

import numpy as np
import pytest

from builtin_plugins.pettingzoo_samples import Hunt, Nim
from mlhooks.errors import ContractBroken, SettingsError, UsageError
from mlhooks.plugins import load_plugins
from mlhooks.settings import RunOptions, SettingsRegistry, load_run_options
from mlhooks.training.environment_scheme import make_factory
from tests.builtin_plugins.zoo_envs import Told, Turns, zoo

NAMES = ("a_0", "a_1", "a_2", "b_0")


def told(*steps, **more):
    return lambda: Told(list(steps), first=NAMES, **more)


def teams(*entries):
    return [dict(entry) for entry in entries]


def test_teams_of_one_behavior_have_ids_with_their_numbers():
    env = zoo(Nim, teams=teams({"agents": ["player_0"], "team": 0}, {"agents": ["player_1"], "team": 1}))
    assert list(env.behavior_specs) == ["nim?team=0", "nim?team=1"]
    env.reset()
    assert [len(env.get_steps(name)[0]) for name in env.behavior_specs] == [1, 0]
    env.step()
    assert [len(env.get_steps(name)[0]) for name in env.behavior_specs] == [0, 1]


def test_behaviors_may_be_named_and_share_a_name_over_teams():
    entries = teams(
        {"agents": ["a_0"], "behavior": "Striker", "team": 0},
        {"agents": ["a_[12]"], "behavior": "Striker", "team": 1},
    )
    env = zoo(told(), teams=entries)
    assert list(env.behavior_specs) == ["Striker?team=0", "Striker?team=1", "told"]


def test_agents_outside_of_teams_of_their_behavior_are_team_0():
    env = zoo(told(), teams=teams({"agents": ["b_*"], "team": 3}))
    assert list(env.behavior_specs) == ["told?team=0", "told?team=3"]


ALL_ON = ({"a_0": (1, None), "a_1": (2, None), "a_2": (6, None), "b_0": (5, None)}, NAMES)
ONE_DIES = ({"a_0": (1, None), "a_1": (2, "terminated"), "a_2": (3, None), "b_0": (5, None)}, ["a_0", "a_2", "b_0"])
THE_REST = ({"a_0": (4, "terminated"), "a_2": (8, "terminated"), "b_0": (1, "terminated")}, [])


def rewards(env):
    """Return reward and group reward of those that wait and those that ended, by agent id."""
    (found,) = [env.get_steps(name) for name in env.behavior_specs]
    return [
        dict(
            zip(part.agent_id.tolist(), zip(part.reward.tolist(), part.group_reward.tolist(), strict=True), strict=True)
        )
        for part in found
    ]


@pytest.mark.parametrize(("kind", "together"), [("own", None), ("mean", [3.0, 2.0, 6.0]), ("sum", [9.0, 6.0, 12.0])])
def test_group_gets_the_mean_or_sum_of_its_living_members(kind, together):
    env = zoo(told(ALL_ON, ONE_DIES, THE_REST), teams=teams({"agents": ["a_*"], "group": kind}))
    env.reset()

    def expected(rewards_, step):
        if together is None:
            return {agent: (reward, 0.0) for agent, reward in rewards_.items()}
        return {agent: (reward, 0.0) if agent == 3 else (0.0, together[step]) for agent, reward in rewards_.items()}

    env.step()
    assert rewards(env) == [expected({0: 1.0, 1: 2.0, 2: 6.0, 3: 5.0}, 0), {}]
    env.step()
    assert rewards(env) == [expected({0: 1.0, 2: 3.0, 3: 5.0}, 1), expected({1: 2.0}, 1)]
    env.step()
    assert rewards(env)[1] == expected({0: 4.0, 2: 8.0, 3: 1.0}, 2)


def test_groups_are_numbered_over_copies_and_stay_for_all_episodes():
    entries = teams({"agents": ["a_0", "a_1"], "group": "own"}, {"agents": ["a_2"], "group": "own", "behavior": "Lone"})
    env = zoo(told(ALL_ON, ONE_DIES, THE_REST), teams=entries, num_areas=2)
    for _ in range(2):
        env.reset()
        assert env.get_steps("told")[0].group_id.tolist() == [1, 1, 0, 3, 3, 0]
        assert env.get_steps("Lone")[0].group_id.tolist() == [2, 4]
        env.step()
        env.step()
        assert env.get_steps("told")[1].group_id.tolist() == [1, 3]


def test_infos_may_bring_rewards_of_the_group():
    def infos(time, agents):
        return {agent: {"group_reward": 10 * time} for agent in agents}

    env = zoo(told(ALL_ON, ALL_ON, infos=infos), teams=teams({"agents": ["a_*"], "group": "own"}))
    env.reset()
    env.step()
    assert rewards(env)[0] == {0: (1, 10), 1: (2, 10), 2: (6, 10), 3: (5, 0)}


def test_group_reward_that_is_no_number_is_called_so():
    env = zoo(
        told(ALL_ON, infos=lambda *_: {"a_0": {"group_reward": "much"}}),
        teams=teams({"agents": ["a_*"], "group": "own"}),
    )
    env.reset()
    with pytest.raises(ContractBroken, match=r"agent 'a_0' got the group reward 'much' \(str\)"):
        env.step()


def test_group_that_takes_turns_gets_what_came_since_the_member_s_last_turn():
    script = [({"p_0": 1, "p_1": 3}, {}), ({"p_0": 2, "p_1": 6}, {}), ({"p_1": 8}, {}), ({}, {})]
    env = zoo(lambda: Turns(script), teams=teams({"agents": ["*"], "group": "mean"}))
    env.reset()
    env.step()
    assert rewards(env)[0] == {1: (0, 0)}
    env.step()
    assert rewards(env)[0] == {0: (0, 2 + 4)}
    env.step()
    assert rewards(env)[0] == {1: (0, 4 + 4)}


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (
            [{"agents": ["a_0"]}, {"agents": ["a_*"]}],
            r"agent 'a_0' is in env_settings.teams\[0\] and in env_settings.teams\[1\]",
        ),
        ([{"agents": ["a_0", "c_*"]}], r"has no agent 'c_\*', which env_settings.teams\[0\].agents\[1\] names; there"),
    ],
)
def test_teams_that_do_not_fit_the_agents_are_refused(entries, message):
    with pytest.raises(UsageError, match=message):
        zoo(told(), teams=entries)


def test_team_of_agents_that_come_later_is_warned_of_and_waits_for_them(caplog):
    entries = teams({"agents": ["a_1"], "behavior": "late"})
    env = zoo(lambda: Told([({"a_0": (1, None)}, ["a_0", "a_1"])], first=["a_0"], possible=False), teams=entries)
    env.reset()
    assert "begins without the agent 'a_1', which env_settings.teams[0].agents[0] names; there are: a_0" in caplog.text
    env.step()
    assert env.get_steps("late")[0].agent_id.tolist() == [1]


def test_one_behavior_of_agents_with_different_spaces_is_refused():
    with pytest.raises(UsageError, match=r"'hound_0' and 'hare' cannot both act by the behavior 'All'.*MultiDiscrete"):
        zoo(Hunt, teams=teams({"agents": ["*"], "behavior": "All"}))


def test_wrong_teams_of_a_file_are_findings_with_their_lines(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text(
        "env_settings:\n  env_path: sim:Basic\n  teams:\n    - agents: [a]\n      grup: mean\n"
        "    - {agents: [b], group: all}\n",
        encoding="utf-8",
    )
    with pytest.raises(SettingsError) as caught:
        load_run_options(file, SettingsRegistry.from_plugins(load_plugins(autoload=False)))
    text = str(caught.value)
    assert "run.yaml:5:7: env_settings.teams.0.grup: unknown key" in text
    assert "did you mean group?" in text
    assert "run.yaml:6:28: env_settings.teams.1.group: not a valid value" in text
    assert "own, mean, sum" in text


@pytest.mark.parametrize("env_path", ["sim:Basic", "gymnasium:CartPole-v1"])
def test_teams_are_refused_where_they_mean_nothing(env_path):
    options = RunOptions.model_validate({"env_settings": {"env_path": env_path, "teams": [{"agents": ["a"]}]}})
    with pytest.raises(
        UsageError, match=f"env_settings.teams is for environments of PettingZoo, and {env_path} is none"
    ):
        make_factory(options, load_plugins(autoload=False)).check()


def test_grids_are_refused_where_nothing_has_boxes():
    options = RunOptions.model_validate({"env_settings": {"env_path": "sim:Basic", "grid_observations": True}})
    with pytest.raises(UsageError, match=r"grid_observations is for environments of Gymnasium and PettingZoo, and sim"):
        make_factory(options, load_plugins(autoload=False)).check()


def test_teams_are_stored_and_read_again():
    options = RunOptions.model_validate({"env_settings": {"teams": [{"agents": ["a"], "group": "mean", "team": 1}]}})
    (team,) = options.as_dict()["env_settings"]["teams"]
    assert team == {"agents": ["a"], "behavior": None, "team": 1, "group": "mean"}
    assert RunOptions.model_validate(options.as_dict()) == options
    assert np.array_equal(options.env_settings.teams[0].agents, ["a"])
