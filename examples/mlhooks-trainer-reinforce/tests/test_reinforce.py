from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mlagents_envs.base_env import ActionSpec, BehaviorSpec, DimensionProperty, ObservationSpec, ObservationType

import mlhooks
from mlhooks.errors import SettingsError
from mlhooks.plugins import load_plugins
from mlhooks.settings import ScheduleType, SettingsRegistry, TrainerSettings, load_run_options
from mlhooks.training.batch import Batch
from mlhooks.training.policy import ActorPolicy
from mlhooks.training.run import Run
from mlhooks_trainer_reinforce import ReinforceOptimizer, ReinforceTrainer

PACKAGE = Path(__file__).parents[1]
PLUGINS = ["reinforce", "no:console", "no:tensorboard", "no:curve"]
CPU = torch.device("cpu")


def options(behavior: str = "Basic", **changes: Any) -> dict[str, Any]:
    """Return a configuration that learns `sim:Basic` in seconds."""
    entry = {
        "trainer_type": "reinforce",
        "hyperparameters": {
            "batch_size": 64,
            "buffer_size": 64,
            "learning_rate": 0.003,
            "learning_rate_schedule": "constant",
            "max_grad_norm": 0.5,
        },
        "network_settings": {"hidden_units": 32, "num_layers": 1, "activation": "tanh", "initialization": "orthogonal"},
        "max_steps": 600,
        "summary_freq": 300,
        "checkpoint_interval": 300,
        **changes,
    }
    return {"behaviors": {behavior: entry}, "env_settings": {"env_path": f"sim:{behavior}", "num_areas": 8}}


def train(config: Mapping[str, Any], folder: Path, **arguments: Any) -> Run:
    return mlhooks.train(config, results_dir=folder, seed=3, plugin_names=PLUGINS, strict_plugins=True, **arguments)


def optimizer(*, continuous: int = 0, branches: tuple[int, ...] = (), **hyperparameters: Any) -> ReinforceOptimizer:
    registry = SettingsRegistry.from_plugins(load_plugins(names=PLUGINS))
    entry = {"trainer_type": "reinforce", "hyperparameters": hyperparameters, "network_settings": {"hidden_units": 8}}
    settings: TrainerSettings = load_run_options({"behaviors": {"A": entry}}, registry).options.settings_for("A")
    observation = ObservationSpec((4,), (DimensionProperty.NONE,), ObservationType.DEFAULT, "state")
    spec = BehaviorSpec([observation], ActionSpec(continuous, branches))
    return ReinforceOptimizer(ActorPolicy("A", spec, settings, CPU), settings)


def batch(rows: int = 6, *, continuous: int = 0, branches: tuple[int, ...] = ()) -> Batch:
    draw = torch.Generator().manual_seed(1)
    return Batch(
        features=torch.randn(rows, 4, generator=draw),
        continuous=torch.randn(rows, continuous, generator=draw),
        discrete=torch.stack([torch.randint(size, (rows,), generator=draw) for size in branches], 1)
        if branches
        else torch.zeros(rows, 0, dtype=torch.int64),
        returns=torch.randn(rows, 1, generator=draw),
        advantages=torch.randn(rows, 1, generator=draw),
    )


def test_loss_is_the_offset_times_the_log_probability_and_the_error_of_the_baseline() -> None:
    made, rows = optimizer(branches=(3, 2), entropy_bonus=0.1, baseline_weight=0.25), batch(branches=(3, 2))
    made.policy.actor.heads.logits.weight.data.mul_(20)  # This policy prefers some actions.
    losses = {name: value.item() for name, value in made.loss(rows).items()}

    logits = made.policy.actor(rows.features).logits.detach().numpy().astype(np.float64)
    policy, entropy = [], []
    for branch, columns in enumerate((slice(0, 3), slice(3, 5))):
        chances = np.exp(logits[:, columns]) / np.exp(logits[:, columns]).sum(1, keepdims=True)
        policy.append(np.log(chances[np.arange(6), rows.discrete[:, branch]]))
        entropy.append(-(chances * np.log(chances)).sum(1))
    offsets = rows.advantages[:, 0].numpy().astype(np.float64)
    offsets = (offsets - offsets.mean()) / offsets.std()
    errors = rows.returns.numpy() - made.critic(rows.features).detach().numpy()
    expected = {
        "Losses/Policy Loss": -(np.sum(policy, axis=0) * offsets).mean(),
        "Losses/Baseline Loss": (errors**2).mean(),
        "Policy/Entropy": np.sum(entropy, axis=0).mean(),
    }
    total = np.dot(list(expected.values()), [1.0, 0.25, -0.1])
    assert losses == pytest.approx({"loss": total, **expected}, rel=1e-5, abs=1e-6)  # These are sums of numbers near 1.


