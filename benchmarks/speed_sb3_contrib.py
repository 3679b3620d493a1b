"""One run of SB3-Contrib's RecurrentPPO for `speed.py`, as its documentation shows it."""

from __future__ import annotations

from time import perf_counter
from typing import Any

from adapter import ACTIVATIONS, Returns, script
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.env_util import make_vec_env


def train(settings: dict[str, Any]) -> dict[str, Any]:
    """Train with a memory of actor and critic each, and report."""
    learner = RecurrentPPO(
        "MlpLstmPolicy",
        make_vec_env(settings["environment"], n_envs=settings["environments"], seed=settings["seed"]),
        learning_rate=settings["learning_rate"],
        gamma=settings["gamma"],
        gae_lambda=settings["lambda"],
        ent_coef=settings["entropy"],
        max_grad_norm=settings["max_grad_norm"],
        n_steps=settings["rollout"],
        batch_size=settings["batch_size"],
        n_epochs=settings["epochs"],
        clip_range=settings["clip"],
        seed=settings["seed"],
        device="cpu",
        policy_kwargs={
            "lstm_hidden_size": settings["memory_units"],
            "net_arch": settings["layers"],
            "activation_fn": ACTIVATIONS[settings["activation"]],
        },
    )
    returns = Returns(settings)
    started = perf_counter()
    learner.learn(settings["steps"])
    seconds = perf_counter() - started
    returns.add(episode["r"] for episode in learner.ep_info_buffer)
    return {"steps": learner.num_timesteps, "loop_seconds": seconds, "mean_return": returns.mean}


if __name__ == "__main__":
    script(train, "sb3-contrib")
