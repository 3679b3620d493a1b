"""What do the example configurations reach? Trains each over several seeds by the command line and scores the result.

`python benchmarks/learning_results.py` measures all of them over seeds 1 to 5, two runs at a time, and takes some
three hours on two cores. It writes `learning_results.json` (every run) beside this file and the table of
`docs/results.md`. `python benchmarks/learning_results.py cartpole_ppo --seeds 11 12 13 --output FOLDER` measures one
configuration on other seeds and writes both into FOLDER instead. `--known-sb3` keeps the runs of Stable-Baselines3 that
are there, which take most of the time.

- training: mean return of the last 100 training episodes, actions drawn from the policy, as `mlhooks run CONFIG` prints
  it at the end.
- evaluation: mean return of 100 episodes of the final policy with its likeliest actions, as
  `mlhooks run CONFIG --inference --deterministic --episodes 100` prints it; its seed is the run's plus 1000.
- won: of examples of self-play, the share of 200 games that the final policy wins against the one that it began with,
  as `mlhooks run CONFIG --inference --opponent INITIAL --episodes 200` prints it.
- seconds: of the whole training command, from the start of the interpreter to its end.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, Literal

import peers
from report import as_json, machine

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "results.md"
BEGIN, END = "<!-- the table -->", "<!-- end of the table -->"
EPISODES = 100
LIBRARIES = ("mlhooks", "torch", "numpy", "gymnasium")


@dataclass(frozen=True)
class Target:
    """The target of a configuration: `measure` in the median over seeds and in the worst of them.

    `beside` names what must be no worse than with Stable-Baselines3, on the same settings and seeds; "spread": not
    each of our seeds is worse than all of SB3's.
    """

    measure: str
    median: float = -math.inf
    worst: float = -math.inf
    digits: int = 1
    beside: Literal["median", "worst", "spread"] | None = None

    def text(self) -> str:
        """Return the value as text for the table."""
        parts = []
        if self.median == self.worst > -math.inf:
            parts.append(f"at least {self.worst:g} on every seed")
        elif self.median > -math.inf:
            parts.append(f"median at least {self.median:g}")
            if self.worst > -math.inf:
                parts.append(f"none below {self.worst:g}")
        if self.beside == "spread":
            parts.append("best seed at least SB3's worst")
        elif self.beside:
            parts.append(f"{self.beside} at least SB3's")
        return ", ".join(parts) or "none"

    def met(self, values: list[float], peer: list[float]) -> bool:
        """Return whether our values over the seeds suffice, beside the peer's."""
        as_good = self.beside is None or bool(peer)
        if peer and self.beside == "spread":
            as_good = max(values) >= min(peer)
        elif peer and self.beside:
            beside = {"median": median, "worst": min}[self.beside]
            as_good = beside(values) >= beside(peer)
        return as_good and median(values) >= self.median and min(values) >= self.worst


def grid_world_optimum() -> float:
    """Return the mean best return over all starts of `sim:GridWorld`, by shortest paths around the wrong mark."""
    cells = {(x, y) for x in range(5) for y in range(5)}
    lengths: list[int] = []
    for goal in cells:
        for wrong in cells - {goal}:
            steps, edge = {goal: 0}, [goal]
            for x, y in edge:
                near = {(x + 1, y), (x - 1, y), (x, y + 1), (x, y - 1)} & cells - {wrong} - steps.keys()
                steps.update(dict.fromkeys(near, steps[x, y] + 1))
                edge.extend(near)
            lengths.extend(length for length in steps.values() if length)
    return 1.0 - 0.01 * sum(lengths) / len(lengths)


