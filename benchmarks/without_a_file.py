"""What does `mlhooks run --env gymnasium:ID` reach without a file? Trains over several seeds and scores the result.

`python benchmarks/without_a_file.py` measures all environments over seeds 1 to 3, one run at a time, and takes about an
hour. It writes `without_a_file.json` (every run) beside this file and the table of `docs/results.md`. `python
benchmarks/without_a_file.py Taxi-v4 --seeds 11 12 --output FOLDER` measures one on other seeds and writes both into
FOLDER instead. What is measured is what `learning_results.py` calls evaluation, and seconds are as there.

Where the settings are those of an example, a run without a file is a run of that example: those in
`learning_results.json` are not made again.
"""

from __future__ import annotations

import argparse
import shlex
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from learning_results import HERE, facts, measured_on, read, renew, train_and_score
from report import as_json

BEGIN, END = "<!-- without a file -->", "<!-- end of without a file -->"


@dataclass(frozen=True)
class Case:
    """An environment and a trainer type, the least that every seed must reach, and in how many steps.

    Without `least` nobody has said what is good; without `max_steps` it is that of the settings.
    """

    env: str
    algo: str = "ppo"
    least: float | None = None
    max_steps: int | None = None

    @property
    def name(self) -> str:
        """What arguments and results call it."""
        return self.env if self.algo == "ppo" else f"{self.env}-{self.algo}"

    @property
    def arguments(self) -> tuple[str, ...]:
        """What stands behind `mlhooks run`."""
        algo = () if self.algo == "ppo" else ("--algo", self.algo)
        steps = () if self.max_steps is None else ("--set", f"behaviors.*.max_steps={self.max_steps}")
        return ("--env", f"gymnasium:{self.env}", *algo, *steps)


CASES = {
    case.name: case
    for case in (
        Case("CartPole-v1", least=475),
        Case("Acrobot-v1", least=-100),
        Case("MountainCar-v0", "dqn", least=-140),
        Case("Pendulum-v1", least=-250),
        Case("LunarLander-v3", least=150, max_steps=500_000),
        Case("FrozenLake-v1", least=0.6),
        Case("Taxi-v4", least=5),
        Case("HalfCheetah-v5", least=1000, max_steps=300_000),
        Case("MountainCar-v0"),
        Case("CliffWalking-v1"),
        Case("InvertedPendulum-v5"),
        Case("Hopper-v5"),
        Case("MountainCarContinuous-v0"),
        Case("FrozenLake-v1", "a2c"),
        Case("Taxi-v4", "dqn"),
    )
}


def table(results: dict[str, Any]) -> str:
    """Return one row for each case, and below them when, where and with what they were measured."""
    lines = [
        "| `mlhooks run` | settings | steps | on each seed | worst | target | met | seconds |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, result in results.items():
        case, runs = CASES[name], result["runs"]
        values = [run["evaluation"] for run in runs]
        digits = 2 if max(map(abs, values)) < 10 else 1
        cells = [
            f"`{shlex.join(case.arguments)}`".replace("'", ""),
            result["settings"],
            f"{max(run['steps'] for run in runs):,}",
            ", ".join(f"{value:,.{digits}f}" for value in values),
            f"{min(values):,.{digits}f}",
            "" if case.least is None else f"at least {case.least:g}",
            "" if case.least is None else "yes" if min(values) >= case.least else "no",
            f"{median(run['seconds'] for run in runs):.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", *measured_on(results)])


def settings_of(case: Case) -> str:
    """Return what a run of it trains with: the example that is tuned for it, or sections of general settings."""
    from mlhooks.general_settings import choose
    from mlhooks.plugins import load_plugins

    path = {"env_settings.env_path": f"gymnasium:{case.env}"}
    text = choose(load_plugins(), case.algo, flags=path).text
    example = text.removeprefix("those of the example ").partition(",")[0]
    return f"`{example}`" if text.startswith("those") else text


def measure(case: Case, seeds: list[int]) -> dict[str, Any]:
    """Return the runs of a case over all seeds."""
    settings = settings_of(case)
    if case.max_steps is None:
        known = read(HERE / "learning_results.json").get(settings.strip("`"), {"runs": []})
        runs = [run for run in known["runs"] if run["seed"] in seeds]
        if len(runs) == len(seeds):
            return {key: known[key] for key in ("date", "machine", "versions")} | {"settings": settings, "runs": runs}
    with tempfile.TemporaryDirectory() as folder:
        runs = [
            train_and_score(
                case.name, (*case.arguments, "--run-id", f"{case.name}-{seed}", "--results-dir", folder), seed
            )
            for seed in seeds
        ]
    return {**facts(1), "settings": settings, "runs": runs}


def write(results: dict[str, Any], output: Path | None) -> None:
    """Add the results to those that are there, and renew the table."""
    file = (output or HERE) / "without_a_file.json"
    known = read(file) | results
    known = {name: known[name] for name in CASES if name in known}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(as_json(known) + "\n", encoding="utf-8")
    if output:
        (output / "without_a_file.md").write_text(table(known) + "\n", encoding="utf-8")
        return
    renew(table(known), BEGIN, END)


def main() -> None:
    """Measure, write after each case, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"any of {', '.join(CASES)} (default: all)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="default: 1 2 3")
    parser.add_argument("--output", type=Path, metavar="DIR", help="write here instead of benchmarks/ and docs/")
    args = parser.parse_args()
    if unknown := set(args.cases) - CASES.keys():
        parser.error(f"there is no case {', '.join(sorted(unknown))}; choose from {', '.join(CASES)}")
    results: dict[str, Any] = {}
    for name in args.cases or CASES:
        results[name] = measure(CASES[name], args.seeds)
        write({name: results[name]}, args.output)
    print(f"\n{table(results)}")


if __name__ == "__main__":
    main()
