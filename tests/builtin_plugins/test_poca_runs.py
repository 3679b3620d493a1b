"""POCA in runs: groups that come apart, resumes, and tasks that only it learns."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mlagents_envs.base_env import ActionSpec, ActionTuple, BehaviorSpec, DecisionSteps, TerminalSteps

import mlhooks
from mlhooks import hookimpl
from mlhooks.errors import MlhooksError
from mlhooks.sims.base import vector_spec
from mlhooks.testing.trainer_loop import Play
from mlhooks.training.batch import Batch
from tests.builtin_plugins.test_poca import make, observe
from tests.scripted import QUIET, train
from tests.steps import decisions, make_spec
from tests.unity.client import free_port

CONFIG: dict[str, Any] = {
    "behaviors": {
        "Sacrifice": {
            "trainer_type": "poca",
            "hyperparameters": {"batch_size": 64, "buffer_size": 128},
            "network_settings": {"hidden_units": 8, "num_layers": 1},
            "max_steps": 400,
            "summary_freq": 200,
            "checkpoint_interval": 300,
            "time_horizon": 8,
        }
    },
    "env_settings": {"env_path": "sim:Sacrifice", "num_areas": 4, "seed": 1},
}


def configured(**changes: Any) -> dict[str, Any]:
    config = json.loads(json.dumps(CONFIG))
    entry = config["behaviors"]["Sacrifice"]
    for key, value in changes.items():
        entry[key] = {**entry.get(key, {}), **value} if isinstance(value, dict) else value
    return config


VARIANTS: dict[str, dict[str, Any]] = {
    "memory": {"network_settings": {"normalize": True, "memory": {"memory_size": 8, "sequence_length": 4}}},
    "signals": {
        "reward_signals": {"extrinsic": {}, "rnd": {"network_settings": {"hidden_units": 8}}},
        "hyperparameters": {"normalize_advantages": "minibatch", "joint_actions": True},
    },
}


@pytest.mark.parametrize("name", ["memory", pytest.param("signals", marks=pytest.mark.slow)])
def test_run_reports_finite_losses_and_resumes_bit_for_bit(tmp_path: Path, name: str) -> None:
    config = configured(**VARIANTS[name])
    short = configured(**VARIANTS[name], max_steps=280)
    for schedule in ("learning_rate_schedule", "beta_schedule", "epsilon_schedule"):
        short["behaviors"]["Sacrifice"]["hyperparameters"][schedule] = "constant"
        config["behaviors"]["Sacrifice"]["hyperparameters"][schedule] = "constant"
    whole = train(config, tmp_path / "constant")
    train(short, tmp_path / "resumed")
    resumed = train(config, tmp_path / "resumed", resume=True)
    states = [run.trainers["Sacrifice"].state_dict()["modules"] for run in (whole, resumed)]
    for module, state in states[0].items():
        for key, tensor in state.items():
            assert torch.equal(tensor, states[1][module][key]), (module, key)
    lines = (tmp_path / "constant" / "run" / "stats.jsonl").read_text().splitlines()
    values = {key: entry for line in lines for key, entry in json.loads(line)["values"].items()}
    assert {"Losses/Baseline Loss", "Policy/Extrinsic Baseline Estimate", "Environment/Group Cumulative Reward"} <= {
        *values
    }
    assert all(np.isfinite(entry["mean"]) for entry in values.values())


def test_every_parameter_moves_in_groups(tmp_path: Path) -> None:
    before = parameters_of(train(configured(max_steps=30), tmp_path / "before").trainers["Sacrifice"])
    after = parameters_of(train(configured(), tmp_path / "after").trainers["Sacrifice"])
    assert [name for name, tensor in after.items() if tensor.equal(before[name])] == []


def test_group_reward_counts_once_for_each_member_that_is_there_at_the_end() -> None:
    trainer = make(make_spec())
    observe(trainer, {0: 1.0, 1: 2.0, 2: 3.0})
    observe(trainer, {1: 2.0, 2: 3.0}, {0: 1.0}, shared=dict.fromkeys(range(3), 1.0))  # It gets 1, and is dropped.
    observe(trainer, {0: 1.0}, {1: 2.0, 2: 3.0}, shared=dict.fromkeys(range(3), 4.0))
    summary = trainer.stats.get_stats_summaries("Environment/Group Cumulative Reward")
    assert summary.full_dist == [5.0, 5.0]


def test_agents_without_a_group_have_no_group_reward() -> None:
    trainer = make(make_spec())
    observe(trainer, {0: 1.0}, group=0)
    observe(trainer, {}, {0: 1.0}, group=0)
    assert trainer.stats.get_stats_summaries("Environment/Group Cumulative Reward").num == 0


def test_trainers_that_do_not_learn_from_groups_say_so_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = configured(trainer_type="ppo", max_steps=300)
    config["env_settings"]["seed"] = 3
    config["behaviors"]["PushTogether"] = config["behaviors"].pop("Sacrifice")
    config["env_settings"]["env_path"] = "sim:PushTogether"
    with caplog.at_level(logging.WARNING, "mlhooks"):
        train(config, tmp_path / "ppo")
    assert caplog.text.count("got a group reward") == 1
    caplog.clear()
    config["behaviors"]["PushTogether"]["trainer_type"] = "poca"
    train(config, tmp_path / "poca")
    assert "got a group reward" not in caplog.text


def test_hidden_units_must_be_shared_by_the_heads(tmp_path: Path) -> None:
    with pytest.raises(MlhooksError, match=r"hidden_units must be a multiple of 4.*not 10"):
        train(configured(network_settings={"hidden_units": 10}), tmp_path)
    config = configured()
    config["behaviors"]["Sacrifice"]["network_settings"] = {"hidden_layers": [6, 8]}
    with pytest.raises(MlhooksError, match=r"the first of hidden_layers must be a multiple of 4.*not 6"):
        train(config, tmp_path)


class Rhythms:
    """Two groups of hybrid agents that decide at rhythms of their own, die, and come again under the same group id."""

    spec = BehaviorSpec([vector_spec("v", 4)], ActionSpec(1, (2,)))

    def __init__(self, seed: int = 0) -> None:
        self.rng, self.clock = np.random.default_rng(seed), 0
        self.alive = np.ones(8, np.bool_)
        self.behavior_specs = {"Scripted": self.spec}

    def reset(self) -> None:
        self._steps = self._decide(np.arange(8)), TerminalSteps.empty(self.spec)

    def _decide(self, asked: np.ndarray) -> DecisionSteps:
        n = len(asked)
        obs = self.rng.standard_normal((n, 4)).astype(np.float32)
        groups = (asked // 4 + 1) * (asked % 4 < 3)  # The last one of each four is in no group.
        shared = np.ones(n, np.float32) * (groups > 0)
        reward = self.rng.standard_normal(n).astype(np.float32)
        return DecisionSteps([obs], reward, asked.astype(np.int32), None, groups.astype(np.int32), shared)

    def get_steps(self, _: str) -> tuple[DecisionSteps, TerminalSteps]:
        return self._steps

    def set_actions(self, _: str, action: ActionTuple) -> None:
        assert len(action.continuous) == len(self._steps[0])

    def step(self) -> None:
        self.clock += 1
        dying = self.alive & (self.rng.random(8) < 0.1)
        over = np.repeat(self.rng.random(2) < 0.05, 4)
        ended = np.flatnonzero(self.alive & (dying | over))
        self.alive[ended] = False
        self.alive |= over | (self.rng.random(8) < 0.2)
        gone = self._decide(ended)
        last = TerminalSteps(
            gone.obs, gone.reward, self.rng.random(len(ended)) < 0.3, gone.agent_id, gone.group_id, gone.group_reward
        )
        asked = np.flatnonzero(self.alive & (self.clock % (1 + np.arange(8) % 3) == 0))
        self._steps = self._decide(asked), last


@pytest.mark.parametrize("memory", [None, {"memory_size": 8, "sequence_length": 4}], ids=["plain", "memory"])
def test_groups_that_come_apart_are_learned_from(memory: dict[str, int] | None) -> None:
    sizes = {"buffer_size": 60, "batch_size": 20}
    trainer = make(Rhythms.spec, hyperparameters=sizes, network_settings={"memory": memory})
    play: Any = Play(trainer, Rhythms())  # type: ignore[arg-type]
    counted: list[int] = []
    update = trainer.optimizer.update

    def watched(batch: Batch) -> dict[str, torch.Tensor]:
        mask = torch.ones(len(batch), dtype=torch.bool) if batch.loss_mask is None else batch.loss_mask
        counted.extend(batch.features[mask, 0].tolist())
        with torch.no_grad():
            values, baselines = trainer.optimizer.group_values(batch)
        if first:  # Nothing has been learned since: minibatches have the values of the whole rollout.
            torch.testing.assert_close(values[mask], batch.values[mask], rtol=1e-3, atol=1e-4)
            torch.testing.assert_close(baselines[mask], batch.baselines[mask], rtol=1e-3, atol=1e-4)
            first.pop()
        return update(batch)

    trainer.optimizer.update = watched  # type: ignore[method-assign]
    for _ in range(4):
        play.learning = False
        play.until_ready()
        complete = np.arange(trainer.store.size)[trainer.store.complete_rows()]
        wanted = sorted(trainer.store.obs[0][complete, 0].tolist() * 3)
        counted.clear()
        first = [True]
        losses = trainer.update()
        assert losses is not None
        assert all(np.isfinite(value) for value in losses.values())
        assert sorted(counted) == pytest.approx(wanted)


def test_failed_worker_takes_its_members_alone() -> None:
    trainer = make(make_spec())
    for tick in range(3):
        for worker in (0, 1):
            steps = decisions([0, 1], [10.0 * worker + tick, 10.0 * worker + tick + 5], [0.0, 0.0])
            steps.group_id = np.ones(2, np.int32)  # Both workers have a group 1.
            trainer.observe(worker, "Scripted", steps, TerminalSteps.empty(make_spec()))
        for _ in trainer.act():
            pass
    trainer.worker_failed(0)
    batch = trainer.learning.rollout(trainer.store)
    assert sorted(batch.features[:, 0].tolist()) == [10.0, 11.0, 15.0, 16.0]
    assert batch.cells is not None
    for members in batch.cells.members:
        seen = sorted(batch.features[members[members >= 0], 0].tolist())
        assert seen[1] - seen[0] == 5.0
        assert len(seen) == 2


def sacrificed(trainer_type: str, seed: int, folder: Path) -> float:
    """Return the mean reward of agents at the end of a run with the settings of the example; 2/3 is the best."""
    run = {"run_id": f"{trainer_type}-{seed}", "results_dir": folder, "plugin_names": QUIET}
    changes = [f"behaviors.Sacrifice.trainer_type={trainer_type}"]
    (trainer,) = mlhooks.train("sacrifice_poca", seed=seed, overrides=changes, **run).trainers.values()
    assert trainer.mean_reward is not None
    return trainer.mean_reward


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_poca_learns_a_sacrifice_that_ppo_does_not(seed: int, tmp_path: Path) -> None:
    assert sacrificed("poca", seed, tmp_path) >= 0.9 * 2 / 3
    assert sacrificed("ppo", seed, tmp_path) < 0.5 * 2 / 3


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="the player stand-in is a shell script")
@pytest.mark.parametrize("scene", ["DungeonEscape", "PushBlockCollab"])
def test_scenes_of_mlagents_move_every_parameter_in_three_updates(scene: str, tmp_path: Path) -> None:
    from mlhooks.sim_player.command import write_executable

    settings = {
        "trainer_type": "poca",
        "hyperparameters": {"batch_size": 64, "buffer_size": 128, "beta": 0.01, "learning_rate_schedule": "constant"},
        "network_settings": {"hidden_units": 64, "num_layers": 2},
        "max_steps": 5 * 128,
    }
    game = str(write_executable(tmp_path / "Game", [scene]))
    environment = {"env_path": game, "base_port": free_port(), "timeout_wait": 20, "seed": 1}
    found: list[dict[str, float]] = []
    before: dict[str, torch.Tensor] = {}

    class Note:
        """Notes weights before, and losses of, updates."""

        @hookimpl
        def behavior_added(self, trainer: Any) -> None:
            before.update(parameters_of(trainer))

        @hookimpl
        def update_finished(self, losses: dict[str, float]) -> None:
            found.append(losses)

    run = train({"behaviors": {scene: settings}, "env_settings": environment}, tmp_path, Note())
    assert len(found) >= 3
    assert all(np.isfinite([*losses.values()]).all() for losses in found)
    after = parameters_of(run.trainers[scene])
    assert [name for name, tensor in after.items() if tensor.equal(before[name])] == []


def parameters_of(trainer: Any) -> dict[str, torch.Tensor]:
    """Return copies of all trainable parameters by name."""
    modules = trainer.modules().items()
    return {f"{name}.{key}": p.detach().clone() for name, module in modules for key, p in module.named_parameters()}
