from __future__ import annotations

import numpy as np
import pytest

from mlhooks.nn.heads import SampledActions
from mlhooks.training.episodes import Episodes
from mlhooks.training.replay import ReplayBuffer
from mlhooks.training.store import End, ExperienceStore
from tests.steps import decisions, make_spec, terminals

pytestmark = pytest.mark.usefixtures("each_way")


def act(store: ExperienceStore) -> None:
    n = store.size - store.waiting
    obs = store.obs[0][store.waiting : store.size, :1]
    store.set_actions(SampledActions(obs * 10, np.zeros((n, 0), np.int64), np.zeros((n, 1), np.float32)))


def decide(store: ExperienceStore, values: dict[int, float], reward: float = 0.0, *, acted: bool = True) -> None:
    slots = np.array(list(values))
    store.open_rows(slots, decisions(slots.tolist(), list(values.values()), [reward] * len(values)))
    if acted:
        act(store)


def end(store: ExperienceStore, slot: int, value: float, *, interrupted: bool) -> None:
    store.end_episodes(np.array([slot]), terminals([slot], [value], [1.0], [interrupted]))


def seen(store: ExperienceStore) -> list[float]:
    return store.obs[0][: store.in_use, 0].tolist()  # type: ignore[no-any-return]


@pytest.fixture(params=[ExperienceStore, ReplayBuffer])
def store(request: pytest.FixtureRequest) -> ExperienceStore:
    made: ExperienceStore = request.param(make_spec(), 100, 2)
    made.reserve(4)
    return made


def test_unfinished_trajectory_goes_whole_and_finished_ones_stay(store: ExperienceStore) -> None:
    decide(store, {0: 0.0, 1: 100.0})
    end(store, 1, 101.0, interrupted=True)
    decide(store, {0: 1.0, 1: 110.0})
    store.drop_trajectories(np.array([1]))
    assert seen(store) == [0.0, 100.0, 1.0]
    assert store.complete == 2
    assert store.end[:3].tolist() == [End.NONE, End.INTERRUPTED, End.NONE]
    assert store.successor[:3].tolist() == [2, -1, -1]
    assert store.open_row.tolist() == [2, -1, -1, -1]
    assert store.final_obs[0][store.final[1], 0] == 101.0


def test_part_before_the_time_horizon_is_interrupted_at_what_followed_it(store: ExperienceStore) -> None:
    for t in range(4):  # Slot 0 has the trajectories 0 1 | 2 3, and slot 1 has 100 101 | 102 103.
        decide(store, {0: float(t), 1: 100.0 + t}, 1.0)
    store.drop_trajectories(np.array([0]))
    assert seen(store) == [0.0, 100.0, 1.0, 101.0, 102.0, 103.0]
    assert store.complete == 5
    ends = [End.NONE, End.NONE, End.INTERRUPTED, End.HORIZON, End.NONE, End.NONE]
    assert store.end[:6].tolist() == ends
    assert store.successor[:6].tolist() == [2, 3, -1, 4, 5, -1]
    assert store.final_obs[0][store.final[2], 0] == 2.0
    assert store.continuous[:6, 0].tolist() == [0.0, 1000.0, 10.0, 1010.0, 1020.0, 1030.0]


def test_agents_that_wait_for_an_action_are_dropped_and_the_others_get_theirs(store: ExperienceStore) -> None:
    decide(store, {0: 0.0, 1: 100.0, 2: 200.0})
    decide(store, {0: 1.0}, acted=False)
    decide(store, {1: 101.0}, acted=False)
    decide(store, {2: 201.0}, acted=False)
    store.drop_trajectories(np.array([1]))
    assert seen(store) == [0.0, 200.0, 1.0, 201.0]
    assert (store.waiting, store.size, store.complete) == (2, 4, 2)
    act(store)
    assert store.continuous[:4, 0].tolist() == [0.0, 2000.0, 10.0, 2010.0]
    decide(store, {0: 2.0, 1: 150.0, 2: 202.0}, 5.0)  # Slot 1 was given to another agent.
    assert store.reward[[2, 3]].tolist() == [5.0, 5.0]
    assert store.trajectory[5] not in store.trajectory[:5]


def test_slots_that_decided_never_or_are_done_drop_nothing(store: ExperienceStore) -> None:
    decide(store, {0: 0.0})
    end(store, 0, 1.0, interrupted=False)
    store.drop_trajectories(np.array([0, 3]))
    assert seen(store) == [0.0]
    assert (store.complete, store.size) == (1, 1)


def test_ring_goes_on_overwriting_its_oldest_rows_after_a_drop() -> None:
    ring = ReplayBuffer(make_spec(), 6, 99)
    ring.reserve(2)
    for t in range(3):
        decide(ring, {0: float(t), 1: 100.0 + t})  # This fills the ring.
    end(ring, 0, 3.0, interrupted=False)
    end(ring, 1, 103.0, interrupted=False)
    decide(ring, {0: 10.0, 1: 110.0})  # This overwrites 0 and 100.
    ring.drop_trajectories(np.array([1]))
    assert seen(ring) == [10.0, 1.0, 101.0, 2.0, 102.0]
    assert (ring.size, ring.waiting, ring.filled) == (1, 1, 5)
    decide(ring, {0: 11.0})
    assert seen(ring) == [10.0, 11.0, 101.0, 2.0, 102.0]
    drawn = set(ring.draw(200, np.random.default_rng(0)).tolist())
    assert drawn == {0, 2, 3, 4}  # 11 is still open
    path = ring.transitions(np.array([0, 2, 3]), np.ones((2, 1), np.float32), np.zeros(1, np.bool_))
    assert path.next_rows.tolist() == [1, 4, -1]


def test_abandoned_episodes_count_for_nobody() -> None:
    episodes = Episodes()
    episodes.reserve(2)
    episodes.decided(np.array([0, 1]), np.array([3.0, 4.0]))
    episodes.abandon(np.array([1]))
    episodes.decided(np.array([1]), np.array([0.0]))
    returns, lengths = episodes.ended(np.array([0, 1]), np.array([1.0, 1.0]))
    assert (returns.tolist(), lengths.tolist()) == ([4.0, 1.0], [1, 1])
