from __future__ import annotations

import numpy as np
import pytest

from mlhooks.nn.heads import SampledActions
from mlhooks.training.replay import ReplayBuffer, Transitions
from mlhooks.training.store import End
from tests.steps import decisions, make_spec, terminals

pytestmark = pytest.mark.usefixtures("each_way")
GAMMA = 0.75


def make(rows: int, agents: int = 1) -> ReplayBuffer:
    buffer = ReplayBuffer(make_spec(continuous=0, branches=(2,)), rows, 10_000)
    buffer.reserve(agents)
    return buffer


def transitions(buffer: ReplayBuffer, rows: list[int], n: int, **signals: bool) -> Transitions:
    """Return transitions for one reward signal, or for the named ones, which ignore ends or do not."""
    ignores_ends = np.array(list(signals.values()) or [False])
    powers = np.float32(GAMMA) ** np.arange(n + 1, dtype=np.float32)
    return buffer.transitions(np.array(rows, np.int64), np.stack([powers] * len(ignores_ends), 1), ignores_ends)


def act(buffer: ReplayBuffer) -> None:
    n = buffer.size - buffer.waiting
    buffer.set_actions(SampledActions(np.zeros((n, 0)), np.zeros((n, 1), np.int64), np.zeros((n, 1), np.float32)))


def decide(buffer: ReplayBuffer, values: dict[int, float], rewards: list[float] | None = None) -> None:
    agents = list(values)
    rewards = [0.0] * len(agents) if rewards is None else rewards
    buffer.open_rows(np.array(agents), decisions(agents, list(values.values()), rewards))
    act(buffer)


def end(buffer: ReplayBuffer, agent: int, value: float, reward: float, *, interrupted: bool) -> None:
    buffer.end_episodes(np.array([agent]), terminals([agent], [value], [reward], [interrupted]))


def episode(buffer: ReplayBuffer) -> None:
    """Add observations 0, 1, 2 with rewards 1, 2, 4, then an interruption at 3; then 10, 11 and an end at 12."""
    for t, reward in enumerate([0.0, 1.0, 2.0]):
        decide(buffer, {0: float(t)}, [reward])
    end(buffer, 0, 3.0, 4.0, interrupted=True)
    decide(buffer, {0: 10.0})
    decide(buffer, {0: 11.0}, [8.0])
    end(buffer, 0, 12.0, 16.0, interrupted=False)


@pytest.mark.parametrize(
    ("n", "expected"),
    [
        # Each has the rows passed, the row that follows and the final observation that follows.
        (1, [([0], 1, None), ([1], 2, None), ([2], -1, 3.0), ([3], 4, None), ([4], -1, None)]),
        (2, [([0, 1], 2, None), ([1, 2], -1, 3.0), ([2], -1, 3.0), ([3, 4], -1, None), ([4], -1, None)]),
        (9, [([0, 1, 2], -1, 3.0), ([1, 2], -1, 3.0), ([2], -1, 3.0), ([3, 4], -1, None), ([4], -1, None)]),
    ],
)
def test_transitions_stop_where_the_episode_does(n: int, expected: list[tuple[list[int], int, float | None]]) -> None:
    buffer = make(100)
    episode(buffer)
    path = transitions(buffer, [*range(5)], n)
    assert path.finals is not None
    for row, (steps, next_row, final) in enumerate(expected):
        assert [step for step in path.steps[row].tolist() if step >= 0] == steps
        goes_on = next_row >= 0 or final is not None
        assert path.discounts[row].tolist() == [GAMMA ** len(steps) if goes_on else 0.0]
        assert path.next_rows[row] == next_row
        found = None if path.finals[row] < 0 else buffer.final_obs[0][path.finals[row], 0]
        assert found == final


def test_final_observation_follows_an_end_for_signals_that_ignore_ends_only() -> None:
    buffer = make(100)
    episode(buffer)
    decide(buffer, {0: 20.0})
    path = transitions(buffer, [0, 2, 3, 4], 2, extrinsic=False, curiosity=True)
    assert path.ended.tolist() == [False, True, True, True]
    # It leads from 0 over 1 to 2; 2 was interrupted after one step; 3 and 4 lead to the end of the episode.
    assert path.discounts.tolist() == [[GAMMA**2, GAMMA**2], [GAMMA, GAMMA], [0.0, GAMMA**2], [0.0, GAMMA]]
    assert path.finals is not None
    following = buffer.obs_at(path.next_rows, path.finals)[0][:, 0]
    assert following.tolist() == [2.0, 3.0, 12.0, 12.0]
    others = transitions(buffer, [0, 3, 4], 2, extrinsic=False, gail=False)
    assert others.discounts.tolist() == [[GAMMA**2] * 2, [0.0] * 2, [0.0] * 2]
    assert others.finals is None


