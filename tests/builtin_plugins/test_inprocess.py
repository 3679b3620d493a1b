"""Workers in the training process, of which one is paused by a person."""

from __future__ import annotations

from asyncio import CancelledError
from pathlib import Path
from typing import Any

import pytest
from mlagents_envs.base_env import ActionTuple

from builtin_plugins.inprocess import InProcessManager
from mlhooks.envs.manager import Worker, WorkerLost, WorkerStep
from mlhooks.envs.restarts import RestartPolicy
from mlhooks.errors import EnvironmentFailure, EnvironmentPaused
from mlhooks.names import MANIFEST
from tests.scripted import Corridor, Env, config, train


class Paused(Corridor):
    """Is stopped at some of its calls of `reset` and `step`, counted together from 1."""

    def __init__(self, *stops: int) -> None:
        super().__init__(agents=1)
        self.calls, self.stops, self.closed = [], stops, False

    def _note(self, call: str) -> None:
        self.calls.append(call)
        if len(self.calls) in self.stops:
            raise EnvironmentPaused("stopped")

    def set_parameters(self, parameters: Any) -> None: ...

    def reset(self) -> None:
        self._note("reset")
        super().reset()

    def step(self) -> None:
        self._note("step")
        super().step()


def manager(env: Paused) -> InProcessManager:
    return InProcessManager(lambda index: env, 1, RestartPolicy(0, 0, 60))


def events(made: InProcessManager, count: int) -> list[str]:
    return [kind(event) for _ in range(count) for event in made.ready()]


def kind(event: WorkerStep | WorkerLost) -> str:
    return "step" if isinstance(event, WorkerStep) else "paused" if event.paused else "lost"


def test_environment_that_is_stopped_in_a_step_is_reset_and_goes_on() -> None:
    env = Paused(3)  # It has made a reset, a step, and this step.
    assert events(manager(env), 5) == ["step", "step", "paused", "step", "step"]
    assert env.calls == ["reset", "step", "step", "reset", "step"]


def test_environment_that_is_stopped_while_it_begins_again_is_told_again() -> None:
    assert events(manager(Paused(2, 3)), 4) == ["step", "paused", "paused", "step"]


def test_environment_that_is_stopped_in_its_first_reset_does_not_keep_the_run_from_starting() -> None:
    env = Paused(1)
    assert events(manager(env), 2) == ["paused", "step"]
    assert env.calls == ["reset", "reset"]


@pytest.mark.parametrize("stops", [(), (2,)])
def test_lesson_that_resets_a_paused_environment_does_not_wait_for_it(stops: tuple[int, ...]) -> None:
    env = Paused(*stops, 3)
    made = manager(env)
    assert events(made, 2) == ["step", "paused" if stops else "step"]
    made.set_parameters({}, reset=True)
    told = [event for event in made.ready() if isinstance(event, WorkerLost)]
    # It was stopped in the reset, either the lesson's or its own.
    assert [event.worker for event in told] == [Worker(0)]
    assert events(made, 1) == ["step"]


class Ends(BaseException):
    """Of a library that does not want to be caught."""


@pytest.mark.parametrize("error", [SystemExit(0), GeneratorExit(), CancelledError(), Ends("over")], ids=repr)
@pytest.mark.parametrize("at", ["make", "step", "act"])
def test_environment_that_ends_the_process_has_failed(tmp_path: Path, error: BaseException, at: str) -> None:
    class Ending(Corridor):
        def step(self) -> None:
            if at == "step" and self.steps == 10:
                raise error
            super().step()

        def set_actions(self, behavior_name: str, action: ActionTuple) -> None:
            if at == "act" and self.steps == 10:
                raise error
            super().set_actions(behavior_name, action)

    def make() -> Corridor:
        if at == "make":
            raise error
        return Ending()

    with pytest.raises(EnvironmentFailure, match=rf"{type(error).__name__}.*\(.*test_inprocess\.py:\d+\)"):
        train(config("Corridor", "test:x"), tmp_path, Env(make))
    assert (tmp_path / "run" / MANIFEST).exists() == (at != "make")
