"""How fast is training? mlhooks and other libraries do the same work in alternation on this machine.

`python benchmarks/speed.py ppo_cartpole` (another of `workloads.py`, or several; by default all) installs each peer
that takes part below `benchmarks/.venvs`, runs them `--rounds` times in alternation, and writes
`results/ppo_cartpole.json` (every single run) and `results/ppo_cartpole.md` (the tables). It needs Linux or macOS.
Everything runs on one thread.

- steps/s: environment steps over the seconds of the training loop alone, imports and construction left out. For
  mlhooks that is from the first observation to the end of the last update, statistics written to console, TensorBoard
  and JSON Lines included; the others write none.
- process, processor: seconds of the whole process by the clock, and those that it computed (user and system). mlhooks
  saves checkpoints and draws its learning curve in that time.
- memory: the peak of the resident memory of the largest process, which is the one that trains.
- return: mean of the last 100 training episodes, so that speed bought with learning shows.

`time_to_475` measures the processor's seconds until that mean is 475. The limits in the second table are those of
`speed_limits.py`, measured in the same rounds.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import peers
from peers import HERE, MLAGENTS, Peer
from report import machine, spread, table, today, write
from workloads import TUNED, WORKLOADS, Work

GYMNASIUM = "gymnasium"
MLHOOKS = Peer("mlhooks", "speed_mlhooks.py", ("--editable", ".[atari]"))
SB3 = Peer("stable-baselines3", "speed_sb3.py", peers.SB3)
PEERS = (
    MLHOOKS,
    SB3,
    Peer("cleanrl", "speed_cleanrl.py", ("numpy", GYMNASIUM), title="CleanRL's loop"),
    Peer("tianshou", "speed_tianshou.py", ("tianshou==2.0.1", GYMNASIUM)),
    Peer("torchrl", "speed_torchrl.py", ("torchrl==0.14.1", "tensordict==0.14.3", GYMNASIUM)),
    Peer("skrl", "speed_skrl.py", ("skrl==2.1.1", GYMNASIUM)),
    Peer("sb3-contrib", "speed_sb3_contrib.py", ("sb3-contrib==2.9.2", *peers.SB3)),
    Peer("sbx", "speed_sbx.py", ("sbx-rl==0.28.0", *peers.SB3), title="SBX (JAX)"),
    MLAGENTS,
)
LIMITS = Peer("limits", "speed_limits.py", MLHOOKS.requirements, environment="mlhooks")
ONLY_WHERE_NAMED = ("sb3-contrib", "sbx")
"""Who takes part only in workloads that name their peers."""
WARM_UP_STEPS = 4096
SPEED, COST = ("steps/s", "steps_per_second", 0), ("processor, s", "cpu_seconds", 1)
COLUMNS = [("process, s", "process_seconds", 1), ("memory, MiB", "peak_mib", 0), ("return", "mean_return", 0)]

Results = dict[str, list[dict[str, Any]]]


def measure(workload: str, work: Work, rounds: int, chosen: Sequence[Peer]) -> Results:
    """Run every peer `rounds` times, a different one first each time, after a short run that warms the disk up."""
    results: Results = {peer.name: [] for peer in chosen}
    tuned = TUNED.get(workload, {})
    for peer in chosen:
        peer.run(work | {"steps": work.get("warm_up_steps", WARM_UP_STEPS), "seed": 0})
    for number in range(rounds):
        first = number % len(chosen)
        for peer in [*chosen[first:], *chosen[:first]]:
            result = peer.run(work | tuned.get(peer.name, {}) | {"seed": number + 1})
            results[peer.name].append(result)
            if peer is LIMITS:
                continue
            result["steps_per_second"] = result["steps"] / result["loop_seconds"]
            seen = (f"{name} {result[key]:,.{digits}f}" for name, key, digits in (SPEED, COST, *COLUMNS))
            print(f"{number + 1}/{rounds}  {peer.name:18} {'  '.join(seen)}", flush=True)
    return results


def tables(work: Work, results: Results) -> list[str]:
    """Return what the peers did, the limits, and where mlhooks' time goes."""
    goal = work.get("stop_at")
    columns = [COST, SPEED, ("steps", "steps", 0), *COLUMNS] if goal else [SPEED, COST, *COLUMNS]
    header = ["", "version", columns[0][0], "of SB3's", *(name for name, *_ in columns[1:])]
    rows = []
    for peer in PEERS:
        if not (runs := results.get(peer.name)):
            continue
        first, *others = (spread([run[key] for run in runs], digits) for _, key, digits in columns)
        version = runs[0]["versions"].get(f"{peer.name}-rl" if peer.name == "sbx" else peer.name, "")
        rows.append([peer.title or peer.name, version, first, ratio(results, peer.name, columns[0][1]), *others])
        if goal:
            rows[-1].append(f"{sum(run['mean_return'] >= goal for run in runs)} of {len(runs)}")
    lines = table([*header, "reached"] if goal else header, rows)
    lines += ["", "Medians, in brackets the least and the greatest of all runs; `speed.py` says what is timed."]
    if results.get(LIMITS.name):
        lines += ["", *limits(results[LIMITS.name])]
    if results.get(MLHOOKS.name):
        lines += ["", breakdown(results[MLHOOKS.name])]
    return lines


