"""What do hooks cost? The share of a PPO run that hook dispatch takes, with the default plugins and with more.

`python benchmarks/hook_overhead.py` trains the workload `ppo_cartpole` with the plugins that every run has, then with 1
and with 10 stats plugins more, which do nothing. It times every hook call from the first observation on, and within it
what the plugins' own functions take: the difference is dispatch. It writes `results/hook_overhead.json` and `.md`.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import pluggy
from peers import HERE
from report import machine, table, today, write
from speed_mlhooks import Stopwatch, configuration
from workloads import WORKLOADS

import mlhooks
from mlhooks import hookimpl

COUNTS = (0, 1, 10)
LIMITS = {0: 0.01, 10: 0.05}
"""What dispatch may take of the loop's time, by the number of stats plugins besides the default ones."""


class Idle:
    """A stats plugin that does nothing."""

    @hookimpl
    def on_add_stat(self, category: str, key: str, value: float, aggregation: Any) -> None:
        """Do nothing."""

    @hookimpl
    def write_stats(self, category: str, values: Any, step: int) -> None:
        """Do nothing."""

    @hookimpl
    def add_property(self, category: str, property_type: Any, value: Any) -> None:
        """Do nothing."""

    @hookimpl
    def update_finished(self, trainer: Any, step: int, losses: Any) -> None:
        """Do nothing."""


class Clock:
    """Seconds within hook calls, those of them within plugins, and the number of calls."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin again."""
        self.within_calls = self.within_plugins = 0.0
        self.calls = 0

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Time all hook calls, and the functions of all plugins that are registered meanwhile."""
        call, make = pluggy.HookCaller.__call__, pluggy.HookImpl.__init__

        def timed_call(caller: pluggy.HookCaller, **arguments: Any) -> Any:
            started = perf_counter()
            try:
                return call(caller, **arguments)
            finally:
                self.within_calls += perf_counter() - started
                self.calls += 1

        def timed_make(implementation: pluggy.HookImpl, *arguments: Any) -> None:
            make(implementation, *arguments)
            if not implementation.wrapper:
                implementation.function = timed_function(implementation.function)

        def timed_function(function: Callable[..., Any]) -> Callable[..., Any]:
            def timed(*arguments: Any) -> Any:
                started = perf_counter()
                try:
                    return function(*arguments)
                finally:
                    self.within_plugins += perf_counter() - started

            return timed

        pluggy.HookCaller.__call__, pluggy.HookImpl.__init__ = timed_call, timed_make  # type: ignore[method-assign]
        try:
            yield
        finally:
            pluggy.HookCaller.__call__, pluggy.HookImpl.__init__ = call, make  # type: ignore[method-assign]


class Start(Stopwatch):
    """Sets the clock to zero when training starts, and reads it when the last update is done."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.read: dict[str, float] = {}

    @hookimpl
    def behavior_added(self) -> None:
        """Start."""
        super().behavior_added()
        self.clock.reset()

    @hookimpl(trylast=True)
    def update_finished(self, step: int) -> None:
        """Read."""
        super().update_finished(step)
        plugins, dispatch = self.clock.within_plugins, self.clock.within_calls - self.clock.within_plugins
        self.read = {"plugin_seconds": plugins, "dispatch_seconds": dispatch, "hook_calls": self.clock.calls}


def measure(plugins: int, steps: int, seed: int) -> dict[str, float]:
    """Return one run with so many plugins more."""
    clock = Clock()
    stopwatch = Start(clock)
    settings = WORKLOADS["ppo_cartpole"] | {"steps": steps, "seed": seed}
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()), clock.running():
        mlhooks.train(
            configuration(settings),
            seed=seed,
            plugins=[stopwatch, *(Idle() for _ in range(plugins))],
            results_dir=folder,
        )
    return {"seconds": stopwatch.ended - stopwatch.started, **stopwatch.read}


def row(count: int, runs: list[dict[str, float]]) -> list[str]:
    """Return a row of the table."""
    share = median(run["dispatch_seconds"] / run["seconds"] for run in runs)
    own = median(run["plugin_seconds"] / run["seconds"] for run in runs)
    cost = 1e6 * median(run["dispatch_seconds"] / run["hook_calls"] for run in runs)
    limit = f"{LIMITS[count]:.0%}" if count in LIMITS else ""
    calls = median(run["hook_calls"] for run in runs)
    return [f"default and {count}", f"{calls:,.0f}", f"{cost:.1f}", f"{share:.2%}", limit, f"{own:.2%}"]


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="runs with each number of plugins (default 5)")
    parser.add_argument("--steps", type=int, default=100_000, help="environment steps of a run (default 100,000)")
    parser.add_argument("--output", type=Path, default=HERE / "results", metavar="DIR", help="where to write")
    args = parser.parse_args()
    if os.environ.get("OMP_NUM_THREADS") != "1":
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | {"OMP_NUM_THREADS": "1"})
    measure(0, 4096, 0)
    runs: dict[int, list[dict[str, float]]] = {count: [] for count in COUNTS}
    for seed in range(1, args.rounds + 1):
        for count in COUNTS:
            runs[count].append(measure(count, args.steps, seed))
    libraries = ("mlhooks", "pluggy", "torch", "numpy", "gymnasium")
    facts = {
        "date": today(),
        "machine": machine(),
        "libraries": ", ".join(f"{name} {version(name)}" for name in libraries),
        "work": f"PPO on CartPole-v1 as in `speed.py`, {args.steps:,} steps, {args.rounds} runs with each number",
        "command": f"python benchmarks/hook_overhead.py --rounds {args.rounds} --steps {args.steps}",
    }
    header = ["stats plugins", "hook calls", "microseconds a call", "dispatch, of the loop's time", "at most"]
    lines = [
        *table([*header, "plugins' own work"], [row(count, results) for count, results in runs.items()]),
        "",
        "Medians. Dispatch is what hook calls take beyond the plugins' own functions, with what timing these costs.",
    ]
    write(args.output, "hook_overhead", facts, {"runs": runs}, lines)


if __name__ == "__main__":
    main()
