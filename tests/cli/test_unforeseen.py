"""What the command line says of errors that nobody foresaw."""

from __future__ import annotations

import errno
import re
import tempfile
from asyncio import CancelledError
from pathlib import Path

import pytest

from mlhooks import __version__
from mlhooks.cli.unforeseen import explained
from mlhooks.places import keep_place


@pytest.fixture(autouse=True)
def _temporary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def raised(error: BaseException) -> BaseException:
    with pytest.raises(type(error)) as caught:
        raise error
    return caught.value


def report_in(text: str) -> str:
    found = re.search(r"(\S+\.txt) holds what a report needs;", text)
    assert found is not None
    return Path(found[1]).read_text(encoding="utf-8")


class Silent(Exception):
    def __str__(self) -> str:
        raise ValueError("nothing to say")


@pytest.mark.parametrize(
    "error", [ZeroDivisionError("by zero"), RecursionError(), CancelledError(), Silent()], ids=repr
)
def test_error_out_of_a_plugin_is_said_with_its_line_and_a_file_for_a_report(error: BaseException) -> None:
    text = explained(raised(error))
    assert re.match(rf"{type(error).__name__}.* \(.*test_unforeseen\.py:\d+\)\nIt came out of a plugin or an env", text)
    report = report_in(text)
    assert report.startswith(f"mlhooks {__version__}, Python 3.")
    assert "numpy 2." in report
    assert "Traceback (most recent call last)" in report
    assert "raise error" in report


@pytest.mark.parametrize(
    ("module", "defect"), [("mlhooks.training.run", True), ("builtin_plugins.ppo", True), ("my_plugin", False)]
)
def test_defect_of_mlhooks_is_said_of_its_own_modules_alone(module: str, defect: bool) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        exec("1 / 0", {"__name__": module})
    error = caught.value
    assert error.__traceback__ is not None
    error.__traceback__ = error.__traceback__.tb_next  # This file is other people's code, too.
    keep_place(error)
    error.__traceback__ = None  # Errors from another process have none.
    assert ("This is a defect of mlhooks." in explained(error)) == defect
    assert ("It came out of a plugin or an environment" in explained(error)) != defect


def test_report_has_no_secrets_and_no_name_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "ada"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "ada"))
    monkeypatch.setenv("WANDB_API_KEY", "c0ffee-1234")
    monkeypatch.setenv("HARMLESS", "lovelace")
    report = report_in(explained(raised(ValueError(f"c0ffee-1234 refused in {tmp_path / 'ada' / 'x'}"))))
    assert "c0ffee" not in report
    assert "lovelace" not in report
    assert f"*** refused in {Path('~') / 'x'}" in report


def test_huge_report_is_cut() -> None:
    assert len(report_in(explained(raised(ValueError("x" * 1_000_000))))) < 200_000


def test_defect_is_said_where_no_file_can_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    assert explained(raised(KeyError("x"))).endswith("first. Use --debug to see where it comes from.")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.ENAMETOOLONG, errno.EMFILE])
def test_refusal_of_the_system_is_no_defect(number: int, tmp_path: Path) -> None:
    text = explained(raised(OSError(number, "no more of it", "results/x/stats.jsonl")))
    assert text.startswith("The system refuses: no more of it: results/x/stats.jsonl (")
    assert "defect" not in text
    assert list(tmp_path.iterdir()) == []


class OutOfMemoryError(RuntimeError):
    """Called as torch's is."""


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB"),
        RuntimeError("[enforce fail] . DefaultCPUAllocator: can't allocate memory: you tried to allocate 80 bytes."),
    ],
)
def test_lack_of_memory_is_no_defect(error: Exception) -> None:
    text = explained(raised(error))
    assert text.startswith("There is not enough memory")
    assert "buffer_size" in text
    assert "defect" not in text


def test_traceback_that_was_shown_is_not_written_again(tmp_path: Path) -> None:
    assert explained(raised(KeyError("x")), shown=True).startswith("KeyError: 'x' (")
    assert list(tmp_path.iterdir()) == []
