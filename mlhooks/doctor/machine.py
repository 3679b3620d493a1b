"""Checks of this machine: that it computes, and runs worker processes."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Iterator
from multiprocessing.connection import wait
from pathlib import Path
from typing import TYPE_CHECKING

from mlhooks.describing import named
from mlhooks.doctor.check import Check

if TYPE_CHECKING:
    from mlagents_envs.base_env import BaseEnv

SHARED = Path("/dev/shm")
LEAST_SHARED = 32 * 2**20
"""Bytes of shared memory that are enough for the images of some dozen agents."""
START_SECONDS = 60.0


def workers() -> Iterator[Check]:
    """Check worker processes and shared memory, as --num-envs needs them."""
    began = time.monotonic()
    try:
        start_worker(START_SECONDS)
    except Exception as error:
        text = f"A worker process does not start: {named(error)}"
        yield Check("workers", "problem", text, "One environment, without --num-envs, needs no worker process.")
    else:
        seconds = time.monotonic() - began
        yield Check("workers", "ok", f"a process started and sent its steps after {seconds:.1f} s")
    if SHARED.is_dir():
        free = shutil.disk_usage(SHARED).free
        if free < LEAST_SHARED:
            text = f"{SHARED} has {free / 2**20:.0f} MiB left, too little for workers that send images"
            advice = "Remove what lies there; a container gets more by docker run --shm-size=1g."
            yield Check("shared memory", "warning", text, advice)


def start_worker(timeout: float) -> None:
    """Start a worker process as a run does, take its first steps in and end it.

    Args:
        timeout: seconds for it to start.

    Raises:
        Exception: what went wrong in it or on the way.
    """
    from mlhooks.envs.pickling import pickled
    from mlhooks.envs.worker import Recipe
    from mlhooks.envs.worker_process import WorkerProcess

    worker = WorkerProcess(Recipe(pickled(_environment), 0, 0, logging.ERROR), timeout)
    try:
        worker.start()
        while worker.answer() is None:
            wait([worker.waitable], timeout)
        worker.ask_to_end()
        wait([worker.waitable], timeout)
    finally:
        worker.end()


def _environment(worker_id: int) -> BaseEnv:
    from mlhooks.testing.tasks import OneStep

    return OneStep(agents=1, seed=worker_id)


def device() -> Iterator[Check]:
    """Check the device on which networks compute."""
    try:
        import torch

        cuda = torch.cuda.is_available()
    except Exception as error:  # A library that is missing or broken raises what it likes.
        yield Check("device", "problem", f"torch does not import: {named(error)}", "Install it again.")
        return
    if cuda:
        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        yield Check("device", "ok", f"CUDA {torch.version.cuda}: {', '.join(names)}")
    elif shutil.which("nvidia-smi"):
        text = f"CPU only: there is an NVIDIA driver, and torch {torch.__version__} finds no CUDA device"
        advice = (
            "Install the torch for your driver from pytorch.org, or train on the CPU: small networks are fast there."
        )
        yield Check("device", "warning", text, advice)
    else:
        yield Check("device", "ok", f"CPU with {torch.get_num_threads()} threads; no CUDA device")
