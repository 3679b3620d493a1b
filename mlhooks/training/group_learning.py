"""The bases of on-policy trainers that learn from groups: rollouts with values of groups and members' baselines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mlhooks.nn.groups import HEADS, GroupCritic, embedding_size
from mlhooks.settings import TrainerSettings
from mlhooks.training.batch import Batch
from mlhooks.training.groups import Cells, after_ends, cells_of, groupmate_rewards, has_groups, is_whole_end
from mlhooks.training.learning import Reported
from mlhooks.training.on_policy import OnPolicyLearning, OnPolicyTrainer
from mlhooks.training.optimizer import ActorCriticOptimizer, rows_at_once
from mlhooks.training.policy import ActorPolicy
from mlhooks.training.recurrent import Recurrence, sequences_of
from mlhooks.training.signal_returns import SignalReturns
from mlhooks.training.store import ExperienceStore
from mlhooks.training.trainer import Supports

CHUNK_PAIRS = 2**16
"""The most pairs of members, counted for each member that looks at them, whose attention is computed at once."""


class GroupOptimizer(ActorCriticOptimizer):
    """The base of optimizers whose critic values groups and has a baseline for each of their members.

    `group_values(batch)` gives a loss both. Rows of a batch without `cells` are of agents that are alone.

    Args:
        policy: the policy to improve.
        settings: the behavior's settings.
    """

    critic: Any  # It is a `GroupCritic`.
    reads_bytes = True

    def __init__(self, policy: ActorPolicy, settings: TrainerSettings) -> None:
        super().__init__(policy, settings)
        network, signals = settings.network_settings.of_critic, len(settings.reward_signals)
        action_spec = policy.behavior_spec.action_spec
        self.critic = GroupCritic(policy.layout, action_spec, network, signals).to(policy.device)

    def group_values(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return values and baselines [rows, signals] of a batch's rows, with gradients, for losses."""
        cells, critic, device = batch.cells or _alone(len(batch)), self.critic, batch.features.device
        encodings, seen = critic.embed(batch.features)
        acting = critic.embed_actions(encodings, batch.continuous, batch.discrete)
        encoded, numbers = critic.encode(seen, acting, torch.from_numpy(cells.members).to(device))
        cell, column = (torch.from_numpy(index).to(device) for index in cells.places(len(batch)))
        if not critic.memory_size:
            outputs = critic.read(encoded, numbers[:, None])
            return outputs[cell, 0], outputs[cell, 1 + column]
        rows = _of_rows(encoded, numbers, cell, column)
        values, baselines, _ = critic.unroll(rows, batch.critic_memory, batch.width, batch.lengths)
        return values, baselines

    def values(self, batch: Batch) -> Tensor:
        """Return the values [rows, signals] of the groups of a batch's rows, with gradients."""
        return self.group_values(batch)[0]

    @torch.no_grad()
    def estimate(self, features: Tensor) -> Tensor:
        """Return the values [rows, signals] of agents that are alone, with memories of zeros, without gradients."""
        found = []
        for part in features.split(rows_at_once(features)):
            _, seen = self.critic.embed(part)
            members = torch.arange(len(part), device=part.device)[:, None]
            encodings = _of_groups(*self.critic.encode(seen, None, members))
            found.append(self._outputs(encodings)[0])
        return torch.cat(found)

    def _outputs(self, encodings: Tensor) -> tuple[Tensor, Tensor]:
        """Return values and baselines [rows, signals] of encodings [rows, output_size], with memories of zeros."""
        if self.critic.memory_size:
            return self.critic.unroll(encodings)[:2]  # type: ignore[no-any-return]
        group, member, number = encodings.split([self.critic.size, self.critic.size, 1], 1)
        return self.critic.read(group, number), self.critic.read(member, number)

    @torch.no_grad()
    def estimate_units(
        self, features: Tensor, memory: Tensor, width: int = 1, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return values and baselines side by side [rows, 2 * signals], and the memories [units, size] after each unit.

        Args:
            features: [units * width, critic.output_size], the encodings that `encode_rollout` returns.
            memory: [units, critic.memory_size].
            width: rows of a unit.
            lengths: [units] int64 on the CPU, how many rows of each unit are no padding; by default all.
        """
        values, baselines, after = self.critic.unroll(features, memory, width, lengths)
        return torch.cat([values, baselines], 1), after

    @torch.no_grad()
    def estimate_encoded(self, encodings: Tensor) -> Tensor:
        """Return values and baselines side by side [rows, 2 * signals] by a critic without a memory."""
        return torch.cat(self._outputs(encodings), 1)

    @torch.no_grad()
    def encode_rollout(
        self,
        features: Tensor,
        continuous: Tensor,
        discrete: Tensor,
        finals: Tensor | None,
        cells: Cells,
        after: np.ndarray,
    ) -> tuple[Tensor, Tensor]:
        """Return what values and baselines of rows, and values after ends, are read from.

        Each observation is encoded once, however many members look at it.

        Args:
            features: [rows, size].
            continuous: [rows, size], the actions; arbitrary where rows wait for one.
            discrete: [rows, branches], likewise.
            finals: [finals, size], of final observations.
            cells: of all rows.
            after: [ends, width], who is there after ends, as `after_ends` returns it.

        Returns:
            Encodings [rows, critic.output_size] and [ends, critic.output_size].
        """
        critic, device = self.critic, features.device
        rows = rows_at_once(features)
        seen, acting = [], []
        for part in zip(features.split(rows), continuous.split(rows), discrete.split(rows), strict=True):
            encodings, embedded = critic.embed(part[0])
            seen.append(embedded)
            acting.append(critic.embed_actions(encodings, *part[1:]))
        of_finals = [] if finals is None else [critic.embed(part)[1] for part in finals.split(rows)]
        everything, acted = torch.cat([*seen, *of_finals]), torch.cat(acting)
        found = [critic.encode(everything, acted, part) for part in _chunks(cells.members, device)]
        encoded, numbers = (torch.cat(parts) for parts in zip(*found, strict=True))
        of_rows = _of_rows(
            encoded, numbers, *(torch.from_numpy(index).to(device) for index in cells.places(len(features)))
        )
        ends = [_of_groups(*critic.encode(everything, None, part)) for part in _chunks(after, device)]
        return of_rows, torch.cat(ends) if ends else of_rows[:0]


class GroupLearning(OnPolicyLearning):
    """Learns from rollouts of groups: advantages are returns less what is expected whatever the agent itself does.

    Returns are those of GAE on the values of groups, equal to lambda-returns: r + gamma * ((1 - lambda) * V' + lambda *
    return'). After an agent that ends alone follows the value of its group without it, seen once more with its final
    observation; nothing follows where the whole group ends (Cohen et al. 2021, https://arxiv.org/abs/2111.05992).
    """

    optimizer: GroupOptimizer

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        names = [signal.name for signal in self.reward_signals]
        self.signal_returns = SignalReturns(names, self.stats, with_extrinsic=True)
        self._cells: Cells | None = None
        self._baselines = np.zeros((0, len(names)), np.float32)

    def estimate(self, store: ExperienceStore, features: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Return the values of rows' groups and those that follow each, [rows in use, signals]."""
        n, signals, optimizer = store.size, len(self.reward_signals), self.optimizer
        self._cells = cells_of(store)
        ended = np.flatnonzero(store.final[:n] >= 0)
        whole = is_whole_end(store, ended)
        if not self.ignores_ends.any():  # Nothing follows there, so that nobody needs these values.
            ended, whole = ended[~whole], whole[~whole]
        after = after_ends(store, ended)
        self._note_size(self._cells.members, after)
        finals = self.policy.features([obs[: store.finals] for obs in store.final_obs]) if len(ended) else None
        acts = self.tensor(store.continuous[:n]), self.tensor(store.discrete[:n])
        encoded, of_ends = optimizer.encode_rollout(features, *acts, finals, self._cells, after)
        if self._critic_remembers:
            both, following = self._remembered(store, encoded, of_ends, store.final[ended])
        else:
            both, following = optimizer.estimate_encoded(encoded), optimizer.estimate_encoded(of_ends)
        values, self._baselines = map(np.ascontiguousarray, np.split(both.cpu().numpy(), [signals], 1))
        follows = np.where(store.successor[:n, None] >= 0, values[store.successor[:n]], np.float32(0.0))
        follows[ended] = np.where(whole[:, None] & ~self.ignores_ends, 0.0, following[:, :signals].cpu().numpy())
        return values, follows

    def _remembered(
        self, store: ExperienceStore, encoded: Tensor, of_ends: Tensor, finals: np.ndarray
    ) -> tuple[Tensor, Tensor]:
        """Return values and baselines of rows, and after ends, by a critic that remembers what each agent's rows had.

        Args:
            store: the rows.
            encoded: [rows in use, size], what they are read from.
            of_ends: [ends, size], likewise.
            finals: [ends] the final observations that these belong to.
        """
        of_finals, places = None, torch.from_numpy(finals).to(encoded.device)
        if len(finals):
            of_finals = encoded.new_zeros(store.finals, encoded.shape[1])
            of_finals[places] = of_ends
        units = sequences_of(store, self.sequence_length)
        recurrence = Recurrence(store, self.optimizer, units, outputs=2 * len(self.reward_signals))
        both, following = recurrence.estimate(encoded, of_finals)
        return both, following[places] if len(finals) else following

    def _note_size(self, *members: np.ndarray) -> None:
        """Note the size of the largest group, by which the numbers of members are normalized."""
        most = self.optimizer.critic.most
        most.fill_(max(float(most), *(float((each >= 0).sum(1).max(initial=1)) for each in members)))

    def _seen_by_signals(self, store: ExperienceStore, rows: np.ndarray | slice, features: Tensor) -> dict[str, Any]:
        seen = super()._seen_by_signals(store, rows, features)
        if has_groups(store):
            seen["groupmate_rewards"] = self.tensor(groupmate_rewards(store)[rows])
        return seen

    def rollout(self, store: ExperienceStore) -> Batch:
        """Return the complete rows with values, baselines, advantages and returns, and their groups.

        Raises:
            NonFiniteError: a value or baseline estimate or a reward signal is NaN or infinite.
        """
        batch = super().rollout(store)
        rows = np.arange(store.size)[store.complete_rows()]
        baselines = self._baselines[rows]
        for index, signal in enumerate(self.reward_signals):
            self._check_finite_parts(store, signal.name, {"baseline estimate": baselines[:, index]})
            mean = float(baselines[:, index].mean())
            self.stats.add_stat(f"Policy/{signal.name.capitalize()} Baseline Estimate", mean)
        column = self.tensor(np.ascontiguousarray(baselines))
        advantages = (batch.returns - column).mean(1, keepdim=True)
        batch = replace(batch, baselines=column, advantages=advantages)
        return self._with_groups(store, batch, rows) if has_groups(store) else batch

    def _with_groups(self, store: ExperienceStore, batch: Batch, rows: np.ndarray) -> Batch:
        """Return a rollout with the cells of its rows, and behind these the open rows that are in cells with them."""
        assert self._cells is not None
        counts = np.zeros(store.size, np.bool_)
        counts[rows] = True
        cells = self._cells.counting(counts)
        members = cells.members[cells.members >= 0]
        others = np.unique(members[~counts[members]])
        places = np.full(store.size, -1, np.int64)
        places[np.concatenate([rows, others])] = np.arange(len(rows) + len(others))
        if len(others):
            batch = self._with_open_rows(store, batch, others)
        together = None
        if batch.units is not None:
            first = rows[batch.units[:, 0]]
            # Agents that are in no group have no groupmates to stay together with.
            keys = np.stack([store.group[first], store.tick[first], np.where(store.group[first], 0, first)])
            together = np.unique(keys, axis=1, return_inverse=True)[1].ravel()
        return replace(batch, cells=cells.moved(places), together=together)

    def _with_open_rows(self, store: ExperienceStore, batch: Batch, rows: np.ndarray) -> Batch:
        """Return a rollout with more rows, which do not count, because their rewards are still to come."""
        known = {
            "features": self.policy.features([obs[rows] for obs in store.obs]),
            "continuous": self.tensor(store.continuous[rows]),
            "discrete": self.tensor(store.discrete[rows]),
        }
        return batch.with_rows(known)

    def update(self, store: ExperienceStore, step: int) -> Reported:
        """Learn as every on-policy trainer does, and keep for rows that stay open what their groupmates got so far."""
        reported = super().update(store, step)
        if has_groups(store):
            waiting = store.open_row[store.open_row >= 0]
            if not store.groupmate_reward.shape[1]:
                store.groupmate_reward = np.zeros((len(store.slot), 1), np.float32)
            store.groupmate_reward[waiting, 0] = groupmate_rewards(store)[waiting]
        return reported


class GroupTrainer(OnPolicyTrainer):
    """The base of on-policy trainers whose agents are paid as groups."""

    learning_type = GroupLearning
    learning: GroupLearning
    supports = Supports(memory=True, behavioral_cloning=True, groups=True)

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        # What an agent's groupmates got is a part of its return, which only the learning half knows.
        self.acting.reports_extrinsic = False

    @classmethod
    def refused_settings(cls, settings: TrainerSettings) -> Iterator[tuple[tuple[str, ...], str]]:
        """Refuse a number of hidden units that the heads of the attention cannot share."""
        yield from super().refused_settings(settings)
        network = settings.network_settings
        size = embedding_size(network.of_critic)
        if size % HEADS:
            given = [key for key in ("critic_hidden_layers", "hidden_layers") if getattr(network, key)]
            key = given[0] if given else "hidden_units"
            what = f"the first of {key}" if given else key
            message = f"{what} must be a multiple of {HEADS}, the heads of the attention over groups, not {size}"
            yield ("network_settings", key), message


def _of_rows(encoded: Tensor, numbers: Tensor, cell: Tensor, column: Tensor) -> Tensor:
    """Return what values and baselines are read from, [rows, output_size], of rows by their places in cells."""
    return torch.cat([encoded[cell, 0], encoded[cell, 1 + column], numbers[cell]], 1)


def _of_groups(encoded: Tensor, numbers: Tensor) -> Tensor:
    """Return encodings of which only values are read."""
    return torch.cat([encoded[:, 0], encoded[:, 0], numbers], 1)


def _alone(rows: int) -> Cells:
    return Cells(np.arange(rows)[:, None], np.ones((rows, 1), np.bool_))


def _chunks(members: np.ndarray, device: torch.device) -> Iterator[Tensor]:
    """Yield parts of an index of members, of which each row looks at all pairs."""
    some = max(1, CHUNK_PAIRS // members.shape[1] ** 2)
    for start in range(0, len(members), some):
        yield torch.from_numpy(members[start : start + some]).to(device)
