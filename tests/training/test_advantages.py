from __future__ import annotations

import itertools

import numpy as np
import pytest

from mlhooks.nn.heads import SampledActions
from mlhooks.training.advantages import generalized_advantages, needs_finals, next_values
from mlhooks.training.store import ExperienceStore
from tests.steps import decisions, make_spec, terminals

pytestmark = pytest.mark.usefixtures("each_way")

GAMMA = np.array([0.99, 0.9], np.float32)
LAMBDA = 0.95


def direct_sums(history: list[dict], horizon: int, ignores_ends: np.ndarray) -> dict[float, np.ndarray]:
    """Return advantages of each row's serial number, by the definition: sum over k of (gamma lambda)^k delta_(t+k)."""
    result = {}
    for agent in {event["agent"] for event in history}:
        episode: list[dict] = []
        events = [event for event in history if event["agent"] == agent]
        for index, event in enumerate(events):
            if event["kind"] != "decide":
                continue
            episode.append(event)
            following = events[index + 1] if index + 1 < len(events) else None
            closed = following is None or following["kind"] != "decide"
            if closed or len(episode) == horizon:
                _sum_trajectory(episode, following, ignores_ends, result)
                episode = []
    return result


def _sum_trajectory(
    rows: list[dict], following: dict | None, ignores_ends: np.ndarray, result: dict[float, np.ndarray]
) -> None:
    if following is None:
        rows, following = rows[:-1], rows[-1]  # The last row is open: its value bootstraps, it has no advantage.
    if not rows:
        return
    after = [*rows[1:], following]
    deltas = [
        nxt["reward"] + GAMMA * nxt["value"] * (ignores_ends | (nxt["kind"] != "terminal")) - row["value"]
        for row, nxt in zip(rows, after, strict=True)
    ]
    for t, row in enumerate(rows):
        result[row["serial"]] = sum((GAMMA * LAMBDA) ** k * deltas[t + k] for k in range(len(rows) - t))


@pytest.mark.parametrize("seed", range(8))
def test_gae_equals_the_direct_sum_from_its_definition(seed: int) -> None:
    rng = np.random.default_rng(seed)
    horizon = int(rng.integers(2, 12))
    ignores_ends = np.array([False, seed % 2 == 1])
    store = ExperienceStore(make_spec(), rows=10_000, time_horizon=horizon)
    store.reserve(6)
    history: list[dict] = []
    row_values: list[np.ndarray] = []
    final_values: list[np.ndarray] = []
    playing: set[int] = set()
    for _ in range(60):
        ending = [agent for agent in sorted(playing) if rng.random() < 0.15]
        if ending:
            kinds = rng.choice(["terminal", "interrupted"], len(ending))
            rewards = rng.normal(size=(len(ending), 2)).astype(np.float32)
            for agent, kind, reward in zip(ending, kinds, rewards, strict=True):
                value = rng.normal(size=2).astype(np.float32)
                final_values.append(value)
                history.append({"agent": agent, "kind": str(kind), "reward": reward, "value": value})
            steps = terminals(ending, [0.0] * len(ending), rewards[:, 0], kinds == "interrupted")
            store.end_episodes(np.array(ending), steps)
            playing -= set(ending)
        deciding = [agent for agent in range(5) if rng.random() < 0.7]
        if deciding:
            rewards = rng.normal(size=(len(deciding), 2)).astype(np.float32)
            for agent, reward in zip(deciding, rewards, strict=True):
                value = rng.normal(size=2).astype(np.float32)
                row_values.append(value)
                history.append(
                    {"agent": agent, "kind": "decide", "reward": reward, "value": value, "serial": len(row_values) - 1}
                )
            store.open_rows(np.array(deciding), decisions(deciding, [0.0] * len(deciding), rewards[:, 0]))
            playing |= set(deciding)
        n = store.size - store.waiting
        store.set_actions(SampledActions(np.zeros((n, 1)), np.zeros((n, 0), np.int64), np.zeros((n, 1), np.float32)))
    # Rewards of both signals per row: what the agent's next event carried.
    rewards = np.zeros((store.size, 2), np.float32)
    for agent in range(5):
        events = [event for event in history if event["agent"] == agent]
        for event, nxt in itertools.pairwise(events):
            if event["kind"] == "decide":
                rewards[event["serial"]] = nxt["reward"]
    values = np.array(row_values, np.float32)
    following = next_values(store, values, np.array(final_values, np.float32).reshape(-1, 2), ignores_ends)
    advantages = generalized_advantages(store, rewards, values, following, GAMMA, LAMBDA)
    expected = direct_sums(history, horizon, ignores_ends)
    rows = np.arange(store.size)[store.complete_rows()]
    assert sorted(expected) == rows.tolist()
    np.testing.assert_allclose(advantages[rows], [expected[row] for row in rows], rtol=2e-4, atol=2e-5)


def test_interrupted_episode_bootstraps_value_and_a_terminal_one_does_not() -> None:
    store = ExperienceStore(make_spec(), rows=4, time_horizon=99)
    store.reserve(6)
    store.open_rows(np.array([0, 1]), decisions([0, 1], [0.0, 0.0], [0.0, 0.0]))
    store.set_actions(SampledActions(np.zeros((2, 1)), np.zeros((2, 0), np.int64), np.zeros((2, 1), np.float32)))
    store.end_episodes(np.array([0, 1]), terminals([0, 1], [0.0, 0.0], [1.0, 1.0], [False, True]))
    values = np.full((2, 1), 3.0, np.float32)
    following = next_values(store, values, np.full((2, 1), 10.0, np.float32), np.array([False]))
    advantages = generalized_advantages(store, store.reward[:2, None], values, following, np.array([0.5]), 0.9)
    assert advantages[:, 0].tolist() == [1.0 - 3.0, 1.0 + 0.5 * 10.0 - 3.0]


def test_value_of_the_final_observation_follows_an_end_for_a_signal_that_ignores_ends() -> None:
    store = ExperienceStore(make_spec(), rows=4, time_horizon=99)
    store.reserve(1)
    store.open_rows(np.array([0]), decisions([0], [0.0], [0.0]))
    store.set_actions(SampledActions(np.zeros((1, 1)), np.zeros((1, 0), np.int64), np.zeros(1, np.float32)))
    store.end_episodes(np.array([0]), terminals([0], [0.0], [0.0], [False]))
    ignores_ends, values = np.array([True, False]), np.ones((1, 2), np.float32)
    assert needs_finals(store, ignores_ends)
    assert not needs_finals(store, np.array([False, False]))
    following = next_values(store, values, np.full((1, 2), 4.0, np.float32), ignores_ends)
    gamma = np.array([0.5, 0.5], np.float32)
    advantages = generalized_advantages(store, np.zeros((1, 2), np.float32), values, following, gamma, 0.9)
    assert advantages.tolist() == [[0.5 * 4.0 - 1.0, -1.0]]
