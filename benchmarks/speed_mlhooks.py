"""One run of mlhooks for `speed.py`: its own `train`, with all the writers that a user gets."""

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
    steps = 0

    @hookimpl
    def behavior_added(self) -> None:
        """Start."""
        self.started = perf_counter()

    @hookimpl(trylast=True)
    def update_finished(self, step: int) -> None:
        """Stop, for now."""
        self.ended, self.steps = perf_counter(), step


def on_policy(settings: dict[str, Any]) -> dict[str, Any]:
    """What rollouts are made of and learned by."""
    return {
        "batch_size": settings["batch_size"],
        "buffer_size": settings["environments"] * settings["rollout"],
        "beta": 0.0,
        "lambd": settings["lambda"],
    }


def ppo(settings: dict[str, Any]) -> dict[str, Any]:
    """Hyperparameters of PPO."""
    return on_policy(settings) | {
        "epsilon": settings["clip"],
        "num_epoch": settings["epochs"],
        "value_clipping": False,
    }


def a2c(settings: dict[str, Any]) -> dict[str, Any]:
    """Hyperparameters of A2C."""
    return on_policy(settings) | {"normalize_advantages": False}


def dqn(settings: dict[str, Any]) -> dict[str, Any]:
    """Hyperparameters of DQN."""
    copied = "batch_size", "buffer_size", "gamma", "target_update_interval", "steps_per_update"
    return {name: settings[name] for name in copied} | {
        "buffer_init_steps": settings["learning_starts"],
        "exploration_initial_eps": 1.0,
        "exploration_final_eps": settings["final_epsilon"],
        "exploration_steps": settings["exploration_steps"],
        "tau": 1.0,
    }


HYPERPARAMETERS = {"ppo": ppo, "a2c": a2c, "dqn": dqn}


def configuration(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings that the peers share, in the words of a configuration file."""
    algorithm = settings["algorithm"]
    return {
        "default_settings": {
            "trainer_type": algorithm,
            "hyperparameters": HYPERPARAMETERS[algorithm](settings)
            | {
                "learning_rate": settings["learning_rate"],
                "learning_rate_schedule": "constant",
                "max_grad_norm": settings["max_grad_norm"],
            },
            "network_settings": {
                "hidden_units": settings["hidden_units"],
                "num_layers": 2,
                "activation": settings["activation"],
                "initialization": "orthogonal",
            },
            "reward_signals": {"extrinsic": {"gamma": settings["gamma"]}},
            "time_horizon": 1024,
            "max_steps": settings["steps"],
        },
        "env_settings": {
            "env_path": f"gymnasium:{settings['environment']}",
            "num_areas": settings["environments"],
            "seed": settings["seed"],
        },
        "torch_settings": {"device": "cpu", "threads": 1},
    }


def main(settings: dict[str, Any]) -> dict[str, Any]:
    """Train and report."""
    stopwatch = Stopwatch()
    run = mlhooks.train(configuration(settings), plugins=[stopwatch])
    (trainer,) = run.trainers.values()
    timers = run.timers.as_dict()["children"]
    return {
        "steps": stopwatch.steps,
        "loop_seconds": stopwatch.ended - stopwatch.started,
        "mean_return": trainer.mean_reward,
        "timers": {name: timer["total"] for name, timer in timers.items()},
        "versions": {name: version(name) for name in ("mlhooks", "torch", "numpy", "gymnasium")},
    }


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(main(json.loads(sys.argv[1]))), encoding="utf-8")
