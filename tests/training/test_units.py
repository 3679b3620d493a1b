"""Sequences of rows, and minibatches of whole units with their padding."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import mlhooks.training.batch as batch_module
from mlhooks.nn.heads import SampledActions
from mlhooks.training.batch import Batch
from mlhooks.training.store import ExperienceStore
from mlhooks.training.units import sequences
from tests.steps import decisions, make_spec, terminals


def walked(slot: np.ndarray, trajectory: np.ndarray, length: int) -> list[list[int]]:
    """Return sequences by a walk along each agent's rows."""
    units: list[list[int]] = []
    for agent in sorted(set(slot.tolist())):
        before = None
        for row in np.flatnonzero(slot == agent).tolist():
            if before != trajectory[row] or len(units[-1]) == length:
                units.append([])
            units[-1].append(row)
            before = trajectory[row]
    return units


@pytest.mark.parametrize("length", [1, 2, 5, 50])
@pytest.mark.parametrize("seed", range(10))
def test_sequences_of_random_histories_are_those_of_a_walk_along_them(seed: int, length: int) -> None:
    rng = np.random.default_rng(seed)
    store = ExperienceStore(make_spec(), rows=10_000, time_horizon=int(rng.integers(2, 9)))
    store.reserve(5)
    rhythm = rng.uniform(0.2, 1.0, 5)
    for tick in range(60):
        ending = [agent for agent in range(5) if store.open_row[agent] >= 0 and rng.random() < 0.1]
        n = len(ending)
        if n:
            store.end_episodes(np.array(ending), terminals(ending, [0.0] * n, [0.0] * n, [tick % 2 == 0] * n))
        deciding = np.flatnonzero(rng.random(5) < rhythm).tolist()
        n = len(deciding)
        if n:
            store.open_rows(np.array(deciding), decisions(deciding, [0.0] * n, [0.0] * n))
            store.set_actions(SampledActions(np.zeros((n, 1)), np.zeros((n, 0), np.int64), np.zeros((n, 1))))
    rows = np.arange(store.size)[store.complete_rows()]
    slot, trajectory = store.slot[rows], store.trajectory[rows]
    units = sequences(slot, trajectory, length)
    assert units.shape[1] == length
    assert [[row for row in unit if row >= 0] for unit in units.tolist()] == walked(slot, trajectory, length)
    assert (np.diff((units >= 0).astype(int), axis=1) <= 0).all()  # Nothing follows the first gap.


def test_no_rows_have_no_sequences() -> None:
    assert sequences(np.zeros(0, np.int64), np.zeros(0, np.int64), 3).shape == (0, 3)


def make(rows: int, **layout: Any) -> Batch:
    numbers = torch.arange(float(rows))
    return Batch(
        features=numbers[:, None],
        continuous=torch.zeros(rows, 0),
        discrete=torch.zeros(rows, 0).long(),
        advantages=numbers * 2,
        **layout,
    )


UNITS = np.array([[0, 3, 4], [1, -1, -1], [2, 5, -1], [6, 7, 8], [9, 10, -1]])


@pytest.mark.parametrize("large", [False, True])
def test_minibatches_have_whole_units_with_padding_that_does_not_count(
    large: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if large:
        monkeypatch.setattr(batch_module, "LARGE", 0)
    parts = list(make(11, units=UNITS).minibatches(5, np.random.default_rng(0)))
    assert [len(part) for part in parts] == [6, 9]  # These are two and three units.
    found: list[list[int]] = []
    for part in parts:
        assert (part.width, part.units) == (3, None)
        assert torch.equal(part.advantages, part.features[:, 0] * 2)
        assert part.present is not None
        assert part.loss_mask is not None
        assert torch.equal(part.present, part.loss_mask)
        rows = part.features[:, 0].view(-1, 3).long().tolist()
        for unit, there in zip(rows, part.present.view(-1, 3).tolist(), strict=True):
            assert all(row == unit[0] for row, here in zip(unit, there, strict=True) if not here)
            found.append([row if here else -1 for row, here in zip(unit, there, strict=True)])
    assert found != UNITS.tolist()
    assert sorted(found) == sorted(UNITS.tolist())


def test_rows_that_are_there_may_not_count() -> None:
    counts = np.array([[True, False, True], [True, False, False], [False, True, False], [True] * 3, [True] * 3])
    loss_mask = torch.arange(11) != 8
    laid = make(11, units=UNITS, counts=counts, loss_mask=loss_mask).laid_out()
    assert laid.present is not None
    assert laid.loss_mask is not None
    assert laid.present.tolist() == (UNITS >= 0).ravel().tolist()
    counting = counts & (UNITS >= 0) & (UNITS != 8)
    assert laid.loss_mask.tolist() == counting.ravel().tolist()
    assert float(laid.mean(laid.features)) == UNITS[counting].mean()


def test_units_without_padding_have_no_masks() -> None:
    units = np.arange(12).reshape(4, 3)
    for part in make(12, units=units).minibatches(3, np.random.default_rng(0)):
        assert (len(part), part.width, part.present, part.loss_mask) == (3, 3, None, None)


def test_rows_that_fill_no_minibatch_are_in_others_and_long_units_are_not_split() -> None:
    units = np.arange(30).reshape(10, 3)
    parts = list(make(30, units=units).minibatches(8, np.random.default_rng(0)))
    assert [len(part) for part in parts] == [9, 9, 12]
    few = np.arange(30).reshape(2, 15)
    assert [len(part) for part in make(30, units=few).minibatches(3, np.random.default_rng(0))] == [15, 15]
    (whole,) = make(30, units=few).minibatches(16, np.random.default_rng(0))
    assert whole.features[:, 0].tolist() == list(range(30))
    assert whole.width == 15


def test_rows_in_units_of_one_are_the_minibatches_of_rows_alone() -> None:
    plain = make(40).minibatches(10, np.random.default_rng(3))
    in_units = make(40, units=np.arange(40)[:, None]).minibatches(10, np.random.default_rng(3))
    for part, other in zip(plain, in_units, strict=True):
        assert torch.equal(part.features, other.features)
        assert (other.width, other.loss_mask) == (1, None)


def test_changed_batch_keeps_its_units_and_chosen_rows_do_not() -> None:
    batch = make(11, units=UNITS)
    assert batch.map(lambda column: column + 1).units is UNITS
    laid = batch.laid_out()
    assert laid.map(lambda column: column).width == 3
    assert laid[torch.tensor([4, 2])].width == 1
    assert laid.laid_out() is laid


def test_gradient_of_a_mean_over_units_is_that_over_their_rows() -> None:
    weight = torch.tensor([0.5], requires_grad=True)
    batch = make(11, units=UNITS)

    def gradient(part: Batch) -> torch.Tensor:
        loss = part.mean((part.features[:, 0] * weight - part.standardize(part.advantages)).square())
        return torch.autograd.grad(loss, weight)[0]

    torch.testing.assert_close(gradient(batch.laid_out()), gradient(make(11)))
