"""Agent-steps per second of PPO over the Unity protocol: mlhooks and `mlagents-learn` 1.1.0 with the same player.

`python benchmarks/unity_training.py` trains with the hyperparameters of ML-Agents' own 3DBall.yaml, by the command line
and in alternation, against `mlhooks sim-player 3DBall` as the player, and writes `results/unity_training.json` (every
single run) and `results/unity_training.md` (the table). It needs Linux or macOS.

- steps/s: agent-steps over the seconds between the first summary of statistics and the last, of which each period has
  one rollout and its update; so starting the player is left out, and saving checkpoints is not.
- reward: mean return at the last summary, to see that both learn.

`mlagents-learn` is made for Python 3.10 with protobuf's C++ code. On other versions of Python it is installed here
with newer packages than it asks for, and reads messages by protobuf's Python code.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import yaml
from peers import HERE, MLAGENTS
from report import as_json, machine

BUFFER = 12_000
BALL: dict[str, Any] = {
    "trainer_type": "ppo",
    "hyperparameters": {
        "batch_size": 64,
        "buffer_size": BUFFER,
        "learning_rate": 3e-4,
        "beta": 0.001,
        "epsilon": 0.2,
        "lambd": 0.99,
        "num_epoch": 3,
        "learning_rate_schedule": "linear",
    },
    "network_settings": {"normalize": True, "hidden_units": 128, "num_layers": 2, "vis_encode_type": "simple"},
    "reward_signals": {"extrinsic": {"gamma": 0.99, "strength": 1.0}},
    "keep_checkpoints": 5,
    "time_horizon": 1000,
    "summary_freq": BUFFER,
}
CASES = [(12, 1), (1, 1), (256, 1), (12, 2), (12, 4)]
"""Areas of 12 agents in each player, and players; both libraries are measured in the first case."""
ANNOUNCED = re.compile(r"3DBall\. Step: (\d+)\. Time Elapsed: ([\d.]+) s\. Mean Reward: (-?\d+\.\d+)")


def train(name: str, areas: int, players: int, steps: int, seed: int, port: int) -> dict[str, Any]:
    """Return one run in a folder of its own.

    Raises:
        SystemExit: it printed or wrote fewer than two summaries.
    """
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        player = folder / "Ball"
        make = (sys.executable, "-m", "mlhooks", "sim-player", "3DBall", "--areas", str(areas))
        subprocess.run([*make, "--write-executable", player], check=True, stdout=subprocess.DEVNULL)
        config = folder / "3DBall.yaml"
        config.write_text(yaml.safe_dump({"behaviors": {"3DBall": BALL | {"max_steps": steps}}}), encoding="utf-8")
        flags: list[str | Path] = [
            "--env",
            player,
            "--run-id",
            "run",
            "--results-dir",
            folder / "results",
            "--no-graphics",
        ]
        flags += ["--num-envs", str(players), "--seed", str(seed), "--base-port", str(port), "--torch-device", "cpu"]
        command = [sys.executable, "-m", "mlhooks", "run"]
        if name == MLAGENTS.name:
            command = [str(MLAGENTS.python().with_name("mlagents-learn"))]
        ran = subprocess.run(
            [*command, config, *flags],
            capture_output=True,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            check=False,  # It fails at the end where onnx is not installed.
        )
        if name == "mlagents":
            summaries = [tuple(map(float, found)) for found in ANNOUNCED.findall(ran.stdout + ran.stderr)]
        else:
            summaries = list(_written(folder / "results" / "run" / "stats.jsonl"))
    if len(summaries) < 2:
        raise SystemExit(f"{name} made fewer than two summaries:\n{ran.stdout}{ran.stderr}")
    (first, began, _), (last, ended, reward) = summaries[0], summaries[-1]
    result = {"seed": seed, "areas": areas, "players": players, "steps": last - first, "seconds": ended - began}
    return result | {"steps_per_second": result["steps"] / result["seconds"], "reward": reward}


def _written(file: Path) -> Any:
    for line in file.read_text(encoding="utf-8").splitlines():
        summary = json.loads(line)
        reward = summary["values"].get("Environment/Cumulative Reward")
        if reward:
            yield float(summary["step"]), float(summary["time"]), float(reward["mean"])


def table(results: dict[str, list[dict[str, Any]]], facts: dict[str, str]) -> str:
    """Return medians with least and greatest value, and the ratio."""
    lines = ["# Training over the Unity protocol", "", *(f"- {key}: {value}" for key, value in facts.items()), ""]
    lines += ["| | areas of 12 agents | players | agent-steps/s | reward |", "| --- | --- | --- | --- | --- |"]
    for name, runs in results.items():
        for areas, players in CASES:
            mine = [run for run in runs if (run["areas"], run["players"]) == (areas, players)]
            if mine:
                speeds = [run["steps_per_second"] for run in mine]
                spread = f"{median(speeds):,.0f} ({min(speeds):,.0f} to {max(speeds):,.0f})"
                lines.append(
                    f"| {name} | {areas} | {players} | {spread} | {median(run['reward'] for run in mine):.1f} |"
                )
    both = [[run for run in runs if (run["areas"], run["players"]) == CASES[0]] for runs in results.values()]
    ratios = [ours["steps_per_second"] / theirs["steps_per_second"] for ours, theirs in zip(*both, strict=True)]
    lines += ["", "Medians, in brackets the least and the greatest of all runs.", ""]
    lines.append(
        f"With {CASES[0][0]} areas of 12 agents mlhooks makes {median(ratios):.2f} times the steps of mlagents-learn "
        f"in the same time ({min(ratios):.2f} to {max(ratios):.2f} by round)."
    )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="runs of each (default 5)")
    parser.add_argument("--steps", type=int, default=5 * BUFFER, help=f"of a run (default {5 * BUFFER})")
    parser.add_argument("--base-port", type=int, default=5305)
    parser.add_argument("--output", type=Path, default=HERE / "results", metavar="DIR", help="where to write")
    args = parser.parse_args()
    results: dict[str, list[dict[str, Any]]] = {"mlhooks": [], "mlagents": []}
    for number in range(args.rounds):
        for areas, players in CASES:
            names = list(results) if (areas, players) == CASES[0] else ["mlhooks"]
            for name in names if number % 2 == 0 else reversed(names):
                run = train(name, areas, players, args.steps, number + 1, args.base_port)
                results[name].append(run)
                print(
                    f"{number + 1}/{args.rounds}  {name:8}  {areas:3} areas  {players} players  "
                    f"{run['steps_per_second']:8,.0f} steps/s  reward {run['reward']:.1f}",
                    flush=True,
                )
    facts = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "libraries": ", ".join(f"{name} {version(name)}" for name in ("mlhooks", "torch", "numpy", "grpcio")),
        "work": f"{args.rounds} runs of each, {args.steps} steps, hyperparameters of ML-Agents' 3DBall.yaml",
        "command": f"python benchmarks/unity_training.py --rounds {args.rounds} --steps {args.steps}",
    }
    args.output.mkdir(parents=True, exist_ok=True)
    content = as_json({"about": facts, "settings": BALL, "runs": results})
    (args.output / "unity_training.json").write_text(content + "\n", encoding="utf-8")
    text = table(results, facts)
    (args.output / "unity_training.md").write_text(text, encoding="utf-8")
    print(f"\n{text}", flush=True)


if __name__ == "__main__":
    main()
