"""The example's writer to a database, with wrong numbers, transactions or resumed runs."""

from __future__ import annotations

from tests.testing.mutants.mutant import mutant
from tests.testing.mutants.patch import Patch

TARGET = "examples/mlhooks-stats-sqlite"
WRITER = "mlhooks_stats_sqlite.plugin:SqliteWriter"
DATABASE = "mlhooks_stats_sqlite.database:Database"
NUMBERS = "mlhooks_stats_sqlite.database:_numbers"
STATEMENT = "'insert or replace into summaries values (?,?,?,?,?,?,?,?,?,?,?)'"
WRITE_ALL = f"self._connection.executemany({STATEMENT}, rows)"
TRANSACTION = f"with self._connection: {WRITE_ALL}"


@mutant(TARGET, caught_by="test_counts_are_right")
def sqlite_emissions_counted_twice(patch: Patch) -> None:
    count = "self.emitted[category, key] += {}"
    patch.replace(f"{WRITER}.on_add_stat", count.format(1), count.format(2))


@mutant(TARGET, caught_by="test_counts_are_right")
def sqlite_emissions_never_reset(patch: Patch) -> None:
    patch.replace(f"{WRITER}.write_stats", "self.emitted.pop((category, key), 0)", "self.emitted[category, key]")


@mutant(TARGET, caught_by="test_resume_appends")
def sqlite_database_removed_on_resume(patch: Patch) -> None:
    patch.replace(f"{WRITER}.run_started", "run.resumed", "False")


@mutant(TARGET, caught_by="test_new_run_begins_again")
def sqlite_keeps_an_earlier_run(patch: Patch) -> None:
    patch.drop(f"{WRITER}.run_started", "path.unlink(missing_ok=True)")


@mutant(TARGET, caught_by="test_every_value_arrives_once_and_in_order")
def sqlite_never_commits(patch: Patch) -> None:
    patch.replace(f"{DATABASE}.write", TRANSACTION, WRITE_ALL)


@mutant(TARGET, caught_by="test_summary_is_one_transaction")
def sqlite_transaction_for_each_row(patch: Patch) -> None:
    each = f"""
        for row in rows:
            with self._connection:
                self._connection.execute({STATEMENT}, row)
    """
    patch.replace(f"{DATABASE}.write", TRANSACTION, each)


@mutant(TARGET, caught_by="test_summary_is_one_transaction")
def sqlite_without_transactions(patch: Patch) -> None:
    patch.replace(f"{DATABASE}.__init__", "sqlite3.connect(path)", "sqlite3.connect(path, isolation_level=None)")


@mutant(TARGET, caught_by="test_aggregation_is_respected")
def sqlite_mean_of_sums(patch: Patch) -> None:
    patch.replace(NUMBERS, "summary.aggregated_value", "summary.mean")


@mutant(TARGET, caught_by="test_numbers_are_what_their_names_say")
def sqlite_mean_and_std_exchanged(patch: Patch) -> None:
    numbers = "(summary.aggregated_value, summary.{}, summary.{}, summary.sum, summary.num)"
    patch.replace(NUMBERS, numbers.format("mean", "std"), numbers.format("std", "mean"))


@mutant(TARGET, caught_by="test_behaviors_are_told_apart")
def sqlite_behaviors_replace_one_another(patch: Patch) -> None:
    without = "SCHEMA.replace('primary key (behavior, step, key)', 'primary key (step, key)')"
    patch.replace(f"{DATABASE}.__init__", "SCHEMA", without)


@mutant(TARGET, caught_by="test_resume_goes_on_from_the_checkpoint")
def sqlite_removes_other_behaviors(patch: Patch) -> None:
    patch.replace(
        f"{DATABASE}.remove_after",
        "self._connection.execute('delete from summaries where behavior = ? and step > ?', (behavior, step))",
        "self._connection.execute('delete from summaries where step > ?', (step,))",
    )
