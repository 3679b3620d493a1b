"""The conformance tests catch plugins that are wrong, and pass those that are right."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import pytest

from tests.testing.mutants import MUTANTS, Mutant
from tests.testing.trying import ROOT, Result, check

WORKERS = 2
RIGHT = ["ppo", "a2c", "dqn", "jsonl", "tensorboard", "sim_env", "gymnasium_env", "console", "extrinsic", "inprocess"]
EXAMPLES = ["examples/mlhooks-stats-sqlite", "examples/mlhooks-trainer-reinforce"]
TRIES = [
    pytest.param(mutant, test, id=f"{mutant.name}-{test}", marks=pytest.mark.mutants(mutant.subject))
    for mutant in MUTANTS
    for test in mutant.tests
]


def try_out(mutant: Mutant, test: str, folder: Path) -> Result:
    mutant.patch().check()
    return check(mutant.target, folder, "-x", "-k", test, mutant=mutant)


def see_caught(result: Result, test: str) -> None:
    failed = re.findall(r"^(?:FAILED|ERROR) \S+::(\w+)", result.output, flags=re.MULTILINE)
    assert result.code == 1, f"The conformance tests do not catch it: {result.output[-3000:]}"
    assert failed == [test], f"Another test fails: {result.output[-3000:]}"


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
                mutant, test = item.callspec.params["mutant"], item.callspec.params["test"]
                folder = tmp_path_factory.mktemp(mutant.name) / "empty"
                found[item.nodeid] = pool.submit(try_out, mutant, test, folder)
            elif item.originalname == "test_right_plugin_passes_whole":
                folder = tmp_path_factory.mktemp("right") / "empty"
                found[item.nodeid] = pool.submit(check, str(item.callspec.params["target"]), folder, "-W", "error")
        yield found


@pytest.mark.parametrize(("mutant", "test"), TRIES)
def test_mutant_is_caught(
    mutant: Mutant, test: str, request: pytest.FixtureRequest, results: Mapping[str, Future[Result]]
) -> None:
    see_caught(results[request.node.nodeid].result(), test)


@pytest.mark.slow
@pytest.mark.parametrize("target", [*RIGHT, *EXAMPLES])
def test_right_plugin_passes_whole(
    target: str, request: pytest.FixtureRequest, results: Mapping[str, Future[Result]]
) -> None:
    result = results[request.node.nodeid].result()
    assert result.code == 0, result.output[-5000:]
    assert " passed" in result.output


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (Result(0, "1 passed, 114 deselected"), "do not catch it"),
        (Result(0, "1 skipped, 114 deselected"), "do not catch it"),
        (Result(5, "115 deselected"), "do not catch it"),
        (Result(None, ""), "do not catch it"),
        (Result(1, "FAILED mlhooks/ppo/learning::test_learns_two_steps[ppo] - it does not"), "Another test fails"),
    ],
)
def test_mutant_that_is_not_caught_is_reported(result: Result, said: str) -> None:
    see_caught(
        Result(1, "FAILED mlhooks/ppo/learning::test_learns_one_step[ppo] - it does not"), "test_learns_one_step"
    )
    with pytest.raises(AssertionError, match=said):
        see_caught(result, "test_learns_one_step")


def test_share_has_the_first_test_of_each_subject_and_every_nth_after_it(request: pytest.FixtureRequest) -> None:
    subjects = ["ppo", "ppo", "dqn", "ppo", "ppo", "dqn", "dqn"]
    items = [Item(Path("test_mutants.py"), [pytest.mark.mutants(subject).mark]) for subject in subjects]
    items.append(Item(Path("test_other.py"), []))
    conftest = request.config.pluginmanager.get_plugin(str(ROOT / "conftest.py"))
    left_out: list[Item] = []
    hook = SimpleNamespace(pytest_deselected=lambda items: left_out.extend(items))
    kept = [*items]
    conftest.pytest_collection_modifyitems(SimpleNamespace(getoption={"--share": 3}.get, hook=hook), kept)
    assert kept == [items[0], items[2], items[4], items[7]]
    assert left_out == [items[1], items[3], items[5], items[6]]


class Item(NamedTuple):
    """What is collected."""

    path: Path
    marks: list[pytest.Mark]

    def iter_markers(self, name: str) -> list[pytest.Mark]:
        return [mark for mark in self.marks if mark.name == name]