ZOO = ("zoo_acrobot_a2c", "zoo_lunarlander_ppo", "zoo_bipedalwalker_ppo")
"""Entries of RL Baselines3 Zoo as `mlhooks zoo` converts them, which are measured beside Stable-Baselines3."""
TARGETS: dict[str, list[Target]] = {
    "3dball_ppo": [Target("training", 95, 95), Target("evaluation", 95, 95)],
    "cartpole_ppo": [Target("training", 475, 475)],
    "acrobot_ppo": [Target("evaluation", -90, -90)],
    "pendulum_ppo": [Target("evaluation", -200, -300)],
    "mountaincarcontinuous_ppo": [Target("evaluation", 85)],
    "basic_ppo": [Target("evaluation", 0.93, 0.93, digits=3)],
    "recall_ppo": [Target("evaluation", 0.93, 0.93, digits=3)],
    "recall_sac": [Target("evaluation", 0.93, 0.93, digits=3)],
    "cartpole_positions_ppo": [Target("training", 475, 475), Target("evaluation", 475, 475)],
    "sorter_ppo": [Target("training", 0.9, 0.9, digits=3), Target("evaluation", 0.95, 0.95, digits=3)],
    "sacrifice_poca": [Target("training", 0.6, 0.6, digits=3)],
    "gridworld_ppo": [Target("evaluation", *[round(0.95 * grid_world_optimum(), 3)] * 2, digits=3)],
    "lunarlander_ppo": [Target("evaluation", beside="median")],
    "cartpole_a2c": [Target("evaluation", 500, 475)],
    "3dball_a2c": [Target("evaluation", 95, 95)],
    "3dball_a2c_mlagents": [Target("evaluation")],
    "cartpole_dqn": [Target("evaluation", 490, beside="worst")],
    "acrobot_dqn": [Target("evaluation", -90)],
    "mountaincar_dqn": [Target("evaluation", -140, -140)],
    "lunarlander_dqn": [Target("evaluation", beside="median")],
    "basic_dqn": [Target("evaluation", 0.93, 0.93, digits=3)],
    "pendulum_sac": [Target("evaluation", -180, -180)],
    "lunarlandercontinuous_sac": [Target("evaluation", beside="spread")],
    "halfcheetah_sac": [Target("evaluation", beside="spread")],
    "basic_sac": [Target("evaluation", 0.93, 0.93, digits=3)],
    "3dball_sac": [Target("evaluation", 95, 95)],
    "3dball_curriculum": [Target("training", 95, 95), Target("evaluation", 95, 95)],
    "3dball_ppo_mlagents": [Target("training", 95), Target("evaluation", 95, 95)],
    "basic_dqn_player": [Target("evaluation", 0.93, 0.93, digits=3)],
    "tag_ppo": [Target("won", 80, 80), Target("elo", 1200, 1200)],
    **{name: [Target("evaluation", beside="spread")] for name in ZOO},
}
SEEDS = dict.fromkeys(
    ("zoo_lunarlander_ppo", "zoo_bipedalwalker_ppo", "lunarlandercontinuous_sac", "halfcheetah_sac"), (1, 2)
)
"""Seeds of configurations that are not measured over `ALL_SEEDS`."""
ALL_SEEDS = (1, 2, 3, 4, 5)
GAMES = 200
"""Games in which an example of self-play, whose target names `won`, meets the policy that it began with."""
PLAYERS = {"3dball_ppo_mlagents": ("3DBall", "1"), "basic_dqn_player": ("Basic", "10")}
"""Configurations that are trained over the Unity protocol: what the stand-in of a player plays, and its areas."""
SB3 = peers.Peer("stable-baselines3", "learning_sb3.py", peers.SB3)
SB3_CONTRIB = peers.Peer("sb3-contrib", "learning_sb3_contrib.py", ("sb3-contrib==2.9.2", *peers.SB3))
RECURRENT = frozenset({"cartpole_positions_ppo"})
"""Configurations of networks with a memory, for which Stable-Baselines3 means SB3-Contrib's RecurrentPPO."""


def measure(config: str, seed: int, folder: Path) -> dict[str, Any]:
    """Train with one seed and score the final policy with another."""
    run: tuple[str, ...] = ("--run-id", f"{config}-{seed}", "--results-dir", str(folder))
    file = configuration(config)
    if config in PLAYERS:
        name, areas = PLAYERS[config]
        player = folder / f"{name}-{seed}"
        mlhooks("sim-player", name, "--areas", areas, "--write-executable", str(player))
        port = 5500 + 10 * seed
        run += ("--env", str(player), "--no-graphics", "--base-port", str(port))
    return train_and_score(config, (file, *run), seed)


def configuration(config: str) -> str:
    """Return what the command line calls a configuration: one of the examples, or a file beside this one."""
    own = HERE / f"{config}.yaml"
    return str(own) if own.exists() else config.removesuffix("_player")


