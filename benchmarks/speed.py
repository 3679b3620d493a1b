"""How fast is training? mlhooks and Stable-Baselines3 do the same work in alternation on this machine.

`python benchmarks/speed.py ppo_cartpole` (or `a2c_cartpole`, `dqn_cartpole`; by default all) installs both below
`benchmarks/.venvs`, runs each `--rounds` times, and writes `results/ppo_cartpole.json` (every single run) and
`results/ppo_cartpole.md` (the table). It needs Linux or macOS. `WORKLOADS` below is the work, on one thread.

- steps/s: environment steps over the seconds of the training loop alone, imports and construction left out. For
  mlhooks that is from the first observation to the end of the last update, statistics written to console, TensorBoard
  and JSON Lines included; for Stable-Baselines3 it is `learn` with its default, which is to write none.
- process: seconds of the whole process. mlhooks saves checkpoints and draws its learning curve in that time.
- memory: the peak of the resident memory of the largest process, which is the one that trains.
- return: mean of the last 100 training episodes, to see that both learn.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import peers
from peers import HERE, Peer

MLHOOKS = Peer("mlhooks", "speed_mlhooks.py", ("--editable", ".[gymnasium]"))
SB3 = Peer("stable-baselines3", "speed_sb3.py", peers.SB3)
PEERS = (MLHOOKS, SB3)
ACTOR_CRITIC = {"environment": "CartPole-v1", "environments": 8, "hidden_units": 64, "activation": "tanh"}
WORKLOADS: dict[str, dict[str, Any]] = {
    "ppo_cartpole": ACTOR_CRITIC
    | {
        "algorithm": "ppo",
        "steps": 100_000,
        "rollout": 128,
        "epochs": 4,
        "batch_size": 256,
        "learning_rate": 3e-4,
        "gamma": 0.99,
        "lambda": 0.95,
        "clip": 0.2,
        "max_grad_norm": 0.5,
    },
    "a2c_cartpole": ACTOR_CRITIC
    | {
        "algorithm": "a2c",
        "steps": 100_000,
        "rollout": 5,
        "batch_size": 40,
        "learning_rate": 7e-4,
        "gamma": 0.99,
        "lambda": 1.0,
        "max_grad_norm": 0.5,
    },
    "dqn_cartpole": {
        "algorithm": "dqn",
        "environment": "CartPole-v1",
        "environments": 1,
        "hidden_units": 64,
        "activation": "relu",
        "steps": 20_000,
        "batch_size": 64,
        "buffer_size": 20_000,
        "learning_starts": 100,
        "steps_per_update": 1,
        "target_update_interval": 500,
        "exploration_steps": 4_000,
        "final_epsilon": 0.05,
        "learning_rate": 5e-4,
        "gamma": 0.99,
        "max_grad_norm": 10.0,
    },
}
WARM_UP_STEPS = 4096

Results = dict[str, list[dict[str, Any]]]


def measure(work: dict[str, Any], rounds: int, chosen: Sequence[Peer]) -> Results:
    """Run every peer `rounds` times, a different one first each time, after a short run that warms the disk up."""
    results: Results = {peer.name: [] for peer in chosen}
    for peer in chosen:
        peer.run(work | {"steps": WARM_UP_STEPS, "seed": 0})
    for number in range(rounds):
        for peer in chosen if number % 2 == 0 else reversed(chosen):
            result = peer.run(work | {"seed": number + 1})
            result["steps_per_second"] = result["steps"] / result["loop_seconds"]
            results[peer.name].append(result)
            speed, seconds, memory = (result[key] for key in ("steps_per_second", "process_seconds", "peak_mib"))
            print(
                f"{number + 1}/{rounds}  {peer.name:18} {speed:8,.0f} steps/s  {seconds:6.1f} s  {memory:5.0f} MiB"
                f"  return {result['mean_return']:.0f}",
                flush=True,
            )
    return results


def machine() -> str:
    """The processor, its cores, memory, system and Python, in words."""
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
        processor = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), processor)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{processor}, {os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}"
    )


def table(workload: str, results: Results, facts: dict[str, str]) -> str:
    """Medians with least and greatest value, the ratio of the peers, and where mlhooks' time goes."""
    rows = [
        "| | version | steps/s | process, s | memory, MiB | return |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, runs in results.items():
        cells = [
            spread([run[key] for run in runs], digits)
            for key, digits in (("steps_per_second", 0), ("process_seconds", 1), ("peak_mib", 0), ("mean_return", 0))
        ]
        rows.append(f"| {name} | {runs[0]['versions'][name]} | {' | '.join(cells)} |")
    lines = [f"# {workload}", "", *(f"- {key}: {value}" for key, value in facts.items()), "", *rows, ""]
    lines += ["Medians, in brackets the least and the greatest of all runs; `speed.py` says what is timed.", ""]
    if all(results.get(peer.name) for peer in PEERS):
        lines += [_comparison(results), ""]
    if results.get(MLHOOKS.name):
        lines.append(_breakdown(results[MLHOOKS.name]))
    return "\n".join(lines) + "\n"


def spread(values: list[float], digits: int) -> str:
    """The median, and in brackets the least and the greatest value."""
    low, middle, high = (f"{value:,.{digits}f}" for value in (min(values), median(values), max(values)))
    return f"{middle} ({low} to {high})"


def _comparison(results: Results) -> str:
    ours, theirs = results[MLHOOKS.name], results[SB3.name]
    ratios = [our["steps_per_second"] / their["steps_per_second"] for our, their in zip(ours, theirs, strict=True)]
    memory = median(run["peak_mib"] for run in ours) / median(run["peak_mib"] for run in theirs)
    return (
        f"mlhooks makes {median(ratios):.2f} times the steps of Stable-Baselines3 in the same time "
        f"({min(ratios):.2f} to {max(ratios):.2f} by round), with {memory:.2f} times its memory."
    )


def _breakdown(runs: list[dict[str, Any]]) -> str:
    names = runs[0]["timers"]
    shares = {name: median(run["timers"][name] / run["loop_seconds"] for run in runs) for name in names}
    parts = (f"{name} {share:.0%}" for name, share in sorted(shares.items(), key=lambda item: -item[1]))
    return f"Where mlhooks' time goes, in parts of the training loop: {', '.join(parts)}."


def about(workload: str, results: Results, work: dict[str, Any], rounds: int) -> dict[str, str]:
    """When, where and with what the results were measured."""
    versions = {name: text for runs in results.values() for name, text in runs[0]["versions"].items()}
    settings = ", ".join(f"{key} {value}" for key, value in work.items())
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "libraries": ", ".join(f"{name} {text}" for name, text in versions.items() if name not in results),
        "work": f"{rounds} runs of each, in alternation; {settings}",
        "command": f"python benchmarks/speed.py {workload} --rounds {rounds}",
    }


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD", help=f"of {', '.join(WORKLOADS)} (default: all)")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each peer (default 5)")
    parser.add_argument("--steps", type=int, help="environment steps of a run, in place of the workload's own")
    names = [peer.name for peer in PEERS]
    parser.add_argument("--only", choices=names, action="append", help="measure this peer only; may be repeated")
    parser.add_argument("--output", type=Path, default=HERE / "results", metavar="DIR", help="where to write")
    args = parser.parse_args()
    unknown = set(args.workloads) - WORKLOADS.keys()
    if unknown:
        parser.error(f"no workload is called {', '.join(sorted(unknown))}; choose from {', '.join(WORKLOADS)}")
    return args


def main() -> None:
    """Measure and write."""
    args = arguments()
    args.output.mkdir(parents=True, exist_ok=True)
    for workload in args.workloads or WORKLOADS:
        work = WORKLOADS[workload] | ({"steps": args.steps} if args.steps else {})
        results = measure(work, args.rounds, [peer for peer in PEERS if not args.only or peer.name in args.only])
        facts = about(workload, results, work, args.rounds)
        text = table(workload, results, facts)
        content = json.dumps({"about": facts, "settings": work, "runs": results}, indent=1)
        (args.output / f"{workload}.json").write_text(content + "\n", encoding="utf-8")
        (args.output / f"{workload}.md").write_text(text, encoding="utf-8")
        print(f"\n{text}", flush=True)


if __name__ == "__main__":
    main()
