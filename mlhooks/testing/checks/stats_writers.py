"""What is demanded of a stats writer: every value once, odd ones too, over resumes, full disks and in several runs.

Values are looked for in the files that the writer leaves in the results folder and in the current one, as text, rows
of SQLite, TensorBoard events or binary numbers. A writer that stores none there is checked for what can be seen.
"""

from __future__ import annotations

import errno
import logging
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from mlhooks import hookimpl
from mlhooks.testing.collection import COSTS
from mlhooks.testing.demands import demand, works
from mlhooks.testing.managers import ScriptedEnvs, train_in
from mlhooks.testing.playing import differing, weights
from mlhooks.testing.short_runs import PPO
from mlhooks.testing.sinks import Sink
from mlhooks.testing.target import Target
from mlhooks.testing.writing import HISTOGRAM, MOST_RECENT, SUM, WriterRun, number_for

KEYS = ("Environment/Cumulative Reward", "Losses/Policy Loss", "Policy/Entropy")
STEP = 1000
ODD_KEYS = (
    "Ünïcode/Größe",
    "报酬/平均",
    "a/b/c/d",
    "back\\slash",
    "quo'te\"d",
    "tab\tline\n",
    "%s {} ;--",
    "x" * 300,
    "",
)

Start = Callable[..., WriterRun]


@pytest.fixture
def start(mlhooks_target: Target, scratch: Path) -> Iterator[Start]:
    """Starts runs of the writer; those that a check leaves open are finished after it."""
    runs: list[WriterRun] = []

    def start(folder: str = "results", **arguments: object) -> WriterRun:
        with works("a run started"):
            runs.append(WriterRun(mlhooks_target, scratch / folder, **arguments))  # type: ignore[arg-type]
        if not runs[-1].writes:
            pytest.skip("the plugin registers nothing that implements write_stats, on_add_stat or add_property")
        return runs[-1]

    yield start
    for run in runs:
        run.manager.strict = False
        run.finish()


def write(run: WriterRun, steps: range) -> None:
    """Summaries at some steps, with numbers that stand for step and key."""
    for step in steps:
        values = {}
        for index, key in enumerate(KEYS):
            middle = number_for(step, index)
            values[key] = [middle - 1.0, middle, middle + 1.0]
        run.summary(step * STEP, values)


def found(sink: Sink, steps: range, *, required: bool) -> dict[tuple[int, int], list[int]]:
    """Where the numbers of `write` are; skips where the writer leaves no file, and that may be."""
    places = {(step, key): sink.places(number_for(step, key)) for step in steps for key in range(len(KEYS))}
    if not sink.files and not required:
        pytest.skip("the writer leaves no file in the results folder: what its sink gets cannot be seen here")
    return places


def test_every_value_arrives_once_and_in_order(start: Start) -> None:
    """Each key of each summary is stored exactly once, in the order of the summaries."""
    run = start()
    steps = range(1, 8)
    with works("summaries were written"):
        write(run, steps)
        run.finish()
    places = found(run.sink(), steps, required=False)
    missing = [f"{KEYS[key]} at step {step * STEP}" for (step, key), at in places.items() if not at]
    demand(not missing, f"{len(missing)} of {len(places)} values were not stored: {', '.join(missing[:5])}.")
    double = [f"{KEYS[key]} at step {step * STEP}" for (step, key), at in places.items() if len(at) > 1]
    demand(not double, f"{len(double)} of {len(places)} values were stored more than once: {', '.join(double[:5])}.")
    for key in range(len(KEYS)):
        order = [places[step, key][0] for step in steps]
        demand(order == sorted(order), f"The values of {KEYS[key]} are not stored in the order of their steps.")


def test_steps_and_keys_are_stored(start: Start) -> None:
    """Beside its value, a summary's step and key are stored."""
    run = start()
    steps = range(1, 5)
    with works("summaries were written"):
        write(run, steps)
        run.finish()
    sink = run.sink()
    at = [place for places in found(sink, steps, required=False).values() for place in places]
    files = {sink.records[place][0] for place in at}
    texts = [record for path, record in sink.records if path in files and isinstance(record, frozenset)]
    if texts:
        lost = [step * STEP for step in steps if not any(step * STEP in record for record in texts)]
        demand(not lost, f"The steps {lost} of summaries are not stored.")
    data = b"".join(path.read_bytes() for path in sorted(files))
    lost_keys = [key for key in KEYS if key.encode() not in data and key.replace("/", "\\/").encode() not in data]
    demand(not lost_keys, f"The keys {lost_keys} are not stored under their names.")


