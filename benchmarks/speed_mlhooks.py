"""One run of mlhooks for `speed.py`: its own `train`, with all the writers that a user gets."""

from __future__ import annotations

import mlhooks.fast  # It comes before torch, as in the command line, so that torch's objects are in huge pages, too.

# isort: split
import multiprocessing
from itertools import pairwise
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

from adapter import script
from mlagents_envs.base_env import BehaviorSpec
from torch import nn

import mlhooks
from builtin_plugins.a2c import A2COptimizer
from builtin_plugins.dqn import DQNOptimizer, DQNTrainer, QPolicy
from builtin_plugins.ppo import PPOOptimizer
from builtin_plugins.sac import SACOptimizer
from mlhooks import hookimpl
from mlhooks.training.run import Run
from mlhooks.training.trainer import Trainer


class Stopwatch:
    """Times the training loop: from the first observation, with everything built, to the end of the last update."""

    started = ended = computed_before = computed = 0.0
    steps = 0

    @hookimpl
    def behavior_added(self) -> None:
        """Start."""
        self.started, self.computed_before = perf_counter(), process_time()

    @hookimpl(trylast=True)
    def update_finished(self, step: int) -> None:
        """Stop, for now."""
        self.ended, self.computed, self.steps = perf_counter(), process_time(), step


class Goal:
    """Ends the run when the mean of the last 100 training episodes is what it was to reach."""

    run: Run

    def __init__(self, mean_return: float) -> None:
        self.mean_return = mean_return

    @hookimpl
    def run_started(self, run: Run) -> None:
        """Keep what can be stopped."""
        self.run = run

    @hookimpl
    def update_finished(self, trainer: Trainer) -> None:
        """Stop, if it is reached."""
        recent = trainer.episodes.recent
        if len(recent) == 100 and sum(recent) / 100 >= self.mean_return:
            self.run.stop.requested = True


class Memory:
    """Measures what this process and its workers have in memory, at some steps of a run; on Linux."""

    def __init__(self, steps: list[int]) -> None:
        self.steps = steps
        self.mib: list[float] = []

    @hookimpl
    def update_finished(self, step: int) -> None:
        """Measure, if it is time."""
        if len(self.mib) < len(self.steps) and step >= self.steps[len(self.mib)]:
            workers = multiprocessing.active_children()
            self.mib.append(sum(resident(process.pid) for process in [multiprocessing.current_process(), *workers]))


def resident(process: int | None) -> float:
    """Return the MiB of a process, what it shares with others in equal parts."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


class Layers:
    """Networks for DQN that `network_settings` lacks: hidden layers of different sizes, torch's initial weights."""

    def __init__(self, sizes: list[int]) -> None:
        self.sizes = sizes

    @hookimpl
    def create_policy(self, trainer: Trainer, behavior_spec: BehaviorSpec) -> QPolicy | None:
        """Return the built-in policy with other layers."""
        if not isinstance(trainer, DQNTrainer):
            return None
        policy = QPolicy(trainer.behavior_name, behavior_spec, trainer.settings, trainer.device)
        network, sizes = policy.network, [policy.layout.size, *self.sizes]
        network.encoder.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        network.encoder.output_size = sizes[-1]
        network.advantages = nn.Linear(sizes[-1], network.advantages.out_features)
        return policy


def on_policy(settings: dict[str, Any]) -> dict[str, Any]:
    """Return what rollouts are made of and learned by."""
    return {
        "batch_size": settings["batch_size"],
        "buffer_size": settings["environments"] * settings["rollout"],
        "beta": settings["entropy"],
        "lambd": settings["lambda"],
        "joint_actions": True,
    }


def ppo(settings: dict[str, Any]) -> dict[str, Any]:
    """Return hyperparameters of PPO."""
    return on_policy(settings) | {
        "epsilon": settings["clip"],
        "num_epoch": settings["epochs"],
        "value_clipping": False,
        "normalize_advantages": "minibatch",
        "shared_critic": settings.get("frames", False),
    }


