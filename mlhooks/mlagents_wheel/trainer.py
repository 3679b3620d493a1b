"""A trainer of ML-Agents' kind as a trainer of mlhooks: the package's code decides, learns and counts."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from mlagents_envs.base_env import ActionTuple, BehaviorSpec, DecisionSteps, TerminalSteps
from torch import nn

from mlhooks.envs.own_terms import counted
from mlhooks.envs.slots import SlotMap
from mlhooks.errors import MlhooksError, PluginError, UnsupportedError
from mlhooks.mlagents_wheel import state as saved_state
from mlhooks.mlagents_wheel.learner import Learner
from mlhooks.mlagents_wheel.offers import Offer
from mlhooks.mlagents_wheel.policy import WheelOptimizer, WheelPolicy
from mlhooks.mlagents_wheel.settings import reward_buffer_of, wheel_settings
from mlhooks.mlagents_wheel.shared import Shared
from mlhooks.plugin_sources import describe
from mlhooks.plugins import PluginManager
from mlhooks.settings import TrainerSettings
from mlhooks.settings.base import is_extension
from mlhooks.state_checks import whole
from mlhooks.training.episodes import Episodes
from mlhooks.training.sides import Sides
from mlhooks.training.step_checks import check_values
from mlhooks.training.teams import Teams
from mlhooks.training.trainer import Supports, Trainer

_RESUMED = ("pool", "episodes", "stats")
REWARD_SIGNALS = ("extrinsic", "curiosity", "gail", "rnd")
"""The reward signals that the package itself has."""


@dataclass(frozen=True)
class WheelSupports(Supports):
    """The capabilities of the package's trainers."""

    memory: bool = True
    self_play: bool = True
    behavioral_cloning: bool = True


