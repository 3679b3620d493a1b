"""Manifests that come from elsewhere: nothing outside of the run's folder is touched, and nothing blocks."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mlhooks
from mlhooks.errors import CheckpointError, UsageError
from mlhooks.names import MANIFEST
from mlhooks.training.checkpoints import CheckpointFolder, write_durably
from mlhooks.training.folder_lock import LOCK
from mlhooks.training.manifest import inside, read_manifest
from mlhooks.training.run_files import ASIDE
from tests.scripted import Env, config, train

SETTINGS = config("Corridor", "test:x", max_steps=300, checkpoint_interval=100, keep_checkpoints=2)
links = pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
pipes = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(SETTINGS, tmp_path_factory.mktemp("trained"), Env()).path


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of a trained run's folder, beside a file of somebody else."""
    import shutil

    shutil.copytree(trained, tmp_path / "run")
    (tmp_path / "precious.txt").write_text("precious")
    return tmp_path / "run"


def altered(run: Path, alter: Callable[[dict[str, Any]], Any]) -> None:
    manifest = json.loads((run / MANIFEST).read_text())
    alter(manifest)
    (run / MANIFEST).write_text(json.dumps(manifest))


def refused(run: Path, *, match: str) -> None:
    """Demand that each way to use the folder is refused with the same words, and that files beside it stay."""
    before = {path: path.stat().st_mtime_ns for path in run.parent.rglob("*") if not path.is_dir()}
    more = ["behaviors.Corridor.max_steps=600"]
    inference = {"checkpoint_settings.inference": True}
    for use in (
        lambda: train(SETTINGS, run.parent, Env(), resume=True, overrides=more),
        lambda: train(SETTINGS, run.parent, Env(), flags=inference, episodes=1),
        lambda: train(SETTINGS, run.parent, Env(), run_id="b", flags={"checkpoint_settings.initialize_from": "run"}),
        lambda: mlhooks.load(run),
    ):
        with pytest.raises((CheckpointError, UsageError), match=match):
            use()
    after = {path: path.stat().st_mtime_ns for path in run.parent.rglob("*") if not path.is_dir()}
    assert after == before


OUTSIDE = ["../precious.txt", "Corridor/../../precious.txt", "..", "", ".", "a\0b"]


@pytest.mark.parametrize("name", [*OUTSIDE, "absolute"])
@pytest.mark.parametrize("place", ["exported", "behaviors", "run"])
def test_manifest_that_names_a_path_outside_of_its_folder_is_refused(run: Path, name: str, place: str) -> None:
    name = str(run.parent / "precious.txt") if name == "absolute" else name

    def name_it(manifest: dict[str, Any]) -> None:
        for entry in manifest["mlhooks"]:
            if place == "exported":
                entry["exported"].append(name)
            else:
                (entry["run"] if place == "run" else entry["behaviors"]["Corridor"])["path"] = name

    altered(run, name_it)
    with pytest.raises(CheckpointError) as caught:
        read_manifest(run)
    assert f"the path {name!r} leads out of the run's folder" in str(caught.value)
    assert str(MANIFEST) in str(caught.value)
    if name in ("../precious.txt", ""):  # Each way to use a folder reads the manifest in the one place tested above.
        refused(run, match="leads out of the run's folder")


@pytest.mark.parametrize("how", [{"resume": True}, {"flags": {"checkpoint_settings.inference": True}}])
def test_path_in_an_error_is_what_a_person_would_type(
    run: Path, monkeypatch: pytest.MonkeyPatch, how: dict[str, Any]
) -> None:
    monkeypatch.chdir(run.parent)
    for text, said in (("{}", "cannot be used: "), ("no JSON", "cannot be read: ")):
        (run / MANIFEST).write_text(text)
        with pytest.raises(CheckpointError) as caught:
            train(SETTINGS, run.parent, Env(), **how)
        assert str(caught.value).startswith(f"{Path('run', MANIFEST)} {said}")
        assert str(run.parent) not in str(caught.value)


def test_path_of_a_damaged_checkpoint_is_what_a_person_would_type(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run.parent)
    path = run / "Corridor.policy.pt"
    path.write_bytes(b"damaged")
    with pytest.raises(CheckpointError) as caught:
        mlhooks.load(path)
    shown = str(Path("run", path.name))
    assert str(caught.value).startswith(f"{shown} cannot be read as an mlhooks checkpoint: ")
    assert str(caught.value).count(shown) == 1  # It is said once, whoever adds the file's name.


