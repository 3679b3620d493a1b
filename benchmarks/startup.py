"""How long until training begins? From the command to the first environment step, beside `import torch` alone.

`python benchmarks/startup.py` starts each command in turn, `--rounds` times, and writes `results/startup.json` and
`.md`. The run ends itself when its environment has made its first step.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from time import perf_counter

from peers import HERE, THREAD_VARIABLES
from report import machine, spread, table, today, write

PLUGIN = """
import os

from mlhooks import hookimpl


@hookimpl
def behavior_added(trainer):
    observe, seen = trainer.observe, []

    def count(*arguments):
        seen.append(arguments)
        if len(seen) == 2:  # after the first reset and the first step
            os._exit(0)
        observe(*arguments)

    trainer.observe = count
"""
MLHOOKS = (sys.executable, "-m", "mlhooks")
TORCH = 'python -c "import torch"'
COMMANDS = {
    'python -c "pass"': (sys.executable, "-c", "pass"),
    TORCH: (sys.executable, "-c", "import torch"),
    "mlhooks --help": (*MLHOOKS, "--help"),
    "mlhooks run 3dball_ppo": (*MLHOOKS, "run", "3dball_ppo", "--plugins-dir", "."),
    "mlhooks run cartpole_ppo": (*MLHOOKS, "run", "cartpole_ppo", "--plugins-dir", "."),
}


def measure(command: tuple[str, ...]) -> float:
    """Return seconds of a command."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "first_step.py").write_text(PLUGIN, encoding="utf-8")
        environment = os.environ | dict.fromkeys(THREAD_VARIABLES, "1")
        started = perf_counter()
        subprocess.run(command, check=True, cwd=folder, env=environment, capture_output=True)
        return perf_counter() - started


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="times that each command is run (default 15)")
    parser.add_argument("--output", type=Path, default=HERE / "results", metavar="DIR", help="where to write")
    args = parser.parse_args()
    for command in COMMANDS.values():
        measure(command)  # This brings all files into the disk's cache.
    rounds = [{name: measure(command) for name, command in COMMANDS.items()} for _ in range(args.rounds)]
    rows = []
    for name in COMMANDS:
        seconds, torch = ([each[command] for each in rounds] for command in (name, TORCH))
        ratios = [a / b for a, b in zip(seconds, torch, strict=True)]
        rows.append([f"`{name}`", spread(seconds, 2), spread(ratios, 2)])
    facts = {
        "date": today(),
        "machine": machine(),
        "libraries": ", ".join(f"{name} {version(name)}" for name in ("mlhooks", "torch", "numpy", "gymnasium")),
        "command": f"python benchmarks/startup.py --rounds {args.rounds}",
    }
    lines = [
        *table(["command", "seconds", f"of `{TORCH}`"], rows),
        "",
        "Medians, in brackets the least and the greatest. A run's seconds end with its environment's first step.",
    ]
    write(args.output, "startup", facts, {"seconds": rounds}, lines)


if __name__ == "__main__":
    main()