class WheelTrainer(Trainer):
    """Drives an unmodified trainer of ML-Agents' kind; `mlhooks.mlagents_wheel.offers` makes a subclass for each.

    Attributes:
        learner: the package's trainer, with the agents of each behavior id.
    """

    offer: ClassVar[Offer]
    policy_type, optimizer_type = WheelPolicy, WheelOptimizer
    supports = WheelSupports()
    own_reward_signals: ClassVar[tuple[str, ...]] = REWARD_SIGNALS
    policy: WheelPolicy
    learner: Learner

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
        self.shared = Shared.of(plugins)
        super().__init__(
            behavior_name=behavior_name,
            behavior_spec=behavior_spec,
            settings=settings.model_copy(update={"reward_signals": {}}),  # The package has signals of its own.
            plugins=plugins,
            device=device,
            seed=seed,
        )
        self.settings = settings
        if not isinstance(self.policy, WheelPolicy) or not isinstance(self.optimizer, WheelOptimizer):
            raise PluginError(
                f"A plugin answered create_policy or create_optimizer for behavior {behavior_name!r}, whose trainer "
                f"type {settings.trainer_type!r} is ML-Agents' and makes its own. Let the plugin answer for other "
                "trainers only."
            )
        self._seed, self._known = seed, dict[tuple[int, str], SlotMap]()
        self._is_loaded = False  # It becomes true once weights of a file were loaded.
        self._unlearned = Episodes()  # Under self-play, it counts for the agents from which nobody learns.
        with self.package("made"):
            self._losses = self.shared.bridge().watch(self.stats)
            with self._random_numbers_apart() if settings.self_play is not None else contextlib.nullcontext():
                self._make(ghost=False)

    def _random_numbers_apart(self) -> contextlib.AbstractContextManager[None]:
        """Leave torch's random numbers to the networks that come with the ghost trainer, and take these ones' place."""
        return torch.random.fork_rng([self.device] if self.device.type == "cuda" else [])

    @classmethod
    def refused_settings(cls, settings: TrainerSettings) -> Iterator[tuple[tuple[str, ...], str]]:
        """Yield the settings that only mlhooks has and that the package cannot honour, each with a message."""
        network, fields = settings.network_settings, type(settings.network_settings).model_fields
        for name in sorted(network.model_fields_set):
            if is_extension(fields[name]) and getattr(network, name) != fields[name].default:
                message = f"the trainer type {settings.trainer_type} is ML-Agents', whose networks have no {name}"
                yield ("network_settings", name), f"{message}; remove it"
        if settings.onnx_opset != TrainerSettings.model_fields["onnx_opset"].default:
            message = f"the trainer type {settings.trainer_type} is ML-Agents', whose exporter has its own"
            yield ("onnx_opset",), f"{message}; remove it"
        if settings.evaluation is not None and network.memory is not None:
            message = f"a policy of the trainer type {settings.trainer_type} with a memory cannot be evaluated apart"
            yield ("evaluation",), f"{message}; remove one of the two"

    @contextlib.contextmanager
    def package(self, doing: str) -> Iterator[None]:
        """Let the package's code run on its device, and name it where it fails.

        Raises:
            PluginError: the package's code raised something.
        """
        try:
            with torch.device(self.device) if self.device.type != "cpu" else contextlib.nullcontext():
                yield
        except (MlhooksError, KeyboardInterrupt):
            raise
        except BaseException as error:
            raise PluginError(
                f"The trainer {self.offer.name!r} of {self.offer.origin} failed when behavior "
                f"{self.behavior_name!r} was {doing}: "
                f"{describe(error, self.offer.classes[0].__module__)}"
            ) from error

    def _make(self, *, ghost: bool) -> None:
        """Make the package's trainer; a ghost trainer around it needs the first behavior id, and comes with that."""
        shared, name = self.shared, self.behavior_name
        shared.use(self.device)
        if shared.training:
            shared.artifact_path(name).mkdir(parents=True, exist_ok=True)  # Trainers may write files there at any time.
        self.learner = Learner(
            self.offer.classes[0],
            name,
            self.behavior_spec,
            wheel_settings(self.settings, self.offer, shared.folder),
            training=shared.training,
            seed=self._seed,
            artifact_path=str(shared.artifact_path(name)),
            reward_buffer=reward_buffer_of(shared.options, name),
            controller=shared.controller() if ghost else None,
        )
        self.policy.learner = self.learner
        if not ghost:
            self.learner.join(name)

    def _side(self, behavior_id: str) -> Any:
        """Return the agents of a behavior id, which may appear for the first time."""
        learner = self.learner
        if self.settings.self_play is not None and learner.ghost is None:
            weights = {key: module.state_dict() for key, module in learner.modules().items()}
            self._make(ghost=True)
            learner = self.learner
            side = learner.join(behavior_id)
            if self._is_loaded:
                for key, module in learner.modules().items():
                    module.load_state_dict(weights[key])
                learner.spread_weights()
            return side
        if learner.ghost is None and list(learner.sides) == [self.behavior_name]:
            learner.sides[behavior_id] = learner.sides.pop(self.behavior_name)
        return learner.sides.get(behavior_id) or learner.join(behavior_id)

    @classmethod
    def store_rows(cls, settings: TrainerSettings) -> int:  # noqa: ARG003
        """Return 1: the package keeps the experience."""
        return 1

    def observe(self, worker: int, behavior_id: str, decisions: DecisionSteps, terminals: TerminalSteps) -> None:
        """Hand what one worker's environment sent to the package's agent manager, which makes trajectories of it."""
        check_values(self.acting, worker, decisions, decisions.group_id)
        check_values(self.acting, worker, terminals, terminals.group_id, terminals.interrupted)
        with self.package("observed"):
            side = self._side(behavior_id)
        self._count_episodes(worker, behavior_id, decisions, terminals)
        with self.package("observed"):
            side.observe(worker, decisions, terminals, training=self.training or self._waits_for_others)

    @property
    def _waits_for_others(self) -> bool:
        """Whether it has learned enough, and still counts steps so that the other teams get their turn to learn."""
        return self.learner.ghost is not None and self.shared.training

    def _count_episodes(
        self, worker: int, behavior_id: str, decisions: DecisionSteps, terminals: TerminalSteps
    ) -> None:
        """Take note of the returns of episodes: of those that are learned from for lessons and the mean reward."""
        slots = self._known.setdefault((worker, behavior_id), SlotMap(self.pool))
        learned = not self.shared.training or self.learner.learns(behavior_id)
        episodes, ended = self.episodes if learned else self._unlearned, slots.find(terminals.agent_id)
        where = slots.slots(decisions.agent_id) if len(decisions) else ended[:0]
        for table in (self.episodes, self._unlearned):
            table.reserve(self.pool.size)
        slots.refuse_vanishing(worker, behavior_id)
        if len(terminals):
            known = ended >= 0
            seen = episodes.take_ended(ended[known], terminals.reward[known])
            episodes.count(*counted(terminals, known, ended[known], *seen)[:2])
            slots.release(terminals.agent_id[~np.isin(terminals.agent_id, decisions.agent_id)])
        if len(where):
            episodes.decided(where, decisions.reward)

    def act(self) -> Iterator[tuple[int, str, ActionTuple]]:
        """Let the package's policies decide for all agents that wait, worker by worker."""
        for behavior_id, side in self.learner.sides.items():
            if side.waiting:
                with self.package("asked to act"):
                    decided = list(side.act())
                for worker, action in decided:
                    yield worker, behavior_id, action

    def begin_self_play(self, teams: Teams) -> None:
        """Do nothing: the package has a ghost trainer and a controller of its own."""

    def play_against(self, opponents: Sides) -> None:  # noqa: ARG002
        """Refuse: the package's policies decide for all teams.

        Raises:
            UnsupportedError: always.
        """
        raise UnsupportedError(
            f"--opponent: the trainer type {self.settings.trainer_type!r} is ML-Agents', which decides for all teams."
        )

    def ready_to_update(self) -> bool:
        """Return True: the package's trainer decides for itself whether there is something to do."""
        return True

    def update(self) -> dict[str, float] | None:
        """Let the package's trainer advance: take in trajectories, and learn when it has enough of them."""
        self._losses.clear()
        with self.package("trained"):
            self.learner.outer.advance()
        self.step = int(self.learner.inner.get_step)
        self.shared.reset_if_teams_changed()
        if not self._losses:
            return None
        self.learning.updates += 1
        return {key: float(np.mean(values)) for key, values in self._losses.items()}

    def discard(self) -> None:
        """Let go of trajectories that nothing will be learned from, and under self-play hand over to other teams."""
        if self._waits_for_others:
            self.update()
        for side in self.learner.sides.values():
            side.discard()

    def environments_restarted(self) -> None:
        """Drop what all agents are in the middle of, as ML-Agents does when it resets environments."""
        super().environments_restarted()
        self._known = {}
        self._unlearned.abandon()
        with self.package("reset"):
            self.learner.drop_agents()

    def worker_failed(self, worker: int) -> None:
        """Drop the trajectories of a failed worker's agents, and forget these agents."""
        super().worker_failed(worker)
        for key in [key for key in self._known if key[0] == worker]:
            slots = self._known.pop(key).all()
            self.episodes.abandon(slots)
            self._unlearned.abandon(slots)
            self.pool.release(slots.tolist())
        with self.package("reset"):
            self.learner.drop_agents(worker)

    def modules(self) -> dict[str, nn.Module]:
        """Return the modules that the package puts into its checkpoints, by their names there."""
        return self.learner.modules()

    def load_modules(self, states: dict[str, Any]) -> None:
        """Load weights and normalizers only; a number may be of another type, to which the package changes it.

        Raises:
            CheckpointError: a module or a key is missing, unknown, or of another shape.
        """
        super().load_modules(
            {name: saved_state.in_own_types(self.modules().get(name), saved) for name, saved in states.items()}
        )
        self._is_loaded = True
        if self.learner.ghost is not None:
            self.learner.spread_weights()

    def state_dict(self) -> dict[str, Any]:
        """Return all that a resume needs, besides what the environments hold."""
        with self.package("saved"):
            own = saved_state.save(self.learner)
        return {
            "step": self.step,
            "updates": self.updates,
            "modules": {name: module.state_dict() for name, module in self.modules().items()},
            "wheel": own,
            "agents": [[worker, name, known.state_dict()] for (worker, name), known in self._known.items()],
            **{name: getattr(self, name).state_dict() for name in _RESUMED},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        own = state["wheel"]
        with self.package("restored"):
            for behavior_id in own["behavior_ids"]:
                self._side(behavior_id)
        self.load_modules(state["modules"])
        self.step, self.learning.updates = whole(state["step"], "step"), whole(state["updates"], "updates")
        for name in _RESUMED:
            getattr(self, name).load_state_dict(state[name])
        whole(self.pool.size, "the number of slots", 0, self.episodes.room)
        with self.package("restored"):
            saved_state.load(self.learner, own)
        self._unlearned.reserve(self.pool.size)
        for worker, name, slots in state["agents"]:
            self._known[worker, name] = SlotMap(self.pool)
            self._known[worker, name].load_state_dict(slots)
