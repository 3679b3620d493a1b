"""The switch to plain torch and numpy."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from mlhooks.fast import switch
from mlhooks.fast.switch import VARIABLE, is_plain, kernel, plain

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("value", "wanted"), [("1", True), ("yes", True), ("0", False), ("", False), (" off ", False)])
def test_environment_variable_switches_the_wing_off(value: str, wanted: bool) -> None:
    command = [sys.executable, "-c", "from mlhooks.fast.switch import is_plain; print(is_plain())"]
    done = subprocess.run(command, env=os.environ | {VARIABLE: value}, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(wanted)


def test_block_switches_off_in_all_threads_until_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(switch._switch, "plain", False)
    monkeypatch.setattr(switch._switch, "always", False)
    seen = []
    with plain():
        thread = threading.Thread(target=lambda: seen.append(is_plain()))
        thread.start()
        thread.join()
        with plain(False):
            seen.append(is_plain())
    assert seen == [True, True]
    assert not is_plain()


def test_blocks_of_several_threads_may_end_in_any_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(switch._switch, "plain", False)
    monkeypatch.setattr(switch._switch, "always", False)
    first, second, third = plain(), plain(), plain(False)
    first.__enter__()
    second.__enter__()
    third.__enter__()
    first.__exit__(None, None, None)
    assert is_plain()
    second.__exit__(None, None, None)
    assert not is_plain()
    third.__exit__(None, None, None)
    assert not is_plain()


def test_kernel_replaces_what_it_takes_and_leaves_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    def twin(number: int) -> object:
        return "native" if number > 0 else NotImplemented

    monkeypatch.setattr(switch._switch, "plain", False)
    monkeypatch.setattr(switch._switch, "always", False)
    choice = pytest.importorskip("mlhooks.fast.native.switch")
    modules = {"module": SimpleNamespace(twin=twin), "switch": choice}
    monkeypatch.setattr(switch, "native", modules.get)

    @kernel("module", "twin")
    def replaced(number: int) -> str:
        """Say who computes."""
        return f"plain {number}"

    @kernel("missing")
    def left(number: int) -> str:
        return f"plain {number}"

    assert (replaced(1), replaced(-1), left(1)) == ("native", "plain -1", "plain 1")
    assert replaced.__doc__ == "Say who computes."
    with plain():
        assert replaced(1) == "plain 1"


def test_tests_can_be_run_plain() -> None:
    code = "import conftest, os; print(sorted(name for name in os.environ if name.startswith('MLHOOKS_')))"
    environment = os.environ | {VARIABLE: "1", "MLHOOKS_ELSE": "1"}
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == f"['{VARIABLE}']"
