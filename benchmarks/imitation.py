"""What do demonstrations give? Records experts, imitates them over several seeds by the command line, and scores.

`python benchmarks/imitation.py` measures over seeds 1 to 5, one run at a time, and takes about half an hour. It writes
`imitation.json` (every run) beside this file and the table of `docs/results.md`. `python benchmarks/imitation.py "GAIL
alone, Basic" --seeds 11 12 --output FOLDER` measures one case on other seeds and writes both into FOLDER instead.

- evaluation: as in `learning_results.py`.
- steps to 90: the agent steps at the first summary whose mean return is at least 90.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from learning_results import HERE, facts, measured_on, mlhooks, read, renew, train_and_score
from report import as_json

BEGIN, END = "<!-- imitation -->", "<!-- end of imitation -->"
GOOD = 90.0
BALL = ("--env", "sim:3DBall", "--set", "behaviors.3DBall.max_steps=150000")
CLONED = ("--set", "behaviors.3DBall.behavioral_cloning.strength=3")
CLONING, GAIL = "behavioral_cloning", "reward_signals.gail"


@dataclass(frozen=True)
class Case:
    """What is trained.

    Attributes:
        file: the configuration in this folder; behavior: its one behavior.
        more: further arguments of `mlhooks run`.
        imitates: the section of the behavior that takes the demonstration, if any does.
        good: the evaluation that imitation is to reach on every seed, and that must be out of reach without one.
    """

    file: str
    behavior: str
    more: tuple[str, ...] = ()
    imitates: str = ""
    good: float | None = None


def constant(file: str, behavior: str, gamma: float, good: float) -> Case:
    """Return the case of a constant reward in GAIL's place."""
    signals = f"behaviors.{behavior}.reward_signals={{constant: {{gamma: {gamma}}}}}"
    return Case(file, behavior, ("-p", str(HERE / "constant_reward.py"), "--set", signals), good=good)


CASES: dict[str, Case] = {
    "cloning alone, Basic": Case("basic_cloning", "Basic", imitates=CLONING, good=0.8),
    "GAIL alone, Basic": Case("basic_gail", "Basic", imitates=GAIL, good=0.8),
    "constant reward, Basic": constant("basic_gail", "Basic", 0.5, 0.8),
    "GAIL alone, Pendulum": Case("pendulum_gail", "Pendulum", imitates=GAIL, good=-300),
    "constant reward, Pendulum": constant("pendulum_gail", "Pendulum", 0.95, -300),
    "3DBall": Case("3dball_ppo_mlagents", "3DBall", BALL),
    "3DBall with cloning": Case("3dball_ppo_mlagents", "3DBall", (*BALL, *CLONED), CLONING),
}
EXPERTS = {
    "Basic": ("sim:Basic", "basic", 10),
    "3DBall": ("sim:3DBall", "ball", 10),
    "Pendulum": ("gymnasium:Pendulum-v1", "pendulum", 20),
}
"""The environment of each behavior, the function of `experts.py` that acts in it, and the episodes recorded of it."""


def record(folder: Path) -> dict[str, Path]:
    """Record each expert, and return the demonstrations by behavior."""
    demos = {}
    for behavior, (environment, expert, episodes) in EXPERTS.items():
        demos[behavior] = folder / f"{expert}.demo"
        policy = ("--policy", f"{HERE / 'experts.py'}:{expert}", "--episodes", str(episodes))
        where = ("--env", environment, "--seed", "1", "--output", str(demos[behavior]))
        print(mlhooks("demo", "record", *policy, *where), end="", flush=True)
    return demos


def measure(case: str, seed: int, folder: Path, demos: dict[str, Path]) -> dict[str, Any]:
    """Return one run of a case."""
    what = CASES[case]
    run_id = f"{case.replace(', ', '-').replace(' ', '-')}-{seed}"
    run = (str(HERE / f"{what.file}.yaml"), *what.more, "--run-id", run_id, "--results-dir", str(folder))
    if what.imitates:
        run += ("--set", f"behaviors.{what.behavior}.{what.imitates}.demo_path={demos[what.behavior]}")
    result = train_and_score(case, run, seed)
    lines = (folder / run_id / "stats.jsonl").read_text(encoding="utf-8").splitlines()
    summaries = [summary for summary in map(json.loads, lines) if "Environment/Cumulative Reward" in summary["values"]]
    good = [s["step"] for s in summaries if s["values"]["Environment/Cumulative Reward"]["mean"] >= GOOD]
    return result | {"steps to 90": min(good, default=None)}


def table(results: dict[str, Any]) -> str:
    """Return one row for each case, and below them when, where and with what they were measured."""
    lines = [
        "| run | measured | on each seed | median | worst | target | met |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for case, result in results.items():
        good = CASES[case].good
        if good is None:
            values = [run["steps to 90"] or 10**9 for run in result["runs"]]
            cells = [", ".join(f"{value:,}" for value in values), f"{median(values):,.0f}", f"{max(values):,}"]
            target, met = "", ""
            if "cloning" in case and "3DBall" in results:
                without = median(run["steps to 90"] or 10**9 for run in results["3DBall"]["runs"])
                target, met = "half of the steps without", "yes" if median(values) <= without / 2 else "no"
            cells = ["steps to 90", *cells, target, met]
        else:
            values, digits = [run["evaluation"] for run in result["runs"]], 1 if abs(good) > 1 else 3
            shown = ", ".join(f"{value:.{digits}f}" for value in values)
            target, met = f"at least {good:g}", min(values) >= good
            if not CASES[case].imitates:
                target, met = f"all below {good:g}", max(values) < good
            cells = ["evaluation", shown, f"{median(values):.{digits}f}", f"{min(values):.{digits}f}", target]
            cells.append("yes" if met else "no")
        lines.append(f"| {case} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", *measured_on(results)])


def write(results: dict[str, Any], output: Path | None) -> None:
    """Add the results to those that are there, and renew the table."""
    file = (output or HERE) / "imitation.json"
    known = read(file) | results
    known = {case: known[case] for case in CASES if case in known}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(as_json(known) + "\n", encoding="utf-8")
    if output:
        (output / "imitation.md").write_text(table(known) + "\n", encoding="utf-8")
        return
    renew(table(known), BEGIN, END)


def main() -> None:
    """Measure, write after each case, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"any of {', '.join(CASES)} (default: all)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5], help="default: 1 2 3 4 5")
    parser.add_argument("--output", type=Path, metavar="DIR", help="write here instead of benchmarks/ and docs/")
    args = parser.parse_args()
    if unknown := set(args.cases) - CASES.keys():
        parser.error(f"there is no case {', '.join(sorted(unknown))}; choose from {', '.join(CASES)}")
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        demos = record(Path(folder))
        for case in args.cases or CASES:
            runs = [measure(case, seed, Path(folder), demos) for seed in args.seeds]
            results[case] = {**facts(1), "runs": runs}
            write({case: results[case]}, args.output)
    print(f"\n{table(results)}")


if __name__ == "__main__":
    main()
