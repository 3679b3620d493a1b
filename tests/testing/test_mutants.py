"""The conformance tests catch plugins that are wrong, and pass those that are right."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import pytest

from tests.testing.mutants import MUTANTS, Mutant
from tests.testing.trying import ROOT, Result, check

WORKERS = 2
RIGHT = [
    "ppo",
    "a2c",
    "dqn",
    "sac",
    "poca",
    "jsonl",
    "tensorboard",
    "sim_env",
    "gymnasium_env",
    "pettingzoo_env",
    "console",
    "extrinsic",
    "inprocess",
    "policy_file",
    "onnx_export",
]
EXAMPLES = ["examples/mlhooks-stats-sqlite", "examples/mlhooks-trainer-reinforce", "tests/testing/torch_loss.py"]
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


@pytest.mark.parametrize(
    ("share", "kept"),
    [
        (1.0, range(14)),
        (0.34, [0, 2, 4, 8, 9, 12, 13]),
        (0.1, [0, 2, 8, 9, 13]),
        (0.5, [0, 2, 3, 6, 7, 8, 9, 11, 13]),
    ],
)
def test_share_has_the_first_mutant_of_each_subject_and_the_first_slow_test_of_each_file(
    request: pytest.FixtureRequest, share: float, kept: Sequence[int]
) -> None:
    subjects = ["ppo", "ppo", "dqn", "ppo", "ppo", "dqn", "dqn", "ppo"]
    all_items = [Item(number, (pytest.mark.mutants(subject).mark,)) for number, subject in enumerate(subjects)]
    all_items.append(Item(len(subjects), ()))  # It is neither.
    files = ["learning", "learning", "learning", "learning", "docs"]
    all_items += [Item(9 + number, (pytest.mark.slow.mark,), file) for number, file in enumerate(files)]
    items, left_out = [*all_items], []
    hook = SimpleNamespace(pytest_deselected=lambda items: left_out.extend(items))
    conftest = request.config.pluginmanager.get_plugin(str(ROOT / "conftest.py"))
    conftest.pytest_collection_modifyitems(SimpleNamespace(getoption={"--share": share}.get, hook=hook), items)
    assert [item.number for item in items] == [*kept]
    assert sorted(item.number for item in [*items, *left_out]) == [*range(14)]


class Item(NamedTuple):
    """What is collected."""

    number: int
    marks: tuple[pytest.Mark, ...]
    path: str = ""

    def iter_markers(self, name: str) -> Sequence[pytest.Mark]:
        return [mark for mark in self.marks if mark.name == name]
