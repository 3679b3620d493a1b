"""The bases of on-policy trainers: a rollout becomes one batch with values, advantages and returns."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mlhooks.errors import NonFiniteError, PluginError
from mlhooks.nn.normalizer import Normalizer
from mlhooks.settings import AdvantageNormalization, RewardNormalization, TrainerSettings
from mlhooks.training.advantages import generalized_advantages, needs_finals, next_values
from mlhooks.training.batch import Batch
from mlhooks.training.hyperparameters import hyperparameter
from mlhooks.training.learning import LearningHalf, Reported
from mlhooks.training.optimizer import ActorCriticOptimizer
from mlhooks.training.part_checks import called, check_values
from mlhooks.training.recurrent import Recurrence, sequences_of
from mlhooks.training.reward_signals import checked_update
from mlhooks.training.store import ExperienceStore
from mlhooks.training.trainer import Trainer


class OnPolicyLearning(LearningHalf):
    """Learns from each rollout once: makes it one batch, and passes over it in minibatches."""

    optimizer: ActorCriticOptimizer

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        signals = len(self.reward_signals)
        normalization = hyperparameter(self.settings, "normalize_rewards")
        follows = normalization in (RewardNormalization.FOLLOWING, True)  # Settings of plugins may say True.
        self.following_returns = Normalizer(signals) if follows else None
        self.return_normalizer = self.following_returns
        self.follow_returns(self.gammas)
        self._mean_of_signals = np.full((signals, 1), 1.0 / signals, np.float32)
        self.make_cloning()

    @property
    def epochs(self) -> int:
        """How often an update passes over the rollout."""
        return int(hyperparameter(self.settings, "num_epoch"))

    @property
    def lambd(self) -> float:
        """GAE's lambda."""
        return float(hyperparameter(self.settings, "lambd"))

    def ready(self, store: ExperienceStore, step: int) -> bool:  # noqa: ARG002
        """Return whether a rollout is complete."""
        return store.complete >= store.rows

    def update(self, store: ExperienceStore, step: int) -> Reported:
        """Hand the rollout's observations to the normalizer, and learn from it in minibatches of `batch_size`.

        Reward signals learn from each minibatch after the policy did, as in ML-Agents; the rewards that they gave for
        the rollout stay as they were.

        The normalizer comes first, as in ML-Agents: otherwise the update would learn from features that no policy will
        see again. Without `normalize_before_update` it comes last: the update learns from the features by which the
        policy acted. The observations of the first rollout are in it already, by `update_normalizer`.
        """
        if not store.complete:
            raise PluginError(f"{called(self, 'ready')} said that there is enough to learn from; no row is complete.")
        self.step = step
        first = hyperparameter(self.settings, "normalize_before_update")
        if first:
            self._normalize_by(store)
        self.optimizer.set_step(step)
        for signal in self.signals_that_learn:
            signal.step = step
        batch = self.normalized_advantages(self.rollout(store))
        size = self.settings.hyperparameters.batch_size
        reported = []
        for minibatch in chain.from_iterable(batch.minibatches(size, self.rng) for _ in range(self.epochs)):
            reported.append(self.optimizer.update(minibatch))
            if self.optimizer.ends_epochs:
                break
            reported += [checked_update(signal, minibatch) for signal in self.signals_that_learn]
        if self.cloning is not None:
            reported.append(self.cloning.update(step))
        if not first:
            self._normalize_by(store)
        self.updates += 1
        return reported

    def _normalize_by(self, store: ExperienceStore) -> None:
        """Hand a rollout's observations to the normalizer, where these are not in it already."""
        if self.policy.inputs.normalizer is not None and self.updates:
            rows = store.complete_rows()
            self.policy.inputs.update([obs[rows] for obs in store.obs])

    def update_normalizer(self, store: ExperienceStore) -> None:
        """Hand the observations of agents that wait for a decision to the normalizer.

        Until the first update, the trainer calls this before each decision; ML-Agents normalizes from the first
        episodes on, too. Otherwise the policy would act by other features than those that it learns from in the first
        update, which would clip most of its probability ratios from the start.
        """
        new = slice(store.waiting, store.size)
        if self.policy.inputs.normalizer is not None and new.start < new.stop:
            self.policy.inputs.update([obs[new] for obs in store.obs])

    def rollout(self, store: ExperienceStore) -> Batch:
        """Return the complete rows with values, advantages and returns.

        Raises:
            NonFiniteError: a value estimate or a reward signal is NaN or infinite.
        """
        rows, signals = store.complete_rows(), self.reward_signals
        features = self.policy.features([obs[: store.size] for obs in store.obs])
        values, following = self.estimate(store, features)
        columns: dict[str, Any] = {
            "features": features[rows if isinstance(rows, slice) else torch.from_numpy(rows).to(self.device)],
            "continuous": self.tensor(store.continuous[rows]),
            "discrete": self.tensor(store.discrete[rows]),
            "mask": self.tensor(store.mask[rows]) if store.masked else None,
            "log_probs": self.tensor(store.log_prob[rows]),
            **self._memories(store, rows),
        }
        seen = self._seen_by_signals(store, rows, columns["features"])
        rewards = np.zeros_like(values)
        rewards[rows] = self.signal_rewards(Batch(**columns, **seen))
        if others := self.signal_returns.columns:
            self.signal_returns.add(store, np.arange(store.size)[rows], rewards[rows][:, others])
        if self.return_normalizer is not None:
            rewards[rows] = self._normalized(store, rewards)
        advantages = self.advantages(store, rewards, values, following)

        parts = {"reward": rewards[rows], "value estimate": values[rows], "advantage": advantages[rows]}
        for index, signal in enumerate(signals):
            self._check_finite_parts(store, signal.name, {what: part[:, index] for what, part in parts.items()})
            mean = float(np.add.reduce(parts["value estimate"][:, index]) / len(parts["reward"]))
            self.stats.add_stat(f"Policy/{signal.name.capitalize()} Value Estimate", mean)
        return Batch(
            **columns,
            **(seen if self.signals_that_learn else {}),
            values=self.tensor(parts["value estimate"]),
            returns=self.tensor(parts["value estimate"] + parts["advantage"]),
            advantages=self.tensor(np.dot(parts["advantage"], self._mean_of_signals)),
        )

    def normalized_advantages(self, rollout: Batch) -> Batch:
        """Return a rollout with standardized advantages, where `normalize_advantages` says `rollout`."""
        if hyperparameter(self.settings, "normalize_advantages") is not AdvantageNormalization.ROLLOUT:
            return rollout
        return replace(rollout, advantages=rollout.standardize(rollout.advantages))

    @cached_property
    def gammas(self) -> np.ndarray:
        """The discount factor of each reward signal: [signals]."""
        return np.array([signal.gamma for signal in self.reward_signals], np.float32)

    def estimate(self, store: ExperienceStore, features: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Return the values of rows and those that follow each, [rows in use, signals], of features [rows, size]."""
        finals, ignores_ends = None, self.ignores_ends
        if needs_finals(store, ignores_ends):
            finals = self.policy.features([obs[: store.finals] for obs in store.final_obs])
        if self._critic_remembers:
            recurrence = Recurrence(store, self.optimizer, sequences_of(store, self.sequence_length))
            estimated, of_finals = recurrence.estimate(features, finals)
        else:
            estimated = self._estimated(store, features)
            signals = len(self.reward_signals)
            estimated = check_values(self.optimizer, estimated, store.size, signals)
            of_finals = estimated[:0]
            if finals is not None:
                of_finals = check_values(self.optimizer, self.optimizer.estimate(finals), len(finals), signals)
        values, final_values = estimated.cpu().numpy(), of_finals.cpu().numpy()
        return values, next_values(store, values, final_values, ignores_ends)

    @property
    def sequence_length(self) -> int:
        """The most rows in a sequence that a memory is trained on."""
        memory = self.settings.network_settings.memory
        return 1 if memory is None else memory.sequence_length

    @property
    def _critic_remembers(self) -> bool:
        return bool(getattr(getattr(self.optimizer, "critic", None), "memory_size", 0))

    def _memories(self, store: ExperienceStore, rows: np.ndarray | slice) -> dict[str, Any]:
        """Return the columns of complete rows that networks with a memory read, and how the rows are laid out."""
        columns: dict[str, Any] = {}
        if store.memory_size:
            columns["memory"] = self.tensor(store.memory[rows])
        if self._critic_remembers and not self.optimizer.shares_memory:
            columns["critic_memory"] = self.tensor(store.critic_memory[rows])
        return {**columns, "units": sequences_of(store, self.sequence_length)} if columns else {}

    def signal_rewards(self, batch: Batch) -> np.ndarray:
        """Return what each reward signal gives for complete rows, times its strength: [rows, signals]."""
        rewards = np.empty((len(batch), len(self.reward_signals)), np.float32)
        for index, signal in enumerate(self.reward_signals):
            rewards[:, index] = signal.rewards(batch).cpu().numpy()
        return rewards

    def advantages(
        self, store: ExperienceStore, rewards: np.ndarray, values: np.ndarray, following: np.ndarray
    ) -> np.ndarray:
        """Return the advantages of each reward signal; all arguments and the result are [rows in use, signals]."""
        with np.errstate(over="ignore", invalid="ignore"):  # What is not finite is named afterwards.
            return generalized_advantages(store, rewards, values, following, self.gammas, self.lambd)

    def _seen_by_signals(self, store: ExperienceStore, rows: np.ndarray | slice, features: Tensor) -> dict[str, Any]:
        """Return the columns of complete rows that reward signals look at, beside features and actions."""
        reads = self.reads
        seen = {"rewards": self.tensor(store.reward[rows])}
        if store.grouped:
            seen["group_rewards"] = self.tensor(store.group_reward[rows])
        if reads:
            seen["ended"] = self.tensor(store.final[rows] >= 0)
        if "obs" in reads:
            seen["obs"] = self.policy.raw_features([obs[rows] for obs in store.obs], features)
        if "next_obs" in reads:
            following = store.obs_after(np.arange(store.size)[rows])
            seen["next_obs"] = self.policy.raw_features(following, self.policy.features(following))
        return seen

    def _normalized(self, store: ExperienceStore, rewards: np.ndarray) -> np.ndarray:
        """Return the rewards of complete rows over the deviation of discounted sums so far, times strength.

        Sums run from each row to the end of its trajectory or rollout, or where the settings say `running`, from the
        episode's beginning to the row, as in Stable-Baselines3's `VecNormalize`.

        Args:
            store: the rows.
            rewards: [rows in use, signals].
        """
        for index, signal in enumerate(self.reward_signals):  # Nothing that is not finite may get into the sums.
            self._check_finite_parts(store, signal.name, {"reward": rewards[:, index]})
        rows = np.arange(store.size)[store.complete_rows()]
        if self.running_returns is not None:
            rewards = rewards / self.strengths_or_1
            scale = self.running_returns.add(store, rows, rewards[rows])
        else:
            assert self.following_returns is not None
            nothing, gammas = np.zeros_like(rewards), self.normalizing_gammas(self.gammas)
            sums = generalized_advantages(store, rewards, nothing, nothing, gammas, 1.0)
            self.following_returns.update(sums[rows])
            _, scale = self.following_returns.shift_scale()
        normalized: np.ndarray = np.clip(rewards[rows] * scale, -self.most_reward, self.most_reward) * self.strengths
        return normalized

    def _estimated(self, store: ExperienceStore, features: Tensor) -> Tensor:
        """Return values [rows in use, signals]; a critic on the actor's encoder takes the encodings of acting."""
        optimizer = self.optimizer
        encoded = slice(store.encoded_from, store.waiting)
        if encoded.start >= encoded.stop:
            return optimizer.estimate(features)
        if not isinstance(optimizer, ActorCriticOptimizer) or not optimizer.reads_encodings:
            return optimizer.estimate(features)
        known = optimizer.estimate_from_encodings(self.tensor(store.encoding[encoded]))
        return torch.cat(
            [optimizer.estimate(features[: encoded.start]), known, optimizer.estimate(features[encoded.stop :])]
        )

    def _check_finite_parts(self, store: ExperienceStore, signal: str, parts: dict[str, np.ndarray]) -> None:
        for what, values in parts.items():
            if np.count_nonzero(np.isfinite(values)) < values.size:
                raise NonFiniteError(
                    f"Behavior {self.behavior_name!r}: the {what} of reward signal {signal!r} is NaN or infinite, at "
                    f"step {self.step:,}. No parameter was changed by it. {_magnitudes(store)}"
                )


class OnPolicyTrainer(Trainer):
    """Learns from each rollout of `buffer_size` complete rows once, then lets it go.

    A rollout ends before its agents' next decision is made, so every row is acted by the policy that learns from it,
    except open rows of agents that decide more rarely: those are carried into the next rollout.
    """

    learning_type = OnPolicyLearning
    learning: OnPolicyLearning

    @classmethod
    def store_rows(cls, settings: TrainerSettings) -> int:
        """Return the size of a rollout."""
        rows: int = settings.hyperparameters.buffer_size
        return rows

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.acting.prepare = self._normalize_before_the_first_update

    def _normalize_before_the_first_update(self, store: ExperienceStore) -> None:
        if self.updates:
            self.acting.prepare = None
        elif self.training:
            self.learning.update_normalizer(store)

    def check_acted(self) -> None:
        """Do as the base, and let the rollout go that a resumed run would fail on again."""
        try:
            super().check_acted()
        except PluginError:
            self.store.drop_trajectories(np.flatnonzero(self.store.open_row >= 0))
            self.store.keep_open()
            raise

    def update(self) -> dict[str, float] | None:
        """Learn from the rollout, and let it go."""
        losses = super().update()
        self.store.keep_open()
        return losses


def _magnitudes(store: ExperienceStore) -> str:
    """Say how large the numbers of a rollout are, from which others may have become infinite."""
    n = store.size
    seen = max(float(np.abs(obs[:n], dtype=np.float64).max()) for obs in store.obs)
    got = float(np.abs(store.reward[:n]).max())
    return (
        f"Observations are as large as {seen:.3g}, and rewards of the environment as {got:.3g}: if that is why, "
        "let the environment scale them."
    )
