"""Groups of agents in the store: apart from those of other workers, with their rewards, and with their ends."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mlhooks.fast.switch import native, plain
from mlhooks.nn.heads import SampledActions
from mlhooks.training.replay import ReplayBuffer
from mlhooks.training.store import End, ExperienceStore
from tests.steps import decisions, make_spec, terminals
from tests.training.conftest import NATIVE

WORKERS, PER_WORKER = 3, 4


def act(store: ExperienceStore) -> None:
    n = store.size - store.waiting
    store.set_actions(SampledActions(np.zeros((n, 1)), np.zeros((n, 0), np.int64), np.zeros((n, 1), np.float32)))


def decide(
    store: ExperienceStore, agents: list[int], groups: list[int], worker: int = 0, group_reward: float = 0.0
) -> None:
    """Let agents of a worker, whose slots are their ids, decide."""
    steps = decisions(agents, [float(store.clock)] * len(agents), [0.0] * len(agents))
    steps.group_id = np.array(groups, np.int32)
    steps.group_reward = np.full(len(agents), group_reward, np.float32)
    store.open_rows(np.array(agents), steps, worker)


def end(store: ExperienceStore, *agents: int, interrupted: bool = False) -> None:
    n = len(agents)
    store.end_episodes(np.array(agents), terminals(agents, [9.0] * n, [1.0] * n, [interrupted] * n))


def make(kind: type[ExperienceStore] = ExperienceStore, rows: int = 100) -> ExperienceStore:
    store = kind(make_spec(), rows=rows, time_horizon=5)
    store.reserve(WORKERS * PER_WORKER)
    return store


@pytest.mark.usefixtures("each_way")
def test_equal_groups_of_several_workers_are_apart() -> None:
    store = make()
    decide(store, [0, 1, 2], [1, 2, 0], worker=0)
    decide(store, [3, 4, 5, 6], [1, 2, 2**31 - 1, 0], worker=1)
    groups = store.group[:7].tolist()
    assert groups[2] == groups[6] == 0  # They are in no group, wherever they are.
    assert len({*groups}) == 6
    decide(store, [3], [1], worker=1)
    assert store.group[7] == groups[3]


@pytest.mark.usefixtures("each_way")
def test_groups_end_with_their_last_member() -> None:
    store = make()
    decide(store, [0, 1, 2, 3], [1, 1, 2, 0], worker=0)
    decide(store, [4, 5], [1, 1], worker=1)
    act(store)
    end(store, 0)  # It ends alone, and 1 goes on.
    end(store, 3, 2)  # The first is in no group, the second the only member of one.
    end(store, 5, 4, interrupted=True)  # They end together, although worker 0 has a group 1, too.
    assert store.group_ended[:6].tolist() == [False, False, True, True, True, True]
    decide(store, [0], [1])  # Its next episode begins before that of 1 has ended.
    act(store)
    end(store, 1)
    assert not store.group_ended[1]
    end(store, 0)
    assert store.group_ended[6]


@pytest.mark.usefixtures("each_way")
def test_rows_before_a_restart_end_their_groups() -> None:
    store = make()
    for _ in range(3):
        decide(store, [0, 1], [1, 1])
        act(store)
    store.interrupt_open()
    assert store.end[:4].tolist() == [End.NONE, End.NONE, End.INTERRUPTED, End.INTERRUPTED]
    assert store.group_ended[:4].tolist() == [False, False, True, True]
    store.keep_open()
    for _ in range(2):
        decide(store, [0, 1], [1, 1])
        act(store)
    assert not store.group_ended[:4].any()  # These rows are used again.


@pytest.mark.usefixtures("each_way")
def test_group_rewards_are_kept_from_the_first_on() -> None:
    store = make()
    decide(store, [0, 1], [1, 1])
    act(store)
    decide(store, [0, 1], [1, 1])
    act(store)
    assert not store.grouped
    decide(store, [0, 1], [1, 1], group_reward=2.5)
    act(store)
    assert store.grouped
    decide(store, [0, 1], [1, 1], group_reward=0.0)
    assert store.group_reward[:6].tolist() == [0.0, 0.0, 2.5, 2.5, 0.0, 0.0]


class History:
    """Random steps of agents of several workers in groups, and what the store must make of them, worked out plainly."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.alive: dict[int, int] = {}  # These are the groups of agents in an episode.
        self.rewards: dict[int, float] = {}  # These are group rewards by the number of the decision.
        self.ends: dict[int, bool] = {}  # These say whether the group ended, by the number of the decision.
        self.groups: dict[int, tuple[int, int]] = {}  # These are worker and group by the number of the decision.
        self.last: dict[int, int] = {}
        self.pays = seed % 4 > 0

    def pay(self, agents: list[int]) -> np.ndarray:
        paid = self.rng.normal(size=len(agents)) * (self.rng.random() < 0.5) * self.pays
        return paid.astype(np.float32)

    def tick(self, *stores: ExperienceStore) -> None:
        """Return a step of each worker, some of whose agents end and some of which decide."""
        for worker in range(WORKERS):
            everyone = range(worker * PER_WORKER, (worker + 1) * PER_WORKER)
            ending = [agent for agent in everyone if agent in self.alive and self.rng.random() < 0.15]
            if ending:
                steps = terminals(ending, [0.0] * len(ending), [1.0] * len(ending), self.rng.random(len(ending)) < 0.5)
                steps.group_reward = self.pay(ending)
                before = {agent: self.alive.pop(agent) for agent in ending}
                for agent, paid in zip(ending, steps.group_reward.tolist(), strict=True):
                    group = before[agent]
                    groupmates = [groupmate for groupmate in everyone if self.alive.get(groupmate) == group]
                    self.rewards[self.last[agent]] = paid
                    self.ends[self.last.pop(agent)] = group == 0 or not groupmates
                for store in stores:
                    store.end_episodes(np.array(ending), steps)
            deciding = [agent for agent in everyone if self.rng.random() < 0.6]
            if deciding:
                numbers = [len(self.groups) + i for i in range(len(deciding))]
                steps = decisions(deciding, list(map(float, numbers)), [1.0] * len(deciding))
                steps.group_reward = self.pay(deciding)
                for agent, number, paid in zip(deciding, numbers, steps.group_reward.tolist(), strict=True):
                    if agent in self.last:
                        self.rewards[self.last[agent]] = paid
                    self.alive.setdefault(agent, int(self.rng.integers(0, 3)))
                    self.groups[number] = worker, self.alive[agent]
                    self.last[agent] = number
                steps.group_id = np.array([self.alive[agent] for agent in deciding], np.int32)
                for store in stores:
                    store.open_rows(np.array(deciding), steps, worker)
        for store in stores:
            act(store)

    def check(self, store: ExperienceStore) -> None:
        rows = np.arange(store.size)[store.complete_rows()]
        numbers = store.obs[0][rows, 0].astype(int).tolist()
        paid = [self.rewards[number] for number in numbers]
        np.testing.assert_array_equal(store.group_reward[rows], np.array(paid, np.float32))
        assert store.group_ended[rows].tolist() == [self.ends.get(number, False) for number in numbers]
        known: dict[int, Any] = {}
        for number, group in zip(numbers, store.group[rows].tolist(), strict=True):
            worker, own = self.groups[number]
            assert (group == 0) == (own == 0)
            assert own == 0 or known.setdefault(group, (worker, own)) == (worker, own)


