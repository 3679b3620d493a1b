"""Runs of the conformance tests in processes of their own, which need not import torch anew each time."""

from __future__ import annotations

import multiprocessing
import os
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

TIMEOUT_SECONDS = 280


class Result(NamedTuple):
    """How a run of pytest ended."""

    code: int | None
    output: str


def check(target: str, sources: Path, folder: Path, *options: str) -> Result:
    """Run the conformance tests in a new folder, with the packages in `sources`; a path is one below that."""
    folder.mkdir()
    (folder / "pytest.ini").write_text("[pytest]\n")
    target = str(sources / target) if "/" in target else target
    arguments = ["-q", "-p", "no:cacheprovider", "-c", "pytest.ini", "--mlhooks-plugin", target, *options]
    process = _context().Process(target=_run, args=(arguments, str(sources), str(folder)))
    process.start()
    process.join(TIMEOUT_SECONDS)
    if process.is_alive():
        process.kill()
        process.join()
    return Result(process.exitcode, (folder / "output").read_text(encoding="utf-8", errors="replace"))


def _context() -> multiprocessing.context.BaseContext:
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "numpy", "pydantic", "yaml", "mlagents_envs.base_env", "pluggy"])
    return context


def _run(arguments: list[str], sources: str, folder: str) -> None:
    output = os.open(str(Path(folder, "output")), os.O_WRONLY | os.O_CREAT)
    for stream in (1, 2):
        os.dup2(output, stream)
    os.chdir(folder)
    sys.path.insert(0, sources)
    sys.dont_write_bytecode = True
    sys.exit(int(pytest.main(arguments)))
