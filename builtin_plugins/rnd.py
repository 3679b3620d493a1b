"""Random network distillation: a reward for what was rarely seen (Burda et al. 2018, https://arxiv.org/abs/1810.12894).

A network learns to predict the encodings of another one, which is random and not trained; its error is large where it
has learned little. Formulas and names are those of ML-Agents.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mlhooks.plugin import Batch, LearnedSignal, RewardSignal, RewardSignalSettings, SignalNetwork, hookimpl
from mlhooks.settings import RNDSettings


class RND(LearnedSignal):
    """The squared error of the prediction of a random encoding, summed over the encoding."""

    ignores_ends = True

    def make_networks(self) -> Mapping[str, nn.Module]:
        """Return the network that learns, and the random one."""
        self.predictor, self.target = SignalNetwork(self.encoder()), SignalNetwork(self.encoder())
        self.target.requires_grad_(False)
        return {"predictor": self.predictor, "target": self.target}

    def evaluate(self, batch: Batch) -> Tensor:
        """Return rewards [rows]."""
        features = self.features(batch.obs)
        with torch.no_grad():
            wanted = self.target.encoding(features)
        return (self.predictor.encoding(features) - wanted).square().sum(1)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return the mean of the errors that are rewards."""
        loss = self.evaluate(batch).mean()
        return {"loss": loss, "Losses/RND Loss": loss}

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """Take a step as every learned signal does, then add the observations to the normalizer's statistics."""
        reported = super().update(batch)
        self.update_normalizer(batch.obs if batch.loss_mask is None else batch.obs[batch.loss_mask])
        return reported


@hookimpl
def get_reward_signals() -> dict[str, tuple[type[RewardSignal], type[RewardSignalSettings]]]:
    """Offer `rnd`."""
    return {"rnd": (RND, RNDSettings)}
