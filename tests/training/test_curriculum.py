from __future__ import annotations

import json
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
from mlagents_envs.base_env import ActionTuple

from builtin_plugins.inprocess import InProcessManager
from mlhooks import hookimpl
from mlhooks.envs.manager import EnvManager, Worker, WorkerStep
from mlhooks.envs.restarts import RestartPolicy
from mlhooks.errors import UnsupportedError, UsageError
from mlhooks.settings.environment_parameters import (
    CompletionCriteriaSettings,
    ConstantSettings,
    EnvironmentParameterSettings,
    GaussianSettings,
    Lesson,
    UniformSettings,
)
from mlhooks.sims import Ball3D
from mlhooks.training.curriculum import Curriculum, seeded_lessons
from mlhooks.training.episodes import Episodes
from tests.scripted import Corridor, Env, config, train
from tests.training.test_resume import StopAfter, digest


def lessons(*criteria: dict[str, Any]) -> EnvironmentParameterSettings:
    """Return lessons with the values 0, 1, 2, ...; all but the last have criteria, by default of behavior A."""
    made = [
        Lesson(
            name=f"Lesson{index}",
            value=ConstantSettings(value=index),
            completion_criteria=CompletionCriteriaSettings(**{"behavior": "A", **each}),
        )
        for index, each in enumerate(criteria)
    ]
    return EnvironmentParameterSettings(
        curriculum=[*made, Lesson(name="last", value=ConstantSettings(value=len(made)))]
    )


class Taught:
    """A curriculum and the behaviors A and B, whose episodes end as a test says."""

    def __init__(self, **parameters: EnvironmentParameterSettings) -> None:
        self.curriculum = Curriculum(parameters, seed=1)
        self.episodes = {name: Episodes() for name in ("A", "B")}
        for name, episodes in self.episodes.items():
            self.curriculum.watch(SimpleNamespace(behavior_name=name, episodes=episodes))

    def finish(self, *returns: float, behavior: str = "A") -> None:
        episodes = self.episodes[behavior]
        episodes.reserve(len(returns))
        episodes.ended(np.arange(len(returns)), np.array(returns))

    def advance(self, **progress: float) -> bool | None:
        return self.curriculum.advance(progress or {"A": 0.0, "B": 0.0})


def test_reward_is_the_mean_of_the_newest_episodes_and_must_be_above_the_threshold() -> None:
    taught = Taught(x=lessons({"min_lesson_length": 3, "threshold": 2.0, "signal_smoothing": False}))
    taught.finish(100.0, 100.0)
    assert taught.advance() is None  # These are two episodes.
    taught.finish(1.0, 1.0, 4.0)
    assert taught.advance() is None  # (1 + 1 + 4) / 3 is not above 2
    taught.finish(4.0)
    assert taught.advance() is False  # (1 + 4 + 4) / 3 is
    assert taught.curriculum.lessons == {"x": 1}
    assert taught.curriculum.values["x"] == ConstantSettings(value=1, seed=2)


def test_longest_lesson_of_any_parameter_says_how_many_episodes_of_a_behavior_count() -> None:
    criteria = {"threshold": 2.0, "signal_smoothing": False}
    taught = Taught(x=lessons(criteria), y=lessons({**criteria, "min_lesson_length": 4}))
    taught.finish(6.0, 0.0, 0.0)
    assert taught.advance() is None  # 6 / 3; with only the newest it would be 0
    taught.finish(3.0)
    assert taught.advance() is False  # 9 / 4 for both
    assert taught.curriculum.lessons == {"x": 1, "y": 1}


def test_smoothing_goes_on_at_every_call_and_through_lessons() -> None:
    taught = Taught(x=lessons({"threshold": 4.0}, {"threshold": 1.0}))
    taught.finish(5.0)
    assert taught.advance() is None  # 0.75 * 5 = 3.75
    assert taught.advance() is False  # 0.25 * 3.75 + 0.75 * 5 = 4.6875
    assert taught.advance() is None  # There was no episode since.
    taught.finish(0.0)
    assert taught.advance() is False  # 0.25 * 4.6875 = 1.171875
    assert taught.curriculum.lessons == {"x": 2}


