"""Only one run at a time holds its folder."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mlhooks import hookimpl
from mlhooks.errors import UsageError
from mlhooks.training.folder_lock import LOCK
from tests.scripted import Env, config, train
from tests.training.test_run_folder import SETTINGS, refused

HOLDER = """
import sys
from pathlib import Path
from mlhooks.training.run_folder import RunFolder
with RunFolder(Path(sys.argv[1]), "run").hold():
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("arguments", [{}, {"resume": True}, {"force": True}], ids=["fresh", "resume", "force"])
def test_run_beside_a_live_one_is_refused_with_its_process_and_host(tmp_path: Path, arguments: dict[str, bool]) -> None:
    train(SETTINGS, tmp_path, Env())
    held = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "run")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert held.stdout is not None
        assert held.stdout.readline() == b"held\n"
        holder = f"process {held.pid} on {socket.gethostname()}"
        refused(tmp_path, rf"held by a run that goes on: {holder}\.", **arguments)
        watched = train(SETTINGS, tmp_path, Env(), flags={"checkpoint_settings.inference": True}, episodes=4)
        assert watched.outcome.status == "finished"
    finally:
        held.kill()  # The lock is released by that.
        held.communicate()
    more = config("Corridor", "test:x", max_steps=200)
    assert train(more, tmp_path, Env(), resume=True).trainers["Corridor"].step == 200
    assert not (tmp_path / "run" / LOCK).exists()


def test_second_run_of_one_process_is_refused_too(tmp_path: Path) -> None:
    refusals = []

    class Again:
        @hookimpl
        def behavior_added(self) -> None:
            def start() -> None:
                with pytest.raises(UsageError, match=rf"process {os.getpid()} \(this one\)") as caught:
                    train(SETTINGS, tmp_path, Env(), force=True)
                refusals.append(caught.value)

            start()
            thread = threading.Thread(target=start)
            thread.start()
            thread.join()

    assert train(SETTINGS, tmp_path, Env(), Again(), strict_plugins=True).trainers["Corridor"].step == 100
    assert len(refusals) == 2
