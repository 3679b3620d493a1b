"""The bases of optimizers by policy gradients: schedules, settings and statistics that their losses have in common."""

from __future__ import annotations

from typing import Any, TypeVar

from torch import Tensor

from mlhooks.errors import PluginError
from mlhooks.nn.schedules import Schedule
from mlhooks.settings import (
    AdvantageNormalization,
    PolicyGradientHyperparameters,
    SurrogateHyperparameters,
    TrainerSettings,
)
from mlhooks.training.batch import Batch
from mlhooks.training.optimizer import ActorCriticOptimizer
from mlhooks.training.policy import ActorPolicy
from mlhooks.training.surrogate import surrogate_diagnostics

H = TypeVar("H", bound=PolicyGradientHyperparameters)


class PolicyGradientOptimizer(ActorCriticOptimizer):
    """The base of optimizers whose loss is policy loss + value_coefficient * value loss - beta * entropy.

    Args:
        policy: the policy to improve.
        settings: the behavior's settings, with `PolicyGradientHyperparameters`.

    Attributes:
        beta: schedule of the entropy's weight; value_coefficient: weight of the value loss.
        normalizes_minibatches: whether advantages are to be standardized over each minibatch.
        joint_actions: whether ratios and entropies are to be those of whole actions.
        actions: the behavior's actions; has_dimensions: whether they have more than one dimension.

    Raises:
        PluginError: the trainer's hyperparameters are others.
    """

    OUTSIDE_LOSSES = ActorCriticOptimizer.OUTSIDE_LOSSES | {"summary_stats"}

    def __init__(self, policy: ActorPolicy, settings: TrainerSettings) -> None:
        super().__init__(policy, settings)
        h = self._expect(PolicyGradientHyperparameters)
        final = h.BETA_FINAL if h.beta_final is None else h.beta_final
        self.beta = Schedule(h.beta_schedule, h.beta, final, settings.max_steps)
        self.value_coefficient, self.joint_actions = h.value_coefficient, h.joint_actions
        self.normalizes_minibatches = h.normalize_advantages is AdvantageNormalization.MINIBATCH
        self.actions = policy.behavior_spec.action_spec
        self.has_dimensions = self.actions.continuous_size + self.actions.discrete_size > 1

    def _expect(self, kind: type[H]) -> H:
        """Return the hyperparameters, which are to be of this kind."""
        h = self.settings.hyperparameters
        if not isinstance(h, kind):
            raise PluginError(
                f"{type(self).__name__} needs hyperparameters of mlhooks.plugin.{kind.__name__}, and those of trainer "
                f"type {self.settings.trainer_type!r} are {type(h).__name__}: set hyperparameters_type to a subclass."
            )
        return h

    def summary_stats(self, step: int) -> dict[str, float]:
        """Return the values of schedules at a step, by statistics key, for the hook `summary_stats`."""
        return {"Policy/Learning Rate": self.learning_rate(step), "Policy/Beta": self.beta(step)}


class SurrogateOptimizer(PolicyGradientOptimizer):
    """The base of optimizers with PPO's clipped surrogate objective, as `clipped_surrogate` computes it.

    Args:
        policy: the policy to improve.
        settings: the behavior's settings, with `SurrogateHyperparameters`.

    Attributes:
        epsilon: schedule of how far ratios may move from 1; value_clipping: whether values are kept near the old ones.
        last: the last minibatch and the ratios [rows, dimensions] that its loss found; a loss sets it, and diagnostics
            read it.
    """

    OUTSIDE_LOSSES = PolicyGradientOptimizer.OUTSIDE_LOSSES | {"diagnostics"}

    def __init__(self, policy: ActorPolicy, settings: TrainerSettings) -> None:
        super().__init__(policy, settings)
        h = self._expect(SurrogateHyperparameters)
        self.epsilon = Schedule(h.epsilon_schedule, h.epsilon, h.epsilon_final, settings.max_steps)
        self.value_clipping = h.value_clipping
        self.last: tuple[Batch, Tensor] | None = None
        self._resumed_diagnostics: dict[str, float] = {}

    def diagnostics(self) -> dict[str, float]:
        """Return how far the last minibatch moved the policy, and how well the critic predicted its returns."""
        if self.last is None:
            return self._resumed_diagnostics
        return surrogate_diagnostics(*self.last, self.epsilon(self.step))

    def summary_stats(self, step: int) -> dict[str, float]:
        """Return the values of schedules at a step and the diagnostics, by statistics key."""
        return super().summary_stats(step) | {"Policy/Epsilon": self.epsilon(step)} | self.diagnostics()

    def state_dict(self) -> dict[str, Any]:
        """Return the torch optimizer's state and the diagnostics."""
        return {**super().state_dict(), "diagnostics": self.diagnostics()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        super().load_state_dict(state)
        self.last, self._resumed_diagnostics = None, state["diagnostics"]
