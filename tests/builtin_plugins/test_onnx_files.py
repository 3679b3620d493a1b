"""The ONNX models that runs and `mlhooks export` write."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from mlagents_envs.base_env import (
    ActionSpec,
    ActionTuple,
    BehaviorSpec,
)
from torch import Tensor, nn

import mlhooks
from mlhooks import hookimpl
from mlhooks.cli import main
from mlhooks.example_configs import find_config
from mlhooks.mlagents_wheel.trainer import WheelTrainer
from mlhooks.names import MANIFEST
from mlhooks.nn.heads import ActionHeads, ActionParameters
from mlhooks.settings import TrainerSettings
from mlhooks.sims import Ball3D
from mlhooks.training.policy import ActorPolicy, Policy
from mlhooks.training.run_folder import RunFolder
from tests.builtin_plugins.onnx_models import (
    run,
    session,
)
from tests.scripted import QUIET, Env, config
from tests.scripted import train as train_without_models


def train(*arguments: Any, **more: Any) -> Any:
    """Train with the exporter, which other tests leave out because it takes time."""
    names = [name for name in QUIET if name != "no:onnx_export"]
    return train_without_models(*arguments, **{"plugin_names": names, **more})


class Shifted(ActorPolicy):
    def features(self, obs: Any) -> Tensor:
        return super().features(obs) + 1.0


class Bessel(nn.Module):
    """A network with an operator that opset 9 does not have."""

    def __init__(self, size: int, actions: ActionSpec) -> None:
        super().__init__()
        self.heads = ActionHeads(size, actions, "lecun_normal")

    def forward(self, features: Tensor) -> ActionParameters:
        found: ActionParameters = self.heads(torch.special.i1(features))
        return found


class Offers:
    """Gives PPO a policy of its own, and counts what the manager is asked."""

    def __init__(self, make: Any) -> None:
        self.make = make

    @hookimpl
    def create_policy(self, trainer: Any, behavior_spec: BehaviorSpec) -> Policy:
        policy: Policy = self.make(trainer.behavior_name, behavior_spec, trainer.settings, trainer.device)
        return policy


def bessel(name: str, spec: BehaviorSpec, settings: TrainerSettings, device: torch.device) -> ActorPolicy:
    return ActorPolicy(name, spec, settings, device, Bessel(3, spec.action_spec))


CORRIDOR = config("Corridor", "test:x")  # 600 steps, a checkpoint every 200


@pytest.mark.parametrize(
    ("make", "reason"), [(Shifted, "Shifted overrides features"), (bessel, "special_i1")], ids=["own code", "operator"]
)
def test_policy_that_cannot_be_exported_is_named_once_and_the_run_goes_on(
    tmp_path: Path, make: Any, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    finished = train(CORRIDOR, tmp_path, Env(), Offers(make), strict_plugins=True)
    warnings = [record.message for record in caplog.records if "no ONNX model" in record.message]
    assert len(warnings) == 1
    assert "'Corridor'" in warnings[0]
    assert reason in warnings[0]
    assert not list(finished.path.rglob("*.onnx"))
    assert finished.trainers["Corridor"].step == 600


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(config("Corridor", "test:x", keep_checkpoints=2), tmp_path_factory.mktemp("trained"), Env()).path


def manifest_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
    return found


def test_models_lie_beside_the_checkpoints_that_are_kept_and_the_manifest_names_them(trained: Path) -> None:
    assert sorted(path.relative_to(trained).as_posix() for path in trained.rglob("*.onnx")) == [
        "Corridor.onnx",
        "Corridor/Corridor-400.onnx",
        "Corridor/Corridor-600.onnx",
    ]
    manifest, beside = manifest_of(trained), (trained / "Corridor").as_posix()
    named = manifest["Corridor"]["checkpoints"]
    assert [each["file_path"] for each in named] == [f"{beside}/Corridor-{step}.onnx" for step in (400, 600)]
    assert [each["auxillary_file_paths"][0] for each in named] == [
        f"{beside}/Corridor-{step}.pt" for step in (400, 600)
    ]
    last = manifest["Corridor"]["final_checkpoint"]
    assert last["file_path"] == (trained / "Corridor.onnx").as_posix()
    assert f"{beside}/Corridor-600.pt" in last["auxillary_file_paths"]
    for model, source in (
        ("Corridor.onnx", "Corridor.policy.pt"),
        ("Corridor/Corridor-400.onnx", "Corridor/Corridor-400.pt"),
    ):
        policy = mlhooks.load(trained / source)
        for place in range(5):
            obs = np.full((1, 3), place, np.float32)
            outputs = run((trained / model).read_bytes(), {"obs_0": obs, "action_masks": np.ones((1, 2), np.float32)})
            assert outputs["deterministic_discrete_actions"][0, 0] == policy.predict(obs[0])


def test_checkpoint_of_a_run_without_models_is_dropped_like_others(tmp_path: Path) -> None:
    settings = config("Corridor", "test:x", max_steps=200, keep_checkpoints=2)
    first = train(settings, tmp_path, Env(), plugin_names=QUIET).path
    assert manifest_of(first)["Corridor"]["final_checkpoint"]["file_path"].endswith("/Corridor-200.pt")
    train(settings, tmp_path, Env(), resume=True, overrides=["behaviors.Corridor.max_steps=600"])
    named = manifest_of(first)["Corridor"]["checkpoints"]
    assert [Path(each["file_path"]).name for each in named] == ["Corridor-400.onnx", "Corridor-600.onnx"]
    files = {path.name for path in (first / "Corridor").iterdir() if path.suffix in (".pt", ".onnx")}
    assert files == {f"Corridor-{step}{end}" for step in (400, 600) for end in (".onnx", ".policy.pt", ".pt")}


def test_export_again_writes_the_models_that_the_run_wrote(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = Path(shutil.copytree(trained, tmp_path / "runs" / "copy"))
    model = (copy / "Corridor.onnx").read_bytes()
    (copy / "Corridor.onnx").unlink()
    assert main(["export", "copy", "--results-dir", str(copy.parent)]) == 0
    assert (copy / "Corridor.onnx").read_bytes() == model
    said = [f"Wrote {copy / name}" for name in ("Corridor.policy.pt", "Corridor.onnx")]
    assert capsys.readouterr().out.splitlines() == said

    checkpoint = copy / "Corridor" / "Corridor-400.pt"
    assert main(["export", str(checkpoint), "--onnx", "--opset", "15", "--output", str(tmp_path / "elsewhere")]) == 0
    (written,) = (tmp_path / "elsewhere").iterdir()
    assert written.name == "Corridor-400.onnx"
    assert onnx.load(written).opset_import[0].version == 15
    obs = {"obs_0": np.ones((2, 3), np.float32), "action_masks": np.ones((2, 2), np.float32)}
    outputs = run(written.read_bytes(), obs)["deterministic_discrete_actions"]
    np.testing.assert_array_equal(outputs, mlhooks.load(checkpoint).predict(obs["obs_0"]))


def test_best_policy_is_exported_beside_its_own_file(trained: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(trained, tmp_path / "copy"))
    shutil.copy(copy / "Corridor" / "Corridor-400.policy.pt", copy / "Corridor.best.policy.pt")
    written = mlhooks.export(copy, best=True, only="onnx_export")
    assert written == [copy / "Corridor.best.onnx"]
    assert written[0].read_bytes() == (copy / "Corridor" / "Corridor-400.onnx").read_bytes()


def test_run_that_goes_on_is_not_written_to(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = Path(shutil.copytree(trained, tmp_path / "copy"))
    (copy / "Corridor.onnx").unlink()
    with RunFolder(copy, "copy").hold():
        assert main(["export", str(copy), "--onnx"]) == 2
        assert f"process {os.getpid()}" in capsys.readouterr().err
        assert not (copy / "Corridor.onnx").exists()
        assert main(["export", str(copy), "--onnx", "--output", str(tmp_path / "elsewhere")]) == 0
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["Corridor.onnx"]


def test_time_of_exports_is_told(trained: Path) -> None:
    timers = json.loads((trained / "run_logs" / "timers.json").read_text())
    assert timers["children"]["checkpoint"]["children"]["export"]["count"] == 3


def test_opset_is_refused_where_mlagents_own_exporter_writes() -> None:
    settings = TrainerSettings(trainer_type="mlagents:ppo", onnx_opset=15)
    assert [key for key, _ in WheelTrainer.refused_settings(settings)] == [("onnx_opset",)]
    assert list(WheelTrainer.refused_settings(TrainerSettings(trainer_type="mlagents:ppo", onnx_opset=9))) == []


def test_opset_of_the_settings_is_that_of_the_models(tmp_path: Path) -> None:
    path = train(config("Corridor", "test:x", max_steps=100, onnx_opset=12), tmp_path, Env()).path
    assert onnx.load(path / "Corridor.onnx").opset_import[0].version == 12


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["export", "none"], "There is no checkpoint at none"),
        (["export", "{run}", "--behavior", "Other"], "holds the behaviors Corridor"),
        (["export", "{run}", "--onnx", "-p", "no:onnx_export"], "no exporter 'onnx_export'"),
        (["export", "{run}", "--opset", "8"], "9<=x<=20"),
    ],
)
def test_what_cannot_be_exported_is_an_error(
    trained: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([argument.format(run=trained) for argument in arguments]) in (1, 2)
    assert said in capsys.readouterr().err


def test_export_of_a_policy_without_a_form_for_onnx_writes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    finished = train(CORRIDOR, tmp_path, Env(), Offers(Shifted))
    caplog.clear()
    assert mlhooks.export(finished.path, only="onnx_export", plugins=[Offers(Shifted)]) == []
    assert "Shifted overrides features" in caplog.text


@pytest.mark.slow
def test_learned_policy_plays_3dball_to_100_in_onnxruntime(tmp_path: Path) -> None:
    finished = train(find_config("3dball_ppo"), tmp_path, overrides=["env_settings.seed=1"])
    opened = session((finished.path / "3DBall.onnx").read_bytes())
    env = Ball3D(num_areas=1, seed=9)
    env.reset()
    returns, total = [], np.zeros(env.num_agents)
    while len(returns) < env.num_agents:
        decisions, terminals = env.get_steps("3DBall")
        total[terminals.agent_id] += terminals.reward
        returns += total[terminals.agent_id].tolist()
        total[terminals.agent_id] = 0.0
        total[decisions.agent_id] += decisions.reward
        actions = run(opened, {"obs_0": decisions.obs[0]})["deterministic_continuous_actions"]
        env.set_actions("3DBall", ActionTuple(continuous=actions))
        env.step()
    np.testing.assert_allclose(returns, 100.0, atol=1.0)
