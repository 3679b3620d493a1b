"""Decisions without an experience store, in evaluations and by frozen teams: what policies see and remember."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from mlagents_envs.base_env import DecisionSteps

from mlhooks.envs.pixels import to_floats
from mlhooks.nn.heads import SampledActions
from mlhooks.training.policy import Policy


class CarriedMemories:
    """Lets a policy decide for numbered agents, and carries what they remember; without a memory it carries nothing.

    Args:
        policy: decides.

    Attributes:
        memories: [agents, memory_size], what each carries.
    """

    def __init__(self, policy: Policy) -> None:
        self.policy: Any = policy
        self.memories = np.zeros((0, policy.memory_size), np.float32)

    def act(
        self, agents: np.ndarray, obs: Sequence[np.ndarray], mask: np.ndarray | None, rng: np.random.Generator
    ) -> SampledActions:
        """Decide as `Policy.act` does, for agents [agents] of which each is there once."""
        if not self.policy.memory_size:
            actions: SampledActions = self.policy.act(obs, mask, rng)
            return actions
        missing = max(0, int(agents.max(initial=-1)) + 1 - len(self.memories))
        self.memories = np.pad(self.memories, ((0, missing), (0, 0)))
        actions = self.policy.act(obs, mask, rng, self.memories[agents])
        self.memories[agents] = actions.memory
        return actions

    def forget(self, agents: np.ndarray) -> None:
        """Let agents [agents] begin with a memory of zeros again."""
        if self.policy.memory_size:
            self.memories[agents[agents < len(self.memories)]] = 0.0


def seen_by(policy: Policy, decisions: DecisionSteps) -> tuple[list[np.ndarray], np.ndarray | None]:
    """Return observations and mask of agents that ask for a decision, as a policy takes them."""
    masks = decisions.action_mask
    mask = None if masks is None else np.concatenate(masks, axis=1).astype(np.bool_, copy=False)
    return [_as_taken(array, policy.reads_bytes) for array in decisions.obs], mask


def _as_taken(obs: np.ndarray, reads_bytes: bool) -> np.ndarray:
    """Return observations [agents, *shape] as a policy takes them."""
    if obs.dtype == np.uint8 and obs.ndim == 4:
        return obs if reads_bytes else to_floats(obs)
    return obs.astype(np.float32, copy=False)
