"""Self-play of one behavior: teams that do not learn play earlier selves, and games are rated, as in ML-Agents 1.1.0.

The trainer itself knows nothing of it: its policy acts for the team that learns, and it gets that team's experience
alone. All other teams are `FrozenTeam`s.
"""

from __future__ import annotations

import copy
import zlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from mlagents_envs.base_env import ActionTuple
from torch import Tensor

from mlhooks.describing import described
from mlhooks.errors import PluginError
from mlhooks.settings.behaviors import SelfPlaySettings
from mlhooks.stat_keys import ELO_KEY
from mlhooks.state_checks import LARGEST_WHOLE, number, whole
from mlhooks.training.acting import GamesOver
from mlhooks.training.checkpoints import load_modules
from mlhooks.training.frozen_team import FrozenTeam
from mlhooks.training.policy import Policy
from mlhooks.training.sides import Sides
from mlhooks.training.teams import Teams, expected_score, score_of

if TYPE_CHECKING:
    from mlhooks.training.trainer import Trainer

CURRENT = -1
"""The place of the current policy in a behavior's ratings; those before it are of its snapshots."""

COUNTERS = ("saved_at", "swapped_at", "changed_at", "ghost_steps", "next_snapshot")
"""The counters of `SelfPlay`, which checkpoints hold by the same names."""
PLAIN = (bool, int, float, str, type(None))
"""Types of a policy's attributes that its copies take over before each decision."""

Weights = dict[str, dict[str, Tensor]]
"""The states of a policy's modules, by their names."""


