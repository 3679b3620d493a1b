"""Losses of plugins: with tensors they may do all that torch can, and on arrays they are equal or refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import mlhooks
from builtin_plugins.ppo import PPOOptimizer, PPOTrainer
from mlhooks.errors import PluginError
from mlhooks.plugin import ActorCriticOptimizer, Batch, Run, hookimpl
from tests.fast.recording import needs_native


class Exponential(torch.autograd.Function):
    """e^x with a gradient that is written by hand."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = torch.exp(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        return gradient * y


class OwnLoss(ActorCriticOptimizer):
    """The clipped objective of PPO by everything that needs real tensors."""

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        log_probs, entropies = self.policy.evaluate(batch)
        values = self.values(batch)
        assert isinstance(log_probs, torch.Tensor)
        assert isinstance(values, torch.Tensor)
        ratio = Exponential.apply(log_probs - batch.log_probs)  # type: ignore[no-untyped-call]
        advantages = batch.standardize(batch.advantages)
        limit = torch.where(advantages > 0.0, 1.2, 0.8)
        worse = torch.where(advantages > 0.0, torch.minimum(ratio, limit), torch.maximum(ratio, limit))
        policy_loss = -batch.mean(worse * advantages)
        value_loss = batch.mean(torch.func.vmap(lambda value, wanted: (value - wanted).square())(values, batch.returns))
        return {
            "loss": policy_loss + 0.5 * value_loss - 0.001 * batch.mean(entropies),
            "Losses/Policy Loss": policy_loss,
        }


class OnArrays(OwnLoss):
    array_arithmetic = True


class HalfOnArrays(PPOOptimizer):
    """A loss on arrays of which one part goes through a function that does not follow them."""

    array_arithmetic = True

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        losses = super().loss(batch)
        size = Exponential.apply(self.values(batch)).mean()  # type: ignore[no-untyped-call]
        return {**losses, "loss": losses["loss"] + 0.1 * size}


def train(optimizer: type[ActorCriticOptimizer], folder: Path, steps: int) -> Run:
    class Offer:
        @hookimpl
        def create_optimizer(self, trainer: Any, policy: Any) -> Any:
            return optimizer(policy, trainer.settings) if isinstance(trainer, PPOTrainer) else None

    return mlhooks.train(
        "cartpole_ppo",
        run_id="own",
        results_dir=folder,
        seed=1,
        plugins=[Offer()],
        plugin_names=["no:console", "no:curve"],
        overrides=[f"behaviors.CartPole.max_steps={steps}"],
    )


@pytest.mark.slow
def test_loss_with_all_that_torch_has_learns(tmp_path: Path) -> None:
    (trainer,) = train(OwnLoss, tmp_path, 100_000).trainers.values()
    assert trainer.mean_reward is not None
    assert trainer.mean_reward > 450.0


def test_loss_with_all_that_torch_has_trains(tmp_path: Path) -> None:
    (trainer,) = train(OwnLoss, tmp_path, 2_000).trainers.values()
    assert trainer.updates > 0


@needs_native
@pytest.mark.parametrize(
    ("optimizer", "message"), [(OnArrays, "AssertionError"), (HalfOnArrays, r"another gradient .* critic\.")]
)
def test_loss_that_needs_tensors_is_refused_on_arrays(
    optimizer: type[ActorCriticOptimizer], message: str, tmp_path: Path
) -> None:
    with pytest.raises((PluginError, AssertionError)) as caught:
        train(optimizer, tmp_path, 2_000)
    assert re.search(message, f"{type(caught.value).__name__}: {caught.value}")


@pytest.mark.parametrize(
    ("members", "wanted"),
    [
        ({}, True),
        ({"modules": PPOOptimizer.modules}, True),
        ({"loss": PPOOptimizer.loss}, False),
        ({"values": PPOOptimizer.values}, False),
        ({"loss": PPOOptimizer.loss, "array_arithmetic": True}, True),
        ({"another": len}, True),
    ],
)
def test_subclass_that_changes_the_loss_opts_out_until_it_says_otherwise(members: dict[str, Any], wanted: bool) -> None:
    assert type("Made", (PPOOptimizer,), members).array_arithmetic is wanted
