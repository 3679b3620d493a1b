"""Scenes of teams and groups: their shapes, and who wins, loses, leaves and belongs together."""

from __future__ import annotations

import numpy as np
import pytest
from mlagents_envs.base_env import ActionTuple

from mlhooks.errors import UsageError
from mlhooks.sim_player import options
from mlhooks.sim_player.options import SCENES, scripted_behaviors
from mlhooks.sim_player.scripted import Scripted
from mlhooks.sim_player.simulated import Simulated
from mlhooks.sim_player.world import Actions
from mlhooks.sims import SIMULATIONS


def world(name, areas=2, episode_length=6):
    return Scripted(
        scripted_behaviors(SCENES[name]),
        agents=None,
        areas=areas,
        seed=1,
        episode_length=episode_length,
        image_size=36,
    )


def play(scripted, steps):
    """Yield the messages of a course in which nobody does anything, as (behavior, done, infos)."""
    scripted.reset()
    for _ in range(steps):
        for name, lists in scripted.infos().items():
            for infos in lists:
                yield name, infos
        scripted.act({})


def test_every_simulation_is_known_to_the_command_line():
    assert set(options.SIMULATIONS) == set(SIMULATIONS)


SHAPES = {
    "SoccerTwos": {
        "SoccerTwos?team=0": (2, [(264,), (72,)], (3, 3, 3)),
        "SoccerTwos?team=1": (2, [(264,), (72,)], (3, 3, 3)),
    },
    "StrikersVsGoalie": {
        "Goalie?team=0": (1, [(738,)], (3, 3, 3)),
        "Striker?team=1": (2, [(231,), (63,)], (3, 3, 3)),
    },
    "DungeonEscape": {"DungeonEscape?team=0": (3, [(1,), (175,)], (7,))},
    "PushBlockCollab": {"PushBlockCollab?team=0": (3, [(6, 20, 20)], (7,))},
}


