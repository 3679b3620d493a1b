"""Checks of trainers under self-play, which they have without code of their own."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch

from mlhooks.testing.assertions import demand, works
from mlhooks.testing.scripted import BEHAVIOR
from mlhooks.testing.team_game import TEAMS, TeamGame
from mlhooks.testing.trainer_loop import differing, weights
from mlhooks.testing.trainer_trial import FIRST_UPDATE, Trial
from mlhooks.training.checkpoints import pack, unpack
from mlhooks.training.self_play import SelfPlay
from mlhooks.training.teams import Teams
from mlhooks.training.trainer import Trainer

PLAY = {"save_steps": 200, "swap_steps": 100, "team_change": 100_000, "window": 1, "play_against_latest_model_ratio": 0}


@pytest.fixture(autouse=True)
def _plays(trial: Trial) -> None:
    if not trial.kind.supports.self_play:
        pytest.skip("it does not support self-play")


class Table:
    """A trainer that plays all teams of a game, as in a run."""

    def __init__(self, trial: Trial, *, hyperparameters: Mapping[str, Any] | None = None, **play: Any) -> None:
        self.env, self.teams = TeamGame(**trial.any_actions), Teams()
        settings: dict[str, Any] = {"self_play": {**PLAY, **play}, "hyperparameters": hyperparameters}
        self.trainer: Trainer = trial.trainer(self.env.spec, **settings)
        self.trainer.begin_self_play(self.teams)
        demand(
            self.trainer.self_play is not None,
            "begin_self_play() made nothing, although `supports` declares self_play. Leave it to the base, or declare "
            "Supports(self_play=False).",
        )
        self.env.reset()
        self.observe()

    @property
    def play(self) -> SelfPlay:
        """The snapshots, frozen teams and ratings."""
        assert self.trainer.self_play is not None
        return self.trainer.self_play

    def observe(self) -> None:
        """Take in what all teams see."""
        for team in TEAMS:
            self.trainer.observe(0, f"{BEHAVIOR}?team={team}", *self.env.get_steps(team))

    def act(self) -> None:
        """Make one decision of every agent."""
        with works("a trainer with several teams acted"):
            for _, behavior_id, action in self.trainer.act():
                self.env.set_actions(int(behavior_id.partition("=")[2]), action)
        self.env.step()
        self.observe()

    def learn(self) -> None:
        """Update where one is due."""
        if self.trainer.ready_to_update():
            self.trainer.update()

    def advance(self) -> None:
        """Hand over, save and swap."""
        if self.teams.advance():
            self.env.reset()
            self.trainer.environments_restarted()
            self.observe()

    def until(self, step: int) -> Table:
        """Play until the trainer has counted so many steps."""
        for _ in range(20 * step):
            if self.trainer.step >= step:
                return self
            self.act()
            self.learn()
            self.advance()
        raise AssertionError(f"with {len(TEAMS)} teams, trainer.step stays at {self.trainer.step}")

    def until_learned(self) -> None:
        """Play until the trainer's weights have changed, but for no more than `FIRST_UPDATE` steps."""
        initial = weights(self.trainer)
        while self.trainer.step < FIRST_UPDATE and not differing(weights(self.trainer), initial):
            self.until(self.trainer.step + 1)


def test_frozen_teams_are_not_learned_from(trial: Trial) -> None:
    """Only rows of the team that learns are stored and counted as steps, also after another team's turn began."""
    table = Table(trial, team_change=150)
    store, turns = table.trainer.store, set[int | None]()
    for _ in range(100):
        new = store.obs[0][store.waiting : store.size, 0]
        turns.add(table.teams.learning)
        strangers = sorted(set(new.tolist()) - {table.teams.learning})
        demand(
            not strangers and len(new) == table.env.agents,
            f"While team {table.teams.learning} learns with {table.env.agents} agents, {len(new)} rows are stored, and "
            f"of other teams those of {strangers}. Leave `observe` and `act` to the base, or declare "
            "Supports(self_play=False).",
        )
        before = table.trainer.step
        table.act()
        counted = table.trainer.step - before
        demand(counted <= table.env.agents, f"In one tick of {table.env.agents} agents, {counted} steps were counted.")
        table.learn()
        table.advance()
    demand(turns == set(TEAMS), f"Of the teams {TEAMS} only {sorted(map(str, turns))} had a turn to learn.")


