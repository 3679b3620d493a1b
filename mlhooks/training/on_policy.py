"""The base of on-policy trainers: a rollout becomes one batch with values, advantages and returns."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from mlhooks.errors import NonFiniteError
from mlhooks.settings import TrainerSettings
from mlhooks.training.advantages import generalized_advantages, next_values
from mlhooks.training.batch import Batch
from mlhooks.training.optimizer import ActorCriticOptimizer
from mlhooks.training.store import End
from mlhooks.training.trainer import Trainer


class OnPolicyTrainer(Trainer):
    """Learns from each rollout of `buffer_size` complete rows once, then lets it go.

    A rollout ends before its agents' next decision is made, so every row is acted by the policy that learns from it,
    except open rows of agents that decide more rarely: those are carried into the next rollout.
    """

    optimizer: ActorCriticOptimizer

    @classmethod
    def store_rows(cls, settings: TrainerSettings) -> int:
        """One rollout."""
        rows: int = settings.hyperparameters.buffer_size
        return rows

    @property
    def epochs(self) -> int:
        """How often an update passes over the rollout."""
        return int(getattr(self.settings.hyperparameters, "num_epoch", 1))

    @property
    def lambd(self) -> float:
        """GAE's lambda."""
        return float(getattr(self.settings.hyperparameters, "lambd", 1.0))

    def ready_to_update(self) -> bool:
        """Whether a rollout is complete."""
        return self.store.complete >= self.store.rows

    def update(self) -> dict[str, float]:
        """Hand the rollout's observations to the normalizer, and learn from it in minibatches of `batch_size`.

        The normalizer comes first, as in ML-Agents: else the first rollout would be learned from with features that
        nobody will see again.
        """
        if self.policy.inputs.normalizer is not None:
            rows = self.store.complete_rows()
            self.policy.inputs.update([obs[rows] for obs in self.store.obs])
        self.optimizer.set_step(self.step)
        batch = self.rollout()
        size = self.settings.hyperparameters.batch_size
        reported = [
            self.optimizer.update(minibatch)
            for _ in range(self.epochs)
            for minibatch in batch.minibatches(size, self.rng)
        ]
        reported += [signal.update(batch) for signal in self.reward_signals]
        self.policy.weights_changed()
        self.store.keep_open()
        self.updates += 1
        return self.report(reported)

    def rollout(self) -> Batch:
        """The complete rows with values, advantages and returns.

        Raises:
            NonFiniteError: a value estimate or a reward signal is NaN or infinite.
        """
        store, n, rows = self.store, self.store.size, self.store.complete_rows()
        features = self.policy.features([obs[:n] for obs in store.obs])
        values = self._estimated(features).cpu().numpy()
        final_values = values[:0]
        if np.count_nonzero(store.end[:n] == End.INTERRUPTED):
            finals = self.policy.features([obs[: store.finals] for obs in store.final_obs])
            final_values = self.optimizer.estimate(finals).cpu().numpy()
        columns: dict[str, Any] = {
            "features": features[rows if isinstance(rows, slice) else torch.from_numpy(rows).to(self.device)],
            "continuous": self.tensor(store.continuous[rows]),
            "discrete": self.tensor(store.discrete[rows]),
            "mask": self.tensor(store.mask[rows]) if store.masked else None,
            "log_probs": self.tensor(store.log_prob[rows]),
        }
        experience = Batch(
            **columns,
            rewards=self.tensor(store.reward[rows]),
            group_rewards=self.tensor(store.group_reward[rows]) if store.grouped else None,
        )
        rewards = np.zeros_like(values)
        for index, signal in enumerate(self.reward_signals):
            rewards[rows, index] = signal.rewards(experience).cpu().numpy()
        gamma = np.array([signal.gamma for signal in self.reward_signals], np.float32)
        following = next_values(store, values, final_values)
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is named below
            advantages = generalized_advantages(store, rewards, values, following, gamma, self.lambd)

        parts = {"reward": rewards[rows], "value estimate": values[rows], "advantage": advantages[rows]}
        for index, signal in enumerate(self.reward_signals):
            self._check_finite_parts(signal.name, {what: part[:, index] for what, part in parts.items()})
            mean = float(np.add.reduce(parts["value estimate"][:, index]) / len(experience))
            self.stats.add_stat(f"Policy/{signal.name.capitalize()} Value Estimate", mean)
        return Batch(
            **columns,
            values=self.tensor(parts["value estimate"]),
            returns=self.tensor(parts["value estimate"] + parts["advantage"]),
            advantages=self.tensor(np.dot(parts["advantage"], np.full_like(gamma, 1.0 / len(gamma)))),  # their mean
        )

    def _estimated(self, features: Tensor) -> Tensor:
        """Values [rows in use, signals]; what acting encoded for a critic on the same encoder is not encoded again."""
        store, optimizer = self.store, self.optimizer
        encoded = slice(store.encoded_from, store.waiting)
        reads = isinstance(optimizer, ActorCriticOptimizer) and optimizer.reads_encodings
        if encoded.start >= encoded.stop or not reads:
            return optimizer.estimate(features)
        known = optimizer.estimate_from_encodings(self.tensor(store.encoding[encoded]))
        return torch.cat(
            [optimizer.estimate(features[: encoded.start]), known, optimizer.estimate(features[encoded.stop :])]
        )

    def _check_finite_parts(self, signal: str, parts: dict[str, np.ndarray]) -> None:
        for what, values in parts.items():
            if np.count_nonzero(np.isfinite(values)) < values.size:
                raise NonFiniteError(
                    f"Behavior {self.behavior_name!r}: the {what} of reward signal {signal!r} is NaN or infinite, at "
                    f"step {self.step:,}. No parameter was changed by it. {self._magnitudes()}"
                )

    def _magnitudes(self) -> str:
        """Say how large the numbers of the rollout are, from which others may have become infinite."""
        n = self.store.size
        seen = max(float(np.abs(obs[:n], dtype=np.float64).max()) for obs in self.store.obs)
        got = float(np.abs(self.store.reward[:n]).max())
        return (
            f"Observations are as large as {seen:.3g}, and rewards of the environment as {got:.3g}: if that is why, "
            "let the environment scale them."
        )
