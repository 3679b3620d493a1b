"""Evaluations while training: apart from it, exact over a resume, and what follows from them."""

from __future__ import annotations

import hashlib
import json
import logging
import random
import shutil
from collections.abc import Callable, Mapping
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
from mlhooks.errors import CheckpointError, EnvironmentFailure, PluginError, SettingsError, UsageError
from mlhooks.training import evaluator
from mlhooks.training.checkpoints import read_state, write_state
from mlhooks.training.evaluation import Evaluation
from mlhooks.training.run import Run
from tests.scripted import QUIET, Corridor, Env, config, train
from tests.training.test_resume import StopAfter
from tests.training.test_run import Pair, pair_config

REWARD, LENGTH = "Evaluation/Cumulative Reward", "Evaluation/Episode Length"
EVALUATION = {"interval": 500, "episodes": 7}


def balls(max_steps: int = 3000, evaluation: Mapping[str, Any] | None = EVALUATION, **settings: Any) -> dict[str, Any]:
    hyperparameters = {"batch_size": 60, "buffer_size": 300}
    extra = {} if evaluation is None else {"evaluation": dict(evaluation)}
    return config("3DBall", "sim:3DBall", max_steps=max_steps, hyperparameters=hyperparameters, **extra, **settings)


def corridor(max_steps: int = 600, **evaluation: Any) -> dict[str, Any]:
    return config("Corridor", "test:x", max_steps=max_steps, evaluation={"interval": 200, "episodes": 6, **evaluation})


