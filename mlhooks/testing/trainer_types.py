"""The trainer types that a plugin has a part in: its own, or others whose policy or optimizer it makes."""

from __future__ import annotations

from functools import cache

from mlhooks.errors import MlhooksError
from mlhooks.plugins import PluginManager
from mlhooks.testing.managers import WRITERS, make_manager, offered
from mlhooks.testing.specs import make_behavior_spec
from mlhooks.testing.target import Target
from mlhooks.testing.trainer_loop import make_trainer
from mlhooks.training.trainer import Trainer


def trainer_types(target: Target) -> dict[str, type[Trainer]]:
    """Return the trainer types as which a target is tried; none where it cannot say."""
    return offered(target.plugin, "get_trainer_types") or altered_by(target)


@cache
def altered_by(target: Target) -> dict[str, type[Trainer]]:
    """Return the built-in trainer types for which `create_policy` or `create_optimizer` of the target answers."""
    if not target.implements("create_policy", "create_optimizer"):
        return {}
    alone = PluginManager(strict=True)
    try:
        alone.register(target.plugin, target.name)
    except MlhooksError:
        return {}
    others = make_manager(blocked={*WRITERS, target.name})
    types = others.collect_mapping("get_trainer_types")
    return {name: kind for name, kind in types.items() if _answers(alone, others, name, kind)}


def _answers(alone: PluginManager, others: PluginManager, name: str, kind: type[Trainer]) -> bool:
    spec = make_behavior_spec(branches=(3,)) if kind.supports.discrete else make_behavior_spec(continuous=2)
    trainer = make_trainer(others, spec, {"trainer_type": name})
    try:
        policy = alone.hook.create_policy(trainer=trainer, behavior_spec=spec)
        optimizer = alone.hook.create_optimizer(trainer=trainer, policy=trainer.policy)
    except MlhooksError:
        return True  # The checks show the failure.
    return policy is not None or optimizer is not None
