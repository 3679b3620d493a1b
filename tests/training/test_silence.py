"""Environments in which nobody asks for decisions."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from mlagents_envs.base_env import ActionTuple, DecisionSteps

from mlhooks.errors import EnvironmentFailure
from mlhooks.training import silence
from mlhooks.training.silence import LATE, SOON, Silence
from mlhooks.training.teams import Teams
from tests.scripted import Corridor, Env, config, train


class Deserted(Corridor):
    """All agents go without a word after 20 steps."""

    def _advance(self, action: ActionTuple) -> None:
        super()._advance(action)
        if self.steps > 20:
            self._decisions = DecisionSteps.empty(self.behavior_specs["Corridor"])
            self._terminals = self._none_ended


def play(quiet: Silence, steps: int, busy: list[str]) -> None:
    for _ in range(steps):
        if quiet.count_steps(1):
            quiet.check(busy, Teams())


def test_pause_is_said_once_and_again_after_decisions(caplog: pytest.LogCaptureFixture) -> None:
    quiet = Silence("test:x")
    quiet.note_decision("A")
    play(quiet, 5 * SOON, ["A"])
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "test:x: in the last 1,000 steps no agent of 'A' has asked for a decision" in caplog.text
    quiet.note_decision("A")
    play(quiet, 5 * SOON, ["A"])
    assert len(caplog.records) == 2


def test_behaviors_that_are_done_do_not_count_as_decisions() -> None:
    quiet = Silence("test:x")
    for _ in range(LATE - 1):
        quiet.note_decision("Done")
        play(quiet, 1, ["A", "B"])
    with pytest.raises(EnvironmentFailure, match=r"in the last 100,000 steps no agent of 'A', 'B' has asked for a dec"):
        play(quiet, 1, ["A", "B"])


def test_one_behavior_that_decides_is_enough(caplog: pytest.LogCaptureFixture) -> None:
    quiet = Silence("test:x")
    for _ in range(LATE + SOON):
        quiet.note_decision("B")
        play(quiet, 1, ["A", "B"])
    assert not caplog.records


def test_each_environment_has_its_steps_before_a_team_is_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    class Two(Teams):
        def pass_over(self) -> bool:
            self.learning = 0
            return True

    for workers, steps in [(1, SOON), (16, 16 * SOON), (1000, LATE // 2)]:
        quiet, teams = Silence("test:x", workers), Two()
        teams.learning = 1
        passed = [step + 1 for step in range(steps) if quiet.count_steps(1) and quiet.check(["A"], teams)]
        assert passed == [steps]
    assert "in the last 16,000 steps no agent of 'A' has asked for a decision in team 1. Team 0 learns" in caplog.text


def test_no_behavior_at_all_is_named() -> None:
    with pytest.raises(EnvironmentFailure, match="in the last 100,000 steps it has shown no behavior"):
        play(Silence("test:x"), LATE, [])


def test_run_that_would_wait_for_ever_ends_and_keeps_what_it_learned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(silence, "LATE", 3 * SOON)
    with pytest.raises(EnvironmentFailure, match="no agent of 'Corridor' has asked for a decision"):
        train(config("Corridor", "test:x", max_steps=10_000), tmp_path, Env(Deserted))
    assert list(tmp_path.rglob("Corridor-*.pt"))
