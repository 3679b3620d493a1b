"""POCA: targets and advantages by hand, its loss beside the formulas, and runs of groups that come apart."""

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
from builtin_plugins.poca import POCAOptimizer, POCASettings, POCATrainer
from mlhooks import hookimpl
from mlhooks.errors import MlhooksError
from mlhooks.settings import TrainerSettings
from mlhooks.sims.base import vector_spec
from mlhooks.testing.managers import make_manager
from mlhooks.testing.trainer_loop import Play, make_trainer
from mlhooks.training.batch import Batch
from mlhooks.training.groups import Cells
from mlhooks.training.policy import ActorPolicy
from tests.scripted import QUIET, train
from tests.steps import decisions, make_spec, terminals
from tests.unity.client import free_port

NETWORK = {"hidden_units": 8, "num_layers": 1}


def make(spec: BehaviorSpec, *, gamma: float = 0.9, **settings: Any) -> POCATrainer:
    hyperparameters = {"batch_size": 8, "buffer_size": 32, "lambd": 0.5, **settings.pop("hyperparameters", {})}
    network = NETWORK | settings.pop("network_settings", {})
    trainer = make_trainer(
        make_manager(),
        spec,
        {
            "trainer_type": "poca",
            "hyperparameters": hyperparameters,
            "network_settings": network,
            "reward_signals": {"extrinsic": {"gamma": gamma}},
            **settings,
        },
    )
    assert isinstance(trainer, POCATrainer)
    return trainer


def observe(
    trainer: POCATrainer, asked: dict[int, float], over: dict[int, float] | None = None, **columns: Any
) -> None:
    """Let agents of group 1 decide, by id and observation, after others ended; `rewards` and `shared` are by id."""
    rewards, shared = columns.get("rewards", {}), columns.get("shared", {})
    ended = over or {}
    steps = decisions([*asked], [*asked.values()], [rewards.get(agent, 0.0) for agent in asked])
    steps.group_id = np.full(len(asked), columns.get("group", 1), np.int32)
    steps.group_reward = np.array([shared.get(agent, 0.0) for agent in asked], np.float32)
    gone = terminals(
        [*ended],
        [*ended.values()],
        [rewards.get(agent, 0.0) for agent in ended],
        [columns.get("interrupted", False)] * len(ended),
    )
    gone.group_id = np.full(len(ended), columns.get("group", 1), np.int32)
    gone.group_reward = np.array([shared.get(agent, 0.0) for agent in ended], np.float32)
    trainer.observe(0, "Scripted", steps, gone)
    for _ in trainer.act():
        pass


def value_of(trainer: POCATrainer, *observations: float) -> float:
    """Return the value of a group whose members observe these numbers."""
    critic = trainer.optimizer.critic
    with torch.no_grad():
        _, seen = critic.embed(torch.tensor(observations).view(-1, 1))
        groups, _, numbers = critic.encode(seen, None, torch.arange(len(observations))[None])
        return critic.read(torch.cat([groups, groups, numbers], 1))[0].item()


def test_returns_and_advantages_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make(make_spec())
    observe(trainer, {0: 1.0})
    observe(trainer, {0: 2.0}, rewards={0: 0.0})
    observe(trainer, {}, {0: 3.0}, rewards={0: 1.0})
    learning = trainer.learning

    def estimate(store: Any, _: Any) -> tuple[np.ndarray, np.ndarray]:
        learning._baselines = np.array([[0.6], [0.9]], np.float32)
        return np.array([[0.5], [0.4]], np.float32), np.array([[0.4], [0.0]], np.float32)

    monkeypatch.setattr(learning, "estimate", estimate)
    monkeypatch.setattr("mlhooks.training.group_learning.has_groups", lambda _: False)
    batch = learning.rollout(trainer.store)
    # The last return is 1, and the first one 0.9 * ((1 - 0.5) * 0.4 + 0.5 * 1).
    assert batch.returns.flatten().tolist() == pytest.approx([0.63, 1.0])
    assert batch.advantages.flatten().tolist() == pytest.approx([0.03, 0.1])
    assert batch.baselines.flatten().tolist() == pytest.approx([0.6, 0.9])


