"""Whole processes: what signals, pipes and exit codes do."""

from __future__ import annotations

import contextlib
import json
import os
import re
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


@pytest.mark.skipif(os.name != "posix", reason="loses a terminal as POSIX systems do")
def test_lost_terminal_saves_and_exits_with_130(tmp_path: Path) -> None:
    """The terminal's end reaches the run and its workers at once, and nothing can be written any more."""
    import pty

    (tmp_path / "config.yaml").write_text(yaml.safe_dump(BALLS))
    own, theirs = pty.openpty()
    taking = (
        "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.executable, sys.argv[1:])"
    )
    command = [sys.executable, "-c", taking, sys.executable, "-m", "mlhooks", "run", "config.yaml", "--run-id", "run"]
    command += ["--num-envs", "2", "-p", "no:curve", "-p", "no:tensorboard"]
    streams = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
    with subprocess.Popen(command, cwd=tmp_path, start_new_session=True, **streams) as process:
        os.close(theirs)
        said = b""
        while not re.search(rb"step 6\d\d", said):  # How many agents wait when a period ends depends on the workers.
            said += os.read(own, 65536)
        os.close(own)
    assert process.returncode == 130
    stopped = json.loads((tmp_path / "results/run/run_logs/training_status.json").read_text())["3DBall"]
    assert stopped["final_checkpoint"]["steps"] >= 600


@pytest.mark.skipif(os.name != "posix", reason="closes a pipe as POSIX systems do")
def test_reader_that_is_gone_costs_nothing_but_the_output(tmp_path: Path) -> None:
    quiet = ["-p", "no:curve", "-p", "no:tensorboard"]
    with start(tmp_path, "--set", "behaviors.3DBall.max_steps=900", *quiet) as process:
        wait_for(process, "step")
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert "BrokenPipe" not in process.stderr.read()
    assert process.returncode == 0
    status = json.loads((tmp_path / "results/run/run_logs/training_status.json").read_text())["3DBall"]
    assert status["final_checkpoint"]["steps"] >= 900


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="sends POSIX signals")
@pytest.mark.parametrize("workers", [1, 2])
def test_interrupt_at_any_moment_leaves_no_traceback(tmp_path: Path, workers: int) -> None:
    """From the import of torch over the start of workers to the end of the interpreter, in steps of a fifth second."""
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config("3DBall", "sim:3DBall", max_steps=900)))
    command = [sys.executable, "-m", "mlhooks", "run", "config.yaml", "--run-id", "run", "--force"]
    command += ["--num-envs", str(workers)]
    for tick in range(3, 40):  # Python itself starts before that.
        process = subprocess.Popen(
            command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.2 * tick)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)  # A terminal does the same.
        said, _ = process.communicate(timeout=60)
        assert "Traceback" not in said
        assert "not drawn" not in said
        assert process.returncode in (0, 130, -signal.SIGINT), said  # The last one may come while the interpreter ends.
