from __future__ import annotations

import json

import pytest

from mlhooks import __version__
from mlhooks.cli import doctor, main
from mlhooks.doctor import Check, Questions

FINE = Check("Python", "ok", "3.12")
HINT = Check("display", "warning", "There is none", "Say --no-graphics.")
BAD = Check("port 5005", "problem", "Port 5005 is taken by game (pid 7)", "End that process.")


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> list[Check]:
    """What the checks find."""
    checks = [FINE]
    monkeypatch.setattr(doctor, "examine", lambda questions: iter(checks))
    return checks


def test_no_problem_is_exit_code_0(found: list[Check], capsys: pytest.CaptureFixture[str]) -> None:
    found.append(HINT)
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:2]] == ["ok", "warning"]
    assert lines[2].strip() == "-> Say --no-graphics."
    assert lines[3] == "No problem, 1 warning: this machine can run it."


def test_problem_is_exit_code_1_and_stands_with_its_advice(
    found: list[Check], capsys: pytest.CaptureFixture[str]
) -> None:
    found += [BAD, HINT]
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "problem  port 5005          Port 5005 is taken by game (pid 7)" in out
    assert "-> End that process." in out
    assert "1 problem and 1 warning: what is asked for cannot run" in out


def test_json_has_every_check(found: list[Check], capsys: pytest.CaptureFixture[str]) -> None:
    found.append(BAD)
    assert main(["doctor", "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert (report["mlhooks"], report["ok"]) == (__version__, False)
    assert report["checks"][1] == {
        "name": "port 5005",
        "state": "problem",
        "text": "Port 5005 is taken by game (pid 7)",
        "advice": "End that process.",
    }


def test_options_become_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Questions] = []
    monkeypatch.setattr(doctor, "examine", lambda questions: asked.append(questions) or iter(()))
    assert main(["doctor", "--env", "Build/Game", "--base-port", "6000", "--num-envs", "3", "-p", "mine"]) == 0
    assert asked == [Questions(env="Build/Game", base_port=6000, num_envs=3, plugin_names=("mine",))]


def test_help_says_what_is_looked_at(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--help"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    for word in ("--env", "--base-port", "--num-envs", "--json", "Exit codes", "display", "ports"):
        assert word in out


def test_wrong_path_is_a_problem_of_the_whole_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json", "--env", "Build/Gane"]) == 1
    checks = {check["name"]: check for check in json.loads(capsys.readouterr().out)["checks"]}
    assert checks["player"]["state"] == "problem"
    assert checks["plugins"]["state"] == "ok"
