"""Features, taken apart into the observations that they consist of."""

from __future__ import annotations

import numpy as np
import torch

from mlhooks.nn.features import FeatureInput, FeatureLayout
from mlhooks.testing.specs import make_behavior_spec


def test_split_features_are_the_observations_in_their_order() -> None:
    shapes = (3, 5, 6), (2,), (1, 4, 4), (3,)
    spec = make_behavior_spec(shapes, continuous=1)
    rng = np.random.default_rng(1)
    obs = [rng.random((7, *shape), np.float32) for shape in shapes]
    layout = FeatureLayout("Walker", spec)
    features = torch.from_numpy(FeatureInput(layout, normalize=False).features(obs))
    for part, observation in zip(layout.split(features), obs, strict=True):
        np.testing.assert_array_equal(part.numpy(), observation)