def test_without_smoothing_the_mean_alone_counts() -> None:
    taught = Taught(x=lessons({"threshold": 4.0, "signal_smoothing": False}))
    taught.finish(5.0)
    assert taught.advance() is False


def test_progress_is_the_share_of_max_steps_and_waits_for_the_episodes_too() -> None:
    taught = Taught(x=lessons({"measure": "progress", "threshold": 0.5, "min_lesson_length": 2}))
    taught.finish(0.0)
    assert taught.advance(A=0.9) is None
    taught.finish(0.0)
    assert taught.advance(A=0.5) is None
    assert taught.advance(A=0.51) is False


def test_lesson_starts_its_episodes_again_for_all_parameters() -> None:
    short = {"measure": "progress", "threshold": 0.1}
    long = {"measure": "progress", "threshold": 0.0, "min_lesson_length": 2, "behavior": "B"}
    taught = Taught(x=lessons(short), y=lessons(long))
    taught.finish(0.0, behavior="B")
    assert taught.advance(A=0.2, B=0.2) is False
    assert taught.curriculum.lessons == {"x": 1, "y": 0}
    taught.finish(0.0, behavior="B")
    assert taught.advance(A=0.2, B=0.2) is None  # There was one since x changed.
    taught.finish(0.0, behavior="B")
    assert taught.advance(A=0.2, B=0.2) is False
    assert taught.curriculum.lessons == {"x": 1, "y": 1}
    assert taught.curriculum.changing == []


@pytest.mark.parametrize(("of_x", "of_y"), [(True, False), (False, True), (False, False)])
def test_reset_is_demanded_by_any_lesson_that_is_over(of_x: bool, of_y: bool) -> None:
    criteria = {"measure": "progress", "threshold": 0.1}
    taught = Taught(
        x=lessons({**criteria, "require_reset": of_x}),
        y=lessons({**criteria, "require_reset": of_y}),
        later=lessons({"measure": "progress", "threshold": 0.9, "require_reset": True}),
    )
    assert taught.advance(A=0.2) is (of_x or of_y)


def test_last_lesson_never_ends_and_behaviors_that_have_not_appeared_are_waited_for() -> None:
    taught = Taught(x=lessons({"measure": "progress", "behavior": "B"}), y=lessons())
    assert taught.advance(A=1.0) is None
    assert taught.curriculum.unmeasured({"A": None}) == {"x": "B"}
    assert taught.advance(A=1.0, B=0.1) is False
    assert taught.advance(A=1.0, B=0.1) is None
    assert taught.curriculum.unmeasured({}) == {}


def test_saved_curriculum_decides_as_the_one_that_went_on() -> None:
    parameters = {"x": lessons({"threshold": 4.0, "min_lesson_length": 2}, {"threshold": 9.0}), "y": lessons()}
    taught = Taught(**parameters)
    taught.finish(5.0, 5.0)
    assert taught.advance() is None  # 3.75
    resumed = Taught(**parameters)
    resumed.curriculum.load_state_dict(json.loads(json.dumps(taught.curriculum.state_dict())))
    for each in (taught, resumed):
        assert each.advance() is False
        assert each.curriculum.state_dict() == {
            "lessons": {"x": 1, "y": 0},
            "smoothed": {"x": 4.6875, "y": 0.0},
            "returns": {"A": []},
        }


def test_saved_lesson_that_is_no_longer_there_becomes_the_last(caplog: pytest.LogCaptureFixture) -> None:
    saved = {"lessons": {"x": 2, "gone": 1}, "smoothed": {"x": 1.0, "gone": 0.0}, "returns": {"A": [1.0], "C": []}}
    taught = Taught(x=lessons({}), new=lessons({}))
    taught.curriculum.load_state_dict(saved)
    assert taught.curriculum.lessons == {"x": 1, "new": 0}
    assert "Parameter 'x' was in lesson 3, and there are only 2 now" in caplog.text


