"""What do demonstrations give? Records experts, imitates them over several seeds by the command line, and scores.

`python benchmarks/imitation.py` measures over seeds 1 to 5, one run at a time, and takes some ten minutes. It writes
`imitation.json` (every run) beside this file and the table of `docs/results.md`. `--seeds 11 12 --output FOLDER`
measures other seeds and writes both into FOLDER instead.

- evaluation is what `learning_results.py` calls so.
- steps to 90 are the agent steps at the first summary whose mean return is at least 90.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from learning_results import HERE, facts, measured_on, mlhooks, read, renew, train_and_score
from report import as_json

BEGIN, END = "<!-- imitation -->", "<!-- end of imitation -->"
GOOD = 90.0
BALL = ("--env", "sim:3DBall", "--set", "behaviors.3DBall.max_steps=150000")
CLONED = ("--set", "behaviors.3DBall.behavioral_cloning.strength=3")
CASES: dict[str, tuple[str, tuple[str, ...]]] = {
    "cloning alone, Basic": ("basic_cloning", ()),
    "3DBall": ("3dball_ppo_mlagents", BALL),
    "3DBall with cloning": ("3dball_ppo_mlagents", (*BALL, *CLONED)),
}
"""The file in this folder, and what else stands behind `mlhooks run`."""
EXPERTS = {"basic": "Basic", "ball": "3DBall"}
"""The functions of `experts.py`, and the simulation of each."""


def record(folder: Path) -> dict[str, Path]:
    """Record 10 episodes of each expert, and return the demonstrations by the simulation's name."""
    demos = {}
    for expert, simulation in EXPERTS.items():
        demos[simulation] = folder / f"{expert}.demo"
        policy = f"{HERE / 'experts.py'}:{expert}"
        where = ("--env", f"sim:{simulation}", "--seed", "1", "--output", str(demos[simulation]))
        print(mlhooks("demo", "record", "--policy", policy, *where), end="", flush=True)
    return demos


def measure(case: str, seed: int, folder: Path, demos: dict[str, Path]) -> dict[str, Any]:
    """Return one run of a case."""
    config, more = CASES[case]
    behavior = "Basic" if config == "basic_cloning" else "3DBall"
    run_id = f"{case.replace(', ', '-').replace(' ', '-')}-{seed}"
    run = (str(HERE / f"{config}.yaml"), *more, "--run-id", run_id, "--results-dir", str(folder))
    if "cloning" in case:
        run += ("--set", f"behaviors.{behavior}.behavioral_cloning.demo_path={demos[behavior]}")
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
        if "3DBall" in case:
            values = [run["steps to 90"] or 10**9 for run in result["runs"]]
            cells = [", ".join(f"{value:,}" for value in values), f"{median(values):,.0f}", f"{max(values):,}"]
            target, met = "", ""
            if "cloning" in case and "3DBall" in results:
                without = median(run["steps to 90"] or 10**9 for run in results["3DBall"]["runs"])
                target, met = "half of the steps without", "yes" if median(values) <= without / 2 else "no"
            cells = ["steps to 90", *cells, target, met]
        else:
            values = [run["evaluation"] for run in result["runs"]]
            shown = ", ".join(f"{value:.3f}" for value in values)
            met = "yes" if min(values) >= 0.8 else "no"
            cells = ["evaluation", shown, f"{median(values):.3f}", f"{min(values):.3f}", "at least 0.8", met]
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
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5], help="default: 1 2 3 4 5")
    parser.add_argument("--output", type=Path, metavar="DIR", help="write here instead of benchmarks/ and docs/")
    args = parser.parse_args()
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        demos = record(Path(folder))
        for case in CASES:
            runs = [measure(case, seed, Path(folder), demos) for seed in args.seeds]
            results[case] = {**facts(1), "runs": runs}
            write({case: results[case]}, args.output)
    print(f"\n{table(results)}")


if __name__ == "__main__":
    main()