def test_extrinsic_reward_is_ones_own_and_the_mates_and_the_groups() -> None:
    trainer = make(make_spec())
    observe(trainer, {0: 1.0, 1: 2.0, 2: 3.0})
    paid = {"rewards": {0: 1.0, 1: 2.0, 2: 3.0}, "shared": dict.fromkeys(range(3), 10.0)}
    observe(trainer, {0: 4.0, 1: 5.0, 2: 6.0}, **paid)
    seen: list[Batch] = []
    signal = trainer.reward_signals[0]
    evaluate = signal.evaluate
    signal.evaluate = lambda batch: seen.append(batch) or evaluate(batch)  # type: ignore[method-assign]
    trainer.learning.rollout(trainer.store)
    assert signal.evaluate(seen[0]).tolist() == [16.0, 16.0, 16.0]


def returns_after(trainer: POCATrainer) -> dict[float, float]:
    """Return the returns of rows by their observation."""
    batch = trainer.learning.rollout(trainer.store)
    counts = torch.ones(len(batch), dtype=torch.bool) if batch.loss_mask is None else batch.loss_mask
    return dict(zip(batch.features[counts, 0].tolist(), batch.returns[counts, 0].tolist(), strict=True))


def test_member_that_ends_alone_is_followed_by_its_group() -> None:
    trainer = make(make_spec())
    observe(trainer, {0: 1.0, 1: 2.0})
    observe(trainer, {1: 4.0}, {0: 3.0}, rewards={0: 0.25})
    found = returns_after(trainer)
    assert found[1.0] == pytest.approx(0.25 + 0.9 * value_of(trainer, 3.0, 4.0), rel=1e-4)
    # The row of the one that goes on is followed by the value of those that are left, and got its mate's reward.
    assert found[2.0] == pytest.approx(0.25 + 0.9 * value_of(trainer, 4.0), rel=1e-4)


def test_nothing_follows_where_the_whole_group_ends() -> None:
    trainer = make(make_spec())
    observe(trainer, {0: 1.0, 1: 2.0})
    # A member dies in the very step in which its group is rewarded, and both begin again under the same group id.
    observe(trainer, {0: 5.0, 1: 6.0}, {0: 3.0, 1: 4.0}, shared={0: 2.0, 1: 2.0})
    assert returns_after(trainer) == pytest.approx({1.0: 2.0, 2.0: 2.0})


def test_final_observations_follow_where_the_whole_group_is_interrupted() -> None:
    trainer = make(make_spec())
    observe(trainer, {0: 1.0, 1: 2.0})
    observe(trainer, {0: 5.0, 1: 6.0}, {0: 3.0, 1: 4.0}, interrupted=True)
    found = returns_after(trainer)
    following = 0.9 * value_of(trainer, 3.0, 4.0)
    assert found == pytest.approx({1.0: following, 2.0: following}, rel=1e-4)


def test_member_that_decides_rarely_is_there_all_the_time() -> None:
    trainer = make(make_spec(), hyperparameters={"lambd": 0.0})
    observe(trainer, {0: 1.0, 1: 2.0})
    for tick in range(1, 4):
        observe(trainer, {0: 1.0 + tick / 8})
    observe(trainer, {0: 1.5, 1: 2.5})
    found = returns_after(trainer)
    assert found[1.125] == pytest.approx(0.9 * value_of(trainer, 1.25, 2.0), rel=1e-4)
    assert found[2.0] == pytest.approx(0.9 * value_of(trainer, 1.5, 2.5), rel=1e-4)


def make_optimizer(spec: BehaviorSpec, **hyperparameters: Any) -> POCAOptimizer:
    torch.manual_seed(0)
    settings = TrainerSettings(
        trainer_type="poca",
        hyperparameters=POCASettings(batch_size=4, buffer_size=12, beta=0.01, **hyperparameters),
        network_settings=NETWORK,
        reward_signals={"a": {}, "b": {}},
        max_steps=1000,
    )
    optimizer = POCAOptimizer(ActorPolicy("B", spec, settings, torch.device("cpu")), settings)
    with torch.no_grad():  # Nothing is to be small.
        for parameter in optimizer.critic.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))
    return optimizer


