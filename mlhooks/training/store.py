"""The experience store: one row per decision, in arrival order, in preallocated arrays."""

from __future__ import annotations

from operator import attrgetter
from typing import Any, ClassVar, Final

import numpy as np
from mlagents_envs.base_env import BehaviorSpec, DecisionSteps, TerminalSteps

from mlhooks.envs.pixels import to_floats
from mlhooks.fast.switch import kernel
from mlhooks.nn.heads import SampledActions
from mlhooks.training.columns import grown, move_to_front, put, take
from mlhooks.training.store_state import check_state, completed


class End:
    """The ends of trajectories, as plain numbers, which numpy compares five times as fast as enums."""

    NONE: Final = 0
    TERMINAL: Final = 1  # The episode ended: no value follows.
    INTERRUPTED: Final = 2  # The episode was cut by a step limit: the final observation's value follows.
    HORIZON: Final = 3  # The trajectory was cut at `time_horizon`: the successor row's value follows.


COLUMNS = (
    *("mask", "continuous", "discrete", "log_prob", "reward", "group_reward", "end", "successor", "final"),
    *("slot", "trajectory", "tick", "end_tick", "group", "group_ended", "groupmate_reward"),
    *("encoding", "memory", "critic_memory", "sequence"),
)
COLUMNS_OF = attrgetter(*COLUMNS)
OF_ANY_WIDTH = frozenset({"encoding", "memory", "critic_memory", "sequence", "groupmate_reward"})
"""Columns that only some networks or trainers need, of a width of their own; 0 where nothing is in them."""
FILLS = {"end": End.NONE, "successor": -1, "final": -1, "group_ended": False, "groupmate_reward": 0}
"""The value of these columns in unused rows, so that a new row has it already."""
ALL = slice(None)
PER_SLOT = ("open_row", "slot_trajectory", "slot_length", "slot_memory")
WORKER_BITS = 32
"""By how many bits the number of a worker is shifted in the numbers of its groups, whose ids have as many."""
END_OF = np.array([End.TERMINAL, End.INTERRUPTED], np.int8)  # The index says whether the episode was interrupted.


