"""Returns and lengths of the episodes that agents are in, and of those that they finished."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

from mlhooks.fast.switch import kernel
from mlhooks.state_checks import array_of, number, whole

RECENT = 100


class Episodes:
    """Running return, length and rewards shared with a group, per slot.

    Attributes:
        finished: number of finished episodes.
        recent: returns of the last 100 of them, with what agents got as members of groups.
        listeners: called with slots and such returns, each [agents], whenever episodes finish.
    """

    def __init__(self) -> None:
        self._return = np.zeros(0)
        self._shared = np.zeros(0)
        self._length = np.zeros(0, np.int64)
        self.finished = 0
        self.recent: deque[float] = deque(maxlen=RECENT)
        self.listeners: list[Callable[[np.ndarray, np.ndarray], None]] = []

    @property
    def mean_return(self) -> float | None:
        """Mean return of the last 100 finished episodes, None before the first."""
        return float(np.mean(self.recent)) if self.recent else None

    @property
    def room(self) -> int:
        """For how many slots there is room."""
        return len(self._return)

    def reserve(self, slots: int) -> None:
        """Make room for slots."""
        grow = slots - len(self._return)
        if grow > 0:
            self._return = np.concatenate([self._return, np.zeros(grow)])
            self._shared = np.concatenate([self._shared, np.zeros(grow)])
            self._length = np.concatenate([self._length, np.zeros(grow, np.int64)])

    def decided(self, slots: np.ndarray, rewards: np.ndarray) -> None:
        """Count a decision of each agent, and add the reward for its last one."""
        decided(self._return, self._length, slots, rewards)

    def shared(self, slots: np.ndarray, rewards: np.ndarray) -> None:
        """Add the rewards of the agents' groups, which are no part of their returns."""
        self._shared[slots] += rewards

    def shared_ended(self, slots: np.ndarray, rewards: np.ndarray) -> np.ndarray:
        """Return what groups gave to agents [agents] whose episodes end with these last rewards of their groups."""
        totals: np.ndarray = self._shared[slots] + rewards
        self._shared[slots] = 0.0
        return totals

    def ended(self, slots: np.ndarray, rewards: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """End agents' episodes with a last reward, and return their returns and lengths in decisions, each [agents]."""
        returns, lengths = self.take_ended(slots, rewards)
        self.count(slots, returns)
        return returns, lengths

    def take_ended(self, slots: np.ndarray, rewards: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """End agents' episodes as `ended` does, for a caller that counts them itself."""
        returns, lengths = self._return[slots] + rewards, self._length[slots].copy()
        self._return[slots] = 0.0
        self._length[slots] = 0
        return returns, lengths

    def count(self, slots: np.ndarray, returns: np.ndarray) -> None:
        """Count episodes with these returns [agents] as finished."""
        self.finished += len(slots)
        self.recent.extend(returns.tolist())
        for listener in self.listeners:
            listener(slots, returns)

    def abandon(self, slots: np.ndarray | slice = slice(None)) -> None:
        """Forget the unfinished episodes, all or those of some agents."""
        self._return[slots] = 0.0
        self._shared[slots] = 0.0
        self._length[slots] = 0

    def state_dict(self) -> dict[str, Any]:
        """Return all state for a checkpoint."""
        return {
            "return": self._return,
            "shared": self._shared,
            "length": self._length,
            "finished": self.finished,
            "recent": list(self.recent),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._return = array_of(state["return"], "the returns of episodes", np.float64, (-1,))
        self._length = array_of(state["length"], "the lengths of episodes", np.int64, self._return.shape)
        self._shared = array_of(state["shared"], "the groups' rewards", np.float64, self._return.shape)
        self.finished = whole(state["finished"], "the number of finished episodes")
        self.recent = deque((number(value, "a return") for value in state["recent"]), maxlen=RECENT)


@kernel("experience")
def decided(returns: np.ndarray, lengths: np.ndarray, slots: np.ndarray, rewards: np.ndarray) -> None:
    """Add rewards [agents] to the running returns [slots] of agents, and a decision to their lengths [slots]."""
    returns[slots] += rewards
    lengths[slots] += 1
