from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

import mlhooks.training.batch as batch_module
from mlhooks.training.batch import Batch

X = torch.tensor([[1.0, 2.0], [5.0, -3.0], [0.5, 7.0]])


@pytest.mark.parametrize(
    "x", [X[0], X[:, 0], X, X.double()[:, 1].contiguous()], ids=["rows", "strided", "two", "float64"]
)
def test_numbers_are_standardized_whatever_their_type_and_shape(x: Tensor) -> None:
    batch = Batch(features=X, continuous=X, discrete=X)
    expected = (x - x.mean()) / x.std(correction=0)
    torch.testing.assert_close(batch.standardize(x), expected)


def test_minibatches_are_all_rows_once_with_their_columns_together() -> None:
    numbers = torch.arange(100.0)
    batch = Batch(
        features=numbers[:, None] + torch.arange(3),
        continuous=torch.zeros(100, 0),
        discrete=torch.stack([numbers, -numbers], 1).long(),
        mask=numbers[:, None] > 50,
        advantages=numbers * 2,
    )
    parts = list(batch.minibatches(30, np.random.default_rng(1)))
    assert [len(part) for part in parts] == [33, 33, 34]
    rows = torch.cat([part.features[:, 0] for part in parts])
    assert not torch.equal(rows, numbers)
    assert torch.equal(rows.sort().values, numbers)
    for part in parts:
        own = part.features[:, 0]
        assert torch.equal(part.features, own[:, None] + torch.arange(3))
        assert part.continuous.shape == (len(part), 0)
        assert torch.equal(part.discrete, torch.stack([own, -own], 1).long())
        assert part.mask is not None
        assert torch.equal(part.mask, own[:, None] > 50)
        assert torch.equal(part.advantages, own * 2)


@pytest.mark.parametrize("large", [False, True])
def test_raw_observations_that_are_the_features_stay_so_in_every_part(
    large: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if large:
        monkeypatch.setattr(batch_module, "LARGE", 0)
    features = torch.arange(20.0)[:, None]
    columns = {"continuous": torch.zeros(20, 0), "discrete": torch.zeros(20, 0).long()}
    batch = Batch(features=features, obs=features, next_obs=features + 1, **columns)
    for part in (batch[3:5], batch.map(lambda x: x * 2), *batch.minibatches(5, np.random.default_rng(0))):
        assert part.obs is part.features
        assert part.next_obs is not part.features
    apart = Batch(features=features, obs=features * 2, **columns)
    for part in apart.minibatches(5, np.random.default_rng(0)):
        assert torch.equal(part.obs, part.features * 2)


def test_minibatches_of_what_depends_on_parameters_have_its_gradients() -> None:
    features = torch.ones(8, 2, requires_grad=True)
    batch = Batch(features=features * 3, continuous=torch.zeros(8, 0), discrete=torch.zeros(8, 1).long())
    for part in batch.minibatches(4, np.random.default_rng(1)):
        part.features.sum().backward(retain_graph=True)
    assert torch.equal(features.grad, torch.full((8, 2), 3.0))


def test_minibatches_keep_types_that_numpy_does_not_know() -> None:
    numbers = torch.arange(8.0)
    batch = Batch(
        features=numbers[:, None],
        continuous=torch.zeros(8, 0),
        discrete=torch.zeros(8, 1).long(),
        values=numbers[:, None].bfloat16(),
    )
    for part in batch.minibatches(4, np.random.default_rng(1)):
        assert torch.equal(part.values, part.features.bfloat16())
