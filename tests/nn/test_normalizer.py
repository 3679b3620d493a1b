from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import numpy as np
import pytest
import torch

from mlhooks.nn.normalizer import Normalizer


def test_running_statistics_equal_a_two_pass_computation() -> None:
    rng = np.random.default_rng(0)
    batches = [(rng.normal([1e4, -3.0, 0.0], [0.5, 20.0, 1e-3], (n, 3))).astype(np.float32) for n in (1, 7, 500, 33)]
    normalizer = Normalizer(3)
    for batch in batches:
        normalizer.update(batch)
    everything = np.concatenate(batches).astype(np.float64)
    np.testing.assert_allclose(normalizer.mean.numpy(), everything.mean(0), rtol=1e-12)
    np.testing.assert_allclose((normalizer.m2 / normalizer.count).numpy(), everything.var(0), rtol=1e-9)
    expected = np.clip((everything - everything.mean(0)) / everything.std(0), -5, 5)
    np.testing.assert_allclose(normalizer.normalize(batches[2]), expected[8:508], atol=5e-3)


def test_exported_form_computes_the_same() -> None:
    normalizer = Normalizer(2)
    normalizer.update(np.random.default_rng(0).normal(3.0, 2.0, (50, 2)).astype(np.float32))
    features = np.array([[1.0, 100.0], [-2.0, 3.0]], np.float32)
    np.testing.assert_allclose(
        normalizer(torch.from_numpy(features)).numpy(), normalizer.normalize(features), rtol=1e-6
    )
    assert normalizer.normalize(features)[0, 1] == 5.0


def test_bound_is_what_is_asked_for() -> None:
    normalizer = Normalizer(1, clip=10.0)
    normalizer.update(np.array([[-1.0], [1.0]], np.float32))
    features = np.array([[7.0], [-70.0]], np.float32)
    assert normalizer.normalize(features).tolist() == [[7.0], [-10.0]]
    assert normalizer(torch.from_numpy(features)).tolist() == [[7.0], [-10.0]]


def test_features_pass_unchanged_before_the_first_update() -> None:
    normalizer = Normalizer(2)
    assert normalizer.normalize(np.array([[0.5, -2.0]], np.float32)).tolist() == [[0.5, -2.0]]
    normalizer.update(np.zeros((0, 2), np.float32))
    assert normalizer.normalize(np.array([[0.5, -2.0]], np.float32)).tolist() == [[0.5, -2.0]]


def test_loaded_statistics_are_used_at_once() -> None:
    first, second = Normalizer(1), Normalizer(1)
    second.normalize(np.ones((1, 1), np.float32))
    first.update(np.array([[0.0], [2.0]], np.float32))
    second.load_state_dict(first.state_dict())
    assert second.normalize(np.array([[2.0]], np.float32)).tolist() == [[1.0]]


@pytest.mark.parametrize("copy_of", [copy.deepcopy, lambda original: pickle.loads(pickle.dumps(original))])
def test_copy_normalizes_by_the_statistics_that_it_loads(copy_of: Callable[[Normalizer], Normalizer]) -> None:
    original, other = Normalizer(1), Normalizer(1)
    copied = copy_of(original)
    assert copied.normalize(np.array([[3.0]], np.float32)) == 3.0
    other.update(np.array([[1.0], [5.0]], np.float32))
    copied.load_state_dict(other.state_dict())
    assert copied.normalize(np.array([[5.0]], np.float32)) == 1.0
    assert original.normalize(np.array([[3.0]], np.float32)) == 3.0
