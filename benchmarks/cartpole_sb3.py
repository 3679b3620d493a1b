"""One run of Stable-Baselines3 for `ppo_cartpole.py`: its own PPO, as its documentation shows it."""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env


def main(settings: dict[str, Any]) -> dict[str, Any]:
    """Train and report."""
    torch.set_num_threads(1)
    # A DummyVecEnv of environments that are wrapped in a Monitor each. MlpPolicy has two networks of 64x64 tanh units.
    environments = make_vec_env("CartPole-v1", n_envs=settings["environments"], seed=settings["seed"])
    model = PPO(
        "MlpPolicy",
        environments,
        n_steps=settings["rollout"],
        batch_size=settings["batch_size"],
        n_epochs=settings["epochs"],
        learning_rate=settings["learning_rate"],
        gamma=settings["gamma"],
        gae_lambda=settings["lambda"],
        clip_range=settings["clip"],
        ent_coef=0.0,
        vf_coef=0.5,
        max_grad_norm=settings["max_grad_norm"],
        seed=settings["seed"],
        device="cpu",
    )
    started = perf_counter()
    model.learn(settings["steps"])
    ended = perf_counter()
    returns = [episode["r"] for episode in model.ep_info_buffer]  # of the last 100 episodes
    return {
        "steps": model.num_timesteps,
        "updates": model.num_timesteps // (settings["environments"] * settings["rollout"]),
        "loop_seconds": ended - started,
        "mean_return": sum(returns) / len(returns),
        "versions": {name: version(name) for name in ("stable-baselines3", "torch", "numpy", "gymnasium")},
    }


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(main(json.loads(sys.argv[1]))), encoding="utf-8")
