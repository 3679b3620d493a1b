"""A critic of groups: attention over members who come and go (Cohen et al. 2021, https://arxiv.org/abs/2111.05992).

All layers are those of ML-Agents' MA-POCA. A group's value is read from what all of its members observe. A member's
baseline is read from what it observes itself and from what the others observe and do, so that it does not depend on the
member's own action (Foerster et al. 2018, https://arxiv.org/abs/1705.08926).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from mlhooks.nn.attention import EPSILON, MASKED, EntityEmbedding, ObservationEncoder, SelfAttention
from mlhooks.nn.features import FeatureLayout
from mlhooks.nn.layers import MLP, initialize, linear
from mlhooks.nn.memory import make_memory

if TYPE_CHECKING:
    from mlagents_envs.base_env import ActionSpec

    from mlhooks.settings import NetworkSettings

HEADS = 4
"""The heads of the attention, whose number must divide the size of embeddings."""


def embedding_size(settings: NetworkSettings) -> int:
    """Return the size of embeddings of members: the width of the first hidden layer, as a rule `hidden_units`."""
    return settings.layers[0] if settings.layers else settings.hidden_units


class GroupAttention(SelfAttention):
    """Self-attention over what all members observe, and for each member over what the others do, in one pass."""

    def of_groups(self, seen: Tensor, acting: Tensor, absent: Tensor) -> tuple[Tensor, Tensor]:
        """Combine embeddings of members as `forward` does, once for each group and once for each member.

        For member i, its own embedding is that in `seen`, and those of the others are in `acting`. What is linear in
        an embedding is computed once for it, and not once for each member that looks at it.

        Args:
            seen: [groups, width, size], of what members observe.
            acting: [groups, width, size], of what they observe and do.
            absent: [groups, width] 1 for padding, else 0.

        Returns:
            [groups, size] of the groups, and [groups, width, size] of the members.
        """
        width = seen.shape[1]
        if width == 1:  # A member without mates looks at nothing but what its group looks at.
            group = self(seen, absent)
            return group, group.unsqueeze(1)
        both = self._normalized(torch.cat([acting, seen], 1))  # [groups, 2 * width, size]
        query, key, value = self._projected(both)
        scores = query @ key.transpose(2, 3)  # [groups, heads, 2 * width, 2 * width]
        (acting_acting, acting_seen), (seen_acting, seen_seen) = (half.chunk(2, 3) for half in scores.chunk(2, 2))
        hidden = absent[:, None, None, :]  # [groups, 1, 1, width], of the keys
        mixed = self._attention(seen_seen, hidden) @ value.chunk(2, 2)[1]
        group = self._mean(self._mixed(mixed) + both.chunk(2, 1)[1], absent)

        # Among the scores of member i, [groups, heads, i, query, key], row and column i are of its own observation.
        own = torch.eye(width, dtype=torch.bool, device=seen.device)
        is_query, is_key = own[:, :, None], own[:, None, :]
        others = torch.where(is_query, seen_acting[:, :, None], acting_acting[:, :, None])
        column = torch.where(is_query, seen_seen[:, :, None], acting_seen[:, :, None])
        attention = self._attention(torch.where(is_key, column, others), hidden.unsqueeze(3))
        # One product takes what members do, and in the second half of its depth what member i itself observes.
        weights = torch.cat([attention.masked_fill(is_key, 0.0), attention.masked_fill(~is_key, 0.0)], 4)
        same = own[None]  # Each query of member i is one of both kinds of embeddings: [i * query, 2 * width].
        chosen = torch.cat([same & ~is_query, same & is_query], 2).flatten(0, 1).to(seen.dtype)
        output = self._mixed(weights.flatten(2, 3) @ value)  # [groups, i * query, size]
        entities = torch.baddbmm(output, chosen.expand(len(both), -1, -1), both)
        members = self._mean(entities.unflatten(1, (width, width)), absent[:, None])
        return group, members

    def _projected(self, entities: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, scaled keys and values [groups, heads, width, size / heads]."""
        most = entities.shape[1]
        query, key, value = (self._split(layer(entities), most) for layer in (self.query, self.key, self.value))
        return query, key / math.sqrt(self.size), value

    def _attention(self, scores: Tensor, hidden: Tensor) -> Tensor:
        return torch.softmax((1 - hidden) * scores + hidden * MASKED, dim=-1)

    def _mixed(self, mixed: Tensor) -> Tensor:
        """Return the output layer's result [groups, rows, size] for values of heads."""
        return self.output(mixed.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    def _mean(self, entities: Tensor, absent: Tensor) -> Tensor:
        """Return the mean of normalized entities [..., width, size] over those that are there."""
        present = 1 - absent
        total = (present.unsqueeze(-2) @ self._normalized(entities)).squeeze(-2)
        return total / (present.sum(-1, keepdim=True) + EPSILON)


class GroupCritic(nn.Module):
    """Values of groups and baselines of their members, one of each for each reward signal.

    Args:
        layout: layout of the features, which all members have.
        action_spec: the behavior's actions.
        settings: size, activation and initialization of the network; the first hidden layer's is a multiple of 4.
        signals: number of reward signals.

    Attributes:
        memory: the memory between body and heads, which values and baselines pass one apart from the other; or None.
        most: the largest number of members that there ever was, a buffer.
        size: of the encodings of a group and of a member.
        output_size: size of what `encode` returns for each row.
        reads_bytes: whether it takes images as bytes.
    """

    most: Tensor
    reads_bytes = True

    def __init__(self, layout: FeatureLayout, action_spec: ActionSpec, settings: NetworkSettings, signals: int) -> None:
        super().__init__()
        units, kind, activation = embedding_size(settings), settings.initialization, settings.activation
        self.branches = tuple(action_spec.discrete_branches)
        self.observations = ObservationEncoder(layout, settings)
        size = self.observations.encoding_size
        actions = action_spec.continuous_size + sum(self.branches)
        self.seen = EntityEmbedding(size, units, activation)
        self.acting = EntityEmbedding(size + actions, units, activation)
        self.attention = GroupAttention(units, heads=HEADS)
        self.body = MLP(units, settings.layers, activation, kind)
        self.size = self.body.output_size
        self.memory = make_memory(self.size, settings)
        read = self.size if self.memory is None else self.memory.output_size
        self.heads = linear(read + 1, signals, initialization=kind, gain=1.0)
        if kind == "lecun_normal":
            self._initialize_as_mlagents()
        else:  # Embeddings of small weights are linear, and their normalization then hides how large observations are.
            for embedding in (self.seen, self.acting):
                initialize(embedding.layer, kind, math.sqrt(2.0) if kind == "orthogonal" else 1.0)
        self.register_buffer("most", torch.ones(()))
        self.output_size = 2 * self.size + 1

    @torch.no_grad()
    def _initialize_as_mlagents(self) -> None:
        """Draw weights of the body as small as those of the attention, and those of each signal's value head apart."""
        for layer in self.body.layers:
            assert isinstance(layer, nn.Linear)
            layer.weight.mul_(math.sqrt(0.125 / layer.out_features))
        for weight in self.heads.weight.split(1):
            nn.init.xavier_uniform_(weight)

    @property
    def memory_size(self) -> int:
        """The size of the memories of value and baseline together; 0 without."""
        return 0 if self.memory is None else 2 * self.memory.size

    def embed(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return the encodings of observations [rows, size], each computed once, and their embeddings [rows, units]."""
        encodings = self.observations(features)
        return encodings, self.seen(encodings)

    def embed_actions(self, encodings: Tensor, continuous: Tensor, discrete: Tensor) -> Tensor:
        """Return embeddings [rows, units] of what was observed and done, continuous actions before clipping."""
        choices = [
            functional.one_hot(discrete[:, index], size).to(encodings.dtype) for index, size in enumerate(self.branches)
        ]
        embedded: Tensor = self.acting(torch.cat([encodings, continuous, *choices], 1))
        return embedded

    def encode(self, seen: Tensor, acting: Tensor | None, members: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return what the body makes of groups and of their members, in the order of `members`.

        Args:
            seen: [rows, units] embeddings of what was observed.
            acting: [rows, units] of what was observed and done; None for no encodings of members.
            members: [groups, width] rows of each group's members, -1 behind the last one.

        Returns:
            Encodings [groups, size] and [members, size], and the normalized number of members of each group [groups,
            1]: -1 for none, 1 for the largest number that there ever was.
        """
        present = members >= 0
        absent = (~present).to(seen.dtype)
        rows = members.clamp(min=0)
        if acting is None:
            groups, others = self.attention(seen[rows], absent), seen[:0]
        else:
            groups, of_members = self.attention.of_groups(seen[rows], acting[rows], absent)
            others = of_members[present]
        numbers = present.sum(1, keepdim=True).to(seen.dtype)
        encoded = self.body(torch.cat([groups, others]))
        return encoded[: len(groups)], encoded[len(groups) :], numbers * 2.0 / self.most - 1.0

    def read(self, encodings: Tensor) -> tuple[Tensor, Tensor]:
        """Return values and baselines [rows, signals] by a critic without a memory.

        Args:
            encodings: [rows, output_size]: of the row's group, of its agent, and the number of members.
        """
        group, member, number = encodings.split([self.size, self.size, 1], 1)
        return self.heads(torch.cat([group, number], 1)), self.heads(torch.cat([member, number], 1))

    def unroll(
        self, encodings: Tensor, memory: Tensor | None = None, width: int = 1, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Pass through units of an agent's consecutive rows by a critic with a memory, as `Memory.forward` does.

        Args:
            encodings: [units * width, output_size], as `read` takes them.
            memory: [units, memory_size] or [units * width, memory_size], before each unit; None for zeros.
            width: rows of a unit.
            lengths: [units] int64, how many rows of each unit are no padding; by default all.

        Returns:
            Values and baselines [units * width, signals], and the memories [units, memory_size] after each unit.
        """
        assert self.memory is not None
        *parts, number = encodings.split([self.size, self.size, 1], 1)
        size = self.memory.size
        memories = (None, None) if memory is None else (memory[:, :size].contiguous(), memory[:, size:].contiguous())
        on_cpu = None if lengths is None else lengths.cpu()
        passed = [self.memory(*pair, width, on_cpu) for pair in zip(parts, memories, strict=True)]
        values, baselines = (self.heads(torch.cat([output, number], 1)) for output, _ in passed)
        return values, baselines, torch.cat([after for _, after in passed], 1)
