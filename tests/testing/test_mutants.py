"""The conformance tests catch plugins that are wrong, and pass those that are right."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.testing.mutants import MUTANTS, Mutant
from tests.testing.trying import Result, check

ROOT = Path(__file__).parents[2]
WORKERS = 2
RIGHT = ["ppo", "a2c", "dqn", "jsonl", "tensorboard", "sim_env", "gymnasium_env", "console", "extrinsic", "inprocess"]
EXAMPLES = ["examples/mlhooks-stats-sqlite", "examples/mlhooks-trainer-reinforce"]

WITHOUT = shutil.ignore_patterns("results", "*.so", "*.pyd")  # numpy computes, as it is what is patched

pytestmark = pytest.mark.slow


def mutate(mutant: Mutant, folder: Path) -> None:
    """Copy the sources into a folder, and patch them there.

    Raises:
        AssertionError: the patch no longer fits.
    """
    source = (ROOT / mutant.file).read_text(encoding="utf-8")
    count = source.count(mutant.old)
    assert count == 1, f"The patch of {mutant.name} stands {count} times in {mutant.file}: adapt it to the source."
    for package in ("mlhooks", "builtin_plugins", "examples"):
        shutil.copytree(ROOT / package, folder / package, ignore=WITHOUT)
    (folder / mutant.file).write_text(source.replace(mutant.old, mutant.new), encoding="utf-8")


def try_out(mutant: Mutant, folder: Path) -> Result:
    mutate(mutant, folder / "src")
    try:
        return check(mutant.target, folder / "src", folder / "empty", "-x", "-k", mutant.test)
    finally:
        shutil.rmtree(folder / "src")


@pytest.fixture(scope="module")
def results(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mapping[str, Future[Result]]]:
    """What comes of the mutants and right plugins that are tried, some at a time."""
    items = [item for item in request.session.items if isinstance(item, pytest.Function)]
    with ThreadPoolExecutor(WORKERS) as pool:
        found: dict[str, Future[Result]] = {}
        for item in items:
            if item.originalname == "test_mutant_is_caught":
                mutant = item.callspec.params["mutant"]
                assert isinstance(mutant, Mutant)
                found[mutant.name] = pool.submit(try_out, mutant, tmp_path_factory.mktemp(mutant.name))
            elif item.originalname == "test_right_plugin_passes_whole":
                target = str(item.callspec.params["target"])
                folder = tmp_path_factory.mktemp("right") / "empty"
                found[target] = pool.submit(check, target, ROOT, folder, "-W", "error")
        yield found


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_mutant_is_caught(mutant: Mutant, results: Mapping[str, Future[Result]]) -> None:
    result = results[mutant.name].result()
    failed = re.findall(r"^(?:FAILED|ERROR) \S+::(\w+)", result.output, flags=re.MULTILINE)
    assert result.code == 1, f"The kit does not catch it: {result.output[-3000:]}"
    assert failed == [mutant.test], result.output[-3000:]


@pytest.mark.parametrize("target", [*RIGHT, *EXAMPLES])
def test_right_plugin_passes_whole(target: str, results: Mapping[str, Future[Result]]) -> None:
    result = results[target].result()
    assert result.code == 0, result.output[-5000:]
    assert " passed" in result.output
