from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import mlhooks
from builtin_plugins.dqn import DQNOptimizer, DQNSettings, DQNTrainer, QPolicy
from mlhooks.errors import UnsupportedError
from mlhooks.nn.networks import QNetwork
from mlhooks.plugins import load_plugins
from mlhooks.settings import TrainerSettings
from mlhooks.training.batch import Batch
from tests.scripted import Env, config, train
from tests.steps import decisions, make_spec, terminals


def make_trainer(branches: tuple[int, ...] = (2,), continuous: int = 0, **hyperparameters: Any) -> DQNTrainer:
    torch.manual_seed(0)
    settings = TrainerSettings(
        trainer_type="dqn",
        hyperparameters=DQNSettings(**{"batch_size": 4, "buffer_size": 100, "gamma": 0.5, **hyperparameters}),
        network_settings={"hidden_units": 8, "num_layers": 1},
        reward_signals={"extrinsic": {"strength": 2.0}},
        max_steps=1000,
    )
    return DQNTrainer(
        behavior_name="B",
        behavior_spec=make_spec(continuous=continuous, branches=branches),
        settings=settings,
        plugins=load_plugins(autoload=False),
        device=torch.device("cpu"),
        seed=1,
    )


class Table(torch.nn.Module):
    """Q values by the observation's number."""

    def __init__(self, network: QNetwork, values: dict[float, list[float]]) -> None:
        super().__init__()
        self.branches, self.values = network.branches, values

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return torch.tensor([self.values[float(row[0])] for row in features], dtype=torch.float32)


def play(trainer: DQNTrainer, mask: list[list[np.ndarray] | None] | None = None) -> None:
    """Play observations 0, 1, 2 with rewards 1 and 3, an interruption at 3 with 5; then 4, and the end at 5 with 7."""
    masks = mask or [None] * 4
    for t, reward in enumerate([0.0, 1.0, 3.0]):
        trainer.observe(0, "B", decisions([9], [t], [reward], masks[t]), terminals([], [], [], []))
        list(trainer.act())
    trainer.observe(0, "B", decisions([9], [4], [0.0], masks[3]), terminals([9], [3], [5.0], [True]))
    list(trainer.act())
    trainer.observe(0, "B", decisions([], [], []), terminals([9], [5], [7.0], [False]))


ONLINE = {0.0: [0, 0], 1.0: [1, 9], 2.0: [5, 4], 3.0: [2, 6], 4.0: [1, 1], 5.0: [100, 100]}
TARGET = {0.0: [0, 0], 1.0: [8, 2], 2.0: [10, 20], 3.0: [30, 40], 4.0: [50, 60], 5.0: [100, 100]}


@pytest.mark.parametrize(
    ("hyperparameters", "expected"),
    [
        # Strength 2 doubles the rewards, gamma is 0.5, and the rows are 0, 1, 2 (interrupted) and 4 (ended).
        ({}, [2 + 0.5 * 8, 6 + 0.5 * 20, 10 + 0.5 * 40, 14]),
        ({"double_q": True}, [2 + 0.5 * 2, 6 + 0.5 * 10, 10 + 0.5 * 40, 14]),
        ({"n_step": 2}, [2 + 0.5 * 6 + 0.25 * 20, 6 + 0.5 * 10 + 0.25 * 40, 10 + 0.5 * 40, 14]),
        ({"n_step": 3}, [2 + 0.5 * 6 + 0.25 * 10 + 0.125 * 40, 6 + 0.5 * 10 + 0.25 * 40, 10 + 0.5 * 40, 14]),
    ],
)
def test_targets_equal_hand_worked_ones(hyperparameters: dict[str, Any], expected: list[float]) -> None:
    trainer = make_trainer(**hyperparameters)
    play(trainer)
    optimizer = trainer.optimizer
    assert isinstance(optimizer, DQNOptimizer)
    trainer.store.draw = lambda size, rng: np.arange(4)  # type: ignore[method-assign]
    batch = trainer.learning.sample(trainer.store, 4)
    optimizer.target = Table(trainer.policy.network, TARGET)
    trainer.policy.network = Table(trainer.policy.network, ONLINE)  # type: ignore[assignment]
    assert batch.features[:, 0].tolist() == [0, 1, 2, 4]
    assert optimizer.targets(batch).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("double_q", [False, True])
