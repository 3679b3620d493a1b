"""Helpers that play simulations, for the tests of the simulations."""

from __future__ import annotations

import numpy as np
from mlagents_envs.base_env import ActionTuple


def act(env, values):
    """Set actions and step; `values` is [agents, action size] or [agents] for one branch."""
    spec = env.SPEC.action_spec
    values = np.asarray(values).reshape(env.num_agents, -1)
    env.set_actions(env.NAME, ActionTuple(**{"continuous" if spec.is_continuous() else "discrete": values}))
    env.step()
    return env.get_steps(env.NAME)


def random_actions(env, rng):
    spec = env.SPEC.action_spec
    if spec.is_continuous():
        return rng.uniform(-1, 1, (env.num_agents, spec.continuous_size))
    allowed = ~masks_of(env)
    return np.array([rng.choice(np.flatnonzero(row)) for row in allowed])


def masks_of(env):
    mask = env.get_steps(env.NAME)[0].action_mask
    return np.zeros((env.num_agents, *env.SPEC.action_spec.discrete_branches), bool) if mask is None else mask[0]


def first_returns(env, policy):
    """Return the return of each agent's first episode under policy(decision_steps)."""
    env.reset()
    decisions, _ = env.get_steps(env.NAME)
    total, result = np.zeros(env.num_agents), np.full(env.num_agents, np.nan)
    for _ in range(env.MAX_STEPS):
        decisions, ended = act(env, policy(decisions))
        total += decisions.reward
        for agent, reward in zip(ended.agent_id, ended.reward, strict=True):
            if np.isnan(result[agent]):
                result[agent] = total[agent] + reward
    assert not np.isnan(result).any()
    return result
