"""Checks of learning: small tasks within a budget, and values that are known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from mlhooks.nn.attention import SelfAttention
from mlhooks.nn.encoders import GoalEncoder
from mlhooks.testing.assertions import demand
from mlhooks.testing.extra_reward_signals import MoreSignals
from mlhooks.testing.scripted import ScriptedEnv
from mlhooks.testing.tasks import (
    Aim,
    Branches,
    Delayed,
    Entities,
    Goal,
    Masked,
    Mixed,
    OneStep,
    Process,
    TimeLimit,
    TwoSignals,
)
from mlhooks.testing.trainer_loop import Play, score
from mlhooks.testing.trainer_trial import Trial
from mlhooks.training.trainer import Trainer

SEEDS = (1, 2, 3)
PERIOD = 500
IN_A_ROW = 4
TOLERANCE = 0.08
SLOW = "If it is only slow: conformance_settings may name a higher learning rate, or more max_steps."


@pytest.mark.parametrize("seed", SEEDS)
def test_learns_one_step(trial: Trial, seed: int) -> None:
    """It learns which of three actions is rewarded in each of four situations."""
    learns(trial, OneStep, seed, "Is the sign of the loss right, and the reward's?")


@pytest.mark.parametrize("seed", SEEDS)
def test_learns_what_a_goal_signal_asks_for(trial: Trial, seed: int) -> None:
    """It learns which of three actions is rewarded in each of four situations, under each of two goals."""
    if not trial.acts_by(GoalEncoder, Goal.spec):
        pytest.skip("its policy has no part of its own for goals")
    learns(trial, Goal, seed, "Do the networks read goal signals, or get weights from them?")


@pytest.mark.parametrize("seed", SEEDS[:1])
def test_learns_from_entities(trial: Trial, seed: int) -> None:
    """It learns an action that the largest of one to four entities tells, wherever that stands among them."""
    if not trial.acts_by(SelfAttention, Entities.spec):
        pytest.skip("it does not read entities, or not by attention")
    learns(trial, Entities, seed, "Do the networks compare entities, and leave padding out?")


@pytest.mark.parametrize("seed", SEEDS)
def test_learns_from_two_signals(trial: Trial, seed: int) -> None:
    """It learns from a reward signal beside the environment's rewards, where each of both tells a half of the task."""
    both = {"extrinsic": {"gamma": TwoSignals.gamma}, "elsewhere": {"gamma": 0.5}}
    hint = "Do the advantages or returns of all reward signals count, and the rewards of each?"
    learns(trial, TwoSignals, seed, hint, judge=OneStep, reward_signals=both, plugins=[MoreSignals()])


@pytest.mark.parametrize("seed", SEEDS)
def test_learns_delayed_reward(trial: Trial, seed: int) -> None:
    """It learns a decision whose reward comes three decisions later."""
    learns(trial, Delayed, seed, "Does the reward reach earlier decisions: returns, advantages, bootstrapped targets?")


@pytest.mark.parametrize("seed", SEEDS)
def test_learns_with_masked_actions(trial: Trial, seed: int) -> None:
    """It does not value a place by an action that is forbidden to those who go there."""
    learns(trial, Masked, seed, "Does the value of what follows leave forbidden actions out?")


@pytest.mark.parametrize("seed", SEEDS)
def test_learns_several_branches(trial: Trial, seed: int) -> None:
    """It learns two discrete actions at once, each from its own part of the reward."""
    learns(trial, Branches, seed, "Does each branch learn from its own choice?")


@pytest.mark.parametrize("seed", SEEDS)
def test_learns_hybrid_actions(trial: Trial, seed: int) -> None:
    """It learns a continuous and a discrete action at once."""
    learns(trial, Mixed, seed, "Are the log-probabilities of both kinds of action added?")


@pytest.mark.parametrize("seed", SEEDS)
def test_learns_continuous_actions(trial: Trial, seed: int) -> None:
    """It learns to hit two targets that an observation tells."""
    learns(trial, Aim, seed, "Are log-probabilities those of the actions before clipping?")


@pytest.mark.parametrize("seed", SEEDS)
def test_interruption_is_not_an_end(trial: Trial, seed: int) -> None:
    """It prefers what is worth more without the step limit, and would be worth less if an interruption were an end."""
    _skip_unless(trial, TimeLimit)
    scores: list[float] = []

    def learned(trainer: Trainer) -> bool:
        scores.append(score(trainer, TimeLimit(seed=99)))
        return scores[-1] < TimeLimit.right_below

    demand(
        _within_budget(trial, TimeLimit, seed, learned),
        f"In {trial.budget:,} steps (seed {seed}) it did not come to prefer the action whose episodes are only cut by "
        f"a step limit: its deterministic policy came to a mean return of {scores[-1]:.2f} in TimeLimit, where "
        f"{TimeLimit.REWARD[0]:.2f} is right. Does the value of the final observation count after an interrupted step, "
        f"and no value at all after a terminal one? {SLOW}",
    )


