"""Hyperparameters that the bases read, also of plugins whose models do not have them."""

from __future__ import annotations

from typing import Any

from mlhooks.settings import OffPolicyHyperparameters, OnPolicyHyperparameters, TrainerSettings

_WITHOUT: dict[str, Any] = {
    "burn_in": 0,
    "dueling": False,
    "exploration_initial_eps": 0.0,
    "gamma": None,
    "lambd": 1.0,
    "n_step": 1,
    "normalize_advantages": None,
    "num_epoch": 1,
    "shared_critic": False,
    "update_interval": None,
}
"""The values that stand for hyperparameters of single algorithms where a model does not have them."""
_SHARED = OffPolicyHyperparameters.model_fields | OnPolicyHyperparameters.model_fields
_LACKS = object()


def hyperparameter(settings: TrainerSettings, name: str) -> Any:
    """Return a behavior's hyperparameter; where the model lacks it, its default, or the value that changes nothing."""
    found = getattr(settings.hyperparameters, name, _LACKS)
    if found is not _LACKS:
        return found
    return _WITHOUT[name] if name in _WITHOUT else _SHARED[name].default
