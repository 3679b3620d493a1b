"""Plugins that break what is demanded of every plugin: marks, names, a quiet import, and nothing left behind."""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
import threading
from typing import Any

import torch

from tests.testing.mutants.mutant import mutant
from tests.testing.mutants.patch import Patch

PPO = "builtin_plugins.ppo"
WRITER = "builtin_plugins.jsonl:JsonlWriter"
UNMARKED = "lambda function: function"


@mutant("ppo", caught_by="test_hooks_are_marked")
def ppo_trainer_types_not_marked(patch: Patch) -> None:
    patch.replace(f"{PPO}:get_trainer_types", "hookimpl", UNMARKED)


@mutant("jsonl", caught_by="test_hooks_are_marked")
def jsonl_method_not_marked(patch: Patch) -> None:
    patch.replace(f"{WRITER}.write_stats", "hookimpl", UNMARKED)


@mutant("ppo", caught_by="test_attributes_are_spelt_right")
def ppo_conformance_settings_misspelt(patch: Patch) -> None:
    patch.insert(f"{PPO}:PPOTrainer", "conformance_setings = {}")


@mutant("ppo", caught_by="test_it_can_be_tried")
def ppo_conformance_settings_too_large(patch: Patch) -> None:
    patch.insert(f"{PPO}:PPOTrainer", "conformance_settings = {'hyperparameters': {'buffer_size': 10_000}}")


@mutant("ppo", caught_by="test_attributes_are_spelt_right")
def ppo_optimizer_type_misspelt(patch: Patch) -> None:
    patch.rename(f"{PPO}:PPOTrainer", "optimizer_type", "optimiser_type")


@mutant("ppo", caught_by="test_offers_are_what_hooks_must_return")
def ppo_policy_type_is_an_optimizer(patch: Patch) -> None:
    patch.replace(f"{PPO}:PPOTrainer", "policy_type = ActorPolicy", "policy_type = PPOOptimizer")


@mutant("ppo", caught_by="test_offers_are_what_hooks_must_return")
def ppo_hyperparameters_type_misspelt(patch: Patch) -> None:
    patch.rename(f"{PPO}:PPOTrainer", "hyperparameters_type", "hyperparameter_type")


@mutant("jsonl", caught_by="test_offers_are_what_hooks_must_return")
def jsonl_settings_without_a_model(patch: Patch) -> None:
    patch.insert("builtin_plugins.jsonl", "@hookimpl\ndef get_plugin_settings():\n    return {'jsonl': dict}")


@mutant("jsonl", caught_by="test_settings_have_defaults")
def jsonl_settings_that_every_configuration_must_have(patch: Patch) -> None:
    model = "import pydantic\nclass JsonlSettings(pydantic.BaseModel):\n    file: str"
    hook = "@hookimpl\ndef get_plugin_settings():\n    return {'jsonl': JsonlSettings}"
    patch.insert("builtin_plugins.jsonl", f"{model}\n{hook}")


@mutant("ppo", caught_by="test_exemptions_name_tests")
def ppo_exemption_misspelt(patch: Patch) -> None:
    patch.insert(f"{PPO}:PPOTrainer", "conformance_exempt = {'test_learns_one_stp': 'slow'}")


@mutant("ppo", caught_by="test_hooks_fit_their_specifications")
def ppo_hook_misspelt(patch: Patch) -> None:
    patch.rename(PPO, "summary_stats", "sumary_stats")


@mutant("ppo", caught_by="test_hooks_fit_their_specifications")
def ppo_hook_argument_misspelt(patch: Patch) -> None:
    patch.rename(f"{PPO}:summary_stats", "trainer", "trianer")


@mutant("ppo", caught_by="test_no_hook_raises_in_a_run")
def ppo_summary_stats_raises(patch: Patch) -> None:
    patch.insert(f"{PPO}:summary_stats", "raise ValueError('no diagnostics')")


