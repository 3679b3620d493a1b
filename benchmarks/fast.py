"""What `mlhooks/fast` gains: the same training fast, with tensors in place of arrays in losses, and plain.

`python benchmarks/fast.py` trains workloads of `workloads.py` each way, `--rounds` times in alternation, each run in a
process and on one thread, and writes `results/fast.json` and `results/fast.md`. It takes the environment that it runs
in, which needs mlhooks with the extra `gymnasium`. The machine should be idle.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from statistics import median
from typing import Any

from peers import HERE, Peer
from report import machine, spread, table, today, write
from workloads import WORKLOADS

WAYS = {
    "fast": {},
    "tensors": {"array_arithmetic": False},
    "plain": {"plain": True},
}
CHOSEN = "ppo_cartpole", "ppo_cartpole_64", "ppo_pendulum", "a2c_cartpole", "dqn_cartpole"


class ThisEnvironment(Peer):
    """mlhooks, where this script runs."""

    def python(self) -> Path:
        """Return the interpreter of this script."""
        return Path(sys.executable)


def measure(workload: str, rounds: int, steps: int | None) -> dict[str, list[dict[str, Any]]]:
    """Run each way `rounds` times, a different one first each time."""
    peer, results = ThisEnvironment("mlhooks", "speed_mlhooks.py"), {way: [] for way in WAYS}
    for number in range(rounds):
        ways = list(WAYS)
        for way in ways[number % len(ways) :] + ways[: number % len(ways)]:
            settings = WORKLOADS[workload] | WAYS[way] | {"seed": number + 1}
            result = peer.run(settings | ({"steps": steps} if steps else {}))
            results[way].append(result | {"steps_per_second": result["steps"] / result["loop_seconds"]})
            print(workload, number, way, round(results[way][-1]["steps_per_second"]), flush=True)
    return results


def main() -> None:
    """Measure, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workloads", nargs="*", help="of workloads.py; by default five")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, help="environment steps of a run, in place of the workload's own")
    parser.add_argument("--output", type=Path, default=HERE / "results", help="where to write")
    options = parser.parse_args()
    results, rows = {}, []
    for workload in options.workloads or CHOSEN:
        found = results[workload] = measure(workload, options.rounds, options.steps)
        speeds = {way: [run["steps_per_second"] for run in runs] for way, runs in found.items()}
        slowest = median(speeds["plain"])
        rows.append(
            [workload, *(spread(speed, 0) for speed in speeds.values()), f"{median(speeds['fast']) / slowest:.1f}"]
        )
    facts = {"machine": machine(), "date": today(), "command": " ".join(["python", *sys.argv])}
    header = ["steps/s", "fast", "tensors in losses", "plain", "fast over plain"]
    write(options.output, "fast", facts, results, table(header, rows))


if __name__ == "__main__":
    main()
