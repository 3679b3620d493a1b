"""Checks of what a stats writer stores: every value once, under its key and step, odd ones too.

Values are looked for in the files that the writer leaves in the results folder and in the current one, as text, rows
of SQLite, TensorBoard events or binary numbers, and in what it prints where it leaves none. A writer that does neither
is checked for what can be seen.
"""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import pytest

from mlhooks.stats import StatsAggregationMethod, StatsSummary
from mlhooks.testing.assertions import demand, fail, works
from mlhooks.testing.collection import COSTS
from mlhooks.testing.writer_output import Sink
from mlhooks.testing.writer_run import (
    HISTOGRAM,
    KEYS,
    MOST_RECENT,
    STEP,
    SUM,
    Places,
    Start,
    WriterRun,
    number_for,
    places_of,
    write,
)

ODD_KEYS = (
    "Ünïcode/Größe",
    "报酬/平均",
    "a/b/c/d",
    "A/B/C/D",
    " spaces /around ",
    "spaces /around",
    "back\\slash",
    "quo'te\"d",
    "tab\tline\n",
    "%s {} ;--",
    "x" * 300,
    "",
)


def seen(sink: Sink, steps: range) -> Places:
    """Return where the numbers of `write` are; skip where none can be seen because the writer leaves no file."""
    places = places_of(sink, steps)
    if not sink.files and not places:
        pytest.skip("the writer leaves no file in the results folder: what its sink gets cannot be seen here")
    return places


def test_every_value_arrives_once_and_in_order(start: Start) -> None:
    """Each key of each summary is stored exactly once, in the order of the summaries."""
    run = start()
    steps = range(1, 8)
    with works("summaries were written"):
        write(run, steps)
        run.finish()
    places = seen(run.sink(), steps)
    missing = [f"{KEYS[key]} at step {step * STEP}" for (step, key), at in places.items() if not at]
    demand(
        not missing,
        f"{len(missing)} of {len(places)} values were not stored: {', '.join(missing[:5])}. Store the "
        "aggregated_value of every key in each call of write_stats.",
    )
    double = [f"{KEYS[key]} at step {step * STEP}" for (step, key), at in places.items() if len(at) > 1]
    demand(
        not double,
        f"{len(double)} of {len(places)} values were stored more than once: {', '.join(double[:5])}. Append what "
        "a call of write_stats gets, and nothing that was stored before.",
    )
    for key in {key for _, key in places}:
        order = [places[step, key][0] for step in steps]
        demand(order == sorted(order), f"The values of {KEYS[key]} are not stored in the order of their steps: append.")


def test_steps_and_keys_are_stored(start: Start) -> None:
    """Beside its value, a summary's step and key are stored."""
    run = start()
    steps = range(1, 5)
    with works("summaries were written"):
        write(run, steps)
        run.finish()
    sink = run.sink()
    places = seen(sink, steps)
    beside = {
        (step, other)
        for (step, _), at in places.items()
        for place in at
        for other in steps
        if sink.records[place].count(other * STEP)
    }
    lost = [step * STEP for step in steps if (step, step) not in beside]
    if not beside:  # They may be in records of their own.
        files = {sink.records[place].path for at in places.values() for place in at}
        records = [record for record in sink.records if record.path in files and record.numbers]
        lost = [step * STEP for step in steps if records and not any(r.count(step * STEP) for r in records)]
    demand(not lost, f"The steps {lost} of summaries do not stand beside their values: store the `step` that you get.")
    data = b"".join(path.read_bytes() for path in sink.files)
    lost_keys = [key for key in KEYS if key.encode() not in data and key.replace("/", "\\/").encode() not in data]
    demand(not sink.files or not lost_keys, f"The keys {lost_keys} are not stored under their names.")


def test_aggregation_is_respected(start: Start) -> None:
    """What is stored of a key is its aggregated value: the mean, or the sum under SUM, the last under MOST_RECENT."""
    run = start()
    sums, last, middle = number_for(3, 4), number_for(3, 5), number_for(3, 6)
    with works("values with other aggregations were written"):
        write(run, range(1, 2))
        run.summary(2 * STEP, {"Some/Sum": [sums - 700.25, 700.25]}, SUM)
        run.summary(3 * STEP, {"Some/Last": [7.0, last]}, MOST_RECENT)
        run.summary(4 * STEP, {"Some/Distribution": [middle - 1.5, middle - 0.25, middle + 1.75]}, HISTOGRAM)
        run.finish()
    sink = run.sink()
    if sink.places(3 * number_for(1, 0)) and not sink.places(number_for(1, 0)):
        fail("Of a key that is averaged the sum was shown: use StatsSummary.aggregated_value.")
    seen(sink, range(1, 2))
    if not sink.files:
        pytest.skip("it prints some keys only")
    for what, number in (("the sum", sums), ("the last", last), ("the mean of a distribution", middle)):
        demand(sink.places(number), f"Of a key {what} counts, and was not stored: use StatsSummary.aggregated_value.")
    means = max(sink.records[place].count(sums / 2) for place in sink.places(sums))
    demand(
        means < 2,
        "Of a key that is summed the mean is stored twice, so one of them cannot be its aggregated value: use "
        "StatsSummary.aggregated_value.",
    )


