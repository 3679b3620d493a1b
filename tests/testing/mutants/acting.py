"""Policies that draw, judge or forbid actions wrongly."""

from __future__ import annotations

from typing import Any

from tests.testing.mutants.mutant import mutant
from tests.testing.mutants.patch import Patch

SAMPLE = "mlhooks.nn.heads:sample"
EVALUATE = "mlhooks.nn.heads:evaluate"
NOISE = "mlhooks.training.slot_noise:SlotNoise.of"
DRAWN = "rng.standard_exponential((size, rows), np.float32)"


@mutant("ppo", caught_by="test_agents_decide_independently")
def ppo_action_of_the_batch(patch: Patch) -> None:
    @patch.around(SAMPLE)
    def sample(original: Any, *arguments: Any, **options: Any) -> Any:
        made = original(*arguments, **options)
        made.continuous[:], made.discrete[:] = made.continuous[:1], made.discrete[:1]
        return made


@mutant("ppo", caught_by="test_forbidden_actions_have_no_gradient")
def mask_ignored_in_learning(patch: Patch) -> None:
    patch.replace(EVALUATE, "parameters.logits.masked_fill(mask, MASKED_LOGIT)", "parameters.logits")


@mutant("a2c", caught_by="test_never_takes_a_forbidden_action")
def mask_ignored_in_acting(patch: Patch) -> None:
    patch.drop(SAMPLE, "logits = np.where(mask, np.float32(MASKED_LOGIT), logits)")


@mutant("ppo", caught_by="test_log_probabilities_of_acting_equal_those_of_learning")
def log_probability_of_one_branch_only(patch: Patch) -> None:
    patch.replace(
        EVALUATE, "torch.cat(log_probs, 1)", "log_probs[0].expand(-1, sum(part.shape[1] for part in log_probs))"
    )


@mutant("ppo", caught_by="test_deterministic_policy_draws_nothing")
def deterministic_ignored(patch: Patch) -> None:
    patch.replace(SAMPLE, f"None if deterministic else {DRAWN}", DRAWN)


@mutant("ppo", caught_by="test_noise_of_an_agent_is_held_as_long_as_it_is_told")
def noise_drawn_for_each_decision(patch: Patch) -> None:
    patch.replace(NOISE, "period = self.period", "period = 1")


@mutant("sac", caught_by="test_noise_of_an_agent_is_held_as_long_as_it_is_told")
def noise_drawn_once(patch: Patch) -> None:
    patch.replace(NOISE, "self.ages[slots] >= period", "self.ages[slots] < 0")


@mutant("a2c", caught_by="test_noise_of_an_agent_is_held_as_long_as_it_is_told")
def noise_of_all_agents(patch: Patch) -> None:
    patch.replace("mlhooks.nn.state_noise:StateNoiseHeads.draw", "(count, *self.noise_shape)", "(1, *self.noise_shape)")
