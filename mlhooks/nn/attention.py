"""Attention over entities, whose number varies from decision to decision: what ML-Agents' buffer sensors show.

All layers are those of ML-Agents, after Baker et al. 2020, https://arxiv.org/abs/1909.07528. Initial weights are small
enough to learn without warmup (Huang et al. 2020, http://www.cs.toronto.edu/~mvolkovs/ICML2020_tfixup.pdf).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from mlhooks.nn.features import Entities, FeatureLayout
from mlhooks.nn.layers import ACTIVATIONS
from mlhooks.nn.visual import ImageEncoder

if TYPE_CHECKING:
    from mlhooks.settings import NetworkSettings

EMBEDDING = 128
"""The size of the embeddings of entities that agents observe."""
LEAST = 0.01
"""The least sum of squares of an entity; a row with less is padding."""
MASKED, EPSILON = -1e6, 1e-7


def padding(entities: Tensor) -> Tensor:
    """Return [rows, most] for entities [rows, most, size]: 1 for each that is padding, and 0 for all others."""
    return ((entities**2).sum(2) < LEAST).float()


class EntityEmbedding(nn.Module):
    """A layer that embeds entities of one kind, each beside what the agent observes of itself.

    Args:
        size: numbers of an entity.
        embedding: size of an embedding.
        activation: the name of the activation behind the layer.
        own: size of the embedding of what else the agent observes; 0 for none.
    """

    def __init__(self, size: int, embedding: int, activation: str, own: int = 0) -> None:
        super().__init__()
        self.own = own
        self.layer = _linear(own + size, embedding)
        self._activate = ACTIVATIONS[activation]

    def forward(self, entities: Tensor, own: Tensor | None = None) -> Tensor:
        """Return embeddings [rows, most, embedding] of entities [rows, most, size], beside `own` [rows, own]."""
        if own is None:
            return self._activate(self.layer(entities))
        # All entities of a row stand beside the same `own`, whose part of the product is computed once.
        weight, bias = self.layer.weight, self.layer.bias
        part = functional.linear(own, weight[:, : self.own], bias)
        return self._activate(functional.linear(entities, weight[:, self.own :]) + part.unsqueeze(1))


class SelfAttention(nn.Module):
    """Residual self-attention of several heads, and the mean over the entities that are there.

    Args:
        size: size of the embeddings, a multiple of `heads`.
        most: the number of entities, padding included; None takes it from the input, which exported networks cannot do.
        heads: number of heads.
    """

    def __init__(self, size: int, most: int | None = None, heads: int = 4) -> None:
        super().__init__()
        self.size, self.most, self.heads = size, most, heads
        self.query, self.key, self.value, self.output = (_linear(size, size) for _ in range(4))

    def forward(self, entities: Tensor, absent: Tensor) -> Tensor:
        """Combine embeddings [rows, most, size] to [rows, size]; `absent` [rows, most] is 1 for padding, else 0.

        Neither padding nor the order of entities changes the result, which is 0 where no entity is there.
        """
        most = self.most or entities.shape[1]
        entities = self._normalized(entities)
        query, key, value = (self._split(layer(entities), most) for layer in (self.query, self.key, self.value))
        # The division keeps two transpositions apart, because Unity does not take the one that would replace both.
        scores = query @ (key / math.sqrt(self.size)).transpose(2, 3)  # [rows, heads, most, most]
        hidden = absent.reshape(-1, 1, 1, most)
        attention = torch.softmax((1 - hidden) * scores + hidden * MASKED, dim=3)
        mixed = (attention @ value).transpose(1, 2).reshape(-1, most, self.size)
        result = self._normalized(self.output(mixed) + entities)
        present = 1 - absent
        total = (result * present.reshape(-1, most, 1)).sum(1)
        return total / (present.sum(1, keepdim=True) + EPSILON)

    def _normalized(self, entities: Tensor) -> Tensor:
        return functional.layer_norm(entities, (self.size,), eps=1e-5)

    def _split(self, entities: Tensor, most: int) -> Tensor:
        """Return [rows, most, size] as [rows, heads, most, size / heads]."""
        return entities.reshape(-1, most, self.heads, self.size // self.heads).transpose(1, 2)


class EntityEncoder(nn.Module):
    """Attention over all entities that an agent observes, of whatever kind.

    Args:
        kinds: the observations that hold entities.
        own: size of what else the agent observes; 0 for nothing.
        activation: the name of the activation behind the layers of embeddings.
    """

    def __init__(self, kinds: list[Entities], own: int, activation: str) -> None:
        super().__init__()
        self.kinds = [(kind.columns, kind.most, kind.size) for kind in kinds]
        self.own = EntityEmbedding(own, EMBEDDING, activation) if own else None
        self.embeddings = nn.ModuleList(
            EntityEmbedding(kind.size, EMBEDDING, activation, own=EMBEDDING if own else 0) for kind in kinds
        )
        self.attention = SelfAttention(EMBEDDING, sum(kind.most for kind in kinds))

    def forward(self, features: Tensor, own: Tensor | None) -> Tensor:
        """Return an encoding [rows, EMBEDDING] of the entities among features [rows, size], beside [rows, own]."""
        of_self = None if self.own is None else self.own(own)
        entities = [features[:, columns].reshape(-1, most, size) for columns, most, size in self.kinds]
        embeddings = [embed(kind, of_self) for embed, kind in zip(self.embeddings, entities, strict=True)]
        encoding: Tensor = self.attention(_joined(embeddings), _joined([padding(kind) for kind in entities]))
        return encoding


class ObservationEncoder(nn.Module):
    """Observations of all kinds side by side: vectors as they are, encodings of images, and of all entities together.

    Attributes:
        encoding_size: size of the result.
        goal: which numbers of the result are goal signals, an index array.
        goal_learns: whether some of these are encodings of images, which get gradients.

    Raises:
        UnsupportedError: an image is too small.
    """

    def __init__(self, layout: FeatureLayout, settings: NetworkSettings) -> None:
        super().__init__()
        units = settings.hidden_units
        self.columns = [image.columns for image in layout.images]
        self.vectors = slice(0, layout.vectors)
        self.images = nn.ModuleList(ImageEncoder(image, settings) for image in layout.images)
        # The encoding of each image begins at one of these columns.
        begins = layout.vectors + units * np.arange(len(layout.images))
        goals = [np.arange(a, a + units) for a, image in zip(begins, layout.images, strict=True) if image.is_goal]
        self.goal, self.goal_learns = np.concatenate([layout.goal, *goals]), bool(goals)
        self.encoding_size = layout.vectors + units * len(layout.images)
        self.entities: EntityEncoder | None = None
        if layout.entities:
            self.entities = EntityEncoder(layout.entities, self.encoding_size, settings.activation)
            self.encoding_size += EMBEDDING

    def forward(self, features: Tensor) -> Tensor:
        """Return [rows, encoding_size] for features [rows, size], floats or the bytes of images alone."""
        parts = [image(features[:, columns]) for image, columns in zip(self.images, self.columns, strict=True)]
        if self.vectors.stop:
            parts.insert(0, features[:, self.vectors])
        if self.entities is None:
            return _joined(parts)
        own = _joined(parts) if parts else None
        encoding: Tensor = self.entities(features, own)
        return encoding if own is None else torch.cat([own, encoding], dim=1)


def _linear(inputs: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    nn.init.normal_(layer.weight, 0.0, math.sqrt(0.125 / outputs))
    nn.init.zeros_(layer.bias)
    return layer


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
