"""Behavioral cloning: its loss, its schedule, what it changes, and demonstrations that it refuses."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from mlagents_envs.base_env import ActionSpec, BehaviorSpec, DimensionProperty, ObservationSpec, ObservationType
from torch import nn
from torch.nn import functional

import mlhooks
from builtin_plugins.ppo import PPOOptimizer, PPOSettings
from mlhooks import hookimpl
from mlhooks.cli import main
from mlhooks.demos.records import Records
from mlhooks.demos.writing import write_demo
from mlhooks.errors import DemonstrationError, PluginError, SettingsError
from mlhooks.nn.heads import ActionParameters, SampledActions
from mlhooks.plugin import Batch, OffPolicyHyperparameters, OffPolicyTrainer, Supports, TorchOptimizer
from mlhooks.settings import BehavioralCloningSettings, MemorySettings, NetworkSettings, TrainerSettings
from mlhooks.sims.basic import Basic
from mlhooks.training.cloning import BehavioralCloning
from mlhooks.training.policy import ActorPolicy
from mlhooks.training.recording import Recorder, Scripted
from mlhooks.training.squashed_policy import SquashedPolicy
from tests.reliability.test_exact_resume import Interrupt
from tests.reliability.test_kills import weights_of
from tests.scripted import QUIET, Env, config, train

KEY = "Losses/Pretraining Loss"
CPU = torch.device("cpu")


def behavior(actions: ActionSpec, size: int = 3) -> BehaviorSpec:
    return BehaviorSpec([ObservationSpec((size,), (DimensionProperty.NONE,), ObservationType.DEFAULT, "eye")], actions)


def expert(path: Path, actions: ActionSpec, steps: int = 10, size: int = 3) -> Path:
    """Return one episode of so many decisions."""
    rng, done = np.random.default_rng(1), np.arange(steps + 1) == steps
    discrete = [rng.integers(0, branch, steps + 1) for branch in actions.discrete_branches]
    records = Records(
        behavior_name="Walk",
        spec=behavior(actions, size),
        obs=[rng.standard_normal((steps + 1, size)).astype(np.float32)],
        reward=np.zeros(steps + 1, np.float32),
        done=done,
        interrupted=np.zeros(steps + 1, np.bool_),
        acts=~done,
        continuous=rng.uniform(-1, 1, (steps + 1, actions.continuous_size)).astype(np.float32),
        discrete=np.array(discrete).T.reshape(steps + 1, -1).astype(np.int64),
    )
    write_demo(path, records)
    return path


def settings(path: Path | str = "expert.demo", normalize: bool = False, **section: Any) -> TrainerSettings:
    return TrainerSettings(
        hyperparameters=PPOSettings(batch_size=4, buffer_size=40, learning_rate=0.01),
        network_settings=NetworkSettings(hidden_units=8, num_layers=1, normalize=normalize),
        behavioral_cloning=BehavioralCloningSettings(demo_path=str(path), **section),
    )


def made(given: TrainerSettings, actions: ActionSpec, actor: nn.Module | None = None) -> BehavioralCloning:
    torch.manual_seed(0)
    policy = ActorPolicy("Walk", behavior(actions), given, CPU, actor)
    return BehavioralCloning(policy, PPOOptimizer(policy, given), given, np.random.default_rng(0))


class Constant(nn.Module):
    """An actor whose distributions are the same whatever it sees."""

    def __init__(self, mean: list[float] | None, log_std: float, logits: list[float] | None) -> None:
        super().__init__()
        self.mean = None if mean is None else nn.Parameter(torch.tensor([mean]))
        self.log_std = nn.Parameter(torch.full((len(mean or []),), float(log_std)))
        self.logits = None if logits is None else nn.Parameter(torch.tensor([logits]))

    def forward(self, features: torch.Tensor) -> ActionParameters:
        rows = len(features)
        mean, logits = (None if part is None else part.expand(rows, -1) for part in (self.mean, self.logits))
        return ActionParameters(mean, None if mean is None else self.log_std, logits)


def loss(
    actor: Constant, actions: ActionSpec, continuous: list[float], discrete: list[int], noise: float = 1.0
) -> float:
    cloning, rows = made(settings(), actions, actor), 2
    computed = cloning.loss(
        torch.zeros(rows, 3),
        torch.tensor([continuous] * rows).reshape(rows, -1),
        torch.tensor([discrete] * rows, dtype=torch.int64).reshape(rows, -1),
        torch.full((rows, len(continuous)), noise),
    )
    return float(computed.detach())


def test_loss_of_continuous_actions_is_the_squared_error_of_a_sample():
    assert loss(Constant([0.5], -20, None), ActionSpec(1, ()), [0.2], []) == pytest.approx(0.09, rel=1e-5)
    # The sample is 0.5 + exp(0) * -1, and the mean over dimensions is taken.
    off = loss(Constant([0.5, 0.0], 0, None), ActionSpec(2, ()), [0.2, -1.0], [], noise=-1.0)
    assert off == pytest.approx((0.7**2 + 0.0) / 2)


def test_loss_of_discrete_actions_is_the_mean_cross_entropy_of_the_branches():
    assert loss(Constant(None, 0, [0.0, 0.0]), ActionSpec(0, (2,)), [], [1]) == pytest.approx(math.log(2))
    both = loss(Constant(None, 0, [0.0, 0.0, 1.0, 1.0, 1.0]), ActionSpec(0, (2, 3)), [], [1, 0])
    assert both == pytest.approx((math.log(2) + math.log(3)) / 2)


def test_loss_of_hybrid_actions_is_the_sum():
    hybrid = loss(Constant([0.5], -20, [0.0, 0.0]), ActionSpec(1, (2,)), [0.2], [0])
    assert hybrid == pytest.approx(0.09 + math.log(2), rel=1e-5)


def test_rows_that_are_padding_do_not_count():
    cloning = made(settings(), ActionSpec(0, (2,)), Constant(None, 0, [0.0, 1.0]))
    given = torch.zeros(3, 3), torch.zeros(3, 0), torch.tensor([[1], [1], [0]]), torch.zeros(3, 0)
    counted = cloning.loss(*given, torch.tensor([True, True, False]))
    assert float(counted.detach()) == pytest.approx(math.log(1 + math.exp(-1)))


def test_samples_of_environments_actions_are_those_that_become_these_actions():
    policy = ActorPolicy("Walk", behavior(ActionSpec(2, ())), settings(), CPU)
    given = np.array([[0.5, -1.0], [0.0, 1.0]], np.float32)
    samples = policy.from_environment(given)
    assert samples.tolist() == [[1.5, -3.0], [0.0, 3.0]]
    nothing = np.zeros((2, 0), np.int64)
    assert policy.action_tuple(SampledActions(samples, nothing, nothing)).continuous.tolist() == given.tolist()


def test_samples_of_a_squashed_policy_are_the_actions():
    policy = SquashedPolicy("Walk", behavior(ActionSpec(2, ())), settings(), CPU)
    given = np.array([[0.5, -1.0]], np.float32)
    assert policy.from_environment(given).tolist() == given.tolist()
    drawn = policy.drawn(torch.tensor([[0.5, 0.0]]), torch.zeros(1, 2), torch.tensor([[1.0, -1.0]]))
    assert drawn[0].tolist() == pytest.approx([math.tanh(1.5), math.tanh(-1.0)])


@pytest.mark.usefixtures("each_way")
@pytest.mark.parametrize("actions", [ActionSpec(2, ()), ActionSpec(0, (3, 2)), ActionSpec(1, (2,))])
def test_steps_are_those_of_adam_in_torch(tmp_path, actions):
    path = expert(tmp_path / "expert.demo", actions)
    cloning = made(settings(path, batch_size=10, num_epoch=3, strength=0.5), actions)
    torch.manual_seed(0)
    reference = ActorPolicy("Walk", behavior(actions), settings(), CPU).actor
    for ours, theirs in zip(cloning.policy.actor.parameters(), reference.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    demonstration, rng, losses = cloning.load(), np.random.default_rng(0), []
    adam = torch.optim.Adam(reference.parameters(), lr=0.5 * 0.01)
    for _ in range(3):
        rows = rng.permutation(10)
        features = torch.from_numpy(demonstration.obs(rows)[0])
        wanted = torch.from_numpy(3 * demonstration.continuous[rows])
        noise = torch.from_numpy(rng.standard_normal(wanted.shape, np.float32))
        mean, log_std, logits = reference(features)
        total = torch.zeros(())
        if mean is not None:
            total = total + functional.mse_loss(mean + log_std.exp() * noise, wanted)
        if logits is not None:
            parts = logits.split(actions.discrete_branches, 1)
            expected = torch.from_numpy(demonstration.discrete[rows])
            total = total + sum(functional.cross_entropy(p, expected[:, i]) for i, p in enumerate(parts)) / len(parts)
        losses.append(float(total.detach()))
        adam.zero_grad()
        total.backward()
        adam.step()
    reported = cloning.update(0)
    assert reported.keys() == {KEY}
    assert float(reported[KEY]) == pytest.approx(np.mean(losses), rel=1e-5)
    for ours, theirs in zip(cloning.policy.actor.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_actor_alone_is_changed_and_the_other_adam_is_left_alone(tmp_path):
    actions = ActionSpec(0, (3,))
    cloning = made(settings(expert(tmp_path / "a.demo", actions), normalize=True), actions)
    optimizer = cloning.optimizer
    before = {name: [p.detach().clone() for p in part.parameters()] for name, part in optimizer.parts().items()}
    moments = optimizer.torch_optimizer.exp_avg.clone()
    cloning.update(0)
    same = {
        name: all(torch.equal(*pair) for pair in zip(before[name], part.parameters(), strict=True))
        for name, part in optimizer.parts().items()
    }
    assert same == {"actor": False, "inputs": True, "critic": True}
    assert torch.equal(optimizer.torch_optimizer.exp_avg, moments)
    assert optimizer.torch_optimizer.steps == 0
    assert cloning.policy.inputs.normalizer.count == 0
    assert cloning.descent.flat.data.data_ptr() == optimizer.flat.data.data_ptr()


@pytest.mark.parametrize(
    ("section", "steps"),
    [
        ({}, [4, 4] * 3),  # There are 10 transitions in minibatches of 4, and ML-Agents' 3 epochs.
        ({"num_epoch": 2}, [4, 4] * 2),
        ({"batch_size": 3, "num_epoch": 1}, [3, 3, 3]),
        ({"batch_size": 50, "num_epoch": 1}, [10]),
        ({"samples_per_update": 4, "num_epoch": 2}, [4, 4]),
        ({"samples_per_update": 7, "num_epoch": 1}, [4]),
        ({"samples_per_update": 3, "num_epoch": 1}, [4, 4]),  # Less than a minibatch means all, as in ML-Agents.
    ],
)
def test_minibatches(tmp_path, section, steps):
    actions = ActionSpec(0, (3,))
    cloning = made(settings(expert(tmp_path / "a.demo", actions), **section), actions)
    drawn = list(cloning._minibatches(cloning.load()))
    assert [units.size for units in drawn] == steps
    first = np.concatenate(drawn[: len(steps) // cloning.epochs]).ravel()
    assert len(set(first.tolist())) == len(first)
    cloning.update(0)
    assert cloning.descent.torch_optimizer.steps == len(steps)


def with_memory(path: Path, **section: Any) -> TrainerSettings:
    given = settings(path, **section)
    given.network_settings.memory = MemorySettings(sequence_length=4, memory_size=6)
    return given


def test_sequences_of_a_memory_are_units_of_its_length(tmp_path):
    actions = ActionSpec(0, (3,))
    cloning = made(with_memory(expert(tmp_path / "a.demo", actions), num_epoch=1, batch_size=8), actions)
    # 10 transitions are sequences of 4, 4 and 2, which ML-Agents counts as 12: 12 // (8 // 4) // 4 minibatches.
    (units,) = cloning._minibatches(cloning.load())
    assert units.shape == (2, 4)
    kinds = {(0, 1, 2, 3), (4, 5, 6, 7), (8, 9, -1, -1)}
    assert {tuple(unit) for unit in units.tolist()} < kinds


@pytest.mark.parametrize(("samples", "steps"), [(0, 3), (3, 3), (4, 1), (7, 1), (8, 2), (100, 3)])
def test_samples_of_each_pass_are_transitions_of_sequences(tmp_path, samples, steps):
    actions = ActionSpec(0, (3,))
    path = expert(tmp_path / "a.demo", actions)  # 10 transitions are 3 sequences, each of which is a minibatch of 4.
    cloning = made(with_memory(path, num_epoch=1, batch_size=4, samples_per_update=samples), actions)
    assert len(list(cloning._minibatches(cloning.load()))) == steps


def test_memory_is_trained_on_sequences_that_begin_with_nothing_and_whose_padding_does_not_count(tmp_path):
    actions = ActionSpec(0, (3,))
    cloning = made(with_memory(expert(tmp_path / "a.demo", actions), num_epoch=1, batch_size=12), actions)
    demonstration, actor = cloning.load(), cloning.policy.actor
    with torch.no_grad():
        errors = []
        for rows in (slice(0, 4), slice(4, 8), slice(8, 10)):
            features = torch.from_numpy(demonstration.obs(rows)[0])
            logits = actor(features, torch.zeros(len(features), 6), len(features)).logits
            discrete = torch.from_numpy(demonstration.discrete[rows])[:, 0]
            errors += functional.cross_entropy(logits, discrete, reduction="none").tolist()
    assert float(cloning.update(0)[KEY]) == pytest.approx(np.mean(errors), rel=1e-5)


def test_schedule_falls_linearly_and_ends_imitation(tmp_path):
    actions = ActionSpec(0, (3,))
    cloning = made(settings(expert(tmp_path / "a.demo", actions), steps=1000, strength=0.5), actions)
    assert cloning.learning_rate(0) == pytest.approx(0.005)
    cloning.update(500)
    assert cloning.descent.torch_optimizer.param_groups[0]["lr"] == pytest.approx(0.0025, rel=1e-6)
    before = cloning.descent.flat.data.clone()
    for step in (1000, 5000):
        assert float(cloning.update(step)[KEY]) == 0
    assert torch.equal(cloning.descent.flat.data, before)


def test_without_steps_the_rate_is_constant():
    cloning = made(settings(strength=2.0), ActionSpec(0, (3,)))
    assert cloning.learning_rate(0) == cloning.learning_rate(10**9) == 0.02


@pytest.mark.parametrize("actions", [ActionSpec(2, ()), ActionSpec(1, (3,))])
def test_state_goes_on_exactly(tmp_path, actions):
    path = expert(tmp_path / "a.demo", actions)
    one, other = made(settings(path), actions), made(settings(path), actions)
    one.update(0)
    weights, state = one.policy.actor.state_dict(), one.state_dict()
    state = {"descent": {k: v.clone() if hasattr(v, "clone") else v for k, v in state["descent"].items()}} | {
        "rng": state["rng"]
    }
    other.policy.actor.load_state_dict({name: value.clone() for name, value in weights.items()})
    other.load_state_dict(state)
    for cloning in (one, other):
        cloning.update(7)
    assert torch.equal(one.descent.flat.data, other.descent.flat.data)
    assert torch.equal(one.descent.torch_optimizer.exp_avg_sq, other.descent.torch_optimizer.exp_avg_sq)


def test_policy_without_an_actor_is_refused():
    class Other:
        behavior_name = "Walk"

    with pytest.raises(PluginError, match="has a policy of type Other from a plugin"):
        BehavioralCloning(Other(), None, settings(), np.random.default_rng(0))  # type: ignore[arg-type]


class Losses:
    """Keeps what updates reported."""

    def __init__(self) -> None:
        self.losses: list[dict[str, float]] = []

    @hookimpl
    def update_finished(self, losses: dict[str, float]) -> None:
        self.losses.append(losses)


CORRIDOR = ActionSpec(0, (2,))


def cloned(path: Path | str, env: str = "Corridor", kind: str = "test:x", **more: Any) -> dict[str, Any]:
    return config(env, kind, max_steps=300, behavioral_cloning={"demo_path": str(path)}, **more)


@pytest.mark.parametrize("trainer_type", ["ppo", "a2c"])
def test_trainers_imitate_after_each_update_and_report_it(tmp_path, trainer_type):
    path, losses = expert(tmp_path / "a.demo", CORRIDOR), Losses()
    hyperparameters = {"learning_rate": 0.01}
    given = cloned(path, trainer_type=trainer_type, hyperparameters=hyperparameters)
    run = train(given, tmp_path, Env(), losses)
    assert len(losses.losses) == 3
    reported = [each[KEY] for each in losses.losses]
    assert reported[-1] < reported[0]
    cloning = run.trainers["Corridor"].learning.cloning
    assert cloning is not None
    assert cloning.descent.torch_optimizer.steps == 3 * 3  # 10 transitions are one minibatch in each of 3 epochs


class Still(TorchOptimizer):
    """Learns nothing by itself."""

    def loss(self, batch: Batch) -> dict[str, torch.Tensor]:
        return {"loss": 0.0 * self.policy.evaluate(batch)[0].mean()}


class OffPolicy(OffPolicyTrainer):
    """Imitates, off-policy."""

    hyperparameters_type = OffPolicyHyperparameters
    supports = Supports(behavioral_cloning=True, threaded=True)
    policy_type, optimizer_type = ActorPolicy, Still


class Offer:
    @hookimpl
    def get_trainer_types(self) -> dict[str, Any]:
        return {"imitator": OffPolicy}


@pytest.mark.parametrize("threaded", [False, True])
def test_off_policy_trainers_imitate_after_each_of_their_updates(tmp_path, threaded):
    path, losses = expert(tmp_path / "a.demo", CORRIDOR), Losses()
    hyperparameters = {"steps_per_update": 20, "batch_size": 20, "buffer_size": 100}
    given = cloned(path, trainer_type="imitator", hyperparameters=hyperparameters, threaded=threaded)
    run = train(given, tmp_path, Env(), Offer(), losses)
    trainer = run.trainers["Corridor"]
    cloning = trainer.learning.cloning
    assert cloning is not None
    assert trainer.updates > 5
    assert cloning.descent.torch_optimizer.steps == 3 * trainer.updates
    assert losses.losses[-1][KEY] < losses.losses[0][KEY]


@pytest.mark.parametrize(
    ("env", "actions", "size"), [("3DBall", ActionSpec(2, ()), 8), ("Basic", ActionSpec(0, (3,)), 20)]
)
def test_soft_actor_critic_imitates_after_each_update(tmp_path, env, actions, size):
    path, losses = expert(tmp_path / "a.demo", actions, size=size), Losses()
    hyperparameters = {"batch_size": 20, "buffer_size": 300, "steps_per_update": 10, "learning_rate": 0.003}
    given = cloned(path, env, f"sim:{env}", trainer_type="sac", hyperparameters=hyperparameters)
    run = train(given, tmp_path, losses)
    cloning = run.trainers[env].learning.cloning
    assert cloning is not None
    assert cloning.descent.torch_optimizer.steps == 3 * run.trainers[env].updates > 0
    assert losses.losses[-1][KEY] < losses.losses[0][KEY]


def test_resumed_run_goes_on_exactly(tmp_path):
    path = expert(tmp_path / "a.demo", ActionSpec(2, ()), size=8)
    given = cloned(path, "3DBall", "sim:3DBall")
    whole = Interrupt(10**9)
    train(given, tmp_path / "whole", whole)
    assert train(given, tmp_path / "cut", Interrupt(whole.count // 2)).outcome.status == "interrupted"
    train(given, tmp_path / "cut", resume=True)
    assert weights_of(tmp_path / "cut", "3DBall") == weights_of(tmp_path / "whole", "3DBall")


def test_run_that_imitates_from_now_on_is_resumed(tmp_path):
    path, losses = expert(tmp_path / "a.demo", CORRIDOR), Losses()
    train(config("Corridor", "test:x", max_steps=100), tmp_path, Env())
    train(cloned(path), tmp_path, Env(), losses, resume=True)
    assert all(each[KEY] > 0 for each in losses.losses)


def test_runs_without_it_report_nothing_of_it(tmp_path):
    losses = Losses()
    run = train(config("Corridor", "test:x", max_steps=100), tmp_path, Env(), losses)
    assert KEY not in losses.losses[0]
    assert run.trainers["Corridor"].learning.cloning is None
    assert "cloning" not in run.trainers["Corridor"].state_dict()


def test_policy_is_used_and_watched_without_the_demonstration(tmp_path):
    path = expert(tmp_path / "a.demo", CORRIDOR)
    train(cloned(path), tmp_path, Env())
    path.unlink()
    assert mlhooks.load(tmp_path / "run").predict(np.zeros(3)) in (0, 1)
    watched = train(
        cloned(path), tmp_path, Env(), resume=True, flags={"checkpoint_settings.inference": True}, episodes=1
    )
    assert watched.outcome.status == "finished"
    with pytest.raises(SettingsError, match="There is no demonstration"):
        train(cloned(path, max_steps=400) if False else cloned(path), tmp_path, Env(), resume=True)


def test_demonstration_of_another_behavior_is_refused_when_the_behavior_appears(tmp_path):
    path = expert(tmp_path / "other.demo", ActionSpec(0, (5,)))
    with pytest.raises(DemonstrationError, match=r"other\.demo.*does not fit the behavior 'Corridor'.*\[5\] in place"):
        train(cloned(path), tmp_path, Env())


def basic(path: str, **more: Any) -> dict[str, Any]:
    return cloned(path, "Basic", "sim:Basic", **more)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (basic("nowhere.demo"), "There is no demonstration nowhere.demo"),
        (basic("empty"), "The folder empty holds no demonstrations"),
        (basic("walk.demo"), "does not fit the behavior 'Basic': it has the discrete branches [5] in place of [3]"),
        (basic("eye.demo"), "its observation 0 has the shape (4,) in place of (20,)"),
        (basic("cut.demo"), "was cut in record"),
        (basic("nan.demo"), "record 3 (counted from 0): its observation 0 (eye) is nan at index 1"),
        (basic("walk.demo", trainer_type="dqn", hyperparameters={}), "dqn does not support behavioral_cloning"),
    ],
)
def test_config_check_says_what_is_wrong_before_a_run_begins(tmp_path, monkeypatch, capsys, given, said):
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    expert(Path("walk.demo"), ActionSpec(0, (5,)))
    expert(Path("eye.demo"), ActionSpec(0, (3,)), size=4)
    content = expert(Path("good.demo"), ActionSpec(0, (3,)), size=20).read_bytes()
    Path("cut.demo").write_bytes(content[: len(content) // 2])
    spoil(Path("eye.demo"), Path("nan.demo"))
    Path("c.yaml").write_text(yaml.safe_dump(given))
    assert main(["config", "check", "c.yaml"]) == 2
    checked = capsys.readouterr().out
    assert said in checked
    assert "c.yaml:" in checked
    quiet = [word for name in QUIET for word in ("-p", name)]
    assert main(["run", "c.yaml", *quiet]) == 2
    assert said in capsys.readouterr().err
    assert not Path("results").exists()


def spoil(path: Path, other: Path) -> None:
    """Write a file again with NaN as the second number that the expert sees in record 3."""
    rng = np.random.default_rng(1)
    rng.integers(0, 3, 11)  # It was drawn first.
    values = rng.standard_normal((11, 4)).astype("<f4")
    spoiled = values[3].copy()
    spoiled[1] = np.nan
    content = path.read_bytes()
    assert content.count(values[3].tobytes()) == 1
    other.write_bytes(content.replace(values[3].tobytes(), spoiled.tobytes()))


def test_demonstration_that_fits_passes_the_check(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    expert(Path("good.demo"), ActionSpec(0, (3,)), size=20)
    Path("c.yaml").write_text(yaml.safe_dump(basic("good.demo")))
    assert main(["config", "check", "c.yaml"]) == 0
    given = basic("good.demo")
    given["behaviors"]["Basic"]["behavioral_cloning"]["strength"] = 0
    Path("c.yaml").write_text(yaml.safe_dump(given))
    capsys.readouterr()
    assert main(["config", "check", "c.yaml"]) == 0
    assert "behavioral_cloning.strength: nothing is imitated" in capsys.readouterr().out


def alone(demo: Path | None) -> dict[str, Any]:
    """Basic without its rewards: what is learned is learned from the demonstration alone."""
    section = {} if demo is None else {"behavioral_cloning": {"demo_path": str(demo), "strength": 10}}
    settings = {
        "hyperparameters": {"batch_size": 32, "buffer_size": 256},
        "network_settings": {"hidden_units": 20, "num_layers": 1},
        "reward_signals": {"extrinsic": {"gamma": 0.9, "strength": 0}},
    }
    return config("Basic", "sim:Basic", max_steps=6000, **settings, **section)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_cloning_alone_reaches_the_large_goal_of_basic(tmp_path, seed):
    def right(*_: Any) -> Scripted:
        return Scripted(lambda seen: 2, "right", Basic.SPEC, None)

    write_demo(tmp_path / "right.demo", Recorder(Basic(), right).record(10))
    imitated = train(alone(tmp_path / "right.demo"), tmp_path / "imitated", seed=seed).trainers["Basic"].mean_reward
    assert imitated is not None
    assert imitated > 0.8
    without = train(alone(None), tmp_path / "without", seed=seed).trainers["Basic"].mean_reward
    assert without is not None
    assert without < 0.5
