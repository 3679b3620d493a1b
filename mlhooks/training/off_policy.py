"""The bases of off-policy trainers: experience stays in a replay buffer, and updates sample it."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mlhooks.errors import NonFiniteError
from mlhooks.nn.heads import SampledActions, branch_slices
from mlhooks.settings import OffPolicyHyperparameters, TrainerSettings
from mlhooks.state_checks import number, whole
from mlhooks.training.batch import Batch
from mlhooks.training.columns import take
from mlhooks.training.hyperparameters import hyperparameter
from mlhooks.training.learning import LearningHalf, Reported
from mlhooks.training.policy import Policy
from mlhooks.training.replay import ReplayBuffer, find_sequences
from mlhooks.training.reward_signals import checked_update
from mlhooks.training.running_returns import RunningReturns
from mlhooks.training.trainer import Trainer

logger = logging.getLogger("mlhooks")

MOST_SUMMED = 1024
"""The most rows whose observations are copied at once for statistics of reward signals."""


class OffPolicyLearning(LearningHalf):
    """Learns from a minibatch of the replay buffer for every `steps_per_update` agent steps.

    The buffer keeps the environment's rewards; reward signals are evaluated when it is sampled. Those that learn do so
    after the policy, from minibatches of their own, one for every `reward_signal_steps_per_update` agent steps.

    With `threaded` a round of updates runs beside the environments' next steps, and is waited for when the next round
    is due. The number of updates is the same, but the steps meanwhile are decided by weights that are being changed, so
    that runs with the same seed differ.
    """

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        assert isinstance(self.settings.hyperparameters, OffPolicyHyperparameters)
        self.hyperparameters = self.settings.hyperparameters
        self._powers = (self.gammas ** np.arange(self.n_step + 1)[:, None]).astype(np.float32)  # [n + 1, signals]
        self._burn_in = int(hyperparameter(self.settings, "burn_in"))
        self._thread: ThreadPoolExecutor | None = None
        self._round: Future[Reported] | None = None  # It holds the updates that run now.
        self._unreported: Reported = []
        self._updated_at = self._signals_updated_at = 0.0  # Updates are done up to these steps.
        self._normalized_at = 0  # Observations before this tick are in the normalizer.
        self.follow_returns(self.gammas)
        self.make_cloning()

    @cached_property
    def n_step(self) -> int:
        """Rewards in a return before the bootstrapped value."""
        return int(hyperparameter(self.settings, "n_step"))

    @property
    def gammas(self) -> np.ndarray:
        """The discount factor for each reward signal [signals]: the hyperparameter `gamma`, or else their own."""
        common = hyperparameter(self.settings, "gamma")
        return np.array([signal.gamma if common is None else common for signal in self.reward_signals], np.float64)

    def ready(self, store: ReplayBuffer, step: int) -> bool:  # type: ignore[override]
        """Return whether an update is due."""
        rows, h = min(store.complete, store.filled), self.hyperparameters
        if rows < h.batch_size or step < h.buffer_init_steps:
            self._updated_at = self._signals_updated_at = float(step)  # Later there is nothing to catch up on.
            return False
        return step - self._updated_at >= max(h.steps_per_update, h.update_interval)

    def update(self, store: ReplayBuffer, step: int) -> Reported:  # type: ignore[override]
        """Do all updates that are due; with `threaded`, begin them, and report those of the round before."""
        finished = self._finish_round()
        self.step = step
        h, signal_updates = self.hyperparameters, 0
        count = int((step - self._updated_at) / h.steps_per_update)
        self._updated_at += count * h.steps_per_update
        if self.signals_that_learn:
            for signal in self.signals_that_learn:
                signal.step = step
            signal_updates = int((step - self._signals_updated_at) / h.reward_signal_steps_per_update)
            self._signals_updated_at += signal_updates * h.reward_signal_steps_per_update
        self._update_normalizer(store)
        if self.signal_returns.columns:
            self._sum_signals(store)
        if self.running_returns is not None:
            self._follow_rewards(store, self.running_returns)
        self.optimizer.set_step(step)
        batches = (self.sample(store, h.batch_size) for _ in range(count))
        for_signals = (self.sample(store, h.batch_size) for _ in range(signal_updates))
        if self.settings.threaded:
            self._thread = self._thread or ThreadPoolExecutor(1, "learner")
            self._round = self._thread.submit(self._learn, list(batches), list(for_signals))
        else:
            finished = self._learn(batches, for_signals)
        self.updates += count
        return finished

    def _learn(self, batches: Iterable[Batch], for_signals: Iterable[Batch]) -> Reported:
        """Update the policy on each batch, then the reward signals on theirs, and return all that they report."""
        reported = []
        for batch in batches:
            try:
                reported.append(self.optimizer.update(batch))
            except NonFiniteError as error:
                self._name_non_finite_signal(batch, error)
                raise
            if self.cloning is not None:
                reported.append(self.cloning.update(self.step))
        return reported + [checked_update(signal, batch) for batch in for_signals for signal in self.signals_that_learn]

    def _name_non_finite_signal(self, batch: Batch, error: NonFiniteError) -> None:
        """Say that a reward signal is why an update of its minibatch is not finite, where it is."""
        for signal, rewards in zip(self.reward_signals, batch.signal_rewards.unbind(1), strict=True):
            if not rewards.isfinite().all():
                raise NonFiniteError(
                    f"Behavior {self.behavior_name!r}: the reward of reward signal {signal.name!r} is NaN or infinite, "
                    f"at step {self.step:,}. No parameter was changed by it."
                ) from error

    def _finish_round(self) -> Reported:
        """Wait for the updates that run, and return all reports that were not returned before."""
        if self._round is not None:
            running, self._round = self._round, None
            self._unreported += running.result()
        reported, self._unreported = self._unreported, []
        return reported

    def await_update(self) -> None:
        """Wait for the round of updates that runs."""
        self._unreported = self._finish_round()

    def finish_update(self) -> Reported:
        """Finish the round of updates that runs, and its thread."""
        finished = self._finish_round()
        if self._thread is not None:
            self._thread.shutdown()
            self._thread = None
        return finished

    def _update_normalizer(self, store: ReplayBuffer) -> None:
        if self.policy.inputs.normalizer is None:
            return
        new = np.flatnonzero(store.tick[: store.filled] >= self._normalized_at)
        self._normalized_at = store.clock + 1
        self.policy.inputs.update([obs[new] for obs in store.obs])

    def _follow_rewards(self, store: ReplayBuffer, sums: RunningReturns) -> None:
        """Add the rewards of the rows that were completed since the last time to the sums of their episodes."""
        rows = sums.new_rows(store)
        for start in range(0, len(rows), MOST_SUMMED):
            part = rows[start : start + MOST_SUMMED]
            batch = Batch(**self._columns(store, part, {}))
            rewards = np.stack([signal.rewards(batch).cpu().numpy() for signal in self.reward_signals], 1)
            sums.add(store, part, rewards / self.strengths_or_1)

    def _sum_signals(self, store: ReplayBuffer) -> None:
        """Evaluate the reward signals for the rows that were completed since the last time, for statistics alone."""
        rows = self.signal_returns.new_rows(store)
        signals = [self.reward_signals[index] for index in self.signal_returns.columns]
        for start in range(0, len(rows), MOST_SUMMED):
            part = rows[start : start + MOST_SUMMED]
            batch = Batch(**self._columns(store, part, {}))
            rewards = [signal.rewards(batch).cpu().numpy() for signal in signals]
            self.signal_returns.add(store, part, np.stack(rewards, 1))

    def sample(self, store: ReplayBuffer, size: int) -> Batch:
        """Return a minibatch of n-step transitions with the discounted sums of each signal's rewards.

        Where agents have a memory, these are in sequences of consecutive rows.
        """
        if store.memory_size:
            return self._sample_sequences(store, size)
        rows = store.draw(size, self.rng)
        path = store.transitions(rows, self._powers, self.ignores_ends)
        reads_next = "next_obs" in self.reads and path.steps.shape[1] == 1
        next_obs = store.obs_at(path.next_rows, store.final[rows] if reads_next else path.finals)
        following: dict[str, Any] = {
            "next_features": self.policy.features(next_obs),
            "discounts": self.tensor(path.discounts),
        }
        if reads_next:
            following["next_obs"] = self.policy.raw_features(next_obs, following["next_features"])
        if store.masked:
            next_mask = store.mask[path.next_rows]
            next_mask[path.ended] = False
            following["next_mask"] = self.tensor(next_mask)
        batch = Batch(**self._columns(store, rows, following))
        passed = batch
        if path.steps.shape[1] > 1:  # Signals get rows that exist: behind the end of a transition, its first one again.
            steps = np.where(path.steps >= 0, path.steps, rows[:, None])
            passed = Batch(**self._columns(store, steps.ravel(), {}))
        return batch.rewarded(self._returns(passed, path.steps))

    def _sample_sequences(self, store: ReplayBuffer, size: int) -> Batch:
        """Return a minibatch of random sequences, with the memories that acting stored there.

        A sequence has `burn_in` rows, then up to `sequence_length` rows that count, and then those up to n steps later,
        for the bootstrapped values. It ends with its episode, whose final observation has a place in it, too. Rows of
        the burn-in count where the sequence begins with an episode, because its memory of zeros is never out of date.
        """
        network = self.settings.network_settings.memory
        assert network is not None
        burn_in, n = self._burn_in, self.n_step
        first = store.draw_sequences(max(1, size // network.sequence_length), self.rng)
        found = find_sequences(store, first, burn_in + network.sequence_length + n - 1)
        rows, width = found.rows.ravel(), found.rows.shape[1]
        path = store.transitions(rows, self._powers, self.ignores_ends)
        columns = self._columns(store, rows, {"discounts": self.tensor(path.discounts)})
        columns["features"] = self.policy.features(store.obs_at(rows, found.finals.ravel()))
        if store.masked:
            next_mask = store.mask[path.next_rows]
            next_mask[path.ended] = False
            columns["next_mask"] = self.tensor(next_mask)
        places, steps = np.arange(width), (path.steps >= 0).sum(1).reshape(found.rows.shape)
        begins = ~store.memory[first].any(axis=1, keepdims=True)
        counts = found.complete & (places < burn_in + network.sequence_length) & (begins | (places >= burn_in))
        following = np.minimum(np.arange(len(rows)).reshape(steps.shape) + steps, len(rows) - 1)
        batch = Batch(
            **columns,
            memory=self.tensor(store.memory[rows]),
            following=self.tensor(following.ravel()),
            loss_mask=self.tensor(counts.ravel()),
            present=self.tensor(found.present.ravel()),
            width=width,
        )
        passed = batch
        if n > 1:
            each = np.where(path.steps >= 0, path.steps, rows[:, None])
            passed = Batch(**self._columns(store, each.ravel(), {}))
        return batch.rewarded(self._returns(passed, path.steps))

    def _columns(self, store: ReplayBuffer, rows: np.ndarray, following: dict[str, Any]) -> dict[str, Any]:
        """Return the columns of rows of the store, together with `following`, those of what follows each row."""
        columns = {"continuous": store.continuous, "discrete": store.discrete, "rewards": store.reward}
        if store.masked:
            columns["mask"] = store.mask
        if store.grouped:
            columns["group_rewards"] = store.group_reward
        obs = len(store.obs)
        taken = take([*store.obs, *columns.values()], rows)
        tensors = dict(zip(columns, map(self.tensor, taken[obs:]), strict=True), **following)
        features = tensors["features"] = self.policy.features(taken[:obs])
        if self.reads:
            tensors["ended"] = self.tensor(store.final[rows] >= 0)
        if "obs" in self.reads:
            tensors["obs"] = self.policy.raw_features(taken[:obs], features)
        if "next_obs" in self.reads and "next_obs" not in tensors:
            next_obs = store.obs_after(rows)
            tensors["next_obs"] = self.policy.raw_features(next_obs, self.policy.features(next_obs))
        return tensors

    def _returns(self, batch: Batch, steps: np.ndarray) -> Tensor:
        """Return discounted sums [rows, signals] of rewards along transitions; `batch` has the rows of `steps`."""
        rewards = [signal.rewards(batch) for signal in self.reward_signals]
        if self.running_returns is not None:
            most, scales = self.most_reward, self.running_returns.statistics.scale() / self.strengths_or_1
            factors = zip(scales.tolist(), self.strengths.tolist(), rewards, strict=True)
            rewards = [(part * scale).clamp(-most, most) * strength for scale, strength, part in factors]
        if steps.shape[1] > 1:
            weights = self.tensor(self._powers[:-1] * (steps >= 0)[:, :, None])  # [rows, n, signals]
            rewards = [(part.view(steps.shape) * weights[:, :, k]).sum(1) for k, part in enumerate(rewards)]
        return rewards[0].unsqueeze(1) if len(rewards) == 1 else torch.stack(rewards, 1)

    def state_dict(self) -> dict[str, Any]:
        """Return all state that a resume needs beyond modules; a round of updates that runs ends first."""
        self.await_update()
        return {
            **super().state_dict(),
            "updated_at": self._updated_at,
            "signals_updated_at": self._signals_updated_at,
            "normalized_at": self._normalized_at,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        super().load_state_dict(state)
        self._updated_at = number(state["updated_at"], "updated_at")
        self._signals_updated_at = number(state["signals_updated_at"], "signals_updated_at")
        self._normalized_at = whole(state["normalized_at"], "normalized_at")


def random_actions(
    actions: SampledActions, policy: Policy, mask: np.ndarray | None, rng: np.random.Generator
) -> SampledActions:
    """Replace actions by uniformly random ones, among those that an environment takes and no mask forbids.

    Args:
        actions: what the policy would do; memories stay what they are.
        policy: the policy, which tells the samples of which it makes given actions between -1 and 1.
        mask: [agents, sum of branch sizes], True where forbidden, or None.
        rng: the source of randomness.
    """
    spec = policy.behavior_spec.action_spec
    continuous = rng.uniform(-1.0, 1.0, actions.continuous.shape).astype(np.float32)
    scores = rng.random((len(actions.discrete), sum(spec.discrete_branches)))
    if mask is not None:
        scores[mask] = -1.0
    discrete = np.empty_like(actions.discrete)
    for branch, columns in enumerate(branch_slices(spec)):
        discrete[:, branch] = scores[:, columns].argmax(1)
    return actions._replace(continuous=policy.from_environment(continuous), discrete=discrete)


class OffPolicyTrainer(Trainer):
    """Keeps experience in a replay buffer, from which its learning half samples."""

    store_type = ReplayBuffer
    learning_type = OffPolicyLearning
    learning: OffPolicyLearning

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.random_steps: int = hyperparameter(self.settings, "random_steps")
        if self.random_steps:
            self.acting.explore = self._act_at_random

    def _act_at_random(
        self, actions: SampledActions, mask: np.ndarray | None, rng: np.random.Generator
    ) -> SampledActions:
        """Return uniformly random actions until `random_steps`, and from then on those of the policy."""
        if self.step >= self.random_steps or not self.training:
            self.acting.explore = None
            return actions
        return random_actions(actions, self.policy, mask, rng)

    @property
    def store(self) -> ReplayBuffer:
        """The replay buffer."""
        store = self.acting.store
        assert isinstance(store, ReplayBuffer)
        return store

    @classmethod
    def store_rows(cls, settings: TrainerSettings) -> int:
        """Return the size of the whole buffer."""
        rows: int = settings.hyperparameters.buffer_size
        return rows

    def state_dict(self) -> dict[str, Any]:
        """Return all that a resume needs; the experience itself only with `save_replay_buffer`."""
        whole_buffer = self.learning.hyperparameters.save_replay_buffer
        state = {**super().state_dict(), "whole_buffer": whole_buffer}
        if not whole_buffer:
            state["store"] = self.store.open_only().state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        super().load_state_dict(state)
        if not state["whole_buffer"]:
            logger.warning(
                "Behavior %r was saved without its replay buffer, which fills again: the resumed run will differ from "
                "one that was never stopped. hyperparameters.save_replay_buffer: true saves it.",
                self.behavior_name,
            )