@pytest.mark.parametrize("name", SCENES)
def test_scene_has_its_teams_sensors_and_actions(name):
    scripted = world(name)
    scripted.reset()
    shown = scripted.infos()
    found = {}
    for behavior in scripted.behaviors.values():
        (infos,) = shown[behavior.name]
        assert [tuple(obs.shape[1:]) for obs in infos.obs] == [sensor.shape for sensor in behavior.sensors]
        found[behavior.name] = (len(infos) // 2, [s.shape for s in behavior.sensors], behavior.branches)
    assert found == SHAPES[name]


@pytest.mark.parametrize("name", SCENES)
def test_agents_of_an_area_are_a_group_and_no_other_behavior_has_its_number(name):
    scripted = world(name)
    scripted.reset()
    groups = {behavior: set(lists[0].group_ids.tolist()) for behavior, lists in scripted.infos().items()}
    assert all(len(each) == 2 and min(each) > 0 for each in groups.values())
    assert sum(map(len, groups.values())) == len(set().union(*groups.values()))


@pytest.mark.parametrize("name", ["SoccerTwos", "StrikersVsGoalie"])
def test_what_one_team_wins_the_other_one_loses_at_once(name):
    course = list(play(world(name), 80))
    assert not any(infos.reward.any() for _, infos in course)
    results = {}
    for behavior, infos in course:
        if infos.done:
            results.setdefault(behavior, []).append(
                sorted(
                    zip(infos.group_ids.tolist(), infos.group_reward.tolist(), infos.interrupted.tolist(), strict=True)
                )
            )
        else:
            assert not infos.group_reward.any()
    first, second = results.values()
    assert len(first) == len(second) > 8
    for ours, theirs in zip(first, second, strict=True):
        assert {-reward for _, reward, _ in ours} == {reward for _, reward, _ in theirs} or len(ours) > 2
        assert all(reward == 0 for _, reward, interrupted in ours if interrupted)
    every = [reward for end in first for _, reward, _ in end]
    assert set(every) == {-1.0, 0.0, 1.0}


@pytest.mark.parametrize(
    ("name", "leaves"), [("DungeonEscape", True), ("PushBlockCollab", False), ("SoccerTwos", False)]
)
def test_a_member_leaves_before_the_others_or_none_does(name, leaves):
    ends = [infos for _, infos in play(world(name, areas=1), 60) if infos.done]
    sizes = {len(infos) for infos in ends}
    assert sizes == ({1, 2} if leaves else {3 if name == "PushBlockCollab" else 2})


def test_numbers_in_traits_are_sizes():
    (part,) = scripted_behaviors(["Soccer?team=2:bare+3x2+rays5+grid2x3x4+group*4@7"])
    assert (part.name, part.team, part.agents, part.since, part.actions) == ("Soccer?team=2", 2, 4, 7, (0, (3, 2)))


@pytest.mark.parametrize(
    "text",
    [
        "A:bare",
        "A:bare+mask",
        "A:3x0",
        "A:rays0+bare",
        "A:3+discrete",
        "A*0",
        "A*few",
        "A?team=red",
        "A:raysx",
        "A:grid2x2",
    ],
)
def test_wrong_numbers_and_teams_are_refused(text):
    with pytest.raises(UsageError, match="--behavior A"):
        scripted_behaviors([text])


def test_recall_is_played_as_it_is_in_process():
    played, own = (
        Simulated("Recall", behavior_name=None, agents=3, areas=1, seed=4),
        SIMULATIONS["Recall"](num_agents=3, seed=4),
    )
    played.reset()
    own.reset()
    rng = np.random.default_rng(0)
    for _ in range(60):
        (*ended, infos) = played.infos()["Recall?team=0"]
        decisions, terminals = own.get_steps("Recall")
        np.testing.assert_array_equal(infos.obs[0], decisions.obs[0])
        assert sum(len(each) for each in ended) == len(terminals)
        action = Actions(np.zeros((3, 0), np.float32), rng.integers(0, 3, (3, 1), dtype=np.int32))
        played.act({"Recall?team=0": action})
        own.set_actions("Recall", ActionTuple(*action))
        own.step()


def test_ids_may_change_with_every_episode_of_an_agent():
    played = Simulated("Recall", behavior_name="Hall", agents=2, areas=1, seed=4, change_ids=True)
    played.reset()
    seen, ended = [], []
    for _ in range(300):
        for infos in played.infos()["Hall?team=0"]:
            (ended if infos.done else seen).extend(infos.ids.tolist())
        played.act({"Hall?team=0": Actions(np.zeros((2, 0), np.float32), np.full((2, 1), len(seen) % 2, np.int32))})
    assert ended == sorted(set(ended))  # No id ends twice.
    assert set(seen[-2:]) & set(ended) == set()


def test_both_teams_of_a_game_are_played_as_in_process():
    played, own = (
        Simulated("Tag", behavior_name="Catch", agents=2, areas=1, seed=4),
        SIMULATIONS["Tag"](num_agents=2, seed=4),
    )
    assert list(played.behaviors) == ["Catch?team=0", "Catch?team=1"]
    played.reset()
    own.reset()
    rng = np.random.default_rng(0)
    ends = 0
    for _ in range(40):
        shown, actions = played.infos(), {}
        for team in (0, 1):
            *ended, infos = shown[f"Catch?team={team}"]
            decisions, terminals = own.get_steps(f"Tag?team={team}")
            np.testing.assert_array_equal(infos.obs[0], decisions.obs[0])
            np.testing.assert_array_equal(infos.ids, decisions.agent_id)
            assert [each.reward.tolist() for each in ended] == ([terminals.reward.tolist()] if len(terminals) else [])
            ends += len(terminals)
            actions[f"Catch?team={team}"] = action = Actions(
                np.zeros((2, 0), np.float32), rng.integers(0, 9, (2, 1), dtype=np.int32)
            )
            own.set_actions(f"Tag?team={team}", ActionTuple(*action))
        played.act(actions)
        own.step()
    assert ends > 8


@pytest.mark.parametrize(("world_name", "name"), [("Tag", "Catch?team=1"), ("StrikeAndGuard", "Player")])
def test_one_name_cannot_stand_for_several_behaviors(world_name, name):
    with pytest.raises(UsageError, match="--behavior names one behavior, without its team"):
        Simulated(world_name, behavior_name=name, agents=1, areas=1, seed=0)
