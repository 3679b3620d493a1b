from __future__ import annotations

import numpy as np
import pytest

from mlhooks.training.columns import put, take

pytestmark = pytest.mark.usefixtures("each_way")


@pytest.mark.parametrize("kind", [np.bool_, np.uint8, np.float32, np.int64])
@pytest.mark.parametrize("shape", [(), (0,), (1,), (2,), (3,), (4,), (3, 2, 2)])
def test_rows_are_copied_the_last_one_in_place_of_minus_one(kind: type, shape: tuple[int, ...]) -> None:
    column = np.random.default_rng(1).integers(0, 99, (5, *shape)).astype(kind)
    rows = np.array([3, -1, 0, 3, 4])
    (taken,) = take([column], rows)
    assert taken.dtype == kind
    np.testing.assert_array_equal(taken, column[rows])
    taken[...] = 0
    np.testing.assert_array_equal(column, np.random.default_rng(1).integers(0, 99, (5, *shape)).astype(kind))


@pytest.mark.parametrize("rows", [[5], [0, -6]])
def test_rows_that_do_not_exist_are_refused(rows: list[int]) -> None:
    with pytest.raises(IndexError):
        take([np.zeros(5, np.float32)], np.array(rows))


@pytest.mark.parametrize("kind", [np.bool_, np.uint8, np.float32, np.int64, np.object_])
@pytest.mark.parametrize("other", [np.float32, np.int64, np.object_])
@pytest.mark.parametrize("shape", [(), (0,), (1,), (3,), (3, 2, 2)])
def test_rows_are_written_where_they_belong(kind: type, other: type, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(1)
    column = rng.integers(0, 2, (9, *shape)).astype(kind)
    for array in rng.integers(2, 9, (4, *shape)).astype(other), rng.integers(2, 9, (8, *shape)).astype(other)[::2]:
        expected = column.copy()
        expected[3:7] = array
        put([column], slice(3, 7), [array])
        np.testing.assert_array_equal(column, expected)


@pytest.mark.parametrize("array", [np.zeros((3, 2), np.float32), np.zeros((4, 3), np.float32), np.zeros((2, 4, 2))])
def test_arrays_of_another_shape_are_not_written(array: np.ndarray) -> None:
    column = np.ones((9, 2), np.float32)
    with pytest.raises(ValueError, match="broadcast"):
        put([column], slice(3, 7), [array])
    with pytest.raises(ValueError, match="zip"):
        put([column, column], slice(3, 7), [np.ones((4, 2), np.float32)])
    assert (column == 1).all()
    put([column], slice(7, 11), [np.zeros((2, 2), np.float32)])  # numpy cuts a slice so.
    assert (column[7:] == 0).all()
