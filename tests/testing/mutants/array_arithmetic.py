"""Losses, and array arithmetic itself, that are wrong only where arrays stand in for tensors."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from tests.testing.mutants.mutant import mutant
from tests.testing.mutants.patch import Patch

CAUGHT_BY = "test_array_arithmetic_gives_the_gradients_of_tensors"
PPO = "builtin_plugins.ppo:PPOOptimizer.loss"
A2C = "builtin_plugins.a2c:A2COptimizer.loss"
DQN = "builtin_plugins.dqn:DQNOptimizer.loss"


@mutant("ppo", caught_by=CAUGHT_BY)
def ppo_value_loss_of_arrays_doubled(patch: Patch) -> None:
    mean = "batch.mean(errors)"
    patch.replace(PPO, mean, f"({mean} if isinstance(errors, Tensor) else 2.0 * {mean})")


@mutant("ppo", caught_by=CAUGHT_BY)
def ppo_reports_no_entropy_of_arrays(patch: Patch) -> None:
    @patch.around(PPO)
    def loss(original: Any, self: Any, batch: Any) -> Any:
        losses = original(self, batch)
        reported = losses["Policy/Entropy"]
        return {**losses, "Policy/Entropy": reported if isinstance(reported, Tensor) else 0.0 * reported}


@mutant("a2c", caught_by=CAUGHT_BY)
def a2c_critic_left_out_with_arrays(patch: Patch) -> None:
    value_loss = "batch.mean((batch.returns - self.values(batch)).square())"
    patch.replace(A2C, value_loss, f"{value_loss} * (1.0 if isinstance(log_probs, Tensor) else 0.0)")


@mutant("dqn", caught_by=CAUGHT_BY)
def dqn_masked_rows_count_with_arrays(patch: Patch) -> None:
    errors = "functional.smooth_l1_loss(taken, targets, reduction='none')"
    patch.replace(
        DQN, f"batch.mean({errors})", f"batch.mean({errors}) if isinstance(taken, Tensor) else {errors}.mean()"
    )


@mutant("ppo", caught_by=CAUGHT_BY)
def arrays_lose_the_gradient_of_the_deviation(patch: Patch) -> None:
    use = "self._record.steps.append(ParameterStep(self._gradients[parameter], array))"
    patch.drop("mlhooks.fast.networks:LossScope.parameter_array", use)
