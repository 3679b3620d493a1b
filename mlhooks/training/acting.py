"""The acting half of a trainer: from what environments send to rows of experience, and from waiting rows to actions.

It meets the learning half in two messages. Experience goes one way: the rows of the store, with the number of steps
that they are. Weights come the other way, with a version. In one process both are plain calls, and both halves have
the same policy; elsewhere a half has a copy of it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, cast

import numpy as np
from mlagents_envs.base_env import ActionTuple, BehaviorSpec, DecisionSteps, TerminalSteps

from mlhooks.envs.own_terms import counted
from mlhooks.envs.pixels import to_floats
from mlhooks.envs.slots import SlotMap, SlotPool
from mlhooks.fast.actions import action_tuple
from mlhooks.nn.heads import SampledActions
from mlhooks.settings import TrainerSettings
from mlhooks.stat_keys import GROUP_REWARD_KEY, LENGTH_KEY, REWARD_KEY
from mlhooks.state_checks import whole
from mlhooks.stats import StatsAggregationMethod, StatsReporter
from mlhooks.training.episodes import Episodes
from mlhooks.training.network_checks import check_network
from mlhooks.training.part_checks import check_actions
from mlhooks.training.policy import ActorPolicy, Policy
from mlhooks.training.signal_returns import EXTRINSIC, reward_key
from mlhooks.training.silent_agents import SilentAgents
from mlhooks.training.slot_noise import SlotNoise
from mlhooks.training.step_checks import check_values
from mlhooks.training.store import ExperienceStore

logger = logging.getLogger("mlhooks")


class Weights(NamedTuple):
    """The message from a learning half to an acting half.

    Attributes:
        version: the number of updates that led to them.
        policy: the policy that has them, as they are now, and its normalizer.
    """

    version: int
    policy: Policy


class GamesOver(NamedTuple):
    """The ends of agents' episodes, once those of their whole groups are over: arrays [agents].

    Attributes:
        slots: of the agents.
        rewards: what they got last, with what their groups got.
        interrupted: whether they were cut by a step limit.
        groups: the numbers of their groups, other ones in each worker; 0 where they are in none.
    """

    slots: np.ndarray
    rewards: np.ndarray
    interrupted: np.ndarray
    groups: np.ndarray


class ActingHalf:
    """Takes in the steps of environments, and decides for the agents of one behavior.

    Args:
        behavior_spec: the behavior's observations and actions.
        settings: the behavior's settings.
        policy: decides for the agents.
        store: keeps what they see and do.
        stats: gets the returns and lengths of episodes.

    Attributes:
        behavior_name, behavior_spec, settings, policy, store, stats: what it was made with.
        episodes: returns and lengths of the episodes that agents are in; pool: the slots of these agents.
        noise: the noise by which agents explore, where they hold it over many decisions; or None.
        step: agent steps so far, as of the last `observe`.
        prepare: called with the store before each decision, as by a normalizer that has to see it first; or None.
        explore: called with the policy's actions, mask and random numbers, and returns what is done instead; or None.
        version: that of the weights by which the policy decides.
        games_over: called with how episodes of agents ended, once those of their whole groups are over; or None.
        takes_groups: whether the trainer learns from groups; others warn once of group rewards.
        reports_extrinsic: whether it reports the returns of the reward signal `extrinsic`.
    """

    def __init__(
        self,
        behavior_spec: BehaviorSpec,
        settings: TrainerSettings,
        policy: Policy,
        store: ExperienceStore,
        stats: StatsReporter,
    ) -> None:
        self.behavior_name, self.behavior_spec, self.settings = policy.behavior_name, behavior_spec, settings
        self.policy, self.store, self.stats = policy, store, stats
        self.episodes, self.pool = Episodes(), SlotPool()
        self._extrinsic = settings.reward_signals.get(EXTRINSIC)
        self.step = self.version = 0
        self.takes_groups, self.reports_extrinsic, self._told_of_groups = False, True, False
        self.prepare: Callable[[ExperienceStore], None] | None = None
        self.explore: Callable[[SampledActions, np.ndarray | None, np.random.Generator], SampledActions] | None = None
        self.games_over: Callable[[GamesOver], None] | None = None
        self._maps: dict[tuple[int, str], SlotMap] = {}
        self._waiting: list[tuple[int, str, int]] = []
        self._acted = False  # It becomes true once the policy's first actions have been checked.
        self._silent_agents = SilentAgents()
        if policy.memory_size:
            memory = settings.network_settings.memory
            store.remember(policy.memory_size, 1 if memory is None else memory.sequence_length)
        self.noise = SlotNoise(cast("ActorPolicy", policy)) if policy.noise_shape is not None else None

    def observe(
        self, worker: int, behavior_id: str, decisions: DecisionSteps, terminals: TerminalSteps, step: int = 0
    ) -> int:
        """Take in what one worker's environment sent for the agents of one behavior id.

        Args:
            worker: the index of the worker.
            behavior_id: the behavior, with its team.
            decisions: what it sent of agents that ask for one.
            terminals: what it sent of agents whose episodes end.
            step: the agent steps so far, of which errors tell.

        Returns:
            The number of rows that became complete.

        Raises:
            NonFiniteError: an observation or reward is NaN or infinite, or too large to be normalized.
            ContractBroken: agents appear again and again and are never heard of again.
            ValueError: an agent decides or ends twice, or there are more of one thing than of another.

        Whatever is raised, nothing of the step was stored.
        """
        self.step = step
        check_values(self, worker, decisions, decisions.group_id)
        slots = self._maps.get((worker, behavior_id))
        if slots is None:
            slots = self._maps[worker, behavior_id] = SlotMap(self.pool)
        store, ended, where = self.store, None, None
        before = store.complete
        if len(terminals):
            check_values(self, worker, terminals, terminals.group_id, terminals.interrupted)
            ended = slots.find(terminals.agent_id)
        if agents := len(decisions):
            where = slots.slots(decisions.agent_id)
            if self.pool.size > len(store.open_row):
                self._make_room(worker, behavior_id, slots)
        if ended is not None:
            self._end_episodes(ended, terminals)
        if where is not None:
            self.episodes.decided(where, decisions.reward)
            store.open_rows(where, decisions, worker)
            if store.grouped:
                self.episodes.shared(where, decisions.group_reward)
                self._tell_of_groups()
            self._waiting.append((worker, behavior_id, agents))
        if ended is not None and self.pool.size:
            # An agent that did not begin a new episode at once is gone.
            gone = store.open_row[ended] < 0
            if np.count_nonzero(gone):
                slots.release(terminals.agent_id[gone & (ended >= 0)])
        return store.complete - before

    def _make_room(self, worker: int, behavior_id: str, slots: SlotMap) -> None:
        """Make room for agents that appear for the first time."""
        self.store.reserve(self.pool.size)
        self.episodes.reserve(self.pool.size)
        slots.refuse_vanishing(worker, behavior_id)
        self._silent_agents.check_open_rows(self.store, behavior_id)

    def _end_episodes(self, slots: np.ndarray, terminals: TerminalSteps) -> None:
        """Take in the ends of agents' episodes; their slots are -1 for those that never decided."""
        store = self.store
        rows = None if self.games_over is None and not self.takes_groups else self._open_rows(slots)
        store.end_episodes(slots, terminals)
        if self.games_over is not None and rows is not None:
            over = rows >= 0
            over[over] = store.group_ended[rows[over]]
            last = terminals.reward[over] + terminals.group_reward[over]
            groups = store.group[rows[over]]
            self.games_over(GamesOver(slots[over], last, terminals.interrupted[over], groups))
        rewards, shared, known = terminals.reward, terminals.group_reward, slots >= 0
        if np.count_nonzero(known) < len(slots):
            rewards, shared, slots = rewards[known], shared[known], slots[known]
            rows = None if rows is None else rows[known]
        returns, lengths = self.episodes.take_ended(slots, rewards)
        counting, own_returns, own_lengths = counted(terminals, known, slots, returns, lengths)
        if store.grouped or self.takes_groups:
            totals = self.episodes.shared_ended(slots, shared)
            returns = returns + totals
            self._tell_of_groups(rows, totals)
        if len(counting):
            self.episodes.count(counting, counted(terminals, known, slots, returns, lengths)[1])
            self.stats.add_stats(REWARD_KEY, own_returns, StatsAggregationMethod.HISTOGRAM)
            self.stats.add_stats(LENGTH_KEY, own_lengths)
        if self._extrinsic is not None and self.reports_extrinsic:
            self.stats.add_stats(reward_key(EXTRINSIC), self._extrinsic.strength * returns)

    def _open_rows(self, slots: np.ndarray) -> np.ndarray:
        """Return the rows [agents] in which agents wait for what comes of their decisions, -1 where there is none."""
        rows = np.full(len(slots), -1, np.int64)
        rows[slots >= 0] = self.store.open_row[slots[slots >= 0]]
        return rows

    def _tell_of_groups(self, rows: np.ndarray | None = None, totals: np.ndarray | None = None) -> None:
        """Report what groups gave to members whose episodes end with their groups'.

        Where the trainer does not learn from groups, warn once of their rewards instead.

        Args:
            rows: [agents] with which episodes end, -1 for those that never decided.
            totals: [agents], what their groups gave.
        """
        if self.takes_groups:
            if rows is not None and totals is not None:
                together = (rows >= 0) & self.store.group_ended[rows] & (self.store.group[rows] > 0)
                self.stats.add_stats(GROUP_REWARD_KEY, totals[together], StatsAggregationMethod.HISTOGRAM)
        elif not self._told_of_groups:
            self._told_of_groups = True
            logger.warning(
                "Behavior %r: an agent got a group reward, and the trainer type %s learns for each agent by itself. As "
                "its own reward, it teaches only members that are still there when it comes. Train with trainer_type: "
                "poca.",
                self.behavior_name,
                self.settings.trainer_type,
            )

    def act(self, rng: np.random.Generator) -> Iterator[tuple[int, str, ActionTuple]]:
        """Decide for all agents that wait, in one batch, and yield each worker's and behavior id's actions."""
        store = self.store
        rows = slice(store.waiting, store.size)
        if rows.start == rows.stop:
            return
        if self.prepare is not None:
            self.prepare(store)
        mask = store.mask[rows] if store.masked else None
        seen = [obs[rows] for obs in store.obs]
        if not self.policy.reads_bytes:
            seen = [to_floats(obs) for obs in seen]
        memory: Any = (store.memory[rows],) if store.memory_size else ()
        if not self._acted:
            check_network(self.policy, seen, *memory)
        if self.noise is None:
            actions = self.policy.act(seen, mask, rng, *memory)
        else:
            policy: Any = self.policy
            actions = policy.act(seen, mask, rng, *memory, noise=self.noise.of(store.slot[rows], self.version, rng))
        if not self._acted:
            check_actions(self.policy, actions, rows.stop - rows.start)
            self._acted = True
        if self.explore is not None:
            actions = self.explore(actions, mask, rng)
        try:
            store.set_actions(actions)
            sent = self.policy.action_tuple(actions)
        except Exception:
            check_actions(self.policy, actions, rows.stop - rows.start)
            raise
        if len(self._waiting) == 1:
            yield (*self._waiting[0][:2], sent)
        else:
            start = 0
            for worker, behavior_id, agents in self._waiting:
                part = slice(start, start + agents)
                yield worker, behavior_id, action_tuple(sent.continuous[part], sent.discrete[part])
                start += agents
        self._waiting.clear()

    def discard(self) -> None:
        """Let go of complete rows that nothing will be learned from, when there are many."""
        if self.store.complete >= self.store.rows:
            self.store.keep_open()
            if self.noise is not None:
                self.noise.forget()  # Where nothing is learned, noise is drawn again as often as with a rollout.

    def environments_restarted(self) -> None:
        """Interrupt the episodes that agents are in, because all environments begin new ones."""
        self.store.interrupt_open()
        self.episodes.abandon()
        self.pool, self._maps = SlotPool(), {}
        self._waiting.clear()

    def worker_failed(self, worker: int) -> None:
        """Drop whole what a failed worker's agents were in the middle of, and forget these agents.

        Steps that were counted stay counted.
        """
        for key in [key for key in self._maps if key[0] == worker]:
            slots = self._maps.pop(key).all()
            self.store.drop_trajectories(slots)
            self.episodes.abandon(slots)
            self.pool.release(slots.tolist())
        self._waiting = [waiting for waiting in self._waiting if waiting[0] != worker]

    def use_weights(self, weights: Weights) -> None:
        """Decide by these weights from now on: those of the same policy, or a copy of another's."""
        if weights.policy is not self.policy:
            own = self.policy.modules()
            for name, module in weights.policy.modules().items():
                own[name].load_state_dict(module.state_dict())
        self.policy.weights_changed()
        self.version = weights.version

    def state_dict(self) -> dict[str, Any]:
        """Return all that a resume needs, besides what the environments hold and the weights."""
        return {
            "store": self.store.state_dict(),
            "episodes": self.episodes.state_dict(),
            "pool": self.pool.state_dict(),
            "waiting": [list(entry) for entry in self._waiting],
            "slots": [[worker, name, slots.state_dict()] for (worker, name), slots in self._maps.items()],
            **({} if self.noise is None else {"noise": self.noise.state_dict()}),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            ValueError: its parts contradict each other.
        """
        for name in ("store", "pool", "episodes"):
            getattr(self, name).load_state_dict(state[name])
        if self.store.memory_size != self.policy.memory_size:
            raise ValueError("the memories of the agents are of another size than the policy's")
        whole(self.pool.size, "the number of slots", 0, min(len(self.store.open_row), self.episodes.room))
        self._waiting = [(worker, name, whole(agents, "agents that wait")) for worker, name, agents in state["waiting"]]
        if sum(agents for _, _, agents in self._waiting) != self.store.size - self.store.waiting:
            raise ValueError("the agents that wait for a decision are not those of the rows that wait for an action")
        if self.noise is not None:
            self.noise.load_state_dict(state["noise"])
        for worker, name, slots in state["slots"]:
            self._maps[worker, name] = SlotMap(self.pool)
            self._maps[worker, name].load_state_dict(slots)
