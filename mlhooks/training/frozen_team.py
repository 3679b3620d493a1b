"""A team whose policy does not learn: it decides for its agents, and nothing that they do is stored."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from mlagents_envs.base_env import ActionTuple, DecisionSteps, TerminalSteps

from mlhooks.envs.pixels import to_floats
from mlhooks.envs.slots import SlotMap, SlotPool
from mlhooks.fast.actions import action_tuple
from mlhooks.stat_keys import LENGTH_KEY
from mlhooks.state_checks import array_of, indices, whole
from mlhooks.training.carried import CarriedMemories, seen_by
from mlhooks.training.step_checks import check_values

if TYPE_CHECKING:
    from mlhooks.training.acting import ActingHalf
    from mlhooks.training.policy import Policy


class _Waiting(NamedTuple):
    """The agents of a worker and behavior id that wait for a decision: slots, observations and mask as arrays."""

    worker: int
    behavior_id: str
    slots: np.ndarray
    obs: list[np.ndarray]
    mask: np.ndarray | None


class FrozenTeam:
    """The agents of a team of one behavior, in all workers, which decide by a policy that others give it.

    Args:
        acting: the acting half of the behavior's trainer, which gets the lengths of episodes in its statistics.
        policy: decides; another object than that of the trainer.

    Attributes:
        policy: what it was made with.
        entry: the place of the rating of what it plays, among those of the behavior's self-play.
    """

    def __init__(self, acting: ActingHalf, policy: Policy) -> None:
        self._acting, self.policy, self.entry = acting, policy, 0
        self.forget()

    def forget(self) -> None:
        """Forget all agents, as when all environments begin new episodes."""
        self._pool, self._maps = SlotPool(), dict[tuple[int, str], SlotMap]()
        self._decided = np.zeros(0, np.int64)  # These are decisions in the episodes that agents are in, by slot.
        self._carried = CarriedMemories(self.policy)
        self._waiting: list[_Waiting] = []

    def observe(self, worker: int, behavior_id: str, decisions: DecisionSteps, terminals: TerminalSteps) -> int:
        """Take in what one worker's environment sent for the agents of one behavior id.

        Returns:
            The number of decisions whose outcome is known now.

        Raises:
            NonFiniteError, ContractBroken, ValueError: as `ActingHalf.observe`.
        """
        check_values(self._acting, worker, terminals, terminals.group_id, terminals.interrupted)
        check_values(self._acting, worker, decisions, decisions.group_id)
        slots = self._maps.setdefault((worker, behavior_id), SlotMap(self._pool))
        ended = slots.find(terminals.agent_id)
        where = slots.slots(decisions.agent_id) if len(decisions) else ended[:0]
        if (grow := self._pool.size - len(self._decided)) > 0:
            slots.refuse_vanishing(worker, behavior_id)
            self._decided = np.concatenate([self._decided, np.zeros(grow, np.int64)])
        known, steps = 0, self._end(ended, terminals, slots, decisions) if len(terminals) else 0
        if len(where):
            known = int(np.count_nonzero(self._decided[where]))
            self._decided[where] += 1
            self._waiting.append(_Waiting(worker, behavior_id, where, *seen_by(self.policy, decisions)))
        return steps + known

    def _end(self, ended: np.ndarray, terminals: TerminalSteps, slots: SlotMap, decisions: DecisionSteps) -> int:
        """End agents' episodes, and return how many of them had decided."""
        known = ended[ended >= 0]
        known = known[self._decided[known] > 0]
        self._acting.stats.add_stats(LENGTH_KEY, self._decided[known])
        self._decided[known] = 0
        self._carried.forget(known)
        slots.release(terminals.agent_id[~np.isin(terminals.agent_id, decisions.agent_id)])
        return len(known)

    def act(self, rng: np.random.Generator) -> Iterator[tuple[int, str, ActionTuple]]:
        """Decide for all agents that wait, in one batch, and yield each worker's and behavior id's actions."""
        parts, self._waiting = self._waiting, []
        if not parts:
            return
        if len(parts) == 1:
            (worker, behavior_id, slots, obs, mask) = parts[0]
            sent = self.policy.action_tuple(self._carried.act(slots, obs, mask, rng))
            yield worker, behavior_id, sent
            return
        slots = np.concatenate([part.slots for part in parts])
        obs = [_joined(column) for column in zip(*(part.obs for part in parts), strict=True)]
        mask = None
        if any(part.mask is not None for part in parts):
            width = sum(self.policy.behavior_spec.action_spec.discrete_branches)
            masks = [np.zeros((len(p.slots), width), np.bool_) if p.mask is None else p.mask for p in parts]
            mask = np.concatenate(masks)
        sent, start = self.policy.action_tuple(self._carried.act(slots, obs, mask, rng)), 0
        for part in parts:
            own = slice(start, start + len(part.slots))
            yield part.worker, part.behavior_id, action_tuple(sent.continuous[own], sent.discrete[own])
            start = own.stop

    def worker_failed(self, worker: int) -> None:
        """Forget a failed worker's agents."""
        for key in [key for key in self._maps if key[0] == worker]:
            slots = self._maps.pop(key).all()
            self._carried.forget(slots[self._decided[slots] > 0])
            self._decided[slots] = 0
            self._pool.release(slots.tolist())
        self._waiting = [waiting for waiting in self._waiting if waiting.worker != worker]

    def state_dict(self) -> dict[str, Any]:
        """Return all that a resume needs, the weights included."""
        return {
            "entry": self.entry,
            "modules": {name: module.state_dict() for name, module in self.policy.modules().items()},
            "pool": self._pool.state_dict(),
            "slots": [[worker, name, slots.state_dict()] for (worker, name), slots in self._maps.items()],
            "decided": self._decided,
            "memories": self._carried.memories,
            "waiting": [list(waiting) for waiting in self._waiting],
        }

    def load_agents(self, state: dict[str, Any]) -> None:
        """Restore the agents of what `state_dict` returned.

        Raises:
            ValueError: its parts contradict each other.
        """
        self.forget()
        self._pool.load_state_dict(state["pool"])
        size = whole(self._pool.size, "the number of slots")
        self._decided = indices(state["decided"], "decided", -1, 2**53, 0).copy()
        memories = array_of(state["memories"], "memories", np.float32, (-1, self.policy.memory_size))
        if len(self._decided) < size or len(memories) > len(self._decided):
            raise ValueError("the agents of a frozen team are not as many as their slots")
        self._carried.memories = memories.copy()
        for worker, name, slots in state["slots"]:
            self._maps[worker, name] = SlotMap(self._pool)
            self._maps[worker, name].load_state_dict(slots)
        shapes = [tuple(spec.shape) for spec in self.policy.behavior_spec.observation_specs]
        for worker, name, slots, obs, mask in state["waiting"]:
            agents = len(indices(slots, "the slots of agents that wait", -1, len(self._decided), 0))
            if [array.shape for array in obs] != [(agents, *shape) for shape in shapes]:
                raise ValueError("the observations of agents that wait are not those of the behavior")
            self._waiting.append(_Waiting(worker, name, slots, list(obs), mask))


def _joined(column: tuple[np.ndarray, ...]) -> np.ndarray:
    """Return observations of several workers as one array; bytes beside floats become floats."""
    if len({array.dtype for array in column}) > 1:
        column = tuple(map(to_floats, column))
    return np.concatenate(column)
