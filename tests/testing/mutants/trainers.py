"""Trainers that misread their settings, report what is not so, or lose part of their state."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from tests.testing.mutants.mutant import mutant
from tests.testing.mutants.patch import Patch

PPO = "builtin_plugins.ppo"
SHARED_SETTINGS = "mlhooks.settings.hyperparameters:PolicyGradientHyperparameters"
SURROGATE = "mlhooks.training.policy_gradients:SurrogateOptimizer"
SCHEDULES = "mlhooks.training.policy_gradients:PolicyGradientOptimizer.summary_stats"
OPTIMIZER = "mlhooks.training.optimizer:TorchOptimizer"
DESCENT = "mlhooks.training.descent:Descent"
TRAINER = "mlhooks.training.trainer:Trainer"
ACTING = "mlhooks.training.acting:ActingHalf"
ON_POLICY = "mlhooks.training.on_policy:OnPolicyLearning"
EPOCHS = "hyperparameter(self.settings, 'num_epoch')"


@mutant("ppo", caught_by="test_settings_refuse_typos")
def ppo_typos_ignored(patch: Patch) -> None:
    patch.insert(f"{PPO}:PPOSettings", "ignores_unknown_keys: ClassVar[bool] = True")


@mutant("ppo", caught_by="test_settings_defaults_are_valid_and_survive_yaml")
def ppo_default_out_of_range(patch: Patch) -> None:
    patch.replace(SHARED_SETTINGS, "5e-3", "-5e-3")


@mutant("ppo", caught_by="test_network_settings_are_used")
def ppo_network_settings_ignored(patch: Patch) -> None:
    @patch.around("mlhooks.training.making:make_policy")
    def make_policy(original: Any, trainer: Any) -> Any:
        settings = trainer.settings
        network = type(settings.network_settings)(num_layers=1, hidden_units=32)
        trainer.settings = settings.model_copy(update={"network_settings": network})
        made = original(trainer)
        trainer.settings = settings
        return made


@mutant("ppo", caught_by="test_network_settings_are_used")
def ppo_widths_of_layers_ignored(patch: Patch) -> None:
    made = "MLP(size, settings.layers, settings.activation, settings.initialization)"
    same = made.replace("settings.layers", "[settings.hidden_units] * settings.num_layers")
    patch.replace("mlhooks.nn.encoders:_make_body", made, same)


@mutant("ppo", caught_by="test_every_hyperparameter_is_read")
def ppo_epsilon_not_read(patch: Patch) -> None:
    patch.replace(f"{SURROGATE}.__init__", "h.epsilon", "0.2")


@mutant("ppo", caught_by="test_every_hyperparameter_is_read")
def ppo_value_clipping_not_read(patch: Patch) -> None:
    patch.replace(f"{SURROGATE}.__init__", "h.value_clipping", "True")


@mutant("ppo", caught_by="test_every_hyperparameter_is_read")
def ppo_lambd_not_read(patch: Patch) -> None:
    patch.replace(f"{ON_POLICY}.lambd", "hyperparameter(self.settings, 'lambd')", "0.95")


@mutant("ppo", caught_by="test_every_row_of_a_rollout_is_learned_from_equally_often")
def ppo_one_epoch_whatever_is_asked(patch: Patch) -> None:
    patch.replace(f"{ON_POLICY}.epochs", EPOCHS, "1")


@mutant("a2c", caught_by="test_every_row_of_a_rollout_is_learned_from_equally_often")
def a2c_three_epochs(patch: Patch) -> None:
    patch.replace(f"{ON_POLICY}.epochs", EPOCHS, "3")


@mutant("ppo", caught_by="test_reported_schedules_are_those_in_force")
def ppo_epsilon_falls_half_as_fast(patch: Patch) -> None:
    patch.replace(
        f"{SURROGATE}.__init__",
        "Schedule(h.epsilon_schedule, h.epsilon, h.epsilon_final, settings.max_steps)",
        "Schedule(h.epsilon_schedule, h.epsilon, h.epsilon_final, 2 * settings.max_steps)",
    )


@mutant("ppo", caught_by="test_reported_schedules_are_those_in_force")
def ppo_reports_the_first_learning_rate(patch: Patch) -> None:
    patch.replace(SCHEDULES, "self.learning_rate(step)", "self.learning_rate(0)")


@mutant("ppo", caught_by="test_reported_schedules_are_those_in_force")
def ppo_reports_beta_as_epsilon(patch: Patch) -> None:
    patch.replace(f"{SURROGATE}.summary_stats", "self.epsilon(step)", "self.beta(step)")


@mutant("ppo", caught_by="test_same_seed_gives_the_same_weights")
def ppo_seed_reset_where_the_policy_is_made(patch: Patch) -> None:
    @patch.around("mlhooks.training.making:make_policy")
    def make_policy(original: Any, trainer: Any) -> Any:
        torch.manual_seed(0)
        trainer.rng = np.random.default_rng(0)
        return original(trainer)


@mutant("ppo", caught_by="test_steps_are_counted_once")
def ppo_step_doubled(patch: Patch) -> None:
    @patch.around(f"{PPO}:PPOTrainer.observe")
    def observe(original: Any, self: Any, *steps: Any) -> None:
        before = self.step
        original(self, *steps)
        self.step += self.step - before


@mutant("ppo", caught_by="test_saved_state_goes_on_as_if_never_saved")
def ppo_state_dict_without_the_optimizer(patch: Patch) -> None:
    @patch.around(f"{SURROGATE}.state_dict")
    def state_dict(original: Any, self: Any) -> dict[str, Any]:
        return {"torch_optimizer": self.create_torch_optimizer(self.flat).state_dict(), "diagnostics": {}}


@mutant("ppo", caught_by="test_saved_state_goes_on_as_if_never_saved")
def ppo_optimizer_state_not_loaded(patch: Patch) -> None:
    patch.drop(f"{SURROGATE}.load_state_dict", "super().load_state_dict(state)")


@mutant("ppo", caught_by="test_saved_state_goes_on_as_if_never_saved")
def random_state_not_restored(patch: Patch) -> None:
    patch.drop(f"{TRAINER}.load_state_dict", "self.rng.bit_generator.state = state['rng']")


@mutant("ppo", caught_by="test_saved_state_goes_on_as_if_never_saved")
def step_not_in_the_state(patch: Patch) -> None:
    @patch.around(f"{TRAINER}.load_state_dict")
    def load_state_dict(original: Any, self: Any, state: dict[str, Any]) -> None:
        step = self.step
        original(self, state)
        self.step = step


@mutant("ppo", caught_by="test_episodes_are_reported_as_they_were")
def episode_returns_dropped(patch: Patch) -> None:
    patch.drop(
        f"{ACTING}._end_episodes",
        "self.stats.add_stats(REWARD_KEY, own_returns, StatsAggregationMethod.HISTOGRAM)",
    )


@mutant("ppo", caught_by="test_learning_rate_follows_its_schedule")
def learning_rate_schedule_ignored(patch: Patch) -> None:
    patch.replace(f"{OPTIMIZER}.set_step", "self.learning_rate(step)", "self.learning_rate(0)")


@mutant("ppo", caught_by="test_gradient_norm_is_clipped")
def gradient_not_clipped(patch: Patch) -> None:
    patch.drop(f"{DESCENT}.check_and_clip", "self.flat.scale(self.max_grad_norm / (norm + 1e-6))")


@mutant("ppo", caught_by="test_gradients_do_not_pile_up")
def gradients_pile_up(patch: Patch) -> None:
    patch.drop(f"{DESCENT}.step", "self.flat.zero()")


@mutant("ppo", caught_by="test_imitates_demonstrations_where_it_says_so")
def ppo_declares_cloning_and_never_imitates(patch: Patch) -> None:
    patch.replace(f"{ON_POLICY}.update", "self.cloning is not None", "False")


@mutant("sac", caught_by="test_imitates_demonstrations_where_it_says_so")
def sac_imitates_the_opposite(patch: Patch) -> None:
    patch.replace("mlhooks.training.cloning:BehavioralCloning.loss", "errors.mean()", "-errors.mean()")
