"""Slots: small stable indices for agents whose ids come and go."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlhooks.errors import ContractBroken

MOST_NEWCOMERS, MOST_MESSAGES = 4096, 64
"""How many new agents may appear before a known one is heard of again, and how many messages may be full of new agents;
the larger of both limits counts. Agents that take turns in a game all appear before the first one comes again."""


class SlotPool:
    """Hands out slot numbers for one behavior; a freed slot is reused, the lowest first."""

    def __init__(self) -> None:
        self.size = 0
        self._free: list[int] = []

    def allocate(self) -> int:
        """Return a slot that nobody holds."""
        if self._free:
            return self._free.pop()
        self.size += 1
        return self.size - 1

    def release(self, slots: list[int]) -> None:
        """Return slots to the pool."""
        self._free = sorted([*self._free, *slots], reverse=True)

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        return {"size": self.size, "free": list(self._free)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.size, self._free = state["size"], list(state["free"])
        _check(self._free, self.size)


class SlotMap:
    """The slots of one worker's agents of one behavior id.

    The common case, the same agents in the same order as last time, costs one comparison.

    Attributes:
        newcomers: how many new agents have appeared since a known one was last heard of.
        most: the largest number of agents that came in one message.
    """

    def __init__(self, pool: SlotPool) -> None:
        self.pool = pool
        self._slot_of: dict[int, int] = {}
        self._last_ids = b""
        self._last_slots = np.empty(0, np.int64)
        self.newcomers = self.most = 0

    def refuse_vanishing(self, worker: int, behavior_id: str) -> None:
        """Refuse agents that keep appearing and are never heard of again, as if each step had new ids.

        Raises:
            ContractBroken: names the worker and the behavior id, whose slots these are.
        """
        if self.newcomers > max(MOST_NEWCOMERS, MOST_MESSAGES * self.most):
            raise ContractBroken(
                f"Behavior {behavior_id!r}: {self.newcomers:,} agents of worker {worker} have appeared one after the "
                "other without any of them being heard of again: each step has new agent ids, and the agents before "
                "never end. An agent keeps its id until it ends, in a terminal step."
            )

    def slots(self, agent_ids: np.ndarray) -> np.ndarray:
        """Return slots [agents] of agent ids [agents]; unknown agents get one. Unchanged ids give the same array again.

        Raises:
            ValueError: an agent appears more than once.
        """
        ids = agent_ids.tobytes()
        if ids == self._last_ids:
            return self._last_slots
        known, allocate = self._slot_of, self.pool.allocate
        agents, before = _each_once(agent_ids), len(known)
        for agent in agents:
            if agent not in known:
                known[agent] = allocate()
        new = len(known) - before
        self.newcomers = self.newcomers + new if new == len(agents) else 0
        self.most = max(self.most, len(agents))
        self._last_ids = ids
        self._last_slots = np.array([known[agent] for agent in agents], dtype=np.int64)
        return self._last_slots

    def find(self, agent_ids: np.ndarray) -> np.ndarray:
        """Return slots [agents] of agent ids, -1 for those that hold none.

        Raises:
            ValueError: an agent appears more than once.
        """
        return np.array([self._slot_of.get(agent, -1) for agent in _each_once(agent_ids)], dtype=np.int64)

    def all(self) -> np.ndarray:
        """Return slots [agents] of all agents that hold one."""
        return np.array(list(self._slot_of.values()), dtype=np.int64)

    def release(self, agent_ids: np.ndarray) -> None:
        """Free the slots of agents that are gone."""
        if len(agent_ids) == 0:
            return
        self.pool.release([self._slot_of.pop(agent) for agent in agent_ids.tolist() if agent in self._slot_of])
        self.newcomers = 0
        self._last_ids = b""

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        return {"agents": list(self._slot_of), "slots": list(self._slot_of.values())}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._slot_of = dict(zip(state["agents"], state["slots"], strict=True))
        self._last_ids = b""
        _check(state["slots"], self.pool.size)


def _check(slots: list[Any], size: int) -> None:
    """Check saved slots.

    Raises:
        ValueError: one is none, or is there twice.
    """
    if len(set(slots)) < len(slots) or not all(type(slot) is int and 0 <= slot < size for slot in slots):
        raise ValueError(f"of {size} slots, {slots!r:.60} cannot be in use or free")


def _each_once(agent_ids: np.ndarray) -> list[int]:
    agents: list[int] = agent_ids.tolist()
    if len(set(agents)) < len(agents):
        raise ValueError("an agent appears more than once in one step")
    return agents
