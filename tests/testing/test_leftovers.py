from __future__ import annotations

import socket
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest
import torch

from mlhooks.testing.process_state import changes, process_state
from mlhooks.testing.side_effects import Belongings


def test_nothing_is_left_where_nothing_was_opened() -> None:
    before = Belongings()
    assert Belongings().more_than(before) == {"threads": [], "processes": [], "files": [], "sockets": []}


def test_open_files_sockets_and_threads_are_named(tmp_path: Path) -> None:
    before = Belongings()
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait, name="the writer's")
    thread.start()
    with (tmp_path / "left.txt").open("w"), socket.socket():
        left = Belongings().more_than(before)
    stop.set()
    thread.join()
    assert left["threads"] == ["the writer's"]
    if sys.platform != "win32":
        assert len(left["files"]) >= 1
    if sys.platform == "linux":
        assert left["files"] == [str(tmp_path / "left.txt")]
        assert len(left["sockets"]) == 1
    assert Belongings().more_than(before)["threads"] == []


def test_child_processes_are_named() -> None:
    before = Belongings()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        (text,) = Belongings().more_than(before)["processes"]
        assert str(child.pid) in text
        child.communicate(b"\n")
    assert Belongings().more_than(before)["processes"] == []


def test_changes_are_named_by_aspect(monkeypatch: pytest.MonkeyPatch) -> None:
    before = process_state()
    monkeypatch.setenv("SOME_VARIABLE", "changed")
    torch.rand(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = changes(before, process_state())
    assert found["process"] == ["environment variable SOME_VARIABLE: nothing -> changed"]
    assert [text.split(":")[0] for text in found["random states"]] == ["torch"]
    assert [text.split(":")[0] for text in found["warnings"]] == ["filters"]
    assert found["torch"] == found["signals"] == found["logging"] == []