def test_masked_actions_are_left_out_of_the_target(double_q: bool) -> None:
    trainer = make_trainer(double_q=double_q)
    forbid_best = {1: 0, 2: 1}  # These are the target's best actions there.
    masks: list[list[np.ndarray] | None] = [
        [np.eye(2, dtype=bool)[[forbid_best[t]]]] if t in forbid_best else None for t in range(4)
    ]
    play(trainer, masks)
    optimizer = trainer.optimizer
    assert isinstance(optimizer, DQNOptimizer)
    trainer.store.draw = lambda size, rng: np.arange(4)  # type: ignore[method-assign]
    batch = trainer.learning.sample(trainer.store, 4)
    optimizer.target = Table(trainer.policy.network, TARGET)
    trainer.policy.network = Table(trainer.policy.network, ONLINE)  # type: ignore[assignment]
    assert optimizer.targets(batch).tolist() == pytest.approx([2 + 0.5 * 2, 6 + 0.5 * 10, 10 + 0.5 * 40, 14])


@pytest.mark.parametrize("ends", [[True, False], [False, True], [False, False]])
def test_nothing_follows_an_end_that_any_signal_heeds(ends: list[bool]) -> None:
    trainer = make_trainer(branches=(2,))
    optimizer = trainer.optimizer
    assert isinstance(optimizer, DQNOptimizer)
    optimizer.target = Table(trainer.policy.network, {1.0: [4, 2]})
    batch = Batch(
        features=torch.zeros(1, 1),
        continuous=torch.zeros(1, 0),
        discrete=torch.tensor([[1]]),
        signal_rewards=torch.tensor([[4.0, 6.0]]),
        next_features=torch.ones(1, 1),
        discounts=torch.tensor([[0.0 if end else 0.5 for end in ends]]),
    )
    assert optimizer.targets(batch).tolist() == [10 + (0 if any(ends) else 0.5 * 4)]


def test_target_of_several_branches_is_their_mean() -> None:
    trainer = make_trainer(branches=(2, 3))
    optimizer = trainer.optimizer
    assert isinstance(optimizer, DQNOptimizer)
    optimizer.target = Table(trainer.policy.network, {1.0: [4, 2, 1, 8, 3]})
    batch = Batch(
        features=torch.zeros(1, 1),
        continuous=torch.zeros(1, 0),
        discrete=torch.tensor([[1, 2]]),
        signal_rewards=torch.tensor([[4.0, 6.0]]),
        next_features=torch.ones(1, 1),
        discounts=torch.tensor([[0.5, 0.5]]),
    )
    assert optimizer.targets(batch).tolist() == [10 + 0.5 * (4 + 8) / 2]
    losses = optimizer.loss(batch)
    values = trainer.policy.network(batch.features)[0].detach()
    expected = sum(abs(13 - float(values[i])) - 0.5 for i in (1, 4)) / 2  # Huber beyond 1
    assert float(losses["loss"].detach()) == pytest.approx(expected, rel=1e-5)
    losses["loss"].backward()
    gradient = trainer.policy.network.advantages.bias.grad
    assert gradient is not None
    assert gradient.tolist() == [0.0, -0.5, 0.0, 0.0, -0.5]


def test_dueling_values_are_the_state_value_plus_centered_advantages() -> None:
    network = make_trainer(branches=(2, 3), dueling=True).policy.network
    advantages = torch.tensor([[1.0, 3.0, 0.0, 3.0, 6.0]])
    expected = [[10 - 1, 10 + 1, 10 - 3, 10 + 0, 10 + 3]]
    assert network.combine(advantages, torch.tensor([[10.0]])).tolist() == expected
    assert network.combine(advantages.numpy(), np.array([[10.0]], np.float32)).tolist() == expected


