"""Only what a run wrote is ever removed."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from mlhooks import hookimpl
from mlhooks.cli import main
from mlhooks.errors import UsageError
from mlhooks.training.checkpoints import CheckpointFolder
from mlhooks.training.run import Run
from mlhooks.training.run_files import contents
from mlhooks.training.run_folder import RunFolder
from tests.scripted import Env, config, train

SETTINGS = config("Corridor", "test:x", max_steps=100)
MANIFEST = "run_logs/training_status.json"


def files(folder: Path) -> dict[str, bytes]:
    """Return all that lies in a folder, links as what they say."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            found[name] = bytes(path.readlink())
        elif path.is_file():
            found[name] = path.read_bytes()
    return found


def write(folder: Path, *names: str, text: str = "mine") -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}" if name.endswith("status.json") and text == "mine" else text)


def refused(folder: Path, message: str, **arguments: Any) -> None:
    """Demand that a run is refused in words without --force, and that nothing is changed."""
    before = files(folder)
    with pytest.raises(UsageError, match=message) as caught:
        train(SETTINGS, folder, Env(), **arguments)
    assert "by --force" not in str(caught.value)
    assert files(folder) == before


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize(
    "names",
    [
        ("notes/keep.txt",),
        ("configuration.yaml",),
        ("curve.png",),
        ("Basic/checkpoint.pt",),
        ("Basic/Basic-500.pt", "Basic.onnx"),
        ("stats.jsonl", "thesis.txt"),
        ("run_logs/timers.json", "run_logs/my.txt"),
        (".git/config", "configuration.yaml"),
        (".lock", "a.lock"),
        ("stats.jsonl",),
        ("run_logs/timers.json",),
        ("run_logs/state-5.pt",),
        (".stats.jsonl.part",),
        ("Nov30_host/events.out.tfevents.1.host", "Dec1_host/events.out.tfevents.2.host"),
        ("notes/notes-1.pt", "train/events.out.tfevents.1.host"),
    ],
    ids=str,
)
def test_folder_of_somebody_else_is_refused_and_stays(tmp_path: Path, names: tuple[str, ...], force: bool) -> None:
    write(tmp_path / "run", *names)
    refused(tmp_path, names[0] if len(names) == 1 else "holds", force=force)


@pytest.mark.parametrize(
    "name",
    [
        "thesis.txt",
        "Corridor/notes.pt",
        "Corridor/Basic-100.pt",
        "run_logs/my.txt",
        "Other.onnx",
        "a/b/c/d.txt",
        "x.part",
        "notes/notes-1.pt",
        "Nov30_host/events.out.tfevents.1.host",
    ],
)
def test_file_of_somebody_else_in_the_folder_of_a_run_is_named_and_stays(tmp_path: Path, name: str) -> None:
    train(SETTINGS, tmp_path, Env())
    write(tmp_path / "run", name)
    refused(tmp_path, rf"holds what that run did not write: {name}\.", force=True)
    refused(tmp_path, rf"holds what that run did not write: {name}\.")
    more = config("Corridor", "test:x", max_steps=200)
    assert train(more, tmp_path, Env(), resume=True).trainers["Corridor"].step == 200  # Resuming destroys nothing.
    assert (tmp_path / "run" / name).read_text() == "mine"


def test_what_was_found_is_counted(tmp_path: Path) -> None:
    write(tmp_path / "run", *(f"{number}.txt" for number in range(7)))
    refused(tmp_path, r"it holds 0\.txt, 1\.txt, 2\.txt and others, 7 in all\.", force=True)


def test_what_file_managers_leave_and_empty_folders_are_no_obstacle(tmp_path: Path) -> None:
    write(tmp_path / "run", ".DS_Store", "Corridor/Thumbs.db", "a/desktop.ini")
    (tmp_path / "run" / "empty" / "folders").mkdir(parents=True)
    for force in (False, True):
        train(SETTINGS, tmp_path, Env(), force=force)
        assert (tmp_path / "run" / "Corridor" / "Thumbs.db").read_text() == "mine"


