from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from mlhooks.cli import main
from mlhooks.cli.check import EXIT_CODES, _verdict
from mlhooks.testing import documentation_links
from tests.testing.plugins import TRAINER
from tests.testing.plugins import WRITER as GOOD

MISSPELT = GOOD.replace("write_stats", "write_stat")
QUICK = "imports or fit_their or empty_summary"


def test_right_plugin_passes_with_exit_code_0(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "good.py").write_text(GOOD)
    assert main(["plugins", "check", str(tmp_path / "good.py"), "-k", QUICK, "-v"]) == 0
    out = capfd.readouterr().out
    assert "mlhooks/good/every_plugin::test_hooks_fit_their_specifications PASSED" in out
    assert "mlhooks/good/stats_writers::test_survives_an_empty_summary PASSED" in out
    last = f"good passed the conformance tests of: every plugin, statistics writers; only those that -k {QUICK} chooses"
    assert out.endswith(f"{last} were run.\n")


def test_folder_is_named_by_its_plugin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "good.py").write_text(GOOD)
    (tmp_path / "script.py").write_text("raise SystemExit(3)\n")
    monkeypatch.chdir(tmp_path)
    assert main(["plugins", "check", ".", "-k", "it_imports"]) == 0
    out = capfd.readouterr().out
    assert out.endswith(
        "good passed the conformance tests of: every plugin; only those that -k it_imports chooses were run.\n"
    )
    assert "1 passed" in out


@pytest.mark.parametrize(
    ("kinds", "keyword", "said"),
    [
        (["every plugin", "trainers (klpo)"], None, "passed the conformance tests of: every plugin, trainers (klpo)."),
        (
            ["every plugin"],
            None,
            "offers no trainer type, reward signal, statistics writer, exporter or environment, so only what",
        ),
        ([], "learns", "was not tried: every test that -k learns chooses was skipped"),
    ],
)
def test_verdict_says_what_was_tried(kinds: list[str], keyword: str | None, said: str) -> None:
    assert said in _verdict("mine", kinds, keyword)


def test_exit_code_is_0_1_or_2_whatever_pytest_says() -> None:
    assert [EXIT_CODES.get(code, 1) for code in range(6)] == [0, 1, 1, 1, 2, 2]


def test_wrong_plugin_fails_with_exit_code_1_and_says_what_to_change(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.py").write_text(MISSPELT)
    assert main(["plugins", "check", str(tmp_path / "bad.py"), "-k", QUICK]) == 1
    captured = capfd.readouterr()
    assert "implements write_stat, which is no hook; did you mean write_stats?" in captured.out
    assert "?." not in captured.out
    assert f"test_hooks_fit_their_specifications: {documentation_links.page()}#every-plugin\n" in captured.out
    assert "Traceback" not in captured.out
    assert "did not pass the conformance tests" in captured.err


def test_what_mlhooks_refuses_is_told_without_a_traceback_through_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.py").write_text(TRAINER.replace("optimizer_type = ", "optimizer_of = "))
    assert main(["plugins", "check", str(tmp_path / "bad.py"), "-k", "two_managers or changes_by_training"]) == 1
    out = capfd.readouterr().out
    failures, _, _ = out.partition("short test summary info")  # It repeats messages where CI is set.
    assert failures.count("name what is to be made as MyTrainer.optimizer_type.\n") == 2
    assert "making.py" not in out
    link = f"{documentation_links.page()}#settings-behaviors-gradients"
    assert f"test_every_parameter_changes_by_training: {link}\n" in out


def test_error_of_a_plugin_is_shown_once_from_its_own_line_on(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    wrong = (
        "class Wrong(A2COptimizer):\n    def loss(self, batch):\n        return self.lost(batch)\n\n\nclass MyTrainer("
    )
    source = TRAINER.replace("class MyTrainer(", wrong).replace(
        "optimizer_type = A2COptimizer", "optimizer_type = Wrong"
    )
    (tmp_path / "bad.py").write_text(source)
    assert main(["plugins", "check", str(tmp_path / "bad.py"), "-k", "two_managers or changes_by_training"]) == 1
    captured = capfd.readouterr()
    error = "AttributeError: 'Wrong' object has no attribute 'lost'"
    assert captured.out.count(f"in loss\n    return self.lost(batch)\n           ^^^^^^^^^\nE   {error}") == 1
    assert f"The same error as in test_registers_in_two_managers: {error}" in captured.out
    assert "on_policy.py" not in captured.out
    assert f"{documentation_links.page()}#what-is-another-way-on-purpose" in captured.err


def test_unknown_target_and_no_test_are_bad_usage(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "check", "tensorbord"]) == 2
    assert "did you mean tensorboard?" in capfd.readouterr().err
    (tmp_path / "good.py").write_text(GOOD)
    assert main(["plugins", "check", str(tmp_path / "good.py"), "-k", "nowhere"]) == 2
    assert "-k nowhere chooses none" in capfd.readouterr().err


def test_missing_pytest_is_said_with_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert main(["plugins", "check", "ppo"]) == 2
    assert "pip install 'mlhooks[testing]'" in capsys.readouterr().err


def test_option_of_pytest_adds_to_the_tests_of_a_repository(tmp_path: Path) -> None:
    (tmp_path / "good.py").write_text(GOOD)
    (tmp_path / "test_own.py").write_text("def test_own(): ...\n")
    command = [sys.executable, "-m", "pytest", "--mlhooks-plugin", "good.py", "-k", "own or it_imports", "-q", "-rA"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert "PASSED test_own.py::test_own" in result.stdout
    assert "PASSED mlhooks/good/every_plugin::test_it_imports" in result.stdout
    unknown = subprocess.run(
        [*command[:4], "nowhere.py"], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert unknown.returncode == 4
    assert "there is no such file or folder" in unknown.stderr


def test_pytest_plugin_imports_nothing_that_takes_time() -> None:
    slow = {"torch", "numpy", "pydantic", "mlagents_envs"}
    code = f"import sys, mlhooks.testing.plugin; print(*{slow} & sys.modules.keys())"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.strip() == ""