def train_and_score(name: str, run: Sequence[str], seed: int) -> dict[str, Any]:
    """Train by `mlhooks run`, with arguments that name the run, and score its final policy with another seed."""
    started = perf_counter()
    trained = mlhooks("run", *run, "--seed", str(seed))
    seconds = perf_counter() - started
    steps, training = _found(r"([\d,]+) of [\d,]+ steps, mean reward (-?[\d.]+)", trained)
    scoring = ("--inference", "--deterministic", "--episodes", str(EPISODES), "--seed", str(seed + 1000))
    scored = mlhooks("run", *run, *scoring)
    pattern = rf"{EPISODES} episodes: mean reward (-?[\d.]+), deviation ([\d.]+), minimum (-?[\d.]+)"
    evaluation, deviation, minimum = _found(pattern, scored)
    result = {
        "seed": seed,
        "steps": int(steps.replace(",", "")),
        "training": float(training),
        "evaluation": float(evaluation),
        "deviation": float(deviation),
        "minimum": float(minimum),
        "seconds": round(seconds, 1),
    }
    if any(target.measure == "won" for target in TARGETS.get(name, ())):
        result |= {"elo": float(_found(r"of [\d,]+ steps, .*ELO: ([\d.]+)", trained)[0]), "won": _won(run, seed)}
    print(f"{name}  {'  '.join(f'{key} {value:,}' for key, value in result.items())}", flush=True)
    return result


def _won(run: Sequence[str], seed: int) -> float:
    """Return the share of games, in percent, that a run wins against the policy that it began with."""
    initial = f"{run[run.index('--run-id') + 1]}-initial"
    begun = ["--run-id", initial, "--set", "behaviors.*.max_steps=1", "--seed", str(seed)]
    mlhooks("run", *run, *begun)
    match = ("--inference", "--opponent", initial, "--episodes", str(GAMES), "--seed", str(seed + 1000))
    return float(_found(rf"all together .* in {GAMES} games: ([\d.]+)% won", mlhooks("run", *run, *match))[0])


def measure_sb3(config: str, seed: int) -> dict[str, Any]:
    """Train Stable-Baselines3 with the settings of a configuration, and score it in the same way."""
    options = json.loads(mlhooks("config", "show", configuration(config), "--json"))
    result = sb3_of(config).run({"options": options, "seed": seed, "episodes": EPISODES})
    print(f"{config}  SB3  {'  '.join(f'{key} {value}' for key, value in result.items())}", flush=True)
    return result


def sb3_of(config: str) -> peers.Peer:
    """Return the peer that trains a configuration where Stable-Baselines3 is asked for."""
    return SB3_CONTRIB if config in RECURRENT else SB3


def mlhooks(*arguments: str) -> str:
    """Return the output of `mlhooks ARGUMENTS` on one thread."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "mlhooks", *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if ran.returncode:
        raise SystemExit(f"`{' '.join(command)}` failed:\n{ran.stdout}{ran.stderr}")
    return ran.stdout


def _found(pattern: str, text: str) -> tuple[str, ...]:
    found = re.search(pattern, text)
    if found is None:
        raise SystemExit(f"The output has nothing like {pattern!r}:\n{text}")
    return found.groups()


def measure_all(
    config: str, seeds: Sequence[int], jobs: int, known: dict[str, Any], *, sb3: bool = False
) -> dict[str, Any]:
    """Return the runs of a configuration over all seeds, with date, machine and versions; known ones of SB3 stay.

    SB3 is measured where a target compares with it, and with `sb3` everywhere.
    """
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(jobs) as pool:
        beside = sb3 or any(target.beside for target in TARGETS[config])
        peer: dict[str, Any] = {}
        if beside and [run["seed"] for run in known.get("sb3", ())] == list(seeds):
            peer = {"sb3": known["sb3"], "sb3_measured": known.get("sb3_measured") or place_and_time(known)}
        elif beside:
            sb3_of(config).python()  # It is installed before the runs that are timed.
        peer_runs = [pool.submit(measure_sb3, config, seed) for seed in seeds if beside and not peer]
        runs = list(pool.map(lambda seed: measure(config, seed, Path(folder)), seeds))
        if peer_runs:
            peer = {"sb3": [run.result() for run in peer_runs]}
    return {**facts(jobs), "runs": runs, **peer}


def facts(jobs: int) -> dict[str, Any]:
    """Return when, where and with what runs are made."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{machine()}, {'one run' if jobs == 1 else f'{jobs} runs'} at a time, no GPU",
        "versions": {name: version(name) for name in LIBRARIES},
    }