@pytest.mark.parametrize("seed", range(5))
def test_transitions_of_random_histories_are_those_of_a_walk_along_them(seed: int) -> None:
    rng, buffer = np.random.default_rng(seed), make(60, agents=3)
    for t in range(60):
        for agent in range(3):
            if buffer.open_row[agent] >= 0 and rng.random() < 0.2:
                end(buffer, agent, 1000.0 + t, 1.0, interrupted=bool(rng.random() < 0.5))
        decide(buffer, {agent: float(10 * t + agent) for agent in range(3) if rng.random() < 0.7 or agent == t % 3})
    n, gammas = 3, np.array([0.5, 0.75, 0.25], np.float32)
    ignores_ends = np.array([True, False, bool(seed % 2)])
    rows = np.flatnonzero(buffer.is_complete(np.arange(buffer.filled)))
    path = buffer.transitions(rows, gammas ** np.arange(n + 1, dtype=np.float32)[:, None], ignores_ends)
    assert path.finals is not None
    following = buffer.obs_at(path.next_rows, path.finals)[0][:, 0]
    for i, row in enumerate(rows.tolist()):
        passed, at = [], row
        while at >= 0 and len(passed) < n and buffer.is_complete(np.array([at]))[0]:
            passed.append(at)
            at = int(buffer.successor[at])
        kind, final = buffer.end[passed[-1]], buffer.final[passed[-1]]
        terminal = at < 0 and kind == End.TERMINAL
        assert [step for step in path.steps[i].tolist() if step >= 0] == passed
        assert path.ended[i] == (at < 0)
        assert path.discounts[i].tolist() == (gammas ** len(passed) * (ignores_ends | (not terminal))).tolist()
        assert following[i] == (buffer.obs[0][at, 0] if at >= 0 else buffer.final_obs[0][final, 0])


def test_no_rows_have_no_transitions() -> None:
    buffer = make(100)
    episode(buffer)
    path = transitions(buffer, [], 2)
    assert [None if part is None else part.shape for part in path] == [(0, 2), (0, 1), (0,), None]


def test_transition_ends_at_a_row_that_is_still_open() -> None:
    buffer = make(100)
    for t in range(3):
        decide(buffer, {0: float(t)}, [float(t)])
    path = transitions(buffer, [0, 1], 5)
    assert path.finals is None
    assert path.steps[:, :2].tolist() == [[0, 1], [1, -1]]
    assert path.next_rows.tolist() == [2, 2]  # Its observation is there to bootstrap from.


def test_ring_keeps_the_last_rows_and_frees_final_observations() -> None:
    buffer = make(rows=50, agents=3)
    rng = np.random.default_rng(0)
    serial = 0
    alive: set[int] = set()
    for _ in range(2000):
        for agent in sorted(alive):
            if rng.random() < 0.2:
                end(buffer, agent, -1.0, 1.0, interrupted=bool(rng.random() < 0.5))
                alive.discard(agent)
        deciding = [agent for agent in range(3) if rng.random() < 0.8]
        if deciding:
            decide(buffer, {agent: float(serial + i) for i, agent in enumerate(deciding)})
            serial += len(deciding)
            alive |= set(deciding)
    assert len(buffer.end) <= 50 + 2 * 3
    assert buffer.filled <= len(buffer.end)
    kept = sorted(buffer.obs[0][: buffer.filled, 0].tolist())
    assert kept[-50:] == [float(i) for i in range(serial - 50, serial)]
    assert len(buffer.final_obs[0]) <= 64
    used = buffer.final[: buffer.filled]
    used = used[used >= 0]
    assert len(set(used.tolist())) == len(used)
    # Successors are the next decision of the same agent, never a row that was overwritten since.
    rows = np.flatnonzero(buffer.successor[: buffer.filled] >= 0)
    after = buffer.successor[rows]
    assert (buffer.slot[after] == buffer.slot[rows]).all()
    assert (buffer.tick[after] > buffer.tick[rows]).all()


def test_row_that_stays_open_while_the_ring_passes_is_given_up() -> None:
    buffer = make(rows=6, agents=2)
    decide(buffer, {0: 0.0, 1: 100.0})
    for t in range(1, 30):
        decide(buffer, {0: float(t)}, [1.0])
    assert buffer.open_row[1] == -1
    before = buffer.complete
    decide(buffer, {1: 101.0}, [5.0])
    assert buffer.complete == before  # The row that the reward belonged to is gone.
    decide(buffer, {1: 102.0}, [7.0])
    row = int(np.flatnonzero(buffer.obs[0][: buffer.filled, 0] == 101.0)[0])
    assert buffer.reward[row] == 7.0


def test_every_complete_row_is_drawn_equally_often_and_open_ones_never() -> None:
    buffer = make(rows=20, agents=2)
    for t in range(10):
        decide(buffer, {0: float(t), 1: 100.0 + t})
    counts = np.bincount(buffer.draw(90_000, np.random.default_rng(0)), minlength=buffer.filled)
    complete = buffer.is_complete(np.arange(buffer.filled))
    assert complete.sum() == 18
    assert (counts[~complete] == 0).all()
    np.testing.assert_allclose(counts[complete], 5000, atol=5 * 70)


