"""One run of Tianshou for `speed.py`: its procedural interface, with `DummyVectorEnv` and trainers as it documents."""

from __future__ import annotations

import contextlib
import math
from time import perf_counter
from typing import Any

import gymnasium
import numpy as np
import torch
from adapter import ACTIVATIONS, ReachedError, Returns, orthogonal, rounds, script, single_environment
from gymnasium import spaces
from tianshou.algorithm import A2C, DQN, PPO
from tianshou.algorithm.algorithm_base import Algorithm
from tianshou.algorithm.modelfree.dqn import DiscreteQLearningPolicy
from tianshou.algorithm.modelfree.reinforce import DiscreteActorPolicy, ProbabilisticActorPolicy
from tianshou.algorithm.optim import AdamOptimizerFactory, LRSchedulerFactoryLinear
from tianshou.data import Collector, CollectStats, VectorReplayBuffer
from tianshou.env import DummyVectorEnv
from tianshou.trainer import OffPolicyTrainerParams, OnPolicyTrainerParams
from tianshou.utils.net.common import Net
from tianshou.utils.net.continuous import ContinuousActorProbabilistic, ContinuousCritic
from tianshou.utils.net.discrete import DiscreteActor, DiscreteCritic
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal


def environments(settings: dict[str, Any], returns: Returns) -> DummyVectorEnv:
    """Return copies in one process, that all tell their returns."""

    def one() -> gymnasium.Env[Any, Any]:
        env = single_environment(settings["environment"])
        env.return_queue = returns.recent
        return env

    envs = DummyVectorEnv([one] * settings["environments"])
    envs.seed(settings["seed"])
    return envs


def gaussian(parameters: tuple[Tensor, Tensor]) -> Distribution:
    """Return the distribution of continuous actions."""
    return Independent(Normal(*parameters), 1)


def net(settings: dict[str, Any], env: gymnasium.Env[Any, Any], outputs: int = 0) -> Net:
    """Return hidden layers, and an output layer where asked for."""
    return Net(
        state_shape=env.observation_space.shape,
        action_shape=outputs,
        hidden_sizes=settings["layers"],
        activation=ACTIVATIONS[settings["activation"]],
    )


def initialize(network: nn.Module, gain: float) -> None:
    """Set orthogonal weights: of gain sqrt(2), and `gain` in the last layer."""
    *hidden, last = (layer for layer in network.modules() if isinstance(layer, nn.Linear))
    for layer in hidden:
        orthogonal(layer, math.sqrt(2.0))
    orthogonal(last, gain)


def on_policy(settings: dict[str, Any], env: gymnasium.Env[Any, Any], rows: int) -> Algorithm:
    """Train by PPO or A2C."""
    discrete = isinstance(env.action_space, spaces.Discrete)
    shared: dict[str, Any] = {"preprocess_net": net(settings, env)}
    if discrete:
        actor = DiscreteActor(**shared, action_shape=env.action_space.n, softmax_output=False)
        policy = DiscreteActorPolicy(actor=actor, action_space=env.action_space)
        critic = DiscreteCritic(preprocess_net=net(settings, env))
    else:
        actor = ContinuousActorProbabilistic(**shared, action_shape=env.action_space.shape, unbounded=True)
        policy = ProbabilisticActorPolicy(actor=actor, dist_fn=gaussian, action_space=env.action_space)
        critic = ContinuousCritic(preprocess_net=net(settings, env))
    initialize(actor, 0.01)
    initialize(critic, 1.0)
    optimizer = AdamOptimizerFactory(lr=settings["learning_rate"], eps=1e-5)
    if settings["decay"]:
        optimizer.with_lr_scheduler_factory(LRSchedulerFactoryLinear(1, rounds(settings) * rows, rows))
    learner: dict[str, Any] = {
        "policy": policy,
        "critic": critic,
        "optim": optimizer,
        "vf_coef": 0.5,
        "ent_coef": settings["entropy"],
        "max_grad_norm": settings["max_grad_norm"],
        "gae_lambda": settings["lambda"],
        "gamma": settings["gamma"],
        "max_batchsize": rows,
    }
    if settings["algorithm"] == "a2c":
        return A2C(**learner)
    normalize = settings.get("normalize_advantages", True)
    return PPO(**learner, eps_clip=settings["clip"], advantage_normalization=normalize)


def dqn(settings: dict[str, Any], env: gymnasium.Env[Any, Any]) -> DQN[Any]:
    """Train by deep Q-learning."""
    network = net(settings, env, int(env.action_space.n))
    return DQN(
        policy=DiscreteQLearningPolicy(model=network, action_space=env.action_space, eps_training=1.0),
        optim=AdamOptimizerFactory(lr=settings["learning_rate"]),
        gamma=settings["gamma"],
        target_update_freq=settings["target_update_interval"] // settings["steps_per_update"],
        is_double=False,
        huber_loss_delta=1.0,
    )


def train(settings: dict[str, Any]) -> dict[str, Any]:
    """Train and report."""
    np.random.seed(settings["seed"])  # noqa: NPY002 - Tianshou does so.
    torch.manual_seed(settings["seed"])
    returns, off_policy, steps = Returns(settings), settings["algorithm"] == "dqn", 0
    envs, env = environments(settings, returns), gymnasium.make(settings["environment"])
    rows = settings["steps_per_update"] if off_policy else settings["environments"] * settings["rollout"]
    algorithm = dqn(settings, env) if off_policy else on_policy(settings, env, rows)
    size = settings["buffer_size"] if off_policy else rows
    buffer = VectorReplayBuffer(size, settings["environments"])
    collector: Collector[CollectStats] = Collector(algorithm, envs, buffer, exploration_noise=off_policy)
    collector.reset()

    def before(_: int, step: int) -> None:
        nonlocal steps
        steps = step
        if returns.reached:
            raise ReachedError
        if off_policy:
            share = min((step + settings["learning_starts"]) / settings["exploration_steps"], 1.0)
            algorithm.policy.set_eps_training(1.0 + share * (settings["final_epsilon"] - 1.0))

    shared: dict[str, Any] = {
        "training_collector": collector,
        "max_epochs": 1,
        "collection_step_num_env_steps": rows,
        "batch_size": settings["batch_size"],
        "training_fn": before,
        "show_progress": False,
        "verbose": False,
    }
    started = perf_counter()
    with contextlib.suppress(ReachedError):
        if off_policy:
            collector.collect(n_step=settings["learning_starts"], random=True)
            steps = settings["steps"] - settings["learning_starts"]
            each = 1.0 / settings["steps_per_update"]
            shared |= {"epoch_num_steps": steps, "update_step_num_gradient_steps_per_sample": each}
            algorithm.run_training(OffPolicyTrainerParams(**shared))
            steps = settings["steps"]
        else:
            shared |= {"epoch_num_steps": rounds(settings) * rows, "update_step_num_repetitions": settings["epochs"]}
            algorithm.run_training(OnPolicyTrainerParams(**shared))
            steps = rounds(settings) * rows
    return {"steps": steps, "loop_seconds": perf_counter() - started, "mean_return": returns.mean}


if __name__ == "__main__":
    script(train, "tianshou")
