"""One run of SBX for `speed.py`: Stable-Baselines3's SAC in JAX, on one thread, as its documentation shows it."""

from __future__ import annotations

import os

# JAX reads it when it is imported.
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"

from time import perf_counter
from typing import Any

from adapter import Returns, script
from flax import linen
from sbx import SAC
from speed_sb3 import soft_actor_critic

ACTIVATIONS = {"tanh": linen.tanh, "relu": linen.relu}


def train(settings: dict[str, Any]) -> dict[str, Any]:
    """Train and report."""
    arguments, returns = soft_actor_critic(settings), Returns(settings)
    arguments["policy_kwargs"]["activation_fn"] = ACTIVATIONS[settings["activation"]]
    learner = SAC(**arguments)
    started = perf_counter()
    learner.learn(settings["steps"])
    seconds = perf_counter() - started
    returns.add(episode["r"] for episode in learner.ep_info_buffer)
    return {"steps": learner.num_timesteps, "loop_seconds": seconds, "mean_return": returns.mean}


if __name__ == "__main__":
    script(train, "sbx-rl", "jax")
