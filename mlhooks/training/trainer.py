"""The trainer of one behavior: what is common to all algorithms."""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from mlagents_envs.base_env import ActionTuple, BehaviorSpec, DecisionSteps, TerminalSteps
from torch import Tensor, nn

from mlhooks.envs.slots import SlotPool
from mlhooks.envs.spaces import Spaces
from mlhooks.errors import UnsupportedError
from mlhooks.settings import HyperparameterSettings, TrainerSettings
from mlhooks.state_checks import whole
from mlhooks.stats import StatsPropertyType, StatsReporter
from mlhooks.training.acting import ActingHalf
from mlhooks.training.checkpoints import load_modules
from mlhooks.training.device import CPU, to_device
from mlhooks.training.episodes import Episodes
from mlhooks.training.learning import LearningHalf, Reported
from mlhooks.training.learning_checks import ParameterChanges, check_acted, check_modules
from mlhooks.training.making import make_optimizer, make_policy
from mlhooks.training.optimizer import Optimizer, TorchOptimizer
from mlhooks.training.optimizer_checks import check_made
from mlhooks.training.part_checks import check_learning_type, check_reported, checked_rows
from mlhooks.training.policy import Policy
from mlhooks.training.reward_signals import RewardSignal
from mlhooks.training.self_play import SelfPlay
from mlhooks.training.sides import Sides
from mlhooks.training.store import ExperienceStore
from mlhooks.training.teams import Teams
from mlhooks.training.torch_optimizers import problems as optimizer_problems

if TYPE_CHECKING:
    from mlhooks.plugins import PluginManager


