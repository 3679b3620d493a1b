"""Which of ML-Agents' own configuration files train here, and what do the others ask for that is missing?

`python benchmarks/mlagents_configs.py ml-agents/config` takes every .yaml file below a folder, such as `config` of a
clone of https://github.com/Unity-Technologies/ml-agents, and runs it by the command line against the stand-in of a
Unity player that shows the file's behaviors, for `--steps` steps of each with rollouts of 256 steps, so that every
behavior learns. It prints a table in Markdown and exits with 1 when a run fails for another reason than a refusal.

The scenes of teams and groups, all of `poca/`, are those that the stand-in knows by name. Elsewhere its agents have
vector sensors, a camera of 40 x 36 pixels where the scene's have cameras or grids, and continuous actions, or discrete
ones for DQN, whatever the scenes have: it is the files that are tried. In place of demonstrations that a file names, a
random policy of the stand-in is recorded. With self-play, each team learns in turn within these steps.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from mlhooks.sim_player.options import SCENES

SEEING = ("Grid", "Match3", "Visual")  # Names of behaviors with cameras or grids begin so.
REFUSED = re.compile(r"\.yaml:\d+:\d+: (?:error: )?([^:]+): (.*)")  # Warnings say so before the key.


class Tried(NamedTuple):
    """The result of a file.

    Attributes:
        outcome: "trains", "refused" or "failed".
        detail: mean reward and steps, what is missing, or the end of the output.
    """

    outcome: str
    detail: str


def mlhooks(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run `mlhooks ARGUMENTS` on one thread."""
    command = [sys.executable, "-m", "mlhooks", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def attempt(file: Path, folder: Path, steps: int, port: int) -> Tried:
    """Run one file against a player made for it."""
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    found = content.get("behaviors") or {}
    names = list(found)
    player = folder / "Player"
    behaviors = []
    for name, settings in found.items():
        actions = "discrete" if settings.get("trainer_type") == "dqn" else "continuous"
        sensors = "+png" * name.startswith(SEEING) + "+buffer" * name.startswith("Sorter")
        behaviors += ["--behavior", f"{name}:{actions}{sensors}"]
    scene = [file.stem] if file.stem in SCENES else ["scripted", *behaviors, "--agents", "4"]
    made = mlhooks("sim-player", *scene, "--write-executable", player)
    if made.returncode:
        return Tried("failed", made.stderr)
    # The question is whether it starts to learn, so it makes as few steps as possible.
    small = {"max_steps": steps, "summary_freq": steps // 2}
    rollout = {"batch_size": 64, "buffer_size": 256}
    changes = [f"behaviors.{name}.{key}={value}" for name in names for key, value in small.items()]
    changes += [f"behaviors.{name}.hyperparameters.{key}={value}" for name in names for key, value in rollout.items()]
    turns = {"team_change": steps // 4, "save_steps": steps // 8, "swap_steps": steps // 8}
    playing = [name for name in names if found[name].get("self_play")]
    changes += [f"behaviors.{name}.self_play.{key}={value}" for name in playing for key, value in turns.items()]
    changes += demonstrations(found, player, folder, port)
    flags = [argument for change in changes for argument in ("--set", change)]
    where = ("--run-id", "tried", "--force", "--results-dir", folder, "--base-port", str(port))
    ran = mlhooks("run", file, "--env", player, "--no-graphics", *where, *flags)
    refusals = [f"`{key}`: {why}" for key, why in REFUSED.findall(ran.stderr) if key != "warning"]
    if ran.returncode and refusals:
        return Tried("refused", "; ".join(dict.fromkeys(refusals)))
    finished = re.findall(r"([\w ]+?) +([\d,]+) of [\d,]+ steps, mean reward (\S+)", ran.stdout)
    if ran.returncode or len(finished) < len(names):
        return Tried("failed", (ran.stdout + ran.stderr)[-2000:])
    return Tried("trains", "; ".join(f"{name.strip()}: {done} steps" for name, done, _ in finished))


def demonstrations(behaviors: dict[str, dict[str, Any]], player: Path, folder: Path, port: int) -> list[str]:
    """Record a random policy of each behavior that learns from a demonstration, and return settings that name them."""
    changes = []
    for name, settings in behaviors.items():
        sections = {f"reward_signals.{key}": signal for key, signal in settings.get("reward_signals", {}).items()}
        sections["behavioral_cloning"] = settings.get("behavioral_cloning")
        keys = [key for key, section in sections.items() if "demo_path" in (section or {})]
        if keys:
            demo = folder / f"{name}.demo"
            where = ("--env", player, "--behavior", name, "--set", f"env_settings.base_port={port}")
            mlhooks("demo", "record", *where, "--episodes", "20", "--output", demo)
            changes += [f"behaviors.{name}.{key}.demo_path={demo}" for key in keys]
    return changes


def main() -> None:
    """Try all files and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="with .yaml files, at any depth")
    parser.add_argument("--steps", type=int, default=1000, help="of each behavior (default 1000)")
    parser.add_argument("--base-port", type=int, default=5405)
    args = parser.parse_args()
    files = sorted(args.folder.rglob("*.yaml"))
    if not files:
        parser.error(f"there is no .yaml file below {args.folder}")
    outcomes = []
    print("| file | | |\n| --- | --- | --- |")
    for file in files:
        with tempfile.TemporaryDirectory() as folder:
            tried = attempt(file, Path(folder), args.steps, args.base_port)
        outcomes.append(tried.outcome)
        detail = tried.detail.replace("\n", " ").replace("|", "\\|")
        print(f"| `{file.relative_to(args.folder)}` | {tried.outcome} | {detail} |", flush=True)
    print(f"\n{outcomes.count('trains')} train, {outcomes.count('refused')} are refused, of {len(outcomes)}.")
    sys.exit(1 if "failed" in outcomes else 0)


if __name__ == "__main__":
    main()
