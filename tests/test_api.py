from __future__ import annotations

import inspect
import os
from pathlib import Path

import gymnasium
import pytest
import torch
from threadpoolctl import threadpool_info

import mlhooks
from mlhooks import hookimpl
from mlhooks.errors import CheckpointError, UsageError
from mlhooks.example_configs import examples_folder
from mlhooks.unity.errors import PlayerNotFound
from tests.scripted import QUIET, Corridor, Env, config, train

SHORT = ["behaviors.3DBall.max_steps=120", "behaviors.3DBall.hyperparameters.buffer_size=60"]


def test_example_trains_by_its_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "mlhooks")
    arguments = {"results_dir": tmp_path, "overrides": SHORT, "plugin_names": QUIET}
    run = mlhooks.train("3dball_ppo", run_id="named", **arguments)
    assert run.path == tmp_path / "named"
    assert mlhooks.load(run.path).behavior_name == "3DBall"
    assert f"Using the example configuration {examples_folder() / '3dball_ppo.yaml'}." in caplog.messages
    with pytest.raises(UsageError, match=r"no configuration file '3dbal_ppo'.*3dball_ppo"):
        mlhooks.train("3dbal_ppo", **arguments)


def blas_threads() -> list[int]:
    return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]


@pytest.mark.parametrize(("hidden_units", "threads"), [(8, 1), (512, 3)])
def test_threads_are_chosen_by_size_written_down_and_given_back(
    tmp_path: Path, hidden_units: int, threads: int
) -> None:
    seen = []

    class Look:
        @hookimpl
        def update_finished(self) -> None:
            seen.append((torch.get_num_threads(), max(blas_threads())))

    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        settings = config("Corridor", "test:x", max_steps=100)
        settings["behaviors"]["Corridor"]["network_settings"]["hidden_units"] = hidden_units
        blas = blas_threads()
        run = train(settings, tmp_path, Env(), Look())
        assert torch.get_num_threads() == 3
        assert blas_threads() == blas
        assert {of_torch for of_torch, _ in seen} == {threads}
        assert max(of_blas for _, of_blas in seen) <= threads
    finally:
        torch.set_num_threads(before)
    assert f"threads: {threads}" in (run.path / "configuration.yaml").read_text()


def test_configuration_that_a_run_wrote_runs_again_with_the_same_result(tmp_path: Path) -> None:
    first = train(config("3DBall", "sim:3DBall", max_steps=240), tmp_path, run_id="first")
    again = mlhooks.train(first.path / "configuration.yaml", run_id="again", results_dir=tmp_path, plugin_names=QUIET)
    assert (first.path / "3DBall.policy.pt").read_bytes() == (again.path / "3DBall.policy.pt").read_bytes()


