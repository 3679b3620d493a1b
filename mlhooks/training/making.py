"""Makes a trainer's policy and optimizer: those that a plugin answers with, or else those that its class names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlagents_envs.base_env import BehaviorSpec

from mlhooks.errors import PluginError, UnsupportedError
from mlhooks.places import keep_classes
from mlhooks.plugin_sources import Origin
from mlhooks.settings.networks import unread
from mlhooks.training.learning_checks import of_a_plugin
from mlhooks.training.optimizer import Optimizer
from mlhooks.training.part_checks import called, check_trainer
from mlhooks.training.policy import Policy

if TYPE_CHECKING:
    from mlhooks.training.trainer import Trainer

NAMED = {"create_policy": "policy_type", "create_optimizer": "optimizer_type"}
"""The hooks that make a trainer's parts, with the attribute of its class that names one where no plugin answers."""


def make_trainer(kind: type[Trainer], **arguments: Any) -> Trainer:
    """Make a trainer of a class, with the arguments of `Trainer`.

    Raises:
        PluginError: it cannot be made of them, leaves out the base's `__init__`, or `modules` of its parts.
    """
    try:
        trainer = kind(**arguments)
    except Exception as error:
        if of_a_plugin(kind):
            keep_classes(error, [kind])
        raise
    if "learning" not in vars(trainer):
        raise PluginError(f"{called(trainer, '__init__')} must call super().__init__(**arguments), with all it gets.")
    check_trainer(trainer)  # Only now has a class set what its `modules` may need.
    return trainer


def make_policy(trainer: Trainer) -> Policy:
    """Return the policy of a trainer, from the hook `create_policy` or of its `policy_type`.

    Raises:
        PluginError: there is neither, or it cannot be made.
    """
    policy: Policy = _made(trainer, "create_policy", _named_policy, behavior_spec=trainer.behavior_spec)
    if policy.behavior_spec.action_spec != trainer.behavior_spec.action_spec:
        raise PluginError(
            f"Behavior {trainer.behavior_name!r}: {type(policy).__name__} was made for other actions than the behavior "
            "has: hand over the argument `behavior_spec` of create_policy."
        )
    return policy


def make_optimizer(trainer: Trainer) -> Optimizer:
    """Return the optimizer of a trainer, which has its policy, from `create_optimizer` or of its `optimizer_type`.

    Raises:
        PluginError: there is neither, it cannot be made, or the `optimizer_type` was not written for such a policy.
        UnsupportedError: the settings of networks ask for something that neither policy nor optimizer reads.
    """
    optimizer: Optimizer = _made(trainer, "create_optimizer", _named_optimizer, policy=trainer.policy)
    for key in unread(trainer.settings.network_settings, trainer.policy, optimizer):
        raise UnsupportedError(
            f"Behavior {trainer.behavior_name!r}: network_settings.{key} is read neither by its policy, "
            f"{type(trainer.policy).__name__}, nor by its optimizer, {type(optimizer).__name__}; remove it. A plugin "
            "whose part reads it names it in the attribute network_keys of its class."
        )
    return optimizer


def _made(trainer: Trainer, hook: str, named: Any, **arguments: Any) -> Any:
    kind, attribute = type(trainer), NAMED[hook]
    claims = trainer.plugins.collect_claims("get_trainer_types")
    origin, _ = claims.get(trainer.settings.trainer_type, (Origin(kind.__name__, source=kind.__module__), kind))
    where = f"{kind.__name__}.{attribute}"
    made = trainer.plugins.first_answer(hook, named, origin, where, trainer=trainer, **arguments)
    if made is None:
        raise PluginError(
            f"No plugin answered {hook} for behavior {trainer.behavior_name!r} with trainer_type "
            f"{trainer.settings.trainer_type!r}: the plugin that brings the trainer type must implement it, or name "
            f"what is to be made as {where}."
        )
    return made


def _named_policy(trainer: Trainer, behavior_spec: BehaviorSpec) -> Policy | None:
    kind = trainer.policy_type
    return None if kind is None else kind(trainer.behavior_name, behavior_spec, trainer.settings, trainer.device)


def _named_optimizer(trainer: Trainer, policy: Policy) -> Optimizer | None:
    kind, expected = trainer.optimizer_type, trainer.policy_type
    if kind is None:
        return None
    if expected is not None and not isinstance(policy, expected):
        raise PluginError(
            f"Behavior {trainer.behavior_name!r} has a policy of type {type(policy).__name__} from a plugin, and "
            f"{kind.__name__} of the trainer type {trainer.settings.trainer_type!r} is made for {expected.__name__}. "
            f"Let create_policy return {expected.__name__} or a subclass of it, or answer create_optimizer, too."
        )
    return kind(policy, trainer.settings)
