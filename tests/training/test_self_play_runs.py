"""Whole runs with self-play: what they tell, how they resume, and matches of two of them."""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
from mlagents_envs.base_env import DecisionSteps, TerminalSteps

from builtin_plugins.ppo import PPOTrainer
from mlhooks import hookimpl
from mlhooks.errors import EnvironmentFailure, PluginError, UsageError
from mlhooks.stats import StatsPropertyType
from mlhooks.training import silence
from mlhooks.training.match import Match, interval
from mlhooks.training.teams import Teams
from tests.scripted import QUIET, Env, config, train
from tests.training.duels import Duel, Games
from tests.training.test_resume import Snapshots, StopAfter, digest

PLAY = {"save_steps": 200, "swap_steps": 90, "team_change": 350, "window": 3}


def duel(*, behaviors: tuple[str, ...] = ("Duel",), env: str = "game:Duel", **settings: Any) -> dict[str, Any]:
    made = config("x", env, **{"max_steps": 1000, "self_play": PLAY, **settings})
    return {**made, "behaviors": dict.fromkeys(behaviors, made["behaviors"]["x"])}


SIEGE = duel(behaviors=("Castle", "Tower"), env="game:Siege")


@pytest.mark.slow
@pytest.mark.parametrize(("settings", "behavior"), [(duel(), "Duel"), (SIEGE, "Tower")])
def test_run_that_was_killed_or_interrupted_ends_with_the_weights_of_one_that_was_never_stopped(
    tmp_path: Path, settings: dict[str, Any], behavior: str
) -> None:
    snapshots = Copies(tmp_path / "killed", [3, 7])
    train(settings, tmp_path / "whole", snapshots, Games())
    expected = digest(tmp_path / "whole", 1000, behavior)
    stopped = train(settings, tmp_path / "stopped", StopAfter(40), Games())
    assert stopped.outcome.status == "interrupted"
    for folder in [*snapshots.taken, tmp_path / "stopped"]:
        resumed = train(settings, folder, Games(), resume=True)
        assert [trainer.step for trainer in resumed.trainers.values()] == [1000] * len(settings["behaviors"])
        assert digest(folder, 1000, behavior) == expected, folder.name


class Copies(Snapshots):
    """Copies the run's folder after some updates of any behavior."""

    @hookimpl
    def update_finished(self, trainer: Any) -> None:
        if trainer.updates in self.updates:
            self.taken.append(self.folder / f"{trainer.behavior_name}-{trainer.updates}")
            shutil.copytree(self.run.path, self.taken[-1] / "run")


class Told:
    """Remembers properties, and the rating at each summary."""

    def __init__(self) -> None:
        self.properties: list[tuple[StatsPropertyType, Any]] = []
        self.ratings: list[float] = []

    @hookimpl
    def add_property(self, property_type: StatsPropertyType, value: Any) -> None:
        self.properties.append((property_type, value))

    @hookimpl
    def write_stats(self, values: Mapping[str, Any]) -> None:
        if "Self-play/ELO" in values:
            self.ratings.append(values["Self-play/ELO"].mean)


def test_rating_is_told_to_writers_people_and_the_status_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = Told()
    shown = [name for name in QUIET if name != "no:console"]
    run = train(duel(), tmp_path, told, Games(), plugin_names=shown)
    play = run.trainers["Duel"].self_play
    assert play is not None
    assert (StatsPropertyType.SELF_PLAY, True) in told.properties
    assert len(told.ratings) == 5
    status = json.loads((run.path / "run_logs" / "training_status.json").read_text())
    assert status["Duel"]["elo"] == play.rating
    printed = re.findall(r"ELO: ([\d.]+)", capsys.readouterr().out)
    assert printed == [f"{rating:.3f}" for rating in [*told.ratings, play.rating]]


def test_several_teams_without_self_play_get_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = train(duel(self_play=None, max_steps=200), tmp_path, Games())
    assert caplog.text.count("has several teams, 'Duel?team=0' and 'Duel?team=1', and no self_play") == 1
    assert run.trainers["Duel"].self_play is None
    caplog.clear()
    train(duel(), tmp_path / "play", Games())
    assert "several teams" not in caplog.text


def test_single_team_is_told_that_it_plays_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = train(config("Corridor", "test:x", self_play=PLAY), tmp_path, Env())
    assert "'Corridor' has self_play, and so far the environment shows a single team" in caplog.text
    assert run.trainers["Corridor"].step == 600
    play = run.trainers["Corridor"].self_play
    assert play is not None
    assert play.rating == 1200.0


