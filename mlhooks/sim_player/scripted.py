"""A world whose course is known beforehand: every transition can be checked by what its observations say.

Agent `a` (counted from 0 over all areas) of a behavior is in the episodes 1, 2, ...; its episode `e` takes
`N + (3 a + 5 e) % (N // 2 + 1)` steps, where N is the environment parameter `episode_length` or the option of that
name, and is interrupted where `(a + e) % 3 == 0`. Each step gives the reward 1, so an info's reward is the number of
steps since the agent's last one.

With `group`, the agents of an area are a group, whose number counts from 1 over all behaviors: `a` in the formulas
above is the area's, counted from 1, each step also gives the group reward 0.5, and the last member leaves alone, in a
terminal step, halfway through the episode, to come back in the next one under another id; with `stay` it does not. With
`contest`, steps give nothing, and an episode's end gives each group, or each agent that is in none, 1 or -1: teams of
even numbers win where area + episode is even, the others win the other ones, and interrupted episodes give 0. With
`skip`, agent `a` asks for a decision at every `1 + a % 3`-th step of the player; after a reset all ask. With `mask`,
action `step % size` of each branch is forbidden, but the first decision of an agent's life brings no mask at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mlhooks.sim_player.options import Part
from mlhooks.sim_player.scripted_sensors import Moment, sensors
from mlhooks.sim_player.side_channels import AVERAGE, HISTOGRAM, MOST_RECENT, SUM, Sampler
from mlhooks.sim_player.world import Actions, Behavior, Bools, Infos, Ints

AGENTS = 4
STEP_REWARD, GROUP_REWARD = 1.0, 0.5
WIN = 1.0
SKIPS = 3
SEEDS = 1 << 20  # float32 tells so many integers apart, and many more.

Stats = list[tuple[str, float, int]]


class Scripted:
    """Several scripted behaviors that share one clock.

    Args:
        parts: The behaviors.
        agents: Agents in one area, of each behavior.
        areas: Copies of the area.
        seed: Shown by the sensor "clock".
        episode_length: The N of the module's description.
        image_size: Height of images.
        change_ids: Whether every episode gives its agent a new id.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        *,
        agents: int | None,
        areas: int,
        seed: int,
        episode_length: int,
        image_size: int,
        change_ids: bool = False,
    ) -> None:
        self._casts: list[_Cast] = []
        groups = 0
        for part in parts:
            per_area = part.agents or agents or AGENTS
            cast = _Cast(part, per_area, areas, seed % SEEDS, episode_length, image_size, change_ids, groups)
            self._casts.append(cast)
            groups += areas * ("group" in part.traits)
        self.behaviors: Mapping[str, Behavior] = {cast.behavior.name: cast.behavior for cast in self._casts}
        self._step = 0
        self._samplers: Mapping[str, Sampler] = {}

    def reset(self) -> None:
        """Begin new episodes of all agents that have appeared."""
        self._draw_parameters()
        for cast in self._casts:
            cast.reset(self._step)

    def act(self, actions: Mapping[str, Actions]) -> None:
        """Go on by one step."""
        self._step += 1
        self._draw_parameters()  # This happens at every step, since episodes begin at any of them.
        for cast in self._casts:
            cast.act(actions.get(cast.behavior.name), self._step)

    def infos(self) -> Mapping[str, Sequence[Infos]]:
        """Return what is sent now; call it once after each step."""
        return {cast.behavior.name: cast.infos(self._step) for cast in self._casts if cast.appeared}

    def stats(self) -> Stats:
        """Return what happened since the last call."""
        return [stat for cast in self._casts for stat in cast.take_stats()]

    def set_parameters(self, samplers: Mapping[str, Sampler]) -> None:
        """Let `episode_length` count for the episodes that begin from now on."""
        self._samplers = samplers

    def _draw_parameters(self) -> None:
        values = {key: float(sampler.draw(1)[0]) for key, sampler in self._samplers.items()}
        if "episode_length" in values:
            for cast in self._casts:
                cast.base = max(1, round(values["episode_length"]))


