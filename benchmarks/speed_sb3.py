"""One run of Stable-Baselines3 for `speed.py`: its own algorithms, as its documentation shows them."""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.env_util import make_vec_env

ACTIVATIONS = {"tanh": torch.nn.Tanh, "relu": torch.nn.ReLU}


def model(settings: dict[str, Any]) -> BaseAlgorithm:
    """The algorithm on a DummyVecEnv of environments that are wrapped in a Monitor each."""
    environments = make_vec_env(settings["environment"], n_envs=settings["environments"], seed=settings["seed"])
    common = {
        "policy": "MlpPolicy",
        "env": environments,
        "learning_rate": settings["learning_rate"],
        "gamma": settings["gamma"],
        "max_grad_norm": settings["max_grad_norm"],
        "seed": settings["seed"],
        "device": "cpu",
        "policy_kwargs": {
            "net_arch": [settings["hidden_units"]] * 2,
            "activation_fn": ACTIVATIONS[settings["activation"]],
        },
    }
    if settings["algorithm"] == "dqn":
        return DQN(
            **common,
            buffer_size=settings["buffer_size"],
            batch_size=settings["batch_size"],
            learning_starts=settings["learning_starts"],
            train_freq=settings["steps_per_update"],
            gradient_steps=1,
            target_update_interval=settings["target_update_interval"],
            exploration_fraction=settings["exploration_steps"] / settings["steps"],
            exploration_final_eps=settings["final_epsilon"],
        )
    on_policy = {"n_steps": settings["rollout"], "gae_lambda": settings["lambda"], "ent_coef": 0.0, "vf_coef": 0.5}
    if settings["algorithm"] == "a2c":
        return A2C(**common, **on_policy, use_rms_prop=False)  # Adam, as in mlhooks
    return PPO(
        **common,
        **on_policy,
        batch_size=settings["batch_size"],
        n_epochs=settings["epochs"],
        clip_range=settings["clip"],
    )


def main(settings: dict[str, Any]) -> dict[str, Any]:
    """Train and report."""
    torch.set_num_threads(1)
    learner = model(settings)
    started = perf_counter()
    learner.learn(settings["steps"])
    ended = perf_counter()
    returns = [episode["r"] for episode in learner.ep_info_buffer]  # of the last 100 episodes
    return {
        "steps": learner.num_timesteps,
        "loop_seconds": ended - started,
        "mean_return": sum(returns) / len(returns),
        "versions": {name: version(name) for name in ("stable-baselines3", "torch", "numpy", "gymnasium")},
    }


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(main(json.loads(sys.argv[1]))), encoding="utf-8")
