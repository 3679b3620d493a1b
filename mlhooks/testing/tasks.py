"""Scripted environments: tasks so small that what a right learner does in them, and what a wrong one, is known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from mlagents_envs.base_env import ActionTuple, BehaviorSpec

from mlhooks.testing.scripted import GOES_ON, INTERRUPTED, TERMINAL, Outcome, ScriptedEnv, one_hot
from mlhooks.testing.specs import make_behavior_spec


class OneStep(ScriptedEnv):
    """Four situations, three actions, one decision: each situation has its own rewarded action."""

    spec = make_behavior_spec((4,), branches=(3,))
    enough = 0.95
    RIGHT = np.array([2, 0, 1, 0])

    def begin(self, rows: np.ndarray) -> None:
        """Draw situations."""
        self.state.setdefault("situation", np.zeros(self.agents, np.int64))[rows] = self.rng.integers(0, 4, len(rows))

    def observe(self, rows: np.ndarray) -> list[np.ndarray]:
        """Return the situation as one-hot."""
        return [one_hot(self.state["situation"][rows], 4)]

    def play(self, rows: np.ndarray, action: ActionTuple) -> Outcome:
        """Pay 1 for the right action, and end."""
        right = action.discrete[:, 0] == self.RIGHT[self.state["situation"][rows]]
        return Outcome(right.astype(np.float32), np.full(len(rows), TERMINAL))


class Goal(OneStep):
    """As `OneStep`, but that a goal signal says whether the action is rewarded that is right there, or the next one."""

    spec = make_behavior_spec((4,), branches=(3,), goals=(2,))

    def begin(self, rows: np.ndarray) -> None:
        """Draw situations and goals."""
        super().begin(rows)
        self.state.setdefault("goal", np.zeros(self.agents, np.int64))[rows] = self.rng.integers(0, 2, len(rows))

    def observe(self, rows: np.ndarray) -> list[np.ndarray]:
        """Return the situation and the goal, each as one-hot."""
        return [*super().observe(rows), one_hot(self.state["goal"][rows], 2)]

    def play(self, rows: np.ndarray, action: ActionTuple) -> Outcome:
        """Return 1 for the action that the goal asks for, and the end."""
        wanted = (self.RIGHT[self.state["situation"][rows]] + self.state["goal"][rows]) % 3
        return Outcome((action.discrete[:, 0] == wanted).astype(np.float32), np.full(len(rows), TERMINAL))


class Entities(ScriptedEnv):
    """One decision: one to four entities, at any places of an observation of variable length, and one is the largest.

    Each has a colour of three, as one-hot, and a size. The action of the largest one's colour is rewarded.
    """

    MOST, COLOURS = 4, 3
    spec = make_behavior_spec((1, (MOST, COLOURS + 1)), branches=(COLOURS,))
    enough = 0.9

    def begin(self, rows: np.ndarray) -> None:
        """Draw entities; two never have the same size."""
        shape = len(rows), self.MOST
        size = self.rng.permuted(np.tile(np.arange(1, self.MOST + 1), (len(rows), 1)), axis=1) / self.MOST
        there = self.rng.permuted(np.arange(self.MOST) < self.rng.integers(1, self.MOST + 1, (len(rows), 1)), axis=1)
        for name, values in {"size": size * there, "colour": self.rng.integers(0, self.COLOURS, shape)}.items():
            self.state.setdefault(name, np.zeros((self.agents, self.MOST), values.dtype))[rows] = values

    def observe(self, rows: np.ndarray) -> list[np.ndarray]:
        """Return a number that is always the same, and the entities."""
        size, colour = self.state["size"][rows, :, None], self.state["colour"][rows, :, None]
        colours = (colour == np.arange(self.COLOURS)) & (size > 0)
        return [np.ones((len(rows), 1)), np.concatenate([colours, size], axis=2)]

    def play(self, rows: np.ndarray, action: ActionTuple) -> Outcome:
        """Return 1 for the colour of the largest entity, and the end."""
        largest = self.state["size"][rows].argmax(axis=1)
        right = action.discrete[:, 0] == self.state["colour"][rows, largest]
        return Outcome(right.astype(np.float32), np.full(len(rows), TERMINAL))


class TwoSignals(OneStep):
    """As `OneStep`, but that the environment pays in the first two situations alone, a reward signal in the others.

    Who heeds one of the two sources alone knows what to do in half of the situations. What the policy is worth by both
    of them, `OneStep` tells.
    """

    PAID = 2

    def play(self, rows: np.ndarray, action: ActionTuple) -> Outcome:
        """Pay 1 for the right action in the first situations, and end."""
        reward, end = super().play(rows, action)
        return Outcome(np.where(self.state["situation"][rows] < self.PAID, reward, 0.0).astype(np.float32), end)


class Delayed(ScriptedEnv):
    """The first of four decisions is right or wrong; the reward for it comes at the end."""

    spec = make_behavior_spec((8,), branches=(2,))
    enough = 0.95
    LENGTH = 4

    def begin(self, rows: np.ndarray) -> None:
        """Draw cues."""
        self.state.setdefault("place", np.zeros(self.agents, np.int64))[rows] = self.rng.integers(0, 2, len(rows))

    def observe(self, rows: np.ndarray) -> list[np.ndarray]:
        """Return the place as one-hot: 0 and 1 are cues, 2 to 4 follow a wrong decision, 5 to 7 a right one."""
        return [one_hot(self.state["place"][rows], 8)]

    def play(self, rows: np.ndarray, action: ActionTuple) -> Outcome:
        """Go on; the last step of the right way gives 1."""
        place = self.state["place"][rows]
        right = action.discrete[:, 0] != place
        after = np.where(place < 2, np.where(right, 5, 2), place + 1)
        over = (place == 4) | (place == 7)
        self.state["place"][rows] = np.where(over, place, after)
        return Outcome((place == 7).astype(np.float32), np.where(over, TERMINAL, GOES_ON))


class Recall(ScriptedEnv):
    """A sign that is shown at the first of four decisions only, and tells which choice the last one rewards."""

    spec = make_behavior_spec((3,), branches=(2,))
    enough = 0.95
    DECISIONS = 4

    def begin(self, rows: np.ndarray) -> None:
        """Draw signs."""
        self.state.setdefault("clock", np.zeros(self.agents, np.int64))[rows] = 0
        self.state.setdefault("sign", np.zeros(self.agents, np.int64))[rows] = self.rng.integers(0, 2, len(rows))

    def observe(self, rows: np.ndarray) -> list[np.ndarray]:
        """Return the sign as one-hot, zeros later on; and whether the decision is the last one."""
        clock = self.state["clock"][rows, None]
        shown = one_hot(self.state["sign"][rows], 2) * (clock == 0)
        return [np.concatenate([shown, clock == self.DECISIONS - 1], axis=1)]

    def play(self, rows: np.ndarray, action: ActionTuple) -> Outcome:
        """Pay 1 for the choice that the sign told, at the end."""
        self.state["clock"][rows] += 1
        is_last = self.state["clock"][rows] == self.DECISIONS
        right = action.discrete[:, 0] == self.state["sign"][rows]
        return Outcome((is_last & right).astype(np.float32), np.where(is_last, TERMINAL, GOES_ON))


class Masked(ScriptedEnv):
    """A place whose best action is forbidden to those who chose to go there.

    Half of the episodes begin at B, where action 2 gives 1. The others begin at A, where action 1 gives 0.5 and action
    0 leads to B; there, action 2 is then forbidden and the others give nothing. Who values B by a forbidden action
    goes there.
    """

    spec = make_behavior_spec((2,), branches=(3,))
    enough = 0.72
    A, B, B_FROM_A = 0, 1, 2

    def begin(self, rows: np.ndarray) -> None:
        """Begin at A and B in turns."""
        turn = self.state.setdefault("turn", np.arange(self.agents))
        self.state.setdefault("place", np.zeros(self.agents, np.int64))[rows] = turn[rows] % 2
        turn[rows] += 1

    def observe(self, rows: np.ndarray) -> list[np.ndarray]:
        """Return A or B, whatever the way there."""
        return [one_hot(np.minimum(self.state["place"][rows], 1), 2)]

    def mask(self, rows: np.ndarray) -> list[np.ndarray]:
        """Forbid action 2 but where an episode begins at B."""
        forbidden = np.zeros((len(rows), 3), np.bool_)
        forbidden[:, 2] = self.state["place"][rows] != self.B
        return [forbidden]

    def play(self, rows: np.ndarray, action: ActionTuple) -> Outcome:
        """Go from A to B, or end."""
        place, choice = self.state["place"][rows], action.discrete[:, 0]
        goes = (place == self.A) & (choice == 0)
        self.state["place"][rows] = np.where(goes, self.B_FROM_A, place)
        reward = np.where((place == self.A) & (choice == 1), 0.5, 0.0) + ((place == self.B) & (choice == 2))
        return Outcome(reward.astype(np.float32), np.where(goes, GOES_ON, TERMINAL))


class Branches(ScriptedEnv):
    """One decision on two branches; each has its own rewarded choice in each of four situations."""

    spec = make_behavior_spec((4,), branches=(3, 2))
    enough = 0.95
    RIGHT = np.array([[2, 0], [0, 1], [1, 1], [0, 0]])

    def begin(self, rows: np.ndarray) -> None:
        """Draw situations."""
        self.state.setdefault("situation", np.zeros(self.agents, np.int64))[rows] = self.rng.integers(0, 4, len(rows))

    def observe(self, rows: np.ndarray) -> list[np.ndarray]:
        """Return the situation as one-hot."""
        return [one_hot(self.state["situation"][rows], 4)]

    def play(self, rows: np.ndarray, action: ActionTuple) -> Outcome:
        """Return one half for each right choice, and the end."""
        right = (action.discrete == self.RIGHT[self.state["situation"][rows]]).mean(axis=1)
        return Outcome(right.astype(np.float32), np.full(len(rows), TERMINAL))


class Aim(ScriptedEnv):
    """One decision of two continuous actions, each with a target that the observation tells."""

    spec = make_behavior_spec((1,), continuous=2)
    enough = 0.85
    SLOPE = np.array([0.6, -0.4], np.float32)

    def begin(self, rows: np.ndarray) -> None:
        """Draw observations in [-1, 1]."""
        self.state.setdefault("x", np.zeros(self.agents))[rows] = self.rng.uniform(-1, 1, len(rows))

    def observe(self, rows: np.ndarray) -> list[np.ndarray]:
        """Return the number that tells both targets."""
        return [self.state["x"][rows, None]]

    def play(self, rows: np.ndarray, action: ActionTuple) -> Outcome:
        """Pay 1 less the distances to the targets."""
        distance = np.abs(action.continuous - self.state["x"][rows, None] * self.SLOPE).sum(1)
        return Outcome((1.0 - distance).astype(np.float32), np.full(len(rows), TERMINAL))


class Mixed(Aim):
    """One decision of a continuous and a discrete action: a target, and a choice that the observation's sign tells."""

    spec = make_behavior_spec((2,), continuous=1, branches=(2,))
    enough = 0.85

    def observe(self, rows: np.ndarray) -> list[np.ndarray]:
        """Return the number that tells the target, and its sign."""
        x = self.state["x"][rows, None]
        return [np.concatenate([x, np.sign(x)], axis=1)]

    def play(self, rows: np.ndarray, action: ActionTuple) -> Outcome:
        """Return one half for the right choice, and one half less the distance to the target."""
        x = self.state["x"][rows]
        distance = np.abs(action.continuous[:, 0] - 0.6 * x)
        reward = 0.5 * (action.discrete[:, 0] == (x > 0)) + 0.5 - distance
        return Outcome(reward.astype(np.float32), np.full(len(rows), TERMINAL))


