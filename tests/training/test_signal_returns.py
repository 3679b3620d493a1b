"""What reward signals gave in an episode, as statistics tell it when the episode ends."""

from __future__ import annotations

import copy
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mlhooks import hookimpl
from mlhooks.nn.heads import SampledActions
from mlhooks.settings import RewardSignalSettings
from mlhooks.testing.managers import make_manager
from mlhooks.testing.tasks import any_kind
from mlhooks.testing.trainer_loop import Play, make_trainer
from mlhooks.training.batch import Batch
from mlhooks.training.replay import ReplayBuffer
from mlhooks.training.reward_signals import RewardSignal
from mlhooks.training.signal_returns import SignalReturns
from mlhooks.training.store import ExperienceStore
from tests.scripted import Corridor, Env, config, train
from tests.steps import decisions, make_spec, terminals

AGENTS = 4


class Stats:
    """Keeps what is reported."""

    def __init__(self) -> None:
        self.values: dict[str, list[float]] = defaultdict(list)

    def add_stats(self, key: str, values: np.ndarray) -> None:
        self.values[key].extend(values.tolist())


class History:
    """Random steps of agents, and what two signals give for each decision: its number, and its square."""

    def __init__(self, store: ExperienceStore, seed: int) -> None:
        self.store, self.rng = store, np.random.default_rng(seed)
        self.serial = 0
        self.episodes: dict[int, list[int]] = {}
        self.over: list[float] = []

    def tick(self) -> None:
        ending = [agent for agent in self.episodes if self.rng.random() < 0.15]
        n = len(ending)
        if n:
            self.store.end_episodes(np.array(ending), terminals(ending, [0.0] * n, [0.0] * n, [n % 2 == 0] * n))
            self.over += [float(sum(self.episodes.pop(agent))) for agent in ending]
        deciding = np.flatnonzero(self.rng.random(AGENTS) < 0.6).tolist()
        n = len(deciding)
        if n:
            numbers = [float(self.serial + i) for i in range(n)]
            for agent in deciding:
                self.episodes.setdefault(agent, []).append(self.serial)
                self.serial += 1
            self.store.open_rows(np.array(deciding), decisions(deciding, numbers, [0.0] * n))
            self.store.set_actions(SampledActions(np.zeros((n, 1)), np.zeros((n, 0), np.int64), np.zeros((n, 1))))

    def rewards(self, rows: np.ndarray) -> np.ndarray:
        numbers = self.store.obs[0][rows, 0]
        return np.stack([numbers, numbers**2], 1)


@pytest.mark.parametrize("seed", range(5))
def test_sums_of_rollouts_are_those_of_whole_episodes(seed: int) -> None:
    store, stats = ExperienceStore(make_spec(), rows=20, time_horizon=3), Stats()
    store.reserve(AGENTS)
    returns: Any = SignalReturns(["looking", "extrinsic", "squares"], stats)  # type: ignore[arg-type]
    history = History(store, seed)
    for _ in range(100):
        history.tick()
        if store.complete >= store.rows:
            rows = np.arange(store.size)[store.complete_rows()]
            returns.add(store, rows, history.rewards(rows))
            store.keep_open()
            saved = returns.state_dict()
            returns = SignalReturns(["looking", "extrinsic", "squares"], stats)  # type: ignore[arg-type]
            returns.load_state_dict(saved)
    rows = np.arange(store.size)[store.complete_rows()]
    returns.add(store, rows, history.rewards(rows))
    assert returns.columns == [0, 2]
    assert set(stats.values) == {"Policy/Looking Reward", "Policy/Squares Reward"}
    assert sorted(stats.values["Policy/Looking Reward"]) == sorted(history.over)


@pytest.mark.parametrize("seed", range(5))
def test_every_row_of_a_replay_buffer_is_in_the_sums_once(seed: int) -> None:
    buffer, stats = ReplayBuffer(make_spec(), rows=40, time_horizon=1000), Stats()
    buffer.reserve(AGENTS)
    returns = SignalReturns(["looking", "squares"], stats)  # type: ignore[arg-type]
    history = History(buffer, seed)
    for tick in range(150):
        history.tick()
        if tick % 3 == 0:
            rows = returns.new_rows(buffer)
            half = len(rows) // 2
            for part in (rows[:half], rows[half:]):
                returns.add(buffer, part, history.rewards(part))
    rows = returns.new_rows(buffer)
    returns.add(buffer, rows, history.rewards(rows))
    assert sorted(stats.values["Policy/Looking Reward"]) == sorted(history.over)
    assert len(returns.new_rows(buffer)) == 0


