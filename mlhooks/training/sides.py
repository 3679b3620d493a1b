"""The teams of one behavior, of which its trainer plays one while others decide for the rest."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from mlagents_envs.base_env import ActionTuple

from mlhooks.errors import PluginError
from mlhooks.places import defined_at, in_brackets
from mlhooks.training.acting import GamesOver
from mlhooks.training.frozen_team import FrozenTeam
from mlhooks.training.teams import Teams, team_of

if TYPE_CHECKING:
    from mlhooks.training.trainer import Trainer


class Sides(ABC):
    """What decides for the teams of one behavior; a trainer has one where not all teams are its policy's.

    Args:
        trainer: of the behavior.
        teams: those of the run, of which it plays the one that `learning` names.
        rng: source of all randomness of the other teams.

    Attributes:
        behavior_name, trainer, teams, rng: what it was made with, and the trainer's behavior.
        sides: team -> what decides for it while the trainer does not, in the order in which teams were seen.
    """

    hands_over: ClassVar[bool] = True
    """Whether a team whose agents ask for nothing loses its turn to the next one."""

    def __init__(self, trainer: Trainer, teams: Teams, rng: np.random.Generator) -> None:
        self.behavior_name, self.trainer, self.teams, self.rng = trainer.behavior_name, trainer, teams, rng
        self.sides: dict[int, FrozenTeam] = {}
        self._team_of: dict[str, int] = {}
        teams.players[self.behavior_name] = self
        trainer.acting.games_over = self.rate

    @property
    @abstractmethod
    def rating(self) -> float:
        """The rating of the trainer's policy."""

    @property
    @abstractmethod
    def has_turns(self) -> bool:
        """Whether the trainer still plays teams in turns."""

    @abstractmethod
    def make_side(self, team: int) -> FrozenTeam:
        """Return what is to decide for a team that is seen for the first time."""

    @abstractmethod
    def advance(self) -> None:
        """Do what is due after the trainer has observed and learned."""

    @abstractmethod
    def rate(self, games: GamesOver) -> None:
        """Take in how games of the trainer's agents ended."""

    def frozen(self, behavior_id: str) -> FrozenTeam | None:
        """Return what decides for a behavior id; None where the trainer does."""
        team = self._team_of.get(behavior_id)
        if team is None:
            team = self._team_of[behavior_id] = team_of(behavior_id)
            if team not in self.sides:
                self.sides[team] = self.make_side(team)
            self.teams.join(team, self)
        return None if team == self.teams.learning else self.sides[team]

    def heard(self, behavior_id: str) -> bool:
        """Note that agents of a behavior id ask for decisions, and return whether the trainer decides for them.

        Raises:
            PluginError: the trainer has observed them by itself.
        """
        team = self._team_of.get(behavior_id)
        if team is None:
            kind = type(self.trainer)
            raise PluginError(
                f"{kind.__name__}.observe(){in_brackets(defined_at(kind.observe))} does not call super().observe(), by "
                "which self-play, and a match of two runs, learn of teams."
            )
        self.teams.absent.discard(team)
        return team == self.teams.learning

    def observed(self, steps: int) -> None:
        """Note that the outcome of so many decisions of the other teams is known; by default do nothing."""

    def act(self) -> Iterator[tuple[int, str, ActionTuple]]:
        """Decide for the agents of all other teams that wait, in one batch for each team."""
        for side in self.sides.values():
            yield from side.act(self.rng)

    def environments_restarted(self) -> None:
        """Forget the agents of all other teams."""
        for side in self.sides.values():
            side.forget()

    def worker_failed(self, worker: int) -> None:
        """Forget a failed worker's agents."""
        for side in self.sides.values():
            side.worker_failed(worker)
