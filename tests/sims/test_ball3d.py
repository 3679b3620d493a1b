"""3DBall against closed forms, computed with rotation matrices from the eight numbers that an agent sees."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mlhooks.sims import Ball3D
from tests.sims.sim_play import act, first_returns


def rotations(obs):
    """Rotation matrices of plates turned about x, then z, from the quaternion's z and x: [agents, 3, 3]."""
    q_z, q_x = obs[:, 0].astype(float), obs[:, 1].astype(float)
    # sin(a/2) cos(b/2) +- cos(a/2) sin(b/2) = sin((a +- b)/2).
    about_z, about_x = np.arcsin(q_z + q_x) + np.arcsin(q_z - q_x), np.arcsin(q_z + q_x) - np.arcsin(q_z - q_x)
    zero, one = np.zeros_like(about_z), np.ones_like(about_z)
    z = np.array(
        [[np.cos(about_z), -np.sin(about_z), zero], [np.sin(about_z), np.cos(about_z), zero], [zero, zero, one]]
    )
    x = np.array(
        [[one, zero, zero], [zero, np.cos(about_x), -np.sin(about_x)], [zero, np.sin(about_x), np.cos(about_x)]]
    )
    return np.einsum("ijn,jkn->nik", z, x)


def degrees(obs):
    """Return the turns about z and x."""
    plate = rotations(obs)
    return np.degrees([np.arctan2(plate[:, 1, 0], plate[:, 0, 0]), np.arcsin(plate[:, 2, 1])]).T


def balance(decisions):
    """Lean against place and speed, gently."""
    obs = decisions.obs[0]
    goal = np.clip(0.08 * obs[:, [2, 4]] + 0.076 * obs[:, [5, 7]], -0.058, 0.058) * [1, -1]
    return np.clip(2.2 * (goal - obs[:, :2]), -1, 1)


def rolling(env, start, slope, *, decisions):
    """Return the observations of balls on resting plates, which must be those of a constant acceleration from rest."""
    seen = []
    for decision in range(1, decisions + 1):
        steps, ended = act(env, np.zeros((len(start), 2)))
        seconds, obs = 0.1 * decision, steps.obs[0]
        assert len(ended) == 0
        np.testing.assert_allclose(obs[:, 2:5], start[:, 2:5] + slope * seconds**2 / 2, atol=1e-5)
        np.testing.assert_allclose(obs[:, 5:8], slope * seconds, atol=1e-5)
        seen.append(obs)
    return seen


def test_ball_on_a_resting_plate_rolls_as_a_solid_sphere_down_a_slope():
    env = Ball3D(num_agents=40, seed=3)
    env.reset()
    start = env.get_steps("3DBall")[0].obs[0].astype(float)
    normal = rotations(start)[:, :, 1]
    slope = 5 / 7 * 9.81 * (normal[:, 1:2] * normal - [0, 1, 0])
    for obs in rolling(env, start, slope, decisions=6):
        np.testing.assert_allclose(obs[:, :2], start[:, :2], atol=1e-6)


class Given:
    """A parameter with the given values."""

    def __init__(self, *values):
        self.values = list(values)

    def draw(self, count):
        drawn, self.values = self.values[:count], self.values[count:]
        return np.array(drawn)


def test_gravity_scale_and_mass_of_each_ball_count_as_in_closed_form():
    scale, gravity = np.array([0.75, 1, 3, 2]), np.array([1.6, 3.7, 9.81, 24.8])
    env = Ball3D(num_agents=4, seed=3)
    env.set_parameters({"scale": Given(*scale), "gravity": Given(*gravity), "mass": Given(1, 2, 3, 50)})
    env.reset()
    start = env.get_steps("3DBall")[0].obs[0].astype(float)
    normal = rotations(start)[:, :, 1]
    # The centre is half a plate and a radius from the point of turning, along the plate's normal.
    np.testing.assert_allclose((normal * start[:, 2:5]).sum(axis=1), 2.5 + scale / 2, atol=1e-5)
    slope = 5 / 7 * gravity[:, None] * (normal[:, 1:2] * normal - [0, 1, 0])
    assert len(rolling(env, start, slope, decisions=3)) == 3


