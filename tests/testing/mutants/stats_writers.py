"""Writers of JSON lines, event files and the console that lose, mix up or change what they are given."""

from __future__ import annotations

from typing import Any

from tests.testing.mutants.mutant import mutant
from tests.testing.mutants.patch import Patch

JSONL = "builtin_plugins.jsonl:JsonlWriter"
PLAIN = "builtin_plugins.jsonl:_plain"
TENSORBOARD = "builtin_plugins.tensorboard:TensorBoardWriter"
CONSOLE = "builtin_plugins.console:ConsoleWriter"
SCALAR = "items.append(Summary.Value(tag=key, simple_value=summary.aggregated_value))"


@mutant("jsonl", caught_by="test_every_value_arrives_once_and_in_order")
def jsonl_every_third_summary_dropped(patch: Patch) -> None:
    @patch.around(f"{JSONL}.write_stats")
    def write_stats(original: Any, self: Any, *arguments: Any) -> None:
        self.count = getattr(self, "count", 0) + 1
        if self.count % 3:
            original(self, *arguments)


@mutant("jsonl", caught_by="test_every_value_arrives_once_and_in_order")
def jsonl_summary_written_twice(patch: Patch) -> None:
    line = "(json.dumps(row, allow_nan=False) + '\\n').encode()"
    patch.replace(f"{JSONL}.write_stats", line, f"2 * {line}")


@mutant("jsonl", caught_by="test_every_value_arrives_once_and_in_order")
def jsonl_last_key_dropped(patch: Patch) -> None:
    patch.replace(f"{JSONL}.write_stats", "values.items()", "list(values.items())[:-1]")


@mutant("jsonl", caught_by="test_resume_appends")
def jsonl_overwrites_on_resume(patch: Patch) -> None:
    patch.replace(f"{JSONL}.run_started", "run.resumed", "False")


@mutant("jsonl", caught_by="test_survives_odd_numbers")
def jsonl_fails_for_nan(patch: Patch) -> None:
    patch.replace(PLAIN, "value if math.isfinite(value) else None", "value")


@mutant("jsonl", caught_by="test_survives_an_empty_summary")
def jsonl_fails_for_an_empty_summary(patch: Patch) -> None:
    patch.insert(f"{JSONL}.write_stats", "assert values, 'nothing to write'")


@mutant("jsonl", caught_by="test_two_runs_do_not_mix")
def jsonl_state_in_the_class(patch: Patch) -> None:
    shared = "JsonlWriter.shared = getattr(JsonlWriter, 'shared', run.path / FILE_NAME)"
    patch.replace(f"{JSONL}.run_started", "self._path = run.path / FILE_NAME", f"self._path = {shared}")


@mutant("jsonl", caught_by="test_steps_and_keys_are_stored")
def jsonl_step_of_the_summary_before(patch: Patch) -> None:
    @patch.around(f"{JSONL}.write_stats")
    def write_stats(original: Any, self: Any, category: str, values: Any, step: int) -> None:
        original(self, category, values, 0)


@mutant("jsonl", caught_by="test_counts_are_right")
def jsonl_counts_doubled(patch: Patch) -> None:
    patch.replace(PLAIN, "summary.num", "2 * summary.num")


@mutant("jsonl", caught_by="test_does_not_change_what_others_see")
def jsonl_changes_the_values(patch: Patch) -> None:
    @patch.around(f"{JSONL}.write_stats")
    def write_stats(original: Any, self: Any, category: str, values: Any, step: int) -> None:
        for summary in values.values():
            summary.values[:] = 0.0
        original(self, category, values, step)


@mutant("jsonl", caught_by="test_resume_goes_on_from_the_checkpoint")
def jsonl_keeps_what_is_written_again(patch: Patch) -> None:
    patch.replace(f"{JSONL}.behavior_added", "run.resumed", "False")


@mutant("jsonl", caught_by="test_resume_goes_on_from_the_checkpoint")
def jsonl_drops_other_behaviors(patch: Patch) -> None:
    patch.replace(f"{JSONL}.behavior_added", "row['category'] != behavior_name", "False")


@mutant("jsonl", caught_by="test_resume_appends")
def jsonl_drops_the_summary_of_the_checkpoint(patch: Patch) -> None:
    patch.replace(f"{JSONL}.behavior_added", "row['step'] <= trainer.step", "row['step'] < trainer.step")


@mutant("jsonl", caught_by="test_inference_leaves_statistics_alone")
def jsonl_deleted_by_inference(patch: Patch) -> None:
    patch.replace(f"{JSONL}.run_started", "run.inference", "False")