def test_samplers_without_a_seed_count_on_from_that_of_the_run() -> None:
    easy = Lesson(name="e", value=UniformSettings(), completion_criteria=CompletionCriteriaSettings(behavior="Ball"))
    parameters = {
        "curriculum": [easy, Lesson(name="hard", value=UniformSettings(seed=3))],
        "constant": [Lesson(name="c", value=ConstantSettings(value=1))],
        "sampler": [Lesson(name="s", value=GaussianSettings())],
    }
    settings = {name: EnvironmentParameterSettings(curriculum=lessons) for name, lessons in parameters.items()}
    found = seeded_lessons(settings, seed=2**31 - 2)
    seeds = {name: [lesson.seed for lesson in values] for name, values in found.items()}
    assert seeds == {"curriculum": [2**31 - 2, 3], "constant": [2**31 - 1], "sampler": [0]}
    assert settings["sampler"].curriculum[0].value.seed == -1
    assert seeded_lessons(None, 1) == {}


PARAMETERS = {
    "gravity": {
        "curriculum": [
            {
                "name": "Moon",
                "value": 1.6,
                "completion_criteria": {"behavior": "3DBall", "measure": "progress", "threshold": 0.299},
            },
            {
                "name": "Earth",
                "value": {"sampler_type": "gaussian", "sampler_parameters": {"mean": 9.8, "st_dev": 0.1}},
                "completion_criteria": {"behavior": "3DBall", "threshold": -5, "min_lesson_length": 20},
            },
            {"name": "Jupiter", "value": 24.8},
        ]
    },
    "scale": {"sampler_type": "uniform", "sampler_parameters": {"min_value": 0.75, "max_value": 3}},
}


def balls(*, require_reset: bool = True) -> dict[str, Any]:
    settings = config("3DBall", "sim:3DBall", max_steps=3000, hyperparameters={"batch_size": 60, "buffer_size": 300})
    parameters = json.loads(json.dumps(PARAMETERS))
    parameters["gravity"]["curriculum"][0]["completion_criteria"]["require_reset"] = require_reset
    return {**settings, "environment_parameters": parameters}


class StopAt(StopAfter):
    """Asks the run to stop in the update at a step."""

    def __init__(self, step: int) -> None:
        super().__init__(-1)
        self.step = step

    @hookimpl
    def update_finished(self, trainer: Any) -> None:
        self.run.stop.requested |= trainer.step == self.step