class ExperienceStore:
    """Rows of experience of all agents of one behavior.

    A row is opened when an agent asks for a decision, and is complete when the agent's next decision or terminal step
    arrives with the reward. Open rows stay where they are until `keep_open` moves them to the front, so that memory is
    bounded by the rows that the trainer asks for plus the agents' open ones, however unevenly agents decide.

    Args:
        spec: the behavior's observations and actions.
        rows: complete rows that the trainer will let accumulate; arrays grow with the number of agents on top.
        time_horizon: decisions after which a trajectory is cut.

    Attributes:
        size: rows in use; those before `waiting` have their action, the others wait for it.
        complete: number of complete rows.
        obs: a list of [rows, *shape], float32, or uint8 of an image that always came as bytes.
        mask: [rows, sum of branch sizes], True where forbidden.
        continuous: [rows, size], before clipping; discrete: [rows, branches]; log_prob: [rows, size + branches].
        reward, group_reward: [rows], what the environment gave from the decision to the next one.
        end: `End`; successor: row of the agent's next decision or -1; final: row in `final_obs` or -1.
        encoding: [rows, size], the encodings of the observations that acting computed, or [rows, 0]; valid for the rows
            from `encoded_from` to `waiting`, for which it is of the current weights.
        memory: [rows, memory_size], what the agent carried before each row; [rows, 0] where agents have no memory.
        critic_memory: [rows, size], the same of a critic with a memory of its own; 0 in rows that it has not seen.
        sequence: [rows, 1], the row with which the sequence of each row begins, in a replay buffer; else [rows, 0].
        slot_memory: [slots, memory_size], what the agents carry now.
        memory_size: the size of an agent's memory, 0 without.
        slot, trajectory, tick: agent slot, trajectory number and act call of each row.
        end_tick: [rows], the act call before which the episode ended, of rows that end one.
        group: [rows], the number of the agent's group, another one in each worker; 0 where it is in none.
        group_ended: [rows], True where the row ends an episode and no member of the group is left in one.
        groupmate_reward: [rows, 1], what the other members of the group got in former rollouts while the row was open;
            [rows, 0] where nobody asks for it.
        final_obs: a list of [finals, *shape], the final observations of ended episodes, in the types of `obs`.
        masked: whether any row has a mask; grouped: whether there ever was a group reward.
    """

    COUNTERS: ClassVar[tuple[str, ...]] = (
        *("size", "waiting", "complete", "finals", "clock", "trajectories", "masked", "grouped", "encoded_from"),
    )

    def __init__(self, spec: BehaviorSpec, rows: int, time_horizon: int) -> None:
        self.spec, self.rows, self.time_horizon = spec, rows, time_horizon
        self.size = self.waiting = self.complete = self.finals = self.clock = self.trajectories = 0
        self.encoded_from = 0
        self.masked = self.grouped = False
        self._images = [index for index, o in enumerate(spec.observation_specs) if len(o.shape) == 3]
        action = spec.action_spec
        self.obs = [np.zeros((0, *o.shape), np.float32) for o in spec.observation_specs]
        self.final_obs = [np.zeros((0, *o.shape), np.float32) for o in spec.observation_specs]
        self.mask = np.zeros((0, sum(action.discrete_branches)), np.bool_)
        self.continuous = np.zeros((0, action.continuous_size), np.float32)
        self.discrete = np.zeros((0, action.discrete_size), np.int64)
        self.log_prob = np.zeros((0, action.continuous_size + action.discrete_size), np.float32)
        self.reward, self.group_reward = (np.zeros(0, np.float32) for _ in range(2))
        self.encoding, self.memory, self.critic_memory, self.slot_memory = (np.zeros((0, 0), np.float32),) * 4
        self.sequence = np.zeros((0, 0), np.int64)
        self.groupmate_reward = np.zeros((0, 0), np.float32)
        self.memory_size = 0
        self.end = np.zeros(0, np.int8)
        self.successor, self.final, self.slot = (np.zeros(0, np.int64) for _ in range(3))
        self.trajectory, self.tick, self.end_tick, self.group = (np.zeros(0, np.int64) for _ in range(4))
        self.group_ended = np.zeros(0, np.bool_)
        self.open_row, self.slot_trajectory, self.slot_length = (np.zeros(0, np.int64) for _ in range(3))

    def open_rows(self, slots: np.ndarray, steps: DecisionSteps, worker: int = 0) -> None:
        """Complete the agents' open rows with the rewards of their next decision, and open one row for each.

        Args:
            slots: [agents] their slots, all reserved, each at most once between two calls of `set_actions`.
            steps: what the environment sent, in the same order.
            worker: the index of the environment's worker, by which equal group ids of several workers are told apart.
        """
        agents = len(slots)
        seen = self._fitting(steps.obs)
        if self.size + agents > len(self.slot):
            self._grow(agents)
        new = slice(self.size, self.size + agents)
        put(self.obs, new, seen)  # This comes first, because a wrong shape must fail before anything else changes.
        if steps.action_mask is not None:
            np.concatenate(steps.action_mask, axis=1, out=self.mask[new], casting="unsafe")  # Zeros and ones will do.
            self.masked = True
        elif self.masked:
            self.mask[new] = False
        if self.memory_size:
            self._recall(slots, new)
        self._open(slots, steps, worker)

    def remember(self, size: int, length: int = 1) -> None:  # noqa: ARG002
        """Keep a memory of that size for each agent, and with each row the memory before it.

        Args:
            size: of the memory.
            length: of the sequences that networks learn from, which a replay buffer draws.
        """
        if size != self.memory_size:
            self.memory_size = size
            self.memory = np.zeros((len(self.slot), size), np.float32)
            self.slot_memory = np.zeros((len(self.open_row), size), np.float32)

    def _recall(self, slots: np.ndarray, new: slice) -> None:
        """Give new rows the memories of their agents.

        An agent that has no open row begins with a memory of zeros, be it that its episode is new, that it took the
        slot of another one, or that its rows were lost.
        """
        self.memory[new] = np.where(self.open_row[slots, None] >= 0, self.slot_memory[slots], np.float32(0.0))
        self.critic_memory[new] = 0.0

    def _fitting(self, obs: list[np.ndarray]) -> list[np.ndarray]:
        """Return observations in the types of their columns.

        The columns of an image hold bytes while only bytes have come, and floats for good once floats came.
        """
        for index in self._images:
            holds_bytes, come_bytes = (array.dtype == np.uint8 for array in (self.obs[index], obs[index]))
            if holds_bytes == come_bytes:
                continue
            if come_bytes and len(self.obs[index]):
                obs = [*obs[:index], to_floats(obs[index]), *obs[index + 1 :]]
                continue
            for columns in (self.obs, self.final_obs):
                columns[index] = columns[index].astype(np.uint8) if come_bytes else to_floats(columns[index])
        return obs

    @kernel("experience", "open_rows")
    def _open(self, slots: np.ndarray, steps: DecisionSteps, worker: int) -> None:
        agents = len(slots)
        new = slice(self.size, self.size + agents)
        self.grouped = self.grouped or bool(np.count_nonzero(steps.group_reward))
        groups = steps.group_id.astype(np.int64)
        self.slot[new], self.tick[new] = slots, self.clock
        self.group[new] = np.where(groups > 0, groups + (worker << WORKER_BITS), 0)
        rows, numbers = self.open_row[slots], np.arange(new.start, new.stop)
        known = rows >= 0
        going: np.ndarray | slice = ALL if known.all() else known
        going_on = rows[going]
        self._reward(going_on, steps, going)
        self.successor[going_on] = numbers[going]
        self.complete += len(going_on)
        begins = self.slot_length[slots] >= self.time_horizon
        self.end[rows[begins & known]] = End.HORIZON
        begins |= ~known
        if np.count_nonzero(begins):
            self._begin_trajectories(slots[begins])
        self.trajectory[new] = self.slot_trajectory[slots]
        self.slot_length[slots] += 1
        self.open_row[slots] = numbers
        self.size = new.stop

    def _reward(self, rows: np.ndarray, steps: DecisionSteps | TerminalSteps, agents: np.ndarray | slice) -> None:
        self.reward[rows] = steps.reward[agents]
        self.grouped = self.grouped or bool(np.count_nonzero(steps.group_reward))
        if self.grouped:
            self.group_reward[rows] = steps.group_reward[agents]

    def _begin_trajectories(self, slots: np.ndarray) -> None:
        self.slot_trajectory[slots] = np.arange(self.trajectories, self.trajectories + len(slots))
        self.slot_length[slots] = 0
        self.trajectories += len(slots)

    def end_episodes(self, slots: np.ndarray, steps: TerminalSteps) -> None:
        """Complete the open rows of agents whose episode ended; an agent that never decided has none.

        Args:
            slots: [agents] their slots, -1 for agents that hold none.
            steps: what the environment sent, in the same order.
        """
        if len(self.open_row) == 0:
            return
        rows = self.open_row[slots]
        waited = (slots >= 0) & (rows >= 0)
        known: np.ndarray | slice = ALL
        if np.count_nonzero(waited) < len(slots):
            known, rows, slots = waited, rows[waited], slots[waited]
        self._reward(rows, steps, known)
        self.end[rows] = END_OF.take(steps.interrupted[known])
        self.end_tick[rows] = self.clock
        self.final[rows] = self._add_finals([obs[known] for obs in self._fitting(steps.obs)])
        self.open_row[slots] = -1
        self.complete += len(rows)
        groups = self.group[rows]
        # Most behaviors have no groups, so that nothing is searched.
        self.group_ended[rows] = ~np.isin(groups, self._groups_left()) if np.count_nonzero(groups) else True

    def _groups_left(self) -> np.ndarray:
        """Return the groups that have members in episodes that go on."""
        groups = self.group[self.open_row[self.open_row >= 0]]
        return groups[groups > 0]

    def _add_finals(self, obs: list[np.ndarray]) -> np.ndarray:
        start, stop = self.finals, self.finals + len(obs[0])
        if stop > len(self.final_obs[0]):
            grow = max(stop, 2 * len(self.final_obs[0]), 64)
            self.final_obs = [grown(column, grow) for column in self.final_obs]
        for column, final in zip(self.final_obs, obs, strict=True):
            column[start:stop] = final
        self.finals = stop
        return np.arange(start, stop)

    def set_actions(self, actions: SampledActions) -> None:
        """Give the waiting rows their actions, and begin the next tick."""
        new = slice(self.waiting, self.size)
        put((self.continuous, self.discrete, self.log_prob), new, actions[:3])
        if actions.encoding is None:
            self.encoded_from = self.size
        else:
            if self.encoding.shape[1] != actions.encoding.shape[1]:
                self.encoding = np.zeros((len(self.slot), actions.encoding.shape[1]), np.float32)
            self.encoding[new] = actions.encoding
        if actions.memory is not None:
            self.slot_memory[self.slot[new]] = actions.memory
        self.waiting = self.size
        self.clock += 1

    def complete_rows(self) -> np.ndarray | slice:
        """Return the complete rows: a slice where they lie together, as they do when all agents decide together."""
        rows = self.open_row[self.open_row >= 0]
        if len(rows) == 0 or rows.min() == self.complete:
            return slice(0, self.complete)
        is_complete = np.ones(self.size, np.bool_)
        is_complete[rows] = False
        return np.flatnonzero(is_complete)

    def obs_at(self, rows: np.ndarray, finals: np.ndarray | None = None) -> list[np.ndarray]:
        """Return copies of the observations of some rows, images with channels last in memory as they are kept.

        Args:
            rows: [rows]; -1 gives any observation.
            finals: [rows], the final observation that is given in place of a row's; where it is not -1.
        """
        found = take(self.obs, rows)
        if finals is not None:
            ended = np.flatnonzero(finals >= 0)
            for column, final in zip(found, self.final_obs, strict=True):
                column[ended] = final[finals[ended]]
        return found

    def obs_after(self, rows: np.ndarray) -> list[np.ndarray]:
        """Return copies of what followed some complete rows: their successors' observations, or final ones."""
        return self.obs_at(self.successor[rows], self.final[rows])

    @property
    def in_use(self) -> int:
        """The number of rows that hold experience."""
        return self.size

    def keep_open(self) -> None:
        """Let go of all complete rows; open rows move to the front in their order."""
        self._keep(self._open_rows())
        self.complete = self.finals = 0
        self.encoded_from = self.waiting  # The earlier encodings are of weights that have changed since.

    def _open_rows(self) -> np.ndarray:
        """Return the open rows, the oldest first."""
        return np.sort(self.open_row[self.open_row >= 0])

    def interrupt_open(self) -> None:
        """End all trajectories here, as when an environment starts again: open rows go, their values still count."""
        gone = np.zeros(self.in_use, np.bool_)
        gone[self._open_rows()] = True
        self._remove(gone)

    def drop_trajectories(self, slots: np.ndarray) -> None:
        """Remove all rows of trajectories that agents are in the middle of, as when their environment fails.

        What came before them and was cut at the time horizon is interrupted there.

        Args:
            slots: [agents] their slots.
        """
        unfinished = slots[self.open_row[slots] >= 0]
        gone = np.isin(self.trajectory[: self.in_use], self.slot_trajectory[unfinished])
        self.complete -= int(gone.sum()) - len(unfinished)
        self._remove(gone)

    def _remove(self, gone: np.ndarray) -> None:
        """Remove rows where `gone` [rows in use]; interrupt rows before them, and keep their final observations."""
        successor = self.successor[: self.in_use]
        last = np.flatnonzero((successor >= 0) & ~gone & gone[successor])
        self.end[last], self.end_tick[last] = End.INTERRUPTED, self.tick[successor[last]]
        self.group_ended[last] = True  # The whole environment begins again or is lost, and all its groups with it.
        self.final[last] = self._add_finals([obs[successor[last]] for obs in self.obs])
        successor[last] = -1
        self._keep(np.flatnonzero(~gone))

    def _keep(self, rows: np.ndarray) -> None:
        """Move some rows to the front and forget the others."""
        in_use, kept = self.in_use, slice(0, len(rows))
        place = np.full(in_use + 1, -1, np.int64)  # The last entry serves row -1.
        place[rows] = np.arange(len(rows))
        self.waiting = int(np.count_nonzero(self.tick[rows] < self.clock))
        self.encoded_from = int(np.count_nonzero(rows < self.encoded_from))
        together = len(rows) and rows[-1] - rows[0] == len(rows) - 1 and (rows[:-1] < rows[1:]).all()
        columns = (*self.obs, *COLUMNS_OF(self))
        if together:
            move_to_front(columns, int(rows[0]), len(rows))
        else:
            for column in columns:
                column[kept] = column[rows]
        self.successor[kept] = place[self.successor[kept]]
        if self.sequence.size:
            self.sequence[kept] = place[self.sequence[kept]]
        self.blank(slice(len(rows), in_use))
        self.open_row = place[self.open_row]
        self.size = len(rows)

    def blank(self, rows: slice) -> None:
        """Reset unused rows to the values with which a new row begins."""
        for name, fill in FILLS.items():
            getattr(self, name)[rows] = fill

    def reserve(self, slots: int) -> None:
        """Make room for slots."""
        if slots > len(self.open_row):
            self.open_row = grown(self.open_row, slots, -1)
            self.slot_trajectory = grown(self.slot_trajectory, slots)
            self.slot_length = grown(self.slot_length, slots)
            self.slot_memory = grown(self.slot_memory, slots)

    def _grow(self, agents: int) -> None:
        # There may be `rows` complete rows, every agent's open row, and those that one more tick completes.
        rows = max(self.rows + 2 * len(self.open_row), self.size + agents)
        self.obs = [grown(column, rows) for column in self.obs]
        for name in COLUMNS:
            setattr(self, name, grown(getattr(self, name), rows, FILLS.get(name, 0)))

    def state_dict(self) -> dict[str, Any]:
        """Return all rows in use and the state of all slots."""
        state: dict[str, Any] = {name: getattr(self, name) for name in (*self.COUNTERS, *PER_SLOT)}
        state |= {name: getattr(self, name)[: self.in_use] for name in COLUMNS}
        state["obs"] = [column[: self.in_use] for column in self.obs]
        state["final_obs"] = [column[: self.finals] for column in self.final_obs]
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            ValueError: an array or a number cannot be one of this store.
        """
        state = completed(state, self.log_prob.shape[1])
        columns = {name: getattr(self, name) for name in COLUMNS}
        widths = {name: (-1,) if name in OF_ANY_WIDTH else column.shape[1:] for name, column in columns.items()}
        layout = {name: (column.dtype, widths[name]) for name, column in columns.items()}
        check_state(state, self.COUNTERS, layout, self.spec)
        for name in (*self.COUNTERS, *PER_SLOT, *COLUMNS):
            setattr(self, name, state[name])
        self.memory_size = self.memory.shape[1]
        self.obs, self.final_obs = list(state["obs"]), list(state["final_obs"])
