"""Runs of the conformance tests in processes of their own, which need not import torch again each time."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.testing.mutants import Mutant

ROOT = Path(__file__).parents[2]
SITE = Path(__file__).parent / "mutants" / "site"
TIMEOUT_SECONDS = 280
LIBRARIES = ("torch", "numpy", "pydantic", "yaml", "mlagents_envs.base_env", "pluggy", "pytest")
FAST = ("-p", "mlhooks.testing.plugin", "-p", "no:unraisableexception", "-p", "no:threadexception")
"""Options of pytest that leave out what takes longer than many a test, and other plugins with it."""


class Result(NamedTuple):
    """How a run of pytest ended."""

    code: int | None
    output: str


def check(target: str, folder: Path, *options: str, mutant: Mutant | None = None) -> Result:
    """Run the conformance tests in a new folder, which is removed afterwards; a path is one below the repository."""
    folder.mkdir()
    (folder / "pytest.ini").write_text("[pytest]\n")
    target = str(ROOT / target) if "/" in target else target
    arguments = ["-q", "-p", "no:cacheprovider", "-c", "pytest.ini", "--basetemp", "temporary", *options]
    name = "" if mutant is None else mutant.name
    process = _context().Process(target=_run, args=([*arguments, "--mlhooks-plugin", target], str(folder), name))
    process.start()
    process.join(TIMEOUT_SECONDS)
    if process.is_alive():
        process.kill()
        process.join()
    output = (folder / "output").read_text(encoding="utf-8", errors="replace")
    shutil.rmtree(folder)
    return Result(process.exitcode, output)


def _context() -> multiprocessing.context.BaseContext:
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(LIBRARIES))
    return context


def _run(arguments: list[str], folder: str, mutant: str) -> None:
    output = os.open(str(Path(folder, "output")), os.O_WRONLY | os.O_CREAT)
    for stream in (1, 2):
        os.dup2(output, stream)
    os.chdir(folder)
    sys.path.insert(0, str(ROOT))
    if mutant:
        from tests.testing.mutants.applying import apply

        sys.path.insert(0, str(SITE))
        os.environ |= {"MUTANT": mutant, "PYTHONPATH": os.pathsep.join([str(SITE), str(ROOT)])}
        os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
        apply(mutant)
    sys.exit(int(pytest.main([*arguments, *(FAST if mutant else ())])))
