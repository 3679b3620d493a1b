"""The simulations as a player's world, seen without a connection."""

from __future__ import annotations

import numpy as np

from mlhooks.sim_player.simulated import Simulated
from mlhooks.sim_player.world import Actions

NAME = "Grid?team=0"


def test_ended_info_repeats_the_mask_of_the_agent_s_last_decision():
    world = Simulated("GridWorld", behavior_name=NAME, agents=4, areas=1, seed=3)
    world.reset()
    source = np.random.default_rng(0)
    masks: dict[int, list[bool]] = {}
    ended = 0
    for _ in range(200):
        lists = world.infos()[NAME]
        for infos in lists:
            for row, agent in enumerate(infos.ids.tolist()):
                if infos.done:
                    assert infos.mask[row].tolist() == masks[agent]
                    ended += 1
                masks[agent] = infos.mask[row].tolist()
        allowed = [source.choice(np.flatnonzero(~mask)) for mask in lists[-1].mask]
        world.act({NAME: Actions(np.zeros((4, 0), np.float32), np.array(allowed, np.int32)[:, None])})
    assert ended > 10


def test_agents_without_actions_act_zero():
    world = Simulated("Basic", behavior_name=NAME, agents=1, areas=1, seed=0)
    world.reset()
    before = world.infos()[NAME][-1].obs[0].copy()
    world.act({})
    np.testing.assert_array_equal(world.infos()[NAME][-1].obs[0], before)
