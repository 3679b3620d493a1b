"""Soft actor-critic, whose values count the policy's entropy beside rewards (Haarnoja et al. 2018).

There are two forms. The first paper (https://arxiv.org/abs/1801.01290) has two critics of actions, a critic of states,
and a target network that follows the latter; this is the default, as in ML-Agents. In the second paper
(https://arxiv.org/abs/1812.05905), and with `twin_targets: true`, target networks follow the critics of actions, as in
other libraries. Both forms learn the weight of the entropy, as the second paper does, and treat discrete actions as
Christodoulou 2019 does (https://arxiv.org/abs/1910.07207).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mlhooks.plugin import (
    Batch,
    Critic,
    Decisions,
    Field,
    OffPolicyHyperparameters,
    OffPolicyTrainer,
    SquashedPolicy,
    Supports,
    TorchOptimizer,
    Trainer,
    TrainerSettings,
    extension,
    frozen,
    hookimpl,
    in_one_piece,
    parameter_like,
)

ENTROPY_SHARE = 0.2
"""The entropy that decisions of a branch are to have, as a share of the greatest possible entropy, as in ML-Agents."""

Weights = tuple[float, list[float]]
"""Weights of the entropy: that of all continuous actions, and those of branches."""


class SACSettings(OffPolicyHyperparameters):
    """Hyperparameters of `trainer_type: sac`; names and defaults are ML-Agents'."""

    tau: float = Field(0.005, gt=0, le=1, description="How far target networks move at each update.")
    init_entcoef: float = Field(1.0, gt=0, description="Weight of the entropy at the start; it is learned then.")
    learn_entcoef: bool = extension(
        True,
        description="Learn the weight of the entropy; false keeps init_entcoef, as a number for `ent_coef` does in "
        "Stable-Baselines3.",
    )
    twin_targets: bool = extension(
        False, description="Bootstrap from target networks of both action values, without a value network of states."
    )
    n_step: int = extension(1, ge=1, description="Rewards in a return before the bootstrapped value.")
    max_grad_norm: float | None = extension(
        None, gt=0, description="Clip the norm of the gradient to this; null leaves it alone."
    )


class EntropyCoefficients(nn.Module):
    """Weights of the entropy: one for all continuous actions, and one for each branch.

    Attributes:
        log_continuous: the logarithm [1]; log_discrete: logarithms [branches]; None where there are no such actions.
    """

    def __init__(self, continuous: int, branches: Sequence[int], initial: float) -> None:
        super().__init__()
        start = math.log(initial)
        self.log_continuous = nn.Parameter(torch.full((1,), start)) if continuous else None
        self.log_discrete = nn.Parameter(torch.full((len(branches),), start)) if branches else None

    def values(self) -> Weights:
        """Return the weights as they are now: that of continuous actions, and those of branches."""
        of_continuous, of_branches = (
            [] if log is None else [*map(math.exp, log.tolist())] for log in (self.log_continuous, self.log_discrete)
        )
        return (of_continuous[0] if of_continuous else 0.0), of_branches


