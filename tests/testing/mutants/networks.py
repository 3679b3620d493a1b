"""Networks that read observations wrongly."""

from __future__ import annotations

from tests.testing.mutants.mutant import mutant
from tests.testing.mutants.patch import Patch

GOALS = "mlhooks.nn.encoders:GoalEncoder.forward"
ATTENTION = "mlhooks.nn.attention:SelfAttention.forward"


@mutant("ppo", caught_by="test_learns_what_a_goal_signal_asks_for")
def goal_ignored(patch: Patch) -> None:
    patch.insert(GOALS, "features = features.index_fill(1, self.goal, 0.0)")


@mutant("ppo", caught_by="test_entities_are_a_set")
def entity_order_noticed(patch: Patch) -> None:
    patch.replace(ATTENTION, "present = 1 - absent", "present = (1 - absent) * torch.linspace(1, 2, most)")


@mutant("ppo", caught_by="test_entities_are_a_set")
def padding_counted_in_the_mean(patch: Patch) -> None:
    patch.replace(ATTENTION, "present = 1 - absent", "present = torch.ones_like(absent)")


@mutant("dqn", caught_by="test_entities_are_a_set")
def padding_attended_to(patch: Patch) -> None:
    patch.replace(ATTENTION, "hidden = absent.reshape(-1, 1, 1, most)", "hidden = 0 * absent.reshape(-1, 1, 1, most)")


@mutant("a2c", caught_by="test_entities_are_a_set")
def entities_ignored(patch: Patch) -> None:
    patch.insert("mlhooks.nn.attention:EntityEmbedding.forward", "entities = 0 * entities")