def test_aggregation_is_respected(start: Start) -> None:
    """What is stored of a key is its aggregated value: the sum under SUM, the last under MOST_RECENT."""
    run = start()
    sums, last = number_for(3, 4), number_for(3, 5)
    with works("values with other aggregations were written"):
        write(run, range(1, 2))
        run.summary(2 * STEP, {"Some/Sum": [sums - 700.25, 700.25]}, SUM)
        run.summary(3 * STEP, {"Some/Last": [7.0, last]}, MOST_RECENT)
        run.finish()
    sink = run.sink()
    found(sink, range(1, 2), required=False)
    demand(sink.places(sums), "Of a key that is summed the sum was not stored: use StatsSummary.aggregated_value.")
    demand(
        sink.places(last), "Of a key whose last value counts that was not stored: use StatsSummary.aggregated_value."
    )


def test_emissions_are_stored_once(start: Start) -> None:
    """Where single emissions are stored, each is there exactly once and in order."""
    run = start()
    if not run.manager.implemented("on_add_stat"):
        pytest.skip("it does not implement on_add_stat")
    numbers = [number_for(20, index) + 0.25 for index in range(30)]
    with works("values were emitted"):
        for number in numbers:
            run.trainer.stats.add_stat("Emitted/One", number)
        run.trainer.stats.write_stats(STEP)
        run.finish()
    places = [run.sink().places(number) for number in numbers]
    if not any(places):
        pytest.skip("it stores no single emissions in files of the results folder")
    missing, double = sum(not at for at in places), sum(len(at) > 1 for at in places)
    demand(not missing, f"{missing} of {len(numbers)} emitted values were not stored.")
    demand(not double, f"{double} of {len(numbers)} emitted values were stored more than once.")
    order = [at[0] for at in places]
    demand(order == sorted(order), "Emitted values are not stored in their order.")


def test_counts_are_right(start: Start) -> None:
    """Where counts are stored beside a key's value, they are those of its values in this summary period."""
    run = start()
    counts = (1009, 1013, 1019)
    with works("keys with many values were written"):
        for step, count in enumerate(counts, 1):
            run.summary(step * STEP * STEP, {"Counted/Key": [number_for(step, 6)] * count})
        run.finish()
    sink = run.sink()
    for step, count in enumerate(counts, 1):
        for place in sink.places(number_for(step, 6)):
            record = sink.records[place][1]
            found = (
                {number for number in record if number.is_integer() and 500 < number < 5000}
                if (isinstance(record, frozenset))
                else set()
            )
            demand(found <= {count}, f"Beside a key with {count} values in a period, {found} is stored as a count.")


def test_survives_an_empty_summary(start: Start) -> None:
    """A summary without any key, and a key without any value, are written without a failure."""
    from mlhooks.stats import StatsSummary

    run = start()
    with works("a summary without keys was written"):
        run.summary(STEP, {})
        run.manager.hook.write_stats(category="Behavior", values={"Empty/Key": StatsSummary()}, step=2 * STEP)
        write(run, range(3, 5))
        run.finish()
    _demand_stored(run, range(3, 5))


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, 1e308, 5e-324])
def test_survives_odd_numbers(start: Start, number: float) -> None:
    """NaN, infinity and the largest and smallest numbers are written without a failure, and do not spoil others."""
    run = start()
    with works(f"the value {number} was written"):
        run.summary(STEP, {"Odd/Number": [number], "Odd/Among": [1.0, number, 2.0]})
        run.summary(2 * STEP, {"Odd/Number": [number, 1.0]}, HISTOGRAM)
        write(run, range(3, 5))
        run.finish()
    _demand_stored(run, range(3, 5))


def test_survives_any_key(start: Start) -> None:
    """Keys and behavior names with unicode, slashes, quotes and control characters are written without a failure."""
    run = start(behavior="Größe/äü 报酬")
    with works("odd keys were written"):
        run.summary(STEP, {key: [number_for(1, 10 + index)] for index, key in enumerate(ODD_KEYS)})
        write(run, range(2, 4))
        run.finish()
    _demand_stored(run, range(2, 4))
    sink = run.sink()
    if any(sink.places(number_for(2, key)) for key in range(len(KEYS))):
        lost = [key for index, key in enumerate(ODD_KEYS) if not sink.places(number_for(1, 10 + index))]
        demand(not lost, f"The values of these keys were not stored: {lost}.")


def test_survives_a_million_values(start: Start, request: pytest.FixtureRequest) -> None:
    """A distribution of a million values is written without a failure; how long it takes is reported."""
    run = start()
    run.trainer.stats.add_stats("Big/Distribution", np.linspace(-1.0, 1.0, 1_000_000), HISTOGRAM) if not (
        run.manager.implemented("on_add_stat")
    ) else None
    if run.manager.implemented("on_add_stat"):  # a call for each would measure the calls
        from mlhooks.stats import StatsSummary

        big = {"Big/Distribution": StatsSummary(np.linspace(-1.0, 1.0, 1_000_000), HISTOGRAM)}
        began = time.perf_counter()
        with works("a distribution of a million values was written"):
            run.manager.hook.write_stats(category="Behavior", values=big, step=STEP)
    else:
        began = time.perf_counter()
        with works("a distribution of a million values was written"):
            run.trainer.stats.write_stats(STEP)
    _report(request, f"a distribution of a million values: {time.perf_counter() - began:.3f} s")
    write(run, range(2, 4))
    run.finish()
    _demand_stored(run, range(2, 4))


