"""Groups in a rollout, against a plain account of what happened: members, what follows ends, and what others got."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from mlhooks.nn.heads import SampledActions
from mlhooks.training.groups import Cells, after_ends, cells_of, groupmate_rewards, has_groups
from mlhooks.training.store import ExperienceStore
from tests.steps import decisions, make_spec, terminals

AGENTS, FINAL, NEVER = 9, 1000, 10**6


@dataclass
class Decision:
    """What became of a decision, by its number, which is what the agent observes there."""

    agent: int
    group: int
    tick: int
    number: int
    continues: bool
    until: int = NEVER  # The tick before which its reward came.
    reward: float = 0.0
    ended: bool = False
    whole: bool = False

    @property
    def key(self) -> tuple[int, int]:
        """The group, apart from that of another worker."""
        return self.agent // 5, self.group


class Tale:
    """Agents of two workers in groups 0 (none) to 2, who decide now and then, end, and begin again."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.store = ExperienceStore(make_spec(), rows=1000, time_horizon=4)
        self.store.reserve(AGENTS)
        self.decisions: list[Decision] = []
        self.last: dict[int, Decision] = {}
        self.share = [0.5, 1.0][seed % 2]  # They decide at their own rhythms, or together.

    def tick(self) -> None:
        rng, store = self.rng, self.store
        for worker, everyone in enumerate((range(5), range(5, AGENTS))):
            ending = [agent for agent in everyone if agent in self.last and rng.random() < 0.2]
            rewards = rng.integers(1, 9, AGENTS).astype(float)
            if ending:
                for agent in ending:
                    self.complete(agent, rewards[agent], ended=True)
                gone = {agent: self.last.pop(agent) for agent in ending}
                for decision in gone.values():
                    left = [d for d in self.last.values() if d.group and d.key == decision.key]
                    decision.whole = not left
                values = [float(FINAL + gone[agent].number) for agent in ending]
                steps = terminals(ending, values, rewards[ending].tolist(), [False] * len(ending))
                store.end_episodes(np.array(ending), steps)
            deciding = [agent for agent in everyone if rng.random() < self.share]
            if not deciding:
                continue
            new = []
            for agent in deciding:
                before = self.last.get(agent)
                if before is not None:
                    self.complete(agent, rewards[agent])
                group = before.group if before is not None else int(rng.integers(0, 3))
                new.append(Decision(agent, group, store.clock, len(self.decisions), before is not None))
                self.decisions.append(new[-1])
                self.last[agent] = new[-1]
            steps = decisions(deciding, [float(d.number) for d in new], rewards[deciding].tolist())
            steps.group_id = np.array([d.group for d in new], np.int32)
            store.open_rows(np.array(deciding), steps, worker)
        n = store.size - store.waiting
        store.set_actions(SampledActions(np.zeros((n, 1)), np.zeros((n, 0), np.int64), np.zeros((n, 1), np.float32)))

    def complete(self, agent: int, reward: float, *, ended: bool = False) -> None:
        decision = self.last[agent]
        decision.until, decision.reward, decision.ended = self.store.clock, reward, ended

    def members(self, key: tuple[int, int], tick: int) -> set[int]:
        """Return the numbers of the current decisions of a group's members."""
        return {d.number for d in self.decisions if d.group and d.key == key and d.tick <= tick < d.until}

    def names(self, rows: np.ndarray) -> list[int]:
        """Return the numbers of rows in use, of final observations behind them."""
        seen = np.concatenate([self.store.obs[0][: self.store.size], self.store.final_obs[0][: self.store.finals]])
        return [int(number) for number in seen[rows[rows >= 0], 0]]


@pytest.fixture(params=range(6))
def tale(request: pytest.FixtureRequest) -> Tale:
    tale = Tale(request.param)
    for _ in range(25):
        tale.tick()
    return tale


def test_cells_have_the_members_of_a_group_at_a_tick(tale: Tale) -> None:
    cells, found = cells_of(tale.store), {}
    for members, decided in zip(*cells, strict=True):
        names, who = tale.names(members), tale.names(members[decided])
        assert len(set(names)) == len(names)
        for number in who:
            assert number not in found  # Each decision is in one cell.
            found[number] = set(names)
        assert len({tale.decisions[number].tick for number in who}) == 1
    for decision in tale.decisions:
        wanted = tale.members(decision.key, decision.tick) if decision.group else {decision.number}
        assert found[decision.number] == wanted