def test_run_of_mlagents_learn_is_overwritten_by_force(tmp_path: Path) -> None:
    status = {
        "metadata": {"mlagents_version": "1.1.0"},
        "3DBall": {"checkpoints": [], "final_checkpoint": {"file_path": "results/x/3DBall.onnx"}},
    }
    write(tmp_path / "run", MANIFEST, text=json.dumps(status))
    behavior = [f"3DBall/{name}" for name in ("3DBall-500.onnx", "3DBall-500.pt", "checkpoint.pt")]
    events = "3DBall/events.out.tfevents.1669.host.1.0"
    write(tmp_path / "run", "3DBall.onnx", "configuration.yaml", "run_logs/timers.json", *behavior, events)
    with pytest.raises(UsageError, match=r"written by mlagents-learn, .* Choose another --run-id, or .* by --force"):
        train(SETTINGS, tmp_path, Env())
    train(SETTINGS, tmp_path, Env(), force=True)
    assert not list((tmp_path / "run").glob("3DBall*"))


@pytest.mark.parametrize(
    "status", ["null", "[1]", "{", '{"mlhooks": 3, "metadata": 4, "A": 5}', '{"mlhooks": [6, {}]}']
)
def test_damaged_manifest_still_tells_a_run(tmp_path: Path, status: str) -> None:
    write(tmp_path / "run", "A/A-10.pt", "A/A-10.policy.pt", "A.policy.pt", "A/.A-20.pt.part", "stats.jsonl.tmp")
    write(tmp_path / "run", MANIFEST, text=status)
    write(tmp_path / "run", "thesis.txt")
    refused(tmp_path, r"did not write: thesis\.txt\.", force=True)
    (tmp_path / "run" / "thesis.txt").unlink()
    train(SETTINGS, tmp_path, Env(), force=True)
    assert not (tmp_path / "run" / "A").exists()


@pytest.mark.parametrize("path", ["../precious/a.txt", "/precious/a.txt", "A/../../precious/a.txt"])
def test_manifest_names_nothing_outside_of_its_folder(tmp_path: Path, path: str) -> None:
    write(tmp_path, "precious/a.txt")
    path = str(tmp_path / path[1:]) if path.startswith("/") else path
    record = {"path": path, "size": 4, "sha256": ""}
    status = {
        "metadata": {"files": [path]},
        "mlhooks": [{"behaviors": {"A": record}, "run": record, "exported": [path]}],
    }
    write(tmp_path / "run", MANIFEST, text=json.dumps(status))
    train(SETTINGS, tmp_path, Env(), force=True)
    assert (tmp_path / "precious" / "a.txt").read_text() == "mine"


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
def test_links_are_removed_and_never_followed(tmp_path: Path) -> None:
    write(tmp_path, "precious/a.txt", "precious/Corridor-5.pt")
    path = tmp_path / "run"
    train(SETTINGS, tmp_path, Env())
    (path / "Corridor" / "Corridor-5.pt").symlink_to(tmp_path / "precious" / "Corridor-5.pt")
    train(SETTINGS, tmp_path, Env(), force=True)
    assert not os.path.lexists(path / "Corridor" / "Corridor-5.pt")
    (path / "Link").symlink_to(tmp_path / "precious")
    refused(tmp_path, r"did not write: Link\.", force=True)
    assert sorted(files(tmp_path / "precious")) == ["Corridor-5.pt", "a.txt"]


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
def test_folder_of_a_run_that_is_a_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "disk")
    for _ in range(2):
        train(SETTINGS, tmp_path, Env(), force=True)
        assert (tmp_path / "run").is_symlink()
        assert (tmp_path / "disk" / "Corridor" / "Corridor-100.pt").exists()


def test_folder_with_runs_in_it_is_no_run(tmp_path: Path) -> None:
    for name in ("exp/a", "exp/deep/b"):
        train(SETTINGS, tmp_path, Env(), run_id=name)
    for force in (False, True):
        refused(tmp_path, r"exp holds other runs, and so cannot be one: a, deep/b\.", run_id="exp", force=force)
    for flag in ("resume", "inference"):
        flags = {f"checkpoint_settings.{flag}": True}
        refused(
            tmp_path,
            rf"--{flag}: .*exp is not the folder of a run, .* other runs: a, deep/b\.",
            run_id="exp",
            flags=flags,
        )
    train(SETTINGS, tmp_path, Env(), run_id="exp/a", force=True)


