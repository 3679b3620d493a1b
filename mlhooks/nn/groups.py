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

    def of_groups(self, seen: Tensor, acting: Tensor, absent: Tensor) -> Tensor:
        """Combine sets of embeddings as `forward` does: one of each group, and one of each member.

        In the set of a group, all embeddings are those in `seen`. In that of member i, its own is, and those of the
        others are in `acting`. What is linear in an embedding is computed once for it, and not once for each set.

        Args:
            seen: [groups, width, size], of what members observe.
            acting: [groups, width, size], of what they observe and do.
            absent: [groups, width] 1 for padding, else 0.

        Returns:
            [groups, 1 + width, size] of the groups, and behind them of the members.
        """
        width = seen.shape[1]
        if width == 1:  # A member without groupmates looks at nothing but what its group looks at.
            group: Tensor = self(seen, absent)
            return group[:, None].expand(-1, 2, -1)
        both = self._normalized(torch.cat([acting, seen], 1))  # [groups, 2 * width, size]
        query, key, value = self._projected(both)  # [groups, heads, 2 * width, size / heads]
        sees = torch.cat([seen.new_ones(1, width), torch.eye(width, dtype=seen.dtype, device=seen.device)])
        holds = torch.cat([1 - sees, sees], 1)  # [sets, 2 * width], which embeddings are in which set
        places = torch.eye(width, dtype=seen.dtype, device=seen.device).repeat(1, 2)
        chosen = (holds[:, None] * places).flatten(0, 1)  # [sets * width, 2 * width], each entity as one of them
        # Keys come first and the queries of all sets last, which are many: so the softmax works on whole vectors.
        scores = key @ query.transpose(2, 3) @ (chosen.T / math.sqrt(self.size))
        hidden = torch.maximum(absent.repeat(1, 2)[:, :, None], (1 - holds).repeat_interleave(width, 0).T)
        attention = torch.softmax(scores + (hidden * MASKED)[:, None], 2)  # [groups, heads, 2 * width, sets * width]
        mixed = (attention.transpose(2, 3) @ value).transpose(1, 2).flatten(2)
        # The bias is added before an embedding stands in several sets, together with which it is added to the product.
        entities = (chosen @ (both + self.output.bias)).flatten(0, 1)
        entities = torch.addmm(entities, mixed.flatten(0, 1), self.output.weight.T).view_as(mixed)
        present = 1 - absent
        shares = present / (present.sum(1, keepdim=True) + EPSILON)
        means = torch.eye(1 + width, dtype=seen.dtype, device=seen.device)[:, :, None] * shares[:, None, None]
        return means.flatten(2) @ self._normalized(entities)

    def _projected(self, entities: Tensor) -> tuple[Tensor, ...]:
        """Return queries, keys and values [groups, heads, width, size / heads] of entities, in one product."""
        layers = self.query, self.key, self.value
        weight, bias = (torch.cat([getattr(layer, name) for layer in layers]) for name in ("weight", "bias"))
        projected = functional.linear(entities, weight, bias)
        parts: tuple[Tensor, ...] = projected.unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind()
        return parts


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

    def encode(self, seen: Tensor, acting: Tensor | None, members: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the body makes of groups and of their members.

        Args:
            seen: [rows, units] embeddings of what was observed.
            acting: [rows, units] of what was observed and done; None for no encodings of members.
            members: [groups, width] rows of each group's members, -1 behind the last one.

        Returns:
            Encodings [groups, 1 + width, size] of groups, and behind each of them of its members, or [groups, 1, size];
            and the normalized number of members of each group [groups, 1]: -1 for none, 1 for the largest number that
            there ever was.
        """
        present = members >= 0
        absent = (~present).to(seen.dtype)
        rows = members.clamp(min=0)
        if acting is None:
            attended = self.attention(functional.embedding(rows, seen), absent)[:, None]
        else:  # These are indices, of which `embedding` has the faster gradient.
            both = functional.embedding(rows, seen), functional.embedding(rows, acting)
            attended = self.attention.of_groups(*both, absent)
        numbers = present.sum(1, keepdim=True).to(seen.dtype)
        return self.body(attended), numbers * 2.0 / self.most - 1.0

    def read(self, encodings: Tensor, numbers: Tensor) -> Tensor:
        """Return values or baselines [..., signals].

        Args:
            encodings: [..., size], of groups or members; with a memory, what comes out of it.
            numbers: [..., 1], of the members of each group.
        """
        weight = self.heads.weight
        return functional.linear(encodings, weight[:, :-1], self.heads.bias) + numbers * weight[:, -1]

    def unroll(
        self, encodings: Tensor, memory: Tensor | None = None, width: int = 1, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Pass through units of an agent's consecutive rows by a critic with a memory, as `Memory.forward` does.

        Args:
            encodings: [units * width, output_size]: of the row's group, of its agent, and the number of members.
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
        values, baselines = (self.read(output, number) for output, _ in passed)
        return values, baselines, torch.cat([after for _, after in passed], 1)