def grouped_batch(spec: BehaviorSpec, seed: int = 1) -> Batch:
    """Return 6 rows: a group of three, of which one decided earlier, another one of two, and an agent that is alone."""
    g, action = torch.Generator().manual_seed(seed), spec.action_spec
    members = np.array([[0, 1, 2], [3, 4, -1], [5, -1, -1]])
    decided = np.array([[1, 1, 0], [1, 1, 0], [1, 0, 0]], np.bool_)
    return Batch(
        features=torch.randn(6, 3, generator=g),
        continuous=torch.randn(6, action.continuous_size, generator=g),
        discrete=torch.zeros(6, action.discrete_size, dtype=torch.int64),
        log_probs=torch.randn(6, action.continuous_size + action.discrete_size, generator=g) - 2.0,
        values=torch.randn(6, 2, generator=g),
        baselines=torch.randn(6, 2, generator=g),
        returns=torch.randn(6, 2, generator=g),
        advantages=torch.randn(6, 1, generator=g),
        loss_mask=torch.tensor([True, True, False, True, True, True]),
        cells=Cells(members, decided),
    )


@pytest.mark.parametrize(
    ("continuous", "branches", "clips"), [(2, (), True), (0, (3, 2), True), (2, (3,), True), (2, (3,), False)]
)
def test_loss_is_that_of_the_formulas(continuous: int, branches: tuple[int, ...], clips: bool) -> None:
    spec = make_spec(3, continuous, branches)
    assert POCASettings().baseline_clipping
    optimizer, batch = make_optimizer(spec, baseline_clipping=clips), grouped_batch(spec)
    found = optimizer.loss(batch)
    log_probs, entropies = optimizer.policy.evaluate(batch)
    critic = optimizer.critic
    encodings, seen = critic.embed(batch.features)
    acting = critic.embed_actions(encodings, batch.continuous, batch.discrete)
    policy, value, baseline, entropy = [], [], [], []
    for row, mates in {0: [1, 2], 1: [0, 2], 3: [4], 4: [3], 5: []}.items():
        everybody = torch.stack([seen[row], *(seen[mate] for mate in mates)])[None]
        others = torch.stack([seen[row], *(acting[mate] for mate in mates)])[None]
        number = torch.tensor([[2.0 * (1 + len(mates)) - 1.0]])
        nobody = torch.zeros(1, 1 + len(mates))
        old_baselines = batch.baselines[row] if clips else None
        for entities, old, into in ((everybody, None, value), (others, old_baselines, baseline)):
            heads = critic.heads(torch.cat([critic.body(critic.attention(entities, nobody)), number], 1))[0]
            for signal in range(2):
                target = batch.returns[row, signal]
                error = (heads[signal] - target) ** 2
                if old is not None:
                    near = old[signal] + (heads[signal] - old[signal]).clamp(-0.2, 0.2)
                    error = torch.maximum(error, (near - target) ** 2)
                into.append(error)
        for dimension in range(log_probs.shape[1]):
            ratio = torch.exp(log_probs[row, dimension] - batch.log_probs[row, dimension])
            advantage = batch.advantages[row, 0]
            policy.append(-torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage))
        parts = entropies[row, :continuous].mean() if continuous else 0.0
        entropy.append(parts + entropies[row, continuous:].sum())
    policy_loss, value_loss, baseline_loss, mean_entropy = (
        torch.stack(terms).mean() for terms in (policy, value, baseline, entropy)
    )
    wanted = policy_loss + 0.5 * (value_loss + 0.5 * baseline_loss) - 0.01 * mean_entropy
    torch.testing.assert_close(found["loss"], wanted)
    torch.testing.assert_close(found["Losses/Baseline Loss"], baseline_loss)
    torch.testing.assert_close(found["Losses/Value Loss"], value_loss)


def test_minibatches_keep_groups_together_and_every_row_counts_once() -> None:
    spec = make_spec(3, 2, (3,))
    optimizer, batch = make_optimizer(spec), grouped_batch(spec)
    values, baselines = optimizer.group_values(batch)
    counted = []
    for part in batch.minibatches(1, np.random.default_rng(0)):
        found = optimizer.group_values(part)
        mask = torch.ones(len(part), dtype=torch.bool) if part.loss_mask is None else part.loss_mask
        rows = [int((batch.features == row).all(1).nonzero()) for row in part.features]
        for place in mask.nonzero().flatten().tolist():
            counted.append(rows[place])
            for one, other in zip(found, (values, baselines), strict=True):
                torch.testing.assert_close(one[place], other[rows[place]])
    assert sorted(counted) == [0, 1, 3, 4, 5]


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