def lines_of(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "run" / "stats.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "time"} for line in lines]


def test_lessons_are_written_said_and_in_force(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "mlhooks"):
        run = train(balls(), tmp_path)
    said = [message for message in caplog.messages if message.startswith("Parameter")]
    assert said == [
        "Parameter 'gravity' is in lesson 'Moon' (1 of 3): 1.6.",
        "Parameter 'scale' is uniform from 0.75 to 3.",
        "Parameter 'gravity' begins lesson 'Earth' (2 of 3): gaussian with mean 9.8 and deviation 0.1.",
        "Parameter 'gravity' begins lesson 'Jupiter' (3 of 3): 24.8.",
    ]
    numbers = [line["values"]["Environment/Lesson Number/gravity"]["mean"] for line in lines_of(tmp_path)]
    assert numbers[:5] == [0, 0, 0, 0, 1]  # These are steps 204, 408, 612, 816 and 1008.
    assert numbers[-1] == 2
    assert all(line["values"]["Environment/Lesson Number/scale"]["mean"] == 0 for line in lines_of(tmp_path))
    assert isinstance(run.manager, InProcessManager)
    (env,) = run.manager.envs
    assert isinstance(env, Ball3D)
    assert set(env.parameters["gravity"]) == {24.8}
    status = json.loads((run.path / "run_logs" / "training_status.json").read_text())
    assert (status["gravity"], status["scale"]) == ({"lesson_num": 2}, {"lesson_num": 0})


@pytest.mark.parametrize("require_reset", [True, False])
def test_run_that_resumes_as_a_lesson_starts_goes_on_as_one_that_was_never_stopped(
    tmp_path: Path, require_reset: bool
) -> None:
    settings = balls(require_reset=require_reset)
    train(settings, tmp_path / "whole")
    run = train(settings, tmp_path / "stopped", StopAt(900))
    assert run.outcome.status == "interrupted"
    assert run.curriculum.lessons["gravity"] == 1
    train(settings, tmp_path / "stopped", resume=True)
    assert digest(tmp_path / "stopped", 3000) == digest(tmp_path / "whole", 3000)
    assert lines_of(tmp_path / "stopped") == lines_of(tmp_path / "whole")


def test_inference_stays_in_the_saved_lesson(tmp_path: Path) -> None:
    train(balls(), tmp_path, StopAt(900))
    settings = balls()
    settings["environment_parameters"]["gravity"]["curriculum"][1]["completion_criteria"]["min_lesson_length"] = 0
    run = train(settings, tmp_path, flags={"checkpoint_settings.inference": True}, episodes=30)
    assert run.evaluation is not None
    assert len(run.evaluation.returns["3DBall"]) == 30
    assert run.curriculum.lessons == {"gravity": 1, "scale": 0}
    assert isinstance(run.manager, InProcessManager)
    (env,) = run.manager.envs
    assert isinstance(env, Ball3D)
    assert 9 < env.parameters["gravity"].min() < env.parameters["gravity"].max() < 10.6


def test_environment_without_parameters_is_named_before_training(tmp_path: Path) -> None:
    settings = {**config("Corridor", "test:x"), "environment_parameters": {"mass": 3, "width": 1}}
    with pytest.raises(UsageError, match=r"test:x takes no environment parameters.* sets mass, width\. Remove"):
        train(settings, tmp_path, Env())


def test_unknown_parameter_of_a_simulation_is_named_with_the_nearest(tmp_path: Path) -> None:
    settings = {**config("3DBall", "sim:3DBall"), "environment_parameters": {"gravitty": 3}}
    with pytest.raises(UsageError, match=r'no environment parameter "gravitty".*did you mean "gravity"'):
        train(settings, tmp_path)


class Minimal(EnvManager):
    """A manager of one worker that has nothing but what it must have."""

    def __init__(self, make_env: Any) -> None:
        self._inner = InProcessManager(make_env, 1, RestartPolicy(0, 0, 1))

    def ready(self) -> list[WorkerStep]:
        return list(self._inner.ready())  # type: ignore[arg-type]

    def send(self, worker: Worker, behavior_id: str, action: ActionTuple) -> None:
        self._inner.send(worker, behavior_id, action)

    def reset(self, worker: Worker) -> None:
        self._inner.reset(worker)

    def close(self) -> None:
        self._inner.close()


class BringsMinimal:
    @hookimpl
    def create_env_manager(self, make_env: Any) -> EnvManager:
        return Minimal(make_env)


class Wide(Corridor):
    """Takes note of its parameters."""

    seen: ClassVar[list[float]] = []

    def set_parameters(self, parameters: Any) -> None:
        self.seen.append(float(parameters["width"].draw()[0]))


def test_manager_that_cannot_change_parameters_runs_constants_and_is_refused_with_lessons(tmp_path: Path) -> None:
    Wide.seen.clear()
    settings = config("Corridor", "test:x", max_steps=100)
    train({**settings, "environment_parameters": {"width": 3}}, tmp_path / "a", Env(Wide), BringsMinimal())
    assert Wide.seen == [3]
    criteria = {"behavior": "Corridor", "measure": "progress", "threshold": 0.5}
    curriculum = [{"name": "a", "value": 1, "completion_criteria": criteria}, {"name": "b", "value": 2}]
    settings["environment_parameters"] = {"width": {"curriculum": curriculum}}
    with pytest.raises(UnsupportedError, match=r"lessons of width change.*Minimal.*has no set_parameters"):
        train(settings, tmp_path / "b", Env(Wide), BringsMinimal())
    Wide.seen.clear()
    train(settings, tmp_path / "c", Env(Wide))
    assert Wide.seen == [1, 2]


def test_lesson_that_waits_for_a_behavior_that_does_not_appear_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Changing(Corridor):
        def set_parameters(self, parameters: Any) -> None:
            """Take parameters, and do without."""

    settings = config("Corridor", "test:x", max_steps=60)
    criteria = {"behavior": "4DBall", "measure": "progress"}
    lessons = [{"name": "a", "value": 1, "completion_criteria": criteria}, {"name": "b", "value": 2}]
    settings["default_settings"] = settings.pop("behaviors")["Corridor"]
    train({**settings, "environment_parameters": {"mass": {"curriculum": lessons}}}, tmp_path, Env(Changing))
    assert "parameter 'mass' waits for behavior '4DBall', which has not appeared" in caplog.text