def test_update_makes_better_actions_more_likely_and_worse_ones_less() -> None:
    made, rows = optimizer(continuous=2, learning_rate=1e-3), batch(continuous=2)
    before = made.policy.evaluate(rows)[0].detach()
    made.update(rows)
    change = made.policy.evaluate(rows)[0].detach() - before
    offsets = rows.standardize(rows.advantages)
    assert float((change * offsets).sum()) > 0


def test_baseline_learns_by_its_own_error_and_nothing_else() -> None:
    made, rows = optimizer(branches=(3,), learning_rate=1e-3), batch(branches=(3,))
    losses = made.loss(rows)
    losses["Losses/Policy Loss"].backward(retain_graph=True)
    assert all(parameter.grad is None for parameter in made.critic.parameters())
    before = losses["Losses/Baseline Loss"].item()
    for _ in range(100):
        made.update(rows)
    assert made.loss(rows)["Losses/Baseline Loss"].item() < 0.9 * before


def test_each_rollout_is_learned_from_once(tmp_path: Path) -> None:
    run = train(options(), tmp_path, run_id="basic")
    trainer = run.trainers["Basic"]
    assert isinstance(trainer, ReinforceTrainer)
    assert trainer.optimizer.torch_optimizer.steps == trainer.updates > 0


def test_trainer_gives_each_decision_the_rewards_that_follow_it(tmp_path: Path) -> None:
    run = train(options(), tmp_path, run_id="basic")
    trainer = run.trainers["Basic"]
    assert isinstance(trainer, ReinforceTrainer)
    store = trainer.store
    rewards, ends, follows = (np.array([1.0, 2.0, 4.0]), np.array([0, 0, 1]), np.array([1, 2, -1]))
    store.size, store.complete, store.finals = 3, 3, 0
    store.reward[:3], store.end[:3], store.successor[:3], store.tick[:3] = rewards, ends, follows, [0, 1, 2]
    store.open_row[:] = -1
    gamma = trainer.reward_signals[0].gamma
    expected = [1 + gamma * (2 + gamma * 4), 2 + gamma * 4, 4]
    assert trainer.learning.rollout(trainer.store).returns[:, 0].tolist() == pytest.approx(expected, rel=1e-5)


def test_agent_learns_to_walk_to_the_greater_reward(tmp_path: Path) -> None:
    """The greater reward is 1 and seven steps away, each step costs 0.01: the best return is 0.93."""
    run = train(options(max_steps=12000), tmp_path, run_id="basic")
    assert run.trainers["Basic"].mean_reward == pytest.approx(0.93, abs=0.02)


def test_resumed_run_ends_with_the_weights_of_one_that_was_not_stopped(tmp_path: Path) -> None:
    whole = train(options(), tmp_path, run_id="whole")
    train(options(max_steps=300), tmp_path, run_id="parts")
    parts = train(options(), tmp_path, run_id="parts", resume=True)
    weights = [run.trainers["Basic"].optimizer.flat.data for run in (whole, parts)]
    assert torch.equal(*weights)


@pytest.mark.parametrize("environment", ["3DBall", "GridWorld"])
def test_other_kinds_of_actions_train(tmp_path: Path, environment: str) -> None:
    run = train(options(environment, max_steps=300), tmp_path, run_id="any")
    assert run.trainers[environment].updates > 0


def test_defaults_are_those_of_the_readme() -> None:
    table = (PACKAGE / "README.md").read_text(encoding="utf-8")
    hyperparameters = optimizer(branches=(2,)).hyperparameters
    for name in ("entropy_bonus", "baseline_weight"):
        assert f"| `{name}` | {getattr(hyperparameters, name):g} |" in table
    assert hyperparameters.learning_rate_schedule is ScheduleType.LINEAR


def test_misspelt_setting_is_refused_with_the_right_name() -> None:
    with pytest.raises(SettingsError, match=r"entropy_bonus"):
        optimizer(branches=(2,), entropy_bonu=0.1)


def test_example_configuration_is_valid() -> None:
    registry = SettingsRegistry.from_plugins(load_plugins(names=PLUGINS))
    loaded = load_run_options(PACKAGE / "cartpole_reinforce.yaml", registry)
    assert loaded.warnings == []
    assert loaded.options.settings_for("CartPole").trainer_type == "reinforce"