class SACOptimizer(TorchOptimizer):
    """The losses of actor, critics and entropy coefficients, in one step, and the target network.

    Networks with a memory learn from sequences, which critics and the target network begin with a memory of zeros.

    Each loss trains parameters of its own, because the actor's loss passes through frozen critics. Adam treats each
    parameter by itself, so that one step on the sum of all losses equals the separate steps that ML-Agents takes.
    """

    policy: SquashedPolicy
    reads_bytes = True
    array_arithmetic = True
    network_keys = frozenset({"critic_hidden_layers"})

    def __init__(self, policy: SquashedPolicy, settings: TrainerSettings) -> None:
        super().__init__(policy, settings)
        h, actions = settings.hyperparameters, policy.behavior_spec.action_spec
        assert isinstance(h, SACSettings)
        self.tau, self.twin_targets, self.branches = h.tau, h.twin_targets, policy.branches
        self.signals = list(settings.reward_signals)
        self.size, self.choices = actions.continuous_size, max(sum(actions.discrete_branches), 1)
        self.entropies_wanted = [ENTROPY_SHARE * math.log(size) for size in actions.discrete_branches]
        starts = [k * self.choices + columns.start for k in range(len(self.signals)) for columns in self.branches]
        self.starts = torch.tensor(starts, device=policy.device)
        self.q1, self.q2 = self._critic(self.size, self.choices), self._critic(self.size, self.choices)
        self.critic = None if self.twin_targets else self._critic()
        self.followed = nn.ModuleList([self.q1, self.q2]) if self.critic is None else self.critic
        self.target: Any = copy.deepcopy(self.followed).requires_grad_(False)
        self.coefficients = EntropyCoefficients(self.size, actions.discrete_branches, h.init_entcoef).to(policy.device)
        self.learn_entcoef = h.learn_entcoef
        self.coefficients.requires_grad_(self.learn_entcoef)
        self.noise_seed, self.updates = int(torch.randint(2**31, ())), 0
        # Each of the two holds all parameters in one piece: those of the target, and those that it follows.
        self._following: tuple[Tensor, Tensor] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_following": None}  # The parameters of a copy lie elsewhere.

    def _critic(self, extra: int = 0, outputs: int = 1) -> Critic:
        network, signals = self.settings.network_settings.of_critic, len(self.signals)
        return Critic(self.policy.layout, network, signals, extra=extra, outputs=outputs).to(self.policy.device)

    def modules(self) -> dict[str, nn.Module]:
        """Return critics, target network and entropy coefficients."""
        critics = {"q1": self.q1, "q2": self.q2} | ({} if self.critic is None else {"critic": self.critic})
        return {**critics, "target": self.target, "coefficients": self.coefficients}

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return all losses and their sum, which is minimized.

        Equations are numbered as in the first paper, and where [2] stands beside them, as in the second.
        """
        noise = self.noise(len(batch))
        weights, features, width = self.coefficients.values(), batch.features, batch.width
        now = self.policy.decide(features, batch.mask, noise[0], batch.memory, width)
        targets = self.targets(batch, noise[-1])

        # J_Q, equation 7
        actions = batch.continuous if self.size else None
        inputs = self.q1.joined(features, actions)
        all_q1, all_q2 = (q(inputs[0], None, width, actions=inputs[1]) for q in (self.q1, self.q2))
        q1, q2 = self.taken(all_q1, batch.discrete), self.taken(all_q2, batch.discrete)
        q1_loss = 0.5 * batch.mean((q1 - targets).square())
        q2_loss = 0.5 * batch.mean((q2 - targets).square())

        # J_pi, equation 12, by the values of what the policy does now
        q1_now, q2_now = all_q1.detach(), all_q2.detach()
        if self.size:
            inputs = self.q1.joined(features, now.continuous)
            with frozen(self.q1):
                q1_now = self.q1(inputs[0], None, width, actions=inputs[1])
            with frozen(self.q2), torch.set_grad_enabled(self.twin_targets and torch.is_grad_enabled()):
                q2_now = self.q2(inputs[0], None, width, actions=inputs[1])
        policy_loss = batch.mean(self.cost(torch.min(q1_now, q2_now) if self.twin_targets else q1_now, now, weights))
        losses = {"Losses/Policy Loss": policy_loss, "Losses/Q1 Loss": q1_loss, "Losses/Q2 Loss": q2_loss}

        # J_V, equation 5
        values = q1
        if self.critic is not None:
            with torch.no_grad():
                wanted = self.soft_values(q1_now, q2_now, now, weights)
            values = self.critic(features, None, width)
            losses["Losses/Value Loss"] = 0.5 * batch.mean((values - wanted).square())

        loss = self.entropy_loss(batch, now)
        for part in losses.values():
            loss = loss + part
        return {"loss": loss, **losses, **self.report(batch, values, now)}

    def noise(self, rows: int) -> Tensor:
        """Return standard normal random numbers [draws, rows, size]: one draw, and with `twin_targets` two.

        The first draw is for the actor, and the last one for targets, which read it only with `twin_targets`. They
        depend on the number of updates, so that a resumed run draws what an uninterrupted one does.

        With `use_sde` there is one draw for both, a matrix [1, latent features, size] for all rows.
        """
        generator = torch.Generator(self.policy.device).manual_seed(self.noise_seed + self.updates)
        shape: tuple[int, ...] = (2 if self.twin_targets else 1, rows, self.size)
        if self.policy.noise_shape is not None:
            shape = 1, *self.policy.noise_shape
        return torch.randn(shape, generator=generator, device=self.policy.device)

    @torch.no_grad()
    def targets(self, batch: Batch, noise: Tensor | None = None) -> Tensor:
        """Return targets [rows, signals] of action values: equation 8, or 3 of [2]."""
        features, mask, memory = batch.next_features, batch.next_mask, None
        if self.policy.memory_size:  # The next row is a later row of the same sequence.
            features, memory = batch.features, batch.memory
            if mask is not None and batch.mask is not None:
                counting = slice(None) if batch.loss_mask is None else batch.loss_mask
                mask = batch.mask.index_copy(0, batch.following[counting], mask[counting])
        if self.critic is not None:
            following = self.target(features, None, batch.width)
        else:
            following = self._estimate(self.target, features, mask, noise, memory, batch.width)
        if memory is not None:
            following = following[batch.following]
        targets: Tensor = following * batch.discounts + batch.signal_rewards
        return targets

    @torch.no_grad()
    def estimate(self, features: Tensor) -> Tensor:
        """Return values [rows, signals] of states, entropy included, without gradients."""
        return self._estimate((self.q1, self.q2), features) if self.critic is None else self.critic(features)

    def _estimate(
        self,
        critics: Any,
        features: Tensor,
        mask: Tensor | None = None,
        noise: Tensor | None = None,
        memory: Tensor | None = None,
        width: int = 1,
    ) -> Tensor:
        """Return values of states by two critics of actions."""
        decisions = self.policy.decide(features, mask, noise, memory, width)
        inputs = self.q1.joined(features, decisions.continuous)
        q1, q2 = (critic(inputs[0], None, width, actions=inputs[1]) for critic in critics)
        return self.soft_values(q1, q2, decisions, self.coefficients.values())

    def soft_values(self, q1: Tensor, q2: Tensor, now: Decisions, weights: Weights) -> Tensor:
        """Return values of states [rows, signals]: expected action values plus the weighted entropy, equation 3.

        The lower expectation of the two critics counts. Over branches, both terms are means.
        """
        values = torch.min(self.expected(q1, now), self.expected(q2, now))
        if now.log_prob is not None:
            values = values - now.log_prob * weights[0]
        for weight, entropy in zip(weights[1], now.entropies, strict=True):
            values = values + entropy * (weight / len(now.entropies))
        return values

    def expected(self, values: Tensor, now: Decisions) -> Tensor:
        """Return the means [rows, signals] of action values [rows, signals * choices] under the policy."""
        if not now.probabilities:
            return values
        of_choices = values.view(-1, len(self.signals), self.choices)
        total: Any = 0.0
        for probabilities, columns in zip(now.probabilities, self.branches, strict=True):
            total = (probabilities.unsqueeze(1) * of_choices[:, :, columns]).sum(2) + total
        return total / float(len(self.branches))  # type: ignore[no-any-return]

    def taken(self, values: Tensor, discrete: Tensor) -> Tensor:
        """Return the values [rows, signals] of the choices that were made, as means over branches."""
        branches, signals = len(self.branches), len(self.signals)
        if not branches:
            return values
        index = discrete if branches == signals == 1 else discrete.repeat(1, signals) + self.starts
        found = values.gather(1, index)
        return found if branches == 1 else found.view(-1, signals, branches).mean(2)

    def cost(self, values: Tensor, now: Decisions, weights: Weights) -> Tensor:
        """Return what the policy minimizes, [rows, 1]: weighted log-probabilities minus action values.

        As in ML-Agents, values are summed over branches, and count twice where there are continuous actions as well.
        """
        if len(self.signals) > 1:
            values = values.view(-1, len(self.signals), self.choices).mean(1)
        cost: Any = 0.0
        if now.probabilities:
            pairs = zip(now.probabilities, self.branches, strict=True)
            of_branches = [(p * values[:, columns]).sum(1, keepdim=True) for p, columns in pairs]
            values = sum(of_branches[1:], start=of_branches[0])
            cost = -values
        for weight, entropy in zip(weights[1], now.entropies, strict=True):
            cost = cost - entropy * weight
        if now.log_prob is not None:
            cost = now.log_prob * weights[0] - values + cost
        return cost  # type: ignore[no-any-return]

    def entropy_loss(self, batch: Batch, now: Decisions) -> Tensor:
        """Return the loss of the coefficients' logarithms: equation 18 of [2], with ML-Agents' target entropies."""
        log_continuous, log_discrete = self.coefficients.log_continuous, self.coefficients.log_discrete
        loss: Any = 0.0
        if not self.learn_entcoef:
            return loss  # type: ignore[no-any-return]
        if now.log_prob is not None and log_continuous is not None:
            with torch.no_grad():
                lacking = float(batch.mean(now.log_prob)) - self.size
            loss = (parameter_like(now.log_prob, log_continuous) * -lacking).sum()
        if now.entropies and log_discrete is not None:
            with torch.no_grad():
                parts = zip(self.entropies_wanted, now.entropies, strict=True)
                each = torch.stack([wanted - batch.mean(entropy) for wanted, entropy in parts])
            loss = loss - (parameter_like(now.entropies[0], log_discrete) * each).mean()
        return loss  # type: ignore[no-any-return]

    @torch.no_grad()
    def report(self, batch: Batch, values: Tensor, now: Decisions) -> dict[str, Tensor]:
        """Return the mean value of each reward signal, and the entropy of the policy before it is squashed."""
        parts = [batch.mean(entropy) for entropy in now.entropies]
        if now.log_std is not None:
            parts.append(batch.mean(now.log_std) + 0.5 * (1.0 + math.log(2.0 * math.pi)))
        several = len(self.signals) > 1
        means = [batch.mean(values[:, k] if several else values) for k in range(len(self.signals))]
        named = {f"Policy/{name.capitalize()} Value": mean for name, mean in zip(self.signals, means, strict=True)}
        return {**named, "Policy/Entropy": sum(parts[1:], start=parts[0])}

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """Take a step on all losses, then move the target network by `tau`."""
        if self._following is None:  # This is done first, because networks that have computed do not notice a move.
            self._following = in_one_piece([*self.target.parameters()]), self.flat.part([self.followed]).data
        losses = super().update(batch)
        self.updates += 1
        self._following[0].lerp_(self._following[1], self.tau)
        return losses

    def state_dict(self) -> dict[str, Any]:
        """Return the torch optimizer's state and where the random numbers are."""
        return {**super().state_dict(), "noise_seed": self.noise_seed, "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        super().load_state_dict(state)
        self.noise_seed, self.updates = state["noise_seed"], state["updates"]


class SACTrainer(OffPolicyTrainer):
    """Acts by a stochastic policy and learns from the replay buffer."""

    hyperparameters_type = SACSettings
    supports = Supports(threaded=True, behavioral_cloning=True, memory=True)
    conformance_settings: ClassVar = {"hyperparameters": {"init_entcoef": 0.05}}
    conformance_exempt: ClassVar = {
        "test_learns_with_masked_actions": "its value network of states does not see what is forbidden there"
    }
    policy_type = SquashedPolicy
    optimizer_type = SACOptimizer


@hookimpl
def get_trainer_types() -> dict[str, type[Trainer]]:
    """Offer `sac`."""
    return {"sac": SACTrainer}


@hookimpl
def summary_stats(trainer: Trainer, step: int) -> dict[str, float]:
    """Report the learning rate, entropy coefficients and the fill of the replay buffer."""
    optimizer = trainer.optimizer
    if not isinstance(trainer, SACTrainer) or not isinstance(optimizer, SACOptimizer):
        return {}
    stats = {
        "Policy/Learning Rate": optimizer.learning_rate(step),
        "Policy/Replay Fill": trainer.store.filled / trainer.store.rows,
    }
    continuous, discrete = optimizer.coefficients.values()
    if optimizer.size:
        stats["Policy/Continuous Entropy Coeff"] = continuous
    if discrete:
        stats["Policy/Discrete Entropy Coeff"] = sum(discrete) / len(discrete)
    return stats
