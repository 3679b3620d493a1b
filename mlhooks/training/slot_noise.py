"""The noise by which agents explore state-dependently, as long as each of them holds it."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np

from mlhooks.errors import UnsupportedError
from mlhooks.training.hyperparameters import hyperparameter
from mlhooks.training.policy import ActorPolicy

NEVER = np.iinfo(np.int64).max
"""More decisions than an agent ever makes."""


class SlotNoise:
    """A matrix of noise for each agent slot (Raffin et al. 2021, https://arxiv.org/abs/2005.05719).

    As in Stable-Baselines3, which has one for each copy of the environment, it is drawn again when the weights were
    updated, and with `sde_sample_freq` after so many decisions. Off-policy that library counts `train_freq` steps
    before the first update, too: here these are `update_interval`.

    Args:
        policy: one with `noise_heads`.

    Attributes:
        heads: what draws the matrices.
        period: decisions of an agent after which its matrix is drawn again.
        matrices: [slots, latent features, actions].
        versions: [slots] the version of the weights when each matrix was drawn, -1 where it is due.
        ages: [slots] decisions by each matrix, but for those that `_made` counts.

    Raises:
        UnsupportedError: the policy overrides `act` and takes no noise.
    """

    def __init__(self, policy: ActorPolicy) -> None:
        if "noise" not in inspect.signature(policy.act).parameters:
            raise UnsupportedError(
                f"Behavior {policy.behavior_name!r}: network_settings.use_sde asks for noise that agents hold over "
                f"many decisions, and {type(policy).__name__}.act does not take it: remove the setting, or give that "
                "method an argument `noise`, [agents, latent features, actions] or None."
            )
        frequency = policy.settings.network_settings.sde_sample_freq
        assert policy.noise_heads is not None
        self.heads = policy.noise_heads
        self.period = frequency if frequency > 0 else NEVER
        self._interval: int | None = hyperparameter(policy.settings, "update_interval")
        self.matrices = np.zeros((0, *self.heads.noise_shape), np.float32)
        self.versions, self.ages = np.zeros(0, np.int64), np.zeros(0, np.int64)
        # Mostly the same agents decide again: `_held` are their matrices, for `_left` decisions, of which `_made` are
        # not in their ages yet.
        self._held, self._slots = self.matrices, self.ages
        self._version, self._left, self._made = -1, 0, 0

    def of(self, slots: np.ndarray, version: int, rng: np.random.Generator) -> np.ndarray:
        """Return the matrices [agents, latent features, actions] for the next decision of agents.

        Args:
            slots: [agents] their slots, each of which is there once.
            version: that of the weights.
            rng: the source of randomness.
        """
        if self._left and version == self._version and len(slots) == len(self._slots) and (slots == self._slots).all():
            self._left -= 1
            self._made += 1
            return self._held
        self._count_decisions()
        missing = int(slots.max()) + 1 - len(self.ages)
        if missing > 0:
            self.matrices = np.pad(self.matrices, ((0, missing), (0, 0), (0, 0)))
            self.ages = np.pad(self.ages, (0, missing))
            self.versions = np.pad(self.versions, (0, missing), constant_values=-1)
        period = self.period
        if version == 0 and self._interval is not None:
            period = min(period, max(1, self._interval // len(self.ages)))
        due = (self.versions[slots] != version) | (self.ages[slots] >= period)
        if np.count_nonzero(due):
            new = slots[due]
            self.matrices[new] = self.heads.draw(len(new), rng)
            self.versions[new], self.ages[new] = version, 0
        self.ages[slots] += 1
        self._held, self._slots, self._version = self.matrices[slots], slots.copy(), version
        self._left = period - int(self.ages[slots].max())
        return self._held

    def _count_decisions(self) -> None:
        """Add the decisions that were made by `_held` to the ages of the matrices."""
        self.ages[self._slots] += self._made
        self._left = self._made = 0

    def forget(self) -> None:
        """Draw all matrices again before they are used next."""
        self._count_decisions()
        self.versions.fill(-1)

    def state_dict(self) -> dict[str, Any]:
        """Return all that a resume needs."""
        left = self._left
        self._count_decisions()
        self._left = left
        return {"matrices": self.matrices, "versions": self.versions, "ages": self.ages}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            ValueError: the parts do not fit each other or the policy.
        """
        matrices, versions, ages = (state[name] for name in ("matrices", "versions", "ages"))
        if matrices.shape != (len(ages), *self.matrices.shape[1:]) or versions.shape != ages.shape:
            raise ValueError("the noise of the agents is of another shape than the policy's")
        if matrices.dtype != np.float32 or not np.isfinite(matrices).all():
            raise ValueError("the noise of the agents is not finite")
        if not versions.dtype == ages.dtype == np.int64:
            raise ValueError("the numbers of the agents' noise are not whole")
        self._left = self._made = 0
        self.matrices, self.versions, self.ages = matrices, versions, ages
