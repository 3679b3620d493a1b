"""What do hooks cost? The share of a PPO run that hook dispatch takes, with 0, 1 and 10 stats plugins.

`python benchmarks/hook_overhead.py` trains the workload `ppo_cartpole` of `speed.py` without writers, then with plugins
that implement all hooks that training calls again and again, and do nothing in them: what a call takes then is
dispatch. It times these calls from the first observation on, and writes `results/hook_overhead.json` and `.md`.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from statistics import median
from time import perf_counter
from typing import Any

import pluggy
from peers import HERE
from report import machine
from speed_mlhooks import Stopwatch, configuration
from workloads import WORKLOADS

import mlhooks
from mlhooks import hookimpl

WRITERS = ("no:console", "no:tensorboard", "no:jsonl", "no:curve")
HOOKS = {"on_add_stat", "write_stats", "add_property", "update_finished"}
COUNTS = (0, 1, 10)


class Idle:
    """A stats plugin that does nothing."""

    @hookimpl
    def on_add_stat(self, category: str, key: str, value: float, aggregation: Any) -> None:
        """Nothing."""

    @hookimpl
    def write_stats(self, category: str, values: Any, step: int) -> None:
        """Nothing."""

    @hookimpl
    def add_property(self, category: str, property_type: Any, value: Any) -> None:
        """Nothing."""

    @hookimpl
    def update_finished(self, trainer: Any, step: int, losses: Any) -> None:
        """Nothing."""


class Clock:
    """Seconds and number of hook calls."""

    seconds, calls = 0.0, 0

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Time the calls of `HOOKS`."""
        call = pluggy.HookCaller.__call__

        def timed(caller: pluggy.HookCaller, **arguments: Any) -> Any:
            if caller.name not in HOOKS:
                return call(caller, **arguments)
            started = perf_counter()
            try:
                return call(caller, **arguments)
            finally:
                self.seconds += perf_counter() - started
                self.calls += 1

        pluggy.HookCaller.__call__ = timed  # type: ignore[method-assign]
        try:
            yield
        finally:
            pluggy.HookCaller.__call__ = call  # type: ignore[method-assign]


class Start(Stopwatch):
    """Sets the clock to zero when training starts."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    @hookimpl
    def behavior_added(self) -> None:
        """Start."""
        super().behavior_added()
        self.clock.seconds, self.clock.calls = 0.0, 0


def measure(plugins: int, steps: int, seed: int) -> dict[str, float]:
    """One run with so many plugins."""
    clock = Clock()
    stopwatch = Start(clock)
    settings = WORKLOADS["ppo_cartpole"] | {"steps": steps, "seed": seed}
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()), clock.running():
        mlhooks.train(
            configuration(settings),
            plugins=[stopwatch, *(Idle() for _ in range(plugins))],
            plugin_names=WRITERS,
            results_dir=folder,
        )
    seconds = stopwatch.ended - stopwatch.started
    return {"seconds": seconds, "hook_seconds": clock.seconds, "hook_calls": clock.calls}


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="runs with each number of plugins (default 5)")
    parser.add_argument("--steps", type=int, default=100_000, help="environment steps of a run (default 100,000)")
    args = parser.parse_args()
    if os.environ.get("OMP_NUM_THREADS") != "1":
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | {"OMP_NUM_THREADS": "1"})
    measure(0, 4096, 0)
    runs: dict[int, list[dict[str, float]]] = {count: [] for count in COUNTS}
    for seed in range(1, args.rounds + 1):
        for count in COUNTS:
            runs[count].append(measure(count, args.steps, seed))
    libraries = ", ".join(f"{name} {version(name)}" for name in ("mlhooks", "pluggy", "torch", "numpy", "gymnasium"))
    lines = [
        "# What hooks cost",
        "",
        f"PPO on CartPole-v1 as in `speed.py`, {args.steps:,} steps, {args.rounds} runs with each number of stats "
        "plugins that do nothing; medians.",
        "",
        f"Measured on {datetime.now(UTC).date()}, on {machine()}, with {libraries}, by "
        f"`python benchmarks/hook_overhead.py --rounds {args.rounds} --steps {args.steps}`.",
        "",
        "| stats plugins | hook calls | of the loop's time | microseconds a call |",
        "| --- | --- | --- | --- |",
    ]
    for count, results in runs.items():
        calls = median(run["hook_calls"] for run in results)
        share = median(run["hook_seconds"] / run["seconds"] for run in results)
        cost = median(run["hook_seconds"] / max(1, run["hook_calls"]) for run in results)
        lines.append(f"| {count} | {calls:,.0f} | {share:.2%} | {1e6 * cost:.1f} |")
    text = "\n".join(lines) + "\n"
    folder = HERE / "results"
    folder.mkdir(exist_ok=True)
    (folder / "hook_overhead.json").write_text(json.dumps(runs, indent=1) + "\n", encoding="utf-8")
    (folder / "hook_overhead.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
