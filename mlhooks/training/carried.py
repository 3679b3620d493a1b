"""Memories of agents that no experience store keeps, as evaluations carry them from decision to decision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mlhooks.nn.heads import SampledActions
from mlhooks.training.policy import Policy


class CarriedMemories:
    """Lets a policy decide for numbered agents, and carries what they remember; without a memory it carries nothing.

    Args:
        policy: decides.
    """

    def __init__(self, policy: Policy) -> None:
        self.policy: Any = policy
        self._memories = np.zeros((0, policy.memory_size), np.float32)

    def act(
        self, agents: np.ndarray, obs: Sequence[np.ndarray], mask: np.ndarray | None, rng: np.random.Generator
    ) -> SampledActions:
        """Decide as `Policy.act` does, for agents [agents] of which each is there once."""
        if not self.policy.memory_size:
            actions: SampledActions = self.policy.act(obs, mask, rng)
            return actions
        missing = max(0, int(agents.max(initial=-1)) + 1 - len(self._memories))
        self._memories = np.pad(self._memories, ((0, missing), (0, 0)))
        actions = self.policy.act(obs, mask, rng, self._memories[agents])
        self._memories[agents] = actions.memory
        return actions

    def forget(self, agents: np.ndarray) -> None:
        """Let agents [agents], all of which have decided, begin with a memory of zeros again."""
        if self.policy.memory_size:
            self._memories[agents] = 0.0
