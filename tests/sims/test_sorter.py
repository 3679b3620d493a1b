"""Sorter against its rules: what agents see, what the right order pays, and how many tiles there are."""

from __future__ import annotations

import numpy as np
import pytest

from mlhooks.sims import Sorter
from tests.sims.sim_play import act, first_returns


def nearest(steps):
    """Return the direction of each agent's nearest tile, from what it sees."""
    tiles = steps.obs[1]
    distance = np.where(tiles.any(2), tiles[..., 8], np.inf)
    return tiles[np.arange(len(tiles)), distance.argmin(1), :8].argmax(1)


def test_taking_the_nearest_tile_again_and_again_pays_one():
    returns = first_returns(Sorter(num_agents=64, seed=1), nearest)
    np.testing.assert_allclose(returns, 1.0, atol=1e-5)


def test_wrong_tile_ends_the_episode():
    env = Sorter(num_agents=32, seed=1)
    env.reset()
    steps, ended = act(env, (nearest(env.get_steps("Sorter")[0]) + 1) % 8)
    assert ended.agent_id.tolist() == list(range(32))
    assert ended.reward.tolist() == [-1.0] * 32
    assert not ended.interrupted.any()
    assert not steps.reward.any()


def test_each_right_tile_pays_its_share_and_is_gone():
    env = Sorter(num_agents=64, seed=2)
    env.reset()
    before, _ = env.get_steps("Sorter")
    count, choice = before.obs[1].any(2).sum(1), nearest(before)
    after, ended = act(env, choice)
    goes_on = np.setdiff1d(np.arange(64), ended.agent_id)
    assert set(count[ended.agent_id]) == {1}
    assert 40 < len(goes_on) < 64
    np.testing.assert_allclose(after.reward[goes_on], 1 / count[goes_on], rtol=1e-6)
    for agent in goes_on:
        seen = {row.tobytes() for row in before.obs[1][agent] if row.any()}
        left = {row.tobytes() for row in after.obs[1][agent] if row.any()}
        (gone,) = seen - left
        assert left < seen
        assert np.frombuffer(gone, np.float32)[:8].argmax() == choice[agent]
    np.testing.assert_allclose(after.obs[0][goes_on, 0], (count[goes_on] - 1) / 8)


def test_tiles_lie_in_different_directions_at_distances_that_can_be_told_apart():
    env = Sorter(num_agents=200, seed=3)
    env.reset()
    tiles = env.get_steps("Sorter")[0].obs[1]
    counts = tiles.any(2).sum(1)
    assert set(counts.tolist()) == set(range(1, 9))
    for row, count in zip(tiles, counts, strict=True):
        there = row[row.any(1)]
        assert len(set(there[:, :8].argmax(1).tolist())) == count
        assert (there[:, :8].sum(1) == 1).all()
        distances = np.sort(there[:, 8])
        assert 0.2 <= distances[0] <= distances[-1] <= 1.0
        assert (np.diff(distances) > 0.049).all()


@pytest.mark.parametrize(("num_tiles", "most"), [(2.0, 2), (20.0, 8), (0.0, 1)])
def test_environment_parameter_says_how_many_tiles_there_are_at_most(num_tiles, most):
    env = Sorter(num_agents=200, seed=3)
    env.set_parameters({"num_tiles": Constant(num_tiles)})
    env.reset()
    assert env.get_steps("Sorter")[0].obs[1].any(2).sum(1).max() == most


class Constant:
    def __init__(self, value):
        self.value = value

    def draw(self, count):
        return np.full(count, self.value)
