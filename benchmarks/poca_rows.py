"""The rows of `poca_update.py`, the same for every peer: groups whose members all decide together."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

BRANCH, CONTINUOUS = 5, 2


class Rows(NamedTuple):
    """What agents saw, did and got, tick by tick.

    Attributes:
        obs: [ticks + 1, agents, numbers]; discrete: [ticks, agents, 1]; continuous: [ticks, agents, 2].
        log_probs: [ticks, agents, 3], of continuous actions and the branch.
        reward: [ticks, agents]; group_reward: [ticks, agents], the same for all members.
    """

    obs: np.ndarray
    discrete: np.ndarray
    continuous: np.ndarray
    log_probs: np.ndarray
    reward: np.ndarray
    group_reward: np.ndarray


def make_rows(settings: dict[str, Any]) -> Rows:
    """Return random rows of `groups` groups of `members` agents, so many that they fill `buffer_size`."""
    rng = np.random.default_rng(settings["seed"])
    agents = settings["groups"] * settings["members"]
    ticks = settings["buffer_size"] // agents
    shape = ticks, agents
    shared = rng.standard_normal((ticks, settings["groups"])).repeat(settings["members"], 1)
    return Rows(
        rng.standard_normal((ticks + 1, agents, settings["observations"])).astype(np.float32),
        rng.integers(0, BRANCH, (*shape, 1)),
        rng.standard_normal((*shape, CONTINUOUS)).astype(np.float32),
        np.full((*shape, CONTINUOUS + 1), -1.5, np.float32),
        rng.standard_normal(shape).astype(np.float32),
        shared.astype(np.float32),
    )