def test_sum_of_an_episode_that_was_lost_is_forgotten() -> None:
    store, stats = ExperienceStore(make_spec(), rows=4, time_horizon=99), Stats()
    store.reserve(AGENTS)
    returns = SignalReturns(["looking"], stats)  # type: ignore[arg-type]

    def decide(reward: float) -> None:
        store.open_rows(np.array([0]), decisions([0], [reward], [0.0]))
        store.set_actions(SampledActions(np.zeros((1, 1)), np.zeros((1, 0), np.int64), np.zeros((1, 1))))

    def learn() -> None:
        rows = np.arange(store.size)[store.complete_rows()]
        returns.add(store, rows, store.obs[0][rows])
        store.keep_open()

    for reward in (1.0, 2.0, 4.0):
        decide(reward)
    learn()
    store.drop_trajectories(np.array([0]))
    decide(10.0)
    store.end_episodes(np.array([0]), terminals([0], [0.0], [0.0], [False]))
    learn()
    assert stats.values["Policy/Looking Reward"] == [10.0]


class Counting(Corridor):
    """A corridor whose agents see how many steps there were."""

    def _obs(self) -> list[np.ndarray]:
        return [np.full((self.num_agents, 3), self.steps, np.float32)]


class Looking(RewardSignal):
    """Rewards what is seen next."""

    reads = frozenset({"next_obs"})

    def evaluate(self, batch: Batch) -> torch.Tensor:
        return batch.next_obs[:, 0]


class Offer:
    """Offers the signal, and keeps statistics."""

    def __init__(self) -> None:
        self.values: dict[str, list[float]] = defaultdict(list)

    @hookimpl
    def get_reward_signals(self) -> Any:
        return {"looking": (Looking, RewardSignalSettings)}

    @hookimpl
    def on_add_stat(self, key: str, value: float) -> None:
        self.values[key].append(value)


def run(folder: Path, trainer_type: str, signals: dict[str, Any]) -> dict[str, list[float]]:
    offer = Offer()
    settings = config(
        "Corridor",
        "test:x",
        max_steps=200,
        trainer_type=trainer_type,
        reward_signals=signals,
        network_settings={"hidden_units": 8, "num_layers": 1, "normalize": True},
    )
    train(settings, folder, Env(Counting), offer)
    return offer.values


@pytest.mark.parametrize("trainer_type", ["ppo", "dqn"])
def test_every_signal_has_its_reward_times_strength(tmp_path: Path, trainer_type: str) -> None:
    values = run(tmp_path, trainer_type, {"looking": {"strength": 0.5}, "extrinsic": {"strength": 2.0}})
    returns = values["Environment/Cumulative Reward"]
    assert values["Policy/Extrinsic Reward"] == [2.0 * value for value in returns]
    assert max(returns) > 0
    episodes = [sum(range(5 * episode + 1, 5 * episode + 6)) for episode in range(10)]
    assert sorted(values["Policy/Looking Reward"]) == sorted(0.5 * total for total in episodes for _ in range(4))


def test_extrinsic_reward_of_an_episode_has_the_rewards_of_the_group() -> None:
    env = any_kind(make_spec(observation=2, continuous=1))(agents=4)
    signals = {"extrinsic": {"strength": 3.0}}
    trainer = make_trainer(make_manager(), env.spec, {"trainer_type": "ppo", "reward_signals": signals})
    reported: list[float] = []
    add_stats = trainer.stats.add_stats

    def kept(key: str, values: np.ndarray, *how: Any) -> None:
        if key == "Policy/Extrinsic Reward":
            reported.extend(values.tolist())
        add_stats(key, values, *how)

    trainer.stats.add_stats = kept  # type: ignore[method-assign]
    play = Play(trainer, env)
    play.steps = [env.get_steps(play.behavior)]
    for tick in range(60):
        play.act()
        if tick == 30:
            state = copy.deepcopy(trainer.acting.episodes.state_dict())
            trainer.acting.episodes.abandon()
            trainer.acting.episodes.load_state_dict(state)
    totals: dict[int, float] = defaultdict(float)
    expected = []
    for steps, ended in play.steps:
        for part in (ended, steps):
            for row, agent in enumerate(part.agent_id.tolist()):
                totals[agent] += float(part.reward[row]) + float(part.group_reward[row])
                if part is ended:
                    expected.append(3.0 * totals.pop(agent))
    np.testing.assert_allclose(reported, expected, rtol=1e-5)
    assert len(expected) > 20


@pytest.mark.parametrize("trainer_type", ["ppo", "dqn"])
def test_signals_that_a_behavior_does_not_have_have_no_reward(tmp_path: Path, trainer_type: str) -> None:
    values = run(tmp_path, trainer_type, {"looking": {}})
    assert [key for key in values if key.startswith("Policy/") and key.endswith(" Reward")] == ["Policy/Looking Reward"]
