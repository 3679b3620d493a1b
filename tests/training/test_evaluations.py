"""Evaluations while training: apart from it, and what follows from them."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from mlagents_envs.base_env import ActionTuple

import mlhooks
from mlhooks import hookimpl
from mlhooks.envs.factory import EnvironmentKind
from mlhooks.envs.single_behavior import SingleBehaviorEnv
from mlhooks.errors import EnvironmentFailure, PluginError, SettingsError, UsageError
from mlhooks.training import evaluator
from mlhooks.training.checkpoints import read_state, write_state
from mlhooks.training.run import Run
from tests.scripted import QUIET, Corridor, Env, config, train
from tests.training.evaluating import LENGTH, REWARD, Notes, Two, balls, corridor, digest, evaluated, lines
from tests.training.test_run import Pair, pair_config


def test_evaluations_come_every_interval_and_at_the_end_with_statistics_for_all_writers(tmp_path: Path) -> None:
    notes = Notes()
    run = train(balls(max_steps=1300), tmp_path, notes)
    rows = evaluated(tmp_path)
    # 12 agents step at a time: these are at or behind each multiple, and the end.
    assert [step for step, _ in rows] == [504, 1008, 1308]
    assert [step for _, step, _ in notes.seen] == [504, 1008, 1308]
    for (_, values), (name, _, returns) in zip(rows, notes.seen, strict=True):
        assert (name, len(returns)) == ("3DBall", 7)
        reward = values[REWARD]
        assert (reward["count"], values[LENGTH]["count"]) == (7, 7)
        assert reward["mean"] == pytest.approx(np.mean(returns))
        assert reward["std"] == pytest.approx(np.std(returns))
        assert (reward["aggregation"], values.keys()) == ("histogram", {REWARD, LENGTH})
    best = run.evaluations.best["3DBall"]
    means = {step: float(np.mean(returns)) for _, step, returns in notes.seen}
    assert best.mean_reward == max(means.values()) == means[best.step]
    timers = json.loads((run.path / "run_logs" / "timers.json").read_text())
    assert timers["children"]["evaluation"]["count"] == 3


@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize("kind", ["ppo", "dqn"])
def test_training_is_bit_for_bit_what_it_is_without_evaluation(tmp_path: Path, kind: str, deterministic: bool) -> None:
    def settings(evaluation: Mapping[str, Any] | None) -> dict[str, Any]:
        if kind == "ppo":
            return balls(1500, evaluation)
        hyperparameters = {"batch_size": 32, "buffer_size": 1000, "save_replay_buffer": True}
        extra = {} if evaluation is None else {"evaluation": evaluation}
        made = config("Basic", "sim:Basic", max_steps=300, trainer_type="dqn", **extra)
        made["behaviors"]["Basic"] |= {"hyperparameters": hyperparameters}
        return made

    asked = {"interval": 100, "episodes": 5, "deterministic": deterministic}
    digests = []
    for evaluation in (asked, None):
        run = train(settings(evaluation), tmp_path / str(evaluation is None))
        ((name, trainer),) = run.trainers.items()
        state = read_state(run.path / name / f"{name}-{trainer.step}.pt")
        assert {"modules", "rng", "store", "episodes", "pool", "slots", "stats", "optimizer"} <= state.keys()
        write_state(tmp_path / "state.pt", {**state, "mlhooks": {}})  # This one has no settings.
        digests.append(digest(tmp_path / "state.pt"))
        assert trainer.updates > 4
    assert digests[0] == digests[1]
    plain = [row for row in lines(tmp_path / "False") if REWARD not in row["values"]]
    assert plain == lines(tmp_path / "True")
    assert len(lines(tmp_path / "False")) > len(plain)


class Drawing(gymnasium.Env[np.ndarray, int]):
    """Draws from every global random generator, as some environments do."""

    observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self) -> None:
        self.left = 0
        np.random.random()  # noqa: NPY002

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        self.left = random.randint(2, 9)
        return self._seen(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.left -= 1
        reward = float(torch.rand(()) + np.random.random())  # noqa: NPY002
        return self._seen(), reward, self.left == 0, False, {}

    def _seen(self) -> np.ndarray:
        return np.random.uniform(-1, 1, 2).astype(np.float32)  # noqa: NPY002


def test_environment_that_draws_from_global_generators_trains_as_without_evaluation(tmp_path: Path) -> None:
    rows = {}
    for name, extra in (("with", {"eval_every": 150}), ("without", {})):
        train(config("Drawing", "test:x", max_steps=400), tmp_path / name, env=Drawing, **extra)
        rows[name] = lines(tmp_path / name)
    assert [row for row in rows["with"] if REWARD not in row["values"]] == rows["without"]
    first = [values for _, values in evaluated(tmp_path / "with")]
    assert len(first) == 3
    # The rewards are those of the environment alone, so that the same random numbers give the same returns.
    assert first[0][REWARD] == first[1][REWARD] == first[2][REWARD]


def test_function_that_gives_one_environment_again_and_again_is_refused_with_evaluation(tmp_path: Path) -> None:
    shared = Drawing()
    settings = config("Drawing", "test:x", max_steps=200)
    train(settings, tmp_path / "without", env=lambda: shared)
    with pytest.raises(UsageError, match="gives the same Drawing each time it is called"):
        train(settings, tmp_path / "with", env=lambda: shared, eval_every=100)
    run = train(settings, tmp_path / "with", env=lambda: Drawing(), eval_every=100, force=True)
    assert run.evaluations.best["Drawing"].mean_reward > 0


def test_every_agents_first_episodes_count_so_that_short_ones_are_not_favoured(tmp_path: Path) -> None:
    class Uneven(Corridor):
        """The first agent's episodes have one step and give 1; the others' have ten and give 10."""

        def _advance(self, action: ActionTuple) -> None:
            self.steps += 1
            rows = np.arange(self.num_agents) if self.steps % 10 == 0 else np.arange(1)
            reward = np.ones(self.num_agents, np.float32)
            self._terminals = self._end(
                [part[rows] for part in self._obs()], reward[rows], np.zeros(len(rows), np.bool_), rows
            )
            reward[rows] = 0
            self._decisions = self._decide(self._obs(), reward)

    notes = Notes()
    train(corridor(200, episodes=8), tmp_path, Env(Uneven), notes)
    ((_, _, returns),) = notes.seen
    assert sorted(returns) == [1.0, 1.0] + [10.0] * 6


def explode(step: int) -> None:
    if step == 3:
        raise RuntimeError("the physics exploded")


@pytest.mark.parametrize("quick", [True, False])
def test_training_goes_on_when_an_evaluation_fails_and_none_comes_after_three(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, quick: bool
) -> None:
    env, notes = Two(explode, quick=quick), Notes()
    run = train(corridor(1000), tmp_path, env, notes)
    assert (run.outcome.status, run.trainers["Corridor"].step, notes.seen) == ("finished", 1000, [])
    told = [record.getMessage() for record in caplog.records if "evaluation" in record.getMessage()]
    assert [text.partition(" failed. ")[0] for text in told] == [
        f"The evaluation of 'Corridor' at step {step}" for step in (200, 400, 600)
    ]
    assert "Training goes on. RuntimeError: the physics exploded" in told[0]
    assert "there are no more" in told[2]
    assert env.made == 4  # Training has one, and so has each evaluation that failed.


def test_run_ends_before_training_when_there_can_be_no_second_environment(tmp_path: Path) -> None:
    made: list[int] = []

    def make() -> Corridor:
        made.append(1)
        if len(made) > 1:
            raise EnvironmentFailure("there is one robot only")
        return Corridor()

    with pytest.raises(EnvironmentFailure, match="one robot only") as caught:
        train(corridor(), tmp_path, Env(make))
    assert "the environment of evaluations" in caught.value.__notes__[0]
    assert not (tmp_path / "run" / "Corridor").exists()


@pytest.mark.parametrize(("quick", "made"), [(True, 4), (False, 2)])
def test_environment_is_made_again_for_each_evaluation_only_where_that_is_quick(
    tmp_path: Path, quick: bool, made: int
) -> None:
    env, notes = Two(quick=quick), Notes()
    train(corridor(600), tmp_path, env, notes)
    assert [step for _, step, _ in notes.seen] == [200, 400, 600]
    assert env.made == made


def test_evaluation_in_which_no_episode_ends_fails_and_does_not_hold_training_up_for_ever(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Endless(Corridor):
        def _advance(self, action: ActionTuple) -> None:
            self._decisions, self._terminals = self._decide(self._obs(), np.zeros(4, np.float32)), self._none_ended

    monkeypatch.setattr(evaluator, "LONG", 20)
    monkeypatch.setattr(evaluator, "TOO_LONG", 50)
    made: list[int] = []

    def make() -> Corridor:
        made.append(1)
        return Corridor() if len(made) == 1 else Endless()

    run = train(corridor(200), tmp_path, Env(make))
    assert run.outcome.status == "finished"
    assert "in 20 steps no episode has ended that counts; there are 0 of 6 episodes of 'Corridor'" in caplog.text
    assert "In 50 steps no episode has ended that counts" in caplog.text


def test_behaviors_are_evaluated_each_by_its_own_settings_in_one_environment(tmp_path: Path) -> None:
    settings = pair_config()
    for name, episodes in (("First", 2), ("Second", 9)):
        settings["behaviors"][name]["evaluation"] = {"interval": 50 * episodes, "episodes": episodes}
    notes = Notes()
    run = train(settings, tmp_path, Env(Pair), notes)
    found = {name: [(at, len(got)) for seen, at, got in notes.seen if seen == name] for name in run.trainers}
    assert found == {"First": [(100, 2), (200, 2), (300, 2)], "Second": [(452, 9), (600, 9)]}
    assert sorted(run.evaluations.best) == ["First", "Second"]
    names = {path.name for path in run.path.glob("*.pt")}
    assert names == {f"{name}{kind}.policy.pt" for name in run.trainers for kind in ("", ".best")}


def test_behavior_that_training_has_not_shown_yet_does_nothing_in_an_evaluation(tmp_path: Path) -> None:
    asked: list[int] = []

    class Early(Pair):
        """Shows the second behavior at once, but not in training."""

        made = 0

        def __init__(self) -> None:
            super().__init__()
            Early.made += 1
            self.first.steps = 20 if Early.made > 1 else -(10**6)

        def set_actions(self, behavior_name: str, action: ActionTuple) -> None:
            if behavior_name == "Second":
                asked.extend(action.discrete.ravel().tolist())
            super().set_actions(behavior_name, action)

    settings = pair_config()
    settings["behaviors"]["First"]["evaluation"] = {"interval": 100, "episodes": 4}
    notes = Notes()
    run = train(settings, tmp_path, Env(Early), notes)
    assert [(name, step) for name, step, _ in notes.seen] == [("First", step) for step in (100, 200, 300)]
    assert (sorted(run.trainers), set(asked)) == (["First"], {0})


def test_lessons_of_now_count_in_an_evaluation(tmp_path: Path) -> None:
    made: list[Told] = []

    class Told(Corridor):
        def __init__(self) -> None:
            super().__init__()
            self.told: list[float] = []
            made.append(self)

        def set_parameters(self, parameters: Mapping[str, Any]) -> None:
            self.told.append(float(parameters["gravity"].draw(1)[0]))

    criteria = {"behavior": "Corridor", "measure": "progress", "threshold": 0.5, "min_lesson_length": 1}
    lessons = [{"name": "low", "value": 1.0, "completion_criteria": criteria}, {"name": "high", "value": 9.0}]
    settings = {**corridor(400), "environment_parameters": {"gravity": {"curriculum": lessons}}}
    train(settings, tmp_path, Env(Told))
    # It was told when it was made, and at both evaluations.
    assert [env.told for env in made] == [[1.0, 9.0], [1.0, 1.0, 9.0]]


def test_several_workers_and_areas_are_evaluated_in_one_environment_apart(tmp_path: Path) -> None:
    notes = Notes()
    flags = {"env_settings.num_envs": 2, "env_settings.num_areas": 2}
    names = [*QUIET, "no:processes"]
    train(balls(600, {"interval": 300, "episodes": 3}), tmp_path, notes, flags=flags, plugin_names=names)
    assert [len(returns) for _, _, returns in notes.seen] == [3] * len(notes.seen)
    assert len(notes.seen) == 2


def test_threaded_updates_are_finished_before_an_evaluation(tmp_path: Path) -> None:
    hyperparameters = {"batch_size": 8, "buffer_size": 200, "steps_per_update": 2}
    settings = config(
        "Basic", "sim:Basic", max_steps=200, trainer_type="dqn", threaded=True, evaluation={"interval": 50}
    )
    settings["behaviors"]["Basic"]["hyperparameters"] = hyperparameters
    running: list[object] = []

    class Look:
        @hookimpl
        def run_started(self, run: Run) -> None:
            self.run = run

        @hookimpl
        def on_add_stat(self, key: str) -> None:
            if key == REWARD:
                running.append(self.run.trainers["Basic"].learning._round)

    run = train(settings, tmp_path, Look())
    assert run.trainers["Basic"].updates > 20
    assert running
    assert set(running) == {None}


def test_inference_is_not_evaluated_and_the_option_of_the_command_line_counts_for_all(tmp_path: Path) -> None:
    run = train(balls(600, None), tmp_path, eval_every=250)
    assert [step for step, _ in evaluated(tmp_path)] == [252, 504, 600]
    assert run.options.behaviors["3DBall"].evaluation.episodes == 10
    watched = train(balls(600), tmp_path, flags={"checkpoint_settings.inference": True}, episodes=3)
    assert watched.outcome.status == "finished"
    assert len(evaluated(tmp_path)) == 3


def test_editor_is_refused_with_the_place_of_the_setting() -> None:
    settings = balls()
    settings["env_settings"].pop("env_path")
    with pytest.raises(SettingsError, match=r"behaviors\.3DBall\.evaluation: .*Unity Editor is a single one"):
        mlhooks.train(settings)


def test_failing_observer_of_evaluations_is_contained_unless_plugins_are_strict(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Fails:
        @hookimpl
        def evaluation_finished(self) -> None:
            raise ValueError("boom")

    assert train(balls(600), tmp_path / "a", Fails()).outcome.status == "finished"
    assert "failed in its hook evaluation_finished" in caplog.text
    with pytest.raises(PluginError, match="boom"):
        train(balls(600), tmp_path / "b", Fails(), strict_plugins=True)


def test_player_of_evaluations_has_the_port_behind_those_of_training_and_is_kept(tmp_path: Path) -> None:
    asked: list[tuple[int, int, int]] = []

    class Players:
        @hookimpl
        def get_env_types(self) -> Mapping[str, Any]:
            def check(name: str | None, options: Any) -> None:
                asked.append((-1, options.env_settings.num_envs, 0))

            def make(name: str | None, *, worker_id: int, seed: int, num_areas: int, **_: Any) -> SingleBehaviorEnv:
                asked.append((worker_id, seed, num_areas))
                return Corridor()

            return {"test": EnvironmentKind(make, check)}

    flags = {"env_settings.num_envs": 2, "env_settings.num_areas": 3}
    train(corridor(400), tmp_path, Players(), flags=flags, plugin_names=[*QUIET, "no:processes"])
    checks, made = [entry for entry in asked if entry[0] < 0], [entry for entry in asked if entry[0] >= 0]
    assert {count for _, count, _ in checks} == {3}  # The port of the evaluations' player is looked at, too.
    assert [(worker, areas) for worker, _, areas in made] == [(0, 3), (1, 3), (2, 3)]
    seeds = [seed for _, seed, _ in made]
    assert seeds[0] == seeds[1] == 5 != seeds[2]