class _Cast:
    """The agents of one behavior; arrays are [agents]."""

    def __init__(
        self,
        part: Part,
        per_area: int,
        areas: int,
        seed: int,
        base: int,
        image_size: int,
        change_ids: bool,
        groups_before: int,
    ) -> None:
        count = per_area * areas
        continuous, branches = part.actions
        made = sensors(part.traits, continuous + len(branches), image_size)
        self.behavior = Behavior(part.name, tuple(sensor for sensor, _ in made), continuous, branches)
        self.appeared = False
        self.base = base
        self._part, self._seed, self._change_ids = part, seed, change_ids
        self._see = [see for _, see in made]
        self._agent = np.arange(count, dtype=np.int32)
        area = self._agent // per_area + np.int32(1)
        self._groups = area + np.int32(groups_before) if "group" in part.traits else np.zeros_like(self._agent)
        # What decides about ends: members of a group end together, but for the one that leaves, and so do teams.
        self._fate = area if "group" in part.traits else self._agent
        self._leaves = self._agent % per_area == per_area - 1
        if "group" not in part.traits or "stay" in part.traits or per_area == 1:
            self._leaves = np.zeros(count, dtype=np.bool_)
        self._ids = self._agent.copy()
        self._episode, self._step, self._length = (np.zeros(count, dtype=np.int32) for _ in range(3))
        self._alive = np.ones(count, dtype=np.bool_)
        self._reward, self._group_reward = (np.zeros(count, dtype=np.float32) for _ in range(2))
        self._action = np.zeros((count, continuous + len(branches)), dtype=np.float32)
        self._mask = np.zeros((count, sum(branches)), dtype=np.bool_)
        self._masked = np.zeros(count, dtype=np.bool_)
        self._first = np.ones(count, dtype=np.bool_)  # These agents have not decided since the reset.
        self._asked: Ints = np.zeros(0, dtype=np.int32)
        self._ended: list[Infos] = []
        self._stats: Stats = []

    def reset(self, now: int) -> None:
        self.appeared = now >= self._part.since
        if self.appeared:
            self._ended.clear()
            self._begin(np.ones(len(self._agent), dtype=np.bool_))
            self._first[:] = True

    def act(self, actions: Actions | None, now: int) -> None:
        if not self.appeared:
            self.reset(now)
            return
        if actions is not None:
            self._note_forbidden(actions.discrete)
            self._action[self._asked] = np.concatenate(actions, axis=1)
        self._step[self._alive] += 1
        if "contest" not in self._part.traits:
            self._reward[self._alive] += STEP_REWARD
            if "group" in self._part.traits:
                self._group_reward[self._alive] += GROUP_REWARD
        over = self._step >= self._length
        # The one that left stands still: its group's end is seen in the others.
        over |= ~self._alive & np.isin(self._groups, self._groups[over])
        leaving = self._leaves & self._alive & ~over & (self._step >= self._length // 2)
        interrupted = (self._fate + self._episode) % 3 == 0
        if "contest" in self._part.traits:
            wins = (self._fate + self._episode + self._part.team) % 2 == 0
            result = np.where(interrupted, 0.0, np.where(wins, WIN, -WIN))[over].astype(np.float32)
            (self._group_reward if "group" in self._part.traits else self._reward)[over] += result
        self._end(over & self._alive, interrupted=interrupted)
        self._end(leaving, interrupted=np.zeros_like(leaving))
        self._alive[leaving] = False
        if over.any():
            self._begin(over)

    def infos(self, now: int) -> list[Infos]:
        due = self._alive.copy()
        if "skip" in self._part.traits:
            due &= self._first | (now % (1 + self._agent % SKIPS) == 0)
        self._asked = np.flatnonzero(due).astype(np.int32)
        lists, self._ended = self._ended, []
        if len(self._asked):
            if "mask" in self._part.traits:
                self._renew_masks(self._asked)
            lists.append(self._infos(self._asked, done=False, interrupted=np.zeros_like(due)))
            self._first[self._asked] = False
        return lists

    def take_stats(self) -> Stats:
        stats, self._stats = self._stats, []
        return stats

    def _begin(self, rows: Bools) -> None:
        new_ids = rows & (~self._alive | (self._change_ids and self._episode > 0))
        self._ids[new_ids] = self._ids.max() + 1 + np.arange(new_ids.sum(), dtype=np.int32)
        self._alive[rows] = True
        self._episode[rows] += 1
        self._length[rows] = (self.base + (3 * self._fate + 5 * self._episode) % (self.base // 2 + 1))[rows]
        for state in (self._step, self._reward, self._group_reward, self._action):
            state[rows] = 0

    def _end(self, rows: Bools, interrupted: Bools) -> None:
        if not rows.any():
            return
        self._stats += [
            ("Player/Episode", float(self._episode[rows].max()), MOST_RECENT),
            ("Player/Episodes Ended", float(rows.sum()), SUM),
            ("Player/Episode Length", float(self._step[rows].mean()), AVERAGE),
            ("Player/Episode Lengths", float(self._step[rows][0]), HISTOGRAM),
        ]
        self._ended.append(self._infos(np.flatnonzero(rows).astype(np.int32), done=True, interrupted=interrupted))

    def _infos(self, rows: Ints, *, done: bool, interrupted: Bools) -> Infos:
        now = Moment(self._seed, self._agent[rows], self._episode[rows], self._step[rows], self._action[rows])
        reward, group_reward = self._reward[rows], self._group_reward[rows]
        self._reward[rows], self._group_reward[rows] = 0.0, 0.0
        return Infos(
            done,
            self._ids[rows],
            [see(now) for see in self._see],
            reward,
            interrupted[rows],
            self._groups[rows],
            group_reward,
            self._mask[rows] if self.behavior.branches else None,
            self._masked[rows],
        )

    def _renew_masks(self, rows: Ints) -> None:
        self._masked[rows] |= ~self._first[rows] | (self._episode[rows] > 1)
        offset = 0
        for size in self.behavior.branches:
            self._mask[rows, offset : offset + size] = np.arange(size) == self._step[rows, None] % size
            offset += size

    def _note_forbidden(self, discrete: Ints) -> None:
        masked = self._masked[self._asked]
        offset, count = 0, 0
        for branch, size in enumerate(self.behavior.branches):
            count += int((self._mask[self._asked, offset + discrete[:, branch]] & masked).sum())
            offset += size
        if count:
            self._stats.append(("Player/Forbidden Actions", float(count), SUM))