def ratio(results: Results, name: str, key: str) -> str:
    """Return the ratio to Stable-Baselines3, or where it takes no part to SB3-Contrib, by round."""
    base = SB3.name if SB3.name in results else "sb3-contrib"
    pairs = zip(results[name], results.get(base, []), strict=False)
    ratios = [ours[key] / theirs[key] for ours, theirs in pairs]
    return spread(ratios, 2) if ratios and name != base else ""


def limits(runs: list[dict[str, Any]]) -> list[str]:
    """Return what the parts of the work take alone."""
    rows = []
    for name in runs[0]["parts"]:
        parts = [run["parts"][name] for run in runs]
        micros = spread([1e6 * part["seconds"] for part in parts], 0)
        rows.append([name, micros, spread([part["steps"] / part["seconds"] for part in parts], 0)])
    return table(["limit", "microseconds", "steps/s of that alone"], rows)


def breakdown(runs: list[dict[str, Any]]) -> str:
    """Return where mlhooks' time goes."""
    names = runs[0]["timers"]
    shares = {name: median(run["timers"][name] / run["loop_seconds"] for run in runs) for name in names}
    parts = (f"{name} {share:.0%}" for name, share in sorted(shares.items(), key=lambda item: -item[1]))
    return f"Where mlhooks' time goes, in parts of the training loop: {', '.join(parts)}."


def about(workload: str, results: Results, work: Work, rounds: int, options: Sequence[str]) -> dict[str, str]:
    """Return when, where and with what the results were measured."""
    settings = ", ".join(f"{key} {value}" for key, value in work.items() if key != "peers")
    facts = {
        "date": today(),
        "machine": machine(),
        "libraries": libraries(results),
        "work": f"{rounds} runs of each, in alternation; {settings}",
    }
    for name, changes in TUNED.get(workload, {}).items():
        facts[f"{name}'s own settings"] = ", ".join(f"{key} {value}" for key, value in changes.items())
    return facts | {"command": f"nox -s bench -- {workload} {shlex.join(options)}"}


def libraries(results: Results) -> str:
    """Return versions of what the peers share; with its name where one has another."""
    versions: dict[str, str] = {}
    others = []
    for peer, runs in results.items():
        for name, text in runs[0]["versions"].items():
            if name not in results and versions.setdefault(name, text) != text:
                others.append(f"{name} {text} with {peer}")
    return ", ".join([*(f"{name} {text}" for name, text in versions.items()), *others])


def participants(work: Work, names: Sequence[str]) -> Iterator[Peer]:
    """Yield the peers of these names that do this work."""
    doing = work.get("peers") or [peer.name for peer in (*PEERS, LIMITS) if peer.name not in ONLY_WHERE_NAMED]
    yield from (peer for peer in (*PEERS, LIMITS) if peer.name in names and peer.name in doing)


def installed(peer: Peer) -> bool:
    """Return whether it can be measured, and say it where not."""
    try:
        peer.python()
    except subprocess.CalledProcessError as error:
        print(f"{peer.name} is left out, because its environment cannot be made: {error}", flush=True)
        return False
    return True


def arguments() -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD", help=f"of {', '.join(WORKLOADS)} (default: all)")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each peer (default 5)")
    parser.add_argument("--steps", type=int, help="environment steps of a run, in place of the workload's own")
    names = [peer.name for peer in (*PEERS, LIMITS)]
    parser.add_argument("--peers", choices=names, nargs="+", default=names, help="measure these only")
    parser.add_argument("--output", type=Path, default=HERE / "results", metavar="DIR", help="where to write")
    args = parser.parse_args()
    unknown = set(args.workloads) - WORKLOADS.keys()
    if unknown:
        parser.error(f"no workload is called {', '.join(sorted(unknown))}; choose from {', '.join(WORKLOADS)}")
    args.workloads = args.workloads or list(WORKLOADS)
    return args


def main() -> None:
    """Measure and write."""
    args = arguments()
    workloads = {name: WORKLOADS[name] | ({"steps": args.steps} if args.steps else {}) for name in args.workloads}
    taking_part = {name: [*participants(work, args.peers)] for name, work in workloads.items()}
    wanted = {peer.name for peers in taking_part.values() for peer in peers}
    chosen = {peer.name for peer in (*PEERS, LIMITS) if peer.name in wanted and installed(peer)}
    options = ["--rounds", str(args.rounds), *(["--steps", str(args.steps)] if args.steps else [])]
    for workload, work in workloads.items():
        results = measure(workload, work, args.rounds, [p for p in taking_part[workload] if p.name in chosen])
        facts = about(workload, results, work, args.rounds, [*options, "--peers", *results])
        write(args.output, workload, facts, {"settings": work, "runs": results}, tables(work, results))


if __name__ == "__main__":
    main()
