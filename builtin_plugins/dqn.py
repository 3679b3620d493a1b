"""Deep Q-learning (Mnih et al. 2015, https://doi.org/10.1038/nature14236) and what became usual with it.

With a memory it learns from sequences as recurrent replay does (Hausknecht and Stone 2015,
https://arxiv.org/abs/1507.06527; Kapturowski et al. 2019, https://openreview.net/forum?id=r1lyTjAqYX).

Double Q-learning (van Hasselt et al. 2016, https://arxiv.org/abs/1509.06461), dueling heads (Wang et al. 2016,
https://arxiv.org/abs/1511.06581), n-step returns (Sutton 1988), and one value head per action branch (Tavakoli et al.
2018, https://arxiv.org/abs/1711.08946).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from mlagents_envs.base_env import ActionTuple
from torch import Tensor, nn
from torch.nn import functional

from mlhooks.plugin import (
    MASKED_LOGIT,
    Batch,
    Field,
    OffPolicyHyperparameters,
    OffPolicyTrainer,
    QNetwork,
    QPolicy,
    Schedule,
    ScheduleType,
    Supports,
    TorchOptimizer,
    Trainer,
    TrainerSettings,
    extension,
    hookimpl,
)


class DQNSettings(OffPolicyHyperparameters):
    """Hyperparameters of `trainer_type: dqn`; names and defaults are those of ML-Agents' example trainer."""

    gamma: float = Field(0.99, ge=0, le=1, description="Discount factor; in place of the reward signals' own.")
    exploration_schedule: ScheduleType = Field(ScheduleType.LINEAR, description="How epsilon changes.")
    exploration_initial_eps: float = Field(0.1, ge=0, le=1, description="Share of random actions at the start.")
    exploration_final_eps: float = Field(0.05, ge=0, le=1, description="Share of random actions in the end.")
    target_update_interval: int = Field(10000, ge=1, description="Steps between copies to the target; if tau is 1.")
    tau: float = Field(0.005, gt=0, le=1, description="How far the target network moves at each update.")
    exploration_steps: int | None = extension(None, ge=1, description="Steps in which epsilon falls; null: max_steps.")
    n_step: int = extension(1, ge=1, description="Rewards in a return before the bootstrapped value.")
    double_q: bool = extension(False, description="Let the online network choose the action that the target values.")
    dueling: bool = extension(False, description="Estimate a state's value apart from the actions' advantages.")
    burn_in: int = extension(
        0, ge=0, description="Rows at the beginning of a sequence that only bring the memory up to date."
    )
    max_grad_norm: float | None = extension(
        None, gt=0, description="Clip the norm of the gradient to this; null leaves it alone."
    )


