from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mlhooks.training.batch import Batch

X = torch.tensor([[1.0, 2.0], [5.0, -3.0], [0.5, 7.0]])


@pytest.mark.parametrize(
    "x", [X[0], X[:, 0], X, X.double()[:, 1].contiguous()], ids=["rows", "strided", "two", "float64"]
)
def test_numbers_are_standardized_whatever_their_type_and_shape(x: Tensor) -> None:
    batch = Batch(features=X, continuous=X, discrete=X)
    expected = (x - x.mean()) / x.std(correction=0)
    torch.testing.assert_close(batch.standardize(x), expected)
