from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from mlagents_envs.base_env import ActionSpec, BehaviorSpec, DimensionProperty, ObservationSpec, ObservationType

from mlhooks.fast.switch import native
from mlhooks.nn.heads import SampledActions
from mlhooks.training.episodes import Episodes
from mlhooks.training.replay import ReplayBuffer
from mlhooks.training.store import End, ExperienceStore
from tests.steps import decisions, make_spec, terminals

pytestmark = pytest.mark.usefixtures("each_way")


def act(store: ExperienceStore) -> None:
    n = store.size - store.waiting
    first = store.obs[0][store.waiting : store.size, :1]
    store.set_actions(SampledActions(first * 10, np.zeros((n, 0), np.int64), np.arange(n, dtype=np.float32)[:, None]))


def slots(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


def test_row_is_complete_with_the_reward_of_the_next_decision() -> None:
    store = ExperienceStore(make_spec(), rows=4, time_horizon=99)
    store.reserve(6)
    store.open_rows(slots(0, 1), decisions([5, 6], [1.0, 2.0], [0.0, 0.0]))
    act(store)
    assert store.complete == 0
    store.open_rows(slots(1), decisions([6], [3.0], [0.5]))
    assert store.complete == 1
    assert store.reward[1] == 0.5
    assert store.successor[:3].tolist() == [-1, 2, -1]
    assert store.continuous[:2, 0].tolist() == [10.0, 20.0]
    assert store.complete_rows().tolist() == [1]  # type: ignore[union-attr]


def test_fleet_that_decides_together_is_a_view_of_time_by_slot() -> None:
    store = ExperienceStore(make_spec(), rows=6, time_horizon=99)
    store.reserve(6)
    for t in range(4):
        store.open_rows(slots(0, 1), decisions([0, 1], [t, 10 + t], [t, t]))
        act(store)
    rows = store.complete_rows()
    assert rows == slice(0, 6)
    view = store.obs[0][rows].reshape(3, 2)
    assert np.shares_memory(view, store.obs[0])
    assert view.tolist() == [[0, 10], [1, 11], [2, 12]]
    assert store.reward[rows].reshape(3, 2).tolist() == [[1, 1], [2, 2], [3, 3]]


IMAGE = ObservationSpec((2, 3, 4), (DimensionProperty.NONE,) * 3, ObservationType.DEFAULT, "image")
IMAGES = BehaviorSpec([IMAGE], ActionSpec(1, ()))


def show(store: ExperienceStore, images: np.ndarray) -> None:
    """Let both agents see images [2, channels, height, width] and act."""
    steps = decisions([0, 1], [0.0, 0.0], [0.0, 0.0])
    steps.obs[0] = images
    store.open_rows(slots(0, 1), steps)
    store.set_actions(SampledActions(np.zeros((2, 1), np.float32), np.zeros((2, 0), np.int64), np.zeros((2, 1))))


def end(store: ExperienceStore, images: np.ndarray) -> None:
    """Interrupt the episodes of both agents."""
    steps = terminals([0, 1], [0.0, 0.0], [0.0, 0.0], [True, True])
    steps.obs[0] = images
    store.end_episodes(slots(0, 1), steps)


@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_images_keep_their_type_and_their_channels_last_in_memory_through_growth_and_handover(dtype: type) -> None:
    store = ExperienceStore(IMAGES, rows=4, time_horizon=99)
    shown = np.random.default_rng(0).integers(0, 256, (7, 2, 2, 3, 4)).astype(dtype)  # [tick, agent, channels, ...]
    store.reserve(2)
    for tick, images in enumerate(shown):
        show(store, images)
        if tick == 3:  # The last of them is open.
            store.keep_open()
    assert store.obs[0].dtype == dtype
    assert (store.obs[0][:8] == shown[3:].reshape(8, 2, 3, 4)).all()
    rows = np.array([5, 0, -1])
    for images in (store.obs[0][:8], store.obs_at(rows)[0]):
        assert np.moveaxis(images, 1, -1).flags.c_contiguous
    assert (store.obs_at(rows)[0][:2] == shown[3:].reshape(8, 2, 3, 4)[[5, 0]]).all()


@pytest.mark.parametrize("kind", [ExperienceStore, ReplayBuffer])
@pytest.mark.parametrize("floats_come", ["never", "at once", "later", "at an end"])
def test_images_are_bytes_until_floats_come(kind: type[ExperienceStore], floats_come: str) -> None:
    store = kind(IMAGES, rows=100, time_horizon=99)
    store.reserve(2)
    shown = np.random.default_rng(0).integers(0, 256, (6, 2, 2, 3, 4), np.uint8)
    floats = {"at once": 0, "later": 3, "at an end": 2}.get(floats_come)
    final = []
    for tick, images in enumerate(shown):
        given = images / np.float32(255) if tick == floats else images
        if tick % 3 == 2:
            end(store, given)
            final.append(images)
        else:
            show(store, given)
    in_bytes = floats_come == "never"
    for column, expected in ((store.obs[0][:8], shown[[0, 1, 3, 4]]), (store.final_obs[0][:4], np.stack(final))):
        assert column.dtype == (np.uint8 if in_bytes else np.float32)
        np.testing.assert_allclose(column if in_bytes else column * 255, expected.reshape(-1, 2, 3, 4), rtol=1e-6)
        assert np.moveaxis(column, 1, -1).flags.c_contiguous


def test_checkpoint_with_floats_takes_bytes_as_floats() -> None:
    old, store = (ExperienceStore(IMAGES, rows=100, time_horizon=99) for _ in range(2))
    old.reserve(2)
    pixels = np.full((2, 2, 3, 4), 51, np.uint8)
    show(old, pixels / np.float32(255))
    store.load_state_dict(old.state_dict())
    show(store, pixels)
    end(store, pixels)
    for column in (store.obs[0][:4], store.final_obs[0][:2]):
        np.testing.assert_allclose(column, 0.2, rtol=1e-6)


def test_rows_with_an_encoding_of_the_current_weights_are_told_from_others() -> None:
    store = ExperienceStore(make_spec(), rows=4, time_horizon=99)
    store.reserve(3)

    def decide(*agents: int, encode: bool = True) -> None:
        store.open_rows(slots(*agents), decisions(agents, [float(store.clock)] * len(agents), [0.0] * len(agents)))
        n = len(agents)
        actions = SampledActions(np.zeros((n, 1), np.float32), np.zeros((n, 0), np.int64), np.zeros((n, 1), np.float32))
        encoding = np.full((n, 5), store.clock, np.float32)
        store.set_actions(actions._replace(encoding=encoding) if encode else actions)

    def encoded() -> list[float]:
        return store.encoding[store.encoded_from : store.waiting, 0].tolist()  # type: ignore[no-any-return]

    decide(0, 1, 2, encode=False)
    decide(0, 1)
    assert encoded() == [1.0, 1.0]
    decide(0)
    store.drop_trajectories(slots(1))
    assert encoded() == [1.0, 2.0]
    store.open_rows(slots(0), decisions([0], [3.0], [0.0]))
    store.keep_open()  # Agent 2 has a row from before the update, and agent 0 one that still waits for its action.
    assert (store.size, encoded()) == (2, [])
    store.set_actions(
        SampledActions(np.zeros((1, 1)), np.zeros((1, 0), np.int64), np.zeros((1, 1)), np.full((1, 5), 3.0, np.float32))
    )
    assert encoded() == [3.0]


def test_terminal_step_completes_the_row_and_keeps_the_final_observation() -> None:
    store = ExperienceStore(make_spec(), rows=4, time_horizon=99)
    store.reserve(6)
    store.open_rows(slots(0, 1), decisions([0, 1], [1.0, 2.0], [0.0, 0.0]))
    act(store)
    store.end_episodes(slots(1, 0), terminals([1, 0], [20.0, 10.0], [2.0, 1.0], [True, False]))
    assert store.complete == 2
    assert store.end[:2].tolist() == [End.TERMINAL, End.INTERRUPTED]
    assert store.reward[:2].tolist() == [1.0, 2.0]
    assert [store.final_obs[0][store.final[row], 0] for row in (0, 1)] == [10.0, 20.0]


def test_end_of_an_agent_that_never_decided_is_ignored() -> None:
    store = ExperienceStore(make_spec(), rows=4, time_horizon=99)
    store.reserve(6)
    store.end_episodes(slots(-1), terminals([7], [1.0], [1.0], [False]))
    assert (store.size, store.complete, store.finals) == (0, 0, 0)


def test_trajectory_is_cut_at_the_time_horizon() -> None:
    store = ExperienceStore(make_spec(), rows=10, time_horizon=2)
    store.reserve(6)
    for t in range(6):
        store.open_rows(slots(0), decisions([0], [t], [0.0]))
        act(store)
    assert store.end[:5].tolist() == [End.NONE, End.HORIZON, End.NONE, End.HORIZON, End.NONE]
    assert store.trajectory[:6].tolist() == [0, 0, 1, 1, 2, 2]
    assert store.successor[:5].tolist() == [1, 2, 3, 4, 5]


def test_open_rows_carry_over_and_complete_in_the_next_rollout() -> None:
    store = ExperienceStore(make_spec(), rows=3, time_horizon=99)
    store.reserve(6)
    store.open_rows(slots(0, 1), decisions([0, 1], [0.0, 100.0], [0.0, 0.0]))
    act(store)
    for t in range(1, 4):  # Agent 1 decides once, agent 0 three times more.
        store.open_rows(slots(0), decisions([0], [t], [t]))
        if t < 3:
            act(store)
    assert store.complete == 3
    assert store.complete_rows().tolist() == [0, 2, 3]  # type: ignore[union-attr]
    store.keep_open()
    assert (store.size, store.waiting, store.complete) == (2, 1, 0)
    assert store.obs[0][:2, 0].tolist() == [100.0, 3.0]
    assert store.continuous[0, 0] == 1000.0  # Agent 1 is still carrying this action out.
    act(store)
    store.open_rows(slots(0, 1), decisions([0, 1], [4.0, 101.0], [4.0, 9.0]))
    assert store.complete == 2
    assert store.reward[:2].tolist() == [9.0, 4.0]
    assert store.successor[:2].tolist() == [3, 2]


def test_rows_that_are_used_again_begin_as_new_ones() -> None:
    store = ExperienceStore(make_spec(), rows=4, time_horizon=1)
    store.reserve(1)
    for _ in range(3):
        for t in range(3):
            store.open_rows(slots(0), decisions([0], [t], [0.0]))
            act(store)
        assert store.end[: store.size].tolist() == [End.HORIZON, End.HORIZON, End.NONE]
        assert store.successor[: store.size].tolist() == [1, 2, -1]
        assert store.final[: store.size].tolist() == [-1, -1, -1]
        store.end_episodes(slots(0), terminals([0], [9.0], [1.0], [True]))
        assert (store.end[2], store.final[2]) == (End.INTERRUPTED, 0)
        store.keep_open()


def test_every_transition_is_handed_over_exactly_once_however_unevenly_agents_decide() -> None:
    rng = np.random.default_rng(0)
    store = ExperienceStore(make_spec(), rows=16, time_horizon=5)
    store.reserve(6)
    sent: list[tuple[float, float]] = []
    taken: list[tuple[float, float]] = []
    serial = 0
    last: dict[int, float] = {}
    for _ in range(500):
        ending = [a for a in last if rng.random() < 0.1]
        if ending:
            rewards = rng.normal(size=len(ending)).astype(np.float32)
            sent += [(last.pop(a), float(r)) for a, r in zip(ending, rewards, strict=True)]
            store.end_episodes(slots(*ending), terminals(ending, [0.0] * len(ending), rewards, [False] * len(ending)))
        deciding = [a for a in range(6) if rng.random() < (0.9 if a < 2 else 0.2)]
        if deciding:
            rewards = rng.normal(size=len(deciding)).astype(np.float32)
            sent += [(last[a], float(r)) for a, r in zip(deciding, rewards, strict=True) if a in last]
            numbers = list(range(serial, serial + len(deciding)))
            serial += len(deciding)
            store.open_rows(slots(*deciding), decisions(deciding, numbers, rewards))
            last |= dict(zip(deciding, map(float, numbers), strict=True))
        if store.complete >= 16:
            rows = store.complete_rows()
            taken += list(zip(store.obs[0][rows, 0].tolist(), store.reward[rows].tolist(), strict=True))
            store.keep_open()
        act(store)
        assert store.size <= 16 + 2 * 6
        assert len(store.end) <= 16 + 2 * 6
    rows = store.complete_rows()
    taken += list(zip(store.obs[0][rows, 0].tolist(), store.reward[rows].tolist(), strict=True))
    assert sorted(taken) == sorted(sent)
    assert len(sent) > 1000


def test_agent_that_vanishes_and_returns_goes_on_with_its_open_row() -> None:
    store = ExperienceStore(make_spec(), rows=8, time_horizon=99)
    store.reserve(6)
    store.open_rows(slots(0, 1), decisions([0, 1], [0.0, 1.0], [0.0, 0.0]))
    act(store)
    for t in range(3):
        store.open_rows(slots(0), decisions([0], [t], [0.0]))
        act(store)
    store.open_rows(slots(1), decisions([1], [2.0], [7.0]))
    assert store.reward[1] == 7.0
    assert store.successor[1] == 5


def test_masks_reset_for_decisions_without_one() -> None:
    store = ExperienceStore(make_spec(continuous=0, branches=(2, 3)), rows=8, time_horizon=99)
    store.reserve(6)
    mask = [np.array([[True, False]]), np.array([[False, True, True]])]
    store.open_rows(slots(0), decisions([0], [0.0], [0.0], mask))
    assert store.masked
    assert store.mask[0].tolist() == [True, False, False, True, True]
    store.mask[1] = True  # An earlier rollout may have left this there.
    store.open_rows(slots(0), decisions([0], [0.0], [0.0]))
    assert not store.mask[1].any()


def test_interrupting_open_rows_keeps_the_value_of_what_follows() -> None:
    store = ExperienceStore(make_spec(), rows=8, time_horizon=99)
    store.reserve(6)
    for t in range(3):
        store.open_rows(slots(0, 1), decisions([0, 1], [t, 10.0 + t], [t, t]))
        act(store)
    store.interrupt_open()
    assert (store.size, store.complete) == (4, 4)
    assert store.end[:4].tolist() == [End.NONE, End.NONE, End.INTERRUPTED, End.INTERRUPTED]
    assert store.final_obs[0][store.final[2:4], 0].tolist() == [2.0, 12.0]
    assert (store.open_row == -1).all()
    assert store.complete_rows() == slice(0, 4)


@pytest.mark.parametrize("steps", [1, 4])
def test_restored_store_goes_on_as_if_never_stopped(steps: int) -> None:
    def feed(store: ExperienceStore, start: int, stop: int) -> None:
        for t in range(start, stop):
            if t == 2:
                store.end_episodes(slots(1), terminals([1], [5.0], [1.0], [True]))
            store.open_rows(slots(0, 1), decisions([0, 1], [t, -t], [t, 2 * t]))
            act(store)

    whole = ExperienceStore(make_spec(), rows=6, time_horizon=3)
    whole.reserve(6)
    feed(whole, 0, 6)
    first = ExperienceStore(make_spec(), rows=6, time_horizon=3)
    first.reserve(6)
    feed(first, 0, steps)
    second = ExperienceStore(make_spec(), rows=6, time_horizon=3)
    second.reserve(6)
    second.load_state_dict(first.state_dict())
    feed(second, steps, 6)
    a, b = whole.state_dict(), second.state_dict()
    for name, value in a.items():
        np.testing.assert_equal(b[name], value, err_msg=name)


@pytest.mark.parametrize(("continuous", "kept"), [(1, True), (2, False)])
def test_log_probabilities_of_whole_actions_are_taken_where_actions_have_one_dimension(
    continuous: int, kept: bool
) -> None:
    old, new = (ExperienceStore(make_spec(continuous=continuous), rows=4, time_horizon=99) for _ in range(2))
    old.reserve(2)
    old.open_rows(slots(0, 1), decisions([0, 1], [0.0, 0.0], [0.0, 0.0]))
    numbers = np.array([[0.5], [0.25]], np.float32)
    old.set_actions(SampledActions(np.zeros((2, continuous), np.float32), np.zeros((2, 0), np.int64), numbers))
    former = old.state_dict() | {"log_prob": old.log_prob[:2, 0]}
    if kept:
        new.load_state_dict(former)
        assert new.log_prob.tolist() == [[0.5], [0.25]]
    else:
        with pytest.raises(ValueError, match="must have one for each of an action's 2 dimensions: train again"):
            new.load_state_dict(former)


@pytest.mark.skipif(native("experience") is None, reason="mlhooks was installed without a C compiler")
def test_columns_that_the_native_extension_would_misread_are_refused() -> None:
    kernels: Any = native("experience")
    store = ExperienceStore(make_spec(), rows=4, time_horizon=99)
    store.reserve(2)
    store.open_rows(slots(0, 1), decisions([0, 1], [0.0, 0.0], [0.0, 0.0]))
    act(store)
    ends, numbers = store.end, np.zeros((2, 1), np.float32)
    for wrong in (ends[:1], np.repeat(ends, 2)[::2], ends.astype(np.int64)):
        store.end = wrong
        with pytest.raises((TypeError, ValueError), match=r"int8|without an end"):
            kernels.generalized_advantages(store, numbers, numbers, numbers, np.ones(1), 0.9)


def test_returns_of_episodes_may_lie_in_memory_as_they_like() -> None:
    episodes = Episodes()
    state = {
        "return": np.zeros(6)[::2],
        "length": np.zeros(3, np.int64),
        "shared": np.zeros(3),
        "finished": 0,
        "recent": [],
    }
    episodes.load_state_dict(state)
    episodes.decided(slots(0, 2), np.array([1.0, 2.0], np.float32))
    assert state["return"].tolist() == [1.0, 0.0, 2.0]


def test_masks_of_zeros_and_ones_are_masks() -> None:
    store = ExperienceStore(make_spec(continuous=0, branches=(2, 3)), rows=8, time_horizon=99)
    store.reserve(6)
    store.open_rows(slots(0), decisions([0], [0.0], [0.0], [np.array([[1, 0]]), np.array([[0.0, 1.0, 1.0]])]))
    assert store.mask[0].tolist() == [True, False, False, True, True]
