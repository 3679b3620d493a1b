"""The trainer of one behavior: what is common to all algorithms."""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from mlagents_envs.base_env import ActionTuple, BehaviorSpec, DecisionSteps, TerminalSteps
from torch import Tensor, nn

from mlhooks.envs.pixels import to_floats
from mlhooks.envs.slots import SlotMap, SlotPool
from mlhooks.envs.spaces import Spaces
from mlhooks.errors import ContractBroken, UnsupportedError
from mlhooks.fast.actions import action_tuple
from mlhooks.settings import HyperparameterSettings, TrainerSettings
from mlhooks.stats import StatsAggregationMethod, StatsPropertyType, StatsReporter
from mlhooks.training.checkpoints import load_modules
from mlhooks.training.episodes import Episodes
from mlhooks.training.making import make_optimizer, make_policy
from mlhooks.training.optimizer import Optimizer, TorchOptimizer
from mlhooks.training.optimizer_checks import check_made
from mlhooks.training.part_checks import check_actions
from mlhooks.training.policy import Policy
from mlhooks.training.reward_signals import RewardSignal
from mlhooks.training.silent_agents import SilentAgents
from mlhooks.training.state_checks import whole
from mlhooks.training.step_checks import check_values
from mlhooks.training.store import ExperienceStore
from mlhooks.training.transfer import CPU, to_device

if TYPE_CHECKING:
    from mlhooks.plugins import PluginManager

REWARD_KEY = "Environment/Cumulative Reward"
LENGTH_KEY = "Environment/Episode Length"


@dataclass(frozen=True)
class Supports:
    """What a trainer type can do; what it cannot is refused before training, by name."""

    continuous: bool = True
    discrete: bool = True
    memory: bool = False
    threaded: bool = False


def _takes(trainer_type: type[Trainer], sizes: Mapping[str, int]) -> bool:
    return all(getattr(trainer_type.supports, kind) for kind, size in sizes.items() if size)


