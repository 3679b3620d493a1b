"""The base of reward signals that learn networks of their own."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from mlhooks.nn.encoders import Encoder, make_encoder
from mlhooks.nn.layers import MLP
from mlhooks.nn.networks import Network
from mlhooks.nn.normalizer import Normalizer
from mlhooks.settings import LearnedSignalSettings
from mlhooks.state_checks import whole
from mlhooks.training.batch import Batch
from mlhooks.training.descent import Descent, Losses
from mlhooks.training.optimizer import CHUNK_FEATURES, CHUNK_ROWS
from mlhooks.training.policy import Policy
from mlhooks.training.reward_signals import RewardSignal


class SignalNetwork(Network):
    """A network of a reward signal: an encoder, and linear heads on it where there are any.

    Args:
        encoder: its layers.
        outputs: the size of each head's output. Heads begin with Xavier-uniform weights and biases of zero, as in
            ML-Agents.
    """

    def __init__(self, encoder: Encoder, outputs: Sequence[int] = ()) -> None:
        super().__init__()
        self.encoder = encoder
        self.heads = nn.ModuleList(nn.Linear(encoder.output_size, size) for size in outputs)
        for head in self.linear_heads():
            nn.init.xavier_uniform_(head.weight)
            nn.init.zeros_(head.bias)

    def linear_heads(self) -> list[nn.Linear]:
        """Return the heads."""
        return [head for head in self.heads if isinstance(head, nn.Linear)]

    def forward(self, features: Tensor, beside: Tensor | None = None) -> list[Tensor]:
        """Return the output of each head [rows, out] for features [rows, size] and numbers beside them."""
        features, beside = self._joined(features, beside)
        return self.outputs(features, beside=beside)

    def _joined(self, features: Tensor, beside: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return both as one tensor, unless the encoder reads `beside` in its body only."""
        if beside is None or hasattr(type(self.encoder), "before_body"):
            return features, beside
        return torch.cat([features, beside], 1), None

    def by_torch(self, features: Tensor, beside: Tensor | None = None) -> list[Tensor]:
        """Return what a call returns, computed by torch alone, so that there are gradients of gradients."""
        features, beside = self._joined(features, beside)
        encoder: Any = self.encoder
        if beside is None:
            encoding = encoder(features)
        else:
            encoding = encoder.body(torch.cat([encoder.before_body(features), beside], 1))
        return [head(encoding) for head in self.linear_heads()]


