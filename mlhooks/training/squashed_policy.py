"""The policy of soft actor-critics: Gaussian actions squashed by tanh, and categorical ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from mlagents_envs.base_env import ActionTuple
from torch import Tensor

from mlhooks.fast.actions import action_tuple
from mlhooks.nn.exported import ExportedActions
from mlhooks.nn.heads import MASKED_LOGIT, SampledActions, probabilities, squashed, squashed_by
from mlhooks.training.batch import Batch
from mlhooks.training.policy import ActorPolicy

LARGEST = 1.0 - 1e-6
"""The largest action from which float32 can tell well what it was before the squashing."""


class Decisions(NamedTuple):
    """The decisions of a policy for given features, with gradients.

    Attributes:
        continuous: [rows, size], drawn actions; None where there are no continuous ones, as log_prob and log_std are.
        log_prob: [rows, 1], their log-probabilities.
        probabilities: for each branch, those of its choices [rows, size].
        entropies: for each branch, [rows, 1].
        log_std: [rows, size], of the Gaussians before the squashing.
    """

    continuous: Tensor | None
    log_prob: Tensor | None
    probabilities: list[Tensor]
    entropies: list[Tensor]
    log_std: Tensor | None


class SquashedPolicy(ActorPolicy):
    """A policy whose continuous actions are in (-1, 1): tanh of samples of a Gaussian that depends on the observation.

    Environments get them as they are. The deterministic action is tanh of the mean.
    """

    array_arithmetic = True
    squashes = True
    network_keys = ActorPolicy.network_keys - {"action_limit"}

    def action_tuple(self, actions: SampledActions) -> ActionTuple:
        """Return what environments get: the actions themselves."""
        return action_tuple(actions.continuous.astype("float32", copy=False), actions.discrete.astype("int32"))

    def from_environment(self, continuous: np.ndarray) -> np.ndarray:
        """Return the samples of these actions: the actions themselves."""
        return continuous

    def exported(self, obs: Sequence[Tensor], allowed: Tensor | None, memory: Tensor | None = None) -> ExportedActions:
        """Return what the base class does, with continuous actions squashed."""
        return super().exported(obs, allowed, memory)

    def decide(
        self,
        features: Tensor,
        mask: Tensor | None,
        noise: Tensor | None = None,
        memory: Tensor | None = None,
        width: int = 1,
    ) -> Decisions:
        """Draw continuous actions, and return the distributions of discrete ones, with gradients.

        Args:
            features: [rows, size].
            mask: [rows, sum of branch sizes], True where an action is forbidden, or None.
            noise: [rows, size], from a standard normal distribution; by default torch draws it. Of a policy with a
                `noise_shape` it has that shape, and is one matrix for all rows.
            memory: [rows, memory_size], the memory before each row, of an actor that has one.
            width: rows of a unit, where there is a memory.
        """
        heads, encoding = self.noise_heads, None
        remembered = (memory, width) if self.memory_size else ()
        if heads is None:
            parameters = self.actor(features, *remembered)
        else:
            actor: Any = self.actor
            (encoding,) = actor.outputs(features, *remembered)
            parameters = heads.parameters_of([encoding])
        continuous = log_prob = None
        branches: list[tuple[Tensor, Tensor]] = []
        if parameters.mean is not None:
            if noise is None:
                noise = torch.randn(self.noise_shape or parameters.mean.shape, device=features.device)
            if heads is None or encoding is None:
                continuous, log_probs = squashed(parameters.mean, parameters.log_std, noise)
            else:
                difference = heads.noise(encoding, noise)
                continuous, log_probs = squashed_by(parameters.mean, parameters.log_std, difference)
            log_prob = log_probs if log_probs.shape[1] == 1 else log_probs.sum(1, keepdim=True)
        if parameters.logits is not None:
            logits = parameters.logits if mask is None else parameters.logits.masked_fill(mask, MASKED_LOGIT)
            whole = len(self.branches) == 1
            branches = [probabilities(logits if whole else logits[:, columns]) for columns in self.branches]
        of_choices, entropies = [p for p, _ in branches], [entropy for _, entropy in branches]
        return Decisions(continuous, log_prob, of_choices, entropies, parameters.log_std)

    def drawn(self, mean: Tensor, log_std: Tensor, noise: Tensor) -> Tensor:
        """Return samples of continuous actions [rows, size]: those of the base class, squashed."""
        return torch.tanh(super().drawn(mean, log_std, noise))

    def evaluate(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return log-probabilities of a batch's actions and entropies, each [rows, dimensions].

        Entropies of continuous actions are those of the Gaussians before the squashing.
        """
        squashed_actions = batch.continuous.clamp(-LARGEST, LARGEST)
        before = torch.atanh(squashed_actions)
        log_probs, entropies = super().evaluate(replace(batch, continuous=before))
        size = batch.continuous.shape[1]
        if not size:
            return log_probs, entropies
        slopes = torch.log1p(-squashed_actions.square())
        others = slopes.new_zeros(len(slopes), len(self.branches))
        return log_probs - torch.cat([slopes, others], 1), entropies