@dataclass(frozen=True)
class Supports:
    """The abilities of a trainer type; a run that needs another one is refused before training, by its name.

    Attributes:
        continuous, discrete: actions of this kind.
        memory: `network_settings.memory`; behavioral_cloning: the section of this name.
        self_play: the section of this name; every trainer that leaves acting and storing to this base can do it.
        groups: rewards of whole groups of agents count for each of them as a group's.
        threaded: updates beside the environments' steps.
    """

    continuous: bool = True
    discrete: bool = True
    memory: bool = False
    self_play: bool = True
    behavioral_cloning: bool = False
    groups: bool = False
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
        acting: the half that takes in experience and decides; learning: the half that learns from it.
        rng: source of all randomness in acting and in the order of minibatches.
        spaces: what an agent sees and does in the terms of its environment; None where these are ML-Agents'.
        sides: the teams that its policy does not play, with self-play in training and in matches; else None.
    """

    hyperparameters_type: ClassVar[type[HyperparameterSettings]]
    """The model of its hyperparameters."""
    policy_type: ClassVar[type[Policy] | None] = None
    """Made as `policy_type(behavior_name, behavior_spec, settings, device)` where no plugin answers `create_policy`."""
    optimizer_type: ClassVar[type[Optimizer] | None] = None
    """Made as `optimizer_type(policy, settings)` where no plugin answers `create_optimizer`."""
    learning_type: ClassVar[type[LearningHalf]] = LearningHalf
    """The class of its learning half, which says when and how it learns."""
    store_type: ClassVar[type[ExperienceStore]] = ExperienceStore
    supports: ClassVar[Supports] = Supports()
    conformance_settings: ClassVar[Mapping[str, Any]] = {}
    """Settings of a behavior, as in YAML, for conformance tests, where those that suit most trainers do not suit it."""
    spaces: Spaces | None = None

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
        self.training, self.step = True, 0
        self.sides: Sides | None = None
        self._checked_keys: set[str] = set()  # Those under which optimizer and signals reported before.
        self._changes: ParameterChanges | None = None  # It is there from the first update on.
        self._run_seed = seed
        self._refuse_unsupported_actions()
        self.rng = np.random.default_rng([seed, zlib.crc32(behavior_name.encode())])
        self.stats = StatsReporter(behavior_name, plugins)
        signals = plugins.collect_mapping("get_reward_signals")
        self.reward_signals: list[RewardSignal] = [
            signals[name][0](name, behavior_spec, signal) for name, signal in settings.reward_signals.items()
        ]
        self.policy: Policy = make_policy(self)
        for signal in self.reward_signals:
            signal.attach(self.policy)
        store = self.store_type(behavior_spec, checked_rows(self), settings.time_horizon)
        self.acting = ActingHalf(behavior_spec, settings, self.policy, store, self.stats)
        self.acting.takes_groups = self.supports.groups
        self.optimizer: Optimizer = make_optimizer(self)
        if isinstance(self.optimizer, TorchOptimizer):
            check_made(self.optimizer)
        check_modules(self.policy, self.optimizer)
        check_learning_type(self)
        self.learning = self.learning_type(
            settings=settings,
            policy=self.policy,
            optimizer=self.optimizer,
            reward_signals=self.reward_signals,
            stats=self.stats,
            rng=self.rng,
            device=device,
        )
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

    @classmethod
    def refused_settings(cls, settings: TrainerSettings) -> Iterator[tuple[tuple[str, ...], str]]:
        """Yield what a trainer of this class refuses of valid settings: the path of a key in the behavior, and why.

        A subclass that refuses more yields that as well.
        """
        for path, message in optimizer_problems(settings.hyperparameters):
            yield ("hyperparameters", *path), message
        if cls.optimizer_type is not None and not issubclass(cls.optimizer_type, TorchOptimizer):
            for key in sorted({"optimizer", "optimizer_kwargs"} & settings.hyperparameters.model_fields_set):
                yield ("hyperparameters", key), f"{cls.optimizer_type.__name__} steps by no torch optimizer; remove it"

    def report_properties(self) -> None:
        """Tell the plugins what is being trained."""
        hyperparameters = self.settings.hyperparameters.model_dump(mode="json")
        self.stats.add_property(StatsPropertyType.HYPERPARAMETERS, hyperparameters)
        if self.self_play is not None:
            self.stats.add_property(StatsPropertyType.SELF_PLAY, True)

    def begin_self_play(self, teams: Teams) -> None:
        """Let one team learn at a time, as the settings' `self_play` says; to be called before anything is observed.

        Args:
            teams: those of the run, which learn in turns.
        """
        if self.settings.self_play is not None:
            self.sides = SelfPlay(self, self.settings.self_play, teams, self._run_seed)

    @property
    def self_play(self) -> SelfPlay | None:
        """Snapshots, frozen teams and ratings, in training with `self_play`; else None."""
        return self.sides if isinstance(self.sides, SelfPlay) else None

    def play_against(self, opponents: Sides) -> None:
        """Let others decide for the teams that its policy does not play."""
        self.sides = opponents

    @classmethod
    @abstractmethod
    def store_rows(cls, settings: TrainerSettings) -> int:
        """Return how many complete rows the trainer lets accumulate."""

    def ready_to_update(self) -> bool:
        """Return whether there is enough experience for an update."""
        return self.learning.ready(self.store, self.step)

    def update(self) -> dict[str, float] | None:
        """Learn from the experience, act by the new weights, and return the means of the reported scalars, by key.

        The result is None where nothing is done yet, because the update goes on beside the environments' steps.
        """
        if self._changes is None:
            self._changes = ParameterChanges(self)
        return self._learned(self.learning.update(self.store, self.step))

    def finish_update(self) -> dict[str, float] | None:
        """Finish an update that goes on beside the environments' steps, and return as `update` does."""
        return self._learned(self.learning.finish_update())

    def _learned(self, reported: Reported) -> dict[str, float] | None:
        self.weights_changed()
        if self._changes is not None and not self._changes.done:
            self._changes.count(len(reported))
        return self.report(reported) if reported else None

    def tensor(self, array: np.ndarray) -> Tensor:
        """Return the array on the trainer's device; on the CPU the same memory."""
        return to_device(array, self.device)

    @property
    def store(self) -> ExperienceStore:
        """The experience, of the trainer's `store_type`."""
        return self.acting.store

    @property
    def episodes(self) -> Episodes:
        """Returns and lengths of episodes."""
        return self.acting.episodes

    @property
    def pool(self) -> SlotPool:
        """The slots of the agents."""
        return self.acting.pool

    @property
    def updates(self) -> int:
        """How often it has learned."""
        return self.learning.updates

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

        Whatever is raised, nothing of the step was stored. Nothing is stored, either, of teams that do not learn.
        """
        if self.sides is not None and (frozen := self.sides.frozen(behavior_id)) is not None:
            self.sides.observed(frozen.observe(worker, behavior_id, decisions, terminals))
            return
        completed = self.acting.observe(worker, behavior_id, decisions, terminals, self.step)
        if self.training:
            self.step += completed

    def act(self) -> Iterator[tuple[int, str, ActionTuple]]:
        """Decide for all agents that wait, in one batch, and yield each worker's and behavior id's actions.

        With self-play, each team that does not learn has a batch of its own.
        """
        acting = self.acting.act(self.rng)
        return acting if self.sides is None else chain(acting, self.sides.act())

    def check_acted(self) -> None:
        """Blame the policy where its decisions were not finite, because something has failed.

        Raises:
            PluginError: names its `act`.
        """
        check_acted(self.policy, self.store)

    def discard(self) -> None:
        """Let go of complete rows that nothing will be learned from, when there are many."""
        self.acting.discard()

    def environments_restarted(self) -> None:
        """Interrupt the episodes that agents are in, because all environments begin new ones."""
        self.acting.environments_restarted()
        if self.sides is not None:
            self.sides.environments_restarted()

    def worker_failed(self, worker: int) -> None:
        """Drop whole what a failed worker's agents were in the middle of; steps that were counted stay counted."""
        self.acting.worker_failed(worker)
        if self.sides is not None:
            self.sides.worker_failed(worker)

    def weights_changed(self) -> None:
        """Hand the learning half's weights over to the acting half, as after each update."""
        self.acting.use_weights(self.learning.weights())

    def report(self, reported: list[dict[str, Tensor]]) -> dict[str, float]:
        """Return the means of scalars after one transfer from the device, and give them to the statistics.

        Raises:
            PluginError: the optimizer's `update` returned something else.
        """
        try:
            losses = self._means(reported)
        except Exception:
            self._check_reported(reported)
            raise
        if losses.keys() != self._checked_keys:
            self._check_reported(reported)
            self._checked_keys = set(losses)
        for name, mean in losses.items():
            self.stats.add_stat(name, mean)
        return losses

    def _check_reported(self, reported: list[dict[str, Tensor]]) -> None:
        for scalars in reported:  # Those of reward signals were checked before.
            check_reported(self.optimizer, scalars)

    def _means(self, reported: list[dict[str, Tensor]]) -> dict[str, float]:
        columns: dict[str, list[Tensor]] = {}
        for scalars in reported:
            for name, value in scalars.items():
                columns.setdefault(name, []).append(value)
        if self.device == CPU:
            return {name: sum(value.item() for value in column) / len(column) for name, column in columns.items()}
        means = [torch.stack(column).mean() for column in columns.values()]
        return dict(zip(columns, torch.stack(means).tolist() if means else [], strict=True))

    def modules(self) -> dict[str, nn.Module]:
        """Return all modules that a checkpoint holds, by name."""
        modules = {f"policy.{name}": module for name, module in self.policy.modules().items()}
        return modules | self.learning.modules()

    def state_dict(self) -> dict[str, Any]:
        """Return all that a resume needs, besides what the environments hold."""
        learning = self.learning.state_dict()  # This comes first, because an update that runs ends with it.
        self_play = {} if self.self_play is None else {"self_play": self.self_play.state_dict()}
        return {
            "step": self.step,
            **self.acting.state_dict(),
            **learning,
            **self_play,
            "rng": self.rng.bit_generator.state,
            "modules": {name: module.state_dict() for name, module in self.modules().items()},
            "stats": self.stats.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            CheckpointError: weights do not fit.
            Exception: of whatever type where something else does not; the run names the file then.
        """
        self.load_modules(state["modules"])
        self.step = whole(state["step"], "step")
        self.rng.bit_generator.state = state["rng"]
        self.acting.load_state_dict(state)
        self.learning.load_state_dict(state)
        self.stats.load_state_dict(state["stats"])
        self.weights_changed()
        if self.self_play is not None and "self_play" in state:  # Else the run begins with it now.
            self.self_play.load_state_dict(state["self_play"])

    def load_modules(self, states: dict[str, Any]) -> None:
        """Load weights and normalizers only, as to begin training from another run's.

        Raises:
            CheckpointError: a module or a key is missing, unknown, or of another shape.
        """
        load_modules(self.modules(), states, self.behavior_name)
        self.weights_changed()
