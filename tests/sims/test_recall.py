"""Recall against its rules."""

from __future__ import annotations

import numpy as np
import pytest

from mlhooks.sims import Recall
from tests.sims.sim_play import act


class Sampler:
    def __init__(self, *values: float) -> None:
        self.values = values

    def draw(self, count: int) -> np.ndarray:
        return np.resize(np.array(self.values), count)


def walked(env: Recall, turn: int) -> tuple[list[list[float]], float, bool]:
    """Return what the one agent sees until it turns in the last cell, its return, and whether the turn was right."""
    steps, _ = env.get_steps("Recall")
    seen, total = [steps.obs[0][0].tolist()], 0.0
    right = 1 + seen[0].index(1.0)
    while not seen[-1][3]:
        steps, _ = act(env, [0])
        seen.append(steps.obs[0][0].tolist())
        total += float(steps.reward[0])
    _, ended = act(env, [turn])
    assert ended.interrupted.tolist() == [False]
    return seen, total + float(ended.reward[0]), right == turn


def test_sign_is_seen_in_the_first_cell_alone_and_tells_where_to_turn_in_the_last() -> None:
    env = Recall(seed=1)
    env.reset()
    found = []
    for turn in (1, 2) * 6:
        seen, total, is_right = walked(env, turn)
        assert sorted(seen[0]) == [0.0, 0.0, 0.0, 1.0]
        assert seen[0][2:] == [0.0, 0.0]
        assert [row[:2] for row in seen[1:]] == [[0.0, 0.0]] * 6
        assert [row[2] for row in seen] == pytest.approx([cell / 6 for cell in range(7)])
        assert [row[3] for row in seen] == [0.0] * 6 + [1.0]
        assert total == pytest.approx((1.0 if is_right else -0.1) - 0.07, abs=1e-5)
        found.append(is_right)
    assert {True, False} == set(found)


def test_turning_on_the_way_and_walking_on_in_the_last_cell_change_nothing() -> None:
    env = Recall(num_agents=3)
    env.reset()
    steps, _ = env.get_steps("Recall")
    for action in (1, 2):
        after, ended = act(env, [action] * 3)
        assert np.array_equal(after.obs[0], steps.obs[0])
        assert len(ended) == 0
    for _ in range(97):
        _, ended = act(env, [0] * 3)
        assert len(ended) == 0
    _, ended = act(env, [0] * 3)
    assert ended.interrupted.tolist() == [True] * 3
    assert (ended.obs[0][:, 3] == 1.0).all()


def test_length_is_a_parameter_of_each_episode() -> None:
    env = Recall(num_agents=2)
    env.set_parameters({"length": Sampler(2.0, 0.2)})
    env.reset()
    steps, _ = act(env, [0, 0])
    assert steps.obs[0][:, 2:].tolist() == [[0.5, 0.0], [1.0, 1.0]]