def test_resume_appends(start: Start) -> None:
    """A run that resumes keeps what was written before, each value once."""
    first = start()
    write(first, range(1, 5))
    first.finish()
    found(first.sink(), range(1, 5), required=False)
    with works("a resumed run wrote"):
        second = start(resumed=True, step=4 * STEP)
        write(second, range(5, 8))
        second.finish()
    places = found(second.sink(), range(1, 8), required=True)
    lost = sorted({step * STEP for (step, _), at in places.items() if not at})
    demand(
        not lost, f"After a resume the summaries of the steps {lost} are missing: append to what `run.resumed` finds."
    )
    double = sorted({step * STEP for (step, _), at in places.items() if len(at) > 1})
    demand(not double, f"After a resume the summaries of the steps {double} are stored twice.")


def test_two_runs_do_not_mix(start: Start) -> None:
    """Two runs at the same time write each to its own folder: state belongs to the run, not to the module."""
    runs = start("one"), start("two")
    with works("two runs wrote in turns"):
        for step in range(1, 5):
            for offset, run in zip((0, 10), runs, strict=True):
                write(run, range(step + offset, step + offset + 1))
        for run in runs:
            run.finish()
    found(Sink(*(run.path for run in runs)), range(1, 5), required=False)
    for offset, run in zip((0, 10), runs, strict=True):
        sink = Sink(run.path)
        places = found(sink, range(1 + offset, 5 + offset), required=True)
        demand(all(places.values()), "With two runs at the same time, values of one are missing in its results folder.")
        strange = found(sink, range(11 - offset, 15 - offset), required=True)
        demand(not any(strange.values()), "With two runs at the same time, values of one are in the other's folder.")


def test_full_disk_is_contained(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    """A summary that cannot be written disturbs neither the run nor what was written; later ones are stored."""
    run = start(strict=False)
    write(run, range(1, 4))
    before = found(run.sink(), range(1, 4), required=False)
    with caplog.at_level(logging.CRITICAL), _full_disk(), works("the disk was full"):
        write(run, range(4, 5))
    with works("there was space on the disk again"):
        write(run, range(5, 7))
        run.finish()
    places = found(run.sink(), range(1, 7), required=True)
    lost = sorted({step * STEP for (step, key), at in places.items() if before.get((step, key)) and not at})
    demand(not lost, f"A full disk cost the summaries of the steps {lost}, which had been written before it.")
    later = sorted({step * STEP for (step, _), at in places.items() if step >= 5 and not at})
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
    seen: list[dict[str, list[float]]] = []

    class Last:
        @hookimpl(trylast=True)
        def write_stats(self, values: dict[str, object]) -> None:
            seen.append({key: list(summary.full_dist) for key, summary in values.items()})  # type: ignore[attr-defined]

    run = start()
    run.manager.register(Last(), "last")
    write(run, range(1, 2))
    middles = [number_for(1, index) for index in range(len(KEYS))]
    right = {key: [middle - 1.0, middle, middle + 1.0] for key, middle in zip(KEYS, middles, strict=True)}
    demand(seen == [right], "Writers that are called later get other values: do not change what `write_stats` gets.")


def test_costs_are_reported(start: Start, request: pytest.FixtureRequest) -> None:
    """What a summary of 20 keys and an emitted value cost is reported; it is no reason to fail."""
    run = start()
    keys = [f"Cost/Key {index}" for index in range(20)]
    for step in range(1, 31):
        for key in keys:
            run.trainer.stats.add_stat(key, 1.0)
        if step == 11:
            began = time.perf_counter()
        run.trainer.stats.write_stats(step * STEP)
    per_summary = (time.perf_counter() - began) / 20
    began = time.perf_counter()
    for _ in range(2000):
        run.trainer.stats.add_stat("Cost/Emitted", 1.0)
    per_stat = (time.perf_counter() - began) / 2000
    _report(request, f"a summary of 20 keys: {1e3 * per_summary:.3f} ms; an emitted value: {1e6 * per_stat:.2f} us")


def _demand_stored(run: WriterRun, steps: range) -> None:
    places = {key: run.sink().places(number_for(step, key)) for step in steps for key in range(len(KEYS))}
    if any(places.values()):
        demand(all(places.values()), "Values of later summaries are missing.")


def _report(request: pytest.FixtureRequest, text: str) -> None:
    name = request.getfixturevalue("mlhooks_target").name
    request.config.stash[COSTS].append(f"{name}: {text}")