@pytest.mark.usefixtures("each_way")
@pytest.mark.parametrize("seed", range(4))
def test_random_histories_are_kept_as_they_were(seed: int) -> None:
    history, store = History(seed), make()
    for _ in range(30):
        history.tick(store)
        if store.complete >= store.rows:
            history.check(store)
            store.keep_open()
    history.check(store)


@NATIVE
@pytest.mark.parametrize("kind", [ExperienceStore, ReplayBuffer])
@pytest.mark.parametrize("seed", range(6))
def test_native_store_equals_the_plain_one_with_groups(kind: type[ExperienceStore], seed: int) -> None:
    assert native("experience") is not None
    history = History(seed)
    compiled, other = make(kind, rows=60), make(kind, rows=60)

    class Plainly:
        """Calls the other store's methods in plain numpy."""

        def __getattr__(self, name: str) -> Any:
            found = getattr(other, name)
            if not callable(found):
                return found

            def call(*arguments: Any) -> Any:
                with plain():
                    return found(*arguments)

            return call

    stores: Any = (compiled, Plainly())
    for tick in range(60):
        history.tick(*stores)
        if kind is ExperienceStore and compiled.complete >= 60:
            compiled.keep_open()
            stores[1].keep_open()
        if tick % 20 == 19:
            lost = np.arange(PER_WORKER) + PER_WORKER * (tick // 20 % WORKERS)
            for store in stores:
                store.drop_trajectories(lost)
            for agent in lost.tolist():
                history.alive.pop(agent, None)
                history.last.pop(agent, None)
        for (name, value), (_, wanted) in zip(compiled.state_dict().items(), other.state_dict().items(), strict=True):
            np.testing.assert_equal(value, wanted, err_msg=name)


def test_checkpoint_without_ends_of_groups_is_refused() -> None:
    store = make()
    decide(store, [0, 1], [1, 1])
    act(store)
    state = store.state_dict()
    del state["group_ended"]
    with pytest.raises(KeyError, match="group_ended"):
        make().load_state_dict(state)
