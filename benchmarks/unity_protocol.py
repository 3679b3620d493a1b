"""How fast is the Unity protocol? `mlagents_envs` as it is and mlhooks play the same prepared player in alternation.

`python benchmarks/unity_protocol.py` measures random actions for 1, 12 and 256 agents, and writes
`results/unity_protocol.json` (every single run) and `.md` (the table). The player is a process of its own that sends
prepared bytes (`prepared_player.py`), so that what is measured is the trainer's side, and the connection.

- agent-steps/s: decisions of agents that were answered, over the seconds of the loop.
- by processor time: the same over the processor time of the trainer's process, all of its threads together.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from peers import HERE, THREAD_VARIABLES
from prepared_player import BEHAVIOR
from report import as_json, machine, spread

WALL, PROCESSOR = "steps_per_second", "steps_per_processor_second"
Runs = dict[str, list[dict[str, float]]]


def theirs(port: int) -> Any:
    """Return the environment of `mlagents_envs`."""
    from mlagents_envs.environment import UnityEnvironment

    return UnityEnvironment(None, base_port=port)


def ours(port: int) -> Any:
    """Return the environment of mlhooks."""
    from mlhooks.unity.environment import UnityPlayer

    return UnityPlayer(None, port=port)


ENVIRONMENTS = {"mlagents_envs": theirs, "mlhooks": ours}


def measure(kind: str, agents: int, seconds: float) -> dict[str, float]:
    """Return agent-steps per second of one environment, and per second of its own processor time."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    player = subprocess.Popen([sys.executable, HERE / "prepared_player.py", str(port), "--agents", str(agents)])
    env = ENVIRONMENTS[kind](port)
    env.reset()
    spec = env.behavior_specs[BEHAVIOR].action_spec
    steps, elapsed, busy = 0, 0.0, 0.0
    for budget in (seconds / 5, seconds):  # The first one is for warming up.
        steps, started, busy = 0, time.perf_counter(), time.process_time()
        while (elapsed := time.perf_counter() - started) < budget:
            decisions, _ = env.get_steps(BEHAVIOR)
            env.set_actions(BEHAVIOR, spec.random_action(len(decisions)))
            env.step()
            steps += len(decisions)
        busy = time.process_time() - busy
    env.close()
    player.wait(10)
    return {WALL: steps / elapsed, PROCESSOR: steps / busy}


def rounds(agents: int, turns: int, seconds: float) -> Runs:
    """Measure both in turns, a different one first each time."""
    runs: Runs = {kind: [] for kind in ENVIRONMENTS}
    for turn in range(turns):
        for kind in ENVIRONMENTS if turn % 2 == 0 else reversed(ENVIRONMENTS):
            run = measure(kind, agents, seconds)
            runs[kind].append(run)
            rates = f"{run[WALL]:10,.0f} agent-steps/s  {run[PROCESSOR]:10,.0f} by processor time"
            print(f"{turn + 1}/{turns}  {agents:4} agents  {kind:13} {rates}", flush=True)
    return runs


def table(results: dict[int, Runs], facts: dict[str, str]) -> str:
    """Return medians with least and greatest value, and the ratio of the two by turn."""
    lines = ["# The Unity protocol", "", *(f"- {key}: {value}" for key, value in facts.items()), ""]
    for key, title in ((WALL, "Agent-steps per second"), (PROCESSOR, "Agent-steps per second of processor time")):
        lines += [f"{title}:", "", "| agents | mlagents_envs | mlhooks | ratio |", "| --- | --- | --- | --- |"]
        for agents, runs in results.items():
            old, new = ([run[key] for run in runs[kind]] for kind in ENVIRONMENTS)
            ratios = [ours / theirs for ours, theirs in zip(new, old, strict=True)]
            lines.append(f"| {agents} | {spread(old, 0)} | {spread(new, 0)} | {spread(ratios, 2)} |")
        lines.append("")
    lines += ["Medians, in brackets the least and the greatest of all turns; `unity_protocol.py` says what is timed."]
    return "\n".join(lines) + "\n"


def about(turns: int, seconds: float, agents: Sequence[int]) -> dict[str, str]:
    """Return when, where and with what the results were measured."""
    libraries = ("mlhooks", "mlagents-envs", "grpcio", "protobuf", "numpy")
    numbers = " ".join(map(str, agents))
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "libraries": ", ".join(f"{name} {version(name)}" for name in libraries),
        "work": f"{turns} turns of {seconds:g} seconds for each, in alternation; 3DBall's shape, random actions",
        "command": f"python benchmarks/unity_protocol.py --agents {numbers} --turns {turns} --seconds {seconds:g}",
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=int, nargs="+", default=[1, 12, 256], help="default: 1 12 256")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement (default 2)")
    parser.add_argument("--turns", type=int, default=5, help="measurements of each (default 5)")
    parser.add_argument("--output", type=Path, default=HERE / "results", metavar="DIR", help="where to write")
    args = parser.parse_args()
    if any(os.environ.get(name) != "1" for name in THREAD_VARIABLES):
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | dict.fromkeys(THREAD_VARIABLES, "1"))
    results = {agents: rounds(agents, args.turns, args.seconds) for agents in args.agents}
    facts = about(args.turns, args.seconds, args.agents)
    text = table(results, facts)
    args.output.mkdir(parents=True, exist_ok=True)
    content = as_json({"about": facts, "runs": results})
    (args.output / "unity_protocol.json").write_text(content + "\n", encoding="utf-8")
    (args.output / "unity_protocol.md").write_text(text, encoding="utf-8")
    print(f"\n{text}")


if __name__ == "__main__":
    main()