def place_and_time(result: dict[str, Any]) -> str:
    """Return when and where the runs of a configuration were made."""
    return f"{result['date']}, on {result['machine']}"


def table(results: dict[str, Any]) -> str:
    """Return one row for each target, and below them when, where and with what they were measured."""
    lines = [
        "| configuration | steps | measured | on each seed | median | worst | target | met | seconds |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for config, result in results.items():
        for target in TARGETS[config]:
            lines.append(row(config, result["runs"], target, result.get("sb3", [])))
            if "sb3" in result:
                lines.append(row(f"{config}, SB3", result["sb3"], target))
    return "\n".join([*lines, "", *measured_on(results)])


def measured_on(results: dict[str, Any]) -> list[str]:
    """Return sentences about when, where and with what the results were measured."""
    places: dict[str, list[str]] = {}
    for config, result in results.items():
        libraries = ", ".join(f"{name} {text}" for name, text in result["versions"].items())
        places.setdefault(f"{place_and_time(result)}, with {libraries}", []).append(config)
        if "sb3_measured" in result:
            places.setdefault(f"{result['sb3_measured']}", []).append(f"{config}, SB3")
    return [f"Measured on {place}: {', '.join(configs)}." for place, configs in places.items()]


def row(name: str, runs: list[dict[str, Any]], target: Target, sb3: list[dict[str, Any]] | None = None) -> str:
    """Return one line of the table; a target is for mlhooks' own runs, which `sb3` accompany."""
    values = [run[target.measure] for run in runs]
    wanted = ["", ""]
    if sb3 is not None:
        wanted = [target.text(), "yes" if target.met(values, [run[target.measure] for run in sb3]) else "no"]
    cells = [
        f"`{name}`",
        f"{max(run['steps'] for run in runs):,}",
        target.measure,
        ", ".join(f"{value:.{target.digits}f}" for value in values),
        f"{median(values):.{target.digits}f}",
        f"{min(values):.{target.digits}f}",
        *wanted,
        f"{median(run['seconds'] for run in runs):.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def read(file: Path) -> dict[str, Any]:
    """Return the results that are there, by configuration."""
    known: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    return known


def write(results: dict[str, Any], output: Path | None) -> None:
    """Add the results to those that are there, and renew the table."""
    file = (output or HERE) / "learning_results.json"
    known = read(file) | results
    known = {config: known[config] for config in TARGETS if config in known}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(as_json(known) + "\n", encoding="utf-8")
    if output:
        (output / "learning_results.md").write_text(table(known) + "\n", encoding="utf-8")
        return
    renew(table(known), BEGIN, END)


def renew(text: str, begin: str, end: str) -> None:
    """Put a table between its two marks in `docs/results.md`."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(begin)
    after = rest.partition(end)[2]
    PAGE.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")


def arguments() -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", nargs="*", metavar="CONFIG", help=f"any of {', '.join(TARGETS)} (default: all)")
    parser.add_argument("--seeds", type=int, nargs="+", help="default: 1 2 3 4 5, or 1 2 for those in SEEDS")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time (default 2)")
    parser.add_argument("--known-sb3", action="store_true", help="keep Stable-Baselines3's runs of the same seeds")
    parser.add_argument("--sb3", action="store_true", help="also train Stable-Baselines3 where no target asks for it")
    parser.add_argument("--output", type=Path, metavar="DIR", help="write here instead of benchmarks/ and docs/")
    args = parser.parse_args()
    unknown = set(args.configs) - TARGETS.keys()
    if unknown:
        parser.error(f"no target is known for {', '.join(sorted(unknown))}; choose from {', '.join(TARGETS)}")
    return args


def main() -> None:
    """Measure, write after each configuration, print."""
    args = arguments()
    results: dict[str, Any] = {}
    known = read((args.output or HERE) / "learning_results.json") if args.known_sb3 else {}
    for config in args.configs or TARGETS:
        seeds = args.seeds or SEEDS.get(config, ALL_SEEDS)
        results[config] = measure_all(config, seeds, args.jobs, known.get(config, {}), sb3=args.sb3)
        write({config: results[config]}, args.output)
    print(f"\n{table(results)}")


if __name__ == "__main__":
    main()
