"""A match: with inference, the policies of a run play against those of another one."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping

import numpy as np

from mlhooks.envs.specs import in_words, same_shape
from mlhooks.errors import UsageError
from mlhooks.training.acting import GamesOver
from mlhooks.training.evaluation import Evaluation
from mlhooks.training.frozen_team import FrozenTeam
from mlhooks.training.policy import Policy
from mlhooks.training.sides import Sides
from mlhooks.training.teams import DRAW, LOSS, WIN, Teams, score_of
from mlhooks.training.trainer import Trainer

GAMES = 100
"""Games of a match, where nobody says how many."""
Z = 1.959964
"""Standard deviations on each side of the mean that hold 95 % of a normal distribution."""


def interval(wins: int, games: int) -> tuple[float, float]:
    """Return the 95 % confidence interval of the share of games won (Wilson 1927, JASA 22, equation 4).

    Args:
        wins: of all games.
        games: at least one.
    """
    share, spread = wins / games, Z * Z / games
    middle = (share + spread / 2) / (1 + spread)
    half = Z * math.sqrt(share * (1 - share) / games + spread / (4 * games)) / (1 + spread)
    return max(0.0, middle - half), min(1.0, middle + half)


class Match(Evaluation):
    """Counts wins, draws and losses of a run's policies, which play one team after the other, in equal shares.

    A game is won, drawn or lost by the sign of the last reward of whoever plays it, as ELO ratings have it; one that is
    interrupted without a reward is drawn. A group of agents plays one game together. Where agents are in no groups, the
    first games of every agent count, in equal shares: taking whichever finish first would favour short ones.

    Args:
        games: how many are played.
        opponents: behavior name -> the policy that plays the other teams.
        teams: those of the run.
        seed: of the run.

    Attributes:
        games, opponents: what it was made with.
    """

    def __init__(self, games: int, opponents: Mapping[str, Policy], teams: Teams, seed: int) -> None:
        super().__init__(games)
        self.games, self.opponents = games, opponents
        self._teams, self._seed = teams, seed
        self._seats: dict[int, Evaluation] = {}

    def watch(self, trainer: Trainer) -> None:
        """Let the opponent play the other teams of a trainer's behavior.

        Raises:
            UsageError: the opponent has no policy for it.
        """
        name = trainer.behavior_name
        opponent = self.opponents.get(name)
        if opponent is None:
            raise UsageError(f"--opponent has no policy for behavior {name!r}, only for {', '.join(self.opponents)}.")
        if not same_shape(opponent.behavior_spec, trainer.behavior_spec):
            raise UsageError(
                f"--opponent: its behavior {name!r} has {in_words(opponent.behavior_spec)}, and that of this run has "
                f"{in_words(trainer.behavior_spec)}."
            )
        super().watch(trainer)
        opponent.deterministic = trainer.policy.deterministic
        rng = np.random.default_rng([self._seed, zlib.crc32(name.encode()), *b"match"])
        trainer.play_against(_Opponents(trainer, opponent, self, self._teams, rng))

    def _share(self, team: int) -> int:
        """Return the number of games in which the run plays a team."""
        known = self._teams.known
        return (self.games + len(known) - 1 - known.index(team)) // len(known)

    def note(self, trainer: Trainer, over: GamesOver) -> None:
        """Count games that ended, of the behavior by which the team was seen first."""
        team, name = self._teams.learning, trainer.behavior_name
        if team is None or self._teams.owner(team).trainer is not trainer:
            return
        seat = self._seats.setdefault(team, Evaluation(self._share(team)))
        if name not in seat.returns:
            seat.expect(name)
        scores = np.array([score_of(reward) for reward in over.rewards.tolist()])
        alone = over.groups == 0
        seat.ended(name, trainer.pool.size, over.slots[alone], scores[alone])
        _, first = np.unique(over.groups[~alone], return_index=True)
        left = self._share(team) - len(seat.returns[name])
        seat.returns[name] += scores[~alone][first][: max(0, left)].tolist()

    def seat_is_done(self) -> bool:
        """Return whether the team that the run plays now has had its games.

        Raises:
            UsageError: there is nobody to play against.
        """
        done = self._teams.learning is not None and self._played(self._teams.learning)
        if done and len(self._teams.known) < 2:
            raise UsageError("--opponent: the environment shows a single team, so there is nobody to play against.")
        return done

    def _played(self, team: int) -> bool:
        return team in self._seats and len(self._scores(team)) >= self._share(team)

    def _scores(self, team: int) -> list[float]:
        return [score for returns in self._seats[team].returns.values() for score in returns]

    @property
    def scores(self) -> list[float]:
        """The scores of all games: 1, 0.5 or 0."""
        return [score for team in self._seats for score in self._scores(team)]

    def complete(self) -> bool:
        """Return whether the run has played all teams as often as it is to."""
        return bool(self._teams.known) and all(map(self._played, self._teams.known))

    def incomplete(self) -> list[str]:
        """Return the behaviors while games are to come."""
        return [] if self.complete() else list(self.returns)

    def __str__(self) -> str:
        """Return a line for each team that the run played, and one for all of them."""
        lines = []
        for team in self._teams.known:
            if team in self._seats:
                name = self._teams.owner(team).behavior_name
                lines.append(f"{name} as team {team}  {_in_words(self._scores(team))}")
        if len(lines) > 1:
            lines.append(f"all together  {_in_words(self.scores)}")
        return "\n".join(lines) or "no game was finished"


class _Opponents(Sides):
    """The other teams of a behavior, which another run's policy plays."""

    hands_over = False  # Each team has its share of the games.

    def __init__(
        self, trainer: Trainer, opponent: Policy, match: Match, teams: Teams, rng: np.random.Generator
    ) -> None:
        super().__init__(trainer, teams, rng)
        self._opponent, self._match = opponent, match

    @property
    def rating(self) -> float:
        """Nothing is rated."""
        return math.nan

    @property
    def has_turns(self) -> bool:
        """The run plays all teams."""
        return True

    def make_side(self, team: int) -> FrozenTeam:  # noqa: ARG002
        """Return what decides by the opponent's policy."""
        return FrozenTeam(self.trainer.acting, self._opponent)

    def advance(self) -> None:
        """Play the next team where this one has had its games."""
        if self._match.seat_is_done() and not self._match.complete():
            self.teams.rotate()

    def rate(self, games: GamesOver) -> None:
        """Count games."""
        self._match.note(self.trainer, games)


def _in_words(scores: list[float]) -> str:
    if not scores:
        return "no game was finished"
    wins, draws, losses = (scores.count(score) for score in (WIN, DRAW, LOSS))
    low, high = interval(wins, len(scores))
    return (
        f"{_counted(wins, 'win')}, {_counted(draws, 'draw')}, {_counted(losses, 'loss')} in "
        f"{_counted(len(scores), 'game')}: {wins / len(scores):.1%} won (95 % interval {low:.1%} to {high:.1%})"
    )


def _counted(count: int, what: str) -> str:
    ending = "" if count == 1 else "es" if what.endswith("s") else "s"
    return f"{count:,} {what}{ending}"
