"""One trainer type under test: its settings, its trainers, and what it says about itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from mlagents_envs.base_env import BehaviorSpec
from torch import nn

from mlhooks.errors import MlhooksError, UnsupportedError
from mlhooks.plugins import PluginManager
from mlhooks.settings import HyperparameterSettings
from mlhooks.testing.managers import offered
from mlhooks.testing.quick_settings import quick_settings
from mlhooks.testing.scripted import ScriptedEnv
from mlhooks.testing.specs import needed_actions
from mlhooks.testing.target import Target
from mlhooks.testing.trainer_loop import Play, make_trainer
from mlhooks.training.trainer import Trainer

BUDGET = 12_000
"""Agent steps in which small tasks must be learned, unless `conformance_settings` has `max_steps`."""
FIRST_UPDATE = 3_000
"""Agent steps in which a trainer must update, so that it can be tried in a short time."""


class Trial:
    """Makes trainers of one type with its conformance settings.

    Args:
        target: the plugin.
        name: the trainer type.

    Attributes:
        kind: the trainer class.
    """

    def __init__(self, target: Target, name: str) -> None:
        self.target, self.name = target, name
        self.kind: type[Trainer] = target.manager().collect_mapping("get_trainer_types")[name]

    @property
    def model(self) -> type[HyperparameterSettings]:
        """The model of its hyperparameters."""
        return self.kind.hyperparameters_type

    @property
    def is_own(self) -> bool:
        """Whether the plugin offers the trainer type, rather than changing one of another plugin."""
        return self.name in offered(self.target.plugin, "get_trainer_types")

    @property
    def budget(self) -> int:
        """Agent steps in which small tasks must be learned."""
        return int(self.kind.conformance_settings.get("max_steps", BUDGET))

    def has(self, *names: str) -> bool:
        """Return whether it has these hyperparameters."""
        return all(name in self.model.model_fields for name in names)

    def takes(self, spec: BehaviorSpec) -> bool:
        """Return whether it declares the actions of a behavior."""
        return all(getattr(self.kind.supports, kind) for kind in needed_actions(spec))

    def acts_by(self, part: type[nn.Module], spec: BehaviorSpec) -> bool:
        """Return whether its policy for a behavior has a part by which mlhooks' networks read it, such as attention.

        Networks of one's own may read flat features.
        """
        try:
            modules = self.trainer(spec).policy.modules().values()
        except MlhooksError:
            return False
        return any(isinstance(inside, part) for module in modules for inside in module.modules())

    def remembers(self, spec: BehaviorSpec, **settings: Any) -> bool:
        """Return whether it has a memory where the settings ask for one; networks of one's own may refuse that."""
        if not self.kind.supports.memory:
            return False
        try:
            self.trainer(spec, **settings)
        except UnsupportedError:
            if self.is_own:
                raise
            return False
        return True

    @cached_property
    def any_actions(self) -> dict[str, Any]:
        """Actions for a spec, where it does not matter which: discrete ones if it takes those."""
        return {"branches": (3,)} if self.kind.supports.discrete else {"continuous": 2}

    def manager(self, *plugins: object) -> PluginManager:
        """Return a strict manager with the target."""
        return self.target.manager(*plugins)

    def settings(
        self,
        *,
        gamma: float = 0.9,
        strength: float = 1.0,
        hyperparameters: Mapping[str, Any] | None = None,
        **changes: Any,
    ) -> dict[str, Any]:
        """Return its conformance settings, changed.

        Args:
            gamma: discount factor, wherever the trainer takes it from.
            strength: factor on the environment's reward.
            hyperparameters: changes of hyperparameters.
            changes: other settings of the behavior; `network_settings` are merged.
        """
        base = quick_settings(self.kind)
        inner = {**base["hyperparameters"], **(hyperparameters or {})}
        if self.has("gamma"):
            inner["gamma"] = gamma
        signal = {"gamma": gamma, "strength": strength}
        network = {**base["network_settings"], **changes.pop("network_settings", {})}
        if "hidden_layers" in network:  # It says the number of layers, too.
            network.pop("num_layers", None)
        return {
            "reward_signals": {"extrinsic": signal},
            "max_steps": self.budget,
            "summary_freq": 1_000_000,
            **base,
            **changes,
            "trainer_type": self.name,
            "hyperparameters": inner,
            "network_settings": network,
        }

    def trainer(self, spec: BehaviorSpec, *, seed: int = 1, plugins: Sequence[object] = (), **settings: Any) -> Trainer:
        """Return a trainer for a behavior, with more plugins beside the target."""
        return make_trainer(self.manager(*plugins), spec, self.settings(**settings), seed=seed)

    def play(self, env: ScriptedEnv, *, seed: int = 1, learning: bool = True, **settings: Any) -> Play:
        """Return a trainer in an environment, at its first decision; `settings` are what `trainer` takes."""
        return Play(self.trainer(env.spec, seed=seed, gamma=env.gamma, **settings), env, learning=learning)
