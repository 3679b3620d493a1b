"""The place of results: held by another run, or full."""

from __future__ import annotations

import json
import random
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlhooks import hookimpl
from mlhooks.errors import UsageError
from mlhooks.training.checkpoints import CheckpointFolder, read_state
from tests.reliability.children import CONTEXT, command, run_and_die
from tests.reliability.test_damage import sentence
from tests.reliability.test_kills import PPO
from tests.scripted import train

QUIET = [part for name in ("console", "tensorboard", "curve") for part in ("-p", f"no:{name}")]


def test_second_run_in_one_folder_is_refused_and_the_first_ends_untouched(
    tmp_path: Path, cases: Callable[[int], list[int]]
) -> None:
    longer = json.loads(json.dumps(PPO))
    longer["behaviors"]["3DBall"]["max_steps"] = 30_000
    for case in cases(20):
        rng = random.Random(case)
        folder = tmp_path / str(case)
        first = CONTEXT.Process(target=run_in_turn, args=(longer, folder))
        first.start()
        wait_for(lambda folder=folder: (folder / "run" / "run_logs" / "training_status.json").exists())
        for how in rng.sample(["resume", "force", "neither"], 3):
            with pytest.raises(UsageError, match=rf"is held by a run that goes on.*\b{first.pid}\b"):
                train(PPO, folder, **({} if how == "neither" else {how: True}))
        assert first.is_alive(), "the first run ended too early to say anything"
        (folder / "stop").touch()
        first.join()
        assert first.exitcode == 0, f"--reliability-seed {case}"
        newest = CheckpointFolder(folder / "run").newest()["behaviors"]["3DBall"]
        assert read_state(newest)["step"] > PPO["behaviors"]["3DBall"]["checkpoint_interval"]
        shutil.rmtree(folder)


class StopOnFile:
    """Stops the run, as Ctrl-C does, when a file is there."""

    def __init__(self, file: Path) -> None:
        self.file = file

    @hookimpl
    def run_started(self, run: Any) -> None:
        self.run = run

    @hookimpl
    def update_finished(self) -> None:
        time.sleep(0.05)  # It lasts until it is told to stop.
        self.run.stop.requested = self.run.stop.requested or self.file.exists()


def run_in_turn(settings: dict[str, Any], folder: Path) -> None:
    train(settings, folder, StopOnFile(folder / "stop"))


def wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.05)


@pytest.mark.skipif(sys.platform == "win32", reason="a process there has no limit of file sizes")
def test_full_disk_gets_its_sentence_and_costs_nothing_that_was_saved(
    tmp_path: Path, cases: Callable[[int], list[int]]
) -> None:
    """Writes fail beyond a random size of a file, in any file of the run: the system says EFBIG as it would ENOSPC."""
    (tmp_path / "config.yaml").write_text(json.dumps(PPO))
    assert run_and_die(PPO, tmp_path / "whole") == 0
    sizes = [path.stat().st_size for path in (tmp_path / "whole" / "run").rglob("*") if path.is_file()]
    failed = 0
    for case in cases(40):
        rng = random.Random(case)
        results = tmp_path / str(case)
        limit = max(1, rng.choice(sizes) + rng.randint(-40, 0))
        arguments = ["run", str(tmp_path / "config.yaml"), "--results-dir", str(results), "--run-id", "run", *QUIET]
        if rng.random() < 0.5:  # The disk is full when a run goes on.
            train(PPO, results, overrides=["behaviors.3DBall.max_steps=500"])
            arguments += ["--resume"]
        code, text = command(arguments, tmp_path / "output", limit=limit)
        told = f"--reliability-seed {case}: {limit:,} bytes: {code}\n{text[-2000:]}"
        sentence(code if code is not None else -1, text, told, writers_fail=True)
        failed += code != 0
        left = [path.name for path in results.rglob("*") if path.name.endswith((".part", ".tmp"))]
        assert not left, f"{told}\n{left}"
        manifest = results / "run" / "run_logs" / "training_status.json"
        how = {"resume": True} if manifest.exists() and CheckpointFolder(results / "run").manifest["mlhooks"] else {}
        run = train(PPO, results, **(how or {"force": True}))
        assert run.trainers["3DBall"].step == 1200, told
        shutil.rmtree(results)
    assert failed, "no write failed"