def test_epsilon_is_drawn_for_each_agent_and_falls_with_the_steps() -> None:
    trainer = make_trainer(branches=(4,), exploration_initial_eps=0.6, exploration_final_eps=0.1, exploration_steps=100)
    assert [trainer.epsilon(step) for step in (0, 50, 100, 900)] == pytest.approx([0.6, 0.35, 0.1, 0.1])
    policy = trainer.policy
    policy.epsilon = 0.5
    rng = np.random.default_rng(0)
    obs = [np.zeros((64, 1), np.float32)]
    drawn = np.stack([policy.act(obs, None, rng).discrete[:, 0] for _ in range(500)])
    greedy = np.bincount(drawn.ravel()).argmax()
    share = (drawn == greedy).mean(1)  # This is the share of the agents, per call.
    assert share.mean() == pytest.approx(0.5 + 0.5 / 4, abs=0.01)
    assert share.std() == pytest.approx((0.625 * 0.375 / 64) ** 0.5, rel=0.15)  # All or none would give 0.48.
    assert (drawn == greedy).mean(0) == pytest.approx(np.full(64, 0.625), abs=0.1)  # This is the share by agent.
    policy.deterministic = True
    assert (policy.act(obs, None, rng).discrete == greedy).all()


@pytest.mark.parametrize("epsilon", [0.0, 1.0])
def test_masked_actions_are_never_taken(epsilon: float) -> None:
    policy = make_trainer(branches=(3, 2)).policy
    policy.epsilon = epsilon
    rng = np.random.default_rng(0)
    mask = np.array([[False, True, False, True, False]] * 10_000)
    for _ in range(100):
        discrete = policy.act([np.zeros((10_000, 1), np.float32)], mask, rng).discrete
        assert not (discrete[:, 0] == 1).any()
        assert (discrete[:, 1] == 1).all()


def test_values_are_not_asked_for_where_all_agents_explore(monkeypatch: pytest.MonkeyPatch) -> None:
    policy, asked = make_trainer(branches=(2, 3)).policy, []
    values = policy._values
    monkeypatch.setattr(policy, "_values", lambda features: asked.append(len(features)) or values(features))
    obs = [np.zeros((500, 1), np.float32)]
    policy.epsilon = 1.0
    drawn = policy.act(obs, None, np.random.default_rng(0)).discrete
    assert (np.bincount(drawn[:, 0]) > 200).all()
    assert (np.bincount(drawn[:, 1]) > 120).all()
    assert asked == []
    policy.epsilon = 0.5
    policy.act(obs, None, np.random.default_rng(0))
    assert asked == [500]


def test_first_end_of_an_agent_that_never_decided_is_ignored() -> None:
    trainer = make_trainer()
    trainer.observe(0, "B", decisions([], [], []), terminals([9], [5], [7.0], [False]))
    assert (trainer.step, trainer.episodes.finished, list(trainer.act())) == (0, 0, [])


@pytest.mark.parametrize("dueling", [False, True])
def test_acting_reads_the_values_of_the_network(dueling: bool) -> None:
    policy = make_trainer(branches=(3, 2), dueling=dueling).policy
    assert isinstance(policy, QPolicy)
    features = np.random.default_rng(0).normal(size=(50, 1)).astype(np.float32)
    expected = policy.network(torch.from_numpy(features)).detach().numpy()
    np.testing.assert_allclose(policy._values(features), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("tau", "copies"), [(1.0, 2), (0.25, None)])
def test_target_network_is_blended_or_copied_at_intervals(tau: float, copies: int | None) -> None:
    trainer = make_trainer(tau=tau, target_update_interval=10, learning_rate=0.1)
    play(trainer)
    optimizer = trainer.optimizer
    assert isinstance(optimizer, DQNOptimizer)
    online, target = trainer.policy.network.advantages.weight, optimizer.target.advantages.weight
    assert torch.equal(online, target)
    copied = 0
    for step in range(30):
        optimizer.set_step(step)
        before, was_online = target.clone(), online.clone()
        optimizer.update(trainer.learning.sample(trainer.store, 4))
        if tau == 1.0:
            changed = not torch.equal(before, target)
            copied += changed
            assert torch.equal(was_online, target) or not changed
        else:
            torch.testing.assert_close(target, before + 0.25 * (online - before))
    assert copies is None or copied == copies


