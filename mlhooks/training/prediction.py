"""Using what a run has learned, from Python."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from mlagents_envs.base_env import BehaviorSpec

from mlhooks.envs.pixels import to_floats
from mlhooks.errors import UsageError
from mlhooks.training.policy import Policy


class LoadedPolicy:
    """A trained policy; made by `mlhooks.load`.

    Attributes:
        behavior_name: the behavior it was trained for.
        behavior_spec: the observations that it takes and the actions that it gives.
    """

    def __init__(self, behavior_name: str, behavior_spec: BehaviorSpec, policy: Policy) -> None:
        self.behavior_name, self.behavior_spec, self._policy = behavior_name, behavior_spec, policy
        self._rng = np.random.default_rng()

    def predict(
        self,
        observation: np.ndarray | Sequence[np.ndarray],
        *,
        action_mask: np.ndarray | None = None,
        deterministic: bool = True,
    ) -> Any:
        """Decide for one agent, or for a batch where observations have one more dimension than their spec.

        Args:
            observation: an array, or a list of arrays where the behavior has several observations. An image is
                [channels, height, width] with values in [0, 1], or as bytes from 0 to 255, which may also have their
                channels last.
            action_mask: flat over all branches, True where an action is forbidden.
            deterministic: take the most likely action rather than a random one.

        Returns:
            Continuous actions [continuous] in [-1, 1], or discrete ones [branches] (an int for a single branch of one
            agent), or a pair of both for hybrid behaviors; with a leading [agents] for a batch.

        Raises:
            UsageError: an observation's number or shape does not fit the spec.
        """
        specs = self.behavior_spec.observation_specs
        given = list(observation) if isinstance(observation, (list, tuple)) and len(specs) > 1 else [observation]
        shapes = [tuple(spec.shape) for spec in specs]
        obs = [self._seen(np.asarray(array), shape) for array, shape in zip(given, shapes, strict=False)]
        single = [array.shape for array in obs] == shapes
        if single:
            obs = [array[None] for array in obs]
        if len(given) != len(shapes) or [array.shape[1:] for array in obs] != shapes:
            raise UsageError(
                f"Behavior {self.behavior_name!r} takes observations of shapes {shapes}, with or without a leading "
                f"batch dimension, and got {[np.shape(array) for array in given]}."
            )
        mask = None if action_mask is None else np.asarray(action_mask, np.bool_).reshape(len(obs[0]), -1)
        self._policy.deterministic = deterministic
        action = self._policy.action_tuple(self._policy.act(obs, mask, self._rng))
        continuous, discrete = action.continuous, action.discrete
        if single:
            continuous, discrete = continuous[0], discrete[0]
        if self.behavior_spec.action_spec.discrete_size == 0:
            return continuous
        if self.behavior_spec.action_spec.continuous_size:
            return continuous, discrete
        return int(discrete[0]) if single and discrete.shape == (1,) else discrete

    def _seen(self, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """An observation as the policy takes it, the bytes of an image with their channels first."""
        if array.dtype != np.uint8 or len(shape) != 3:
            return array.astype(np.float32, copy=False)
        channels, height, width = shape
        if array.shape[-3:] != shape and array.shape[-3:] == (height, width, channels):
            array = np.moveaxis(array, -1, -3)
        return array.copy("K") if self._policy.reads_bytes else to_floats(array)  # the given one may be read-only
