"""What was saved with a plugin and is loaded without it."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path

import pytest

import mlhooks
from mlhooks import hookimpl
from mlhooks.errors import CheckpointError, SettingsError
from mlhooks.training.checkpoints import read_state, write_state
from tests.scripted import QUIET, config, train

SHORT = config("3DBall", "sim:3DBall", max_steps=200)

PLUGIN = """
import torch
from builtin_plugins.ppo import PPOOptimizer, PPOTrainer
from mlhooks import hookimpl
from mlhooks.training.policy import ActorPolicy
from mlhooks.nn.networks import Actor

class Decay(PPOOptimizer):
    def create_torch_optimizer(self, parameters):
        return torch.optim.AdamW(parameters, lr=0.001)

class Wider(ActorPolicy):
    def modules(self):
        return {**super().modules(), "actor": torch.nn.ModuleDict({"inner": self.actor})}

@hookimpl
def get_trainer_types():
    return {"mine": type("Mine", (PPOTrainer,), {})}

@hookimpl
def create_optimizer(trainer, policy):
    return Decay(policy, trainer.settings) if isinstance(trainer, PPOTrainer) else None

@hookimpl
def create_policy(trainer, behavior_spec):
    if isinstance(trainer, PPOTrainer):
        return Wider(trainer.behavior_name, behavior_spec, trainer.settings, trainer.device)
"""


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(PLUGIN)
    return path


def note(plugin: Path) -> str:
    return f"The run was made with the plugins 'mine' (file {plugin}); load them again (-p)."


def test_status_names_the_plugins_of_the_run(tmp_path: Path, plugin: Path) -> None:
    class Watch:
        @hookimpl
        def run_started(self) -> None: ...

    train(SHORT, tmp_path, Watch(), plugin_names=[*QUIET, str(plugin)])
    status = json.loads((tmp_path / "run" / "run_logs" / "training_status.json").read_text())
    assert status["metadata"]["plugins"] == {"mine": f"file {plugin}", "Watch": "registered in code"}


STATE = """
    def state_dict(self):
        return {key: value for key, value in super().state_dict().items() if key != "diagnostics"}

    def load_state_dict(self, state):
        super().load_state_dict({**state, "diagnostics": {}})
"""
STEP = PLUGIN[PLUGIN.index("    def create_torch") : PLUGIN.index("class Wider")]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (PLUGIN, r"policy\.actor\."),
        (PLUGIN.partition("@hookimpl\ndef create_policy")[0], "does not fit Adam: it has no 'steps'"),
        (
            PLUGIN.partition("@hookimpl\ndef create_policy")[0].replace(STEP, STATE),
            r"3DBall-204.pt has no 'diagnostics'",
        ),
    ],
    ids=["policy", "torch optimizer", "optimizer"],
)
def test_resume_without_the_plugin_names_it(tmp_path: Path, plugin: Path, text: str, problem: str) -> None:
    plugin.write_text(text)
    train(SHORT, tmp_path, plugin_names=[*QUIET, str(plugin)])
    with pytest.raises(CheckpointError, match=problem) as caught:
        train(SHORT, tmp_path, resume=True)
    assert caught.value.__notes__ == [note(plugin)]
    longer = deepcopy(SHORT)
    longer["behaviors"]["3DBall"]["max_steps"] = 400
    resumed = train(longer, tmp_path, resume=True, plugin_names=[*QUIET, str(plugin)])
    assert resumed.trainers["3DBall"].step >= 400


def test_error_that_has_nothing_to_do_with_plugins_names_none(tmp_path: Path) -> None:
    train(SHORT, tmp_path)
    wider = deepcopy(SHORT)
    wider["behaviors"]["3DBall"]["network_settings"]["hidden_units"] = 16
    with pytest.raises(CheckpointError, match="has shape") as caught:
        train(wider, tmp_path, resume=True)
    assert not any("plugins" in note for note in caught.value.__notes__)


def test_initializing_without_the_plugin_names_it(tmp_path: Path, plugin: Path) -> None:
    train(SHORT, tmp_path, plugin_names=[*QUIET, str(plugin)])
    with pytest.raises(CheckpointError, match=r"policy\.actor") as caught:
        train(SHORT, tmp_path, run_id="new", flags={"checkpoint_settings.initialize_from": "run"})
    assert caught.value.__notes__ == [note(plugin)]


@pytest.mark.parametrize("name", ["", "3DBall.policy.pt", "3DBall/3DBall-204.pt"])
def test_loading_without_the_plugin_names_it(tmp_path: Path, plugin: Path, name: str) -> None:
    train(SHORT, tmp_path, plugin_names=[*QUIET, str(plugin)])
    with pytest.raises(CheckpointError, match=r"policy\.actor") as caught:
        mlhooks.load(tmp_path / "run" / name)
    assert caught.value.__notes__ == [note(plugin)]


def test_loading_a_trainer_type_that_is_not_there_names_its_plugin(tmp_path: Path, plugin: Path) -> None:
    settings = deepcopy(SHORT)
    settings["behaviors"]["3DBall"]["trainer_type"] = "mine"
    train(settings, tmp_path, plugin_names=[*QUIET, str(plugin)])
    with pytest.raises(SettingsError, match="no installed plugin provides this trainer type") as caught:
        mlhooks.load(tmp_path / "run")
    assert caught.value.__notes__ == [note(plugin)]


@pytest.mark.parametrize(
    ("version", "told"), [("0.0.9", True), (mlhooks.__version__, False), (None, False), (7, False)]
)
def test_what_does_not_fit_and_another_version_wrote_says_so(tmp_path: Path, version: object, told: bool) -> None:
    run = train(SHORT, tmp_path)
    (path,) = run.outcome.files["model"]
    state = read_state(path)
    del state["modules"]["policy.actor"]
    state["mlhooks"]["version"] = version
    write_state(path, state)
    with pytest.raises(CheckpointError, match=r"has no 'policy\.actor'") as caught:
        mlhooks.load(path)
    notes = [text for text in getattr(caught.value, "__notes__", []) if "wrote it" in text]
    assert [text.partition(":")[0] for text in notes] == [
        f"mlhooks 0.0.9 wrote it, and this is {mlhooks.__version__}"
    ] * told
