"""Checks of a stats writer over the course of runs: resumes, several at a time, full disks, other plugins."""

from __future__ import annotations

import errno
import logging
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mlhooks import hookimpl
from mlhooks.testing.assertions import demand, works
from mlhooks.testing.managers import ScriptedEnvs, train_in
from mlhooks.testing.short_runs import PPO
from mlhooks.testing.target import Target
from mlhooks.testing.trainer_loop import differing, weights
from mlhooks.testing.writer_output import Sink
from mlhooks.testing.writer_run import KEYS, STEP, Places, Start, WriterRun, number_for, places_of, write


def stored(run: WriterRun, steps: range) -> Places:
    """Return where the numbers of `write` are in files; skip where the writer leaves none."""
    sink = run.sink()
    if not sink.files:
        pytest.skip("the writer leaves no file in the results folder: what its sink gets cannot be seen here")
    return places_of(sink, steps)


def lost_of(places: Places) -> list[int]:
    """Return the steps of which a value is missing."""
    return sorted({step * STEP for (step, _), at in places.items() if not at})


def test_resume_appends(start: Start) -> None:
    """A run that resumes keeps what was written before, each value once."""
    first = start()
    write(first, range(1, 5))
    first.finish()
    stored(first, range(1, 5))
    with works("a resumed run wrote"):
        second = start(resumed=True, step=4 * STEP)
        write(second, range(5, 8))
        second.finish()
    places = stored(second, range(1, 8))
    lost = lost_of(places)
    demand(
        not lost, f"After a resume the summaries of the steps {lost} are missing: append to what `run.resumed` finds."
    )
    double = sorted({step * STEP for (step, _), at in places.items() if len(at) > 1})
    demand(not double, f"After a resume the summaries of the steps {double} are stored twice: write no old ones.")


def test_resume_goes_on_from_the_checkpoint(start: Start) -> None:
    """A resume drops what a behavior wrote after its checkpoint, which is written again, and nothing of others."""
    first = start(behavior="First")
    second = first.add("Second")
    write(first, range(1, 7))
    write(first, range(1, 7), second, numbers=10)
    first.finish()
    stored(first, range(1, 7))
    with works("a resumed run wrote"):
        resumed = start(behavior="First", resumed=True, step=4 * STEP)
        second = resumed.add("Second", step=6 * STEP)
        write(resumed, range(5, 6), numbers=20)
        write(resumed, range(7, 8), second, numbers=10)
        resumed.finish()
    for what, steps in (("before the checkpoint", range(1, 5)), ("of another behavior", range(11, 18))):
        lost = lost_of(stored(resumed, steps))
        demand(not lost, f"After a resume {len(lost)} summaries {what} are missing: drop those of one behavior only.")
    again = lost_of(stored(resumed, range(25, 26)))
    demand(not again, "What a resumed run writes is missing where an earlier run had written the same step.")
    void = any(stored(resumed, range(5, 7)).values())
    demand(
        not void,
        "After a resume the summaries that the earlier run wrote after the checkpoint are still there, beside those "
        "that take their place. Remove in `behavior_added`, where `run.resumed`, what lies after `trainer.step`.",
    )


def test_new_run_begins_again(start: Start) -> None:
    """A run that overwrites an earlier one (`--force`) does not leave the earlier one's values among its own."""
    first = start()
    write(first, range(1, 4))
    first.finish()
    stored(first, range(1, 4))
    with works("a second run wrote into the same folder"):
        second = start()
        write(second, range(8, 10))
        second.finish()
    lost = lost_of(stored(second, range(8, 10)))
    demand(not lost, f"A run that overwrites an earlier one lacks its summaries of the steps {lost}.")
    old = any(stored(second, range(1, 4)).values())
    demand(
        not old,
        "Values of an earlier run in the folder are still there: start with an empty file unless `run.resumed`.",
    )


def test_inference_leaves_statistics_alone(start: Start) -> None:
    """An inference run neither deletes nor changes what training wrote."""
    first = start()
    write(first, range(1, 4))
    first.finish()
    stored(first, range(1, 4))
    before = {path: path.read_bytes() for path in first.sink().files}
    with works("an inference run began and ended"):
        acting = start(inference=True)
        acting.finish()
    changed = [path.name for path, data in before.items() if not path.exists() or path.read_bytes() != data]
    demand(not changed, f"An inference run changes {', '.join(changed)}: write nothing where `run.inference`.")


