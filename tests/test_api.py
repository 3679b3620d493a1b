from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import torch

import mlhooks
from mlhooks.errors import CheckpointError, UsageError
from tests.scripted import QUIET, Env, config, train

SHORT = ["behaviors.3DBall.max_steps=120", "behaviors.3DBall.hyperparameters.buffer_size=60"]


def test_example_trains_by_its_name(tmp_path: Path) -> None:
    arguments = {"results_dir": tmp_path, "overrides": SHORT, "plugin_names": QUIET}
    run = mlhooks.train("3dball_ppo", run_id="named", **arguments)
    assert run.path == tmp_path / "named"
    assert mlhooks.load(run.path).behavior_name == "3DBall"
    with pytest.raises(UsageError, match=r"no configuration file '3dbal_ppo'.*3dball_ppo"):
        mlhooks.train("3dbal_ppo", **arguments)


@pytest.mark.parametrize(("hidden_units", "threads"), [(8, 1), (512, 3)])
def test_threads_are_chosen_by_size_written_down_and_given_back(
    tmp_path: Path, hidden_units: int, threads: int
) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        settings = config("Corridor", "test:x", max_steps=100)
        settings["behaviors"]["Corridor"]["network_settings"]["hidden_units"] = hidden_units
        run = train(settings, tmp_path, Env())
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert f"threads: {threads}" in (run.path / "configuration.yaml").read_text()


def test_configuration_that_a_run_wrote_runs_again_with_the_same_result(tmp_path: Path) -> None:
    first = train(config("3DBall", "sim:3DBall", max_steps=240), tmp_path, run_id="first")
    again = mlhooks.train(first.path / "configuration.yaml", run_id="again", results_dir=tmp_path, plugin_names=QUIET)
    assert (first.path / "3DBall.policy.pt").read_bytes() == (again.path / "3DBall.policy.pt").read_bytes()


def test_loading_what_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint"):
        mlhooks.load(tmp_path)
    with pytest.raises(CheckpointError, match="There is no checkpoint at"):
        mlhooks.load(tmp_path / "nothing.pt")


def test_train_documents_every_argument() -> None:
    text = inspect.getdoc(mlhooks.train) or ""
    for name in inspect.signature(mlhooks.train).parameters:
        assert f"{name}:" in text
