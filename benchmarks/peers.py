"""Peers of a benchmark: each in a virtual environment of its own, each run in a process measured from outside."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parent
CONSTRAINTS = ROOT / "constraints.txt"
ATARI = ("ale-py", "opencv-python-headless")
SB3 = ("stable-baselines3==2.9.2", "gymnasium[box2d,mujoco]", *ATARI)
SHARED = ("torch", "numpy", "gymnasium", "Box2D", *ATARI)
"""What has the version of `constraints.txt` in every peer's environment."""
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class Peer:
    """One of the programs that are compared.

    Attributes:
        name: its name in results.
        script: the script under `benchmarks/` that makes one run; it takes a JSON object of settings as its first
            argument and writes a JSON object to the file that its second argument names.
        requirements: what pip installs for it, besides torch.
        title: its name in tables, if that is another one.
        environment: the peer whose virtual environment it uses, if not its own.
        installs: what each of several calls of `pip install` is told, in place of requirements, for a peer that needs
            other versions than those of `constraints.txt`.
    """

    name: str
    script: str
    requirements: tuple[str, ...] = ()
    title: str = ""
    environment: str = ""
    installs: tuple[tuple[str, ...], ...] = ()

    def python(self) -> Path:
        """Return the interpreter of the peer's virtual environment, made again when requirements change."""
        folder = HERE / ".venvs" / (self.environment or self.name)
        python = folder / "bin" / "python"
        lines = CONSTRAINTS.read_text(encoding="utf-8").splitlines()
        own = "--editable" in self.requirements  # The others get along with the rest of our pins, or not.
        shared = (line for line in lines if own or line.partition("==")[0] in SHARED)
        pinned = "" if self.installs else "\n".join(shared)
        project = (ROOT / "pyproject.toml").read_text(encoding="utf-8") if own else ""
        wanted = "\n".join([sys.version, *self.requirements, *map(" ".join, self.installs), pinned, project])
        constraints, installed = folder / "constraints.txt", folder / "installed.txt"
        if not installed.exists() or installed.read_text(encoding="utf-8") != wanted:
            print(f"Installing {self.name} in {folder}", flush=True)
            shutil.rmtree(folder, ignore_errors=True)
            subprocess.run([sys.executable, "-m", "venv", folder], check=True)
            constraints.write_text(pinned, encoding="utf-8")
            pip = str(python), "-m", "pip", "install", "--quiet", "--constraint", str(constraints)
            for packages in self.installs or (("torch", *self.requirements),):
                subprocess.run([*pip, *packages], check=True, cwd=ROOT)
            installed.write_text(wanted, encoding="utf-8")
        return python

    def run(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Make one run in a new process with one thread.

        Returns:
            What the script reports, with `process_seconds` (from the start of the interpreter to its end),
            `cpu_seconds` (those that it computed, user and system) and `peak_mib` (the resident memory of its largest
            process at its peak).
        """
        with tempfile.TemporaryDirectory() as folder:
            report, log = Path(folder, "report.json"), Path(folder, "log")
            command = [str(self.python()), str(HERE / self.script), json.dumps(settings), str(report)]
            environment = os.environ | dict.fromkeys(THREAD_VARIABLES, "1")
            with log.open("wb") as output:
                started = time.perf_counter()
                process = subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=output)
                # wait4 gives this process' own usage; getrusage(RUSAGE_CHILDREN) would give that of all until now.
                _, status, usage = os.wait4(process.pid, 0)
                seconds, process.returncode = time.perf_counter() - started, os.waitstatus_to_exitcode(status)
            if process.returncode != 0:
                raise SystemExit(f"{self.name} failed:\n{log.read_text(errors='replace')}")
            result: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
        return result | {
            "process_seconds": seconds,
            "cpu_seconds": usage.ru_utime + usage.ru_stime,
            "peak_mib": usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10),
        }


MLAGENTS = Peer(
    "mlagents",
    "speed_mlagents.py",
    installs=(
        (
            "torch==2.13.0",
            "numpy==1.23.5",
            "gymnasium==1.4.0",
            "protobuf==3.20.3",
            "grpcio<1.54",
            "tensorboard==2.15.1",
        ),
        ("attrs", "cattrs<1.7", "pyyaml", "h5py<3.12", "gym==0.26.2", "pettingzoo==1.24.3", "setuptools<70"),
        ("cloudpickle", "pillow", "six", "filelock"),
        ("--no-deps", "--ignore-requires-python", "mlagents==1.1.0", "mlagents-envs==1.1.0"),
    ),
)
"""ML-Agents is made for Python 3.10; on others it gets along with these packages, of which its own pins allow few."""
