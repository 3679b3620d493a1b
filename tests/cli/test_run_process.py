"""Whole processes: what signals, pipes and exit codes do."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.scripted import config

BALLS = config("3DBall", "sim:3DBall", max_steps=200_000, hyperparameters={"batch_size": 60, "buffer_size": 300})


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    (folder / "config.yaml").write_text(yaml.safe_dump(BALLS))
    command = [sys.executable, "-m", "mlhooks", "run", "config.yaml", "--run-id", "run", *arguments]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(process: subprocess.Popen[str], text: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if text in line:
            return
    pytest.fail(f"{text!r} never came; stderr: {process.stderr and process.stderr.read()}")


@pytest.mark.skipif(os.name != "posix", reason="sends POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_saves_and_exits_with_130_and_resume_goes_on(tmp_path: Path, number: signal.Signals) -> None:
    process = start(tmp_path)
    wait_for(process, "step 600")
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "saving a checkpoint" in err
    assert "Traceback" not in err
    assert "--resume" in out
    stopped = json.loads((tmp_path / "results/run/run_logs/training_status.json").read_text())["3DBall"]
    step = stopped["final_checkpoint"]["steps"]
    assert step >= 600
    resumed = start(tmp_path, "--resume", "--set", f"behaviors.3DBall.max_steps={step + 300}")
    out, err = resumed.communicate(timeout=60)
    assert resumed.returncode == 0, err
    assert f"from step {step:,}" in out
    assert "\x1b" not in out


def test_failed_run_exits_with_1_and_says_what_happened(tmp_path: Path) -> None:
    (tmp_path / "explode.py").write_text(
        "from mlhooks import hookimpl\n"
        "@hookimpl\n"
        "def behavior_added(trainer):\n"
        "    critic = trainer.optimizer.critic\n"
        "    trainer.optimizer.loss = lambda batch: {'loss': critic(batch.features).mean() * float('nan')}\n"
    )
    process = start(tmp_path, "-p", "explode.py")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "Error: the loss became NaN or infinite: loss = nan" in err
    assert "Traceback" not in err