def a2c(settings: dict[str, Any]) -> dict[str, Any]:
    """Return hyperparameters of A2C."""
    return on_policy(settings) | {"normalize_advantages": "none"}


def dqn(settings: dict[str, Any]) -> dict[str, Any]:
    """Return hyperparameters of DQN."""
    copied = "batch_size", "buffer_size", "gamma", "target_update_interval", "steps_per_update"
    return {name: settings[name] for name in copied} | {
        "buffer_init_steps": settings["learning_starts"],
        "exploration_initial_eps": 1.0,
        "exploration_final_eps": settings["final_epsilon"],
        "exploration_steps": settings["exploration_steps"],
        "tau": 1.0,
    }


def sac(settings: dict[str, Any]) -> dict[str, Any]:
    """Return hyperparameters of SAC, as other libraries compute it."""
    copied = "batch_size", "buffer_size", "steps_per_update", "tau"
    return {name: settings[name] for name in copied} | {
        "buffer_init_steps": settings["learning_starts"],
        "random_steps": settings["learning_starts"],
        "twin_targets": True,
    }


def memory_of(settings: dict[str, Any]) -> dict[str, int] | None:
    """Return the memory of the networks, which in ML-Agents' words is output and cell."""
    if "memory_units" not in settings:
        return None
    return {"memory_size": 2 * settings["memory_units"], "sequence_length": settings["sequence"]}


HYPERPARAMETERS = {"ppo": ppo, "a2c": a2c, "dqn": dqn, "sac": sac}


def configuration(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that the peers share, in the words of a configuration file."""
    algorithm = settings["algorithm"]
    return {
        "default_settings": {
            "trainer_type": algorithm,
            "hyperparameters": HYPERPARAMETERS[algorithm](settings)
            | {
                "learning_rate": settings["learning_rate"],
                "learning_rate_schedule": "linear" if settings["decay"] else "constant",
                "max_grad_norm": settings["max_grad_norm"],
            },
            "network_settings": {
                "hidden_units": settings["layers"][0],
                "num_layers": len(settings["layers"]),
                "activation": settings["activation"],
                "initialization": "torch" if algorithm == "sac" else "orthogonal",
                "vis_encode_type": "nature_cnn",
                "memory": memory_of(settings),
            },
            "reward_signals": {"extrinsic": {"gamma": settings["gamma"]}},
            "time_horizon": 1024,
            "max_steps": settings["steps"],
        },
        "env_settings": {
            "env_path": f"gymnasium:{settings['environment']}",
            "atari": settings.get("atari", False),
            "num_areas": settings["environments"],
            "seed": settings["seed"],
        },
        "torch_settings": {"device": "cpu", "threads": 1, "plain": settings.get("plain", False)},
    }


def train(settings: dict[str, Any]) -> dict[str, Any]:
    """Train and report."""
    stopwatch, memory = Stopwatch(), Memory(settings.get("memory_at", []))
    plugins: list[object] = [stopwatch]
    if not settings.get("frames"):  # `network_settings` has the layers behind images.
        plugins.append(Layers(settings["layers"]))
    if memory.steps:
        plugins.append(memory)
    if "stop_at" in settings:
        plugins.append(Goal(settings["stop_at"]))
    config = settings.get("config") or configuration(settings)
    if isinstance(config, str):
        config = Path(__file__).with_name(config)
    if not settings.get("array_arithmetic", True):
        for optimizer in (PPOOptimizer, A2COptimizer, DQNOptimizer, SACOptimizer):
            optimizer.array_arithmetic = False
    run = mlhooks.train(config, seed=settings["seed"], plugins=plugins)
    (trainer,) = run.trainers.values()
    timers = run.timers.as_dict()["children"]
    return {
        "steps": stopwatch.steps,
        "loop_seconds": stopwatch.ended - stopwatch.started,
        "loop_cpu_seconds": stopwatch.computed - stopwatch.computed_before,
        "mean_return": trainer.mean_reward,
        "mib": memory.mib,
        "timers": {name: timer["total"] for name, timer in timers.items()},
    }


if __name__ == "__main__":
    script(train, "mlhooks")
