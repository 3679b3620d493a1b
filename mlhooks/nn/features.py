"""From the observations of a behavior to the one feature array that networks read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from mlagents_envs.base_env import BehaviorSpec, ObservationType
from torch import nn

from mlhooks.errors import UnsupportedError
from mlhooks.nn.normalizer import Normalizer


class FeatureLayout:
    """Where each observation lies in the concatenated features.

    Attributes:
        size: number of features.
        goal: columns of goal signals, and `plain`: all others; both index arrays.

    Raises:
        UnsupportedError: an observation is not a vector, or there is none.
    """

    def __init__(self, behavior_name: str, spec: BehaviorSpec) -> None:
        plain: list[int] = []
        goal: list[int] = []
        self.size = 0
        for index, observation in enumerate(spec.observation_specs):
            if len(observation.shape) != 1:
                raise UnsupportedError(
                    f"Behavior {behavior_name!r}: observation {index} ({observation.name or 'unnamed'}) has shape "
                    f"{tuple(observation.shape)}, and the installed networks read vectors only. Flatten it in the "
                    "environment, or install a plugin whose create_policy brings an encoder for it."
                )
            columns = range(self.size, self.size + observation.shape[0])
            (goal if observation.observation_type is ObservationType.GOAL_SIGNAL else plain).extend(columns)
            self.size += observation.shape[0]
        if self.size == 0:
            raise UnsupportedError(f"Behavior {behavior_name!r} has no observations: there is nothing to learn from.")
        self.goal = np.array(goal, dtype=np.int64)
        self.plain = np.array(plain, dtype=np.int64)


class FeatureInput(nn.Module):
    """Concatenates the observations of a batch and normalizes them; actor and critic read the same result.

    Args:
        layout: where each observation goes.
        normalize: whether features pass a running normalizer.
    """

    def __init__(self, layout: FeatureLayout, *, normalize: bool) -> None:
        super().__init__()
        self.layout = layout
        self.normalizer = Normalizer(layout.size) if normalize else None

    def concatenate(self, obs: Sequence[np.ndarray]) -> np.ndarray:
        """Raw features [rows, size] of observations [rows, ...]; a view where there is only one."""
        return obs[0] if len(obs) == 1 else np.concatenate(obs, axis=1)

    def features(self, obs: Sequence[np.ndarray]) -> np.ndarray:
        """Features [rows, size], normalized where the settings ask for it."""
        raw = self.concatenate(obs)
        return raw if self.normalizer is None else self.normalizer.normalize(raw)

    def update(self, obs: Sequence[np.ndarray]) -> None:
        """Add observations to the normalizer's statistics."""
        if self.normalizer is not None:
            self.normalizer.update(self.concatenate(obs))
