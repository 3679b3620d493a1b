"""From the observations of a behavior to the one feature array that networks read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from mlagents_envs.base_env import BehaviorSpec, DimensionProperty, ObservationSpec, ObservationType
from torch import Tensor, nn

from mlhooks.envs.pixels import to_floats
from mlhooks.errors import UnsupportedError
from mlhooks.nn.normalizer import Normalizer
from mlhooks.settings.networks import MOST_NORMALIZED

ENTITIES = (DimensionProperty.VARIABLE_SIZE, DimensionProperty.NONE)
"""The kinds of dimensions by which ML-Agents knows an observation of variable length."""


class Image(NamedTuple):
    """An image among the observations.

    Attributes:
        title: its name in messages.
        shape: (channels, height, width).
        columns: where its numbers lie in the features, as [height, width, channels].
        is_goal: whether it is a goal signal.
    """

    title: str
    shape: tuple[int, ...]
    columns: slice
    is_goal: bool


class Entities(NamedTuple):
    """An observation of variable length, as ML-Agents' buffer sensors show it: entities, and zeros in place of others.

    Attributes:
        title: its name in messages.
        most: how many entities there are at most.
        size: numbers of an entity.
        columns: where its numbers lie in the features, entity after entity.
        is_goal: whether it is a goal signal.
    """

    title: str
    most: int
    size: int
    columns: slice
    is_goal: bool


class FeatureLayout:
    """The places of observations in the features: vectors, then flattened images and entities, each in spec order.

    Images are flattened with their channels last, as convolutions read them fastest on a CPU.

    Attributes:
        size: number of features, of which the first `vectors` come from vectors.
        goal: columns of goal signals among the vectors, an index array.
        images, entities: the other observations.
        order: the place of every observation in the spec, in the order of the features.

    Raises:
        UnsupportedError: an observation is neither vector, nor image, nor entities, or there is none.
    """

    def __init__(self, behavior_name: str, spec: BehaviorSpec) -> None:
        goal: list[int] = []
        self.size = self.vectors = 0
        self._parts: list[tuple[int, slice, tuple[int, ...]]] = []
        self.images: list[Image] = []
        self.entities: list[Entities] = []
        specs = spec.observation_specs
        self.order = sorted(range(len(specs)), key=lambda index: {1: 0, 3: 1}.get(len(specs[index].shape), 2))
        for index in self.order:
            shape = tuple(specs[index].shape)
            title = f"Behavior {behavior_name!r}: observation {index} ({specs[index].name or 'unnamed'})"
            _refuse_other_kinds(title, specs[index])
            columns = slice(self.size, self.size + math.prod(shape))
            is_goal = specs[index].observation_type is ObservationType.GOAL_SIGNAL
            self.size = columns.stop
            self._parts.append((index, columns, shape))
            if len(shape) == 3:
                self.images.append(Image(title, shape, columns, is_goal))
            elif len(shape) == 2:
                self.entities.append(Entities(title, *shape, columns, is_goal))
            else:
                self.vectors = columns.stop
                goal.extend(range(columns.start, columns.stop) if is_goal else ())
        if self.size == 0:
            raise UnsupportedError(f"Behavior {behavior_name!r} has no observations: there is nothing to learn from.")
        self.goal = np.array(goal, dtype=np.int64)

    def split(self, features: Tensor) -> list[Tensor]:
        """Return the observations that features [rows, size] consist of, in the spec's order.

        They are views: vectors [rows, numbers], images [rows, channels, height, width], entities [rows, most, size].
        """
        observations: list[Tensor] = [features] * len(self._parts)
        for index, columns, shape in self._parts:
            part = features[:, columns]
            if len(shape) == 3:
                channels, height, width = shape
                part = part.unflatten(1, (height, width, channels)).permute(0, 3, 1, 2)
            elif len(shape) == 2:
                part = part.unflatten(1, shape)
            observations[index] = part
        return observations

    def apart(self, obs: Sequence[Tensor]) -> UnjoinedFeatures:
        """Return the features of observations [rows, *shape] in the spec's order, as they are."""
        vectors = [obs[index] for index, _, shape in self._parts if len(shape) == 1]
        others = {(c.start, c.stop): obs[index] for index, c, shape in self._parts if len(shape) > 1}
        return UnjoinedFeatures(_cat(vectors) if self.vectors else None, others)


class UnjoinedFeatures:
    """Features whose parts are apart, for exported models: images stay as environments give them.

    Joining would flatten images and encoders would undo that, by operations that inference engines are slow at. It can
    be asked for the columns of one part, `features[:, columns]`, as the tensor for which it stands.

    Args:
        vectors: [rows, size] of all vectors, None where there are none.
        others: observations [rows, *shape] of other kinds, by their first and last column in the features.
    """

    def __init__(self, vectors: Tensor | None, others: dict[tuple[int, int], Tensor]) -> None:
        self.vectors, self._others = vectors, others

    def __getitem__(self, index: tuple[slice, slice]) -> Tensor:
        columns = index[1]
        if columns.start == 0 and self.vectors is not None:
            return self.vectors
        return self._others[columns.start, columns.stop]

    def joined(self) -> Tensor:
        """Return the features [rows, size] as networks read them in training."""
        parts = [] if self.vectors is None else [self.vectors]
        for (start, stop), part in self._others.items():
            channels_last = part.permute(0, 2, 3, 1) if part.dim() == 4 else part
            parts.append(channels_last.reshape(-1, stop - start))
        return _cat(parts)


