"""Generative adversarial imitation (Ho and Ermon 2016, https://arxiv.org/abs/1606.03476).

A discriminator learns to tell the policy's experience from a demonstration; the reward is how much experience looks
like the demonstration. The norm of its gradient is held near 1 between the two (Gulrajani et al. 2017,
https://arxiv.org/abs/1704.00028), and `use_vail` bounds the information that it gets (Peng et al. 2018,
https://arxiv.org/abs/1810.00821). Formulas, sizes and names are those of ML-Agents.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from mlhooks.nn.encoders import GoalEncoder
from mlhooks.nn.layers import SCALE
from mlhooks.plugin import Batch, LearnedSignal, RewardSignal, RewardSignalSettings, SignalNetwork, hookimpl
from mlhooks.settings import GAILSettings

if TYPE_CHECKING:
    from mlhooks.plugin import Demonstration, Policy

EPSILON = 1e-7
PENALTY = 10.0
"""The weight of the gradient penalty."""
CODE, MOST_KNOWN, BETA_STEP = 128, 0.5, 0.0005
"""The size of the bottleneck, the information that it may let through, and how fast its weight changes."""


class Discriminator(nn.Module):
    """Judges whether observations, and actions with the ends of episodes, are those of a demonstration.

    Args:
        body: the encoder with one head, which gives the means of the code with a bottleneck, and else the logit.
        bottleneck: whether there is one, and with it the attributes.

    Attributes:
        estimator: from code to logit; sigma: [CODE] deviations of the code's noise; beta: weight of the bottleneck's
            loss.
    """

    beta: Tensor

    def __init__(self, body: SignalNetwork, *, bottleneck: bool) -> None:
        super().__init__()
        self.body, self.bottleneck = body, bottleneck
        (last,) = body.linear_heads()
        if bottleneck:
            nn.init.normal_(last.weight, 0.0, 0.1 / math.sqrt(last.in_features))
            self.sigma = nn.Parameter(torch.ones(CODE))
            self.register_buffer("beta", torch.zeros(()))
            last = self.estimator = nn.Linear(CODE, 1)
            nn.init.xavier_uniform_(last.weight)
            nn.init.zeros_(last.bias)
        with torch.no_grad():
            last.weight.mul_(0.2)

    def estimate(self, output: Tensor, noise: Tensor | None = None) -> Tensor:
        """Return probabilities [rows] of the expert, for outputs of the body and noise [rows, CODE] of a bottleneck."""
        if self.bottleneck:
            output = self.estimator(output if noise is None else output + noise * self.sigma)
        return output.squeeze(1).sigmoid()

    def divergence(self, expert: Tensor, policy: Tensor) -> Tensor:
        """Return how far codes with these means [rows, CODE] are from standard normal ones, on average."""
        variance = self.sigma.square()
        return -(1 + variance.log() - 0.5 * expert.square() - 0.5 * policy.square() - variance).sum(1).mean()


class GAIL(LearnedSignal):
    """How much experience looks like a demonstration: -log(1 - D).

    The expert's actions are turned back into what a policy samples, so that their scale does not tell them apart.
    """

    settings: GAILSettings
    _demonstration: Demonstration | None = None

    def make_networks(self) -> Mapping[str, nn.Module]:
        """Return the discriminator."""
        uses_actions, bottleneck = self.settings.use_actions, self.settings.use_vail
        encoder = self.encoder(self.action_size + 1 if uses_actions else 0)
        for module in encoder.modules():
            if isinstance(module, GoalEncoder):
                module.learned = True  # The penalty looks at the gradient of goal signals, too.
        self.discriminator = Discriminator(SignalNetwork(encoder, [CODE if bottleneck else 1]), bottleneck=bottleneck)
        return {"discriminator": self.discriminator}

    def begin_training(self, policy: Policy, folder: Path | None = None) -> None:
        """Read the demonstration, of the policy's behavior.

        Raises:
            DemonstrationError: it cannot be read, or is of another behavior.
        """
        from mlhooks.plugin import load_demonstration  # Few runs need it; protobuf is slow to import.

        path = self.settings.demo_path
        self._demonstration = load_demonstration(path, policy.behavior_name, policy.behavior_spec, folder)

    @property
    def demonstration(self) -> Demonstration:
        """What the expert did."""
        if self._demonstration is None:
            self.begin_training(self.policy)
        assert self._demonstration is not None
        return self._demonstration

    def expert(self, size: int) -> tuple[Tensor, Tensor | None]:
        """Return raw observations of random transitions of the expert, and their actions and ends, as `beside` does."""
        demonstration, policy = self.demonstration, self.policy
        rows = self.rng.integers(len(demonstration), size=size)
        obs = torch.from_numpy(policy.inputs.raw(demonstration.obs(rows))).to(policy.device)
        if not self.settings.use_actions:
            return obs, None
        continuous = policy.from_environment(demonstration.continuous[rows])
        arrays = continuous, demonstration.discrete[rows], demonstration.ended[rows]
        return obs, self._beside(*(torch.from_numpy(array).to(policy.device) for array in arrays))

    def beside(self, batch: Batch) -> Tensor | None:
        """Return actions and ends [rows, action_size + 1], where the discriminator sees them."""
        return self._beside(batch.continuous, batch.discrete, batch.ended) if self.settings.use_actions else None

    def _beside(self, continuous: Tensor, discrete: Tensor, ended: Tensor) -> Tensor:
        return torch.cat([self.actions(continuous, discrete), ended.to(continuous.dtype).unsqueeze(1)], 1)

    def evaluate(self, batch: Batch) -> Tensor:
        """Return rewards [rows]."""
        (output,) = self.discriminator.body(self.features(batch.obs), self.beside(batch))
        return -(1.0 - self.discriminator.estimate(output) * (1.0 - EPSILON)).log()

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return the discriminator's loss on a batch and as many transitions of the expert."""
        rows, judge = len(batch), self.discriminator
        expert_obs, expert_beside = self.expert(rows)
        self.update_normalizer(expert_obs)
        obs = [_floats(self.features(part)) for part in (expert_obs, batch.obs)]
        beside = [part for part in (expert_beside, self.beside(batch)) if part is not None]
        (output,) = judge.body(torch.cat(obs), torch.cat(beside) if beside else None)
        estimates = judge.estimate(output, self.noise(2 * rows))
        expert, policy = estimates[:rows], estimates[rows:]
        loss = -((expert + EPSILON).log() + (1.0 - policy + EPSILON).log()).mean()
        penalty = PENALTY * self.penalty(*(self.between(*pair) for pair in (obs, beside) if pair))
        reported = {
            "Policy/GAIL Policy Estimate": policy.mean(),
            "Policy/GAIL Expert Estimate": expert.mean(),
            "Losses/GAIL Loss": loss,
            "Policy/GAIL Grad Mag Loss": penalty,
        }
        total = loss + penalty
        if judge.bottleneck:
            divergence = judge.divergence(output[:rows], output[rows:])
            total = total + judge.beta.clone() * (divergence - MOST_KNOWN)
            with torch.no_grad():
                judge.beta.add_(BETA_STEP * (divergence - MOST_KNOWN)).clamp_(min=0.0)
            reported |= {"Policy/GAIL Beta": judge.beta.clone(), "Losses/GAIL KL Loss": divergence}
        return {"loss": total, **reported}

    def noise(self, rows: int) -> Tensor | None:
        """Return the noise [rows, CODE] of the bottleneck, where there is one."""
        if not self.settings.use_vail:
            return None
        return torch.from_numpy(self.rng.standard_normal((rows, CODE), np.float32)).to(self.policy.device)

    def between(self, expert: Tensor, policy: Tensor) -> Tensor:
        """Return numbers between those of the expert and of the policy, each at a random place of its own."""
        places = torch.from_numpy(self.rng.random(policy.shape, np.float32)).to(policy.device)
        return (places * policy + (1.0 - places) * expert).requires_grad_()

    def penalty(self, obs: Tensor, beside: Tensor | None = None) -> Tensor:
        """Return the mean squared distance of the norms of the estimates' gradients from 1.

        Args:
            obs: [rows, size], which needs gradients.
            beside: actions and ends, likewise.
        """
        (output,) = self.discriminator.body.by_torch(obs, beside)
        estimates = self.discriminator.estimate(output, self.noise(len(obs)))
        inputs = [obs] if beside is None else [obs, beside]
        gradients = torch.autograd.grad(estimates.sum(), inputs, create_graph=True)
        norms = (torch.cat(gradients, 1).square().sum(1) + EPSILON).sqrt()
        return (norms - 1.0).square().mean()


def _floats(features: Tensor) -> Tensor:
    return features * SCALE if features.dtype is torch.uint8 else features


@hookimpl
def get_reward_signals() -> dict[str, tuple[type[RewardSignal], type[RewardSignalSettings]]]:
    """Offer `gail`."""
    return {"gail": (GAIL, GAILSettings)}