@links
@pytest.mark.parametrize("link", ["Corridor", "run_logs", "elsewhere", "stats.jsonl", "configuration.yaml"])
def test_link_that_leads_out_of_the_folder_is_not_followed(run: Path, link: str) -> None:
    outside = run.parent / "outside"
    if (run / link).exists():
        (run / link).rename(outside)
    else:
        outside.mkdir()
    (run / link).symlink_to(outside, target_is_directory=outside.is_dir())
    before = {path: path.read_bytes() for path in run.parent.rglob("*") if path.is_file()}
    with pytest.raises(CheckpointError, match="leads out of the run's folder"):
        train(SETTINGS, run.parent, Env(), resume=True, overrides=["behaviors.Corridor.max_steps=600"])
    assert {path: path.read_bytes() for path in run.parent.rglob("*") if path.is_file()} == before


@links
@pytest.mark.parametrize("name", [LOCK, *ASIDE])
@pytest.mark.parametrize("how", ["resume", "force"])
def test_link_in_place_of_what_a_run_works_with_is_not_followed(run: Path, name: str, how: str) -> None:
    outside = run.parent / "outside"
    outside.mkdir()
    (outside / "file").write_text("precious")
    (run / name).symlink_to(outside / "file" if name == LOCK else outside)
    with pytest.raises((UsageError, CheckpointError), match=f"{name} is a link, which no run makes"):
        train(SETTINGS, run.parent, Env(), **{how: True})
    assert (outside / "file").read_text() == "precious"


@links
def test_link_within_the_folder_and_a_link_to_the_folder_are_fine(run: Path) -> None:
    (run / "newest").symlink_to(run / "Corridor")
    (run.parent / "alias").symlink_to(run, target_is_directory=True)
    overrides = ["behaviors.Corridor.max_steps=600"]
    resumed = train(SETTINGS, run.parent, Env(), run_id="alias", resume=True, overrides=overrides)
    assert resumed.trainers["Corridor"].step == 600


@links
def test_part_of_a_file_that_is_a_link_is_replaced_instead_of_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    (tmp_path / ".file.part").symlink_to(tmp_path / "precious")
    write_durably(tmp_path / "file", b"new")
    assert (tmp_path / "precious").read_text() == "precious"
    assert (tmp_path / "file").read_bytes() == b"new"


def _put(*keys: Any, value: Any) -> Callable[[dict[str, Any]], None]:
    def put(manifest: Any) -> None:
        for key in keys[:-1]:
            manifest = manifest[key]
        manifest[keys[-1]] = value

    return put


FORMS = [
    (_put("mlhooks", value=None), "mlhooks: Input should be a valid list"),
    (_put("mlhooks", value={}), "mlhooks: Input should be a valid list"),
    (_put("mlhooks", 0, value=None), "mlhooks.0: Input should be a valid dictionary"),
    (_put("mlhooks", 0, "run", value=3), "mlhooks.0.run: Input"),
    (_put("mlhooks", 0, "run", "size", value="3"), "mlhooks.0.run.size: Input should be a valid integer"),
    (_put("mlhooks", 0, "run", "sha256", value=None), "mlhooks.0.run.sha256: Input"),
    (_put("mlhooks", 0, "exported", value=None), "mlhooks.0.exported: Input"),
    (_put("mlhooks", 0, "behaviors", value=[]), "mlhooks.0.behaviors: Input"),
    (_put("mlhooks", 0, "behaviors", "Corridor", value={}), "mlhooks.0.behaviors.Corridor.path: Field required"),
    (_put("metadata", value="x"), "metadata: Input should be a valid dictionary"),
    (_put("Corridor", value=[]), "Corridor: Input should be a valid dictionary"),
    (_put("Corridor", "checkpoints", value=[{"steps": None}]), "Corridor.checkpoints.0.steps: Input"),
    (_put("Corridor", "checkpoints", value=[{"steps": 1, "file_path": []}]), "Corridor.checkpoints.0.file_path: Input"),
]


@pytest.mark.parametrize(("alter", "place"), FORMS, ids=[place for _, place in FORMS])
def test_value_of_another_form_is_refused_by_its_place(run: Path, alter: Any, place: str) -> None:
    altered(run, alter)
    with pytest.raises(CheckpointError) as caught:
        CheckpointFolder(run)
    assert f"{MANIFEST} cannot be used: {place}" in str(caught.value)


