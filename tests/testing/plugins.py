"""Sources of small plugins that are right, which tests change in one place."""

from __future__ import annotations

from pathlib import Path

from mlhooks.testing.target import Target, resolve

WRITER = "from mlhooks import hookimpl\n\n\n@hookimpl\ndef write_stats(category, values, step): ...\n"
TRAINER = """
from builtin_plugins.a2c import A2COptimizer, A2CSettings
from mlhooks import hookimpl
from mlhooks.training.on_policy import OnPolicyTrainer
from mlhooks.training.policy import ActorPolicy


class MyTrainer(OnPolicyTrainer):
    hyperparameters_type = A2CSettings
    policy_type = ActorPolicy
    optimizer_type = A2COptimizer
    conformance_settings = {"hyperparameters": {"batch_size": 64, "buffer_size": 64}, "max_steps": 500}


@hookimpl
def get_trainer_types():
    return {"mine": MyTrainer}
"""
ALTERS_PPO = """
from builtin_plugins.ppo import PPOOptimizer, PPOTrainer
from mlhooks import hookimpl


class MyOptimizer(PPOOptimizer):
    def loss(self, batch):
        losses = super().loss(batch)
        return {**losses, "Losses/Policy Loss": losses["Losses/Policy Loss"]}


@hookimpl
def create_optimizer(trainer, policy):
    return MyOptimizer(policy, trainer.settings) if isinstance(trainer, PPOTrainer) else None
"""


def target_of(folder: Path, source: str, old: str = "", new: str = "") -> Target:
    """Return the plugin of a file with `source`, in which `old` has become `new`."""
    assert old in source
    path = folder / "mine.py"
    path.write_text(source.replace(old, new) if old else source, encoding="utf-8")
    (target,) = resolve(str(path))
    return target
