"""Runs that see entities: trainers learn from them, and their policies load."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import mlhooks
from mlhooks.sims import Sorter
from mlhooks.training.run import Run
from tests.scripted import QUIET, Env, config, train

HYPERPARAMETERS: dict[str, dict[str, Any]] = {
    "ppo": {"batch_size": 64, "buffer_size": 256},
    "a2c": {"batch_size": 64, "buffer_size": 64},
    "dqn": {"batch_size": 32, "buffer_size": 1000, "buffer_init_steps": 100, "steps_per_update": 16},
}


def sorter(trainer: str, steps: int) -> dict[str, Any]:
    settings = {"trainer_type": trainer, "hyperparameters": HYPERPARAMETERS[trainer]}
    return config("Sorter", "sim:Sorter", max_steps=steps, **{"checkpoint_interval": 10_000, **settings})


def shown() -> list[np.ndarray]:
    env = Sorter(num_agents=32, seed=9)
    env.reset()
    obs: list[np.ndarray] = env.get_steps("Sorter")[0].obs
    return obs


def values(run: Run, obs: list[np.ndarray]) -> torch.Tensor:
    """Return what the policy's network makes of observations."""
    policy: Any = run.trainers["Sorter"].policy
    with torch.no_grad():
        network = getattr(policy, "network", None)
        features = policy.features(obs)
        found: torch.Tensor = policy.actor(features).logits if network is None else network(features)
    return found


@pytest.mark.parametrize("trainer", HYPERPARAMETERS)
def test_policies_of_entities_are_learned_saved_and_loaded(trainer: str, tmp_path: Path) -> None:
    run = train(sorter(trainer, 600), tmp_path)
    assert run.outcome.status == "finished"
    own, tiles = shown()
    right = values(run, [own, tiles])
    moved = values(run, [own, tiles[:, ::-1].copy()])
    torch.testing.assert_close(moved, right, rtol=1e-4, atol=1e-5)
    assert (values(run, [own, 0.5 * tiles]) - right).abs().max() > 1e-4
    policy = mlhooks.load(run.path)
    assert "(1,), (8, 9)" in repr(policy)
    actions = policy.predict([own, tiles])
    sure = (right.sort(1).values[:, -1] - right.sort(1).values[:, -2] > 1e-4).numpy()
    assert sure.any()
    np.testing.assert_array_equal(actions[sure, 0], right.argmax(1).numpy()[sure])
    assert policy.predict([own[0], tiles[0]]) == actions[0, 0]


class Blind(Sorter):
    """Shows no tiles, only how many are left."""

    def _observe(self, rows: Any) -> list[np.ndarray]:
        left, tiles = super()._observe(rows)
        return [left, np.zeros_like(tiles)]


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("kind", "steps", "least", "most"), [(Sorter, 150_000, 0.9, 1.0), (Blind, 60_000, -1.0, 0.0)])
def test_order_of_entities_is_learned_by_attention_and_not_without_seeing_them(
    kind: type[Sorter], steps: int, least: float, most: float, tmp_path: Path
) -> None:
    changes = {"env_settings.env_path": "test:Sorter", "behaviors.Sorter.max_steps": steps}
    env = Env(lambda: kind(num_areas=4, seed=3))
    run = mlhooks.train(
        "sorter_ppo", plugins=[env], plugin_names=QUIET, results_dir=tmp_path, run_id="run", seed=3, flags=changes
    )
    assert least <= run.trainers["Sorter"].mean_reward <= most + 1e-6