def test_games_are_rated_by_elo(trial: Trial) -> None:
    """A team that always wins is rated higher after each game, by as much as Elo's formula says."""
    table = Table(trial, swap_steps=1_000_000, save_steps=1_000_000)
    own = other = 1200.0
    won = 0
    while won < 3 * table.env.agents:
        table.act()
        for _ in range(len(table.env.get_steps(0)[1])):
            change = 1.0 - 1.0 / (1.0 + 10.0 ** ((other - own) / 400.0))
            own, other, won = own + change, other - change, won + 1
    demand(
        bool(np.allclose([table.play.rating, table.play.ratings[0]], [own, other])),
        f"After {won} games that were won, the policy is rated {table.play.rating:.2f} and its opponent "
        f"{table.play.ratings[0]:.2f}, and must be {own:.2f} and {other:.2f}.",
    )


def test_opponents_are_snapshots(trial: Trial) -> None:
    """A snapshot that is due is saved before opponents are drawn; what plays it neither changes nor shares weights."""
    table = Table(trial, save_steps=1_000_000, swap_steps=1_000_000)
    table.until_learned()
    first = _of(table.play.snapshots[0])
    demand(
        not differing(_weights(table), first),
        "The frozen team does not play the initial policy before opponents are drawn: does copy.deepcopy of the policy "
        "copy all of it, and do its modules() hold everything that decides?",
    )
    before = weights(table.trainer)
    table.play.saved_at = table.play.swapped_at = -1_000_000
    table.advance()
    demand(not differing(weights(table.trainer), before), "Saving and drawing opponents changes the trainer's weights.")
    own = {name: tensor for name, tensor in before.items() if name.startswith("policy.")}
    drawn = {f"policy.{name}": tensor for name, tensor in _weights(table).items()}
    demand(
        not differing(drawn, own),
        "Where a snapshot and a change of opponents are due at once, the opponent, drawn from a ring of one, is not "
        "the new snapshot.",
    )
    for _ in range(500):
        table.act()
        table.learn()
        if differing(weights(table.trainer), before):
            break
    after = {f"policy.{name}": tensor for name, tensor in _weights(table).items()}
    demand(not differing(after, drawn), "Learning changes the weights of a frozen team: do both share parameters?")


def test_self_play_resumes_exactly(trial: Trial) -> None:
    """A trainer that is restored in the midst of self-play goes on as if it had never stopped."""
    whole = {"save_replay_buffer": True} if trial.has("save_replay_buffer") else {}
    tables = [Table(trial, hyperparameters=whole, team_change=120, save_steps=1_000_000) for _ in range(2)]
    first, second = tables
    first.until_learned()
    state = unpack(copy.deepcopy(pack(first.trainer.state_dict())))
    teams, env, generator = first.teams.state_dict(), first.env.state_dict(), torch.get_rng_state()
    second.trainer.load_state_dict(state)
    second.teams.load_state_dict(teams)
    second.env.load_state_dict(env)
    for table in tables:
        torch.set_rng_state(generator)
        for _ in range(60):
            table.act()
            table.learn()
            table.advance()
    demand(second.play.ratings == first.play.ratings, "60 ticks after a resume, the ratings differ.")
    for what, of in {"weights": lambda table: weights(table.trainer), "weights of a frozen team": _weights}.items():
        other = differing(of(first), of(second))
        demand(not other, f"60 ticks after a resume, {what} differ from those of a run that went on: {other[:3]}.")


def _weights(table: Table) -> dict[str, torch.Tensor]:
    """Return the weights of the team that is frozen while the first one learns."""
    return _of({name: module.state_dict() for name, module in table.play.sides[1].policy.modules().items()})


def _of(states: Mapping[str, Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    return {f"{name}.{key}": tensor.clone() for name, state in states.items() for key, tensor in state.items()}
