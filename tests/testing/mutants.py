"""Plugins that are wrong on purpose: small patches of right ones, and the conformance test that must catch each."""
# ruff: noqa: E501

from __future__ import annotations

from typing import NamedTuple


class Mutant(NamedTuple):
    """A patch: in `file`, `old`, which stands there once, becomes `new`; then `test` fails for `target`."""

    name: str
    target: str
    file: str
    old: str
    new: str
    test: str


PPO, A2C, DQN = "builtin_plugins/ppo.py", "builtin_plugins/a2c.py", "builtin_plugins/dqn.py"
ON_POLICY, OFF_POLICY = "mlhooks/training/on_policy.py", "mlhooks/training/off_policy.py"
ADVANTAGES, REPLAY = "mlhooks/training/advantages.py", "mlhooks/training/replay.py"
OPTIMIZER, HEADS = "mlhooks/training/optimizer.py", "mlhooks/nn/heads.py"
TRAINER, STORE = "mlhooks/training/trainer.py", "mlhooks/training/store.py"
JSONL, TENSORBOARD = "builtin_plugins/jsonl.py", "builtin_plugins/tensorboard.py"
SIM, SIMS = "builtin_plugins/sim_env.py", "builtin_plugins/sims/base.py"
REINFORCE = "examples/mlhooks-trainer-reinforce/src/mlhooks_trainer_reinforce/__init__.py"
SQLITE = "examples/mlhooks-stats-sqlite/src/mlhooks_stats_sqlite"
IMPORT_HOOKIMPL = "from mlhooks import hookimpl\n"

