"""The scripted world, through the reference client: every kind of observation and action, and no mixing of episodes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from mlagents_envs.base_env import DimensionProperty, ObservationType

from tests.sim_player.recording import Recording, connected

STEPS = 60
SIZE = 6  # Images are so high and wide.
# The released client reads images with their channels last, as players with a package before 3 send them.
ARGUMENTS = ("scripted", "--package-version", "2.0.0", "--image-size", str(SIZE), "--episode-length", "6")
BEHAVIORS = ("Continuous", "Discrete", "Branches", "Hybrid", "Group", "Late")


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recording]:
    with connected(tmp_path_factory.mktemp("scripted"), *ARGUMENTS) as env:
        yield Recording().play(env, STEPS)


def length(fate: int, episode: int, base: int = 6) -> int:
    return base + (3 * fate + 5 * episode) % (base // 2 + 1)


@pytest.mark.parametrize(
    ("behavior", "continuous", "branches"),
    [("Continuous", 2, ()), ("Discrete", 0, (3,)), ("Branches", 0, (3, 2, 4)), ("Hybrid", 2, (3, 2))],
)
def test_action_spec_arrives(recording, behavior, continuous, branches):
    spec = recording.specs[f"{behavior}?team=0"].action_spec
    assert (spec.continuous_size, tuple(spec.discrete_branches)) == (continuous, branches)


def test_sensors_arrive_sorted_by_name_with_their_kinds(recording):
    hybrid = recording.specs["Hybrid?team=0"].observation_specs
    assert [spec.name for spec in hybrid] == ["action", "clock", "gray", "png", "stack", "tensor"]
    assert [spec.shape[-1] for spec in hybrid[2:]] == [1, 3, 4, 2]
    translational = DimensionProperty.TRANSLATIONAL_EQUIVARIANCE
    assert hybrid[3].dimension_property == (translational, translational, DimensionProperty.NONE)
    buffer = next(spec for spec in recording.specs["Branches?team=0"].observation_specs if spec.name == "buffer")
    assert buffer.dimension_property == (DimensionProperty.VARIABLE_SIZE, DimensionProperty.NONE)
    goal = next(spec for spec in recording.specs["Discrete?team=0"].observation_specs if spec.name == "goal")
    assert goal.observation_type == ObservationType.GOAL_SIGNAL


@pytest.mark.parametrize("behavior", BEHAVIORS)
def test_infos_of_an_agent_follow_each_other(recording, behavior):
    pairs = recording.pairs(behavior)
    assert sum(before.done for before, _ in pairs) > 4 or behavior == "Group"
    for before, after in pairs:
        assert before.agent == after.agent
        if before.done:
            assert (after.done, after.episode) == (False, before.episode + 1)
            assert after.reward == after.step
        else:
            assert after.episode == before.episode
            assert after.reward == after.step - before.step > 0


@pytest.mark.parametrize("behavior", BEHAVIORS)
def test_agent_carries_out_the_action_that_it_was_given(recording, behavior):
    for before, after in recording.pairs(behavior):
        if before.done:
            np.testing.assert_array_equal(after.obs["action"], 0)
        else:
            np.testing.assert_array_equal(after.obs["action"], [*before.continuous, *before.discrete])


@pytest.mark.parametrize("behavior", ["Continuous", "Discrete", "Branches", "Hybrid", "Late"])
def test_episodes_end_when_they_should(recording, behavior):
    ended = [seen for seen in recording.of(behavior) if seen.done]
    assert {seen.agent for seen in ended} == {0, 1, 2, 3}
    for seen in ended:
        assert seen.step == length(seen.agent, seen.episode)
        assert seen.interrupted == ((seen.agent + seen.episode) % 3 == 0)


def test_seed_of_the_trainer_is_the_player_s(recording):
    assert {seen.obs["clock"][0] for seen in recording.of("Discrete")} == {7}


def test_end_and_next_beginning_of_an_agent_arrive_together_or_apart(recording):
    def together(behavior: str) -> set[bool]:
        return {before.message == after.message for before, after in recording.pairs(behavior) if before.done}

    assert together("Discrete") == {True}
    assert together("Continuous") == {True, False}  # Agents skip decisions there.


def test_agents_decide_at_different_times(recording):
    gaps = {
        agent: {
            after.step - before.step
            for before, after in recording.pairs("Continuous")
            if before.agent == agent and not before.done and not after.done and before.message > 0
        }
        for agent in range(4)
    }
    assert gaps == {0: {1}, 1: {2}, 2: {3}, 3: {1}}


def test_behavior_that_appears_late_is_introduced_with_its_first_agents(recording):
    first = recording.of("Late")[0]
    assert first.message >= 20
    assert (first.episode, first.step) == (1, 0)
    assert recording.of("Discrete")[0].message == 0


def test_masks_begin_with_the_second_decision_and_forbid_by_the_step(recording):
    for life in recording.lives("Branches"):
        decisions = [seen for seen in life if not seen.done]
        assert not any(part.any() for part in decisions[0].mask)
        for seen in decisions[1:]:
            for part, size in zip(seen.mask, (3, 2, 4), strict=True):
                assert np.flatnonzero(part).tolist() == [seen.step % size]


def test_buffer_shows_a_varying_number_of_rows(recording):
    for seen in recording.of("Branches"):
        rows = [[seen.episode, seen.step, number] for number in range(1, 2 + seen.step % 4)]
        np.testing.assert_array_equal(seen.obs["buffer"], rows + [[0, 0, 0]] * (4 - len(rows)))


def test_goal_signal_is_the_episode_modulo_three(recording):
    for seen in recording.of("Discrete"):
        assert seen.obs["goal"].tolist() == [float(seen.episode % 3 == goal) for goal in range(3)]


def test_images_show_episode_step_and_place(recording):
    y, x = np.mgrid[:SIZE, : SIZE + 4]
    slope = (x + 2 * y) % 256
    for seen in recording.of("Hybrid"):
        frame = np.stack([np.full_like(x, seen.episode), np.full_like(x, seen.step), slope], axis=-1) / 255
        np.testing.assert_allclose(seen.obs["png"], frame, atol=1e-6)
        np.testing.assert_allclose(seen.obs["gray"][..., 0], frame.mean(axis=-1), atol=1e-6)
        agent = np.full((*x.shape, 1), seen.agent / 255)
        np.testing.assert_allclose(seen.obs["stack"], np.concatenate([frame, agent], axis=-1), atol=1e-6)
        tensor = np.stack([seen.episode + x / (SIZE + 4), seen.step + y / SIZE], axis=-1)
        np.testing.assert_allclose(seen.obs["tensor"], tensor, rtol=1e-6)


def test_group_ends_together_but_for_the_member_that_leaves(recording):
    ended = [seen for seen in recording.of("Group") if seen.done]
    leavers = [seen for seen in ended if seen.agent == 3]
    others = [seen for seen in ended if seen.agent != 3]
    assert [seen.step for seen in leavers] == [length(1, seen.episode) // 2 for seen in leavers]
    assert [seen.step for seen in others] == [length(1, seen.episode) for seen in others]
    assert not any(seen.interrupted for seen in leavers)
    assert len({seen.id for seen in leavers}) == len(leavers) > 2
    assert {seen.id for seen in others} == {0, 1, 2}
    for episode in {seen.episode for seen in others}:
        assert len({seen.message for seen in others if seen.episode == episode}) == 1


def test_group_id_and_reward_come_with_every_info(recording):
    infos = recording.of("Group")
    assert {seen.group_id for seen in infos} == {1}
    assert all(seen.group_reward == seen.reward / 2 for seen in infos)
    assert {seen.group_id for seen in recording.of("Discrete")} == {0}


def test_ids_change_with_each_episode_on_request(tmp_path):
    with connected(tmp_path, "scripted", "--behavior", "Walker", "--agent-ids", "change", "--agents", "2") as env:
        lives = Recording().play(env, 40).lives("Walker")
    assert len(lives) >= 6
    for life in lives:
        assert {(seen.agent, seen.episode) for seen in life} == {(life[0].agent, life[0].episode)}
        assert not any(seen.done for seen in life[:-1])


def test_reset_begins_new_episodes_without_ending_the_old_ones(tmp_path):
    with connected(tmp_path, "scripted", "--behavior", "Walker") as env:
        env.reset()
        for _ in range(3):
            env.step()
        ids = env.get_steps("Walker?team=0")[0].agent_id.tolist()
        env.reset()
        decisions, terminals = env.get_steps("Walker?team=0")
        assert decisions.agent_id.tolist() == ids
        assert len(terminals) == 0
        assert decisions.obs[1][:, 2:].tolist() == [[2.0, 0.0]] * 4


def test_behaviors_teams_agents_and_areas_are_chosen_on_the_command_line(tmp_path):
    teams = ("--behavior", "Soccer?team=0:branches", "--behavior", "Soccer?team=1:branches")
    with connected(tmp_path, "scripted", *teams, "--agents", "3", num_areas=2) as env:
        env.reset()
        assert list(env.behavior_specs) == ["Soccer?team=0", "Soccer?team=1"]
        assert [len(env.get_steps(name)[0]) for name in env.behavior_specs] == [6, 6]


@pytest.mark.parametrize("version", ["1.0.0", "1.2.0", "1.4.0"])
def test_older_players_are_understood(tmp_path, version):
    behaviors = ("--behavior", "A:continuous+gray+stack", "--behavior", "B:branches+mask+group")
    with connected(
        tmp_path, "scripted", *behaviors, "--communication-version", version, "--image-size", str(SIZE)
    ) as env:
        env.reset()
        assert env.behavior_specs["A?team=0"].action_spec.continuous_size == 2
        assert tuple(env.behavior_specs["B?team=0"].action_spec.discrete_branches) == (3, 2, 4)
        walker, _ = env.get_steps("A?team=0")
        assert [part.shape for part in walker.obs] == [(4, 2), (4, 4), (4, 6, 10, 1), (4, 6, 10, 4)]
        np.testing.assert_allclose(walker.obs[3][1, ..., 3], 1 / 255)  # This is the agent's number.
        y, x = np.mgrid[:SIZE, : SIZE + 4]
        np.testing.assert_allclose(walker.obs[2][0, ..., 0], (1 + x + 2 * y) / 3 / 255, atol=1e-6)
        actions = env.behavior_specs["B?team=0"].action_spec.empty_action(4)
        actions.discrete[:] = [[0, 1, 3], [1, 0, 2], [2, 1, 1], [0, 0, 0]]
        env.set_actions("B?team=0", actions)
        env.step()
        np.testing.assert_array_equal(env.get_steps("B?team=0")[0].obs[0], actions.discrete)
