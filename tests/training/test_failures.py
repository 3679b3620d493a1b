"""What a run that fails says and saves."""

from __future__ import annotations

import logging
import math
from asyncio import CancelledError
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mlhooks
from builtin_plugins.ppo import PPOOptimizer
from mlhooks import hookimpl
from mlhooks.errors import EnvironmentFailure, MlhooksError, NonFiniteError, SettingsError, UnsupportedError
from tests.scripted import Corridor, Env, config, train
from tests.training.recorder import Recorder


def spoil(at: int, *, observation: float | None = None, reward: float | None = None) -> Any:
    def corrupt(step: int, obs: list[np.ndarray], rewards: np.ndarray) -> None:
        if step == at and observation is not None:
            obs[0][2, 1] = observation
        if step == at and reward is not None:
            rewards[1] = reward

    return corrupt


@pytest.mark.parametrize(
    ("spoiled", "source"),
    [
        ({"observation": math.nan}, r"observation 0 \(where\) of agents \[2\] in worker 0"),
        ({"observation": math.inf}, r"observation 0 \(where\) of agents \[2\] in worker 0"),
        ({"reward": math.nan}, r"reward of agents \[1\] in worker 0"),
    ],
)
@pytest.mark.parametrize("at", [37, 40])
def test_non_finite_input_stops_the_run_saves_and_names_its_source(
    tmp_path: Path, spoiled: dict[str, float], source: str, at: int
) -> None:
    recorder = Recorder()
    env = Env(lambda: Corridor(corrupt=spoil(at, **spoiled)))
    with pytest.raises(EnvironmentFailure, match=source):
        train(config("Corridor", "test:x"), tmp_path, env, recorder)
    assert recorder.calls[-1] == "run_finished failed"
    assert isinstance(recorder.outcome.error.error, NonFiniteError)
    assert [restarts for _, _, restarts in recorder.failures] == [True, False]  # The new one sends the same.
    resumed = train(config("Corridor", "test:x"), tmp_path, Env(), resume=True)
    assert resumed.trainers["Corridor"].step == 600


def test_non_finite_loss_saves_the_weights_from_before(tmp_path: Path) -> None:
    huge = Env(lambda: Corridor(corrupt=lambda step, obs, reward: reward.fill(3e38 if step > 30 else 1.0)))
    with pytest.raises(NonFiniteError, match="NaN or infinite"):
        train(config("Corridor", "test:x"), tmp_path, huge)
    policy = mlhooks.load(tmp_path / "run")
    assert policy.predict(np.zeros(3)) in (0, 1)


def exploding(at: int) -> Any:
    def crash(step: int, *_: Any) -> None:
        if step == at:
            raise RuntimeError("the simulation exploded")

    return crash


def test_environment_that_fails_is_made_again_and_the_run_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = []

    def make() -> Corridor:
        made.append(Corridor(corrupt=None if made else exploding(63)))
        return made[-1]

    recorder = Recorder()
    run = train(config("Corridor", "test:x"), tmp_path, Env(make), recorder)
    assert run.outcome.status == "finished"
    assert run.trainers["Corridor"].step == 600
    assert recorder.failures == [(0, "the simulation exploded", True)]
    # 62 steps were taken in, and 4 agents begin again: one step of theirs more until all 600 rows are complete
    assert [env.steps for env in made] == [63, 600 // 4 - 62]
    assert [lost.worker.index for lost in run.outcome.restarts] == [0]
    assert "worker 0, once, at last because: RuntimeError: the simulation exploded" in caplog.text


def test_failing_environment_is_reported_saved_and_ends_the_run(tmp_path: Path) -> None:
    recorder = Recorder()
    message = r"0 failed: RuntimeError: the simulation exploded \(.*test_failures\.py:\d+\)\. It was restarted once in"
    with pytest.raises(EnvironmentFailure, match=message):
        train(config("Corridor", "test:x"), tmp_path, Env(lambda: Corridor(corrupt=exploding(30))), recorder)
    assert recorder.failures == [(0, "the simulation exploded", True), (0, "the simulation exploded", False)]
    assert "checkpoint_saved 232" in recorder.calls  # It made twice 29 steps of 4 agents.
    assert mlhooks.load(tmp_path / "run").behavior_name == "Corridor"


def test_behavior_that_the_file_lacks_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"(?s)Corridor.*Coridor"):
        train(config("Coridor", "test:x"), tmp_path, Env())
    train(config("Corridor", "test:x", max_steps=100), tmp_path, Env())  # The failed start left nothing in the way.


