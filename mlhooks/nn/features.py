"""From the observations of a behavior to the one feature array that networks read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from mlagents_envs.base_env import BehaviorSpec, ObservationType
from torch import Tensor, nn

from mlhooks.envs.pixels import to_floats
from mlhooks.errors import UnsupportedError
from mlhooks.nn.normalizer import Normalizer


class Image(NamedTuple):
    """An image among the observations.

    Attributes:
        title: what messages call it.
        shape: (channels, height, width).
        columns: where its numbers lie in the features, as [height, width, channels].
        is_goal: whether it is a goal signal.
    """

    title: str
    shape: tuple[int, ...]
    columns: slice
    is_goal: bool


class FeatureLayout:
    """The places of observations in the features: vectors first, then flattened images, both in the spec's order.

    Images are flattened with their channels last, as convolutions read them fastest on a CPU.

    Attributes:
        size: number of features, of which the first `vectors` come from vectors.
        goal: columns of goal signals among the vectors, an index array.
        images: the images; `order` has the place of every observation in the spec, vectors first.

    Raises:
        UnsupportedError: an observation is neither a vector nor an image, or there is none.
    """

    def __init__(self, behavior_name: str, spec: BehaviorSpec) -> None:
        goal: list[int] = []
        self.size = self.vectors = 0
        self._parts: list[tuple[int, slice, tuple[int, ...]]] = []
        self.images: list[Image] = []
        specs = spec.observation_specs
        self.order = sorted(range(len(specs)), key=lambda index: len(specs[index].shape))
        for index in self.order:
            observation, shape = specs[index], tuple(specs[index].shape)
            title = f"Behavior {behavior_name!r}: observation {index} ({observation.name or 'unnamed'})"
            if len(shape) not in (1, 3):
                raise UnsupportedError(
                    f"{title} has shape {shape}, and the installed networks read vectors and images [channels, height, "
                    "width] only, no variable-length observations. Flatten it in the environment, install a plugin "
                    "whose create_policy brings an encoder for it, or let ML-Agents' own trainer learn, as by "
                    "trainer_type: mlagents:ppo."
                )
            columns = slice(self.size, self.size + math.prod(shape))
            is_goal = observation.observation_type is ObservationType.GOAL_SIGNAL
            self.size = columns.stop
            self._parts.append((index, columns, shape))
            if len(shape) == 3:
                self.images.append(Image(title, shape, columns, is_goal))
                continue
            self.vectors = columns.stop
            if is_goal:
                goal.extend(range(columns.start, columns.stop))
        if self.size == 0:
            raise UnsupportedError(f"Behavior {behavior_name!r} has no observations: there is nothing to learn from.")
        self.goal = np.array(goal, dtype=np.int64)

    def split(self, features: Tensor) -> list[Tensor]:
        """Return the observations that features [rows, size] consist of, in the spec's order.

        They are views: vectors [rows, numbers], and images [rows, channels, height, width].
        """
        observations: list[Tensor] = [features] * len(self._parts)
        for index, columns, shape in self._parts:
            part = features[:, columns]
            if len(shape) == 3:
                channels, height, width = shape
                part = part.unflatten(1, (height, width, channels)).permute(0, 3, 1, 2)
            observations[index] = part
        return observations


class FeatureInput(nn.Module):
    """Concatenates the observations of a batch and normalizes vectors; actor and critic read the same result.

    Args:
        layout: where each observation goes.
        normalize: whether vectors pass a running normalizer.

    Attributes:
        keeps_bytes: whether images that are bytes stay so where they are all that is observed: where all that reads the
            features takes bytes. Else they become floats.
    """

    def __init__(self, layout: FeatureLayout, *, normalize: bool) -> None:
        super().__init__()
        self.layout = layout
        self.normalizer = Normalizer(layout.vectors) if normalize and layout.vectors else None
        self.keeps_bytes = False
        self._given = len(layout.order) == 1 and not layout.images

    def features(self, obs: Sequence[np.ndarray]) -> np.ndarray:
        """Return features [rows, size] of observations [rows, ...], normalized where the settings ask for it.

        They are `normalize(raw(obs))`.
        """
        raw = self.raw(obs)
        if self.normalizer is None:
            return raw
        # Where there are images beside the vectors, all were just copied into one array, which may be written to.
        return self._normalized(raw, into=raw if self.layout.images else None)

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
        vectors = parts[: len(parts) - len(images)]
        if self.keeps_bytes and not vectors and all(image.dtype == np.uint8 for image in images):
            return _joined(images)
        return np.asarray(_joined([*vectors, *map(to_floats, images)]), np.float32)

    def normalize(self, raw: np.ndarray) -> np.ndarray:
        """Return raw features [rows, size] with the vectors among them normalized; the same array where none are."""
        return self._normalized(raw)

    def _normalized(self, raw: np.ndarray, into: np.ndarray | None = None) -> np.ndarray:
        if self.normalizer is None:
            return raw
        vectors = slice(0, self.layout.vectors)
        normalized = self.normalizer.normalize(raw[:, vectors])
        if not self.layout.images:
            return normalized
        features = raw.copy() if into is None else into
        features[:, vectors] = normalized
        return features

    def update(self, obs: Sequence[np.ndarray]) -> None:
        """Add observations to the normalizer's statistics."""
        if self.normalizer is not None:
            self.normalizer.update(_joined([array for array in obs if array.ndim == 2]))


def _flat(images: np.ndarray) -> np.ndarray:
    """Return [rows, channels, height, width] as [rows, height * width * channels]."""
    return np.moveaxis(images, 1, -1).reshape(len(images), math.prod(images.shape[1:]))


def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
