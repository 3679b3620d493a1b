"""Trainers that are wrong under self-play."""

from __future__ import annotations

from tests.testing.mutants.mutant import mutant
from tests.testing.mutants.patch import Patch

PLAY = "mlhooks.training.self_play:SelfPlay"


@mutant("ppo", caught_by="test_frozen_teams_are_not_learned_from")
def rows_of_frozen_teams_are_stored(patch: Patch) -> None:
    patch.replace(
        "mlhooks.training.sides:Sides.frozen",
        "None if team == self.teams.learning else self.sides[team]",
        "None",
    )


@mutant("a2c", caught_by="test_frozen_teams_are_not_learned_from")
def always_the_first_team_learns(patch: Patch) -> None:
    patch.drop(f"{PLAY}.advance", "teams.rotate()")


@mutant("ppo", caught_by="test_games_are_rated_by_elo")
def winners_lose_rating(patch: Patch) -> None:
    patch.replace(f"{PLAY}._rate", "self.ratings[CURRENT] += change", "self.ratings[CURRENT] -= change")


@mutant("a2c", caught_by="test_games_are_rated_by_elo")
def opponents_keep_their_rating(patch: Patch) -> None:
    patch.drop(f"{PLAY}._rate", "opponent.ratings[opponent.opponent] -= change")


@mutant("ppo", caught_by="test_opponents_are_snapshots")
def opponents_are_drawn_before_the_snapshot_is_saved(patch: Patch) -> None:
    patch.insert(
        f"{PLAY}.advance", "self._swap(); self.swapped_at = self.ghost_steps; self._learning = self.teams.learning"
    )


@mutant("dqn", caught_by="test_opponents_are_snapshots")
def opponents_have_the_weights_of_the_trainer(patch: Patch) -> None:
    patch.replace(
        "mlhooks.training.self_play:copy_of",
        "copy.deepcopy(policy, {id(part): part for part in shared})",
        "copy.copy(policy)",
    )


@mutant("ppo", caught_by="test_self_play_resumes_exactly")
def snapshots_are_lost_on_resume(patch: Patch) -> None:
    patch.replace(f"{PLAY}.load_state_dict", "list(state['snapshots'])", "[_weights(self.trainer.policy)]")