def test_updates_follow_the_steps_without_a_burst_after_the_start() -> None:
    trainer = make_trainer(steps_per_update=2.5, buffer_init_steps=10)
    updates = []
    for t in range(31):
        trainer.observe(0, "B", decisions([9], [t], [0.0]), terminals([], [], [], []))
        list(trainer.act())
        if trainer.ready_to_update():
            trainer.update()
            updates.append(trainer.step)
    # There is one every 2.5 steps from 9 on, and none at the last step.
    assert updates == [12, 14, 17, 19, 22, 24, 27, 29]


def test_continuous_actions_are_refused() -> None:
    told = (
        r"has continuous actions \(2\) and discrete actions \(\[2\]\), and the trainer type 'dqn' takes discrete "
        r"actions only\. Choose another trainer type that takes them \(a2c, poca, ppo, sac\)"
    )
    with pytest.raises(UnsupportedError, match=told):
        make_trainer(continuous=2)


DQN = {
    "trainer_type": "dqn",
    "hyperparameters": {
        "batch_size": 16,
        "buffer_size": 200,
        "steps_per_update": 4,
        "save_replay_buffer": True,
        "learning_rate": 0.01,
        "n_step": 3,
        "double_q": True,
        "dueling": True,
    },
}


def test_killed_and_resumed_with_its_replay_buffer_it_ends_with_equal_weights(tmp_path: Path) -> None:
    import shutil

    from mlhooks import hookimpl

    class Snapshot:
        @hookimpl
        def checkpoint_saved(self, checkpoint: Any) -> None:
            if checkpoint.step in {400, 600, 1000}:
                shutil.copytree(tmp_path / "whole" / "run", tmp_path / str(checkpoint.step) / "run")

    settings = config("Basic", "sim:Basic", max_steps=1200, **DQN)
    train(settings, tmp_path / "whole", Snapshot())
    whole = (tmp_path / "whole" / "run" / "Basic" / "Basic-1200.pt").read_bytes()
    for step in ("400", "600", "1000"):
        train(settings, tmp_path / step, resume=True)
        assert (tmp_path / step / "run" / "Basic" / "Basic-1200.pt").read_bytes() == whole


def test_resume_without_its_replay_buffer_begins_to_collect_again_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = config("Basic", "sim:Basic", max_steps=400, **DQN)
    train(settings, tmp_path / "exact")
    settings["behaviors"]["Basic"]["max_steps"] = 410
    train(settings, tmp_path / "exact", resume=True)
    assert "differ" not in caplog.text
    settings["behaviors"]["Basic"]["max_steps"] = 400
    settings["behaviors"]["Basic"]["hyperparameters"]["save_replay_buffer"] = False
    first = train(settings, tmp_path)
    settings["behaviors"]["Basic"]["max_steps"] = 410
    second = train(settings, tmp_path, resume=True)
    assert first.trainers["Basic"].updates == second.trainers["Basic"].updates
    store = second.trainers["Basic"].store
    assert store.size == 11
    assert "'Basic' was saved without its replay buffer, which fills again: the resumed run will differ" in caplog.text


def test_learns_which_action_is_rewarded(tmp_path: Path) -> None:
    settings = config("Corridor", "test:x", max_steps=3000, **DQN)
    settings["behaviors"]["Corridor"]["hyperparameters"] |= {"exploration_initial_eps": 0.5}
    run = train(settings, tmp_path, Env())
    assert run.trainers["Corridor"].mean_reward == pytest.approx(5.0, abs=0.4)


def test_loaded_policies_explore_as_at_their_step_and_not_as_at_the_first(tmp_path: Path) -> None:
    settings = config("Corridor", "test:x", max_steps=100, **DQN)
    settings["behaviors"]["Corridor"]["hyperparameters"] |= {
        "exploration_initial_eps": 1.0,
        "exploration_final_eps": 0.0,
        "exploration_steps": 50,
    }
    train(settings, tmp_path, Env())
    policy = mlhooks.load(tmp_path / "run")
    seen = np.zeros((64, *policy.behavior_spec.observation_specs[0].shape), np.float32)
    moves = np.asarray(policy.predict(seen, deterministic=False))
    assert np.ptp(moves) == 0  # 64 random actions are not all alike.
