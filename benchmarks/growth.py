"""What grows with a run? Speed and memory over the number of agents, of workers, and of steps.

`python benchmarks/growth.py` trains PPO on `sim:3DBall` with 1 to 4096 agents in one environment, with 1 to 8 worker
processes of 64 agents each, and 5 million steps at a stretch; it writes `results/growth.json` and `.md`. It needs
Linux.

- steps/s: agent steps over the seconds of the training loop.
- memory: of the training process and its workers together at the end of the run, what they share counted once.
- peak: the greatest resident memory of the largest process.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from peers import HERE
from report import machine, spread, table, today, write
from speed import MLHOOKS

ROLLOUT, STEPS, LONG = 16_384, 6 * 16_384, (500_000, 5_000_000)
AGENTS, WORKERS, AREAS = (1, 4, 16, 64, 256, 1024, 4096), (1, 2, 4, 8), 64


def settings(agents: int, workers: int, steps: int) -> dict[str, Any]:
    """Return a run."""
    behavior = {
        "trainer_type": "ppo",
        "hyperparameters": {"batch_size": 2048, "buffer_size": ROLLOUT, "num_epoch": 3, "learning_rate": 3e-4},
        "network_settings": {"hidden_units": 64, "num_layers": 2},
        "max_steps": steps,
        "time_horizon": 1000,
        "summary_freq": ROLLOUT,
    }
    environment = {"env_path": "sim:3DBall", "num_areas": agents, "num_envs": workers}
    torch = {"device": "cpu", "threads": 1}
    return {
        "config": {"behaviors": {"3DBall": behavior}, "env_settings": environment, "torch_settings": torch},
        "layers": [64, 64],
        "memory_at": [steps - ROLLOUT],
    }


def rows(cases: dict[int, list[dict[str, Any]]]) -> list[list[str]]:
    """Return the rows of a table, one for each case."""
    return [
        [
            f"{number:,}",
            spread([run["steps"] / run["loop_seconds"] for run in runs], 0),
            spread([run["mib"][-1] for run in runs], 0),
            spread([run["peak_mib"] for run in runs], 0),
        ]
        for number, runs in cases.items()
    ]


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="runs of each case (default 3)")
    parser.add_argument("--long", type=int, default=LONG[1], help=f"steps of the long run (default {LONG[1]:,})")
    parser.add_argument("--output", type=Path, default=HERE / "results", metavar="DIR", help="where to write")
    args = parser.parse_args()
    agents: dict[int, list[dict[str, Any]]] = {number: [] for number in AGENTS}
    workers: dict[int, list[dict[str, Any]]] = {number: [] for number in WORKERS}
    for seed in range(1, args.rounds + 1):
        for number in AGENTS:
            agents[number].append(MLHOOKS.run(settings(number, 1, STEPS) | {"seed": seed}))
            print(f"{seed}/{args.rounds}  agents   {'  '.join(rows({number: agents[number][-1:]})[0])}", flush=True)
        for number in WORKERS:
            workers[number].append(MLHOOKS.run(settings(AREAS, number, STEPS) | {"seed": seed}))
            print(f"{seed}/{args.rounds}  workers  {'  '.join(rows({number: workers[number][-1:]})[0])}", flush=True)
    marks = [args.long // 10, args.long - ROLLOUT]
    long = MLHOOKS.run(settings(256, 1, args.long) | {"seed": 1, "memory_at": marks})
    early, late = long["mib"]
    columns = ["steps/s", "memory, MiB", "peak, MiB"]
    lines = [
        *table(["agents in one environment", *columns], rows(agents)),
        "",
        *table([f"workers of {AREAS} agents", *columns], rows(workers)),
        "",
        "Medians, in brackets the least and the greatest of all runs; `growth.py` says what is measured.",
        "",
        f"In one run of 256 agents, memory is {early:.1f} MiB after {marks[0]:,} steps and {late:.1f} MiB after "
        f"{marks[1]:,}: a difference of {late - early:+.1f} MiB.",
    ]
    facts = {
        "date": today(),
        "machine": machine(),
        "libraries": ", ".join(f"{name} {text}" for name, text in long["versions"].items()),
        "work": f"PPO on sim:3DBall, {STEPS:,} steps, {args.rounds} runs of each; rollouts of {ROLLOUT:,} steps, 3 "
        "epochs, minibatches of 2,048, on one thread",
        "command": f"python benchmarks/growth.py --rounds {args.rounds}",
    }
    write(args.output, "growth", facts, {"agents": agents, "workers": workers, "long": long}, lines)


if __name__ == "__main__":
    main()