# fmt: off
MUTANTS = [
    # the loss of a policy gradient
    Mutant("ppo_policy_loss_sign", "ppo", PPO, "policy_loss = -batch.mean(", "policy_loss = batch.mean(", "test_policy_loss_has_the_policy_gradient"),
    Mutant("ppo_policy_loss_sign_learns_nothing", "ppo", PPO, "policy_loss = -batch.mean(", "policy_loss = batch.mean(", "test_learns_one_step"),
    Mutant("ppo_ratio_inverted", "ppo", PPO, "torch.exp(log_probs - batch.log_probs)", "torch.exp(batch.log_probs - log_probs)", "test_policy_loss_has_the_policy_gradient"),
    Mutant("ppo_upper_clip_ignored", "ppo", PPO, "ratio.clamp(1.0 - epsilon, 1.0 + epsilon)", "ratio.clamp(min=1.0 - epsilon)", "test_clips_the_ratio_on_both_sides"),
    Mutant("ppo_lower_clip_ignored", "ppo", PPO, "ratio.clamp(1.0 - epsilon, 1.0 + epsilon)", "ratio.clamp(max=1.0 + epsilon)", "test_clips_the_ratio_on_both_sides"),
    Mutant("ppo_maximum_of_surrogates", "ppo", PPO, "torch.min(ratio * advantages", "torch.max(ratio * advantages", "test_clips_the_ratio_on_both_sides"),
    Mutant("ppo_epsilon_schedule_ignored", "ppo", PPO, "epsilon, beta = self.epsilon(self.step), ", "epsilon, beta = self.epsilon(0), ", "test_clipping_follows_its_schedule"),
    Mutant("ppo_beta_schedule_ignored", "ppo", PPO, "self.beta(self.step)\n        log_probs", "self.beta(0)\n        log_probs", "test_entropy_bonus_raises_the_entropy"),
    Mutant("ppo_entropy_sign", "ppo", PPO, "- beta * entropy", "+ beta * entropy", "test_entropy_bonus_raises_the_entropy"),
    Mutant("ppo_value_clipping_minimum", "ppo", PPO, "errors = torch.max(errors", "errors = torch.min(errors", "test_clips_value_estimates"),
    Mutant("ppo_critic_never_trained", "ppo", PPO, '"loss": policy_loss + 0.5 * value_loss', '"loss": policy_loss', "test_gradients_reach_every_parameter"),
    Mutant("ppo_actor_never_trained", "ppo", PPO, '"loss": policy_loss + 0.5 * value_loss - beta * entropy', '"loss": 0.5 * value_loss', "test_every_parameter_changes_by_training"),
    Mutant("ppo_value_error_from_old_values", "ppo", PPO, "errors = (values - batch.returns).square()", "errors = (values - batch.values).square()", "test_value_loss_pulls_values_to_returns"),
    Mutant("ppo_value_loss_sign", "ppo", PPO, "policy_loss + 0.5 * value_loss", "policy_loss - 0.5 * value_loss", "test_value_loss_pulls_values_to_returns"),
    Mutant("ppo_advantage_of_the_new_critic", "ppo", PPO, "advantages = batch.standardize(batch.advantages)", "advantages = batch.standardize((batch.returns - self.critic(batch.features)).mean(1))", "test_policy_loss_does_not_train_the_critic"),
    Mutant("ppo_loss_logged_with_its_graph", "ppo", PPO, "        entropy = batch.mean(entropies)\n", "        entropy = batch.mean(entropies)\n        self.history = [*getattr(self, 'history', []), policy_loss]\n", "test_memory_does_not_grow"),
    Mutant("ppo_typos_ignored", "ppo", PPO, "    beta: float = Field(5e-3", "    ignores_unknown_keys: ClassVar[bool] = True\n    beta: float = Field(5e-3", "test_settings_refuse_typos"),
    Mutant("ppo_default_out_of_range", "ppo", PPO, "    beta: float = Field(5e-3", "    beta: float = Field(-5e-3", "test_settings_defaults_are_valid_and_survive_yaml"),
    Mutant("ppo_one_epoch_whatever_is_asked", "ppo", PPO, "    optimizer: PPOOptimizer\n", "    optimizer: PPOOptimizer\n    epochs = 1\n", "test_every_row_of_a_rollout_is_learned_from_equally_often"),
    Mutant("ppo_seed_reset_in_create_policy", "ppo", PPO, "    if isinstance(trainer, PPOTrainer):\n        return ActorPolicy", "    if isinstance(trainer, PPOTrainer):\n        torch.manual_seed(0)\n        trainer.rng = __import__('numpy').random.default_rng(0)\n        return ActorPolicy", "test_same_seed_gives_the_same_weights"),
    Mutant("ppo_seed_reset_in_the_loss", "ppo", PPO, "        epsilon, beta =", "        torch.manual_seed(0)\n        epsilon, beta =", "test_run_does_not_reset_the_global_seeds"),
    Mutant("ppo_network_settings_ignored", "ppo", PPO, "return ActorPolicy(trainer.behavior_name, behavior_spec, trainer.settings, trainer.device)", "return ActorPolicy(trainer.behavior_name, behavior_spec, trainer.settings.model_copy(update={'network_settings': type(trainer.settings.network_settings)(num_layers=1, hidden_units=32)}), trainer.device)", "test_network_settings_are_used"),
    Mutant("ppo_summary_stats_raises", "ppo", PPO, '    """Schedules and diagnostics."""\n', "    raise ValueError('no diagnostics')\n", "test_no_hook_raises_in_a_run"),
    Mutant("ppo_hook_misspelt", "ppo", PPO, "def summary_stats(", "def sumary_stats(", "test_hooks_fit_their_specifications"),
    Mutant("ppo_hook_argument_misspelt", "ppo", PPO, "def create_optimizer(trainer: Trainer, policy: Policy)", "def create_optimizer(trainer: Trainer, polcy: Policy)", "test_hooks_fit_their_specifications"),
    Mutant("ppo_threads_set_at_import", "ppo", PPO, IMPORT_HOOKIMPL, f"{IMPORT_HOOKIMPL}torch.set_num_threads(3)\n", "test_import_has_no_side_effects"),
    Mutant("ppo_seed_set_at_import", "ppo", PPO, IMPORT_HOOKIMPL, f"{IMPORT_HOOKIMPL}import random\nrandom.seed(0)\n", "test_import_has_no_side_effects"),
    Mutant("ppo_state_dict_without_the_optimizer", "ppo", PPO, '{**super().state_dict(), "diagnostics": self.diagnostics()}', '{"torch_optimizer": self.create_torch_optimizer(self.flat).state_dict(), "diagnostics": {}}', "test_saved_state_goes_on_as_if_never_saved"),
    Mutant("ppo_step_doubled", "ppo", PPO, "    optimizer: PPOOptimizer\n", "    optimizer: PPOOptimizer\n\n    def observe(self, *steps: Any) -> None:\n        before = self.step\n        super().observe(*steps)\n        self.step += self.step - before\n", "test_steps_are_counted_once"),
    Mutant("ppo_action_of_the_batch", "ppo", PPO, IMPORT_HOOKIMPL, IMPORT_HOOKIMPL + "import mlhooks.training.policy as _policy\n_sample = _policy.sample\ndef _same(*a, rng, **k):\n    made = _sample(*a, rng=rng, **k)\n    made.continuous[:], made.discrete[:] = made.continuous[:1], made.discrete[:1]\n    return made\n_policy.sample = _same\n", "test_agents_decide_independently"),
    Mutant("a2c_policy_loss_sign", "a2c", A2C, "policy_loss = -batch.mean(", "policy_loss = batch.mean(", "test_update_moves_the_policy_towards_what_was_good"),
    Mutant("a2c_advantage_not_detached", "a2c", A2C, "batch.standardize(batch.advantages) if self.normalize_advantages else batch.advantages", "(batch.returns - self.critic(batch.features)).mean(1)", "test_policy_loss_does_not_train_the_critic"),
    Mutant("a2c_entropy_sign", "a2c", A2C, "- self.beta(self.step) * entropy", "+ self.beta(self.step) * entropy", "test_entropy_bonus_raises_the_entropy"),
    Mutant("a2c_returns_not_used", "a2c", A2C, "(batch.returns - self.critic(", "(batch.values - self.critic(", "test_values_are_the_true_ones"),
    Mutant("reinforce_sign", "examples/mlhooks-trainer-reinforce", REINFORCE, "policy_loss = -batch.mean(", "policy_loss = batch.mean(", "test_learns_delayed_reward"),
    Mutant("reinforce_baseline_not_trained", "examples/mlhooks-trainer-reinforce", REINFORCE, "policy_loss + h.baseline_weight * baseline_loss", "policy_loss", "test_gradients_reach_every_parameter"),
    # advantages, rollouts and policies
    Mutant("interruption_is_an_end", "ppo", ADVANTAGES, "following[interrupted] = final_values[store.final[interrupted]]", "following[interrupted] = 0.0", "test_interruption_is_not_an_end"),
    Mutant("interruption_is_an_end_in_gae", "ppo", ADVANTAGES, "following[interrupted] = final_values[store.final[interrupted]]", "following[interrupted] = 0.0", "test_advantages_are_those_of_gae"),
    Mutant("terminal_is_bootstrapped", "ppo", ADVANTAGES, "store.end[:n] == End.INTERRUPTED)", "store.final[:n] >= 0)", "test_interruption_is_not_an_end"),
    Mutant("terminal_is_bootstrapped_in_values", "a2c", ADVANTAGES, "store.end[:n] == End.INTERRUPTED)", "store.final[:n] >= 0)", "test_values_are_the_true_ones"),
    Mutant("gae_decay_without_gamma", "ppo", ADVANTAGES, "(gamma * lambd)", "(gamma * 0 + lambd)", "test_advantages_are_those_of_gae"),
    Mutant("gae_off_by_one", "ppo", ADVANTAGES, "decay[start:stop] * advantages[successor[start:stop]]", "decay[start:stop] * advantages[successor[successor[start:stop]]]", "test_advantages_are_those_of_gae"),
    Mutant("gamma_off_by_one", "ppo", ADVANTAGES, "rewards + gamma * following - values", "rewards + gamma * gamma * following - values", "test_values_are_the_true_ones"),
    Mutant("gamma_on_the_reward", "a2c", ADVANTAGES, "rewards + gamma * following - values", "gamma * (rewards + following) - values", "test_values_are_the_true_ones"),
    Mutant("horizon_is_an_end", "ppo", ADVANTAGES, "following = padded[store.successor[:n]]", "following = padded[store.successor[:n]] * (store.end[:n] == End.NONE)[:, None]", "test_values_are_the_true_ones"),
    Mutant("observation_of_the_next_step", "ppo", ON_POLICY, "features=self.policy.features([obs[:n] for obs in store.obs]),", "features=self.policy.features([np.roll(obs[:n], -1, 0) for obs in store.obs]),", "test_log_probabilities_of_acting_equal_those_of_learning"),
    Mutant("observation_of_the_next_step_learns_nothing", "a2c", ON_POLICY, "features=self.policy.features([obs[:n] for obs in store.obs]),", "features=self.policy.features([np.roll(obs[:n], -16, 0) for obs in store.obs]),", "test_learns_one_step"),
    Mutant("reward_sign", "ppo", ON_POLICY, "signal.strength * signal.evaluate", "-signal.strength * signal.evaluate", "test_learns_continuous_actions"),
    Mutant("strength_ignored", "ppo", ON_POLICY, "signal.strength * signal.evaluate", "signal.evaluate", "test_advantages_are_those_of_gae"),
    Mutant("returns_without_values", "ppo", ON_POLICY, "returns=self._tensor(values[rows] + advantages[rows])", "returns=self._tensor(advantages[rows])", "test_advantages_are_those_of_gae"),
    Mutant("rows_learned_from_again", "ppo", ON_POLICY, "for minibatch in batch.minibatches(size, self.rng)", "for minibatch in [*batch.minibatches(size, self.rng)][1:]", "test_every_row_of_a_rollout_is_learned_from_equally_often"),
    Mutant("normalizer_never_updated", "ppo", ON_POLICY, "        self.policy.inputs.update([obs[rows] for obs in self.store.obs])\n", "", "test_trains_on_normalized_observations"),
    Mutant("learning_rate_schedule_ignored", "ppo", OPTIMIZER, 'group["lr"] = self.learning_rate(step)', 'group["lr"] = self.learning_rate(0)', "test_learning_rate_follows_its_schedule"),
    Mutant("gradient_not_clipped", "ppo", OPTIMIZER, "self.flat.grad.mul_(", "self.flat.grad.mul(", "test_gradient_norm_is_clipped"),
    Mutant("gradients_pile_up", "ppo", OPTIMIZER, "        self.flat.grad.zero_()\n", "", "test_gradients_do_not_pile_up"),
    Mutant("mask_ignored_in_learning", "ppo", HEADS, "parameters.logits if mask is None else parameters.logits.masked_fill(mask, MASKED_LOGIT)", "parameters.logits", "test_forbidden_actions_have_no_gradient"),
    Mutant("mask_ignored_in_acting", "a2c", HEADS, "            logits = np.where(mask, np.float32(MASKED_LOGIT), logits)\n", "            pass\n", "test_never_takes_a_forbidden_action"),
    Mutant("entropy_of_one_branch_only", "ppo", HEADS, "torch.stack(log_probs).sum(0)", "log_probs[0]", "test_log_probabilities_of_acting_equal_those_of_learning"),
    Mutant("deterministic_ignored", "ppo", HEADS, "        if not deterministic:\n", "        if True:\n", "test_deterministic_policy_draws_nothing"),
    Mutant("episode_returns_dropped", "ppo", TRAINER, '        self.stats.add_stats("Environment/Cumulative Reward", returns, StatsAggregationMethod.HISTOGRAM)\n', "", "test_episodes_are_reported_as_they_were"),
    Mutant("step_not_in_the_state", "ppo", TRAINER, 'self.step, self.updates = state["step"], state["updates"]', 'self.updates = state["updates"]', "test_saved_state_goes_on_as_if_never_saved"),
    # learning from a replay buffer
    Mutant("dqn_target_never_updated", "dqn", DQN, "target.lerp_(online, self.tau)", "target.lerp_(online, 0.0)", "test_values_are_the_true_ones"),
    Mutant("dqn_target_follows_at_once", "dqn", DQN, "target.lerp_(online, self.tau)", "target.copy_(online)", "test_target_network_follows_as_told"),
    Mutant("dqn_interval_ignored", "dqn", DQN, "self.step - self.copied_at >= self.interval", "True", "test_target_network_follows_as_told"),
    Mutant("dqn_mask_ignored_in_the_target", "dqn", DQN, "            if batch.next_mask is not None:\n", "            if False:\n", "test_bootstrapped_targets_are_right"),
    Mutant("dqn_mask_ignored_in_the_target_learns_it_wrong", "dqn", DQN, "            if batch.next_mask is not None:\n", "            if False:\n", "test_learns_with_masked_actions"),
    Mutant("dqn_mask_ignored_in_exploration", "dqn", DQN, "        if mask is not None:\n", "        if mask is not None and self.deterministic:\n", "test_never_takes_a_forbidden_action"),
    Mutant("dqn_epsilon_shared_by_the_batch", "dqn", DQN, "rng.random(agents) < self.epsilon", "np.full(agents, rng.random()) < self.epsilon", "test_agents_decide_independently"),
    Mutant("dqn_epsilon_inverted", "dqn", DQN, "rng.random(agents) < self.epsilon", "rng.random(agents) > self.epsilon", "test_explores_as_often_as_it_is_told"),
    Mutant("dqn_exploration_never_falls", "dqn", DQN, "self.policy.epsilon = self.epsilon(self.step)", "self.policy.epsilon = self.epsilon(0)", "test_explores_as_often_as_it_is_told"),
    Mutant("dqn_double_q_values_by_the_online_network", "dqn", DQN, "values = self.target(batch.next_features)", "values = (self.policy.network if self.double_q else self.target)(batch.next_features)", "test_bootstrapped_targets_are_right"),
    Mutant("dqn_targets_have_gradients", "dqn", DQN, "copy.deepcopy(policy.network).requires_grad_(False)", "copy.deepcopy(policy.network)", "test_gradients_reach_every_parameter"),
    Mutant("dqn_learns_the_wrong_branch", "dqn", DQN, "[columns.start for columns in self.policy.network.branches]", "[0 for columns in self.policy.network.branches]", "test_learns_several_branches"),
    Mutant("dqn_sign_of_the_reward", "dqn", DQN, "return batch.rewards + batch.discounts", "return -batch.rewards + batch.discounts", "test_learns_one_step"),
    Mutant("dqn_discount_forgotten", "dqn", DQN, "batch.discounts * torch.cat", "(batch.discounts > 0) * torch.cat", "test_values_are_the_true_ones"),
    Mutant("dqn_supports_what_it_cannot", "dqn", DQN, "    supports = Supports(continuous=False)\n", "    supports = Supports()\n", "test_trains_on_every_action_kind_that_it_declares"),
    Mutant("replay_interruption_is_an_end", "dqn", OFF_POLICY, "follows = (path.next_rows >= 0) | (path.finals >= 0)", "follows = path.next_rows >= 0", "test_samples_are_the_transitions_that_happened"),
    Mutant("replay_interruption_is_an_end_learns_it_wrong", "dqn", OFF_POLICY, "follows = (path.next_rows >= 0) | (path.finals >= 0)", "follows = path.next_rows >= 0", "test_interruption_is_not_an_end"),
    Mutant("replay_ends_are_bootstrapped", "dqn", OFF_POLICY, "np.where(follows, self.gamma**path.lengths, 0.0)", "self.gamma**path.lengths", "test_values_are_the_true_ones"),
    Mutant("replay_n_step_discounted_once", "dqn", OFF_POLICY, "self.gamma**path.lengths, 0.0", "self.gamma + 0.0 * path.lengths, 0.0", "test_samples_are_the_transitions_that_happened"),
    Mutant("replay_rewards_not_discounted", "dqn", OFF_POLICY, "self.gamma ** np.arange(steps.shape[1])", "1.0 + 0 * np.arange(steps.shape[1])", "test_samples_are_the_transitions_that_happened"),
    Mutant("replay_updates_ten_times_as_often", "dqn", OFF_POLICY, "        for _ in range(count):\n", "        for _ in range(10 * count):\n", "test_replay_updates_as_often_as_told"),
    Mutant("replay_does_not_wait", "dqn", OFF_POLICY, "or self.step < h.buffer_init_steps", "", "test_replay_updates_as_often_as_told"),
    Mutant("replay_not_saved", "dqn", OFF_POLICY, "if not self.hyperparameters.save_replay_buffer:", "if True:", "test_resumed_run_equals_one_that_was_never_stopped"),
    Mutant("replay_draws_the_first_half", "dqn", REPLAY, "        rows = rng.integers(0, self.filled, size)\n", "        rows = rng.integers(0, max(1, self.filled // 2), size)\n", "test_samples_cover_the_buffer"),
    # stats writers
    Mutant("jsonl_every_third_summary_dropped", "jsonl", JSONL, "        if self._path is None:\n            return\n        row", "        self._count = getattr(self, '_count', 0) + 1\n        if self._path is None or self._count % 3 == 0:\n            return\n        row", "test_every_value_arrives_once_and_in_order"),
    Mutant("jsonl_summary_written_twice", "jsonl", JSONL, 'file.write(json.dumps(row, allow_nan=False) + "\\n")', 'file.write(2 * (json.dumps(row, allow_nan=False) + "\\n"))', "test_every_value_arrives_once_and_in_order"),
    Mutant("jsonl_last_key_dropped", "jsonl", JSONL, "for key, summary in values.items()},\n        }", "for key, summary in list(values.items())[:-1]},\n        }", "test_every_value_arrives_once_and_in_order"),
    Mutant("jsonl_overwrites_on_resume", "jsonl", JSONL, "        if run.resumed:\n            _keep_lines", "        if False:\n            _keep_lines", "test_resume_appends"),
    Mutant("jsonl_fails_for_nan", "jsonl", JSONL, "value if math.isfinite(value) else None", "value", "test_survives_odd_numbers"),
    Mutant("jsonl_fails_for_an_empty_summary", "jsonl", JSONL, '        with self._path.open("a"', '        assert values, "nothing to write"\n        with self._path.open("a"', "test_survives_an_empty_summary"),
    Mutant("jsonl_state_in_the_class", "jsonl", JSONL, "        self._path = run.path / FILE_NAME\n", "        self._path = JsonlWriter.shared = getattr(JsonlWriter, 'shared', run.path / FILE_NAME)\n", "test_two_runs_do_not_mix"),
    Mutant("jsonl_step_of_the_summary_before", "jsonl", JSONL, '            "step": step,\n', '            "step": 0,\n', "test_steps_and_keys_are_stored"),
    Mutant("jsonl_counts_doubled", "jsonl", JSONL, '"count": summary.num', '"count": 2 * summary.num', "test_counts_are_right"),
    Mutant("jsonl_file_left_open", "jsonl", JSONL, '        with self._path.open("a", encoding="utf-8", newline="\\n") as file:\n            file', '        self.files = [*getattr(self, "files", []), self._path.open("a", encoding="utf-8", newline="\\n")]\n        for file in self.files[-1:]:\n            file', "test_run_leaves_nothing_behind"),
    Mutant("jsonl_thread_left_running", "jsonl", JSONL, "        if run.inference:\n            return\n", "        import threading\n        threading.Thread(target=threading.Event().wait, daemon=True).start()\n        if run.inference:\n            return\n", "test_run_leaves_nothing_behind"),
    Mutant("jsonl_process_left_running", "jsonl", JSONL, "        if run.inference:\n            return\n", "        import subprocess, sys\n        self.child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(20)'])\n        if run.inference:\n            return\n", "test_run_leaves_nothing_behind"),
    Mutant("jsonl_socket_left_open", "jsonl", JSONL, "        if run.inference:\n            return\n", "        import socket\n        self.socket = socket.socket()\n        if run.inference:\n            return\n", "test_run_leaves_nothing_behind"),
    Mutant("jsonl_temporary_file_left", "jsonl", JSONL, "        if run.inference:\n            return\n", "        import tempfile\n        tempfile.mkstemp()\n        if run.inference:\n            return\n", "test_run_leaves_no_temporary_files"),
    Mutant("jsonl_warnings_silenced_at_import", "jsonl", JSONL, IMPORT_HOOKIMPL, f"{IMPORT_HOOKIMPL}import warnings\nwarnings.simplefilter('ignore')\n", "test_import_has_no_side_effects"),
    Mutant("jsonl_logging_set_up_at_import", "jsonl", JSONL, IMPORT_HOOKIMPL, f"{IMPORT_HOOKIMPL}import logging\nlogging.basicConfig(level=10)\n", "test_import_has_no_side_effects"),
    Mutant("jsonl_signal_handler_at_import", "jsonl", JSONL, IMPORT_HOOKIMPL, f"{IMPORT_HOOKIMPL}import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n", "test_import_has_no_side_effects"),
    Mutant("jsonl_draws_from_the_global_generator", "jsonl", JSONL, '        row = {\n            "category"', '        __import__("torch").manual_seed(0)\n        row = {\n            "category"', "test_run_does_not_reset_the_global_seeds"),
    Mutant("jsonl_changes_the_values", "jsonl", JSONL, '        row = {\n            "category"', '        for summary in values.values():\n            summary.values[:] = 0.0\n        row = {\n            "category"', "test_does_not_change_what_others_see"),
    Mutant("tensorboard_writes_the_mean_of_sums", "tensorboard", TENSORBOARD, "simple_value=summary.aggregated_value", "simple_value=summary.mean", "test_aggregation_is_respected"),
    Mutant("tensorboard_forgets_the_earlier_file", "tensorboard", TENSORBOARD, "            if not self._run.resumed:\n", "            if True:\n", "test_resume_appends"),
    Mutant("tensorboard_never_closed", "tensorboard", TENSORBOARD, "            writer.close()\n", "            self._kept = [*getattr(self, '_kept', []), writer]\n", "test_run_leaves_nothing_behind"),
    Mutant("sqlite_emissions_counted_twice", "examples/mlhooks-stats-sqlite", f"{SQLITE}/plugin.py", "self.emitted[category, key] += 1", "self.emitted[category, key] += 2", "test_counts_are_right"),
    Mutant("sqlite_emissions_never_reset", "examples/mlhooks-stats-sqlite", f"{SQLITE}/plugin.py", "self.emitted.pop((category, key), 0)", "self.emitted[category, key]", "test_counts_are_right"),
    Mutant("sqlite_never_commits", "examples/mlhooks-stats-sqlite", f"{SQLITE}/database.py", "        with self._connection:\n            self._connection.executemany", "        if rows:\n            self._connection.executemany", "test_every_value_arrives_once_and_in_order"),
    Mutant("sqlite_database_removed_on_resume", "examples/mlhooks-stats-sqlite", f"{SQLITE}/plugin.py", "        if not run.resumed:\n", "        if True:\n", "test_resume_appends"),
    Mutant("sqlite_left_open", "examples/mlhooks-stats-sqlite", f"{SQLITE}/plugin.py", "            self.database.close()\n            outcome", "            outcome", "test_run_leaves_nothing_behind"),
    # environments
    Mutant("sim_reward_of_the_end_twice", "sim_env", SIMS, "            reward[rows] = 0.0\n", "", "test_ends_and_beginnings_do_not_contradict"),
    Mutant("sim_final_observation_of_the_next_episode", "sim_env", SIMS, "            self._terminals = self._end([part[rows] for part in obs], reward[rows], ~terminated[rows], rows)\n            reward[rows] = 0.0\n            self._ages[rows] = 0\n            self._begin(rows)\n", "            self._begin(rows)\n            self._terminals = self._end(self._observe(rows), reward[rows], ~terminated[rows], rows)\n            reward[rows] = 0.0\n            self._ages[rows] = 0\n", "test_final_observations_are_not_those_of_the_next_episode"),
    Mutant("sim_seed_ignored", "sim_env", SIMS, "np.random.default_rng([seed, worker_id])", "np.random.default_rng()", "test_seeds_reproduce"),
    Mutant("sim_workers_alike", "sim_env", SIMS, "np.random.default_rng([seed, worker_id])", "np.random.default_rng(seed)", "test_seeds_reproduce"),
    Mutant("sim_areas_ignored", "sim_env", SIM, "simulation(num_areas=num_areas, seed", "simulation(num_areas=1, seed", "test_num_areas_are_copies"),
    Mutant("sim_random_state_not_saved", "sim_env", SIMS, '        self._rng.bit_generator.state = state["random"]\n', "", "test_saved_state_is_the_whole_state"),
    Mutant("sim_same_ids", "sim_env", "builtin_plugins/single_behavior.py", "self._ids = np.arange(agents, dtype=np.int32)", "self._ids = np.zeros(agents, dtype=np.int32)", "test_agent_ids_are_unique"),
    Mutant("sim_double_precision", "sim_env", "builtin_plugins/sims/ball3d.py", 'self.view.T.astype(np.float32, order="C")[rows]', "self.view.T[rows]", "test_steps_fit_the_spec"),
]
# fmt: on
