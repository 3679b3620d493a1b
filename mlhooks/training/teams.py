"""Teams under self-play: which of them learns, whose turn is next, and what games do to ratings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlhooks.errors import ContractBroken
from mlhooks.state_checks import LARGEST_WHOLE, whole

if TYPE_CHECKING:
    from mlhooks.training.sides import Sides

WIN, DRAW, LOSS = 1.0, 0.5, 0.0
"""The scores of a game, as Elo ratings have them."""


def team_of(behavior_id: str) -> int:
    """Return the team in a behavior id such as `Soccer?team=1`; one that names none is of team 0.

    Raises:
        ContractBroken: the team is no whole number.
    """
    for parameter in behavior_id.partition("?")[2].split("&"):
        key, _, value = parameter.partition("=")
        if key == "team":
            try:
                return whole(int(value), "a team", -LARGEST_WHOLE)
            except ValueError:
                raise ContractBroken(
                    f"The behavior id {behavior_id!r} has the team {value!r}, and a team is a whole number: as in "
                    "'Soccer?team=1'."
                ) from None
    return 0


def expected_score(own: float, opponent: float) -> float:
    """Return the score that ratings let expect, from 0 to 1 (Elo 1978, The Rating of Chessplayers, section 8.4)."""
    return float(1.0 / (1.0 + 10.0 ** ((opponent - own) / 400.0)))


def score_of(reward: float) -> float:
    """Return the score of a game that ends with this reward, by its sign as in ML-Agents: 1, 0.5 or 0."""
    return WIN if reward > 0 else LOSS if reward < 0 else DRAW


class Teams:
    """The teams of a run's behaviors that have self-play; one of them learns at a time, as in ML-Agents.

    In a match of two runs, one of them plays the team that is called `learning` here.

    A team may have several behaviors, and a behavior several teams. The first one that is seen learns first, and the
    others follow in the order in which they were seen, over and over.

    Attributes:
        learning: the team that learns; None before the first one is seen.
        queue: the other teams, the next one first.
        players: behavior name -> what plays its teams.
        absent: teams that were passed over because their agents asked for nothing, and still do.
    """

    def __init__(self) -> None:
        self.learning: int | None = None
        self.queue: list[int] = []
        self.players: dict[str, Sides] = {}
        self.absent: set[int] = set()
        self._owners: dict[int, str] = {}  # These are the behaviors that showed each team first.

    def join(self, team: int, player: Sides) -> None:
        """Add a team of a behavior that is seen for the first time."""
        if team in self._owners:
            return
        self._owners[team] = player.behavior_name
        if self.learning is None:
            self.learning = team
        else:
            self.queue.append(team)

    def rotate(self) -> None:
        """Let the next team learn; absent ones, and those whose behaviors reached `max_steps`, are passed over."""
        for _ in range(len(self.queue) + 1):
            assert self.learning is not None
            self.queue.append(self.learning)
            self.learning = self.queue.pop(0)
            if self._can_learn(self.learning):
                return

    def pass_over(self) -> bool:
        """Let the next team learn, because the agents of the one that does ask for nothing; return whether one can."""
        silent = self.learning
        if silent is None or not all(player.hands_over for player in self.players.values()):
            return False
        self.absent.add(silent)
        self.rotate()
        if self.learning == silent:
            self.absent.remove(silent)
        return self.learning != silent

    def _can_learn(self, team: int) -> bool:
        return team not in self.absent and any(
            team in player.sides and player.has_turns for player in self.players.values()
        )

    def advance(self) -> bool:
        """Let all behaviors save, swap and hand over what is due, and return whether another team learns from now on.

        To be called when trainers have learned from what they observed.
        """
        before = self.learning
        if before is not None and not self._can_learn(before):
            self.rotate()  # It has learned all that it is to learn, and others have not.
        for player in self.players.values():
            player.advance()
        return self.learning != before

    @property
    def known(self) -> list[int]:
        """All teams, in the order in which they were seen."""
        return list(self._owners)

    def owner(self, team: int) -> Sides:
        """Return what plays the behavior that showed a team first."""
        return self.players[self._owners[team]]

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        return {
            "learning": self.learning,
            "queue": list(self.queue),
            "owners": dict(self._owners),
            "absent": sorted(self.absent),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned, where `players` are all that were there.

        Raises:
            ValueError: its parts contradict each other, or the players.
        """
        owners = {whole(team, "a team", -LARGEST_WHOLE): str(name) for team, name in state["owners"].items()}
        turns = [*([] if state["learning"] is None else [state["learning"]]), *state["queue"]]
        if sorted(turns) != sorted(owners) or not set(owners.values()) <= self.players.keys():
            raise ValueError(f"the teams that learn in turns, {turns!r:.60}, are not those of the behaviors")
        self.learning, self.queue, self._owners = state["learning"], list(state["queue"]), owners
        self.absent = {team for team in owners if team in state.get("absent", ())}  # Older checkpoints name none.
