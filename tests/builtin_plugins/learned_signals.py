"""Reward signals that learn, made as a run makes them, with batches of random rows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mlagents_envs.base_env import BehaviorSpec
from torch import Tensor
from torch.nn import functional

from mlhooks.plugins import load_plugins
from mlhooks.testing.demonstrations import write_any_demonstration
from mlhooks.testing.specs import make_behavior_spec
from mlhooks.testing.trainer_loop import make_trainer
from mlhooks.training.batch import Batch

KINDS: Mapping[str, Mapping[str, Any]] = {
    "continuous": {"continuous": 2},
    "branches": {"branches": (3, 2)},
    "hybrid": {"continuous": 2, "branches": (2, 4)},
}


def signal_of(
    name: str,
    spec: BehaviorSpec | None = None,
    *,
    trainer_type: str = "ppo",
    network: Mapping[str, Any] | None = None,
    seed: int = 1,
    folder: Path | None = None,
    **settings: Any,
) -> Any:
    """Return the signal that a trainer has, `gail` with a demonstration in a folder; with two layers of 16."""
    spec = make_behavior_spec((4,), branches=(3,)) if spec is None else spec
    if name == "gail" and folder is not None:
        settings["demo_path"] = str(write_any_demonstration(folder / "expert.demo", spec))
    signal = {**settings, "network_settings": {"hidden_units": 16, "num_layers": 2, **(network or {})}}
    behavior = {
        "trainer_type": trainer_type,
        "network_settings": {"hidden_units": 8, "num_layers": 1, "normalize": True},
        "reward_signals": {"extrinsic": {}, name: signal},
    }
    return make_trainer(load_plugins(autoload=False), spec, behavior, seed=seed).reward_signals[1]


def rows_of(signal: Any, rows: int = 24, *, seed: int = 7, **columns: Any) -> Batch:
    """Return rows with random observations and actions."""
    rng = np.random.default_rng(seed)
    spec = signal.behavior_spec.action_spec
    choices = [rng.integers(0, size, rows) for size in spec.discrete_branches]
    obs, following = (torch.from_numpy(rng.random((rows, signal.layout.size), np.float32)) for _ in range(2))
    discrete = np.stack(choices, 1) if choices else np.zeros((rows, 0), np.int64)
    ready: dict[str, Any] = {
        "features": torch.full_like(obs, torch.nan),  # The policy's features are none of a signal's business.
        "obs": obs,
        "next_obs": following,
        "ended": torch.from_numpy(rng.random(rows) < 0.2),
        "continuous": torch.from_numpy(rng.standard_normal((rows, spec.continuous_size), np.float32)),
        "discrete": torch.from_numpy(discrete),
    }
    return Batch(**{**ready, **columns})


def parameters_of(signal: Any) -> dict[str, Tensor]:
    """Return copies of all parameters, which are leaves of a graph of their own."""
    return {
        f"{name}.{inside}": p.detach().clone().requires_grad_(p.requires_grad)
        for name, module in signal.networks.items()
        for inside, p in module.named_parameters()
    }


def encoded(p: Mapping[str, Tensor], network: str, x: Tensor, layers: int = 2) -> Tensor:
    """Return what layers with swish make of x."""
    for layer in range(layers):
        name = f"{network}.encoder.layers.{layer}"
        x = functional.silu(x @ p[f"{name}.weight"].T + p[f"{name}.bias"])
    return x


def headed(p: Mapping[str, Tensor], network: str, x: Tensor, head: int = 0) -> Tensor:
    """Return what one of a network's heads makes of x."""
    return x @ p[f"{network}.heads.{head}.weight"].T + p[f"{network}.heads.{head}.bias"]


def flat(batch: Batch, spec: BehaviorSpec) -> Tensor:
    """Return continuous actions, then ones and zeros for each branch."""
    eyes = [torch.eye(size)[batch.discrete[:, i]] for i, size in enumerate(spec.action_spec.discrete_branches)]
    return torch.cat([batch.continuous, *eyes], 1)


def gradients_of(signal: Any, batch: Batch) -> dict[str, Tensor]:
    """Return the gradients that an update steps by, of each parameter, as its own learning has them."""
    signal.descent.set_learning_rate(0.0)
    signal.update(batch)
    named = {
        f"{name}.{inside}": p for name, module in signal.networks.items() for inside, p in module.named_parameters()
    }
    return {name: p.grad.clone() for name, p in named.items() if p.requires_grad}
