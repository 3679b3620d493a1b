"""One run of Stable-Baselines3 for `speed.py`: its own algorithms, as its documentation shows them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from time import perf_counter
from typing import Any

import ale_py
import gymnasium
from adapter import ACTIVATIONS, Returns, script
from gymnasium import spaces
from stable_baselines3 import A2C, DQN, PPO, SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_atari_env, make_vec_env
from stable_baselines3.common.torch_layers import NatureCNN
from stable_baselines3.common.vec_env import VecEnv, VecFrameStack
from torch import nn


class Goal(BaseCallback):
    """Ends the run when it reached what it was to reach."""

    def __init__(self, returns: Returns) -> None:
        super().__init__()
        self.returns = returns

    def _on_step(self) -> bool:
        self.returns.add(info["episode"]["r"] for info in self.locals["infos"] if "episode" in info)
        return not self.returns.reached


class Frames(NatureCNN):
    """Stable-Baselines3's Nature CNN and the layers behind it, which actor and critic share."""

    def __init__(self, observation_space: spaces.Box, layers: list[int]) -> None:
        super().__init__(observation_space, features_dim=layers[-1])
        hidden = ((nn.Linear(a, b), nn.ReLU()) for a, b in pairwise([layers[-1], *layers]))
        self.linear.extend(part for pair in hidden for part in pair)


def soft_actor_critic(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of SAC, which learns the weight of the entropy by default."""
    return {
        "policy": "MlpPolicy",
        "env": make_vec_env(settings["environment"], n_envs=settings["environments"], seed=settings["seed"]),
        "learning_rate": settings["learning_rate"],
        "gamma": settings["gamma"],
        "tau": settings["tau"],
        "buffer_size": settings["buffer_size"],
        "batch_size": settings["batch_size"],
        "learning_starts": settings["learning_starts"],
        "train_freq": settings["steps_per_update"],
        "gradient_steps": 1,
        "seed": settings["seed"],
        "device": "cpu",
        "policy_kwargs": {"net_arch": settings["layers"], "activation_fn": ACTIVATIONS[settings["activation"]]},
    }


def vectorized(settings: dict[str, Any]) -> VecEnv:
    """Return the environments, with the usual preprocessing and a stack of four frames where they are Atari games."""
    name, copies, seed = settings["environment"], settings["environments"], settings["seed"]
    if settings.get("atari"):
        gymnasium.register_envs(ale_py)
        return VecFrameStack(make_atari_env(name, n_envs=copies, seed=seed), n_stack=4)
    return make_vec_env(name, n_envs=copies, seed=seed)


def model(settings: dict[str, Any]) -> BaseAlgorithm:
    """Return the algorithm on a DummyVecEnv of environments that are wrapped in a Monitor each."""
    if settings["algorithm"] == "sac":
        return SAC(**soft_actor_critic(settings))
    environments = vectorized(settings)

    def schedule(value: float) -> float | Callable[[float], float]:
        return (lambda remaining: value * remaining) if settings["decay"] else value

    common = {
        "policy": "CnnPolicy" if settings.get("frames") else "MlpPolicy",
        "env": environments,
        "learning_rate": schedule(settings["learning_rate"]),
        "gamma": settings["gamma"],
        "max_grad_norm": settings["max_grad_norm"],
        "seed": settings["seed"],
        "device": "cpu",
        "policy_kwargs": {"net_arch": settings["layers"], "activation_fn": ACTIVATIONS[settings["activation"]]},
    }
    if settings.get("frames"):
        common["policy_kwargs"] = {
            "net_arch": [],
            "features_extractor_class": Frames,
            "features_extractor_kwargs": {"layers": settings["layers"]},
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
    common |= {"n_steps": settings["rollout"], "gae_lambda": settings["lambda"], "ent_coef": settings["entropy"]}
    if settings["algorithm"] == "a2c":
        return A2C(**common, use_rms_prop=False)  # Adam, as the others
    return PPO(
        **common,
        batch_size=settings["batch_size"],
        n_epochs=settings["epochs"],
        clip_range=schedule(settings["clip"]),
    )


def train(settings: dict[str, Any]) -> dict[str, Any]:
    """Train and report."""
    learner, returns = model(settings), Returns(settings)
    started = perf_counter()
    learner.learn(settings["steps"], callback=Goal(returns) if "stop_at" in settings else None)
    seconds = perf_counter() - started
    if "stop_at" not in settings:
        returns.add(episode["r"] for episode in learner.ep_info_buffer)  # These are the last 100.
    return {"steps": learner.num_timesteps, "loop_seconds": seconds, "mean_return": returns.mean}


if __name__ == "__main__":
    script(train, "stable-baselines3")
