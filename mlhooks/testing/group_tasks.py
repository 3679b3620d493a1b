"""Scripted environments of groups, and a plain account of who was where in them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from mlagents_envs.base_env import ActionTuple, BehaviorSpec, DecisionSteps, TerminalSteps

from mlhooks.testing.scripted import GOES_ON, INTERRUPTED, TERMINAL, Outcome, ScriptedEnv, one_hot
from mlhooks.testing.specs import make_behavior_spec

GONE = 10**6
"""Ticks for which a member is absent that waits for its group to begin again."""


class Errand(ScriptedEnv):
    """Groups of two, of whom one must leave at the first decision, so that the other one is paid at the second.

    Who leaves has ended then, and gets nothing. The group gets 1 if exactly one is left, and nothing otherwise. Who
    learns from what it gets itself learns to stay.
    """

    spec = make_behavior_spec((5,), branches=(2,))
    enough = 0.9
    LEAVE = 1

    def __init__(self, agents: int = 16, seed: int = 0) -> None:
        super().__init__(agents, seed)
        self.group_returns: list[float] = []

    def begin(self, rows: np.ndarray) -> None:
        """Begin the episodes of groups that are over; members of others wait for theirs."""
        late = self.state.setdefault("late", np.zeros(self.agents, np.bool_))
        over = self.state.setdefault("over", np.ones(self.agents, np.bool_))
        left = self.state.setdefault("left", np.zeros(self.agents, np.bool_))
        self.state.setdefault("paid", np.zeros(self.agents, np.float32))
        self.state["_absent"][rows] = GONE
        self.state["_absent"][over] = 0
        late[over], left[over], over[over] = False, False, False

    def observe(self, rows: np.ndarray) -> list[np.ndarray]:
        """Return which of the two the agent is and which decision it is, as one-hot, and whether one has left."""
        late, left = self.state["late"][rows].astype(np.int64), self.state["left"][rows, None]
        return [np.concatenate([one_hot(rows % 2, 2), one_hot(late, 2), left], axis=1)]

    def group_id(self, rows: np.ndarray) -> np.ndarray:
        """Return a group for each two agents."""
        return (rows // 2 + 1).astype(np.int32)

    def group_reward(self, rows: np.ndarray) -> np.ndarray:
        """Return what the groups got."""
        paid: np.ndarray = self.state["paid"][rows]
        return paid

    def play(self, rows: np.ndarray, action: ActionTuple) -> Outcome:
        """Let members leave at the first decision, and end at the second."""
        late, leaves = self.state["late"][rows], action.discrete[:, 0] == self.LEAVE
        left = np.zeros(self.agents, np.bool_)
        left[rows] = ~late & leaves
        self.state["left"] |= np.repeat(left.reshape(-1, 2).any(1), 2)
        both = np.repeat(left.reshape(-1, 2).all(1), 2)
        alone = np.repeat(np.bincount(rows // 2, minlength=self.agents // 2) == 1, 2)
        self.state["paid"] = (np.isin(np.arange(self.agents), rows[late]) & alone).astype(np.float32)
        over = both.copy()
        over[rows[late]] = True
        over = np.repeat(over.reshape(-1, 2).any(1), 2)
        self.group_returns.extend(self.state["paid"].reshape(-1, 2).max(1)[over[::2]].tolist())
        self.state["over"], self.state["late"][rows] = over, True
        ends = left[rows] | over[rows]
        return Outcome(np.zeros(len(rows), np.float32), np.where(ends, TERMINAL, GOES_ON))


class Squads(ScriptedEnv):
    """Groups of three with an agent that is in none, who decide at their own rhythms, end, and come again.

    Observations, rewards and ends are random; a group may end whole, and begin again at once under the same id.
    """

    def __init__(self, seed: int = 0) -> None:
        super().__init__(8, seed, lazy=True)

    def begin(self, rows: np.ndarray) -> None:
        """Let agents come after some ticks, and whole groups at once."""
        self.state.setdefault("paid", np.zeros(2, np.float32))
        self.state["_absent"][rows] = self.rng.integers(0, 3, len(rows)) * (len(rows) < 3)

    def observe(self, rows: np.ndarray) -> list[np.ndarray]:
        """Return numbers that are never the same again."""
        return [self.rng.standard_normal((len(rows), *o.shape)) for o in self.spec.observation_specs]

    def group_id(self, rows: np.ndarray) -> np.ndarray:
        """Return a group for the first three of each four agents."""
        return np.where(rows % 4 < 3, rows // 4 + 1, 0).astype(np.int32)

    def group_reward(self, rows: np.ndarray) -> np.ndarray:
        """Return what the groups got."""
        return np.where(rows % 4 < 3, self.state["paid"][rows // 4], 0.0).astype(np.float32)

    def play(self, rows: np.ndarray, action: ActionTuple) -> Outcome:  # noqa: ARG002
        """Pay and end at random."""
        self.state["paid"] = self.rng.integers(0, 3, 2).astype(np.float32)
        draw = self.rng.random(len(rows))
        end = np.where(draw < 0.1, TERMINAL, np.where(draw < 0.15, INTERRUPTED, GOES_ON))
        end[self.rng.random(2)[rows // 4] < 0.1] = TERMINAL
        return Outcome(self.rng.standard_normal(len(rows)).astype(np.float32), end)


def squads(spec: BehaviorSpec, seed: int) -> Squads:
    """Return `Squads` with these observations and actions."""
    kind: type[Squads] = type("Squads", (Squads,), {"spec": spec})
    return kind(seed)


@dataclass
class Decided:
    """What became of a decision.

    Attributes:
        agent: worker and id; group: worker and group, None for none.
        tick: when it was made; until: when its reward came, None before that.
        name: what the agent saw, as bytes; final: what it saw at the end of its episode.
        reward: its own; shared: its group's.
        end: `GOES_ON`, `TERMINAL` or `INTERRUPTED`; whole: whether its whole group ended with it.
        goes_on: whether it continues an episode.
    """

    agent: tuple[int, int]
    group: tuple[int, int] | None
    tick: int
    name: bytes
    goes_on: bool
    until: int | None = None
    final: bytes = b""
    reward: float = 0.0
    shared: float = 0.0
    end: int = GOES_ON
    whole: bool = True


@dataclass
class Account:
    """An account of all decisions, taken from what environments sent."""

    decided: dict[bytes, Decided] = field(default_factory=dict)
    open: dict[tuple[int, int], Decided] = field(default_factory=dict)

    def note(self, tick: int, worker: int, decisions: DecisionSteps, terminals: TerminalSteps) -> None:
        """Take in what a worker sent before the decisions of a tick."""
        over = []
        for row, agent in enumerate(terminals.agent_id.tolist()):
            found = self.open.pop((worker, agent), None)
            if found is None:
                continue
            self._complete(found, tick, terminals, row)
            found.end = INTERRUPTED if terminals.interrupted[row] else TERMINAL
            found.final = terminals.obs[0][row].tobytes()
            over.append(found)
        for found in over:
            found.whole = found.group is None or all(other.group != found.group for other in self.open.values())
        for row, agent in enumerate(decisions.agent_id.tolist()):
            who, number = (worker, agent), int(decisions.group_id[row])
            before = self.open.get(who)
            if before is not None:
                self._complete(before, tick, decisions, row)
            name = decisions.obs[0][row].tobytes()
            made = Decided(who, (worker, number) if number else None, tick, name, before is not None)
            self.open[who] = self.decided[name] = made

    def _complete(self, found: Decided, tick: int, steps: DecisionSteps | TerminalSteps, row: int) -> None:
        found.until, found.reward, found.shared = tick, float(steps.reward[row]), float(steps.group_reward[row])

    def groupmates(self, one: Decided) -> Iterator[Decided]:
        """Yield all decisions of other members of a decision's group."""
        if one.group is not None:
            found = (other for other in self.decided.values() if other.group == one.group)
            yield from (other for other in found if other.agent != one.agent)

    def members(self, one: Decided) -> set[bytes]:
        """Return what the members of a decision's group saw last when it was made."""
        there = (o for o in self.groupmates(one) if o.tick <= one.tick and (o.until is None or o.until > one.tick))
        return {one.name, *(other.name for other in there)}

    def after(self, one: Decided) -> set[bytes]:
        """Return what was seen last by those who are there after a decision that ended an episode."""
        assert one.until is not None
        found: dict[tuple[int, int], bytes] = {}
        for other in self.groupmates(one):
            if other.end != GOES_ON and other.until == one.until:
                found.setdefault(other.agent, other.final)
            is_there = other.tick <= one.until and (other.until is None or other.until > one.until)
            if is_there and (not one.whole or other.goes_on or other.tick < one.until):
                found[other.agent] = other.name
        return {one.final, *found.values()}

    def reward(self, one: Decided) -> float:
        """Return what a decision was paid: its own reward, its groupmates' that came meanwhile, and its group's."""
        assert one.until is not None
        groupmates = (o.reward for o in self.groupmates(one) if o.until is not None and one.tick < o.until <= one.until)
        return one.reward + one.shared + sum(groupmates)