def test_two_runs_do_not_mix(start: Start) -> None:
    """Two runs at the same time write each to its own folder: state belongs to the run, not to the module."""
    runs = start("one"), start("two")
    with works("two runs wrote in turns"):
        for step in range(1, 5):
            for numbers, run in zip((0, 10), runs, strict=True):
                write(run, range(step, step + 1), numbers=numbers)
        for run in runs:
            run.finish()
    for numbers, run in zip((0, 10), runs, strict=True):
        stored(run, range(1, 5))
        sink = Sink(run.path)
        own, strange = (places_of(sink, range(1 + of, 5 + of)) for of in (numbers, 10 - numbers))
        demand(
            own and all(own.values()),
            "With two runs at the same time, values of one are missing in its results folder: keep the path in an "
            "object that `configure` registers, and write below `run.path`.",
        )
        demand(
            not any(strange.values()),
            "With two runs at the same time, values of one are in the other's folder: keep what belongs to a run in an "
            "object that `configure` registers.",
        )


def test_summary_is_one_transaction(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that uses SQLite stores each summary in one transaction, so that nobody sees half of it."""
    statements: list[str] = []
    connect = sqlite3.connect

    def traced(*arguments: Any, **keywords: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*arguments, **keywords)
        connection.set_trace_callback(statements.append)
        return connection

    monkeypatch.setattr(sqlite3, "connect", traced)
    run = start()
    for step in range(1, 4):
        statements.clear()
        write(run, range(step, step + 1))
        units = _units(statements)
        demand(
            units < 2,
            f"One summary of {len(KEYS)} keys was stored by {units} transactions: begin one, insert all rows, commit, "
            "such as by `with connection:`.",
        )
    run.finish()


def _units(statements: list[str]) -> int:
    """Return how many transactions that change something the statements make, those outside of any one by one."""
    units, inside, changed = 0, False, False
    for statement in statements:
        word = statement.split(maxsplit=1)[0].upper().rstrip(";") if statement.strip() else ""
        if word in {"BEGIN", "SAVEPOINT"}:
            inside = True
        elif word in {"COMMIT", "END", "ROLLBACK", "RELEASE"}:
            units, inside, changed = units + changed, False, False
        elif word in {"INSERT", "REPLACE", "UPDATE", "DELETE"}:
            changed, units = inside, units + (not inside)
    return units + changed


def test_full_disk_is_contained(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    """A summary that cannot be written disturbs neither the run nor what was written; later ones are stored."""
    run = start(strict=False)
    write(run, range(1, 4))
    before = stored(run, range(1, 4))
    with caplog.at_level(logging.CRITICAL), _full_disk(), works("the disk was full"):
        write(run, range(4, 5))
    with works("there was space on the disk again"):
        write(run, range(5, 7))
        run.finish()
    places = stored(run, range(1, 7))
    lost = sorted({step * STEP for (step, key), at in places.items() if before.get((step, key)) and not at})
    demand(not lost, f"A full disk cost the summaries of the steps {lost}, which had been written before it: append.")
    later = [step for step in lost_of(places) if step >= 5 * STEP]
    demand(
        not later,
        f"When there was space again, the summaries of the steps {later} were not stored: after a failed write the "
        "writer must be able to go on, such as with its transaction rolled back.",
    )


@contextmanager
def _full_disk() -> Iterator[None]:
    """Let every write to a file fail as on a full disk; standard streams are left alone."""
    if sys.platform == "win32":
        pytest.skip("a full disk is simulated by a limit on the size of files, which Windows does not have")
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    sys.stdout.flush()
    sys.stderr.flush()
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        yield
    except OSError as error:
        if error.errno not in {errno.EFBIG, errno.ENOSPC}:
            raise
        error.add_note("The failure came out of the hook although failures are contained: does a thread raise it?")
        raise
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_training_is_the_same_with_it(mlhooks_target: Target, scratch: Path) -> None:
    """A run with the writer ends with the same weights, bit for bit, as one without, and tells it all there is."""
    results = []
    for name, others in (("with", ()), ("without", (mlhooks_target.name,))):
        manager = mlhooks_target.manager(ScriptedEnvs(), without=others)
        if others:
            manager.set_blocked(mlhooks_target.name)
        run = train_in(scratch / name, manager, {**PPO, "max_steps": 640, "summary_freq": 200})
        results.append(weights(run.trainers["Scripted"]))
    differ = differing(*results)
    demand(
        not differ, f"With the writer, training ends with other weights ({', '.join(differ)}): it must only observe."
    )


def test_does_not_change_what_others_see(start: Start) -> None:
    """The values of a summary are the same for the writers that are called after it."""
    shown: list[dict[str, list[float]]] = []

    class Last:
        @hookimpl(trylast=True)
        def write_stats(self, values: dict[str, Any]) -> None:
            shown.append({key: list(summary.full_dist) for key, summary in values.items()})

    run = start()
    run.manager.register(Last(), "last")
    write(run, range(1, 2))
    middles = [number_for(1, index) for index in range(len(KEYS))]
    right = {key: [middle - 1.0, middle, middle + 1.0] for key, middle in zip(KEYS, middles, strict=True)}
    demand(shown == [right], "Writers that are called later get other values: do not change what `write_stats` gets.")