def test_run_resumes_with_its_own_configuration_where_none_is_given(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Also one that was started with --force, and whose folder has another name now."""
    settings = config("Corridor", "test:x", max_steps=200)
    train(settings, tmp_path / "elsewhere", Env(), force=True).path.rename(tmp_path / "renamed")
    caplog.set_level("INFO", "mlhooks")
    longer = ["behaviors.Corridor.max_steps=400"]
    run = train(None, tmp_path, Env(), run_id="renamed", resume=True, overrides=longer)
    assert (
        f"Going on with the configuration of the run, {tmp_path / 'renamed' / 'configuration.yaml'}." in caplog.messages
    )
    assert run.env_name == "test:x"
    assert run.path == tmp_path / "renamed"
    assert run.trainers["Corridor"].settings.network_settings.hidden_units == 8
    assert run.trainers["Corridor"].step == 400
    again = train(run.path / "configuration.yaml", tmp_path, Env(), run_id="renamed", force=True)  # It says resume.
    assert not again.resumed


def test_configuration_of_a_forced_or_resumed_run_says_neither(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(config("Corridor", "test:x", max_steps=100), tmp_path, Env(), force=True)
    path = tmp_path / "run" / "configuration.yaml"
    before = path.read_bytes()
    with pytest.raises(UsageError, match="holds the results of an earlier run"):
        mlhooks.train(path, results_dir=tmp_path, plugins=[Env()], plugin_names=QUIET)
    assert path.read_bytes() == before
    train(None, tmp_path, Env(), run_id="run", resume=True, overrides=["behaviors.Corridor.max_steps=200"])
    again = mlhooks.train(path, results_dir=tmp_path, run_id="fresh", plugins=[Env()], plugin_names=QUIET)
    assert (again.resumed, again.trainers["Corridor"].step) == (False, 200)
    assert "has no effect" not in caplog.text


@pytest.mark.parametrize("key", ["force", "resume", "inference"])
def test_flags_of_a_mapping_have_no_effect_and_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, key: str
) -> None:
    settings = {**config("Corridor", "test:x", max_steps=100), "checkpoint_settings": {key: True}}
    assert train(settings, tmp_path, Env()).trainers["Corridor"].step == 100
    assert f"checkpoint_settings.{key}: {key} has no effect here" in caplog.text
    with pytest.raises(UsageError, match="holds the results of an earlier run"):
        train(settings, tmp_path, Env())


class Wanders(Corridor):
    """An environment that changes the working directory whenever it can."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path.cwd()

    def reset(self) -> None:
        super().reset()
        os.chdir(self.folder / "elsewhere")


class Walks:
    """A plugin that does so before and after the run is set up."""

    @hookimpl
    def configure(self) -> None:
        os.chdir("elsewhere")

    @hookimpl
    def run_started(self) -> None:
        os.chdir("..")


@pytest.mark.parametrize("plugins", [[], [Walks()]], ids=["environment", "plugin"])
def test_nothing_moves_when_the_working_directory_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plugins: list[object], capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    settings = config("Corridor", "test:x", max_steps=400)
    names = ["no:tensorboard", "no:curve"]
    train(settings, Path("results"), Env(), run_id="first", plugin_names=names)
    flags = {"checkpoint_settings.initialize_from": "first"}
    run = train(settings, Path("results"), Env(Wanders), *plugins, flags=flags, plugin_names=names)
    assert run.path == tmp_path / "results" / "run"
    assert list((tmp_path / "elsewhere").iterdir()) == []
    names = {path.relative_to(run.path).as_posix() for path in run.path.rglob("*")}
    assert {"stats.jsonl", "run_logs/timers.json", "Corridor/Corridor-400.pt", "Corridor.policy.pt"} <= names
    assert "results_dir: results\n" in (run.path / "configuration.yaml").read_text()
    if not plugins:
        assert str(Path("results", "run", "stats.jsonl")) in capsys.readouterr().out.split()


def test_run_that_was_watched_without_a_configuration_uses_its_own(tmp_path: Path) -> None:
    train(config("Corridor", "test:x", max_steps=200), tmp_path, Env())
    watch = {"checkpoint_settings.inference": True}
    run = train(None, tmp_path, Env(), flags=watch, episodes=4)
    assert run.evaluation is not None
    assert len(run.evaluation.returns["Corridor"]) == 4


def test_configuration_of_an_earlier_run_is_not_used_for_a_new_one(tmp_path: Path) -> None:
    train(config("Corridor", "test:x", max_steps=200), tmp_path, Env())
    with pytest.raises(UsageError, match="holds the results of an earlier run"):
        train(None, tmp_path, Env(), env="test:x")


def test_loading_what_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint"):
        mlhooks.load(tmp_path)
    with pytest.raises(CheckpointError, match="There is no checkpoint at"):
        mlhooks.load(tmp_path / "nothing.pt")


def test_loading_a_misnamed_run_names_the_one_that_was_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    train(config("Corridor", "test:x", max_steps=20), tmp_path / "results", Env(), run_id="first")
    with pytest.raises(CheckpointError, match=r"no checkpoint at first\. Did you mean results.first\?"):
        mlhooks.load("first")
    with pytest.raises(CheckpointError, match=r"there is no run 'frist' in results; did you mean first\?"):
        mlhooks.load("results/frist")
    with pytest.raises(CheckpointError, match=r"results.first.Corridor is a folder of the run results.first: name the"):
        mlhooks.load("results/first/Corridor")
    for file in Path("results/first/Corridor").iterdir():
        file.write_bytes(b"cut")
    with pytest.raises(CheckpointError, match=r"can still be used alone, .*results.first.Corridor\.policy\.pt"):
        mlhooks.load("results/first")


def test_loading_repeats_no_warning_about_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = train(config("Corridor", "test:x", max_steps=20), tmp_path, Env())
    assert "nothing will be learned" in caplog.text
    caplog.clear()
    mlhooks.load(run.path)
    assert not caplog.messages


def test_training_nothing_is_refused_before_an_editor_is_waited_for(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nothing to run.*mlhooks\.train\('cartpole_ppo'\).*Unity Editor"):
        mlhooks.train(results_dir=tmp_path)


def test_environment_that_was_made_is_told_what_makes_it() -> None:
    class Own(gymnasium.Env[int, int]):
        pass

    with pytest.raises(UsageError, match=r"made already.*env='gymnasium:CartPole-v1'"):
        mlhooks.train(env=gymnasium.make("CartPole-v1"))
    with pytest.raises(UsageError, match=r"an Own that was made already.*env=Own, or a function\."):
        mlhooks.train(env=Own())
    with pytest.raises(UsageError, match=r"one: a function that makes and wraps one"):
        mlhooks.train(env=gymnasium.wrappers.TimeLimit(Own(), 5))
    with pytest.raises(UsageError, match=r"env is an int; it must be a name such as 'gymnasium:CartPole-v1'"):
        mlhooks.train(env=3)  # type: ignore[arg-type]


def test_environment_may_be_a_path(tmp_path: Path) -> None:
    with pytest.raises(PlayerNotFound, match=r"no Unity player for this platform at .*Ball"):
        mlhooks.train(env=tmp_path / "Ball", results_dir=tmp_path)


def test_train_documents_every_argument() -> None:
    text = inspect.getdoc(mlhooks.train) or ""
    for name in inspect.signature(mlhooks.train).parameters:
        assert f"{name}:" in text


def test_plugin_that_changes_the_working_directory_when_imported_hides_no_configuration(tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "moves.py").write_text(
        f"import os\nfrom mlhooks import hookimpl\nos.chdir({str(elsewhere)!r})\n@hookimpl\ndef run_started(): ...\n"
    )
    (tmp_path / "basic.yaml").write_text("default_settings: {trainer_type: ppo, max_steps: 100}\n")
    monkeypatch.chdir(tmp_path)
    mlhooks.train("basic.yaml", env="sim:Basic", run_id="r", plugin_names=["moves.py"])
    monkeypatch.chdir(tmp_path)
    mlhooks.train(run_id="r", resume=True, plugin_names=["moves.py"])
    assert (tmp_path / "results" / "r" / "configuration.yaml").is_file()
    assert not list(elsewhere.iterdir())