def test_parameters_count_from_an_agent_s_next_episode_on():
    env = Ball3D(num_agents=12, seed=5)
    env.reset()
    env.set_parameters({"scale": Given(*[3.0] * 99), "unknown": Given()})
    changed = np.zeros(12, dtype=bool)
    while not changed.all():
        steps, ended = act(env, np.ones((12, 2)))
        changed[ended.agent_id] = True
        obs = steps.obs[0].astype(float)
        distance = (rotations(obs)[:, :, 1] * obs[:, 2:5]).sum(axis=1)
        np.testing.assert_allclose(distance, np.where(changed, 4.0, 3.0), atol=1e-4)


def test_ball_stays_in_the_plane_of_a_moving_plate():
    env = Ball3D(num_agents=40, seed=1)
    env.reset()
    rng = np.random.default_rng(2)
    for _ in range(50):
        obs = act(env, rng.uniform(-1, 1, (40, 2)))[0].obs[0].astype(float)
        normal = rotations(obs)[:, :, 1]
        np.testing.assert_allclose((normal * obs[:, 2:5]).sum(1), 3.0, atol=1e-5)
        np.testing.assert_allclose((normal * obs[:, 5:8]).sum(1), 0.0, atol=1e-5)


def test_full_action_turns_the_plate_ten_degrees_up_to_its_limit():
    env = Ball3D(num_agents=40, seed=0)
    env.reset()
    start = degrees(env.get_steps("3DBall")[0].obs[0])
    limit = 2 * math.degrees(math.asin(0.25))
    still = np.ones(40, bool)
    for decision in range(1, 5):
        # The first action is turned down to 1.
        steps, ended = act(env, [[5.0, -0.5]] * 40)
        still[ended.agent_id] = False
        wanted = np.clip(start + np.array([10.0, -5.0]) * decision, -limit, limit)
        np.testing.assert_allclose(degrees(steps.obs[0])[still], wanted[still], atol=1e-3)
    assert still.sum() > 5


def test_episode_ends_when_the_ball_passes_the_edge_of_the_plate():
    env = Ball3D(num_agents=60, seed=5)
    env.reset()
    falls = 0
    for _ in range(60):
        steps, ended = act(env, np.zeros((60, 2)))
        on = np.einsum("nji,nj->ni", rotations(steps.obs[0]), steps.obs[0][:, 2:5])
        off = np.einsum("nji,nj->ni", rotations(ended.obs[0]), ended.obs[0][:, 2:5])
        assert np.abs(on[:, [0, 2]]).max() <= 2.5 + 1e-5
        assert (np.abs(off[:, [0, 2]]).max(axis=1) >= 2.5 - 1e-5).all()
        assert (ended.reward == -1).all()
        assert not ended.interrupted.any()
        falls += len(ended)
    assert falls > 60


def test_balanced_ball_earns_100_and_is_interrupted_after_1000_decisions():
    env = Ball3D(seed=7)
    env.reset()
    decisions, _ = env.get_steps("3DBall")
    total = np.zeros(12)
    for decision in range(1, 1001):
        decisions, ended = act(env, balance(decisions))
        total += decisions.reward
        assert len(ended) == (12 if decision == 1000 else 0)
    assert ended.interrupted.all()
    np.testing.assert_allclose(total + ended.reward, 100.0, atol=1e-3)


@pytest.mark.parametrize("policy", ["zero", "random"])
def test_zero_and_random_actions_score_below_5_on_3dball(policy):
    rng = np.random.default_rng(0)
    env = Ball3D(num_agents=200, seed=11)
    low = first_returns(env, lambda _: rng.uniform(-1, 1, (200, 2)) * (policy == "random"))
    assert low.mean() < 5
