"""What `torch_settings.compile` and `torch_settings.autocast` give: updates of PPO and decisions, in one process.

`python benchmarks/torch_settings.py` times the gradient step on one minibatch, and acting for 8 agents, for networks
with each setting, in alternation, on one thread and on two; it writes `results/torch_settings.json` and `.md`. *First*
is what the first three updates and decisions take, in which networks are compiled, or what an earlier run compiled is
loaded. The machine should be idle.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import torch
from peers import HERE
from report import machine, spread, table, today, write
from threadpoolctl import threadpool_limits

from mlhooks.settings.run_options import TorchSettings
from mlhooks.testing.managers import make_manager
from mlhooks.testing.specs import make_behavior_spec
from mlhooks.testing.trainer_loop import make_trainer
from mlhooks.training.batch import Batch
from mlhooks.training.torch_setup import Computing
from mlhooks.training.trainer import Trainer

IMAGE, AGENTS = (4, 84, 84), 8
NATURE_CNN = {"vis_encode_type": "nature_cnn", "hidden_units": 512, "num_layers": 1}
CASES: dict[str, tuple[Any, int, dict[str, Any]]] = {
    "Nature CNN, 256 rows": (IMAGE, 256, NATURE_CNN),
    "2 x 256 swish, 256 rows": (32, 256, {"hidden_units": 256}),
    "2 x 256 swish, 2048 rows": (32, 2048, {"hidden_units": 256}),
    "2 x 512 swish, 256 rows": (32, 256, {"hidden_units": 512}),
    "2 x 512 swish, 4096 rows": (32, 4096, {"hidden_units": 512}),
}
"""Observation, rows of a minibatch, and network."""
SETTINGS: dict[str, dict[str, Any]] = {
    "neither": {},
    "compile": {"compile": True},
    "autocast": {"autocast": "bfloat16"},
    "both": {"compile": True, "autocast": "bfloat16"},
}


def calls(
    observation: Any, rows: int, network: dict[str, Any], settings: dict[str, Any]
) -> Iterator[Callable[[], Any]]:
    """Yield a gradient step, and a decision."""
    hyperparameters = {"batch_size": rows, "buffer_size": rows, "shared_critic": observation == IMAGE}
    behavior = {"trainer_type": "ppo", "hyperparameters": hyperparameters, "network_settings": network}
    trainer: Trainer = make_trainer(make_manager(), make_behavior_spec((observation,), branches=(4,)), behavior)
    Computing(TorchSettings(**settings), trainer.device).set_up(trainer.modules().values())
    batch = Batch(
        features=torch.rand(rows, trainer.policy.layout.size),
        continuous=torch.empty(rows, 0),
        discrete=torch.randint(4, (rows, 1)),
        log_probs=torch.full((rows,), 0.25).log(),
        values=torch.zeros(rows, 1),
        returns=torch.randn(rows, 1),
        advantages=torch.randn(rows),
    )
    shape = observation if isinstance(observation, tuple) else (observation,)
    obs, rng = [np.zeros((AGENTS, *shape), np.float32)], np.random.default_rng(0)
    trainer.optimizer.set_step(0)
    yield lambda: trainer.optimizer.update(batch)
    yield lambda: trainer.policy.act(obs, None, rng)


def seconds(call: Callable[[], Any]) -> float:
    """Return the seconds of one call."""
    started = perf_counter()
    call()
    return perf_counter() - started


def turn(call: Callable[[], Any]) -> float:
    """Return seconds of one call, when threads that the other settings used have gone to sleep: the median of some."""
    for _ in range(3):
        call()
    return median(seconds(call) for _ in range(5))


def measure(case: str, turns: int) -> list[dict[str, Any]]:
    """Return the times of a case with each setting and number of threads."""
    made = {name: list(calls(*CASES[case], settings)) for name, settings in SETTINGS.items()}
    first = {name: sum(seconds(call) for _ in range(3) for call in both) for name, both in made.items()}
    results = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        with threadpool_limits(threads, user_api="blas"):
            times = [{name: [turn(call) for call in both] for name, both in made.items()} for _ in range(turns)]
        for name in made:
            update, act = zip(*(turn[name] for turn in times), strict=True)
            results.append(
                {"case": case, "threads": threads, "settings": name, "first": first[name], "update": update, "act": act}
            )
    torch.set_num_threads(1)
    return results


def row(result: dict[str, Any]) -> list[str]:
    """Return a row of the table."""
    times = (spread([1e3 * second for second in result[what]], 2) for what in ("update", "act"))
    return [result["case"], str(result["threads"]), result["settings"], *times, f"{result['first']:.1f}"]


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=7, help="of each call (default 7)")
    parser.add_argument("--output", type=Path, default=HERE / "results", metavar="DIR", help="where to write")
    args = parser.parse_args()
    torch.set_num_threads(1)
    results = [result for case in CASES for result in measure(case, args.turns)]
    header = ["network", "threads", "settings", "update, ms", "act, ms", "first, s"]
    lines = [
        *table(header, map(row, results)),
        "",
        "Medians, in brackets the least and the greatest of all turns; `torch_settings.py` says what is timed.",
    ]
    facts = {
        "date": today(),
        "machine": f"{machine()}, busy with other work",
        "libraries": f"torch {torch.__version__}, numpy {np.__version__}",
        "work": f"PPO, one minibatch of an update, and decisions for {AGENTS} agents; {args.turns} turns of 5 calls",
        "command": f"python benchmarks/torch_settings.py --turns {args.turns}",
    }
    write(args.output, "torch_settings", facts, {"results": results}, lines)


if __name__ == "__main__":
    main()
