"""One run of Stable-Baselines3 for `learning_results.py`: the settings of an mlhooks configuration, in its words."""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from stable_baselines3 import DQN, PPO, SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

ACTIVATIONS = {"tanh": torch.nn.Tanh, "relu": torch.nn.ReLU}


def model(options: dict[str, Any], seed: int) -> BaseAlgorithm:
    """Return the algorithm with the settings of the configuration's one behavior.

    Raises:
        ValueError: a setting has no equal there.
    """
    (behavior,) = options["behaviors"].values()
    h, network = behavior["hyperparameters"], behavior["network_settings"]
    linear = {name for name, kind in h.items() if kind == "linear"} - {"exploration_schedule", "learning_rate_schedule"}
    if network["normalize"] or linear:
        raise ValueError(f"not the same settings: normalize {network['normalize']}, linear {sorted(linear)}")
    rate, falls = h["learning_rate"], h["learning_rate_schedule"] == "linear"
    areas = options["env_settings"]["num_areas"]
    common = {
        "policy": "MlpPolicy",
        "env": make_vec_env(environment(options), n_envs=areas, seed=seed),
        "learning_rate": (lambda remaining: rate * remaining) if falls else rate,
        "batch_size": h["batch_size"],
        "seed": seed,
        "device": "cpu",
        "policy_kwargs": {
            "net_arch": network.get("hidden_layers") or [network["hidden_units"]] * network["num_layers"],
            "activation_fn": ACTIVATIONS[network["activation"]],
        },
    }
    if behavior["trainer_type"] == "sac":
        if not h["twin_targets"] or h["max_grad_norm"] is not None:
            raise ValueError("not the same settings: Stable-Baselines3 has twin targets, and clips no gradients")
        return SAC(
            **common,
            gamma=behavior["reward_signals"]["extrinsic"]["gamma"],
            n_steps=h["n_step"],
            buffer_size=h["buffer_size"],
            learning_starts=h["buffer_init_steps"],
            train_freq=max(h["update_interval"], int(h["steps_per_update"])),
            gradient_steps=int(max(h["update_interval"], int(h["steps_per_update"])) / h["steps_per_update"]),
            tau=h["tau"],
            ent_coef=f"auto_{h['init_entcoef']}",
        )
    common["max_grad_norm"] = h["max_grad_norm"]
    if behavior["trainer_type"] == "dqn":
        frequency = max(h["update_interval"], int(h["steps_per_update"]))
        return DQN(
            **common,
            gamma=h["gamma"],
            n_steps=h["n_step"],
            buffer_size=h["buffer_size"],
            learning_starts=h["buffer_init_steps"],
            train_freq=frequency,
            gradient_steps=int(frequency / h["steps_per_update"]),
            tau=h["tau"],
            target_update_interval=h["target_update_interval"],
            exploration_fraction=h["exploration_steps"] / behavior["max_steps"],
            exploration_initial_eps=h["exploration_initial_eps"],
            exploration_final_eps=h["exploration_final_eps"],
        )
    return PPO(
        **common,
        gamma=behavior["reward_signals"]["extrinsic"]["gamma"],
        n_steps=h["buffer_size"] // areas,
        n_epochs=h["num_epoch"],
        gae_lambda=h["lambd"],
        clip_range=h["epsilon"],
        ent_coef=h["beta"],
    )


def environment(options: dict[str, Any]) -> str:
    """Return the Gymnasium id."""
    return str(options["env_settings"]["env_path"]).removeprefix("gymnasium:")


def main(settings: dict[str, Any]) -> dict[str, Any]:
    """Train and score."""
    torch.set_num_threads(1)
    options, seed = settings["options"], settings["seed"]
    learner = model(options, seed)
    (behavior,) = options["behaviors"].values()
    started = perf_counter()
    learner.learn(behavior["max_steps"])
    seconds = perf_counter() - started
    training = [episode["r"] for episode in learner.ep_info_buffer]  # These are of the last 100 episodes.
    scoring = make_vec_env(environment(options), n_envs=1, seed=seed + 1000)
    returns, _ = evaluate_policy(
        learner, scoring, n_eval_episodes=settings["episodes"], deterministic=True, return_episode_rewards=True
    )
    return {
        "seed": seed,
        "steps": learner.num_timesteps,
        "training": round(float(np.mean(training)), 3),
        "evaluation": round(float(np.mean(returns)), 3),
        "deviation": round(float(np.std(returns)), 3),
        "minimum": round(float(np.min(returns)), 3),
        "seconds": round(seconds, 1),
        "version": version("stable-baselines3"),
    }


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(main(json.loads(sys.argv[1]))), encoding="utf-8")
