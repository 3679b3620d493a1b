"""Curiosity: a reward for what the agent could not predict (Pathak et al. 2017, https://arxiv.org/abs/1705.05363).

Observations are encoded so that the action between two of them can be told from their encodings (the inverse model);
the reward is the error of a forward model, which predicts the encoding that follows an action. Formulas, sizes and
names are those of ML-Agents.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mlhooks.plugin import Batch, LearnedSignal, RewardSignal, RewardSignalSettings, SignalNetwork, hookimpl
from mlhooks.settings import CuriositySettings

UNITS = 256
"""Units of the hidden layer of either model."""
FORWARD_SHARE, FACTOR = 0.2, 10.0
"""The weight of the forward model's error beside that of the inverse model, and of both in the loss."""
LEAST_PROBABILITY = 1e-10


class Curiosity(LearnedSignal):
    """The error of the prediction of the next observation, at most 1 / strength, and 0 before the first update.

    As in ML-Agents, the error of the forward model trains the encoder as well, and the normalizer is never updated, so
    that `normalize` under the signal's `network_settings` only clips vectors to [-5, 5].
    """

    reads = frozenset({"obs", "next_obs"})
    ignores_ends = True

    def make_networks(self) -> Mapping[str, nn.Module]:
        """Return the encoder, the inverse and the forward model."""
        spec = self.behavior_spec.action_spec
        self.encoding = SignalNetwork(self.encoder())
        size = self.encoding.encoding_size
        outputs = [n for n in (spec.continuous_size, sum(spec.discrete_branches)) if n]
        self.inverse = SignalNetwork(self.hidden_layer(2 * size, UNITS), outputs)
        self.forward = SignalNetwork(self.hidden_layer(size + self.action_size, UNITS), [size])
        return {"encoder": self.encoding, "inverse": self.inverse, "forward": self.forward}

    def evaluate(self, batch: Batch) -> Tensor:
        """Return rewards [rows]."""
        if not self.updates:
            return torch.zeros(len(batch), device=batch.obs.device)
        return self.errors(batch, *self.encodings(batch)).clamp(max=1.0 / abs(self.strength))

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return the weighted sum of the errors of both models, and their means."""
        now, following = self.encodings(batch)
        forward = self.errors(batch, now, following).mean()
        inverse = self.inverse_errors(batch, self.inverse(torch.cat([now, following], 1))).mean()
        return {
            "loss": FACTOR * (FORWARD_SHARE * forward + (1.0 - FORWARD_SHARE) * inverse),
            "Losses/Curiosity Forward Loss": forward,
            "Losses/Curiosity Inverse Loss": inverse,
        }

    def encodings(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return encodings [rows, size] of what was observed, and of what followed."""
        both = self.encoding.encoding(self.features(torch.cat([batch.obs, batch.next_obs])))
        return both[: len(batch)], both[len(batch) :]

    def errors(self, batch: Batch, now: Tensor, following: Tensor) -> Tensor:
        """Return half the squared error [rows] of the forward model, summed over the encoding."""
        known = torch.cat([now, self.actions(batch.continuous, batch.discrete)], 1)
        predicted: Tensor = self.forward(known)[0]
        return 0.5 * (following - predicted).square().sum(1)

    def inverse_errors(self, batch: Batch, predicted: list[Tensor]) -> Tensor:
        """Return the error [rows] of the inverse model's heads.

        It is the squared error of continuous actions, plus the cross-entropy of each branch.
        """
        spec = self.behavior_spec.action_spec
        parts: list[Tensor] = []
        if spec.continuous_size:
            parts.append((batch.continuous - predicted[0]).square().sum(1))
        if spec.discrete_size:
            for branch, logits in enumerate(predicted[-1].split(list(spec.discrete_branches), 1)):
                taken = logits.softmax(1).gather(1, batch.discrete[:, branch : branch + 1]).squeeze(1)
                parts.append(-(taken + LEAST_PROBABILITY).log())
        return sum(parts[1:], parts[0])


@hookimpl
def get_reward_signals() -> dict[str, tuple[type[RewardSignal], type[RewardSignalSettings]]]:
    """Offer `curiosity`."""
    return {"curiosity": (Curiosity, CuriositySettings)}