class DQNOptimizer(TorchOptimizer):
    """The Huber loss between Q values and bootstrapped targets, and the target network."""

    policy: QPolicy
    reads_bytes = True
    array_arithmetic = True

    def __init__(self, policy: QPolicy, settings: TrainerSettings) -> None:
        super().__init__(policy, settings)
        h = settings.hyperparameters
        assert isinstance(h, DQNSettings)
        self.tau, self.interval, self.double_q = h.tau, h.target_update_interval, h.double_q
        self.target = copy.deepcopy(policy.network).requires_grad_(False)
        self.copied_at = 0
        self.starts = torch.tensor([columns.start for columns in policy.network.branches], device=policy.device)

    def modules(self) -> dict[str, nn.Module]:
        """Return the target network."""
        return {"target": self.target}

    def following(self, network: QNetwork, batch: Batch) -> Tensor:
        """Return a network's values [rows, actions] of what follows each row, n steps later.

        With a memory it passes over whole sequences, in which what follows is further on (Hausknecht and Stone 2015).
        """
        values: Tensor
        if self.policy.memory_size:
            values = network(batch.features, batch.memory, batch.width, batch.lengths)
            return values[batch.following]
        values = network(batch.next_features)
        return values

    def targets(self, batch: Batch) -> Tensor:
        """Return targets [rows]: rewards plus discounted next values, averaged over branches (Tavakoli, eq. 5)."""
        with torch.no_grad():
            values = self.following(self.target, batch)
            scores = self.following(self.policy.network, batch) if self.double_q else values
            if batch.next_mask is not None:
                scores = scores.masked_fill(batch.next_mask, MASKED_LOGIT)
            branches = self.policy.network.branches
            parts = [(values, scores)] if len(branches) == 1 else [(values[:, c], scores[:, c]) for c in branches]
            best = [v.gather(1, s.argmax(1, keepdim=True)).squeeze(1) if self.double_q else s.amax(1) for v, s in parts]
            following = best[0] if len(best) == 1 else torch.stack(best, 1).mean(1)
            if batch.discounts.shape[1] == 1:
                return following * batch.discounts.view(-1) + batch.signal_rewards.view(-1)
            # One value is that of all signals, so that nothing follows an end which any of them heeds.
            return following * batch.discounts.amin(1) + batch.signal_rewards.sum(1)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return the error of the values of the actions that were taken."""
        targets = self.targets(batch)
        remembered: Any = (batch.memory, batch.width, batch.lengths) if self.policy.memory_size else ()
        values = self.policy.network(batch.features, *remembered)
        index = batch.discrete if len(self.policy.network.branches) == 1 else batch.discrete + self.starts
        taken = values.gather(1, index)
        targets = targets.unsqueeze(1).expand_as(taken)
        loss = batch.mean(functional.smooth_l1_loss(taken, targets, reduction="none"))
        return {"loss": loss, "Losses/Value Loss": loss, "Policy/Value Estimate": batch.mean(taken)}

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """Take a step on the loss, then move the target network: by `tau`, or at each interval to a copy."""
        if self.tau == 1.0 and self.step - self.copied_at >= self.interval:
            self.copied_at = self.step
            self._move_target()
        losses = super().update(batch)
        if self.tau < 1.0:
            self._move_target()
        return losses

    @torch.no_grad()
    def _move_target(self) -> None:
        for target, online in zip(self.target.parameters(), self.policy.network.parameters(), strict=True):
            target.lerp_(online, self.tau)

    def state_dict(self) -> dict[str, Any]:
        """Return the torch optimizer's state and when the target was copied."""
        return {**super().state_dict(), "copied_at": self.copied_at}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        super().load_state_dict(state)
        self.copied_at = state["copied_at"]


class DQNTrainer(OffPolicyTrainer):
    """Explores by a schedule of epsilon."""

    hyperparameters_type = DQNSettings
    supports = Supports(continuous=False, threaded=True, memory=True)
    policy_type = QPolicy
    optimizer_type = DQNOptimizer
    policy: QPolicy

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        h = self.settings.hyperparameters
        assert isinstance(h, DQNSettings)
        steps = h.exploration_steps or self.settings.max_steps
        self.epsilon = Schedule(h.exploration_schedule, h.exploration_initial_eps, h.exploration_final_eps, steps)

    def act(self) -> Iterator[tuple[int, str, ActionTuple]]:
        """Decide for all agents that wait, with this step's epsilon."""
        self.policy.epsilon = self.epsilon(self.step)
        return super().act()


@hookimpl
def get_trainer_types() -> dict[str, type[Trainer]]:
    """Offer `dqn`."""
    return {"dqn": DQNTrainer}


@hookimpl
def summary_stats(trainer: Trainer, step: int) -> dict[str, float]:
    """Report schedules and the fill of the replay buffer."""
    if not isinstance(trainer, DQNTrainer) or not isinstance(trainer.optimizer, TorchOptimizer):
        return {}
    return {
        "Policy/Learning Rate": trainer.optimizer.learning_rate(step),
        "Policy/Epsilon": trainer.epsilon(step),
        "Policy/Replay Fill": trainer.store.filled / trainer.store.rows,
    }
