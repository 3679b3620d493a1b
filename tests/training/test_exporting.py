"""When exporters are asked, and what their failure costs."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import mlhooks
from builtin_plugins.ppo import PPOSettings
from mlhooks import hookimpl
from mlhooks.errors import PluginError
from mlhooks.names import MANIFEST
from mlhooks.settings import TrainerSettings
from mlhooks.testing.specs import make_behavior_spec
from mlhooks.training.checkpoints import CheckpointFolder
from mlhooks.training.policy import ActorPolicy
from mlhooks.training.policy_backup import PolicyBackup
from tests.scripted import Env, config, train

CONFIG = config("Corridor", "test:x")  # 600 steps, a checkpoint every 200


class Exporter:
    """Notes what the manifest vouched for at each call; fails from a step on, where told."""

    def __init__(self, error: BaseException | None = None, since: int = 0) -> None:
        self.error, self.since = error, since
        self.vouched: list[tuple[int, int]] = []

    @hookimpl
    def run_started(self, run: Any) -> None:
        self.run = run

    @hookimpl
    def export_model(self, trainer: Any, path: Path) -> list[Path]:
        (newest,) = CheckpointFolder(self.run.path).newest()["behaviors"].values()
        self.vouched.append((trainer.step, int(newest.stem.rpartition("-")[2])))
        if self.error is not None and trainer.step >= self.since:
            raise self.error
        file = path.with_suffix(".txt")
        file.write_text(str(trainer.step))
        return [file]


def steps_of_checkpoints(folder: Path) -> list[int]:
    manifest = json.loads((folder / MANIFEST).read_text())
    return [checkpoint["steps"] for checkpoint in manifest["Corridor"]["checkpoints"]]


def test_exporters_are_asked_when_the_checkpoint_is_durable_and_named(tmp_path: Path) -> None:
    exporter = Exporter()
    train(CONFIG, tmp_path, Env(), exporter)
    assert [step for step, _ in exporter.vouched] == [200, 400, 600, 600]  # The last one is for the model.
    assert all(asked == durable for asked, durable in exporter.vouched)


def test_manifest_names_what_was_exported(tmp_path: Path) -> None:
    train(CONFIG, tmp_path, Env(), Exporter())
    manifest = json.loads((tmp_path / "run" / MANIFEST).read_text())
    assert [sorted(entry["exported"]) for entry in manifest["mlhooks"]] == [
        [f"Corridor/Corridor-{step}.policy.pt", f"Corridor/Corridor-{step}.txt"] for step in (200, 400, 600)
    ]
    last = (tmp_path / "run" / "Corridor" / "Corridor-600").as_posix()
    described = manifest["Corridor"]["final_checkpoint"]["auxillary_file_paths"]
    assert sorted(described) == [f"{last}.policy.pt", f"{last}.txt"]


@pytest.mark.parametrize("since", [200, 600])
def test_exporter_that_ends_a_strict_run_costs_no_checkpoint(tmp_path: Path, since: int) -> None:
    with pytest.raises(PluginError, match=r"'Exporter'.*export_model.*no licence"):
        train(CONFIG, tmp_path, Env(), Exporter(ValueError("no licence"), since), strict_plugins=True)
    assert steps_of_checkpoints(tmp_path / "run") == list(range(200, since + 1, 200))
    assert mlhooks.load(tmp_path / "run").behavior_name == "Corridor"
    assert train(CONFIG, tmp_path, Env(), resume=True).trainers["Corridor"].step == 600


def test_run_that_is_killed_in_an_exporter_goes_on_from_that_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):  # It comes again when the run ends, so that nothing is saved after it.
        train(CONFIG, tmp_path, Env(), Exporter(KeyboardInterrupt(), since=400))
    assert steps_of_checkpoints(tmp_path / "run") == [200, 400]
    assert train(CONFIG, tmp_path, Env(), resume=True).trainers["Corridor"].step == 600


def test_writer_that_fails_in_the_last_summary_of_a_strict_run_costs_no_checkpoint(tmp_path: Path) -> None:
    class Writer:
        @hookimpl
        def write_stats(self, step: int) -> None:
            if step == 300:
                raise ValueError("the disk is gone")

    with pytest.raises(PluginError, match="the disk is gone"):
        train(config("Corridor", "test:x", max_steps=300), tmp_path, Env(), Writer(), strict_plugins=True)
    assert steps_of_checkpoints(tmp_path / "run") == [200, 300]


@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize("harm", [lambda path: path.write_text("mine"), Path.unlink], ids=["writes", "removes"])
def test_checkpoint_that_an_exporter_writes_over_is_saved_again(
    tmp_path: Path, harm: Any, listed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    class Overwrites:
        @hookimpl
        def export_model(self, path: Path) -> list[Path]:
            file = path.with_suffix(".pt")
            if file.exists():
                harm(file)
            return [file] if listed else []

    train(CONFIG, tmp_path, Env(), Overwrites())
    assert "An exporter wrote over a checkpoint, which is saved again" in caplog.text
    assert ("'Overwrites'" in caplog.text) == listed
    assert mlhooks.load(tmp_path / "run").behavior_name == "Corridor"
    assert "damaged" not in caplog.text
    assert CheckpointFolder(tmp_path / "run").newest()["run"].name == "state-600.pt"


class Careless:
    """Exports in ways that change the policy, one after the other."""

    def __init__(self) -> None:
        self.asked = 0

    @hookimpl
    def export_model(self, trainer: Any, path: Path) -> list[Path]:
        policy, self.asked = trainer.policy, self.asked + 1
        if self.asked == 1:
            policy.actor.eval().requires_grad_(False)
            policy.deterministic = True
            torch.set_grad_enabled(False)
            torch.set_default_dtype(torch.float64)
        elif self.asked == 2:
            policy.actor.half()
        elif self.asked == 3:
            policy.actor = torch.nn.Linear(3, 2)
        file = path.with_suffix(".txt")
        file.write_text("weights")
        return [file]


def test_what_exporters_do_to_the_policy_is_undone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    plain = train(CONFIG, tmp_path / "plain", Env()).trainers["Corridor"].policy
    exporter = Careless()
    policy = train(CONFIG, tmp_path, Env(), exporter).trainers["Corridor"].policy
    told = [record.getMessage() for record in caplog.records if "Careless" in record.getMessage()]
    assert len(told) == 1  # Of the modes nothing is said, and of one cause once.
    assert "it changed actor.encoder.layers.0.weight, actor.encoder.layers.0.bias, actor.heads." in told[0]
    assert "put back: export a copy, as by copy.deepcopy(trainer.policy) (" in told[0]
    assert exporter.asked == 4
    assert policy.actor.training
    assert not policy.deterministic
    wanted = plain.actor.state_dict()
    assert all(torch.equal(found, wanted[name]) for name, found in policy.actor.state_dict().items())
    assert all(parameter.requires_grad for parameter in policy.actor.parameters())


def test_layers_that_exporters_replace_or_remove_are_put_back() -> None:
    settings = TrainerSettings(trainer_type="ppo", hyperparameters=PPOSettings())
    policy = ActorPolicy("A", make_behavior_spec(branches=(2,)), settings, torch.device("cpu"))
    actor, encoder, weight = policy.actor, policy.actor.encoder, policy.actor.heads.logits.weight
    backup = PolicyBackup(SimpleNamespace(policy=policy))
    assert not backup.restore()
    actor.encoder = torch.nn.Identity()
    del actor.heads.logits.weight
    assert backup.restore() == "actor, actor.heads.logits"
    assert policy.actor.encoder is encoder
    assert policy.actor.heads.logits.weight is weight