@mutant("ppo", caught_by="test_import_has_no_side_effects")
def ppo_threads_set_at_import(patch: Patch) -> None:
    patch.insert(PPO, "torch.set_num_threads(3)")


@mutant("ppo", caught_by="test_import_has_no_side_effects")
def ppo_seed_set_at_import(patch: Patch) -> None:
    patch.insert(PPO, "import random; random.seed(0)")


@mutant("jsonl", caught_by="test_import_has_no_side_effects")
def jsonl_warnings_silenced_at_import(patch: Patch) -> None:
    patch.insert("builtin_plugins.jsonl", "import warnings; warnings.simplefilter('ignore')")


@mutant("jsonl", caught_by="test_import_has_no_side_effects")
def jsonl_logging_set_up_at_import(patch: Patch) -> None:
    patch.insert("builtin_plugins.jsonl", "import logging; logging.basicConfig(level=10)")


@mutant("jsonl", caught_by="test_import_has_no_side_effects")
def jsonl_signal_handler_at_import(patch: Patch) -> None:
    patch.insert("builtin_plugins.jsonl", "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)")


@mutant("ppo", caught_by="test_run_does_not_reset_the_global_seeds")
def ppo_seed_reset_in_the_loss(patch: Patch) -> None:
    patch.insert(f"{PPO}:PPOOptimizer.loss", "torch.manual_seed(0)")


@mutant("jsonl", caught_by="test_run_does_not_reset_the_global_seeds")
def jsonl_draws_from_the_global_generator(patch: Patch) -> None:
    @patch.around(f"{WRITER}.write_stats")
    def write_stats(original: Any, *arguments: Any) -> None:
        torch.manual_seed(0)
        original(*arguments)


@mutant("jsonl", caught_by="test_run_leaves_nothing_behind")
def jsonl_file_left_open(patch: Patch) -> None:
    @patch.around(f"{WRITER}.write_stats")
    def write_stats(original: Any, self: Any, *arguments: Any) -> None:
        original(self, *arguments)
        self.files = [*getattr(self, "files", []), self._path.open("ab", buffering=0)]


@mutant("jsonl", caught_by="test_run_leaves_nothing_behind")
def jsonl_thread_left_running(patch: Patch) -> None:
    @patch.around(f"{WRITER}.run_started")
    def run_started(original: Any, *arguments: Any) -> None:
        threading.Thread(target=threading.Event().wait, daemon=True).start()
        original(*arguments)


@mutant("jsonl", caught_by="test_run_leaves_nothing_behind")
def jsonl_process_left_running(patch: Patch) -> None:
    @patch.around(f"{WRITER}.run_started")
    def run_started(original: Any, self: Any, run: Any) -> None:
        self.child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(20)"])
        original(self, run)


@mutant("jsonl", caught_by="test_run_leaves_nothing_behind")
def jsonl_socket_left_open(patch: Patch) -> None:
    @patch.around(f"{WRITER}.run_started")
    def run_started(original: Any, self: Any, run: Any) -> None:
        self.socket = socket.socket()
        original(self, run)


@mutant("jsonl", caught_by="test_run_leaves_no_temporary_files")
def jsonl_temporary_file_left(patch: Patch) -> None:
    @patch.around(f"{WRITER}.run_started")
    def run_started(original: Any, *arguments: Any) -> None:
        tempfile.mkstemp()
        original(*arguments)


@mutant("tensorboard", caught_by="test_run_leaves_nothing_behind")
def tensorboard_never_closed(patch: Patch) -> None:
    place = "builtin_plugins.tensorboard:TensorBoardWriter.run_finished"
    patch.replace(place, "writer.close()", "self.kept = [*getattr(self, 'kept', []), writer]")


@mutant("examples/mlhooks-stats-sqlite", caught_by="test_run_leaves_nothing_behind")
def sqlite_left_open(patch: Patch) -> None:
    patch.drop("mlhooks_stats_sqlite.plugin:SqliteWriter.run_finished", "self.database.close()")
