"""Settings under which trainers learn small tasks in seconds, so that a trainer class need not name any."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlhooks.settings import HyperparameterSettings, OffPolicyHyperparameters
from mlhooks.training.trainer import Trainer

EVERY = {"batch_size": 64, "learning_rate_schedule": "constant"}
ON_POLICY = EVERY | {
    "buffer_size": 256,
    "learning_rate": 0.003,
    "max_grad_norm": 0.5,
    "beta": 0.001,
    "value_clipping": False,
}
OFF_POLICY = EVERY | {
    "buffer_size": 5000,
    "buffer_init_steps": 100,
    "learning_rate": 0.002,
    "steps_per_update": 4,
    "exploration_initial_eps": 0.5,
    "exploration_final_eps": 0.05,
    "tau": 0.02,
}
"""Values of hyperparameters, for those trainers that have them; names mean what they mean to PPO, A2C and DQN."""
NETWORK = {"hidden_units": 32, "num_layers": 1, "activation": "tanh", "initialization": "kaiming_he"}


def quick_settings(kind: type[Trainer]) -> dict[str, Any]:
    """Return settings of a behavior, as in YAML, with which a trainer class learns small tasks fast.

    What the class says in `conformance_settings` comes first, key by key; the rest suits most trainers.
    """
    model: type[HyperparameterSettings] = kind.hyperparameters_type
    usual = OFF_POLICY if issubclass(model, OffPolicyHyperparameters) else ON_POLICY
    known = {name: value for name, value in usual.items() if name in model.model_fields}
    own = dict(kind.conformance_settings)
    return own | {
        "hyperparameters": known | _part(own, "hyperparameters"),
        "network_settings": NETWORK | _part(own, "network_settings"),
    }


def _part(settings: Mapping[str, Any], name: str) -> dict[str, Any]:
    return dict(settings.get(name) or {})
