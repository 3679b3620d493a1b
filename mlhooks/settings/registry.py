"""What plugins add to the schema: hyperparameters by trainer type, settings by reward signal, and their own ones."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from pydantic import BaseModel

from mlhooks.deferred import Deferred
from mlhooks.errors import PluginError
from mlhooks.settings.behaviors import MLAGENTS_REWARD_SIGNALS, RewardSignalSettings
from mlhooks.settings.hyperparameters import HyperparameterSettings

if TYPE_CHECKING:
    from mlhooks.plugins import PluginManager

_MODEL = "hyperparameters_type"


def _lacks_trainers(plugin: Any) -> bool:
    return getattr(plugin, "is_left_out", False) and hasattr(plugin, "get_trainer_types")


@dataclass(frozen=True)
class SettingsRegistry:
    """The trainer types, reward signals and plugins' settings that a configuration may name.

    Args:
        trainer_types: `trainer_type` -> trainer class, which names its model as `hyperparameters_type`.
        reward_signals: name -> class and settings model; ML-Agents' own signals are known without being installed.
        plugin_settings: name under `plugins.settings` -> its model.
        blocked: names of plugins that are kept out, and whose settings are therefore passed over.
        left_out: the packages that are installed, and whose trainer types are not there because they need `mlagents`.
    """

    trainer_types: Mapping[str, type]
    reward_signals: Mapping[str, tuple[type, type[RewardSignalSettings]]] = field(default_factory=dict)
    plugin_settings: Mapping[str, type[BaseModel]] = field(default_factory=dict)
    blocked: frozenset[str] = frozenset()
    left_out: tuple[str, ...] = ()

    @classmethod
    def from_plugins(cls, plugins: PluginManager) -> Self:
        """Ask the plugins."""
        return cls(
            plugins.collect_mapping("get_trainer_types"),
            plugins.collect_mapping("get_reward_signals"),
            plugins.collect_mapping("get_plugin_settings"),
            frozenset(name for name, plugin in plugins.list_name_plugin() if plugin is None),
            tuple(str(plugin.origin) for plugin in plugins.get_plugins() if _lacks_trainers(plugin)),
        )

    def hyperparameters(self, trainer_type: str) -> type[HyperparameterSettings] | None:
        """Return the model of a trainer type's hyperparameters, or None if no plugin provides the type.

        Raises:
            PluginError: the trainer class names no such model.
        """
        if trainer_type not in self.trainer_types:
            return None
        trainer = self.trainer_types[trainer_type]
        model = getattr(trainer, _MODEL, HyperparameterSettings)
        if not (isinstance(model, type) and issubclass(model, HyperparameterSettings)):
            raise PluginError(
                f"The trainer class {trainer.__module__}.{trainer.__qualname__} of trainer_type {trainer_type} has "
                f"hyperparameters_type = {model!r}; it must be a subclass of mlhooks.plugin.HyperparameterSettings."
            )
        return model

    def is_made(self, trainer_type: str) -> bool:
        """Return whether a trainer type's model is there, and need not be made of another package's settings first."""
        return not isinstance(inspect.getattr_static(self.trainer_types[trainer_type], _MODEL, None), Deferred)

    def reward_signal_models(self) -> dict[str, type[RewardSignalSettings]]:
        """Return the settings model of every reward signal that may be named."""
        return {**MLAGENTS_REWARD_SIGNALS, **{name: model for name, (_, model) in self.reward_signals.items()}}
