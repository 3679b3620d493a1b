"""One run of mlhooks for `ppo_cartpole.py`: its own `train`, with all the writers that a user gets."""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any

import mlhooks
from mlhooks import hookimpl


class Stopwatch:
    """Times the training loop: from the first observation, with everything built, to the end of the last update."""

    started = ended = 0.0
    steps = updates = 0

    @hookimpl
    def behavior_added(self) -> None:
        """Start."""
        self.started = perf_counter()

    @hookimpl(trylast=True)
    def update_finished(self, step: int) -> None:
        """Stop, for now."""
        self.ended, self.steps = perf_counter(), step
        self.updates += 1


def configuration(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings that the peers share, in the words of a configuration file."""
    return {
        "behaviors": {
            "CartPole": {
                "trainer_type": "ppo",
                "hyperparameters": {
                    "batch_size": settings["batch_size"],
                    "buffer_size": settings["environments"] * settings["rollout"],
                    "num_epoch": settings["epochs"],
                    "learning_rate": settings["learning_rate"],
                    "learning_rate_schedule": "constant",
                    "epsilon": settings["clip"],
                    "lambd": settings["lambda"],
                    "beta": 0.0,
                    "max_grad_norm": settings["max_grad_norm"],
                    "value_clipping": False,
                },
                "network_settings": {
                    "hidden_units": 64,
                    "num_layers": 2,
                    "activation": "tanh",
                    "initialization": "orthogonal",
                },
                "reward_signals": {"extrinsic": {"gamma": settings["gamma"]}},
                "time_horizon": 1024,
                "max_steps": settings["steps"],
            }
        },
        "env_settings": {
            "env_path": "gymnasium:CartPole-v1",
            "num_areas": settings["environments"],
            "seed": settings["seed"],
        },
        "torch_settings": {"device": "cpu", "threads": 1},
    }


def main(settings: dict[str, Any]) -> dict[str, Any]:
    """Train and report."""
    stopwatch = Stopwatch()
    run = mlhooks.train(configuration(settings), plugins=[stopwatch])
    timers = run.timers.as_dict()["children"]
    return {
        "steps": stopwatch.steps,
        "updates": stopwatch.updates,
        "loop_seconds": stopwatch.ended - stopwatch.started,
        "mean_return": run.trainers["CartPole"].mean_reward,
        "timers": {name: timer["total"] for name, timer in timers.items()},
        "versions": {name: version(name) for name in ("mlhooks", "torch", "numpy", "gymnasium")},
    }


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(main(json.loads(sys.argv[1]))), encoding="utf-8")