class Absent(Duel):
    """Agents of its second team ask for nothing before a time."""

    moves, there = 0, 10**6

    def get_steps(self, behavior_name: str) -> Any:
        decisions, terminals = super().get_steps(behavior_name)
        if behavior_name.endswith("1") and self.moves < self.there:
            spec = self.behavior_specs[behavior_name]
            return DecisionSteps.empty(spec), TerminalSteps.empty(spec)
        return decisions, terminals

    def step(self) -> None:
        self.moves += 1
        super().step()


def test_team_whose_agents_never_come_is_passed_over_and_ends_a_match(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(silence, "SOON", 40)
    monkeypatch.setattr(silence, "LATE", 200)
    env, settings = Env(lambda: Absent(num_agents=4)), duel(env="test:x")
    run = train(settings, tmp_path, env)
    assert run.trainers["Duel"].step >= 1000
    assert (run.teams.learning, run.teams.queue, run.teams.absent) == (0, [1], {1})
    assert caplog.text.count("steps no agent of 'Duel' has asked for a decision in team 1. Team 0 learns in its") == 1
    kept = Teams()
    kept.players = run.teams.players
    kept.load_state_dict(run.teams.state_dict())
    assert kept.absent == {1}
    flags = {"checkpoint_settings.inference": True}
    with pytest.raises(EnvironmentFailure, match=r"no agent of 'Duel' has asked for a decision in team 1\. The run"):
        train(settings, tmp_path, env, flags=flags, episodes=20, opponent="run")


def test_team_that_comes_back_has_its_turns_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Late(Absent):
        there = 200

    class Turns:
        learned: ClassVar[list[int | None]] = []

        @hookimpl
        def run_started(self, run: Any) -> None:
            self.teams = run.teams

        @hookimpl
        def update_finished(self) -> None:
            self.learned.append(self.teams.learning)

    monkeypatch.setattr(silence, "SOON", 40)
    run = train(duel(env="test:x", max_steps=1500), tmp_path, Env(lambda: Late(num_agents=4)), Turns())
    assert not run.teams.absent
    assert set(Turns.learned) == {0, 1}


class Unaware(PPOTrainer):
    def observe(self, worker: int, behavior_id: str, decisions: DecisionSteps, terminals: TerminalSteps) -> None:
        self.step += self.acting.observe(worker, behavior_id, decisions, terminals, self.step)


def test_trainer_that_observes_by_itself_is_told_what_self_play_needs(tmp_path: Path) -> None:
    class Offered:
        @hookimpl
        def get_trainer_types(self) -> dict[str, Any]:
            return {"unaware": Unaware}

    with pytest.raises(PluginError, match=r"Unaware.observe\(\) \(.*runs.py:\d+\) does not call super\(\).observe\(\)"):
        train(duel(trainer_type="unaware"), tmp_path, Games(), Offered())


def test_self_play_beside_updates_in_a_thread(tmp_path: Path) -> None:
    hyperparameters = {"batch_size": 20, "buffer_size": 500, "buffer_init_steps": 50, "steps_per_update": 5}
    settings = duel(trainer_type="sac", hyperparameters=hyperparameters, threaded=True, max_steps=500)
    run = train(settings, tmp_path, Games())
    play = run.trainers["Duel"].self_play
    assert play is not None
    assert play.saved_at > 0
    assert run.trainers["Duel"].updates > 50


@pytest.mark.parametrize("before", [True, False])
def test_self_play_may_be_switched_on_and_off_between_checkpoint_and_resume(
    tmp_path: Path, before: bool, caplog: pytest.LogCaptureFixture
) -> None:
    train(duel(max_steps=300, self_play=PLAY if before else None), tmp_path, Games())
    with caplog.at_level(logging.WARNING, "mlhooks"):
        run = train(duel(self_play=None if before else PLAY), tmp_path, Games(), resume=True)
    assert "Self-play was switched on or off: its episodes begin again" in caplog.text
    assert run.trainers["Duel"].step >= 1000
    assert (run.trainers["Duel"].self_play is None) == before


class Crashing(Duel):
    """It fails at some of the steps of all games together."""

    steps = 0

    def step(self) -> None:
        Crashing.steps += 1
        if Crashing.steps in (23, 90, 91, 150):  # The first one is in the tick in which the first team's turn ends.
            raise OSError("the game has crashed")
        super().step()


def test_run_survives_a_game_that_crashes_also_where_the_turn_ends(tmp_path: Path) -> None:
    Crashing.steps = 0
    settings = duel(env="test:x", self_play={**PLAY, "team_change": 88})
    settings["env_settings"] |= {"restarts_rate_limit_n": -1, "num_envs": 2}
    games = Env(lambda: Crashing(num_agents=4))
    run = train(settings, tmp_path, games, plugin_names=[*QUIET, "no:processes"])
    assert len(run.outcome.restarts) == 4
    assert run.trainers["Duel"].step >= 1000
    assert run.teams.known == [0, 1]


def test_several_workers_play_one_match_of_teams(tmp_path: Path) -> None:
    settings = duel(env="sim:Tag", behaviors=("Tag",), max_steps=400, self_play={**PLAY, "team_change": 150})
    settings["env_settings"] |= {"num_envs": 2}
    run = train(settings, tmp_path, plugin_names=[*QUIET, "no:processes"])
    play = run.trainers["Tag"].self_play
    assert play is not None
    assert play.ghost_steps > 200
    assert play.changed_at > 0


def test_with_inference_the_policy_plays_all_teams(tmp_path: Path) -> None:
    train(duel(max_steps=200), tmp_path, Games())
    run = train(duel(), tmp_path, Games(), flags={"checkpoint_settings.inference": True}, episodes=20)
    assert run.trainers["Duel"].sides is None
    assert run.evaluation is not None
    assert len(run.evaluation.returns["Duel"]) >= 20


class Scored(Duel):
    """Its first team wins, except in every fourth game, which is a draw."""

    def _move(self, actions: Any) -> Any:
        gain, over = super()._move(actions)
        gain[:] = [1.0, 1.0, 1.0, 0.0]
        return gain, over


def scored() -> Env:
    return Env(lambda: Scored(num_agents=4))


def test_match_counts_wins_draws_and_losses_on_both_sides(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = duel(env="test:x", max_steps=100)
    for name in ("a", "b"):
        train(settings, tmp_path, scored(), run_id=name)
    inference = {"checkpoint_settings.inference": True}
    for opponent in ("b", tmp_path / "b", tmp_path / "b" / "Duel.policy.pt"):
        run = train(settings, tmp_path, scored(), run_id="a", flags=inference, episodes=40, opponent=opponent)
        assert str(run.evaluation).splitlines() == [
            "Duel as team 0  15 wins, 5 draws, 0 losses in 20 games: 75.0% won (95 % interval 53.1% to 88.8%)",
            "Duel as team 1  0 wins, 5 draws, 15 losses in 20 games: 0.0% won (95 % interval 0.0% to 16.1%)",
            "all together  15 wins, 10 draws, 15 losses in 40 games: 37.5% won (95 % interval 24.2% to 53.0%)",
        ]
    assert not (tmp_path / "a" / "Duel" / "Duel-0.pt").exists()


def test_interval_is_wilsons() -> None:
    low, high = interval(8, 10)  # Wilson's score interval, as in Newcombe 1998, Statistics in Medicine 17, 857.
    assert (low, high) == pytest.approx((0.4901625, 0.9433178), abs=1e-6)
    assert interval(0, 5)[0] == 0.0
    assert interval(5, 5)[1] == 1.0


def test_match_of_two_behaviors_lets_each_run_play_each_side(tmp_path: Path) -> None:
    for name in ("a", "b"):
        train(SIEGE, tmp_path, Games(), run_id=name, overrides=["behaviors.*.max_steps=100"])
    flags = {"checkpoint_settings.inference": True}
    run = train(SIEGE, tmp_path, Games(), run_id="a", flags=flags, episodes=11, opponent="b")
    assert isinstance(run.evaluation, Match)
    lines = str(run.evaluation).splitlines()
    assert [re.sub(r"  .* (in \d+ games): .*", r" \1", line) for line in lines] == [
        "Castle as team 1 in 6 games",
        "Tower as team 0 in 5 games",
        "all together in 11 games",
    ]


def test_matches_that_cannot_be_played_are_refused(tmp_path: Path) -> None:
    settings, flags = duel(max_steps=100), {"checkpoint_settings.inference": True}
    train(settings, tmp_path, Games())
    other = config("Corridor", "test:x", max_steps=200)
    train(other, tmp_path, Env(), run_id="corridor")
    with pytest.raises(UsageError, match="--opponent is for --inference"):
        train(settings, tmp_path, Games(), opponent="run", force=True)
    with pytest.raises(UsageError, match="no policy for behavior 'Duel', only for Corridor"):
        train(settings, tmp_path, Games(), flags=flags, opponent="corridor")
    with pytest.raises(UsageError, match="shows a single team"):
        train(other, tmp_path, Env(), run_id="corridor", flags=flags, opponent="corridor", episodes=4)
    with pytest.raises(UsageError, match=r"--opponent: there is no run .nobody"):
        train(settings, tmp_path, Games(), flags=flags, opponent="nobody")


def test_team_that_is_no_number_is_named(tmp_path: Path) -> None:
    class Odd(Duel):
        SIDES = {"Duel?team=red": Duel.SIDES["Duel?team=0"], "Duel?team=1": Duel.SIDES["Duel?team=1"]}  # noqa: RUF012

    with pytest.raises(EnvironmentFailure, match=r"'Duel\?team=red' has the team 'red'"):
        train(duel(env="test:x"), tmp_path, Env(lambda: Odd(num_agents=2)))