@pytest.mark.parametrize("aggregation", [StatsAggregationMethod.AVERAGE, SUM, HISTOGRAM])
def test_numbers_are_what_their_names_say(start: Start, aggregation: StatsAggregationMethod) -> None:
    """Where numbers of a key have names, as columns or in JSON, `mean`, `std`, `sum`, `count` and `step` are those."""
    run = start()
    values = [1.0, 2.5, 7.25, 9.0]
    with works("a summary was written"):
        write(run, range(1, 2))
        run.summary(2 * STEP, {"Named/Key": values}, aggregation)
        run.finish()
    right = StatsSummary(values, aggregation)
    names = {
        "mean": right.mean,
        "std": right.std,
        "sum": right.sum,
        "step": 2.0 * STEP,
        **dict.fromkeys(("count", "num"), 4.0),
        **dict.fromkeys(("value", "aggregated_value"), right.aggregated_value),
    }
    for item in run.sink().named("Named/Key"):
        for name, wanted in names.items():
            found = item.get(name, wanted)
            demand(
                isinstance(found, (int, float)) and math.isclose(found, wanted, rel_tol=1e-5),
                f"Of a key with the values {values} under {aggregation.name}, {found} is stored as its {name!r}, and "
                f"that is {wanted:g}.",
            )


def test_behaviors_are_told_apart(start: Start) -> None:
    """Two behaviors with the same keys at the same steps do not replace one another, and each is stored by its name."""
    run = start(behavior="First")
    second = run.add("Second")
    steps, later = range(1, 4), range(21, 24)
    with works("two behaviors wrote in turns"):
        for step in steps:
            write(run, range(step, step + 1))
            write(run, range(step, step + 1), second, numbers=20)
        run.finish()
    sink = run.sink()
    of_first, of_second = seen(sink, steps), seen(sink, later)
    for name, places in (("First", of_first), ("Second", of_second)):
        demand(all(places.values()), f"With two behaviors, values of {name} are missing: does one replace the other?")
    found = [
        (name, {other for other in ("First", "Second") if other in f"{_below(run, record.path)}\n{record.text}"})
        for name, places in (("First", of_first), ("Second", of_second))
        for at in places.values()
        for record in (sink.records[place] for place in at)
    ]
    named = any(names for _, names in found) or not sink.files
    wrong = {name for name, names in found if names != {name}} if named else set()
    texts = "\n".join([str(_below(run, path)) + str(path.read_bytes()) for path in sink.files])
    wrong |= {name for name in ("First", "Second") if sink.files and name not in texts}
    demand(not wrong, f"Values of the behaviors {sorted(wrong)} are not stored under the behavior's name: `category`.")


def _below(run: WriterRun, path: Any) -> Any:
    return path.relative_to(run.path) if path.is_relative_to(run.path) else path.name


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
    sink = run.sink()
    places = [sink.places(number) for number in numbers]
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
            run.summary(step * STEP * STEP, {KEYS[0]: [number_for(step, 6)] * count, "Other/Key": [1.0] * 7})
        run.finish()
    sink = run.sink()
    columns: list[set[str]] = []
    # These say what each number would be to the count, in each period.
    strange: list[dict[tuple[str, float], int]] = []
    for step, count in enumerate(counts, 1):
        strange.append({})
        for place in sink.places(number_for(step, 6)):
            record = sink.records[place]
            found = {int(number) for number in record.numbers if number.is_integer() and 500 < number < 5000} - {count}
            for number in found:
                meant = {"times": number / count, "more": number - count}
                meant |= {"all": number - sum(counts[:step]), "late": number - counts[step - 2]}
                strange[-1] |= {(name, round(value, 9)): number for name, value in meant.items()}
                strange[-1]["always", number] = number
            columns += [{name for name, cell in item.items() if cell == count} for item in record.names]
    # A number that stands there by chance, such as steps per second, is not the same thing to the count in two periods.
    wrong_counts = [strange[2][meaning] for meaning in strange[1].keys() & strange[2].keys()]
    demand(
        not wrong_counts,
        f"Beside a key with {counts[2]} values in a period, {wrong_counts[0] if wrong_counts else 0} is stored as "
        "its count: store StatsSummary.num.",
    )
    for item in sink.named("Other/Key"):
        wrong = sorted(name for names in columns for name in names if item.get(name, 7) != 7)
        demand(
            not wrong,
            f"Of a key with 7 values in a period, {item.get((wrong or [''])[0])} is stored in {wrong}: store num.",
        )


def test_survives_an_empty_summary(start: Start) -> None:
    """A summary without any key, and a key without any value, are written without a failure."""
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
    if sink.files and any(sink.places(number_for(2, key)) for key in range(len(KEYS))):
        lost = [key for index, key in enumerate(ODD_KEYS) if not sink.places(number_for(1, 10 + index))]
        demand(not lost, f"The values of these keys were not stored, or replaced one another: {lost}.")


def test_survives_a_million_values(start: Start, request: pytest.FixtureRequest) -> None:
    """A distribution of a million values is written without a failure; how long it takes is reported."""
    run = start()
    big = {"Big/Distribution": StatsSummary(np.linspace(-1.0, 1.0, 1_000_000), HISTOGRAM)}
    began = time.perf_counter()
    with works("a distribution of a million values was written"):
        run.manager.hook.write_stats(category="Behavior", values=big, step=STEP)
    _report(request, f"a distribution of a million values: {time.perf_counter() - began:.3f} s")
    write(run, range(2, 4))
    run.finish()
    _demand_stored(run, range(2, 4))


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
    places = places_of(run.sink(), steps)
    if any(places.values()):
        demand(
            all(places.values()),
            "Values of later summaries are missing: what is odd in one summary must not keep the writer from the next.",
        )


def _report(request: pytest.FixtureRequest, text: str) -> None:
    name = request.getfixturevalue("mlhooks_target").name
    request.config.stash[COSTS].append(f"{name}: {text}")
