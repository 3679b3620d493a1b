"""The loss of a policy-gradient method on variations of one rollout, and gradients to compare."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mlhooks.nn.heads import counted_entropies, whole_actions
from mlhooks.testing.assertions import fail
from mlhooks.testing.specs import make_behavior_spec
from mlhooks.testing.tasks import any_kind
from mlhooks.testing.trainer_loop import Play
from mlhooks.testing.trainer_trial import Trial
from mlhooks.training.batch import Batch
from mlhooks.training.hyperparameters import hyperparameter
from mlhooks.training.on_policy import OnPolicyTrainer
from mlhooks.training.optimizer import ActorCriticOptimizer, TorchOptimizer
from mlhooks.training.policy import ActorPolicy


class VariedLoss:
    """A trainer with one rollout, and its optimizer's loss on variations of it.

    Attributes:
        batch: the rollout, as the trainer hands it to its optimizer.
        actor, critic: trainable parameters; the critic's are none without a critic, or where it shares the encoder.
    """

    def __init__(self, trial: Trial, *, normalize: bool = False, **hyperparameters: Any) -> None:
        kinds: dict[str, Any] = {"branches": (3,) if trial.kind.supports.discrete else (), "continuous": 2}
        if not trial.kind.supports.continuous:
            kinds["continuous"] = 0
        env = any_kind(make_behavior_spec((5,), **kinds), masked=bool(kinds["branches"]))(agents=64)
        network = {"normalize": normalize}
        trainer = trial.trainer(env.spec, gamma=0.9, hyperparameters=hyperparameters, network_settings=network)
        if not isinstance(trainer, OnPolicyTrainer) or not isinstance(trainer.policy, ActorPolicy):
            pytest.skip("it is no policy gradient on OnPolicyTrainer and ActorPolicy")
        if not isinstance(trainer.optimizer, TorchOptimizer):
            pytest.skip("its optimizer is no TorchOptimizer")
        self.trainer, self.policy, self.optimizer = trainer, trainer.policy, trainer.optimizer
        self._scatter()
        play = Play(trainer, env)
        if normalize:
            play.updates(1)
        play.until_ready()
        self.optimizer.set_step(0)
        self.batch: Batch = trainer.learning.rollout(trainer.store)
        self.actor = list(self.policy.actor.parameters())
        shared = hyperparameter(trainer.settings, "shared_critic")
        critic = self.optimizer.critic if isinstance(self.optimizer, ActorCriticOptimizer) and not shared else None
        self.critic = [] if critic is None else list(critic.parameters())

    @torch.no_grad()
    def _scatter(self) -> None:
        """Move the policy away from the uniform one with which networks begin: there, much is zero by symmetry."""
        generator = torch.Generator().manual_seed(3)
        for parameter in self.policy.actor.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
        self.policy.weights_changed()

    def advantages(self) -> Tensor:
        """Return as many 1 as -1, in random order: [rows, 1]."""
        signs = torch.ones(len(self.batch), 1)
        signs[: len(signs) // 2] = -1.0
        return signs[torch.randperm(len(signs), generator=torch.Generator().manual_seed(4))]

    def entropies(self) -> list[Tensor]:
        """Return the policy's mean entropy in the batch in each way in which it may be counted.

        These are over whole actions, as ML-Agents does, and over action dimensions.
        """
        _, entropies = self.policy.evaluate(self.batch)
        counted = counted_entropies(entropies, self.policy.behavior_spec.action_spec)
        return [whole_actions(entropies).mean(), counted.mean(), entropies.mean()]

    def loss(self, batch: Batch, name: str) -> Tensor:
        """Return one of the losses; skip where there is none of that name."""
        losses = self.optimizer.loss(batch)
        if name not in losses:
            pytest.skip(f"its loss() reports no {name!r}")
        if not losses[name].requires_grad:
            fail(f"{name!r} of loss() has no gradient: report it before `detach()`.")
        return losses[name]


def gradient(value: Tensor, of: list[torch.nn.Parameter]) -> Tensor:
    """Return the gradient with respect to parameters, as one vector; zero where it does not depend on one."""
    parts = torch.autograd.grad(value, of, retain_graph=True, allow_unused=True)
    return torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for p, g in zip(of, parts, strict=True)])


def cosine(a: Tensor, b: Tensor) -> float:
    """Return how far two gradients point the same way: 1 the same, -1 the opposite."""
    return float(torch.dot(a, b) / (a.norm() * b.norm()).clamp(min=1e-12))


def share(found: Tensor, rise: Tensor) -> float:
    """Return the factor by which a gradient has another one in it."""
    return float(torch.dot(found, rise) / rise.square().sum())