def test_values_are_the_true_ones(trial: Trial, variant: dict[str, Any]) -> None:
    """Its value estimates in a process with known rewards, ends and interruptions come to the true ones."""
    _skip_unless(trial, Process)
    if values_of(trial.trainer(Process.spec)) is None:
        pytest.skip("it has no value estimates: neither optimizer.estimate(features) nor policy.network")
    truth = Process.true_values(Process.gamma)
    tolerance = 2 * TOLERANCE if variant else TOLERANCE  # Where actor and critic share layers, values are noisier.
    last: list[np.ndarray] = []

    def learned(trainer: Trainer) -> bool:
        values = values_of(trainer)
        assert values is not None
        last.append(values)
        return bool(np.abs(values - truth).max() < tolerance)

    done = any(  # What is right may miss a value with one seed, what is wrong misses it with all.
        _within_budget(trial, Process, seed, learned, hyperparameters=variant, time_horizon=3) for seed in (1, 2)
    )
    worst = int(np.abs(last[-1] - truth).argmax())
    demand(
        done,
        f"With gamma {Process.gamma} and {variant or 'conformance_settings'} its values came in {trial.budget:,} steps "
        f"to {_shown(last[-1])}, and the true ones are {_shown(truth)}. The worst is that of place {worst}, "
        f"{PLACES[worst]}: it is off by {abs(last[-1] - truth)[worst]:.2f}, where {tolerance:.2f} is allowed. Are the "
        f"discount right, what follows ends and interruptions, and the observation that a value belongs to? {SLOW}",
    )


def _shown(values: np.ndarray) -> str:
    return ", ".join(f"{value:.2f}" for value in values)


PLACES = (
    "the start of the way to the end",
    "one that is rewarded by 0.5",
    "three before the end",
    "two before the end",
    "the last before the end, rewarded by 1",
    "the one before the interruption",
    "the last before the interruption, where the value of the final observation counts",
)


def learns(
    trial: Trial,
    task: type[ScriptedEnv],
    seed: int,
    hint: str,
    *,
    judge: type[ScriptedEnv] | None = None,
    **settings: Any,
) -> None:
    """Demand that a task is learned within the budget, as the returns in `judge` tell, or else in the task itself."""
    _skip_unless(trial, task)
    scores: list[float] = []
    scored = judge or task

    def learned(trainer: Trainer) -> bool:
        scores.append(score(trainer, scored(agents=64, seed=99)))
        return scores[-1] >= scored.enough

    demand(
        _within_budget(trial, task, seed, learned, **settings),
        f"In {trial.budget:,} steps (seed {seed}) its deterministic policy came to a mean return of {scores[-1]:.2f} "
        f"in {task.__name__}, where {scored.enough} is enough. {hint} {SLOW}",
    )


def _within_budget(
    trial: Trial, task: type[ScriptedEnv], seed: int, learned: Callable[[Trainer], bool], **settings: Any
) -> bool:
    """Return whether it learns a task within the budget, and has still learned it some time later."""
    play: Play = trial.play(task(seed=seed), seed=seed, **settings)
    row = 0
    for step in range(PERIOD, trial.budget + 1, PERIOD):
        play.until(step)
        row = row + 1 if learned(play.trainer) else 0
        if row == IN_A_ROW and step >= trial.budget / 6:
            return True
    return row > 0


def _skip_unless(trial: Trial, task: type[ScriptedEnv]) -> None:
    if not trial.takes(task.spec):
        pytest.skip(f"it does not take the actions of {task.__name__}")


@torch.no_grad()
def values_of(trainer: Trainer) -> np.ndarray | None:
    """Estimate the values of the places of `Process` by a critic or action values; None where there are none."""
    features = trainer.policy.features([np.eye(7, dtype=np.float32)])
    estimate: Any = getattr(trainer.optimizer, "estimate", None)
    if callable(estimate):
        values = estimate(features).cpu().numpy()
        normalizer = getattr(trainer.learning, "return_normalizer", None)
        if normalizer is not None:  # Values are then of rewards that were divided by this deviation.
            values = values / normalizer.shift_scale()[1]
        return np.asarray(values.mean(axis=1))
    network = getattr(trainer.policy, "network", None)
    if isinstance(network, torch.nn.Module):
        return np.asarray(network(features).max(dim=1).values.cpu().numpy())
    return None