class TimeLimit(ScriptedEnv):
    """Action 1 gives 1 and ends the episode; action 0 gives 0.3, and a step limit interrupts the episode there.

    Without the limit, action 0 could be taken for ever, which is worth 0.3 / (1 - 0.9) = 3. Who takes an interruption
    for an end sees 0.3 against 1; who lets the value after an end count sees 0.3 against 1 with the same future.
    """

    spec = make_behavior_spec((1,), branches=(2,))
    REWARD = np.array([0.3, 1.0], np.float32)
    enough = 0.29  # One decision of action 0 is worth a little more; `right_below` sets the upper bound.
    right_below: ClassVar[float] = 0.31

    def begin(self, rows: np.ndarray) -> None:
        """Do nothing: there is one place only."""

    def observe(self, rows: np.ndarray) -> list[np.ndarray]:
        """Return the same each time."""
        return [np.ones((len(rows), 1))]

    def play(self, rows: np.ndarray, action: ActionTuple) -> Outcome:  # noqa: ARG002
        """Return reward and the kind of end, by the action."""
        choice = action.discrete[:, 0]
        return Outcome(self.REWARD[choice], np.where(choice == 1, TERMINAL, INTERRUPTED))


class Process(ScriptedEnv):
    """A Markov reward process: the actions change nothing, so that every policy has the same known values.

    Places 0 to 4 follow one another and end; 5 and 6 follow one another and are interrupted on the way to place 2.
    """

    spec = make_behavior_spec((7,), branches=(2,))
    gamma = 0.8
    REWARDS = np.array([0.0, 0.5, 0.0, 0.0, 1.0, 0.0, 0.25], np.float32)
    AFTER = np.array([1, 2, 3, 4, 0, 6, 2])
    END = np.array([GOES_ON, GOES_ON, GOES_ON, GOES_ON, TERMINAL, GOES_ON, INTERRUPTED])

    def begin(self, rows: np.ndarray) -> None:
        """Begin at place 0 or 5."""
        self.state.setdefault("place", np.zeros(self.agents, np.int64))[rows] = 5 * self.rng.integers(0, 2, len(rows))

    def observe(self, rows: np.ndarray) -> list[np.ndarray]:
        """Return the place as one-hot."""
        return [one_hot(self.state["place"][rows], 7)]

    def play(self, rows: np.ndarray, action: ActionTuple) -> Outcome:  # noqa: ARG002
        """Go on to the next place."""
        place = self.state["place"][rows]
        self.state["place"][rows] = self.AFTER[place]
        return Outcome(self.REWARDS[place], self.END[place])

    @classmethod
    def true_values(cls, gamma: float) -> np.ndarray:
        """Return the discounted sum of rewards from each place on: [places]."""
        follows = cls.END != TERMINAL
        chain = np.eye(7)[cls.AFTER] * follows[:, None]
        values: np.ndarray = np.linalg.solve(np.eye(7) - gamma * chain, cls.REWARDS.astype(np.float64))
        return values