def test_manifest_that_names_the_files_of_other_runs_does_not_make_them_its_own(tmp_path: Path) -> None:
    train(SETTINGS, tmp_path, Env(), run_id="exp/a")
    own = [f"a/{name}" for name in files(tmp_path / "exp" / "a")]
    write(tmp_path / "exp", MANIFEST, text=json.dumps({"metadata": {"files": own}, "mlhooks": []}))
    refused(tmp_path, "exp holds other runs", run_id="exp", force=True)


@pytest.mark.parametrize(
    "where", [{"run_id": "exp/a"}, {"results_dir": "exp", "run_id": "a"}, {"results_dir": "exp/b/c", "run_id": "a"}]
)
def test_no_run_begins_in_the_folder_of_another(tmp_path: Path, where: dict[str, str]) -> None:
    train(SETTINGS, tmp_path, Env(), run_id="exp")
    where = {**where, "results_dir": str(tmp_path / where.get("results_dir", ""))}
    refused(tmp_path, "exp is the folder of a run, which holds no other runs", force=True, **where)


class Writer:
    """Writes files into the run's folder; notes those that are to be noted."""

    def __init__(self, *noted: str, unnoted: tuple[str, ...] = ()) -> None:
        self.noted, self.unnoted = noted, unnoted

    @hookimpl
    def run_started(self, run: Run) -> None:
        for name in self.noted:
            path = run.note_file(name)
            assert path == run.path / name
            path.parent.mkdir(exist_ok=True)
            path.write_text("a plugin's")
        write(run.path, *self.unnoted)


def test_noted_files_are_the_runs_and_others_are_not(tmp_path: Path) -> None:
    train(SETTINGS, tmp_path, Env(), Writer("a.txt", "videos/1.mp4", "logs/events.out.tfevents.1", "x/x-1.pt"))
    noted = json.loads((tmp_path / "run" / MANIFEST).read_text())["metadata"]["files"]
    assert noted == [
        "a.txt",
        "videos/1.mp4",
        "logs/events.out.tfevents.1",
        "x/x-1.pt",
    ]  # The built-in ones are known by their names.
    train(SETTINGS, tmp_path, Env(), Writer(unnoted=("b.txt",)), force=True)
    assert not (tmp_path / "run" / "videos").exists()
    refused(tmp_path, r"did not write: b\.txt\.", force=True)


def test_note_is_durable_at_once_and_survives_resume(tmp_path: Path) -> None:
    class Look(Writer):
        @hookimpl
        def behavior_added(self, run: Run) -> None:
            assert contents(run.path, "run").foreign == []

    train(SETTINGS, tmp_path, Env(), Look("a.txt"))
    more = config("Corridor", "test:x", max_steps=200)
    train(more, tmp_path, Env(), Look("c.txt"), resume=True)
    assert {"a.txt", "c.txt"} <= set(contents(tmp_path / "run", "run").own)


@pytest.mark.parametrize("path", ["../a.txt", "", ".", "a/../../b.txt", "{elsewhere}"])
def test_note_of_a_file_elsewhere_is_refused(tmp_path: Path, path: str) -> None:
    folder = RunFolder(tmp_path / "run", "run")
    with pytest.raises(UsageError, match="does not lie in"):
        folder.name_inside(path.replace("{elsewhere}", str(tmp_path / "x.txt")))
    assert folder.name_inside(tmp_path / "run" / "a" / "b.txt") == folder.name_inside("a/b.txt") == "a/b.txt"


