"""What do reward signals cost? The same training with the environment's rewards alone, and with each signal beside.

`python benchmarks/signals.py` trains `sac_pendulum` and `ppo_pendulum` of `workloads.py` each way, `--rounds` times in
alternation, each run in a process and on one thread, and writes `results/signals.json` and `results/signals.md`.
Signals have ML-Agents' default settings: two layers of 128 units. It takes the environment that it runs in, which needs
mlhooks with the extra `gymnasium`. On an idle machine it takes about five minutes.

- an update: of the policy and of the signal, by one minibatch of 256 steps, with all that acting and rewards take, in
  processor time of the training loop, divided by the number of updates.
- in addition: the median, less that without signals.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from fast import ThisEnvironment
from learning_results import mlhooks
from peers import HERE
from report import machine, spread, table, today, write
from speed_mlhooks import configuration
from workloads import WORKLOADS, Work

WORK: dict[str, Work] = {
    "sac_pendulum": WORKLOADS["sac_pendulum"] | {"steps": 2_500},
    "ppo_pendulum": WORKLOADS["ppo_pendulum"] | {"steps": 10 * 1024},
}
WAYS: dict[str, dict[str, Any]] = {
    "no signal": {},
    "curiosity": {"curiosity": {}},
    "rnd": {"rnd": {}},
    "gail": {"gail": {}},
    "gail, use_actions": {"gail": {"use_actions": True}},
    "gail, use_vail": {"gail": {"use_vail": True}},
}


def updates(work: Work) -> int:
    """Return how many minibatches a run learns from."""
    if work["algorithm"] == "sac":
        return int(work["steps"] - work["learning_starts"])
    rollout = work["environments"] * work["rollout"]
    return int(work["steps"] // rollout * work["epochs"] * (rollout // work["batch_size"]))


def settings(work: Work, signals: dict[str, Any], demonstration: Path, seed: int) -> dict[str, Any]:
    """Return a run with signals."""
    config = configuration(work | {"seed": seed})
    for name, values in signals.items():
        demo = {"demo_path": str(demonstration)} if name == "gail" else {}
        config["default_settings"]["reward_signals"][name] = {"strength": 0.01, **values, **demo}
    return work | {"config": config, "seed": seed}


def main() -> None:
    """Measure, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="runs of each way (default 3)")
    parser.add_argument("--output", type=Path, default=HERE / "results", metavar="DIR", help="where to write")
    args = parser.parse_args()
    peer = ThisEnvironment("mlhooks", "speed_mlhooks.py")
    results: dict[str, dict[str, list[dict[str, Any]]]] = {name: {way: [] for way in WAYS} for name in WORK}
    with tempfile.TemporaryDirectory() as folder:
        demo = Path(folder, "pendulum.demo")
        expert = ("--policy", f"{HERE / 'experts.py'}:pendulum", "--episodes", "20", "--seed", "1")
        mlhooks("demo", "record", "--env", "gymnasium:Pendulum-v1", *expert, "--output", str(demo))
        for number in range(args.rounds):
            ways = list(WAYS)
            for way in ways[number % len(ways) :] + ways[: number % len(ways)]:
                for name, work in WORK.items():
                    run = peer.run(settings(work, WAYS[way], demo, number + 1))
                    results[name][way].append(run | {"ms": 1000 * run["loop_cpu_seconds"] / updates(work)})
                    print(name, number, way, f"{results[name][way][-1]['ms']:.2f}", flush=True)
    rows = []
    for name, found in results.items():
        ms = {way: [run["ms"] for run in runs] for way, runs in found.items()}
        without = median(ms["no signal"])
        for way, values in ms.items():
            more = "" if way == "no signal" else f"{median(values) - without:.2f}"
            rows.append([name, way, spread(values, 2), more])
    facts = {
        "date": today(),
        "machine": machine(),
        "command": f"python benchmarks/signals.py --rounds {args.rounds}",
    }
    write(args.output, "signals", facts, results, table(["training", "signal", "ms of an update", "in addition"], rows))


if __name__ == "__main__":
    main()
