"""How long does an update of POCA take, beside one of PPO and beside ML-Agents' own POCA, on the same rows?

`python benchmarks/poca_update.py` gives each trainer the same 10,240 rows of 16 groups of 4 agents, which all decide
together, and times its updates, from the rows to the weights: values and returns, and 3 passes of minibatches. Each
runs in a process and on one thread, `--rounds` times in alternation, and its seconds are the processor's. `plain` is
with `MLHOOKS_PLAIN=1`. It writes `results/poca_update.json` and `results/poca_update.md`, which `performance_page.py`
puts into docs/many_agents.md. mlhooks takes the environment that it runs in; ML-Agents gets one of its own, as
`peers.py` makes it (`--without mlagents` leaves it out). The machine should be idle.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from statistics import median
from typing import Any

from fast import ThisEnvironment
from peers import HERE, MLAGENTS, Peer
from report import machine, spread, table, today, write

SETTINGS: dict[str, Any] = {
    "groups": 16,
    "members": 4,
    "observations": 20,
    "hidden_units": 128,
    "num_layers": 2,
    "batch_size": 1024,
    "buffer_size": 10240,
    "num_epoch": 3,
    "learning_rate": 0.0003,
    "time_horizon": 64,
    "plain": False,
    "seed": 1,
}
OURS = ThisEnvironment("mlhooks", "poca_update_mlhooks.py")
WAYS: dict[str, tuple[Peer, dict[str, Any]]] = {
    "ppo, plain": (OURS, {"trainer": "ppo", "plain": True}),
    "poca, plain": (OURS, {"trainer": "poca", "plain": True}),
    "ppo": (OURS, {"trainer": "ppo"}),
    "poca": (OURS, {"trainer": "poca"}),
    "mlagents": (Peer("mlagents", "poca_update_mlagents.py", installs=MLAGENTS.installs), {}),
}


def main() -> None:
    """Measure, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--updates", type=int, default=3, help="that each process times")
    parser.add_argument("--without", nargs="*", default=[], choices=WAYS, help="what is left out")
    parser.add_argument("--output", type=Path, default=HERE / "results", help="where to write")
    options = parser.parse_args()
    ways = [way for way in WAYS if way not in options.without]
    results: dict[str, list[dict[str, Any]]] = {way: [] for way in ways}
    for number in range(options.rounds):
        turn = number % len(ways)
        for way in ways[turn:] + ways[:turn]:
            peer, changes = WAYS[way]
            results[way].append(peer.run(SETTINGS | changes | {"updates": options.updates}))
            print(number, way, [round(seconds, 3) for seconds in results[way][-1]["seconds"]], flush=True)
    found = {way: [seconds for run in runs for seconds in run["seconds"]] for way, runs in results.items()}
    rows = []
    for way, seconds in found.items():
        against = {"poca, plain": "ppo, plain", "poca": "ppo", "mlagents": "poca"}.get(way)
        times = f"{median(seconds) / median(found[against]):.1f} x {against}" if against in found else ""
        rows.append([way, spread(seconds, 3), times])
    facts = {"machine": machine(), "date": today(), "command": " ".join(["python", *sys.argv])}
    write(options.output, "poca_update", facts, results, table(["trainer", "seconds of an update", "beside"], rows))


if __name__ == "__main__":
    main()