@mutant("jsonl", caught_by="test_new_run_begins_again")
def jsonl_appends_to_an_earlier_run(patch: Patch) -> None:
    patch.drop(f"{JSONL}.run_started", "self._path.unlink(missing_ok=True)")


@mutant("jsonl", caught_by="test_behaviors_are_told_apart")
def jsonl_behavior_lost(patch: Patch) -> None:
    @patch.around(f"{JSONL}.write_stats")
    def write_stats(original: Any, self: Any, category: str, values: Any, step: int) -> None:
        original(self, "Behavior", values, step)


@mutant("jsonl", caught_by="test_numbers_are_what_their_names_say")
def jsonl_mean_as_std(patch: Patch) -> None:
    patch.replace(PLAIN, "summary.std", "summary.mean")


@mutant("jsonl", caught_by="test_survives_any_key")
def jsonl_keys_collide(patch: Patch) -> None:
    @patch.around(f"{JSONL}.write_stats")
    def write_stats(original: Any, self: Any, category: str, values: Any, step: int) -> None:
        original(self, category, {key.strip(): summary for key, summary in values.items()}, step)


@mutant("tensorboard", caught_by="test_aggregation_is_respected")
def tensorboard_writes_the_mean_of_sums(patch: Patch) -> None:
    patch.replace(f"{TENSORBOARD}.write_stats", "summary.aggregated_value", "summary.mean")


@mutant("tensorboard", caught_by="test_aggregation_is_respected")
def tensorboard_no_scalar_of_distributions(patch: Patch) -> None:
    scalar = f"if summary.aggregation_method.name != 'HISTOGRAM': {SCALAR}"
    patch.replace(f"{TENSORBOARD}.write_stats", SCALAR, scalar)


@mutant("tensorboard", caught_by="test_resume_appends")
def tensorboard_forgets_the_earlier_file(patch: Patch) -> None:
    patch.replace(f"{TENSORBOARD}._writer", "self._run.resumed", "False")


@mutant("tensorboard", caught_by="test_steps_and_keys_are_stored")
def tensorboard_step_off_by_one(patch: Patch) -> None:
    event = "Event(wall_time=time.time(), step={}, **content)"
    patch.replace(f"{TENSORBOARD}._add_event", event.format("step"), event.format("step + 1"))


@mutant("tensorboard", caught_by="test_steps_and_keys_are_stored")
def tensorboard_step_of_the_summary_before(patch: Patch) -> None:
    @patch.around(f"{TENSORBOARD}.write_stats")
    def write_stats(original: Any, self: Any, category: str, values: Any, step: int) -> None:
        original(self, category, values, getattr(self, "before", 0))
        self.before = step


@mutant("tensorboard", caught_by="test_resume_goes_on_from_the_checkpoint")
def tensorboard_keeps_what_is_written_again(patch: Patch) -> None:
    patch.replace(f"{TENSORBOARD}.behavior_added", "run.resumed", "False")


@mutant("tensorboard", caught_by="test_resume_appends")
def tensorboard_hides_the_checkpoints_summary(patch: Patch) -> None:
    patch.replace(f"{TENSORBOARD}.behavior_added", "trainer.step + 1", "trainer.step")


@mutant("tensorboard", caught_by="test_behaviors_are_told_apart")
def tensorboard_one_file_for_all_behaviors(patch: Patch) -> None:
    patch.replace(f"{TENSORBOARD}._writer", "file_name(category)", "'events'")


@mutant("console", caught_by="test_every_value_arrives_once_and_in_order")
def console_every_second_summary(patch: Patch) -> None:
    @patch.around(f"{CONSOLE}.write_stats")
    def write_stats(original: Any, self: Any, *arguments: Any) -> None:
        self.count = getattr(self, "count", 0) + 1
        if self.count % 2 == 0:
            original(self, *arguments)


@mutant("console", caught_by="test_aggregation_is_respected")
def console_sum_instead_of_mean(patch: Patch) -> None:
    patch.replace(f"{CONSOLE}._reward_parts", "rewards.mean", "rewards.sum")


@mutant("console", caught_by="test_steps_and_keys_are_stored")
def console_step_of_the_summary_before(patch: Patch) -> None:
    patch.replace(f"{CONSOLE}.write_stats", "f'step {step:,}'", "f'step {marked_step:,}'")


@mutant("console", caught_by="test_counts_are_right")
def console_counts_doubled(patch: Patch) -> None:
    patch.replace(f"{CONSOLE}._reward_parts", "f'{rewards.num:,} new episodes'", "f'{2 * rewards.num:,} new episodes'")