def lines(folder: Path) -> list[dict[str, Any]]:
    """Return the statistics of a run, without the times."""
    rows = [json.loads(line) for line in (folder / "run" / "stats.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "time"} for row in rows]


def evaluated(folder: Path) -> list[tuple[int, dict[str, Any]]]:
    return [(row["step"], row["values"]) for row in lines(folder) if REWARD in row["values"]]


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


class Notes:
    """Takes note of evaluations, and may do something at one of them."""

    def __init__(self, at: int = -1, act: Callable[[Run], None] = lambda run: None) -> None:
        self.at, self.act = at, act
        self.seen: list[tuple[str, int, tuple[float, ...]]] = []

    @hookimpl
    def evaluation_finished(self, run: Run, behavior_name: str, step: int, returns: tuple[float, ...]) -> None:
        self.seen.append((behavior_name, step, returns))
        if len(self.seen) == self.at:
            self.act(run)


class Spoiled(Corridor):
    """A corridor that may do something else at a step."""

    def __init__(self, spoil: Callable[[int], None] | None = None) -> None:
        super().__init__()
        self.spoil = spoil

    def _advance(self, action: ActionTuple) -> None:
        if self.spoil is not None:
            self.spoil(self.steps)
        super()._advance(action)


class Two:
    """Offers `test:ANY`: the first environment is that of training, and all others do what they are told."""

    def __init__(self, spoil: Callable[[int], None] | None = None, *, quick: bool = False) -> None:
        self.spoil, self.quick, self.made = spoil, quick, 0

    def make(self, name: str | None, **_: Any) -> SingleBehaviorEnv:
        self.made += 1
        return Spoiled(self.spoil if self.made > 1 else None)

    @hookimpl
    def get_env_types(self) -> Mapping[str, Any]:
        return {"test": EnvironmentKind(self.make, lambda *_: None, quick=self.quick)}


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


PATIENT = balls(1500, {**EVALUATION, "patience": 50})


def test_function_that_gives_one_environment_again_and_again_is_refused_with_evaluation(tmp_path: Path) -> None:
    shared = Drawing()
    settings = config("Drawing", "test:x", max_steps=200)
    train(settings, tmp_path / "without", env=lambda: shared)
    with pytest.raises(UsageError, match="gives the same Drawing each time it is called"):
        train(settings, tmp_path / "with", env=lambda: shared, eval_every=100)
    run = train(settings, tmp_path / "with", env=lambda: Drawing(), eval_every=100, force=True)
    assert run.evaluations.best["Drawing"].mean_reward > 0


class StopWithin:
    """Asks the run to stop, as Ctrl-C does, some steps after the so-many-th evaluation has begun."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, evaluation: int, steps: int = 5) -> None:
        self.monkeypatch, self.evaluation, self.steps, self.begun = monkeypatch, evaluation, steps, 0

    @hookimpl
    def run_started(self, run: Run) -> None:
        play = evaluator.Evaluator.play

        def played(self_: Any, wanted: Any, trainers: Any, parameters: Any, stopped: Callable[[], bool]) -> Any:
            self.begun += 1
            asked = iter(range(self.steps))

            def now() -> bool:
                if self.begun == self.evaluation and next(asked, None) is None:
                    run.stop.requested = True
                return stopped()

            return play(self_, wanted, trainers, parameters, now)

        self.monkeypatch.setattr(evaluator.Evaluator, "play", played)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was never stopped."""
    folder = tmp_path_factory.mktemp("whole")
    train(PATIENT, folder)
    return folder


@pytest.mark.parametrize("place", ["after an evaluation", "amid one", "amid the last one", "between two"])
def test_resumed_run_equals_one_that_was_never_stopped_evaluations_included(
    tmp_path: Path, whole: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stops: dict[str, object] = {
        "after an evaluation": Notes(2, lambda run: setattr(run.stop, "requested", True)),
        "amid one": StopWithin(monkeypatch, 2),
        "amid the last one": StopWithin(monkeypatch, 3),
        "between two": StopAfter(30),
    }
    stopped = train(PATIENT, tmp_path, stops[place])
    assert stopped.outcome.status == "interrupted"
    assert 0 < len(evaluated(tmp_path)) < 3
    monkeypatch.undo()
    resumed = train(PATIENT, tmp_path, resume=True)
    assert resumed.outcome.status == "finished"
    assert lines(tmp_path) == lines(whole)
    for file in ("3DBall/3DBall-1500.pt", "3DBall.best.policy.pt", "3DBall.policy.pt", "run_logs/state-1500.pt"):
        assert digest(tmp_path / "run" / file) == digest(whole / "run" / file), file


def test_best_policy_of_a_killed_run_is_that_of_the_checkpoint_from_which_it_goes_on(tmp_path: Path) -> None:
    settings = balls(1000, checkpoint_interval=600)
    run = train(settings, tmp_path)
    best = tmp_path / "run" / "3DBall.best.policy.pt"
    right, files = best.read_bytes(), run.evaluations.best["3DBall"].files
    assert files == [best]
    best.write_bytes((tmp_path / "run" / "3DBall" / "3DBall-600.policy.pt").read_bytes())
    train(settings, tmp_path, resume=True)
    assert best.read_bytes() == right
    step = run.evaluations.best["3DBall"].step
    assert read_state(best)["step"] == step
    assert (digest(tmp_path / "run" / "3DBall.policy.pt") == digest(best)) == (step == 1008)


class Scripted:
    """Evaluations that have given mean rewards, in the place of played ones."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *means: float) -> None:
        waiting = iter(means)

        def play(self: Any, wanted: Mapping[str, Any], *_: Any) -> Any:
            found = {}
            for name in wanted:
                found[name] = Evaluation(2)
                found[name].expect(name)
                mean = next(waiting)
                found[name].ended(name, 2, np.arange(2), np.array([mean - 1, mean + 1]), np.array([3, 5]))
            return found

        monkeypatch.setattr(evaluator.Evaluator, "play", play)


def test_best_policy_is_kept_beside_the_last_one_and_can_be_loaded_and_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Scripted(monkeypatch, 1.0, 7.0, 3.0)
    run = train(balls(1400), tmp_path)
    best = run.evaluations.best["3DBall"]
    assert (best.step, best.mean_reward) == (1008, 7.0)
    assert run.outcome.files["best model"] == [run.path / "3DBall.best.policy.pt"]
    state = read_state(run.path / "3DBall.best.policy.pt")
    assert state["step"] == 1008
    observation = np.linspace(-1, 1, 8, dtype=np.float32)
    loaded = {name: mlhooks.load(run.path, best=name == "best").predict(observation) for name in ("best", "last")}
    direct = mlhooks.load(run.path / "3DBall.best.policy.pt").predict(observation)
    assert loaded["best"].tolist() == direct.tolist() != loaded["last"].tolist()
    flags = {"checkpoint_settings.inference": True}
    scores = {
        policy: train(balls(1400), tmp_path, flags=flags, episodes=12, policy=policy) for policy in ("best", "last")
    }
    assert [run.trainers["3DBall"].step for run in scores.values()] == [1008, 1404]
    assert [len(evaluated(tmp_path)), len(scores["best"].evaluation.returns["3DBall"])] == [3, 12]


def test_what_was_never_evaluated_has_no_best_policy(tmp_path: Path) -> None:
    run = train(balls(300, None), tmp_path)
    assert run.evaluations.best == {}
    with pytest.raises(CheckpointError, match=r"no best policy.*--eval-every"):
        mlhooks.load(run.path, best=True)
    with pytest.raises(UsageError, match=r"no best policy.*--eval-every"):
        train(balls(300, None), tmp_path, flags={"checkpoint_settings.inference": True}, episodes=1, policy="best")
    with pytest.raises(UsageError, match="--policy best is for --inference"):
        train(balls(300, None), tmp_path, policy="best", force=True)
    with pytest.raises(UsageError, match=r"is a file, and best=True"):
        mlhooks.load(run.path / "3DBall.policy.pt", best=True)


def test_training_ends_when_the_wanted_reward_is_reached_and_goes_on_when_more_is_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "mlhooks")
    Scripted(monkeypatch, 1.0, 7.0, 3.0, 4.0)
    settings = balls(2000, {**EVALUATION, "stop_at": 6.5})
    run = train(settings, tmp_path)
    assert (run.outcome.status, run.trainers["3DBall"].step) == ("finished", 1008)
    assert "The training of '3DBall' ends at step 1,008: an evaluation had a mean reward of 7" in caplog.text
    again = train(settings, tmp_path, resume=True)
    assert again.trainers["3DBall"].step == 1008
    assert "There is nothing left to train: '3DBall' is at step 1,008 of 2,000 (an evaluation had" in caplog.text
    assert "--set behaviors.3DBall.evaluation.stop_at=N" in caplog.text
    more = train(balls(2000, {**EVALUATION, "stop_at": 9}), tmp_path, resume=True)
    assert more.trainers["3DBall"].step == 2004
    assert [step for step, _ in evaluated(tmp_path)] == [504, 1008, 1500, 2004]


def test_training_ends_when_patience_is_over_also_across_a_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = balls(5000, {**EVALUATION, "patience": 3})
    means = [1.0, 2.0, 1.5, 1.9, 2.0, 8.0]  # An equal one is no better one.
    Scripted(monkeypatch, *means)
    assert train(settings, tmp_path / "whole").trainers["3DBall"].step == 2508
    Scripted(monkeypatch, *means)
    train(settings, tmp_path / "cut", Notes(4, lambda run: setattr(run.stop, "requested", True)))
    assert train(settings, tmp_path / "cut", resume=True).trainers["3DBall"].step == 2508
    assert lines(tmp_path / "cut") == lines(tmp_path / "whole")


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


def test_best_policy_that_does_not_fit_any_more_is_not_exported_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    Scripted(monkeypatch, 5.0, 4.0, 1.0)
    train(balls(600, checkpoint_interval=600), tmp_path)
    best = tmp_path / "run" / "3DBall.best.policy.pt"
    before, newest = best.read_bytes(), tmp_path / "run" / "run_logs" / "state-600.pt"
    state = read_state(newest)
    state["evaluations"]["3DBall"]["best"]["modules"]["policy.actor"].popitem()
    write_state(newest, state)
    manifest = tmp_path / "run" / "run_logs" / "training_status.json"
    noted = json.loads(manifest.read_text())
    noted["mlhooks"][-1]["run"] |= {"size": newest.stat().st_size, "sha256": digest(newest)}
    manifest.write_text(json.dumps(noted))
    run = train(balls(620, checkpoint_interval=600, evaluation={"interval": 5000}), tmp_path, resume=True)
    assert run.outcome.status == "finished"
    assert "The best policy of '3DBall' is not exported again: " in caplog.text
    assert best.read_bytes() == before
    assert run.evaluations.best["3DBall"].step == 504


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


def test_best_policy_of_a_run_killed_before_its_first_checkpoint_can_be_used_and_is_known_as_the_runs(
    tmp_path: Path,
) -> None:
    train(balls(600), tmp_path)
    (tmp_path / "run" / "run_logs" / "training_status.json").unlink()
    shutil.rmtree(tmp_path / "run" / "3DBall")
    (tmp_path / "run" / "3DBall.policy.pt").unlink()
    assert mlhooks.load(tmp_path / "run", best=True).behavior_name == "3DBall"
    with pytest.raises(CheckpointError, match=r"can still be used alone, .*3DBall\.best\.policy\.pt"):
        train(balls(600), tmp_path, resume=True)
    again = train(balls(300, None), tmp_path, force=True)
    assert again.outcome.status == "finished"
    assert not (tmp_path / "run" / "3DBall.best.policy.pt").exists()


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
