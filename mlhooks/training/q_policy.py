"""The acting half of Q-learning: epsilon-greedy in the estimated values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mlagents_envs.base_env import BehaviorSpec
from torch import Tensor, nn

from mlhooks.nn.exported import ExportedActions, highest, masked
from mlhooks.nn.heads import MASKED_LOGIT, SampledActions
from mlhooks.nn.networks import QNetwork, exported_step, reads_unjoined
from mlhooks.settings import TrainerSettings
from mlhooks.training.device import to_device
from mlhooks.training.hyperparameters import hyperparameter
from mlhooks.training.policy import Policy


class QPolicy(Policy):
    """A policy that takes the action of the highest value, or with probability `epsilon` per agent a random one.

    Args:
        behavior_name: for messages.
        behavior_spec: the behavior's observations and discrete actions.
        settings: the behavior's settings; among the hyperparameters it reads `dueling` and `exploration_initial_eps`.
        device: where the network lives.

    Attributes:
        network: from features to the values of all actions of all branches.
        epsilon: the share of random actions, which a trainer sets before its agents decide.
    """

    reads_bytes = True
    array_arithmetic = True

    def __init__(
        self, behavior_name: str, behavior_spec: BehaviorSpec, settings: TrainerSettings, device: torch.device
    ) -> None:
        super().__init__(behavior_name, behavior_spec, settings, device)
        network, dueling = settings.network_settings, hyperparameter(settings, "dueling")
        self.network = QNetwork(self.layout, behavior_spec.action_spec, network, dueling=dueling).to(device)
        self.memory_size = self.network.memory_size
        self.epsilon: float = hyperparameter(settings, "exploration_initial_eps")

    def act(
        self,
        obs: Sequence[np.ndarray],
        mask: np.ndarray | None,
        rng: np.random.Generator,
        memory: np.ndarray | None = None,
    ) -> SampledActions:
        """Choose actions; `log_prob` is 0, because Q-learning does not use it.

        By default a network with a memory begins with zeros.
        """
        agents, branches, after = len(obs[0]), self.network.branches, None
        exploring = 0 if self.deterministic else rng.binomial(agents, self.epsilon)
        if self.memory_size:  # Agents that explore remember what they saw, too.
            scores, after = self._step(self.inputs.features(obs), memory)
        elif exploring < agents:
            scores = self._values(self.inputs.features(obs))
        else:
            scores = np.empty((agents, branches[-1].stop), np.float32)
        if exploring:
            explorers = rng.permutation(agents)[:exploring]
            scores[explorers] = rng.random((exploring, branches[-1].stop), np.float32)
        if mask is not None:
            scores = np.where(mask, np.float32(MASKED_LOGIT), scores)
        if len(branches) == 1:
            discrete = scores.argmax(1, keepdims=True)
        else:
            discrete = np.stack([scores[:, columns].argmax(1) for columns in branches], 1)
        continuous, log_prob = np.empty((agents, 0), np.float32), np.zeros(discrete.shape, np.float32)
        return SampledActions(continuous, discrete, log_prob, memory=after)

    def exported(self, obs: Sequence[Tensor], allowed: Tensor | None, memory: Tensor | None = None) -> ExportedActions:
        """Return the actions of the highest value; there is no randomness without exploration."""
        assert allowed is not None
        network: Any = self.network
        unjoined = self.inputs.unjoined(obs)
        features, after = unjoined if reads_unjoined(network) else unjoined.joined(), None
        if memory is None:
            values = network(features)
        else:
            values, after = exported_step(network, features, memory)
        chosen = highest(masked(values, allowed, network.branches))
        return ExportedActions(discrete=chosen, likely_discrete=chosen, memory=after)

    def _values(self, features: np.ndarray) -> np.ndarray:
        network: nn.Module = self.network
        outputs = network.compute(features) if isinstance(network, QNetwork) else None
        if outputs is not None:
            return self.network.combine(*outputs)
        with torch.no_grad():
            values: np.ndarray = network(to_device(features, self.device)).cpu().numpy()
        return values

    def _step(self, features: np.ndarray, memory: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Return the values of all actions, and the memories after this step."""
        network: Any = self.network
        if memory is None:
            memory = np.zeros((len(features), self.memory_size), np.float32)
        step = network.compute_step(features, memory) if isinstance(network, QNetwork) else None
        if step is not None:
            return np.array(network.combine(*step[0])), step[1]
        with torch.no_grad():
            values, after = network.step(to_device(features, self.device), to_device(memory, self.device))
        return values.cpu().numpy(), after.cpu().numpy()

    def modules(self) -> dict[str, nn.Module]:
        """Return the network and the normalizer."""
        return {"network": self.network, "inputs": self.inputs}