def test_after_an_end_there_are_the_others_and_ones_own_final_observation(tale: Tale) -> None:
    store = tale.store
    rows = np.flatnonzero(store.final[: store.size] >= 0)
    assert len(rows) > 10
    for row, found in zip(rows.tolist(), after_ends(store, rows), strict=True):
        (number,) = tale.names(np.array([row]))
        own = tale.decisions[number]
        groupmates = {}
        for d in tale.decisions:
            if not own.group or d.key != own.key or d.agent == own.agent:
                continue
            if d.ended and d.until == own.until:
                groupmates.setdefault(d.agent, FINAL + d.number)
            elif d.tick <= own.until < d.until and (not own.whole or d.continues or d.tick < own.until):
                groupmates[d.agent] = d.number
        assert sorted(tale.names(found)) == sorted([FINAL + number, *groupmates.values()])
        assert bool(store.group_ended[row]) == own.whole or not own.group


def test_groupmates_rewards_count_once_where_they_arrive(tale: Tale) -> None:
    found = groupmate_rewards(tale.store)
    for row, number in enumerate(tale.names(np.arange(tale.store.size))):
        own = tale.decisions[number]
        got = sum(
            d.reward
            for d in tale.decisions
            if own.group and d.key == own.key and d.agent != own.agent and own.tick < d.until <= own.until
            if d.until < NEVER
        )
        assert found[row] == pytest.approx(got)


def test_rewards_are_not_lost_between_rollouts() -> None:
    whole, parts = Tale(2), Tale(2)
    sums: dict[int, float] = {}
    for tick in range(30):
        whole.tick()
        parts.tick()
        if tick % 7 != 6:
            continue
        store, found = parts.store, groupmate_rewards(parts.store)
        complete = np.arange(store.size)[store.complete_rows()]
        sums |= dict(zip(parts.names(complete), found[complete].tolist(), strict=True))
        if not store.groupmate_reward.shape[1]:
            store.groupmate_reward = np.zeros((len(store.slot), 1), np.float32)
        waiting = store.open_row[store.open_row >= 0]
        store.groupmate_reward[waiting, 0] = found[waiting]
        store.keep_open()
    at_once = dict(zip(whole.names(np.arange(whole.store.size)), groupmate_rewards(whole.store).tolist(), strict=True))
    assert len(sums) > 100
    assert sums == pytest.approx({number: at_once[number] for number in sums})


def test_cells_of_chosen_rows_are_renumbered() -> None:
    cells = Cells(np.array([[0, 1, -1], [2, -1, -1], [3, 4, 1]]), np.array([[1, 1, 0], [1, 0, 0], [1, 1, 0]], np.bool_))
    rows, chosen = cells.choose(np.array([2, 1]))
    assert rows.tolist() == [3, 4, 1, 2]
    assert chosen.members.tolist() == [[0, 1, 2], [3, -1, -1]]
    assert chosen.decided.tolist() == [[True, True, False], [True, False, False]]
    cell, column = cells.places(6)
    assert cell.tolist() == [0, 0, 1, 2, 2, 0]
    assert column.tolist() == [0, 1, 0, 0, 1, 0]
    left = cells.moved(np.array([-1, 0, -1, 1, 2]))  # The rows 0 and 2 are gone.
    assert left.members.tolist() == [[0, -1, -1], [1, 2, 0]]
    assert left.decided.tolist() == [[True, False, False], [True, True, False]]
    counting = cells.counting(np.array([0, 0, 0, 1, 0], np.bool_))
    assert counting.members.tolist() == [[3, 4, 1]]
    assert counting.decided.tolist() == [[True, False, False]]


def test_agents_without_a_group_are_alone() -> None:
    store = ExperienceStore(make_spec(), rows=10, time_horizon=5)
    store.reserve(3)
    store.open_rows(np.arange(3), decisions([0, 1, 2], [0.0, 1.0, 2.0], [0.0] * 3))
    assert not has_groups(store)
    cells = cells_of(store)
    assert cells.members.tolist() == [[0], [1], [2]]
    assert cells.decided.all()
