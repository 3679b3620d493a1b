"""A disk that is full, a folder that may not be written: a sentence each, nothing half written, nothing lost."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from mlhooks.cli import main
from mlhooks.errors import ResultsError
from mlhooks.training import durable
from mlhooks.training.checkpoints import CheckpointFolder
from mlhooks.training.durable import write_durably
from tests.scripted import QUIET

BASIC = """
behaviors:
  Basic:
    trainer_type: ppo
    hyperparameters: {batch_size: 16, buffer_size: 64}
    network_settings: {hidden_units: 8, num_layers: 1}
    max_steps: 200
    summary_freq: 100
    checkpoint_interval: 100
env_settings: {env_path: "sim:Basic", seed: 3}
"""


class Disk:
    """Counts what is synced, and is full from the n-th time on, or only then."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.full_at: Callable[[int], bool] = lambda number: False
        self.number, self.code, self.sync = 0, errno.ENOSPC, os.fsync
        monkeypatch.setattr(durable.os, "fsync", self._sync)

    def _sync(self, file: int) -> None:
        self.number += 1
        if self.full_at(self.number):
            raise OSError(self.code, os.strerror(self.code))
        self.sync(file)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Disk:
    monkeypatch.chdir(tmp_path)
    Path("basic.yaml").write_text(BASIC)
    return Disk(monkeypatch)


def run(*arguments: str) -> int:
    return main(["run", "basic.yaml", *(word for name in QUIET for word in ("-p", name)), *arguments])


def test_disk_that_is_full_from_any_moment_on_ends_the_run_with_a_sentence_and_loses_nothing(
    disk: Disk, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--run-id", "whole") == 0
    writes = disk.number
    assert writes > 10
    for first in range(1, writes + 1, 4):  # These are all writes, from the settings to the last model.
        path = Path("results", f"run{first}")
        disk.number, disk.full_at = 0, lambda number, first=first: number >= first
        code, said = run("--run-id", path.name), capsys.readouterr().err
        disk.full_at = lambda number: False
        assert "defect" not in said, first
        assert "No space left on device. Free some space on that disk" in said, first
        assert str(path) in said
        assert not list(path.rglob("*.part")), first
        manifest = CheckpointFolder(path).manifest["mlhooks"]
        assert code == (1 if len(manifest) < 2 else code)
        assert run("--run-id", path.name, "--resume" if manifest else "--force") == 0, first


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (errno.ENOSPC, "Free some space"),
        (errno.EDQUOT, "Your quota"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "Allow writing"),
        (errno.EFBIG, "Raise the limit"),
        (errno.EIO, "Check the disk"),
        (errno.EUCLEAN if hasattr(errno, "EUCLEAN") else errno.ENODEV, "Check that place"),
    ],
)
def test_each_reason_has_its_advice_and_the_old_content_stays(
    tmp_path: Path, disk: Disk, code: int, advice: str
) -> None:
    path = tmp_path / "folder" / "file"
    write_durably(path, b"old")
    disk.code, disk.full_at = code, lambda number: True
    with pytest.raises(ResultsError, match=advice) as caught:
        write_durably(path, b"new")
    assert str(path) in str(caught.value)
    assert caught.value.exit_code == 1
    assert path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]


def test_folder_that_cannot_be_made_is_named(
    disk: Disk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def denied(self: Path, *args: object, **kwargs: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))

    monkeypatch.setattr(Path, "mkdir", denied)
    assert run("--run-id", "mine") == 1
    said = capsys.readouterr().err
    assert f"{Path('results', 'mine')} cannot be written: Permission denied. Allow writing there" in said
    assert "defect" not in said


def test_timers_that_cannot_be_written_cost_a_warning_only(
    disk: Disk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(self: Path, *args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))

    monkeypatch.setattr(Path, "write_text", full)
    assert run("--run-id", "mine") == 0
    assert "timers.json cannot be written: No space left" in capsys.readouterr().err
    assert not list(Path("results").rglob("*.tmp"))
