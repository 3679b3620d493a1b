"""Checks of the episodes of an environment kind: what ends them, and which rewards are theirs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from mlagents_envs.base_env import BaseEnv

from mlhooks.testing.assertions import demand
from mlhooks.testing.environments import Steps, make, walk
from mlhooks.testing.target import Target

AREAS = 12
TICKS = 300
LONG = 20
"""Ticks from which on it is no accident that all episodes have one length."""
ENOUGH = 12
APART = 0.9
"""Largest distance of two distribution functions at which rewards still count as alike."""


class Ended(NamedTuple):
    """An episode that ended: how many ticks it lasted, and whether it was interrupted."""

    length: int
    interrupted: bool


@pytest.fixture
def env(mlhooks_target: Target, environment: str, scratch: Path) -> Iterator[BaseEnv]:  # noqa: ARG001
    """One worker's environment with several areas."""
    made = make(mlhooks_target, environment, num_areas=AREAS)
    yield made
    made.close()


def ended(course: Iterator[Steps]) -> list[Ended]:
    """Return the episodes that ended on a walk."""
    began: dict[int, int] = {}
    found = []
    for tick, shown in enumerate(course):
        for decisions, terminals in shown.values():
            for agent, interrupted in zip(terminals.agent_id.tolist(), terminals.interrupted.tolist(), strict=True):
                found.append(Ended(tick - began.pop(agent, tick), interrupted))
            for agent in decisions.agent_id.tolist():
                began.setdefault(agent, tick)
    return found


def test_interrupted_are_those_that_a_step_limit_cuts(env: BaseEnv) -> None:
    """Episodes that end at one length whatever is done are interrupted, and those that end before it are terminal."""
    list(walk(env, 7))  # A reset() in the middle must not shorten the next episodes.
    random, idle = ended(walk(env, TICKS)), ended(walk(env, TICKS, idle=1.0))
    cut = [episode.length for episode in random + idle if episode.interrupted]
    demand(
        not cut or max(cut) - min(cut) <= 1,
        f"Episodes of {min(cut, default=0)} to {max(cut, default=0)} ticks are interrupted. Interrupted is what a step "
        "limit cuts, at one length; other ends are terminal. Are the two exchanged, or is the age of an episode wrong?",
    )
    longer = max((e.length for e in random + idle if not e.interrupted), default=0)
    demand(
        not cut or longer <= max(cut) + 1,
        f"Episodes are interrupted after {max(cut, default=0)} ticks, and another one lasted {longer}.",
    )
    for walked in (random, idle):
        lengths = {episode.length for episode in walked}
        terminal = all(not episode.interrupted for episode in walked)
        demand(
            len(walked) < 3 or len(lengths) > 1 or min(lengths) < LONG or not terminal or longer > max(lengths),
            f"All {len(walked)} episodes end after {max(lengths, default=0)} ticks, as terminal. If a step limit cuts "
            "them, they are interrupted: the value of what would follow counts.",
        )


def test_rewards_belong_to_their_own_episode(mlhooks_target: Target, environment: str, env: BaseEnv) -> None:
    """The first reward of an episode does not depend on whether another episode ended before it."""
    fresh: list[float] = []
    for seed in range(4):
        new = make(mlhooks_target, environment, num_areas=AREAS, seed=seed)
        fresh += _first_rewards(walk(new, 2, seed=seed))[0]
        new.close()
    after, later = _first_rewards(walk(env, TICKS))[1:]
    if min(len(fresh), len(after)) < ENOUGH:
        pytest.skip("too few episodes began to tell")
    apart = _distance(np.array(fresh), np.array(after))
    demand(
        apart <= APART,
        f"The first rewards in new environments have a mean of {np.mean(fresh):.3g}, and those of episodes that "
        f"follow another one {np.mean(after):.3g}: does the last reward of an episode arrive one tick late?",
    )
    demand(
        any(fresh) or any(after) or not later or not all(later),
        "The first reward of every episode is 0, and no later one is: do rewards arrive one tick late?",
    )


def _first_rewards(course: Iterator[Steps]) -> tuple[list[float], list[float], list[float]]:
    """Return rewards of first decisions after a reset, of first decisions after another episode, and of later ones."""
    rewards: tuple[list[float], list[float], list[float]] = ([], [], [])
    decided: dict[int, int] = {}
    seen: set[int] = set()
    for shown in course:
        for decisions, terminals in shown.values():
            for steps in (terminals, decisions):
                for agent, reward in zip(steps.agent_id.tolist(), steps.reward.tolist(), strict=True):
                    count = decided.get(agent, 0)
                    if count:
                        rewards[2 if count > 1 else int(agent in seen)].append(reward)
                    decided[agent] = count + 1
                if steps is terminals:
                    seen |= set(terminals.agent_id.tolist())
                    for agent in terminals.agent_id.tolist():
                        decided[agent] = 0
    return rewards


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    """Return the largest distance of two empirical distribution functions (Kolmogorov and Smirnov)."""
    at = np.concatenate([a, b])
    below = [np.searchsorted(np.sort(x), at, side="right") / len(x) for x in (a, b)]
    return float(np.abs(below[0] - below[1]).max())