def test_image_too_small_for_its_encoder_is_refused_by_name(tmp_path: Path) -> None:
    class Camera(Corridor):
        shape = (3, 8, 8)

    message = r"'Corridor': observation 0 \(where\) has shape \(3, 8, 8\).*simple needs .* at least 20.*match3"
    with pytest.raises(UnsupportedError, match=message):
        train(config("Corridor", "test:x"), tmp_path, Env(Camera))


@pytest.mark.parametrize("error", [SystemExit(0), CancelledError()], ids=repr)
def test_optimizer_that_ends_the_process_fails_the_run_which_saves(tmp_path: Path, error: BaseException) -> None:
    class Ending(PPOOptimizer):
        def loss(self, batch: Any) -> Any:
            if self.step >= 300:
                raise error
            return super().loss(batch)

    class Offer:
        @hookimpl
        def create_optimizer(self, trainer: Any, policy: Any) -> Any:
            return Ending(policy, trainer.settings)

    recorder = Recorder()
    with pytest.raises(MlhooksError, match=rf"The run was ended by {type(error).__name__}.*test_failures\.py:\d+"):
        train(config("Corridor", "test:x"), tmp_path, Env(), Offer(), recorder)
    assert recorder.calls[-1] == "run_finished failed"
    assert "checkpoint_saved 300" in recorder.calls


def test_plugin_that_is_taken_out_is_told_at_once_and_shortly_at_the_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Watcher:
        @hookimpl
        def on_add_stat(self) -> None:
            raise ValueError("nobody to tell")

        @hookimpl
        def run_finished(self) -> None:
            logging.getLogger("mlhooks").warning("the end")

    train(config("Corridor", "test:x", max_steps=300), tmp_path, Env(), Watcher(), strict_plugins=False)
    told = [message for message in caplog.messages if "taken out" in message.lower() or message == "the end"]
    failure, removal, end, summary = told
    assert "nobody to tell" in failure
    assert "was taken out after 3 failures in a row of its hook on_add_stat." in removal
    assert end == "the end"
    assert summary.startswith("Taken out in this run: ")
    assert "Watcher" in summary


def test_plugin_that_fails_when_a_strict_run_has_failed_costs_neither_checkpoint_nor_reason(tmp_path: Path) -> None:
    class Watcher:
        @hookimpl
        def env_failed(self, will_restart: bool) -> None:
            if not will_restart:
                raise ValueError("nobody to tell")

    recorder = Recorder()
    with pytest.raises(EnvironmentFailure, match="the simulation exploded"):
        train(
            config("Corridor", "test:x"),
            tmp_path,
            Env(lambda: Corridor(corrupt=exploding(30))),
            Watcher(),
            recorder,
            strict_plugins=True,
        )
    assert recorder.calls[-2:] == ["checkpoint_saved 232", "run_finished failed"]


@pytest.mark.parametrize(
    ("obs", "reward", "said"),
    [
        (1.0, 3e38, "Observations are as large as 1, and rewards of the environment as 3e+38"),
        (3e38, 1.0, "Observations are as large as 3e+38, and rewards of the environment as 1"),
    ],
)
def test_numbers_that_become_infinite_while_learning_are_told(
    tmp_path: Path, obs: float, reward: float, said: str
) -> None:
    def enlarge(step: int, seen: list[np.ndarray], got: np.ndarray) -> None:
        seen[0][:], got[:] = obs, reward

    settings = config("Corridor", "test:x")
    settings["behaviors"]["Corridor"].setdefault("network_settings", {})["normalize"] = False
    with pytest.raises(NonFiniteError) as caught:
        train(settings, tmp_path, Env(lambda: Corridor(corrupt=enlarge)))
    assert said in str(caught.value)


class Spoiling(PPOOptimizer):
    """Takes steps of a learning rate that is no number, once a checkpoint is there."""

    def set_step(self, step: int) -> None:
        super().set_step(step)
        if step > 300:
            self.torch_optimizer.param_groups[0]["lr"] = math.nan


class Spoiler:
    @hookimpl
    def create_optimizer(self, trainer: Any, policy: Any) -> Any:
        return Spoiling(policy, trainer.settings)


def test_weights_that_became_nan_are_not_saved(tmp_path: Path) -> None:
    settings = config("Corridor", "test:x", checkpoint_interval=200)
    with pytest.raises(NonFiniteError, match=r"actor.* had values that are NaN or infinite before this update"):
        train(settings, tmp_path, Env(), Spoiler())
    saved = sorted(path.name for path in (tmp_path / "run" / "Corridor").glob("*.pt"))
    assert saved == ["Corridor-200.policy.pt", "Corridor-200.pt"]
    assert mlhooks.load(tmp_path / "run").predict(np.zeros(3)) in (0, 1)
    assert train(settings, tmp_path, Env(), resume=True).trainers["Corridor"].step == 600