TEXTS = [b"", b"null", b"3", b"[]", b"{", b"\0" * 40, b"\xff\xfe\xff", b"[" * 100_000, b'{"a":' * 100_000, b"1" * 5000]


@pytest.mark.parametrize("text", TEXTS, ids=[str(text[:6]) for text in TEXTS])
def test_file_that_is_no_manifest_is_refused_with_its_name(run: Path, text: bytes) -> None:
    (run / MANIFEST).write_bytes(text)
    refused(run, match="training_status.json cannot be (read|used): ")


@pipes
def test_pipe_or_socket_in_place_of_a_file_blocks_nobody(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (run / MANIFEST).unlink()
    os.mkfifo(run / MANIFEST)
    refused(run, match="pipe, a socket or a device|pipe, socket or device")
    (run / MANIFEST).unlink()
    monkeypatch.chdir(run / "run_logs")  # Names of sockets are short.
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(MANIFEST.name)
        monkeypatch.undo()
        refused(run, match="pipe, a socket or a device|pipe, socket or device")


@pipes
@pytest.mark.parametrize("name", ["stats.jsonl", ".configuration.yaml.part", "run_logs/timers.json.tmp"])
def test_pipe_where_a_run_writes_is_refused_before_it_writes(run: Path, name: str) -> None:
    (run / name).unlink(missing_ok=True)
    os.mkfifo(run / name)
    with pytest.raises(CheckpointError, match=f"{name} is a pipe"):
        train(SETTINGS, run.parent, Env(), resume=True, overrides=["behaviors.Corridor.max_steps=600"])


def test_folder_in_place_of_the_manifest_is_named(run: Path) -> None:
    (run / MANIFEST).unlink()
    (run / MANIFEST).mkdir()
    refused(run, match="is a folder, (not a file|where a run has a file)")


@pytest.mark.parametrize("how", ["resume", "force"])
def test_folder_where_a_run_writes_a_file_is_refused(run: Path, how: str) -> None:
    (run / "stats.jsonl").unlink()
    (run / "stats.jsonl").mkdir()
    with pytest.raises(CheckpointError, match=r"stats.jsonl is a folder, where a run has a file"):
        train(SETTINGS, run.parent, Env(), **{how: True})
    assert mlhooks.load(run).behavior_name == "Corridor"


def test_neither_the_manifest_nor_a_folder_is_removed_as_part_of_an_old_checkpoint(run: Path) -> None:
    (run / "kept").mkdir()
    altered(run, lambda m: m["mlhooks"][0]["exported"].extend(["run_logs/training_status.json", "kept"]))
    train(SETTINGS, run.parent, Env(), resume=True, overrides=["behaviors.Corridor.max_steps=600"])
    assert (run / "kept").is_dir()
    assert [len(entry["behaviors"]) for entry in read_manifest(run)["mlhooks"]] == [1, 1]


@pytest.mark.parametrize("name", ["mlhooks", "metadata", "../../x", "..", "a/b", "Nul"])
def test_behavior_of_any_name_stays_in_the_folder_and_resumes(tmp_path: Path, name: str) -> None:
    from tests.scripted import Corridor

    settings = config(name, "test:x", max_steps=200)
    train(settings, tmp_path / "results", Env(lambda: Corridor(name)))
    more = [f"behaviors={json.dumps({name: settings['behaviors'][name] | {'max_steps': 400}})}"]
    resumed = train(settings, tmp_path / "results", Env(lambda: Corridor(name)), resume=True, overrides=more)
    assert resumed.trainers[name].step == 400
    assert [path.name for path in tmp_path.iterdir()] == ["results"]
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["run"]


def test_path_within_the_folder_is_given_as_it_is(tmp_path: Path) -> None:
    assert inside(tmp_path, "a/b.pt") == tmp_path / "a" / "b.pt"


def test_old_checkpoint_that_cannot_be_removed_ends_no_run(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    altered(run, lambda manifest: manifest["mlhooks"][0]["exported"].append("x" * 5000))  # No file has such a name.
    more = ["behaviors.Corridor.max_steps=600"]
    assert train(SETTINGS, run.parent, Env(), resume=True, overrides=more).outcome.status == "finished"
    assert "of an old checkpoint stays: " in caplog.text
