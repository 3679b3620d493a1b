"""Checks of the clipping of probability ratios and value estimates, as PPO does it (Schulman et al. 2017)."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from mlhooks.testing.assertions import demand
from mlhooks.testing.checks.policy_gradients import POLICY_LOSS, VALUE_LOSS
from mlhooks.testing.trainer_trial import Trial
from mlhooks.testing.varied_loss import VariedLoss, cosine, gradient, share
from mlhooks.training.optimizer import ActorCriticOptimizer


class Ratios:
    """Probability ratios on both sides of what is clipped, for whole actions or for each action dimension.

    Args:
        varied: the loss of a trainer that has `epsilon`.
        of_whole_actions: whether a ratio is that of a whole action, so that each dimension has a root of it.
    """

    def __init__(self, varied: VariedLoss, *, of_whole_actions: bool) -> None:
        self.varied, self.advantages = varied, varied.advantages()
        self.log_probs, _ = varied.policy.evaluate(varied.batch)
        self.root = self.log_probs.shape[1] if of_whole_actions else 1

    def gradient(self, ratio: float, chosen: Tensor) -> Tensor:
        """Return the gradient of the policy loss where some rows [rows, 1] have a ratio, and all others the ratio 1."""
        now = self.log_probs.detach()
        moved = torch.where(chosen, now - math.log(ratio) / self.root, now)
        batch = replace(self.varied.batch, advantages=self.advantages, log_probs=moved)
        return gradient(self.varied.loss(batch, POLICY_LOSS), self.varied.actor)

    def unclipped(self, chosen: Tensor, like: Tensor) -> Tensor:
        """Return the gradient of some rows at ratio 1, of the size that it has in the gradient of all rows."""
        whole = gradient(-(self.log_probs * self.advantages).mean(), self.varied.actor)
        scale = share(like, whole)
        return scale * gradient(-(self.log_probs * self.advantages * chosen).mean(), self.varied.actor)

    def problem(self) -> str | None:
        """Say what is wrong on one of the sides; None where all is right."""
        at_one = self.gradient(1.0, self.advantages > 0)
        for ratio, sign, stops in ((2.0, 1, True), (0.5, -1, True), (0.5, 1, False), (2.0, -1, False)):
            chosen = self.advantages == sign
            others, pushed = self.unclipped(~chosen, at_one), self.unclipped(chosen, at_one)
            found = self.gradient(ratio, chosen) - others
            where = f"Where the probability ratio is {ratio} and the advantage {'positive' if sign > 0 else 'negative'}"
            if stops and float(found.norm() / pushed.norm()) >= 0.1:
                return f"{where}, the policy loss must have no gradient (Schulman et al. 2017, equation 7)."
            if not stops and cosine(found, pushed) <= 0.9:
                return f"{where}, the policy loss must push back (equation 7)."
        return None


def test_clips_the_ratio_on_both_sides(trial: Trial) -> None:
    """With `epsilon`, an action that has become too likely is not pushed further, nor one that is too unlikely."""
    if not trial.has("epsilon"):
        pytest.skip("it has no hyperparameter epsilon, with which PPO clips the ratio")
    for joint in joint_or_not(trial):
        varied = VariedLoss(trial, epsilon=0.2, **joint)
        problems = [Ratios(varied, of_whole_actions=whole).problem() for whole in (False, True)]
        demand(None in problems, str(problems[0]))


def joint_or_not(trial: Trial) -> list[dict[str, Any]]:
    """Return the values of `joint_actions` to try, where it has such a hyperparameter."""
    return [{"joint_actions": joint} for joint in (False, True)] if trial.has("joint_actions") else [{}]


def test_clipping_follows_its_schedule(trial: Trial) -> None:
    """With a linear epsilon_schedule the ratio is clipped at 1.2 in the beginning, and at 1.1 in the end."""
    if not trial.has("epsilon", "epsilon_schedule"):
        pytest.skip("it has no hyperparameters epsilon and epsilon_schedule")
    for joint in joint_or_not(trial):
        varied = VariedLoss(trial, epsilon=0.2, epsilon_schedule="linear", **joint)
        problems = [_schedule_problem(trial, varied, of_whole_actions=whole) for whole in (False, True)]
        demand(None in problems, str(problems[0]))


def _schedule_problem(trial: Trial, varied: VariedLoss, *, of_whole_actions: bool) -> str | None:
    ratios = Ratios(varied, of_whole_actions=of_whole_actions)
    better = ratios.advantages > 0
    varied.optimizer.set_step(trial.budget)
    others = ratios.unclipped(~better, ratios.gradient(1.0, better))
    end = ratios.gradient(1.15, better)
    if cosine(end, others) <= 0.98 or float((end - others).norm()) >= 0.1 * float(others.norm()):
        return "At max_steps a ratio of 1.15 is not clipped, though a linear epsilon_schedule has come to 0.1 by then."
    varied.optimizer.set_step(0)
    start = ratios.gradient(1.15, better)
    if float((start - others).norm()) <= 0.1 * float(start.norm()):
        return "At step 0 a ratio of 1.15 is clipped, though epsilon is 0.2."
    return None


def test_clips_value_estimates(trial: Trial) -> None:
    """With `value_clipping`, an estimate that has moved by more than epsilon is moved no further, and may come back."""
    if not trial.has("epsilon", "value_clipping"):
        pytest.skip("it has no hyperparameters epsilon and value_clipping")
    varied = VariedLoss(trial, epsilon=0.2, value_clipping=True)
    if not varied.critic:
        pytest.skip("it has no critic of its own")
    assert isinstance(varied.optimizer, ActorCriticOptimizer)
    values = varied.optimizer.values(varied.batch).detach()
    for target, stops in ((values + 3.0, True), (values - 1.0, False)):
        batch = replace(varied.batch, values=values - 1.0, returns=target)
        size = float(gradient(varied.loss(batch, VALUE_LOSS), varied.critic).norm())
        where = "further away" if stops else "back"
        demand((size < 1e-6) == stops, f"An estimate that has moved by 1 has a value gradient of {size:.2g} {where}.")
