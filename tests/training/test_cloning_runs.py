"""Runs with behavioral cloning, and demonstrations that are refused before them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from mlagents_envs.base_env import ActionSpec

import mlhooks
from mlhooks import hookimpl
from mlhooks.cli import main
from mlhooks.demos.writing import write_demo
from mlhooks.errors import DemonstrationError, SettingsError
from mlhooks.plugin import Batch, OffPolicyHyperparameters, OffPolicyTrainer, Supports, TorchOptimizer
from mlhooks.sims.basic import Basic
from mlhooks.training.policy import ActorPolicy
from mlhooks.training.recording import Recorder, Scripted
from tests.reliability.test_exact_resume import Interrupt
from tests.reliability.test_kills import weights_of
from tests.scripted import QUIET, Env, config, train
from tests.training.test_cloning import KEY, expert


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
        train(cloned(path), tmp_path, Env(), resume=True)


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