def test_what_a_killed_run_left_is_known_by_its_names(tmp_path: Path) -> None:
    """Before its first checkpoint there is no manifest; its own configuration, too, tells a run."""
    train(SETTINGS, tmp_path, Env())
    configuration = (tmp_path / "run" / "configuration.yaml").read_text()
    for name in ("run", "other"):
        write(tmp_path / "killed" / name, "configuration.yaml", text=configuration)
    assert train(SETTINGS, tmp_path / "killed", Env()).outcome.status == "finished"
    refused(tmp_path / "killed", r"not the folder of a run: it holds configuration\.yaml", run_id="other")
    left = tmp_path / "left" / "run"
    write(left, "Corridor/Corridor-5.pt", "Corridor/events.out.tfevents.1.x.2.3", ".curve.png.part")
    write(left, "stats.jsonl", text='{"category": "Corridor", "step": 5, "time": 1.0, "values": {}}\n')
    train(SETTINGS, tmp_path / "left", Env(), force=True)
    assert not list(left.glob("Corridor/events*"))
    behavior = [f"3DBall/{name}" for name in ("3DBall-5.onnx", "checkpoint.pt", "events.out.tfevents.1.x.2.3")]
    write(tmp_path / "learn" / "run", *behavior)  # mlagents-learn writes all else at its end.
    train(SETTINGS, tmp_path / "learn", Env(), force=True)
    assert not (tmp_path / "learn" / "run" / "3DBall").exists()
    write(tmp_path / "run", "Corridor/.Corridor-100.policy.pt.part")
    train(SETTINGS, tmp_path, Env(), resume=True)
    assert not (tmp_path / "run" / "Corridor" / ".Corridor-100.policy.pt.part").exists()
    write(tmp_path / "first" / "run", ".configuration.yaml.part")  # It was killed while it wrote its very first file.
    assert train(SETTINGS, tmp_path / "first", Env(), force=True).outcome.status == "finished"
    assert not (tmp_path / "first" / "run" / ".configuration.yaml.part").exists()


def test_file_in_the_place_of_a_folder_is_named(tmp_path: Path) -> None:
    write(tmp_path, "taken")
    for where in ({"run_id": "taken"}, {"results_dir": tmp_path / "taken"}, {"run_id": "taken/deep/er"}):
        refused(tmp_path, "taken is no folder", **where)


@pytest.mark.parametrize("force", [False, True])
def test_run_does_not_begin_with_what_it_overwrites(tmp_path: Path, force: bool) -> None:
    train(SETTINGS, tmp_path, Env())
    flags = {"checkpoint_settings.initialize_from": "run"}
    refused(tmp_path, "this is the run that begins", force=force, flags=flags)
    path = str(tmp_path / "run" / "Corridor")
    with pytest.raises(UsageError, match="in the run that --force overwrites"):
        train(config("Corridor", "test:x", init_path=path), tmp_path, Env(), force=True)
    assert (tmp_path / "run" / "Corridor" / "Corridor-100.pt").exists()


def test_command_line_refuses_with_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "thesis/chapter.tex")
    for run_id in ("thesis", "."):
        assert main(["run", "basic_ppo", "--results-dir", ".", "--run-id", run_id, "--force"]) == 2
    said = capsys.readouterr().err
    assert "Error: thesis is not empty, and is not the folder of a run: it holds chapter.tex." in said
    assert "--run-id: checkpoint_settings.run_id: leads out of the results folder" in said
    assert files(tmp_path) == {"thesis/chapter.tex": b"mine"}


class Exports:
    """Writes a model of its own beside each checkpoint, and at the end."""

    @hookimpl
    def export_model(self, path: Path) -> list[Path]:
        model = path.with_name(f"{path.name}.mine")
        model.write_text("a model")
        return [model]


def test_what_exporters_wrote_when_a_run_was_killed_is_the_runs(tmp_path: Path) -> None:
    train(SETTINGS, tmp_path, Env())
    run = tmp_path / "run"
    write(run, "Corridor/Corridor-100.mine", "Corridor.mine")
    assert contents(run, "run").foreign == ["Corridor/Corridor-100.mine", "Corridor.mine"]
    CheckpointFolder(run).begin_export([run / "Corridor" / "Corridor-100", run / "Corridor"])  # The run is killed here.
    assert contents(run, "run").foreign == []
    train(config("Corridor", "test:x", max_steps=200), tmp_path, Env(), resume=True)
    write(run, "Corridor/Corridor-200.txt")
    assert contents(run, "run").foreign == ["Corridor/Corridor-200.txt"]


def test_models_of_exporters_are_the_runs(tmp_path: Path) -> None:
    train(SETTINGS, tmp_path, Env(), Exports())
    assert (tmp_path / "run" / "Corridor.mine").exists()
    assert (tmp_path / "run" / "Corridor" / "Corridor-100.mine").exists()
    train(SETTINGS, tmp_path, Env(), force=True)
    assert not list((tmp_path / "run").rglob("*.mine"))