class LearnedSignal(RewardSignal):
    """A reward signal with networks of its own, which learns by an Adam of its own.

    A subclass makes the networks, rewards by them, and says which loss they minimize. The signal reads observations as
    the environment sent them, normalized by a normalizer of its own where its `network_settings` ask for one.

    Attributes:
        settings: with `learning_rate` beside what all signals have.
        policy: the policy that it rewards; layout: the places of observations in the features of networks.
        networks: what `make_networks` returned, on the policy's device.
        normalizer: of vector observations, or None; a subclass decides when it is updated.
        rng: the source of the signal's randomness; nobody else may use it, because the signal may learn in another
            thread.
        updates: how often the signal has learned.
    """

    reads = frozenset({"obs"})
    reads_bytes = True
    settings: LearnedSignalSettings
    policy: Policy

    @abstractmethod
    def make_networks(self) -> Mapping[str, nn.Module]:
        """Return the networks by name; parameters that require no gradient are not trained."""

    @abstractmethod
    def loss(self, batch: Batch) -> Losses:
        """Return losses of a minibatch: `"loss"`, which is minimized, and what is reported, by statistics key.

        The minibatch holds only rows that count in losses of the policy, and so no padding.
        """

    def attach(self, policy: Policy) -> None:
        """Make networks and optimizer for the behavior of a policy, on its device."""
        self.policy, self.layout = policy, policy.layout
        vectors, network = self.layout.vectors, self.settings.network_settings
        self.normalizer = Normalizer(vectors, network.normalize_clip) if network.normalize and vectors else None
        self.networks = {name: network.to(policy.device) for name, network in self.make_networks().items()}
        self.rng = np.random.default_rng(int(torch.randint(2**62, ())))
        self.updates = 0
        trained = {k: v for k, v in self.networks.items() if any(p.requires_grad for p in v.parameters())}
        self.descent = Descent(trained, self.settings.learning_rate)

    def encoder(self, extra: int = 0) -> Encoder:
        """Return a new encoder of observations as the settings ask for it.

        Args:
            extra: how many numbers its last layers read beside the features.
        """
        return make_encoder(self.layout, self.settings.network_settings, extra)

    def hidden_layer(self, inputs: int, units: int) -> MLP:
        """Return one new layer, with the activation and the initial weights that the settings say."""
        network = self.settings.network_settings
        return MLP(inputs, [units], network.activation, network.initialization)

    def features(self, obs: Tensor) -> Tensor:
        """Return the features of observations [rows, size], normalized where there is a normalizer."""
        if self.normalizer is None:
            return obs
        vectors = self.layout.vectors
        normalized = self.normalizer(obs[:, :vectors])
        return normalized if vectors == obs.shape[1] else torch.cat([normalized, obs[:, vectors:]], 1)

    def update_normalizer(self, obs: Tensor) -> None:
        """Add observations [rows, size] to the statistics of the normalizer, where there is one."""
        if self.normalizer is not None:
            self.normalizer.update(obs[:, : self.layout.vectors].cpu().numpy())

    @property
    def action_size(self) -> int:
        """The size of what `actions` returns."""
        spec = self.behavior_spec.action_spec
        return int(spec.continuous_size + sum(spec.discrete_branches))

    def actions(self, continuous: Tensor, discrete: Tensor) -> Tensor:
        """Return actions as numbers [rows, action_size]: the continuous ones, then each branch as one-hot numbers."""
        sizes = self.behavior_spec.action_spec.discrete_branches
        choices = [functional.one_hot(discrete[:, i], size).to(continuous.dtype) for i, size in enumerate(sizes)]
        return torch.cat([continuous, *choices], 1)

    def rewards(self, batch: Batch) -> Tensor:
        """Return rewards [rows] of a batch, times `strength`, computed without gradients.

        Of many rows or large images some are evaluated at a time, as for estimates, to bound the memory that it takes.
        """
        some = max(1, min(CHUNK_ROWS, CHUNK_FEATURES // max(1, batch.features.shape[1])))
        evaluated = super().rewards
        with torch.no_grad(), self.descent.scope:
            if len(batch) <= some:
                return evaluated(batch)
            return torch.cat([evaluated(batch[at : at + some]) for at in range(0, len(batch), some)])

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """Take a step on the losses of a minibatch, and return those that are reported.

        Raises:
            NonFiniteError: the loss or a gradient is NaN or infinite.
        """
        if batch.loss_mask is not None:
            batch = batch[batch.loss_mask.nonzero().squeeze(1)]
        if not len(batch):
            return {}
        self.descent.at_step = self.step
        losses = self.descent.step(lambda: self.loss(batch))
        self.updates += 1
        return losses

    def modules(self) -> dict[str, nn.Module]:
        """Return the networks, and the normalizer where there is one."""
        return {**self.networks, **({} if self.normalizer is None else {"normalizer": self.normalizer})}

    def state_dict(self) -> dict[str, Any]:
        """Return the optimizer's state and that of the random numbers."""
        return {
            "descent": self.descent.state_dict(),
            "rng": self.rng.bit_generator.state,
            "updates": self.updates,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            CheckpointError: the state is of other networks, or not finite.
        """
        self.descent.load_state_dict(state["descent"])
        self.rng.bit_generator.state = state["rng"]
        self.updates = whole(state["updates"], "updates")
