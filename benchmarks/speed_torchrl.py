"""One run of TorchRL for `speed.py`: a collector, a buffer and a loss module in a loop, as its examples have it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from functools import partial
from time import perf_counter
from typing import Any

import gymnasium
import torch
from adapter import Returns, layers, rounds, script
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from tensordict import TensorDict
from tensordict.nn import AddStateIndependentNormalScale, TensorDictModule, TensorDictSequential
from torch import nn
from torch.distributions import Categorical
from torchrl.collectors import Collector
from torchrl.data import Composite, LazyTensorStorage, TensorDictReplayBuffer
from torchrl.data.replay_buffers.samplers import SamplerWithoutReplacement
from torchrl.envs import EnvBase, GymWrapper, RewardSum, TransformedEnv
from torchrl.modules import EGreedyModule, IndependentNormal, ProbabilisticActor, QValueActor, ValueOperator
from torchrl.objectives import A2CLoss, ClipPPOLoss, DQNLoss, HardUpdate
from torchrl.objectives.value import GAE


def environment(settings: dict[str, Any]) -> EnvBase:
    """Return Gymnasium's vector environment, wrapped, with returns.

    TorchRL's own `SerialEnv` steps copies at a third of this speed; and it refuses vector environments that reset a
    copy in the step after an episode's end, as the vectorized CartPole does.
    """
    name, copies = settings["environment"], settings["environments"]
    one = partial(gymnasium.make, name)
    many = SyncVectorEnv([one] * copies, autoreset_mode=AutoresetMode.DISABLED) if copies > 1 else one()
    env = TransformedEnv(GymWrapper(many, categorical_action_encoding=True), RewardSum())
    env.set_seed(settings["seed"])
    return env


def actor_critic(settings: dict[str, Any], env: EnvBase) -> tuple[ProbabilisticActor, ValueOperator]:
    """Separate networks."""
    inputs = env.observation_spec["observation"].shape[-1]
    action = env.action_spec_unbatched
    critic = ValueOperator(nn.Sequential(*layers(settings, inputs, 1, 1.0)), in_keys=["observation"])
    discrete = not action.dtype.is_floating_point
    outputs = action.space.n if discrete else action.shape[-1]
    network = layers(settings, inputs, outputs, 0.01) + ([] if discrete else [AddStateIndependentNormalScale(outputs)])
    keys = ["logits"] if discrete else ["loc", "scale"]
    actor = ProbabilisticActor(
        TensorDictModule(nn.Sequential(*network), in_keys=["observation"], out_keys=keys),
        in_keys=keys,
        spec=Composite(action=action),
        distribution_class=Categorical if discrete else IndependentNormal,
        return_log_prob=True,
    )
    return actor, critic


def batches(settings: dict[str, Any], env: EnvBase, policy: nn.Module, frames: int, returns: Returns) -> Iterator[Any]:
    """Yield what the collector gathers, `frames` at a time."""
    total = -(-settings["steps"] // frames) * frames
    collector = Collector(env, policy, frames_per_batch=frames, total_frames=total)
    for data in collector:
        following = data["next"]
        returns.add(following["episode_reward"][following["done"]].tolist())
        yield data
        collector.update_policy_weights_()
    collector.shutdown()


def on_policy(settings: dict[str, Any], env: EnvBase, returns: Returns) -> Iterator[int]:
    """Train by PPO or A2C, and yield the steps of each rollout that was learned from."""
    actor, critic = actor_critic(settings, env)
    frames = settings["environments"] * settings["rollout"]
    advantage = GAE(gamma=settings["gamma"], lmbda=settings["lambda"], value_network=critic, average_gae=False)
    shared = {"loss_critic_type": "l2", "entropy_coeff": settings["entropy"], "critic_coeff": 0.5}
    if settings["algorithm"] == "a2c":
        loss = A2CLoss(actor, critic, **shared)
    else:
        loss = ClipPPOLoss(actor, critic, clip_epsilon=settings["clip"], normalize_advantage=True, **shared)
    optimizer = torch.optim.Adam(loss.parameters(), lr=settings["learning_rate"], eps=1e-5)
    sampler, storage = SamplerWithoutReplacement(), LazyTensorStorage(frames)
    buffer = TensorDictReplayBuffer(storage=storage, sampler=sampler, batch_size=settings["batch_size"])
    for number, data in enumerate(batches(settings, env, actor, frames, returns)):
        if settings["decay"]:
            optimizer.param_groups[0]["lr"] = settings["learning_rate"] * (1.0 - number / rounds(settings))
        with torch.no_grad():
            advantage(data)
        buffer.extend(data.reshape(-1))
        for _ in range(settings["epochs"]):
            for batch in buffer:
                step(loss(batch), loss, optimizer, settings)
        yield frames


def step(losses: TensorDict, loss: nn.Module, optimizer: torch.optim.Optimizer, settings: dict[str, Any]) -> None:
    """Go backwards, and take a step."""
    sum(value for key, value in losses.items() if key.startswith("loss")).backward()
    nn.utils.clip_grad_norm_(loss.parameters(), settings["max_grad_norm"])
    optimizer.step()
    optimizer.zero_grad()


def dqn(settings: dict[str, Any], env: EnvBase, returns: Returns) -> Iterator[int]:
    """Train by deep Q-learning, and yield the steps between two updates."""
    frames, action = settings["steps_per_update"], env.action_spec_unbatched
    network = layers(settings, env.observation_spec["observation"].shape[-1], action.space.n)
    values = QValueActor(nn.Sequential(*network), in_keys=["observation"], spec=action)
    explore = EGreedyModule(
        annealing_num_steps=settings["exploration_steps"],
        eps_init=1.0,
        eps_end=settings["final_epsilon"],
        spec=values.spec,
    )
    loss = DQNLoss(values, loss_function="smooth_l1", delay_value=True, action_space=action)
    loss.make_value_estimator(gamma=settings["gamma"])
    target = HardUpdate(loss, value_network_update_interval=settings["target_update_interval"] // frames)
    optimizer = torch.optim.Adam(loss.parameters(), lr=settings["learning_rate"])
    storage = LazyTensorStorage(settings["buffer_size"])
    buffer = TensorDictReplayBuffer(storage=storage, batch_size=settings["batch_size"])
    steps = 0
    for data in batches(settings, env, TensorDictSequential(values, explore), frames, returns):
        explore.step(frames)
        buffer.extend(data.reshape(-1))
        steps += frames
        if steps > settings["learning_starts"]:
            step(loss(buffer.sample()), loss, optimizer, settings)
            target.step()
        yield frames


def train(settings: dict[str, Any]) -> dict[str, Any]:
    """Train and report."""
    warnings.filterwarnings("ignore")
    torch.manual_seed(settings["seed"])
    env, returns, steps = environment(settings), Returns(settings), 0
    started = perf_counter()
    for frames in (dqn if settings["algorithm"] == "dqn" else on_policy)(settings, env, returns):
        steps += frames
        if returns.reached:
            break
    return {"steps": steps, "loop_seconds": perf_counter() - started, "mean_return": returns.mean}


if __name__ == "__main__":
    script(train, "torchrl", "tensordict")
