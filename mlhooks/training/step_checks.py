"""Checks of the numbers that environments send, made for every step before anything of it is stored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from mlagents_envs.base_env import DecisionSteps, TerminalSteps

from mlhooks.errors import NonFiniteError
from mlhooks.fast.switch import kernel

if TYPE_CHECKING:
    from mlhooks.training.acting import ActingHalf

FLOAT32_MAX = float(np.finfo(np.float32).max)

Steps: TypeAlias = DecisionSteps | TerminalSteps


def check_values(half: ActingHalf, worker: int, steps: Steps, *more: np.ndarray) -> None:
    """Refuse numbers that nothing can be learned from, and too few of them, which numpy would repeat.

    Args:
        half: the acting half of the behavior's trainer.
        worker: the index of the worker that sent the steps.
        steps: what it sent.
        more: further columns of the steps, each with an entry for every agent.

    Raises:
        NonFiniteError: an observation or reward is NaN or infinite, or too large to be normalized.
        ValueError: a column has more or fewer entries than there are agents.
    """
    columns = (*steps.obs, steps.reward, steps.group_reward)
    if not have_rows((*columns, *more), len(steps)):
        raise ValueError("there are not as many agents as observations, rewards and other values")
    if not all_finite(columns):
        _refuse_not_finite(half, worker, steps, columns)
    if half.settings.network_settings.normalize:
        for index, obs in enumerate(steps.obs):
            if obs.ndim == 2 and not np.vdot(obs, obs) <= FLOAT32_MAX:
                _refuse_huge(half, worker, steps, index)


@kernel("experience")
def have_rows(columns: Sequence[np.ndarray], rows: int) -> bool:
    """Return whether each of some arrays has so many rows."""
    return all(len(column) == rows for column in columns)


@kernel("experience")
def all_finite(columns: Sequence[np.ndarray]) -> bool:
    """Return whether all numbers of some arrays are finite, as bytes always are."""
    return all(values.dtype == np.uint8 or bool(np.isfinite(values).all()) for values in columns)


def _refuse_not_finite(half: ActingHalf, worker: int, steps: Steps, columns: Sequence[np.ndarray]) -> None:
    for index, values in enumerate(columns):
        if values.dtype == np.uint8 or (finite := np.isfinite(values)).all():
            continue
        bad = ~finite.reshape(len(values), -1).all(axis=1)
        names = [_observation(half, i) for i in range(len(steps.obs))]
        raise NonFiniteError(
            f"Behavior {half.behavior_name!r}: the {[*names, 'reward', 'group reward'][index]} of agents "
            f"{steps.agent_id[bad][:5].tolist()} in worker {worker} is NaN or infinite, at step {half.step:,}. "
            "The environment sent it; nothing was learned from it."
        )


def _refuse_huge(half: ActingHalf, worker: int, steps: Steps, index: int) -> None:
    obs = steps.obs[index]
    where = np.argwhere(np.square(obs, dtype=np.float64) > FLOAT32_MAX)
    if not len(where):
        return
    agent, number = where[0]
    raise NonFiniteError(
        f"Behavior {half.behavior_name!r}: number {number} of {_observation(half, index)} of agent "
        f"{steps.agent_id[agent]} in worker {worker} is {obs[agent, number]:g}, at step {half.step:,}. "
        "`normalize: true` squares numbers, and beside this one's square those of all others would be lost. Let "
        "the environment clip or scale it; nothing was learned from it."
    )


def _observation(half: ActingHalf, index: int) -> str:
    return f"observation {index} ({half.behavior_spec.observation_specs[index].name or 'unnamed'})"