TASKS: Mapping[str, type[ScriptedEnv]] = {
    "one_step": OneStep,
    "goal": Goal,
    "entities": Entities,
    "two_signals": TwoSignals,
    "delayed": Delayed,
    "recall": Recall,
    "masked": Masked,
    "branches": Branches,
    "aim": Aim,
    "mixed": Mixed,
    "time_limit": TimeLimit,
    "process": Process,
}
"""The environments that `scripted:NAME` makes."""


def any_kind(
    spec: BehaviorSpec, masked: bool = False, in_bytes: bool = False, grouped: bool = False
) -> type[ScriptedEnv]:
    """Return an environment with a given spec and random numbers in it, for what does not depend on what is learned.

    Args:
        spec: the observations and actions.
        masked: whether actions are forbidden now and then.
        in_bytes: whether images are handed over as bytes.
        grouped: whether each two agents are a group.
    """

    class AnyKind(ScriptedEnv):
        """Random observations, rewards and ends; the first action of every branch may be forbidden."""

        def begin(self, rows: np.ndarray) -> None:
            for index, observation in enumerate(spec.observation_specs):
                column = self.state.setdefault(f"obs{index}", np.zeros((self.agents, *observation.shape)))
                column[rows] = self.rng.standard_normal((len(rows), *observation.shape))

        def observe(self, rows: np.ndarray) -> list[np.ndarray]:
            seen = [self.state[f"obs{index}"][rows] for index in range(len(spec.observation_specs))]
            return [(40 * np.abs(part)).astype(np.uint8) if in_bytes and part.ndim == 4 else part for part in seen]

        def group_id(self, rows: np.ndarray) -> np.ndarray:
            return (rows // 2 + 1).astype(np.int32) if grouped else super().group_id(rows)

        def group_reward(self, rows: np.ndarray) -> np.ndarray:
            shared: np.ndarray = 0.5 * np.abs(self.state["_reward"][rows])
            return shared

        def mask(self, rows: np.ndarray) -> list[np.ndarray] | None:
            if not masked:
                return None
            sizes = spec.action_spec.discrete_branches
            forbidden = [np.zeros((len(rows), size), np.bool_) for size in sizes]
            for branch in forbidden:
                branch[:, 0] = self.state["obs0"].reshape(self.agents, -1)[rows, 0] > 0
            return forbidden

        def play(self, rows: np.ndarray, action: ActionTuple) -> Outcome:
            reward = self.rng.standard_normal(len(rows)) + action.continuous.sum(1) + action.discrete.sum(1)
            self.begin(rows)
            draw = self.rng.random(len(rows))
            end = np.where(draw < 0.1, TERMINAL, np.where(draw < 0.2, INTERRUPTED, GOES_ON))
            return Outcome(reward.astype(np.float32), end)

    AnyKind.spec = spec
    return AnyKind
