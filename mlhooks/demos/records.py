"""The records of a `.demo` file, as arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from mlagents_envs.base_env import BehaviorSpec


@dataclass(frozen=True, kw_only=True)
class Records:
    """The observations, rewards and actions of one agent, in the order of time.

    A record has the reward since the record before, and the action that was decided on by its observations. An episode
    ends with a record that is `done`, of which there are two kinds. Players of today show the final observation in it,
    by which nobody acts. Players older than version 1.3 of the protocol show the first observation of the next episode
    in it, and the action that was decided on by that; their files lack final observations.

    Attributes:
        behavior_name: as the player called the behavior, without its team.
        spec: the behavior's observations, images as [channels, height, width], and its actions.
        obs: a list of [records, *shape], float32, or uint8 of images that came compressed.
        reward: [records], with the share in the group's rewards.
        done, interrupted: [records], True where an episode ended, and where a step limit ended it.
        acts: [records], True where the action of a record was decided on by its observations.
        continuous: [records, size], as environments get them; discrete: [records, branches]; 0 where nobody acts.
        mask: [records, sum of branch sizes], True where an action was forbidden; None where none ever was.
    """

    behavior_name: str
    spec: BehaviorSpec
    obs: list[np.ndarray]
    reward: np.ndarray
    done: np.ndarray
    interrupted: np.ndarray
    acts: np.ndarray
    continuous: np.ndarray
    discrete: np.ndarray
    mask: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.reward)

    @property
    def rows(self) -> np.ndarray:
        """The indices of records to learn from: those that have an action, and a record after them."""
        return np.flatnonzero(self.acts[:-1])

    @property
    def episodes(self) -> int:
        """The number of episodes, with the last one even if it has not ended."""
        # Another episode has begun if the last record is no end, or is an end by whose observations somebody acts.
        goes_on = bool(len(self)) and bool(not self.done[-1] or self.acts[-1])
        return int(np.count_nonzero(self.done)) + goes_on

    @property
    def mean_reward(self) -> float:
        """The mean reward of the episodes."""
        return float(self.reward.sum(dtype=np.float64) / max(1, self.episodes))
