"""The least that plugins may answer: a class or an object of each kind, none of which works."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from mlhooks.envs.manager import EnvManager
from mlhooks.settings import HyperparameterSettings, RewardSignalSettings, SettingsModel
from mlhooks.training.optimizer import Optimizer
from mlhooks.training.policy import Policy
from mlhooks.training.reward_signals import RewardSignal
from mlhooks.training.trainer import Trainer


def unused(*_: Any, **__: Any) -> Any:
    raise NotImplementedError


class AnyTrainer(Trainer):
    hyperparameters_type = HyperparameterSettings
    store_rows, ready_to_update, update = classmethod(unused), unused, unused


class AnySignal(RewardSignal):
    evaluate = unused


class AnyPolicy(Policy):
    act, modules, inputs = unused, unused, None

    def __init__(self, name: str = "") -> None:
        self.name = name


class AnyOptimizer(Optimizer):
    update, modules = unused, unused

    def __init__(self) -> None: ...


class AnyManager(EnvManager):
    ready, send, reset, close = unused, unused, unused, unused


class AnyChannel:
    on_message_received = unused

    def __init__(self, number: int) -> None:
        self.channel_id, self.message_queue = UUID(int=number), []


ANSWERS: dict[str, tuple[Any, Any]] = {
    "get_env_types": ({"aa": print}, {"bb": print}),
    "get_trainer_types": ({"a": AnyTrainer}, {"b": AnyTrainer}),
    "get_reward_signals": ({"a": (AnySignal, RewardSignalSettings)}, {"b": (AnySignal, RewardSignalSettings)}),
    "get_plugin_settings": ({"a": SettingsModel}, {"b": SettingsModel}),
    "create_env_manager": (AnyManager(), AnyManager()),
    "create_policy": (AnyPolicy(), AnyPolicy()),
    "create_optimizer": (AnyOptimizer(), AnyOptimizer()),
    "summary_stats": ({"a": 1.0}, {"b": 2.0}),
    "register_side_channels": ([AnyChannel(1)], [AnyChannel(2)]),
}
"""What two plugins may answer to one call, by the hook."""
