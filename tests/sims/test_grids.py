"""Basic and GridWorld against their rules and, for GridWorld, shortest paths found by breadth-first search."""

from __future__ import annotations

from collections import deque

import numpy as np
import pytest
from mlagents_envs.base_env import ObservationType

from mlhooks.sims import Basic, GridWorld
from tests.sims.sim_play import act, first_returns, random_actions


def test_basic_optimum_is_seven_moves_to_the_right():
    env = Basic()
    env.reset()
    rewards = []
    for cell in range(10, 17):
        steps, _ = env.get_steps("Basic")
        assert steps.obs[0].tolist() == [[float(i == cell) for i in range(20)]]
        steps, ended = act(env, [2])
        rewards.append(float((ended if len(ended) else steps).reward[0]))
    assert sum(rewards) == pytest.approx(0.93)
    assert ended.interrupted.tolist() == [False]
    assert np.argmax(ended.obs[0]) == 17
    assert np.argmax(steps.obs[0]) == 10


@pytest.mark.parametrize(("action", "length", "expected"), [(1, 3, 0.1 - 0.03), (2, 7, 0.93), (0, 100, -1.0)])
def test_basic_returns_and_lengths(action, length, expected):
    env = Basic(num_agents=3)
    env.reset()
    total = 0.0
    for step in range(1, length + 1):
        steps, ended = act(env, [action] * 3)
        assert len(ended) == (3 if step == length else 0)
        total += steps.reward[0]
    assert total + ended.reward[0] == pytest.approx(expected, abs=1e-5)
    assert ended.interrupted.tolist() == [action == 0] * 3


def test_every_episode_has_its_own_step_limit():
    env = Basic(num_agents=2)
    env.reset()
    ends = {0: [], 1: []}
    for step in range(1, 221):
        # The second agent walks to the goal first and stays from then on, like the other.
        _, ended = act(env, [0, 2 if step <= 7 else 0])
        for agent in ended.agent_id:
            ends[agent].append(step)
    assert ends == {0: [100, 200], 1: [7, 107, 207]}


WAYS = {0: (0, 0), 1: (0, 1), 2: (0, -1), 3: (-1, 0), 4: (1, 0)}


def places(steps, row):
    """Return (agent, goal, other mark) as (x, y), from what an agent sees."""
    agent, plus, cross = (
        (int(plane.argmax()) % 5, int(plane.argmax()) // 5) for plane in steps.obs[0][row].reshape(3, 25)
    )
    goal_is_plus = steps.obs[1][row].tolist() == [1.0, 0.0]
    return (agent, plus, cross) if goal_is_plus else (agent, cross, plus)


def shortest_path(agent, goal, wrong):
    """Return actions of a shortest way to the goal that does not touch the wrong mark, by breadth-first search."""
    queue, came = deque([agent]), {agent: ()}
    while queue:
        x, y = cell = queue.popleft()
        if cell == goal:
            return came[cell]
        for action, (dx, dy) in WAYS.items():
            there = (x + dx, y + dy)
            if min(there) >= 0 and max(there) < 5 and there != wrong and there not in came:
                came[there] = (*came[cell], action)
                queue.append(there)
    raise AssertionError("no way")


def optimum(env):
    """Expected best return over all starts that the first episodes of many agents show."""
    env.reset()
    steps, _ = env.get_steps("GridWorld")
    return np.array([1 - 0.01 * len(shortest_path(*places(steps, row))) for row in range(env.num_agents)])


def test_grid_world_pays_exactly_what_shortest_paths_earn():
    best = optimum(GridWorld(num_agents=60, seed=4))
    played = first_returns(
        GridWorld(num_agents=60, seed=4),
        lambda steps: [shortest_path(*places(steps, row))[0] for row in range(60)],
    )
    np.testing.assert_allclose(played, best, atol=1e-5)
    assert 0.95 < best.mean() < 0.99


def test_random_allowed_moves_earn_less_than_half_of_grid_worlds_optimum():
    env = GridWorld(num_agents=200, seed=9)
    rng = np.random.default_rng(1)
    assert first_returns(env, lambda _: random_actions(env, rng)).mean() < optimum(env).mean() / 2


def test_wrong_mark_costs_one_and_ends_the_episode():
    env = GridWorld(num_agents=60, seed=6)
    earned = first_returns(
        env,
        lambda steps: [
            shortest_path(agent, wrong, goal)[0]
            for agent, goal, wrong in (places(steps, row) for row in range(env.num_agents))
        ],
    )
    assert ((earned > -1.2) & (earned < -1.0)).all()


def test_exactly_the_moves_into_walls_are_masked_and_lead_nowhere():
    env = GridWorld(num_agents=100, seed=2)
    env.reset()
    rng = np.random.default_rng(3)
    for _ in range(20):
        steps, _ = env.get_steps("GridWorld")
        (mask,) = steps.action_mask
        assert mask.shape == (100, 5)
        assert mask.dtype == bool
        before = [places(steps, row)[0] for row in range(100)]
        for (x, y), row in zip(before, mask, strict=True):
            assert row.tolist() == [False, y == 4, y == 0, x == 0, x == 4]
        actions = rng.integers(5, size=100)
        after, ended = act(env, actions)
        for row in set(range(100)) - set(ended.agent_id.tolist()):
            dx, dy = (0, 0) if mask[row, actions[row]] else WAYS[actions[row]]
            assert places(after, row)[0] == (before[row][0] + dx, before[row][1] + dy)


def test_grid_world_starts_are_uniform_and_never_overlap():
    env = GridWorld(num_agents=30_000, seed=0)
    env.reset()
    steps, _ = env.get_steps("GridWorld")
    planes = steps.obs[0].reshape(-1, 3, 25)
    assert planes.sum(axis=1).max() == 1
    # Each count is binomial(30000, 1/25) with a deviation of 34.
    assert np.abs(planes.sum(axis=0) - 1200).max() < 5 * 34
    assert abs(steps.obs[1][:, 0].sum() - 15000) < 5 * 87


def test_grid_world_shows_its_goal_as_goal_signal():
    kinds = [spec.observation_type for spec in GridWorld.SPEC.observation_specs]
    assert kinds == [ObservationType.DEFAULT, ObservationType.GOAL_SIGNAL]
