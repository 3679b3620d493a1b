"""Environments whose `close` raises, which changes neither how a run ends nor why."""

from __future__ import annotations

import asyncio
import inspect
import os
import time
from pathlib import Path

import pytest
from gymnasium import spaces
from mlagents_envs.base_env import ActionTuple

import mlhooks
from mlhooks.envs.closing import close
from mlhooks.errors import EnvironmentFailure, MlhooksError, UsageError
from mlhooks.sims.basic import Basic
from tests.builtin_plugins.gymnasium_envs import Spaces, Walk, make
from tests.scripted import Corridor, Env, config, train


class Stuck(Corridor):
    """Cannot be closed."""

    def close(self) -> None:
        raise RuntimeError("the display is gone")


LINE = inspect.getsourcelines(Stuck.close)[1] + 1
NO_RESTARTS = {"env_settings.max_lifetime_restarts": 0}


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return sorted(record.getMessage() for record in caplog.records if "could not be closed" in record.getMessage())


@pytest.mark.parametrize("workers", [1, 2], ids=["in process", "processes"])
def test_run_whose_environments_cannot_be_closed_finishes_and_says_why(
    tmp_path: Path, workers: int, caplog: pytest.LogCaptureFixture
) -> None:
    met = tmp_path / "met"
    met.mkdir()

    class Together(Stuck):
        """Steps when all workers have come up, because one that has not is ended without a word."""

        def _advance(self, action: ActionTuple) -> None:
            (met / str(os.getpid())).touch()
            until = time.monotonic() + 60
            while len(list(met.iterdir())) < workers and time.monotonic() < until:
                time.sleep(0.01)
            super()._advance(action)

    flags = {"env_settings.num_envs": workers}
    run = train(config("Corridor", "test:x", max_steps=200), tmp_path / "run", Env(Together), flags=flags)
    assert run.outcome.status == "finished"
    assert run.outcome.error is None
    assert mlhooks.load(run.path).behavior_name == "Corridor"
    said = warnings_of(caplog)
    assert len(said) == workers
    for index, warning in enumerate(said):
        who = "The environment of worker 0" if workers == 1 else f"Worker {index}: The environment"
        assert warning.startswith(f"{who} could not be closed: RuntimeError: the display is gone (")
        assert warning.endswith(f"test_closing.py:{LINE})")


@pytest.mark.parametrize("workers", [1, 2], ids=["in process", "processes"])
def test_the_first_reason_stays_the_reason(tmp_path: Path, workers: int, caplog: pytest.LogCaptureFixture) -> None:
    class Explodes(Stuck):
        def _advance(self, action: object) -> None:
            raise RuntimeError("the simulation exploded")

    flags = NO_RESTARTS | {"env_settings.num_envs": workers}
    with pytest.raises(EnvironmentFailure, match="the simulation exploded") as caught:
        train(config("Corridor", "test:x"), tmp_path, Env(Explodes), flags=flags)
    assert "the display" not in str(caught.value)
    assert warnings_of(caplog)


def test_parameters_that_an_environment_does_not_take_are_named_though_it_cannot_be_closed(tmp_path: Path) -> None:
    settings = config("Corridor", "test:x") | {"environment_parameters": {"gravity": 3.0}}
    with pytest.raises(UsageError, match=r"environment.parameter"):
        train(settings, tmp_path, Env(Stuck))


def test_simulation_that_cannot_be_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Basic, "close", Stuck.close)
    run = train(config("Basic", "sim:Basic", max_steps=200), tmp_path)
    assert run.outcome.status == "finished"
    assert len(warnings_of(caplog)) == 1


@pytest.mark.parametrize("failure", [SystemExit(3), asyncio.CancelledError(), GeneratorExit(), MlhooksError("no")])
def test_whatever_is_raised_is_a_warning(failure: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    class Leaves:
        def close(self) -> None:
            raise failure

    assert not close(Leaves(), "It")
    assert warnings_of(caplog)[0].startswith("It could not be closed: ")


def test_ctrl_c_goes_through() -> None:
    class Waits:
        def close(self) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        close(Waits(), "It")


def test_copies_that_are_of_no_use_and_cannot_be_closed_are_refused_for_the_first_reason(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Spaces, "close", Stuck.close)
    with pytest.raises(UsageError, match="Text"):
        make("mlhooks-tests/Spaces-v0", {"observation_space": spaces.Text(5)}, num_areas=3)
    assert len(warnings_of(caplog)) == 3


def test_copies_that_were_made_before_one_failed_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Walk] = []

    def third_fails(self: Walk, far: float = 3.0) -> None:
        if len(made) == 2:
            raise RuntimeError("no third")
        made.append(self)

    monkeypatch.setattr(Walk, "__init__", third_fails)
    monkeypatch.setattr(Walk, "close", Stuck.close)
    with pytest.raises(EnvironmentFailure, match="no third"):
        make("mlhooks-tests/Walk-v2", num_areas=3)