class FeatureInput(nn.Module):
    """Concatenates the observations of a batch and normalizes vectors; actor and critic read the same result.

    Args:
        layout: where each observation goes.
        normalize: whether vectors pass a running normalizer.
        clip: the bound of normalized vectors.

    Attributes:
        keeps_bytes: whether images that are bytes stay so where they are all that is observed: where all that reads the
            features takes bytes. Else they become floats.
    """

    def __init__(self, layout: FeatureLayout, *, normalize: bool, clip: float = MOST_NORMALIZED) -> None:
        super().__init__()
        self.layout = layout
        self.normalizer = Normalizer(layout.vectors, clip) if normalize and layout.vectors else None
        self.keeps_bytes = False
        self._given = len(layout.order) == 1 and layout.vectors == layout.size

    def features(self, obs: Sequence[np.ndarray]) -> np.ndarray:
        """Return features [rows, size] of observations [rows, ...], normalized where the settings ask for it.

        They are `normalize(raw(obs))`.
        """
        raw = self.raw(obs)
        if self.normalizer is None:
            return raw
        # Where there is more beside the vectors, all was just copied into one array, which may be written to.
        return self._normalized(raw, into=raw if self.layout.vectors < self.layout.size else None)

    def raw(self, obs: Sequence[np.ndarray]) -> np.ndarray:
        """Return observations [rows, ...] as features [rows, size] that are not normalized.

        They are float32, images in [0, 1]; or uint8 where images stay bytes. They are a view where there is one
        observation only and it is not scaled; of an image, where its channels are last in memory, as
        `ExperienceStore` keeps them.
        """
        if self._given:
            return np.asarray(obs[0], np.float32)
        parts = [obs[index] for index in self.layout.order]
        images = [_flat(array) for array in parts if array.ndim == 4]
        if self.keeps_bytes and len(images) == len(parts) and all(image.dtype == np.uint8 for image in images):
            return _joined(images)
        entities = [array.reshape(len(array), math.prod(array.shape[1:])) for array in parts if array.ndim == 3]
        vectors = parts[: len(parts) - len(images) - len(entities)]
        return np.asarray(_joined([*vectors, *map(to_floats, images), *entities]), np.float32)

    def normalize(self, raw: np.ndarray) -> np.ndarray:
        """Return raw features [rows, size] with the vectors among them normalized; the same array where none are."""
        return self._normalized(raw)

    def _normalized(self, raw: np.ndarray, into: np.ndarray | None = None) -> np.ndarray:
        if self.normalizer is None:
            return raw
        vectors = slice(0, self.layout.vectors)
        normalized = self.normalizer.normalize(raw[:, vectors])
        if self.layout.vectors == self.layout.size:
            return normalized
        features = raw.copy() if into is None else into
        features[:, vectors] = normalized
        return features

    def unjoined(self, obs: Sequence[Tensor]) -> UnjoinedFeatures:
        """Return the features of float32 observations [rows, *shape] by torch alone; joined, as `features` does."""
        apart = self.layout.apart(obs)
        if apart.vectors is not None and self.normalizer is not None:
            apart.vectors = self.normalizer(apart.vectors)
        return apart

    def update(self, obs: Sequence[np.ndarray]) -> None:
        """Add observations to the normalizer's statistics."""
        if self.normalizer is not None:
            self.normalizer.update(_joined([array for array in obs if array.ndim == 2]))


def _refuse_other_kinds(title: str, observation: ObservationSpec) -> None:
    shape, kinds = tuple(observation.shape), tuple(observation.dimension_property)
    if len(shape) in (1, 3) or (len(shape) == 2 and kinds == ENTITIES and min(shape) > 0):
        return
    dimensions = f" and dimensions {', '.join(str(kind.name) for kind in kinds)}" if len(shape) == 2 else ""
    raise UnsupportedError(
        f"{title} has shape {shape}{dimensions}, and the installed networks read vectors, images [channels, height, "
        "width], and entities [most, size] with dimensions VARIABLE_SIZE, NONE, as a buffer sensor shows them. Flatten "
        "it in the environment, install a plugin whose create_policy brings an encoder for it, or let ML-Agents' own "
        "trainer learn, as by trainer_type: mlagents:ppo."
    )


def _flat(images: np.ndarray) -> np.ndarray:
    """Return [rows, channels, height, width] as [rows, height * width * channels]."""
    return np.moveaxis(images, 1, -1).reshape(len(images), math.prod(images.shape[1:]))


def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)


def _cat(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)
