"""The exporter of policies for Python, with files that are shared, stale or not named, and with traces."""

from __future__ import annotations

from tests.testing.mutants.mutant import mutant
from tests.testing.mutants.patch import Patch

TARGET = "policy_file"
EXPORT = "builtin_plugins.policy_file:export_model"
FILE = "path.with_name(f'{path.name}.policy.pt')"


@mutant(TARGET, caught_by="test_it_exports")
def exporter_names_no_file(patch: Patch) -> None:
    patch.replace(EXPORT, "[file]", "[]")


@mutant(TARGET, caught_by="test_it_exports")
def exporter_names_half_of_its_files(patch: Patch) -> None:
    patch.insert(EXPORT, "path.with_name(f'{path.name}.json').write_text('{}')")


@mutant(TARGET, caught_by="test_it_takes_every_behavior")
def exporter_of_one_observation(patch: Patch) -> None:
    patch.insert(EXPORT, "(_,) = trainer.behavior_spec.observation_specs")


@mutant(TARGET, caught_by="test_each_policy_has_files_of_its_own")
def exporter_takes_a_part_of_names_for_a_suffix(patch: Patch) -> None:
    patch.replace(EXPORT, FILE, "path.with_suffix('.policy.pt')")


@mutant(TARGET, caught_by="test_each_policy_has_files_of_its_own")
def exporter_of_all_checkpoints_in_one_file(patch: Patch) -> None:
    patch.replace(EXPORT, FILE, "path.with_name('model.policy.pt')")


@mutant(TARGET, caught_by="test_last_export_counts")
def exporter_keeps_the_first_file(patch: Patch) -> None:
    patch.insert(EXPORT, f"if {FILE}.exists(): return [{FILE}]")


@mutant(TARGET, caught_by="test_other_files_stay")
def exporter_removes_the_checkpoint(patch: Patch) -> None:
    patch.insert(EXPORT, "path.with_name(f'{path.name}.pt').unlink(missing_ok=True)")


@mutant(TARGET, caught_by="test_training_goes_on_as_if_nothing_was_exported")
def exporter_draws_random_numbers(patch: Patch) -> None:
    patch.insert(EXPORT, "__import__('torch').rand(1)")


@mutant(TARGET, caught_by="test_training_goes_on_as_if_nothing_was_exported")
def exporter_leaves_modules_in_evaluation_mode(patch: Patch) -> None:
    patch.insert(EXPORT, "[module.eval() for module in trainer.modules().values()]")


@mutant(TARGET, caught_by="test_training_goes_on_as_if_nothing_was_exported")
def exporter_freezes_what_it_exports(patch: Patch) -> None:
    patch.insert(EXPORT, "[module.requires_grad_(False) for module in trainer.policy.modules().values()]")


@mutant(TARGET, caught_by="test_training_goes_on_as_if_nothing_was_exported")
def exporter_rounds_the_weights(patch: Patch) -> None:
    patch.insert(EXPORT, "[p.data.copy_(p.data.half()) for m in trainer.modules().values() for p in m.parameters()]")