class SelfPlay(Sides):
    """The snapshots, frozen teams and ratings of one behavior.

    Args:
        trainer: of the behavior.
        settings: its `self_play`.
        teams: those of the run.
        seed: of the run; the opponents have random numbers of their own.

    Attributes:
        settings: what it was made with.
        snapshots: earlier weights of the policy with its normalizer, at most `window`, in a ring.
        ratings: [window + 1], of the snapshots, and last the current one.
        opponent: the place among the ratings of what plays against the team that learns.
        ghost_steps: decisions of frozen teams so far.
    """

    def __init__(self, trainer: Trainer, settings: SelfPlaySettings, teams: Teams, seed: int) -> None:
        rng = np.random.default_rng([seed, zlib.crc32(trainer.behavior_name.encode()), *b"self-play"])
        super().__init__(trainer, teams, rng)
        self.settings = settings
        self.snapshots: list[Weights] = []
        self.ratings = [settings.initial_elo] * (settings.window + 1)
        self.opponent = 0
        self.saved_at = self.swapped_at = self.changed_at = self.ghost_steps = self.next_snapshot = 0
        self._learning: int | None = None  # This is the team that learned when opponents were drawn last.

    @property
    def rating(self) -> float:
        """The rating of the current policy."""
        return self.ratings[CURRENT]

    @property
    def has_turns(self) -> bool:
        """Whether the trainer has not reached `max_steps`."""
        return self.trainer.training

    def make_side(self, team: int) -> FrozenTeam:  # noqa: ARG002
        """Return a team that plays the initial policy until opponents are drawn."""
        if not self.snapshots:
            self._save()
        side = FrozenTeam(self.trainer.acting, copy_of(self.trainer.policy))
        if self.ghost_steps or self.trainer.step:  # It comes late, when the initial policy may be long gone.
            self._draw(side)
        return side

    def frozen(self, behavior_id: str) -> FrozenTeam | None:
        """Return what decides for a behavior id; None where the trainer does, because its team learns."""
        side = super().frozen(behavior_id)
        if self._learning is None:
            self._learning = self.teams.learning
        return side

    def observed(self, steps: int) -> None:
        """Count decisions of frozen teams."""
        self.ghost_steps += steps

    def act(self) -> Iterator[tuple[int, str, ActionTuple]]:
        """Decide for the agents of all frozen teams that wait, in one batch for each team."""
        policy = self.trainer.policy
        now = {name: value for name, value in vars(policy).items() if name[0] != "_" and isinstance(value, PLAIN)}
        for side in self.sides.values():
            vars(side.policy).update(now)  # Such as the share of random actions, which trainers set at each step.
        return super().act()

    def advance(self) -> None:
        """Hand over to the next team, save a snapshot and draw opponents, where that is due; in ML-Agents' order.

        As in ML-Agents, each is due once its number of steps is exceeded, and not when it is reached.
        """
        step, settings, teams = self.trainer.step, self.settings, self.teams
        changed = teams.learning != self._learning
        if step - self.changed_at > settings.team_change and self.trainer.training and not changed:
            teams.rotate()
            changed, self.changed_at = teams.learning != self._learning, step
        if changed:  # It may have been another behavior's turn that was over.
            self.changed_at = step
        if step - self.saved_at > settings.save_steps:
            self._save()
            self.saved_at = step
        if changed or self.ghost_steps - self.swapped_at > settings.swap_steps:
            self._learning = teams.learning
            self._swap()
            self.swapped_at = self.ghost_steps

    def _save(self) -> None:
        self.trainer.learning.await_update()
        self.snapshots[self.next_snapshot : self.next_snapshot + 1] = [_weights(self.trainer.policy)]
        self.ratings[self.next_snapshot] = self.rating
        self.next_snapshot = (self.next_snapshot + 1) % self.settings.window

    def _swap(self) -> None:
        """Draw an opponent for each team that does not learn."""
        for team, side in self.sides.items():
            if team != self.teams.learning:
                self._draw(side)

    def _draw(self, side: FrozenTeam) -> None:
        if self.rng.random() < 1.0 - self.settings.play_against_latest_model_ratio:
            side.entry = int(self.rng.integers(len(self.snapshots)))
            weights = self.snapshots[side.entry]
        else:
            self.trainer.learning.await_update()
            side.entry, weights = CURRENT, _weights(self.trainer.policy)
        self.opponent = side.entry
        _load(side.policy, weights)

    def rate(self, games: GamesOver) -> None:
        """Rate games of the team that learns, for each of its agents, except those that were interrupted."""
        if not self.trainer.training:
            return
        for reward in games.rewards[~games.interrupted].tolist():
            if self._rate(score_of(reward)):
                self.trainer.stats.add_stat(ELO_KEY, self.rating)

    def _rate(self, score: float) -> bool:
        """Change ratings by the score of a game of the team that learns, and return whether there is an opponent.

        The sum of both ratings stays. The opponent's is that of the snapshot that it plays. Where several teams play
        against the one that learns, the last one that was seen counts as the opponent.
        """
        others = [team for team in self.teams.known if team != self.teams.learning]
        opponent = self.teams.owner(others[-1]) if others else None
        if not isinstance(opponent, SelfPlay):
            return False
        change = score - expected_score(self.rating, opponent.ratings[opponent.opponent])
        opponent.ratings[opponent.opponent] -= change
        self.ratings[CURRENT] += change
        return True

    def state_dict(self) -> dict[str, Any]:
        """Return all that a resume needs."""
        return {
            **{name: getattr(self, name) for name in COUNTERS},
            "snapshots": list(self.snapshots),
            "ratings": list(self.ratings),
            "opponent": self.opponent,
            "learning": self._learning,
            "rng": self.rng.bit_generator.state,
            "sides": [[team, side.state_dict()] for team, side in self.sides.items()],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned; with a smaller `window` than before, the oldest snapshots go.

        Raises:
            CheckpointError: weights do not fit.
            ValueError: its parts contradict each other.
        """
        window, snapshots = self.settings.window, list(state["snapshots"])
        for name in COUNTERS:
            setattr(self, name, whole(state[name], name))
        ratings = [number(rating, "a rating") for rating in state["ratings"]]
        self.opponent = whole(state["opponent"], "opponent", CURRENT, len(ratings) - 2)
        if len(snapshots) >= len(ratings) or not self.next_snapshot <= len(snapshots):
            raise ValueError("the snapshots of self-play are not as many as their ratings")
        scratch = copy_of(self.trainer.policy)
        for weights in snapshots:
            load_modules(scratch.modules(), weights, self.behavior_name)
        learning = state["learning"]
        self._learning = None if learning is None else whole(learning, "a team", -LARGEST_WHOLE)
        self.rng.bit_generator.state = state["rng"]
        self.snapshots, self.ratings = snapshots, ratings
        if len(ratings) != window + 1:
            self._resize(window)
        for team, saved in state["sides"]:
            side = self.sides[whole(team, "a team", -LARGEST_WHOLE)] = FrozenTeam(
                self.trainer.acting, copy_of(self.trainer.policy)
            )
            side.entry = min(whole(saved["entry"], "entry", CURRENT, len(state["ratings"]) - 2), len(self.ratings) - 2)
            load_modules(side.policy.modules(), saved["modules"], self.behavior_name)
            side.policy.weights_changed()
            side.load_agents(saved)

    def _resize(self, window: int) -> None:
        """Bring snapshots and ratings from another `window` to this one, the newest ones last."""
        before, first = len(self.ratings) - 1, self.next_snapshot
        if len(self.snapshots) == before:  # The ring is full, and begins with the oldest one.
            order = [*range(first, before), *range(first)]
        else:
            order = list(range(len(self.snapshots)))
        kept = order[-window:]
        ratings = [self.ratings[place] for place in kept]
        self.opponent = kept.index(self.opponent) if self.opponent in kept else CURRENT
        self.snapshots = [self.snapshots[place] for place in kept]
        self.ratings = [*ratings, *[self.settings.initial_elo] * (window - len(kept)), self.rating]
        self.next_snapshot = len(kept) % window


def _weights(policy: Policy) -> Weights:
    """Return a copy of a policy's weights and normalizer."""
    return {
        name: {key: _cloned(value) for key, value in module.state_dict().items()}
        for name, module in policy.modules().items()
    }


def _cloned(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else copy.deepcopy(value)


def _load(policy: Policy, weights: Weights) -> None:
    for name, module in policy.modules().items():
        module.load_state_dict(weights[name])
    policy.weights_changed()


def copy_of(policy: Policy) -> Policy:
    """Return a copy of a policy, which has the same settings.

    Raises:
        PluginError: its class cannot be copied.
    """
    shared = (policy.settings, policy.behavior_spec, policy.layout)
    try:
        copied = copy.deepcopy(policy, {id(part): part for part in shared})
    except Exception as error:
        raise PluginError(
            f"{type(policy).__name__} cannot be copied, which self-play does for teams that do not learn: "
            f"{described(error)}. Let copy.deepcopy make a policy that shares no weights, as by __deepcopy__."
        ) from error
    copied.weights_changed()
    return copied