class Trainer(ABC):
    """One behavior's learner: slots, experience, episodes, statistics and state; algorithms subclass it.

    Args:
        behavior_name: the behavior, without its team.
        behavior_spec: its observations and actions.
        settings: its settings.
        plugins: the plugins of the run, which make policy and optimizer.
        device: where the networks live.
        seed: seed of the run; each behavior derives its own stream from it.

    Attributes:
        training: False where the policy is only used, as in inference and after `max_steps`.
        step: agent steps trained on so far, that is, complete rows.
        store: the experience; episodes: returns and lengths.
        rng: source of all randomness in acting and in the order of minibatches.
        spaces: what an agent sees and does in the terms of its environment; None where these are ML-Agents'.
    """

    hyperparameters_type: ClassVar[type[HyperparameterSettings]]
    """The model of its hyperparameters."""
    policy_type: ClassVar[type[Policy] | None] = None
    """Made as `policy_type(behavior_name, behavior_spec, settings, device)` where no plugin answers `create_policy`."""
    optimizer_type: ClassVar[type[Optimizer] | None] = None
    """Made as `optimizer_type(policy, settings)` where no plugin answers `create_optimizer`."""
    store_type: ClassVar[type[ExperienceStore]] = ExperienceStore
    supports: ClassVar[Supports] = Supports()
    conformance_settings: ClassVar[Mapping[str, Any]] = {}
    """Settings of a behavior, as in YAML, for conformance tests, where those that suit most trainers do not suit it."""
    spaces: Spaces | None = None
    _RESUMED = ("store", "pool", "episodes", "stats", "optimizer")

    def __init__(
        self,
        *,
        behavior_name: str,
        behavior_spec: BehaviorSpec,
        settings: TrainerSettings,
        plugins: PluginManager,
        device: torch.device,
        seed: int,
    ) -> None:
        self.behavior_name, self.behavior_spec, self.settings = behavior_name, behavior_spec, settings
        self.plugins, self.device = plugins, device
        self.training = True
        self._refuse_unsupported_actions()
        self.rng = np.random.default_rng([seed, zlib.crc32(behavior_name.encode())])
        self.step = 0
        self.updates = 0
        self.store = self.store_type(behavior_spec, self.store_rows(settings), settings.time_horizon)
        self.episodes = Episodes()
        self.stats = StatsReporter(behavior_name, plugins)
        self.pool = SlotPool()
        self._maps: dict[tuple[int, str], SlotMap] = {}
        self._waiting: list[tuple[int, str, int]] = []
        self._acted = False  # It becomes true once the policy's first actions have been checked.
        self._silent_agents = SilentAgents()
        signals = plugins.collect_mapping("get_reward_signals")
        self.reward_signals: list[RewardSignal] = [
            signals[name][0](name, behavior_spec, signal) for name, signal in settings.reward_signals.items()
        ]
        self.policy: Policy = make_policy(self)
        self.optimizer: Optimizer = make_optimizer(self)
        if isinstance(self.optimizer, TorchOptimizer):
            check_made(self.optimizer)
        readers: list[Any] = [self.policy, self.optimizer, *self.reward_signals]
        self.policy.inputs.keeps_bytes = all(reader.reads_bytes for reader in readers)

    def _refuse_unsupported_actions(self) -> None:
        action = self.behavior_spec.action_spec
        asked = {"continuous": action.continuous_size, "discrete": action.discrete_size}
        refused = [kind for kind, size in asked.items() if size and not getattr(self.supports, kind)]
        if refused or not any(asked.values()):
            kinds = " and ".join(kind for kind in asked if getattr(self.supports, kind))
            counted = {"continuous": asked["continuous"], "discrete": list(action.discrete_branches)}
            found = " and ".join(f"{kind} actions ({counted[kind]})" for kind, size in asked.items() if size)
            types = self.plugins.collect_mapping("get_trainer_types")
            fit = sorted(name for name, kind in types.items() if found and _takes(kind, asked))
            others = f" that takes them ({', '.join(fit)})" if fit else ""
            raise UnsupportedError(
                f"Behavior {self.behavior_name!r} has {found or 'no actions'}, and the trainer type "
                f"{self.settings.trainer_type!r} takes {kinds} actions only. Choose another trainer type{others}, or "
                "change the behavior's actions."
            )

    def report_properties(self) -> None:
        """Tell the plugins what is being trained."""
        hyperparameters = self.settings.hyperparameters.model_dump(mode="json")
        self.stats.add_property(StatsPropertyType.HYPERPARAMETERS, hyperparameters)

    @classmethod
    @abstractmethod
    def store_rows(cls, settings: TrainerSettings) -> int:
        """Return how many complete rows the trainer lets accumulate."""

    @abstractmethod
    def ready_to_update(self) -> bool:
        """Return whether there is enough experience for an update."""

    @abstractmethod
    def update(self) -> dict[str, float] | None:
        """Learn from the experience; returns the means of what was reported, by statistics key.

        None where nothing is done yet, because the update goes on beside the environments' steps.
        """

    def tensor(self, array: np.ndarray) -> Tensor:
        """Return the array on the trainer's device; on the CPU the same memory."""
        return to_device(array, self.device)

    def settle(self) -> dict[str, float] | None:
        """Finish an update that goes on beside the environments' steps; returns as `update` does."""
        return None

    @property
    def mean_reward(self) -> float | None:
        """Mean return of the last 100 finished episodes, None before the first."""
        return self.episodes.mean_return

    @property
    def done(self) -> bool:
        """Whether `max_steps` is reached."""
        return self.step >= self.settings.max_steps

    def observe(self, worker: int, behavior_id: str, decisions: DecisionSteps, terminals: TerminalSteps) -> None:
        """Take in what one worker's environment sent for the agents of one behavior id.

        Raises:
            NonFiniteError: an observation or reward is NaN or infinite, or too large to be normalized.
            ContractBroken: agents appear again and again and are never heard of again.
            ValueError: an agent decides or ends twice, or there are more of one thing than of another.

        Whatever is raised, nothing of the step was stored.
        """
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
            store.open_rows(where, decisions)
            self._waiting.append((worker, behavior_id, agents))
        if ended is not None and self.pool.size:  # who did not begin a new episode at once is gone
            gone = store.open_row[ended] < 0
            if np.count_nonzero(gone):
                slots.release(terminals.agent_id[gone & (ended >= 0)])
        if self.training:
            self.step += store.complete - before

    def _make_room(self, worker: int, behavior_id: str, slots: SlotMap) -> None:
        """Make room for agents that appear for the first time."""
        self.store.reserve(self.pool.size)
        self.episodes.reserve(self.pool.size)
        if slots.vanishing:
            raise ContractBroken(
                f"Behavior {behavior_id!r}: {slots.newcomers:,} agents of worker {worker} have appeared one after the "
                "other without any of them being heard of again: each step has new agent ids, and the agents before "
                "never end. An agent keeps its id until it ends, in a terminal step."
            )
        self._silent_agents.look_at(self.store, behavior_id)

    def _end_episodes(self, slots: np.ndarray, terminals: TerminalSteps) -> None:
        """Take in the ends of agents' episodes; their slots are -1 for those that never decided."""
        self.store.end_episodes(slots, terminals)
        rewards, known = terminals.reward, slots >= 0
        if np.count_nonzero(known) < len(slots):
            rewards, slots = rewards[known], slots[known]
        returns, lengths = self.episodes.ended(slots, rewards)
        self.stats.add_stats(REWARD_KEY, returns, StatsAggregationMethod.HISTOGRAM)
        self.stats.add_stats(LENGTH_KEY, lengths)
        self.stats.add_stats("Policy/Extrinsic Reward", returns)

    def act(self) -> Iterator[tuple[int, str, ActionTuple]]:
        """Decide for all agents that wait, in one batch; yields each worker's and behavior id's actions."""
        store = self.store
        rows = slice(store.waiting, store.size)
        if rows.start == rows.stop:
            return
        mask = store.mask[rows] if store.masked else None
        seen = [obs[rows] for obs in store.obs]
        if not self.policy.reads_bytes:
            seen = [to_floats(obs) for obs in seen]
        actions = self.policy.act(seen, mask, self.rng)
        if not self._acted:
            check_actions(self.policy, actions, rows.stop - rows.start)
            self._acted = True
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

    def report(self, reported: list[dict[str, Tensor]]) -> dict[str, float]:
        """Return the means of scalars after one transfer from the device, and give them to the statistics."""
        columns: dict[str, list[Tensor]] = {}
        for scalars in reported:
            for name, value in scalars.items():
                columns.setdefault(name, []).append(value)
        if self.device == CPU:
            losses = {name: sum(value.item() for value in column) / len(column) for name, column in columns.items()}
        else:
            means = [torch.stack(column).mean() for column in columns.values()]
            losses = dict(zip(columns, torch.stack(means).tolist() if means else [], strict=True))
        for name, mean in losses.items():
            self.stats.add_stat(name, mean)
        return losses

    def discard(self) -> None:
        """Let go of complete rows that nothing will be learned from, when there are many."""
        if self.store.complete >= self.store.rows:
            self.store.keep_open()

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
            self.pool.give_back(slots.tolist())
        self._waiting = [waiting for waiting in self._waiting if waiting[0] != worker]

    def modules(self) -> dict[str, nn.Module]:
        """Return all modules that a checkpoint holds, by name."""
        modules = {f"policy.{name}": module for name, module in self.policy.modules().items()}
        modules |= {f"optimizer.{name}": module for name, module in self.optimizer.modules().items()}
        for signal in self.reward_signals:
            modules |= {f"{signal.name}.{name}": module for name, module in signal.modules().items()}
        return modules

    def state_dict(self) -> dict[str, Any]:
        """Return all that a resume needs, besides what the environments hold."""
        return {
            "step": self.step,
            "updates": self.updates,
            "rng": self.rng.bit_generator.state,
            "modules": {name: module.state_dict() for name, module in self.modules().items()},
            "signals": {signal.name: signal.state_dict() for signal in self.reward_signals},
            "waiting": [list(entry) for entry in self._waiting],
            "slots": [[worker, name, slots.state_dict()] for (worker, name), slots in self._maps.items()],
            **{name: getattr(self, name).state_dict() for name in self._RESUMED},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            CheckpointError: weights do not fit.
            Exception: of whatever type where something else does not; the run names the file then.
        """
        self.load_modules(state["modules"])
        self.step, self.updates = whole(state["step"], "step"), whole(state["updates"], "updates")
        self.rng.bit_generator.state = state["rng"]
        for signal in self.reward_signals:
            signal.load_state_dict(state["signals"][signal.name])
        for name in self._RESUMED:
            getattr(self, name).load_state_dict(state[name])
        whole(self.pool.size, "the number of slots", 0, min(len(self.store.open_row), self.episodes.room))
        self._waiting = [(worker, name, whole(agents, "agents that wait")) for worker, name, agents in state["waiting"]]
        if sum(agents for _, _, agents in self._waiting) != self.store.size - self.store.waiting:
            raise ValueError("the agents that wait for a decision are not those of the rows that wait for an action")
        for worker, name, slots in state["slots"]:
            self._maps[worker, name] = SlotMap(self.pool)
            self._maps[worker, name].load_state_dict(slots)

    def load_modules(self, states: dict[str, Any]) -> None:
        """Load weights and normalizers only, as to begin training from another run's.

        Raises:
            CheckpointError: a module or a key is missing, unknown, or of another shape.
        """
        load_modules(self.modules(), states, self.behavior_name)
        self.policy.weights_changed()
