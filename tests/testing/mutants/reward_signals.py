"""Curiosity and RND, with rewards that depend on what they must not, and learning that is lost."""

from __future__ import annotations

from tests.testing.mutants.mutant import mutant
from tests.testing.mutants.patch import Patch

CURIOSITY, RND = "builtin_plugins.curiosity:Curiosity", "builtin_plugins.rnd:RND"


@mutant("rnd", caught_by="test_rewards_are_finite")
def signal_divides_by_its_updates(patch: Patch) -> None:
    patch.replace(
        f"{RND}.evaluate",
        "return (self.predictor.encoding(features) - wanted).square().sum(1)",
        "return (self.predictor.encoding(features) - wanted).square().sum(1) / torch.tensor(float(self.updates))",
    )


@mutant("curiosity", caught_by="test_rewards_come_before_strength")
def signal_multiplies_by_strength_itself(patch: Patch) -> None:
    patch.replace(
        f"{CURIOSITY}.evaluate",
        "self.errors(batch, *self.encodings(batch))",
        "(self.strength * self.errors(batch, *self.encodings(batch)))",
    )


@mutant("curiosity", caught_by="test_gradients_reach_its_networks")
def signal_without_the_loss_of_a_network(patch: Patch) -> None:
    patch.replace(f"{CURIOSITY}.loss", "(1.0 - FORWARD_SHARE) * inverse", "0.0 * inverse")


@mutant("rnd", caught_by="test_ends_are_as_declared")
def signal_that_ignores_ends_looks_at_them(patch: Patch) -> None:
    patch.replace(
        f"{RND}.evaluate",
        "return (self.predictor.encoding(features) - wanted).square().sum(1)",
        "return (self.predictor.encoding(features) - wanted).square().sum(1) * (1.0 - batch.ended.float())",
    )


@mutant("rnd", caught_by="test_on_policy_and_off_policy_rewards_are_alike")
def signal_reads_the_policys_features(patch: Patch) -> None:
    patch.replace(f"{RND}.evaluate", "self.features(batch.obs)", "self.features(batch.features)")


@mutant("curiosity", caught_by="test_state_is_restored")
def signal_forgets_that_it_learned(patch: Patch) -> None:
    patch.replace("mlhooks.training.learned_signal:LearnedSignal.state_dict", "self.updates", "0")