def test_restored_buffer_draws_and_goes_on_the_same() -> None:
    buffer = make(rows=20)
    for _ in range(7):
        episode(buffer)
    other = make(rows=20)
    other.load_state_dict(buffer.state_dict())
    for part in (buffer, other):
        episode(part)
    assert buffer.draw(50, np.random.default_rng(3)).tolist() == other.draw(50, np.random.default_rng(3)).tolist()
    for name, value in buffer.state_dict().items():
        np.testing.assert_equal(other.state_dict()[name], value, err_msg=name)


def test_checkpoint_without_experience_keeps_open_rows_and_leaves_the_buffer_alone() -> None:
    buffer = make(rows=10, agents=2)
    for t in range(20):
        decide(buffer, {0: float(t), 1: 100.0 + t})
    before = {name: np.copy(value) for name, value in buffer.state_dict().items() if isinstance(value, np.ndarray)}
    small = make(rows=10, agents=2)
    small.load_state_dict(buffer.open_only().state_dict())
    assert small.filled == small.size == 2
    assert small.obs[0][:2, 0].tolist() == [19.0, 119.0]
    for name, value in before.items():
        np.testing.assert_equal(buffer.state_dict()[name], value)
    decide(small, {0: 20.0, 1: 120.0}, [3.0, 4.0])
    assert small.reward[:2].tolist() == [3.0, 4.0]


def test_restarted_environments_leave_complete_rows_with_their_values() -> None:
    buffer = make(rows=10, agents=2)
    for t in range(4):
        decide(buffer, {0: float(t), 1: 100.0 + t}, [1.0, 1.0])
    buffer.interrupt_open()
    assert buffer.filled == 6
    path = transitions(buffer, [4, 5], 3)
    assert buffer.final_obs[0][path.finals, 0].tolist() == [3.0, 103.0]
    decide(buffer, {0: 50.0})
    assert buffer.obs[0][: buffer.filled, 0].tolist()[-1] == 50.0


def remember(buffer: ReplayBuffer, agents: int, ticks: range) -> None:
    """Let agents with a memory decide; each sees the tick."""
    for tick in ticks:
        decide(buffer, dict.fromkeys(range(agents), float(tick)))


def first_rows(buffer: ReplayBuffer) -> list[float]:
    """Return the ticks at which sequences begin, of which each is drawn."""
    rows = buffer.draw_sequences(500, np.random.default_rng(2))
    assert len(rows) == 500
    return sorted(set(buffer.obs[0][rows, 0].tolist()))


def test_sequence_whose_first_row_the_ring_has_overwritten_may_begin_with_each_of_the_others() -> None:
    buffer = make(rows=20)
    buffer.remember(2, length=8)
    remember(buffer, 1, range(37))
    kept = buffer.obs[0][: buffer.filled, 0]
    oldest = int(kept.min())
    assert oldest % 8
    lost = [float(tick) for tick in range(oldest, 36) if tick // 8 == oldest // 8]
    assert first_rows(buffer) == [*lost, *(float(tick) for tick in (16, 24, 32) if tick > oldest)]


def test_sequences_are_drawn_from_a_ring_that_is_shorter_than_one() -> None:
    buffer = make(rows=6)
    buffer.remember(2, length=64)
    remember(buffer, 1, range(40))
    ticks = np.sort(buffer.obs[0][: buffer.filled, 0])
    begun = first_rows(buffer)
    assert begun[0] == ticks[0]
    assert set(begun) <= set(ticks[:-1].tolist())  # The last one waits for what follows.


def test_checkpoint_without_experience_goes_on_with_sequences_of_its_own() -> None:
    buffer, small = make(rows=50, agents=2), make(rows=50, agents=2)
    buffer.remember(2, length=4)
    small.remember(2, length=4)
    remember(buffer, 2, range(7))
    small.load_state_dict(buffer.open_only().state_dict())
    remember(small, 2, range(7, 14))
    assert first_rows(buffer) == [0.0, 4.0]
    assert first_rows(small) == [6.0, 7.0, 8.0, 12.0]


def test_sequences_are_those_of_before_where_rows_have_moved() -> None:
    buffer = make(rows=50, agents=3)
    buffer.remember(2, length=4)
    remember(buffer, 3, range(10))
    buffer.drop_trajectories(np.array([1]))
    assert buffer.filled == 20
    assert first_rows(buffer) == [0.0, 4.0, 8.0]
    rows = buffer.draw_sequences(500, np.random.default_rng(2))
    assert set(buffer.slot[rows].tolist()) == {0, 2}


def test_state_with_a_sequence_that_begins_nowhere_is_refused() -> None:
    buffer = make(rows=10)
    buffer.remember(2, length=4)
    remember(buffer, 1, range(3))
    state = {**buffer.state_dict(), "sequence": np.array([[0], [0], [3]], np.int64)}
    with pytest.raises(ValueError, match="sequence has numbers"):
        make(rows=10).load_state_dict(state)
